// The picture: window, zoom, pan, flip, rotation, measuring, magnifier, and what the model localized.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Answer, Case, Evidence } from "../api.ts";
import { pictureBlob } from "../api.ts";
import { t } from "../i18n/index.ts";
import { applyWindow, draggedWindow, PERCENTILE_PRESETS, percentileWindow, type Pixels, type Window } from "./pixels.ts";
import * as geometry from "./view.ts";

type Props = { item: Case; answer: Answer | null };
type Drag = { kind: "window" | "pan" | "measure"; last: geometry.Point; id: number };

const STEP = 1.25;
const COLORS = ["#ffb000", "#4cc9f0", "#f72585", "#80ed99", "#c77dff"];

/** Decodes a PNG into gray values, or colors where it has any. */
async function decode(blob: Blob): Promise<Pixels> {
  const bitmap = await createImageBitmap(blob);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const values = new Uint8Array(bitmap.width * bitmap.height);
  for (let index = 0; index < values.length; index++) {
    const [r, g, b] = [data[4 * index]!, data[4 * index + 1]!, data[4 * index + 2]!];
    if (r !== g || g !== b) return { width: bitmap.width, height: bitmap.height, values: null, color: data, unit: "" };
    values[index] = r;
  }
  return { width: bitmap.width, height: bitmap.height, values, color: null, unit: "" };
}

export function Viewer({ item, answer }: Props) {
  const stage = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [pixels, setPixels] = useState<Pixels | null>(null);
  const [view, setView] = useState(geometry.WHOLE_PICTURE);
  const [window, setWindow] = useState<Window>({ center: 127.5, width: 255 });
  const [inverted, setInverted] = useState(false);
  const [tool, setTool] = useState<"window" | "measure" | "magnifier">("window");
  const [line, setLine] = useState<[geometry.Point, geometry.Point] | null>(null);
  const [pointer, setPointer] = useState<geometry.Point | null>(null);
  const [opacity, setOpacity] = useState(0.6);
  const [layers, setLayers] = useState({ evidence: true, map: false });
  const [keys, setKeys] = useState(false);
  const [size, setSize] = useState<geometry.Size>({ width: 1, height: 1 });
  const drag = useRef<Drag | null>(null);
  const touches = useRef(new Map<number, geometry.Point>());
  const buffer = useRef<OffscreenCanvas | null>(null);

  const spacing = item.image.spacing;
  const aspect = geometry.pixelAspect(spacing);
  const picture = pixels ?? { width: item.image.width, height: item.image.height };
  const matrix = geometry.matrix(view, size, picture, aspect);
  const scale = geometry.fitScale(size, picture, view.turns, aspect) * view.zoom;
  const range = pixels ? percentileWindow(pixels, [0, 100]).width : 255;

  useEffect(() => {
    let stale = false;
    setPixels(null);
    setView(geometry.WHOLE_PICTURE);
    setLine(null);
    pictureBlob(item.image.image_id)
      .then(decode)
      .then((decoded) => {
        if (stale) return;
        setPixels(decoded);
        setWindow(percentileWindow(decoded, [0, 100]));
      })
      .catch(() => undefined);
    return () => {
      stale = true;
    };
  }, [item.image.image_id]);

  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setSize({ width: entry!.contentRect.width, height: entry!.contentRect.height }));
    observer.observe(stage.current!);
    return () => observer.disconnect();
  }, []);

  useEffect(() => {
    if (!pixels) return;
    const image = new ImageData(pixels.width, pixels.height);
    applyWindow(pixels, window, inverted, image.data);
    buffer.current = new OffscreenCanvas(pixels.width, pixels.height);
    buffer.current.getContext("2d")!.putImageData(image, 0, 0);
  }, [pixels, window, inverted]);

  useEffect(() => {
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
  });

  const update = (next: geometry.View) => setView(geometry.bounded(next, size, picture, aspect));
  const zoom = (factor: number, at: geometry.Point = { x: size.width / 2, y: size.height / 2 }) => update(geometry.zoomAt(view, size, at, factor));
  const preset = (index: number) => {
    const choice = PERCENTILE_PRESETS[index];
    if (choice && pixels) setWindow(percentileWindow(pixels, choice.percentiles));
  };
  const place = (event: { clientX: number; clientY: number }): geometry.Point => {
    const box = stage.current!.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const reset = () => {
    setView(geometry.WHOLE_PICTURE);
    setInverted(false);
    setLine(null);
    preset(0);
  };
  const rotate = () => update({ ...view, turns: ((view.turns + 1) % 4) as geometry.View["turns"] });
  const choose = (name: "measure" | "magnifier") => setTool(tool === name ? "window" : name);
  const fullScreen = () => void (document.fullscreenElement ? document.exitFullscreen() : stage.current!.parentElement!.requestFullscreen()).catch(() => undefined);

  const onKey = (event: KeyboardEvent) => {
    const actions: Record<string, () => void> = {
      "+": () => zoom(STEP),
      "=": () => zoom(STEP),
      "-": () => zoom(1 / STEP),
      "0": reset,
      i: () => setInverted(!inverted),
      f: () => update({ ...view, flipped: !view.flipped }),
      r: rotate,
      m: () => choose("measure"),
      g: () => choose("magnifier"),
      " ": fullScreen,
      "?": () => setKeys(!keys),
      ArrowLeft: () => update({ ...view, pan: { ...view.pan, x: view.pan.x + 40 } }),
      ArrowRight: () => update({ ...view, pan: { ...view.pan, x: view.pan.x - 40 } }),
      ArrowUp: () => update({ ...view, pan: { ...view.pan, y: view.pan.y + 40 } }),
      ArrowDown: () => update({ ...view, pan: { ...view.pan, y: view.pan.y - 40 } }),
    };
    const action = actions[event.key] ?? actions[event.key.toLowerCase()] ?? (/^[1-9]$/.test(event.key) ? () => preset(Number(event.key) - 1) : null);
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    action();
    event.preventDefault();
  };

  const onPointerDown = (event: PointerEvent) => {
    if (event.button === 2) return;
    const at = place(event);
    touches.current.set(event.pointerId, at);
    stage.current!.setPointerCapture(event.pointerId);
    const moves = event.shiftKey || event.button === 1 || touches.current.size > 1;
    const kind = moves ? "pan" : tool === "measure" ? "measure" : event.pointerType === "touch" && view.zoom > 1 ? "pan" : "window";
    if (kind === "measure") {
      const start = geometry.toPicture(matrix, at);
      setLine([start, start]);
    }
    drag.current = { kind, last: at, id: event.pointerId };
  };
  const onPointerMove = (event: PointerEvent) => {
    const at = place(event);
    setPointer(at);
    const before = touches.current.get(event.pointerId);
    if (!before || !drag.current) return;
    if (touches.current.size === 2) {
      const other = [...touches.current].find(([id]) => id !== event.pointerId)![1];
      const spread = (p: geometry.Point) => Math.hypot(p.x - other.x, p.y - other.y);
      zoom(spread(at) / Math.max(spread(before), 1), { x: (at.x + other.x) / 2, y: (at.y + other.y) / 2 });
    } else if (drag.current.kind === "pan") {
      update({ ...view, pan: { x: view.pan.x + at.x - before.x, y: view.pan.y + at.y - before.y } });
    } else if (drag.current.kind === "measure" && line) {
      setLine([line[0], geometry.toPicture(matrix, at)]);
    } else {
      setWindow(draggedWindow(window, at.x - before.x, at.y - before.y, range));
    }
    touches.current.set(event.pointerId, at);
  };
  const onPointerUp = (event: PointerEvent) => {
    touches.current.delete(event.pointerId);
    if (!touches.current.size) drag.current = null;
  };
  const onWheel = (event: WheelEvent) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 300), place(event));
  };
  useEffect(() => {
    const element = stage.current!;
    element.addEventListener("wheel", onWheel, { passive: false });
    return () => element.removeEventListener("wheel", onWheel);
  });

  const sides = geometry.turnedSides({ left: t("viewer.right"), right: t("viewer.left"), top: "", bottom: "" }, view);
  const bar = spacing ? geometry.scaleBar(scale / Math.min(...spacing), size.width) : null;
  const length = line ? (geometry.distance(line[0], line[1], spacing) ?? Math.hypot(line[0].x - line[1].x, line[0].y - line[1].y)) : 0;
  const evidence = answer?.evidence ?? [];
  const map = answer?.attention_map ?? null;

  return (
    <section class="viewer">
      <div
        ref={stage}
        class={`stage ${tool}`}
        tabIndex={0}
        role="img"
        aria-label={t("viewer.label", { name: item.name })}
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
            {layers.map && map && <AttentionGrid map={map} width={picture.width} height={picture.height} opacity={opacity} />}
            {layers.evidence && evidence.map((one, index) => <Outline key={index} evidence={one} color={COLORS[index % COLORS.length]!} opacity={opacity} />)}
          </g>
          {layers.evidence && evidence.map((one, index) => <Label key={index} evidence={one} matrix={matrix} color={COLORS[index % COLORS.length]!} />)}
          {line && <Line line={line} matrix={matrix} text={spacing ? t("viewer.millimeters", { n: length.toFixed(1) }) : t("viewer.pixels", { n: length.toFixed(0) })} />}
        </svg>
        {sides.left && <span class="side left">{sides.left}</span>}
        {sides.right && <span class="side right">{sides.right}</span>}
        {sides.top && <span class="side top">{sides.top}</span>}
        {sides.bottom && <span class="side bottom">{sides.bottom}</span>}
        <span class="status">{t("viewer.window", { center: Math.round(window.center), width: Math.round(window.width) })}</span>
        {bar && (
          <span class="scale-bar" style={{ width: `${bar.length}px` }}>
            {t("viewer.millimeters", { n: bar.millimeters })}
          </span>
        )}
        {keys && <KeyList close={() => setKeys(false)} />}
      </div>
      <div class="tools" role="toolbar">
        <button onClick={reset}>{t("viewer.fit")}</button>
        <button aria-pressed={inverted} onClick={() => setInverted(!inverted)}>{t("viewer.invert")}</button>
        <button aria-pressed={view.flipped} onClick={() => update({ ...view, flipped: !view.flipped })}>{t("viewer.flip")}</button>
        <button onClick={rotate}>{t("viewer.rotate")}</button>
        <button aria-pressed={tool === "measure"} onClick={() => choose("measure")}>{t("viewer.measure")}</button>
        <button aria-pressed={tool === "magnifier"} onClick={() => choose("magnifier")}>{t("viewer.magnifier")}</button>
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
            <input type="range" min="0.1" max="1" step="0.05" value={opacity} onInput={(event) => setOpacity(Number(event.currentTarget.value))} />
          </label>
        )}
      </div>
    </section>
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
  return <text x={at.x + 4} y={Math.max(at.y - 6, 14)} fill={color} class="evidence-label">{evidence.name}</text>;
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
      {(["keys.drag", "keys.shift", "keys.wheel", "keys.numbers", "keys.letters", "keys.slash"] as const).map((key) => <p key={key}>{t(key)}</p>)}
      <button onClick={close}>{t("keys.close")}</button>
    </div>
  );
}
