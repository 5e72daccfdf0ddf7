// The picture: slices, window, zoom, pan, flip, rotation, measuring, regions, and what the model localized.
import { signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Answer, Case, Evidence, ImageItem, Plane, Region, Slice } from "../api.ts";
import { captionOf, hasText, nameOf, t } from "../i18n/index.ts";
import { mapToShow } from "../localizable.ts";
import * as store from "../store.ts";
import { applyWindow, draggedWindow, PERCENTILE_PRESETS, percentileWindow, type Pixels, type Window } from "./pixels.ts";
import { Source } from "./source.ts";
import * as geometry from "./view.ts";

type Props = {
  item: Case;
  answer: Answer | null;
  question: string;
  /** The part of the picture that the answer is about. */
  region?: Region | null;
  /** Whether this viewer shows the current picture, and not the one next to it. */
  main: boolean;
};
type Tool = "window" | "measure" | "magnifier" | "box" | "circle";
type Drag = { kind: Tool | "pan" | "scroll"; from: geometry.Point; last: geometry.Point };
type Preset = { name: string; window: Window };
/** A measured line, which belongs to the slice that it was drawn on. */
type Measured = { ends: [geometry.Point, geometry.Point] } & Slice;

const STEP = 1.25;
const CINE = 100; // milliseconds per slice
const COLORS = ["#ffb000", "#4cc9f0", "#f72585", "#80ed99", "#c77dff"];
const SIDES: Record<string, "right" | "left"> = { R: "right", L: "left" };

/** Slices that one viewer has moved, for the other to follow. */
const scrolled = signal<{ by: number; from: string; number: number }>({ by: 0, from: "", number: 0 });
export const scrollTogether = signal(true);
const opacity = signal(0.6);

export function Viewer({ item, answer, question, region = null, main }: Props) {
  const stage = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [source, setSource] = useState<Source | null>(null);
  const [plane, setPlane] = useState<Plane>("axial");
  const [frame, setFrame] = useState(0);
  const [pixels, setPixels] = useState<Pixels | null>(null);
  const [failure, setFailure] = useState("");
  const [view, setView] = useState(geometry.WHOLE_PICTURE);
  const [window, setWindow] = useState<Window | null>(null);
  const [inverted, setInverted] = useState(false);
  const [tool, setTool] = useState<Tool>("window");
  const [measured, setMeasured] = useState<Measured | null>(null);
  const [pointer, setPointer] = useState<geometry.Point | null>(null);
  const [layers, setLayers] = useState({ evidence: true, map: true });
  const [keys, setKeys] = useState(false);
  const [playing, setPlaying] = useState(false);
  const [size, setSize] = useState<geometry.Size>({ width: 1, height: 1 });
  const drag = useRef<Drag | null>(null);
  const touches = useRef(new Map<number, geometry.Point>());
  const buffer = useRef<OffscreenCanvas | null>(null);

  const facts = source?.item ?? null;
  const frames = source?.frames(plane) ?? 1;
  const volume = frames > 1 && (facts?.series ?? false);
  const spacing = pixels?.spacing ?? (facts?.spacing_mm ? ([facts.spacing_mm[0], facts.spacing_mm[1]] as [number, number]) : item.image.spacing);
  const aspect = geometry.pixelAspect(spacing);
  const picture = pixels ?? { width: item.image.width || 1, height: item.image.height || 1 };
  const matrix = geometry.matrix(view, size, picture, aspect);
  const scale = geometry.fitScale(size, picture, view.turns, aspect) * view.zoom;
  const range = facts?.values && pixels?.unit ? facts.values.high - facts.values.low : pixels ? percentileWindow(pixels, [0, 100]).width : 255;
  const presets = presetsOf(pixels, facts);

  useEffect(() => {
    // The button that opened the picture is gone: go on with the keyboard here.
    if (main && (document.activeElement ?? document.body) === document.body) stage.current?.focus({ preventScroll: true });
  }, []);
  useEffect(() => {
    let stale = false;
    setPixels(null);
    setFailure("");
    setWindow(null);
    setInverted(false);
    setPlaying(false);
    setView(geometry.WHOLE_PICTURE);
    setMeasured(null);
    Source.open(item.image.image_id)
      .then((opened) => {
        if (stale) return;
        setPlane(opened.item?.plane ?? "axial");
        setFrame(opened.item?.frame ?? 0);
        setInverted(opened.item?.inverted ?? false);
        setSource(opened);
      })
      .catch((error) => !stale && setFailure(store.failureOf(error)));
    return () => {
      stale = true;
    };
  }, [item.image.image_id]);

  // Layout effects from here on: they run at once, others after the next frame of the screen.
  useLayoutEffect(() => {
    if (!source || source.imageId !== item.image.image_id) return;
    let stale = false;
    source
      .pixels({ frame, plane })
      .then((loaded) => {
        if (stale) return;
        setPixels(loaded);
        setFailure("");
        setWindow((now) => now ?? standardOf(source.item)?.window ?? percentileWindow(loaded, loaded.unit ? [1, 99] : [0, 100]));
        if (source.frames(plane) > 1) source.prefetch({ frame, plane });
      })
      .catch((error) => !stale && setFailure(store.failureOf(error)));
    if (main) store.slice.value = volume ? { frame, plane } : null;
    return () => {
      stale = true;
    };
  }, [source, frame, plane, volume]);

  useEffect(() => {
    if (main) store.shownWindow.value = window?.curve || window?.sigmoid ? null : window; // a question names center and width alone
  }, [window, main]);

  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setSize({ width: entry!.contentRect.width, height: entry!.contentRect.height }));
    observer.observe(stage.current!);
    return () => observer.disconnect();
  }, []);

  useLayoutEffect(() => {
    if (!pixels || !window) return;
    const image = new ImageData(pixels.width, pixels.height);
    applyWindow(pixels, window, inverted, image.data);
    if (buffer.current?.width !== pixels.width || buffer.current.height !== pixels.height) buffer.current = new OffscreenCanvas(pixels.width, pixels.height);
    buffer.current.getContext("2d")!.putImageData(image, 0, 0);
  }, [pixels, window, inverted]);

  useLayoutEffect(() => {
    const target = canvas.current!;
    const ratio = devicePixelRatio;
    target.width = Math.round(size.width * ratio);
    target.height = Math.round(size.height * ratio);
    const context = target.getContext("2d")!;
    context.imageSmoothingEnabled = scale < 3; // beyond, pixels are shown as they are
    const [a, b, c, d, e, f] = matrix;
    if (!buffer.current || !pixels) return;
    context.setTransform(a * ratio, b * ratio, c * ratio, d * ratio, e * ratio, f * ratio);
    context.drawImage(buffer.current, 0, 0);
    if (tool === "magnifier" && pointer) magnify(context, buffer.current, matrix, pointer, ratio);
    stage.current!.dataset.shown = `${plane} ${frame}`; // what the canvas shows, for tests and measurements
  }, [pixels, window, inverted, size, view, tool, pointer]);

  const goTo = (next: number, follow = true) => {
    const bounded = Math.min(Math.max(next, 0), frames - 1);
    if (bounded === frame) return;
    setFrame(bounded);
    if (follow && scrollTogether.value) scrolled.value = { by: bounded - frame, from: item.image.image_id, number: scrolled.value.number + 1 };
  };
  const { by, from, number } = scrolled.value;
  useEffect(() => {
    if (from && from !== item.image.image_id) goTo(frame + by, false);
  }, [number]);
  const wanted = main ? store.wantedSlice.value : null;
  useEffect(() => {
    if (!wanted) return;
    setPlane(wanted.plane);
    setFrame(wanted.frame);
  }, [wanted?.number]);
  useEffect(() => {
    if (!playing) return;
    const timer = setInterval(() => setFrame((now) => (now + 1) % frames), CINE);
    return () => clearInterval(timer);
  }, [playing, frames]);

  const update = (next: geometry.View) => setView(geometry.bounded(next, size, picture, aspect));
  const zoom = (factor: number, at: geometry.Point = { x: size.width / 2, y: size.height / 2 }) => update(geometry.zoomAt(view, size, at, factor));
  const usePreset = (index: number) => {
    const preset = presets[index];
    if (preset) setWindow(preset.window);
  };
  const place = (event: { clientX: number; clientY: number }): geometry.Point => {
    const box = stage.current!.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const reset = () => {
    setView(geometry.WHOLE_PICTURE);
    setInverted(facts?.inverted ?? false);
    setMeasured(null);
    if (main) store.region.value = null;
    usePreset(0);
  };
  const choosePlane = (next: Plane) => {
    const count = facts?.planes[next] ?? 1;
    setPlane(next);
    setFrame(next === facts?.plane ? facts.frame : Math.floor(count / 2));
    if (main) store.region.value = null;
  };
  const rotate = () => update({ ...view, turns: ((view.turns + 1) % 4) as geometry.View["turns"] });
  const flip = () => update({ ...view, flipped: !view.flipped });
  const pick = (name: Tool) => setTool(tool === name ? "window" : name);
  const fullScreen = () => void (document.fullscreenElement ? document.exitFullscreen() : stage.current!.parentElement!.requestFullscreen()).catch(() => undefined);
  const move = (x: number, y: number) => update({ ...view, pan: { x: view.pan.x + x, y: view.pan.y + y } });

  const onKey = (event: KeyboardEvent) => {
    const actions: Record<string, () => void> = {
      "+": () => zoom(STEP),
      "=": () => zoom(STEP),
      "-": () => zoom(1 / STEP),
      "0": reset,
      i: () => setInverted(!inverted),
      f: flip,
      r: rotate,
      m: () => pick("measure"),
      g: () => pick("magnifier"),
      b: () => pick("box"),
      o: () => pick("circle"),
      c: () => frames > 1 && setPlaying(!playing),
      " ": fullScreen,
      "?": () => setKeys(!keys),
      PageDown: () => goTo(frame + 1),
      PageUp: () => goTo(frame - 1),
      Home: () => goTo(0),
      End: () => goTo(frames - 1),
      ArrowLeft: () => move(40, 0),
      ArrowRight: () => move(-40, 0),
      ArrowUp: () => (frames > 1 ? goTo(frame - 1) : move(0, 40)),
      ArrowDown: () => (frames > 1 ? goTo(frame + 1) : move(0, -40)),
    };
    if (event.target !== stage.current) return; // of a button in the list of keys
    const action = actions[event.key] ?? actions[event.key.toLowerCase()] ?? (/^[1-9]$/.test(event.key) ? () => usePreset(Number(event.key) - 1) : null);
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    action();
    event.preventDefault();
  };

  useEffect(() => {
    if (!keys) return;
    const close = (event: KeyboardEvent) => event.key === "Escape" && setKeys(false);
    addEventListener("keydown", close); // wherever the focus is: the list is also opened by its button
    return () => removeEventListener("keydown", close);
  }, [keys]);

  const onPointerDown = (event: PointerEvent) => {
    if (event.button === 2) return;
    const at = place(event);
    touches.current.set(event.pointerId, at);
    stage.current!.setPointerCapture(event.pointerId);
    const touch = event.pointerType === "touch";
    const moves = event.shiftKey || event.button === 1 || touches.current.size > 1 || (touch && tool === "window" && view.zoom > 1);
    const kind = moves ? "pan" : touch && tool === "window" && frames > 1 ? "scroll" : tool;
    const start = geometry.toPicture(matrix, at);
    if (kind === "measure") setMeasured({ ends: [start, start], frame, plane });
    if (main && (kind === "box" || kind === "circle")) store.region.value = null;
    drag.current = { kind, from: start, last: at };
  };
  const onPointerMove = (event: PointerEvent) => {
    const at = place(event);
    if (tool === "magnifier") setPointer(at);
    const before = touches.current.get(event.pointerId);
    const current = drag.current;
    if (!before || !current) return;
    if (touches.current.size === 2) {
      const other = [...touches.current].find(([id]) => id !== event.pointerId)![1];
      const spread = (p: geometry.Point) => Math.hypot(p.x - other.x, p.y - other.y);
      zoom(spread(at) / Math.max(spread(before), 1), { x: (at.x + other.x) / 2, y: (at.y + other.y) / 2 });
    } else if (current.kind === "pan") {
      move(at.x - before.x, at.y - before.y);
    } else if (current.kind === "scroll") {
      const steps = Math.trunc((at.y - current.last.y) / 12);
      if (steps) {
        goTo(frame + steps);
        current.last = { x: at.x, y: current.last.y + 12 * steps };
      }
    } else if (current.kind === "measure") {
      setMeasured({ ends: [current.from, geometry.toPicture(matrix, at)], frame, plane });
    } else if (current.kind === "box" || current.kind === "circle") {
      if (main) store.region.value = geometry.regionBetween(current.kind, current.from, geometry.toPicture(matrix, at), picture);
    } else if (current.kind === "window" && window) {
      setWindow(draggedWindow(window, at.x - before.x, at.y - before.y, range));
    }
    touches.current.set(event.pointerId, at);
  };
  const onPointerUp = (event: PointerEvent) => {
    touches.current.delete(event.pointerId);
    if (touches.current.size) return;
    if (drag.current?.kind === "box" || drag.current?.kind === "circle") setTool("window");
    drag.current = null;
  };
  const onWheel = (event: WheelEvent) => {
    event.preventDefault();
    if (frames > 1 && !event.ctrlKey) goTo(frame + Math.sign(event.deltaY));
    else zoom(Math.exp(-event.deltaY / 300), place(event));
  };
  useEffect(() => {
    const element = stage.current!;
    element.addEventListener("wheel", onWheel, { passive: false });
    return () => element.removeEventListener("wheel", onWheel);
  });

  const letters = lettersOf(facts?.orientation[plane], facts, item);
  const sides = geometry.turnedSides(letters.sides, view);
  const bar = spacing && pixels ? geometry.scaleBar(scale / Math.min(...spacing), size.width) : null;
  const line = measured?.frame === frame && measured.plane === plane ? measured.ends : null;
  const length = line ? (geometry.distance(line[0], line[1], spacing) ?? Math.hypot(line[0].x - line[1].x, line[0].y - line[1].y)) : 0;
  const here = !volume || answer?.frame == null || (answer.frame === frame && (answer.plane ?? plane) === plane);
  const evidence = (here && answer?.evidence) || [];
  const map = here && answer ? mapToShow(question, answer) : null;
  const drawn = main ? (store.region.value ?? (here ? region : null)) : null;
  const planes = Object.keys(facts?.planes ?? {}) as Plane[];
  const current = presets.findIndex((preset) => preset.window.center === window?.center && preset.window.width === window.width && preset.window.curve === window.curve && Boolean(preset.window.sigmoid) === Boolean(window.sigmoid));

  return (
    <section class="viewer">
      <div
        ref={stage}
        class={`stage ${tool}`}
        tabIndex={0}
        role="application"
        aria-roledescription={t("viewer.tools")}
        aria-label={t("viewer.label", { name: captionOf(item.name) })}
        onKeyDown={onKey}
        onPointerDown={onPointerDown}
        onPointerMove={onPointerMove}
        onPointerUp={onPointerUp}
        onPointerCancel={onPointerUp}
        onPointerLeave={() => setPointer(null)}
        onContextMenu={(event) => event.preventDefault()}
        onDblClick={(event) => (view.zoom > 1 ? setView(geometry.WHOLE_PICTURE) : zoom(2.5, place(event)))}
      >
        <canvas ref={canvas} />
        <svg class="overlay" aria-hidden="true">
          <g transform={`matrix(${matrix.join(" ")})`}>
            {layers.map && map && <AttentionGrid map={map} width={picture.width} height={picture.height} opacity={opacity.value} />}
            {layers.evidence && evidence.map((one, index) => <Outline key={index} evidence={one} color={COLORS[index % COLORS.length]!} opacity={opacity.value} />)}
            {drawn && <RegionShape region={drawn} />}
          </g>
          {layers.evidence && evidence.map((one, index) => <Label key={index} evidence={one} matrix={matrix} color={COLORS[index % COLORS.length]!} />)}
          {line && <Line line={line} matrix={matrix} text={spacing ? t("viewer.millimeters", { n: length.toFixed(1) }) : t("viewer.pixels", { n: length.toFixed(0) })} />}
        </svg>
        {sides.left && <span class="side left">{sides.left}</span>}
        {sides.right && <span class="side right">{sides.right}</span>}
        {sides.top && <span class="side top">{sides.top}</span>}
        {sides.bottom && <span class="side bottom">{sides.bottom}</span>}
        {letters.conventional && <span class="convention">{t("viewer.conventional")}</span>}
        <span class="status">
          {frames > 1 && <b>{t("viewer.frame", { number: frame + 1, count: frames })}</b>}
          {window?.curve && <span>{t("preset.table")}</span>}
          {window && !window.curve && <span>{t("viewer.window", { center: Math.round(window.center), width: Math.round(window.width) })}</span>}
          {view.zoom > 1 && <span>{t("viewer.zoom", { percent: Math.round(100 * view.zoom) })}</span>}
        </span>
        {bar && (
          <span class="scale-bar" style={{ width: `${bar.length}px` }}>
            {t("viewer.millimeters", { n: bar.millimeters })}
          </span>
        )}
        {!pixels && <span class="loading">{failure ? t("viewer.failed", { reason: failure }) : t("viewer.loading")}</span>}
        {keys && <KeyList close={() => setKeys(false)} />}
      </div>
      {frames > 1 && (
        <div class="slices">
          <button aria-pressed={playing} onClick={() => setPlaying(!playing)}>{t(playing ? "viewer.stop" : "viewer.play")}</button>
          <input type="range" aria-label={t("viewer.slice")} min={0} max={frames - 1} value={frame} onInput={(event) => goTo(Number(event.currentTarget.value))} />
          {planes.length > 1 && (
            <select aria-label={t("viewer.plane")} value={plane} onChange={(event) => choosePlane(event.currentTarget.value as Plane)}>
              {planes.map((name) => <option key={name} value={name}>{t(`plane.${name}`)}</option>)}
            </select>
          )}
        </div>
      )}
      <div class="tools" role="toolbar" aria-label={t("viewer.tools")}>
        <select aria-label={t("viewer.preset")} value={current} onChange={(event) => usePreset(Number(event.currentTarget.value))}>
          {current < 0 && <option value={-1}>{t("viewer.preset")}</option>}
          {presets.map((preset, index) => <option key={preset.name} value={index}>{presetName(preset.name, index)}</option>)}
        </select>
        {main && <button aria-pressed={tool === "box"} onClick={() => pick("box")}>{t("viewer.box")}</button>}
        {main && <button aria-pressed={tool === "circle"} onClick={() => pick("circle")}>{t("viewer.circle")}</button>}
        <button aria-pressed={tool === "measure"} onClick={() => pick("measure")}>{t("viewer.measure")}</button>
        <button aria-pressed={tool === "magnifier"} onClick={() => pick("magnifier")}>{t("viewer.magnifier")}</button>
        <button aria-pressed={inverted} onClick={() => setInverted(!inverted)}>{t("viewer.invert")}</button>
        <button aria-pressed={view.flipped} onClick={flip}>{t("viewer.flip")}</button>
        <button onClick={rotate}>{t("viewer.rotate")}</button>
        <button onClick={reset}>{t("viewer.reset")}</button>
        <button onClick={fullScreen}>{t("viewer.full")}</button>
        <button aria-pressed={keys} onClick={() => setKeys(!keys)}>{t("viewer.keys")}</button>
        {evidence.length > 0 && (
          <button aria-pressed={layers.evidence} onClick={() => setLayers({ ...layers, evidence: !layers.evidence })}>{t("viewer.evidence")}</button>
        )}
        {map && (
          <button aria-pressed={layers.map} onClick={() => setLayers({ ...layers, map: !layers.map })}>{t("viewer.map")}</button>
        )}
        {(evidence.length > 0 || map) && (
          <label class="opacity">
            {t("viewer.opacity")}
            <input type="range" min="0.1" max="1" step="0.05" value={opacity.value} onInput={(event) => (opacity.value = Number(event.currentTarget.value))} />
          </label>
        )}
      </div>
    </section>
  );
}

/** What the server shows the values by; null where it has only a picture in 8 bits. */
function standardOf(facts: ImageItem | null): Preset | null {
  if (!facts?.window || !facts.values) return null;
  const { name, center, width } = facts.window;
  if (facts.curve) return { name: "table", window: { center, width, curve: facts.curve } };
  return { name, window: { center, width, sigmoid: facts.window.function === "sigmoid" } };
}

/** The windows of the keys 1 to 9: that of the file, then those of the modality, or percentiles of the values. */
function presetsOf(pixels: Pixels | null, facts: ImageItem | null): Preset[] {
  if (!pixels) return [];
  const standard = standardOf(facts);
  const ofModality = (facts?.windows ?? []).filter(({ center, width }) => center !== facts?.window?.center || width !== facts.window.width);
  const others = pixels.unit && facts?.windows.length
    ? ofModality.map(({ name, center, width }) => ({ name, window: { center, width } }))
    : PERCENTILE_PRESETS.map(({ name, percentiles }) => ({ name, window: percentileWindow(pixels, percentiles) }));
  return [...(standard ? [standard] : []), ...others].slice(0, 9);
}

function presetName(name: string, index: number): string {
  const key = `preset.${name}`;
  return `${index + 1} ${hasText(key) ? t(key) : name}`;
}

/** The letters at the edges: those of the files, or of a single picture by convention R at the left; none where they are not known. */
function lettersOf(letters: string[] | undefined, facts: ImageItem | null, item: Case): { sides: geometry.Sides; conventional: boolean } {
  const word = (letter = "") => (SIDES[letter] ? t(`viewer.${SIDES[letter]}`) : letter);
  if (letters?.length === 4) return { sides: { left: word(letters[0]), right: word(letters[1]), top: word(letters[2]), bottom: word(letters[3]) }, conventional: false };
  const known = item.image.plane === "sagittal" || (facts !== null && item.image.format === "DICOM" && item.image.plane);
  if (known || facts?.series || item.image.format === "NIFTI") return { sides: { left: "", right: "", top: "", bottom: "" }, conventional: false };
  return { sides: { left: word("R"), right: word("L"), top: "", bottom: "" }, conventional: true };
}

function RegionShape({ region }: { region: Region }) {
  const [width, height] = [region.right - region.left, region.bottom - region.top];
  const common = { class: "region", "vector-effect": "non-scaling-stroke" };
  return region.shape === "box" ? (
    <rect {...common} x={region.left} y={region.top} width={width} height={height} />
  ) : (
    <ellipse {...common} cx={region.left + width / 2} cy={region.top + height / 2} rx={width / 2} ry={height / 2} />
  );
}

function magnify(context: CanvasRenderingContext2D, source: OffscreenCanvas, matrix: readonly number[], pointer: geometry.Point, ratio: number) {
  const radius = 90;
  const [a, b, c, d, e, f] = matrix as [number, number, number, number, number, number];
  context.save();
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.beginPath();
  context.arc(pointer.x, pointer.y, radius, 0, 2 * Math.PI);
  context.clip();
  context.fillStyle = "#000";
  context.fillRect(pointer.x - radius, pointer.y - radius, 2 * radius, 2 * radius);
  const factor = 2.5;
  context.transform(factor, 0, 0, factor, pointer.x * (1 - factor), pointer.y * (1 - factor));
  context.transform(a, b, c, d, e, f);
  context.drawImage(source, 0, 0);
  context.restore();
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.strokeStyle = "#ffffffaa";
  context.lineWidth = 2;
  context.stroke();
}

function Outline({ evidence, color, opacity }: { evidence: Evidence; color: string; opacity: number }) {
  const path = evidence.polygon.coordinates.flatMap((rings) => rings.map((ring) => `M${ring.map((point) => point.join(" ")).join("L")}Z`)).join("");
  return <path d={path} fill={color} fill-opacity={opacity * 0.25} fill-rule="evenodd" stroke={color} stroke-opacity={opacity} stroke-width="2" vector-effect="non-scaling-stroke" />;
}

function Label({ evidence, matrix, color }: { evidence: Evidence; matrix: readonly number[]; color: string }) {
  const [left, top, right] = evidence.box;
  const at = [geometry.toStage(matrix, { x: left, y: top }), geometry.toStage(matrix, { x: right, y: top })].reduce((a, b) => (a.x < b.x ? a : b));
  return <text x={at.x + 4} y={Math.max(at.y - 6, 14)} fill={color} class="evidence-label">{nameOf(evidence.name)}</text>;
}

function Line({ line, matrix, text }: { line: [geometry.Point, geometry.Point]; matrix: readonly number[]; text: string }) {
  const [a, b] = [geometry.toStage(matrix, line[0]), geometry.toStage(matrix, line[1])];
  return (
    <g class="measure">
      <line x1={a.x} y1={a.y} x2={b.x} y2={b.y} />
      <text x={b.x + 8} y={b.y - 8}>{text}</text>
    </g>
  );
}

function AttentionGrid({ map, width, height, opacity }: { map: NonNullable<Answer["attention_map"]>; width: number; height: number; opacity: number }) {
  const most = Math.max(...map.values.flat());
  const [w, h] = [width / map.columns, height / map.rows];
  const cells = map.values.flatMap((row, y) => row.map((value, x) => ({ x, y, strength: value / most })));
  return (
    <g fill="#ffb000">
      {cells.filter(({ strength }) => strength > 0.15).map(({ x, y, strength }) => <rect key={`${x} ${y}`} x={x * w} y={y * h} width={w} height={h} fill-opacity={strength * opacity * 0.7} />)}
    </g>
  );
}

function KeyList({ close }: { close: () => void }) {
  return (
    <div class="key-list" role="dialog" aria-label={t("viewer.keys")} onPointerDown={(event) => event.stopPropagation()}>
      {(["keys.drag", "keys.shift", "keys.wheel", "keys.slices", "keys.numbers", "keys.region", "keys.letters", "keys.slash"] as const).map((key) => <p key={key}>{t(key)}</p>)}
      <button onClick={close}>{t("keys.close")}</button>
    </div>
  );
}
