// Zoom and pan run in the browser, not in Python: they must not wait for a round trip.
const MAX_ZOOM = 8;
const ZOOM_STEP = 1.4;
const DOUBLE_CLICK_ZOOM = 2.5;
const PAN_STEP = 60; // pixels
const states = new WeakMap();

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

function draw(viewer, state) {
  const stage = viewer.querySelector(".stage");
  const frame = viewer.querySelector(".frame");
  const maxX = Math.max(0, (frame.offsetWidth * state.zoom - stage.clientWidth) / 2);
  const maxY = Math.max(0, (frame.offsetHeight * state.zoom - stage.clientHeight) / 2);
  state.x = clamp(state.x, -maxX, maxX);
  state.y = clamp(state.y, -maxY, maxY);
  // The frame is centered, so zooming about its middle keeps the middle of the stage where it is.
  const left = (frame.offsetWidth * (1 - state.zoom)) / 2 + state.x;
  const top = (frame.offsetHeight * (1 - state.zoom)) / 2 + state.y;
  frame.style.transform = `translate(${left}px, ${top}px) scale(${state.zoom})`;
  stage.classList.toggle("zoomed", state.zoom > 1);
  viewer.querySelector(".zoom-level").textContent = `${Math.round(100 * state.zoom)} %`;
}

function zoomTo(viewer, state, zoom, point) {
  const stage = viewer.querySelector(".stage").getBoundingClientRect();
  const newZoom = clamp(zoom, 1, MAX_ZOOM);
  const dx = point ? point.x - stage.left - stage.width / 2 : 0;
  const dy = point ? point.y - stage.top - stage.height / 2 : 0;
  state.x = dx - ((dx - state.x) * newZoom) / state.zoom;
  state.y = dy - ((dy - state.y) * newZoom) / state.zoom;
  state.zoom = newZoom;
  draw(viewer, state);
}

function resetZoom(viewer, state) {
  Object.assign(state, { zoom: 1, x: 0, y: 0 });
  draw(viewer, state);
}

function handleKey(viewer, state, event) {
  const directions = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  if (event.key === "+" || event.key === "=") zoomTo(viewer, state, state.zoom * ZOOM_STEP);
  else if (event.key === "-") zoomTo(viewer, state, state.zoom / ZOOM_STEP);
  else if (event.key === "0") resetZoom(viewer, state);
  else if (directions[event.key] && state.zoom > 1) {
    state.x += PAN_STEP * directions[event.key][0];
    state.y += PAN_STEP * directions[event.key][1];
    draw(viewer, state);
  } else return;
  event.preventDefault();
}

function connectPointers(viewer, state) {
  const stage = viewer.querySelector(".stage");
  const pointers = new Map();
  const pinch = () => {
    const [a, b] = [...pointers.values()];
    return { distance: Math.hypot(a.x - b.x, a.y - b.y), x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  };
  stage.onpointerdown = (event) => {
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (state.zoom > 1 || pointers.size === 2) stage.setPointerCapture(event.pointerId);
  };
  stage.onpointermove = (event) => {
    const former = pointers.get(event.pointerId);
    if (!former) return;
    const formerPinch = pointers.size === 2 ? pinch() : null;
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (formerPinch) {
      const newPinch = pinch();
      zoomTo(viewer, state, (state.zoom * newPinch.distance) / Math.max(formerPinch.distance, 1), newPinch);
    } else if (state.zoom > 1) {
      stage.classList.add("panning");
      state.x += event.clientX - former.x;
      state.y += event.clientY - former.y;
      draw(viewer, state);
    }
  };
  stage.onpointerup = stage.onpointercancel = (event) => {
    pointers.delete(event.pointerId);
    stage.classList.remove("panning");
  };
}

function connect(viewer, state) {
  const stage = viewer.querySelector(".stage");
  viewer.querySelector(".zoom-in").onclick = () => zoomTo(viewer, state, state.zoom * ZOOM_STEP);
  viewer.querySelector(".zoom-out").onclick = () => zoomTo(viewer, state, state.zoom / ZOOM_STEP);
  viewer.querySelector(".zoom-reset").onclick = () => resetZoom(viewer, state);
  viewer.querySelector(".attention-toggle").onclick = () => {
    state.heatmapVisible = !state.heatmapVisible;
    applyHeatmapVisibility(viewer, state);
  };
  stage.onkeydown = (event) => handleKey(viewer, state, event);
  stage.ondblclick = (event) => {
    if (state.zoom > 1) resetZoom(viewer, state);
    else zoomTo(viewer, state, DOUBLE_CLICK_ZOOM, { x: event.clientX, y: event.clientY });
  };
  // Only with Ctrl (a pinch on a touchpad is reported the same way): the wheel alone scrolls the page.
  stage.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoomTo(viewer, state, state.zoom * Math.exp(-event.deltaY / 200), { x: event.clientX, y: event.clientY });
    },
    { passive: false },
  );
  connectPointers(viewer, state);
  state.observer = new ResizeObserver(() => draw(viewer, state));
  state.observer.observe(stage);
}

function applyHeatmapVisibility(viewer, state) {
  viewer.classList.toggle("heatmap-hidden", !state.heatmapVisible);
  viewer.querySelector(".attention-toggle").setAttribute("aria-pressed", String(state.heatmapVisible));
}

function updateLabels(viewer, data) {
  const buttons = { "zoom-in": "zoom_in", "zoom-out": "zoom_out", "zoom-reset": "zoom_reset" };
  for (const [className, key] of Object.entries(buttons)) {
    const button = viewer.querySelector(`.${className}`);
    button.setAttribute("aria-label", data.labels[key]);
    button.title = data.labels[key];
  }
  viewer.querySelector(".zoom-reset").textContent = data.labels.zoom_reset;
  viewer.querySelector(".attention-toggle .text").textContent = data.labels.attention_toggle;
  viewer.querySelector(".stage").setAttribute("aria-label", data.labels.zoom_help);
  document.documentElement.lang = data.language === "zh" ? "zh-CN" : "en";
}

function updateOutlines(viewer, data) {
  const svg = viewer.querySelector(".outlines");
  svg.setAttribute("viewBox", `0 0 ${data.width} ${data.height}`);
  const size = 0.034 * Math.max(data.width, data.height);
  const create = (tag, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
  };
  svg.replaceChildren(
    ...data.outlines.map((outline) => create("path", { d: outline.path, "fill-rule": "evenodd" }, "")),
    ...data.outlines.map((outline) =>
      create(
        "text",
        { x: Math.max(outline.left, size / 4), y: Math.max(outline.top - size / 3, size), "font-size": size },
        outline.name,
      ),
    ),
  );
}

function updateMarkers(viewer, data) {
  for (const side of ["right", "left"]) {
    const marker = viewer.querySelector(`.marker-${side}`);
    marker.textContent = data.labels[`marker_${side}`];
    marker.title = data.labels.marker_help;
    marker.hidden = !data.markers;
  }
}

function updateImages(viewer, state, data) {
  const picture = viewer.querySelector(".picture");
  const heatmap = viewer.querySelector(".heatmap");
  if (state.picture !== data.picture) Object.assign(state, { picture: data.picture, zoom: 1, x: 0, y: 0 });
  if (picture.src !== data.picture) picture.src = data.picture;
  picture.alt = data.alt;
  viewer.querySelector(".frame").style.setProperty("--ratio", data.width / data.height);
  if (data.heatmap && heatmap.src !== data.heatmap) heatmap.src = data.heatmap;
  heatmap.style.display = data.heatmap ? "" : "none";
  const overlaid = data.heatmap || data.outlines.length > 0;
  viewer.querySelector(".attention-toggle").hidden = !overlaid;
  viewer.querySelector(".caption").textContent = overlaid ? data.caption : "";
  updateOutlines(viewer, data);
  updateMarkers(viewer, data);
  const announcement = viewer.querySelector(".announcement");
  if (announcement.textContent !== data.announcement) announcement.textContent = data.announcement;
}

export default function ({ data, parentElement }) {
  const viewer = parentElement.querySelector(".viewer");
  let state = states.get(viewer);
  if (!state) {
    state = { zoom: 1, x: 0, y: 0, heatmapVisible: true, picture: null };
    states.set(viewer, state);
    connect(viewer, state);
  }
  updateLabels(viewer, data);
  updateImages(viewer, state, data);
  applyHeatmapVisibility(viewer, state);
  draw(viewer, state);
}
