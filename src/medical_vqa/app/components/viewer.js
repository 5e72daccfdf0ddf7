// Zoom and movement live here and not in Python: they must not wait for a round trip.
const LARGEST = 8;
const STEP = 1.4;
const states = new WeakMap();

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

function draw(viewer, state) {
  const stage = viewer.querySelector(".stage");
  const frame = viewer.querySelector(".frame");
  const roomX = Math.max(0, (frame.offsetWidth * state.zoom - stage.clientWidth) / 2);
  const roomY = Math.max(0, (frame.offsetHeight * state.zoom - stage.clientHeight) / 2);
  state.x = clamp(state.x, -roomX, roomX);
  state.y = clamp(state.y, -roomY, roomY);
  // The frame is centered, so that zooming about its middle keeps the middle of the stage where it is.
  const left = (frame.offsetWidth * (1 - state.zoom)) / 2 + state.x;
  const top = (frame.offsetHeight * (1 - state.zoom)) / 2 + state.y;
  frame.style.transform = `translate(${left}px, ${top}px) scale(${state.zoom})`;
  stage.classList.toggle("zoomed", state.zoom > 1);
  viewer.querySelector(".level").textContent = `${Math.round(100 * state.zoom)} %`;
}

function zoomTo(viewer, state, zoom, at) {
  const stage = viewer.querySelector(".stage").getBoundingClientRect();
  const next = clamp(zoom, 1, LARGEST);
  const dx = at ? at.x - stage.left - stage.width / 2 : 0;
  const dy = at ? at.y - stage.top - stage.height / 2 : 0;
  state.x = dx - ((dx - state.x) * next) / state.zoom;
  state.y = dy - ((dy - state.y) * next) / state.zoom;
  state.zoom = next;
  draw(viewer, state);
}

function fit(viewer, state) {
  Object.assign(state, { zoom: 1, x: 0, y: 0 });
  draw(viewer, state);
}

function keys(viewer, state, event) {
  const moves = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  if (event.key === "+" || event.key === "=") zoomTo(viewer, state, state.zoom * STEP);
  else if (event.key === "-") zoomTo(viewer, state, state.zoom / STEP);
  else if (event.key === "0") fit(viewer, state);
  else if (moves[event.key] && state.zoom > 1) {
    state.x += 60 * moves[event.key][0];
    state.y += 60 * moves[event.key][1];
    draw(viewer, state);
  } else return;
  event.preventDefault();
}

function pointers(viewer, state) {
  const stage = viewer.querySelector(".stage");
  const down = new Map();
  const spread = () => {
    const [a, b] = [...down.values()];
    return { length: Math.hypot(a.x - b.x, a.y - b.y), x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  };
  stage.onpointerdown = (event) => {
    down.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (state.zoom > 1 || down.size === 2) stage.setPointerCapture(event.pointerId);
  };
  stage.onpointermove = (event) => {
    const before = down.get(event.pointerId);
    if (!before) return;
    const old = down.size === 2 ? spread() : null;
    down.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (old) {
      const now = spread();
      zoomTo(viewer, state, (state.zoom * now.length) / Math.max(old.length, 1), now);
    } else if (state.zoom > 1) {
      stage.classList.add("moving");
      state.x += event.clientX - before.x;
      state.y += event.clientY - before.y;
      draw(viewer, state);
    }
  };
  stage.onpointerup = stage.onpointercancel = (event) => {
    down.delete(event.pointerId);
    stage.classList.remove("moving");
  };
}

function connect(viewer, state) {
  const stage = viewer.querySelector(".stage");
  viewer.querySelector(".in").onclick = () => zoomTo(viewer, state, state.zoom * STEP);
  viewer.querySelector(".out").onclick = () => zoomTo(viewer, state, state.zoom / STEP);
  viewer.querySelector(".fit").onclick = () => fit(viewer, state);
  viewer.querySelector(".look").onclick = () => {
    state.look = !state.look;
    showLook(viewer, state);
  };
  stage.onkeydown = (event) => keys(viewer, state, event);
  stage.ondblclick = (event) =>
    state.zoom > 1 ? fit(viewer, state) : zoomTo(viewer, state, 2.5, { x: event.clientX, y: event.clientY });
  // Only with Ctrl (a pinch on a touchpad comes so too): the wheel alone scrolls the page.
  stage.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoomTo(viewer, state, state.zoom * Math.exp(-event.deltaY / 200), { x: event.clientX, y: event.clientY });
    },
    { passive: false },
  );
  pointers(viewer, state);
  state.observer = new ResizeObserver(() => draw(viewer, state));
  state.observer.observe(stage);
}

function showLook(viewer, state) {
  viewer.classList.toggle("plain", !state.look);
  viewer.querySelector(".look").setAttribute("aria-pressed", String(state.look));
}

function label(viewer, data) {
  const names = { in: "zoom_in", out: "zoom_out", fit: "zoom_reset" };
  for (const [button, name] of Object.entries(names)) {
    const element = viewer.querySelector(`.${button}`);
    element.setAttribute("aria-label", data.labels[name]);
    element.title = data.labels[name];
  }
  viewer.querySelector(".fit").textContent = data.labels.zoom_reset;
  viewer.querySelector(".look .text").textContent = data.labels.look_toggle;
  viewer.querySelector(".stage").setAttribute("aria-label", data.labels.zoom_help);
  document.documentElement.lang = data.language === "zh" ? "zh-CN" : "en";
}

function place(viewer, state, data) {
  const picture = viewer.querySelector(".picture");
  const heat = viewer.querySelector(".heat");
  if (state.picture !== data.picture) Object.assign(state, { picture: data.picture, zoom: 1, x: 0, y: 0 });
  if (picture.src !== data.picture) picture.src = data.picture;
  picture.alt = data.alt;
  viewer.querySelector(".frame").style.setProperty("--ratio", data.width / data.height);
  if (data.heat && heat.src !== data.heat) heat.src = data.heat;
  heat.style.display = data.heat ? "" : "none";
  viewer.querySelector(".look").hidden = !data.heat;
  viewer.querySelector(".caption").textContent = data.heat ? data.caption : "";
  const live = viewer.querySelector(".live");
  if (live.textContent !== data.announcement) live.textContent = data.announcement;
}

export default function ({ data, parentElement }) {
  const viewer = parentElement.querySelector(".viewer");
  let state = states.get(viewer);
  if (!state) {
    state = { zoom: 1, x: 0, y: 0, look: true, picture: null };
    states.set(viewer, state);
    connect(viewer, state);
  }
  label(viewer, data);
  place(viewer, state, data);
  showLook(viewer, state);
  draw(viewer, state);
}
