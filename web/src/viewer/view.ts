// How a picture lies on the stage: zoom, pan, rotation and flip, and the maps between stage and picture.
// Stage coordinates are CSS pixels from the stage's top left corner; picture coordinates are pixels of the picture.

export type Size = { width: number; height: number };
export type Point = { x: number; y: number };

export type View = {
  /** 1 shows the whole picture. */
  zoom: number;
  /** Shift of the picture's center from the stage's, in CSS pixels. */
  pan: Point;
  /** Quarter turns, clockwise. */
  turns: 0 | 1 | 2 | 3;
  /** Mirrored from left to right, before it is turned. */
  flipped: boolean;
};

export const WHOLE_PICTURE: View = { zoom: 1, pan: { x: 0, y: 0 }, turns: 0, flipped: false };
export const MAX_ZOOM = 16;

/** CSS pixels per pixel row and column: pixels need not be square. `spacing` is millimeters of rows and of columns. */
export function pixelAspect(spacing: [number, number] | null): Point {
  if (!spacing) return { x: 1, y: 1 };
  const smaller = Math.min(...spacing);
  return { x: spacing[1] / smaller, y: spacing[0] / smaller };
}

/** CSS pixels per picture pixel at zoom 1, so that the turned picture fits the stage. */
export function fitScale(stage: Size, picture: Size, turns: number, aspect: Point): number {
  const width = picture.width * aspect.x;
  const height = picture.height * aspect.y;
  const [across, down] = turns % 2 ? [height, width] : [width, height];
  return Math.min(stage.width / across, stage.height / down);
}

/** The affine map from picture to stage, as the six numbers of CanvasRenderingContext2D.setTransform. */
export function matrix(view: View, stage: Size, picture: Size, aspect: Point): [number, number, number, number, number, number] {
  const scale = fitScale(stage, picture, view.turns, aspect) * view.zoom;
  const cos = [1, 0, -1, 0][view.turns]!;
  const sin = [0, 1, 0, -1][view.turns]!;
  const sx = scale * aspect.x * (view.flipped ? -1 : 1);
  const sy = scale * aspect.y;
  const [a, b, c, d] = [cos * sx, sin * sx, -sin * sy, cos * sy];
  const e = stage.width / 2 + view.pan.x - (a * picture.width + c * picture.height) / 2;
  const f = stage.height / 2 + view.pan.y - (b * picture.width + d * picture.height) / 2;
  return [a, b, c, d, e, f];
}

export function toStage(m: readonly number[], point: Point): Point {
  const [a, b, c, d, e, f] = m as [number, number, number, number, number, number];
  return { x: a * point.x + c * point.y + e, y: b * point.x + d * point.y + f };
}

export function toPicture(m: readonly number[], point: Point): Point {
  const [a, b, c, d, e, f] = m as [number, number, number, number, number, number];
  const determinant = a * d - b * c;
  const x = point.x - e;
  const y = point.y - f;
  return { x: (d * x - c * y) / determinant, y: (a * y - b * x) / determinant };
}

/** Zooms so that the point of the picture below the pointer stays there. */
export function zoomAt(view: View, stage: Size, pointer: Point, factor: number): View {
  const zoom = Math.min(Math.max(view.zoom * factor, 1), MAX_ZOOM);
  const change = zoom / view.zoom;
  const fromCenter = { x: pointer.x - stage.width / 2, y: pointer.y - stage.height / 2 };
  const pan = {
    x: fromCenter.x - (fromCenter.x - view.pan.x) * change,
    y: fromCenter.y - (fromCenter.y - view.pan.y) * change,
  };
  return { ...view, zoom, pan: zoom === 1 ? { x: 0, y: 0 } : pan };
}

/** Keeps at least a quarter of the stage covered by the picture. */
export function bounded(view: View, stage: Size, picture: Size, aspect: Point): View {
  const scale = fitScale(stage, picture, view.turns, aspect) * view.zoom;
  const [across, down] = view.turns % 2 ? [picture.height * aspect.y, picture.width * aspect.x] : [picture.width * aspect.x, picture.height * aspect.y];
  const limit = (length: number, room: number) => Math.max(0, (length * scale) / 2 + room / 4);
  const clamp = (value: number, most: number) => Math.min(Math.max(value, -most), most);
  return { ...view, pan: { x: clamp(view.pan.x, limit(across, stage.width)), y: clamp(view.pan.y, limit(down, stage.height)) } };
}

export type Sides = { left: string; right: string; top: string; bottom: string };

/** Orientation letters at the edges of the stage, from those of the unturned picture. */
export function turnedSides(sides: Sides, view: View): Sides {
  const { left, right, top, bottom } = view.flipped ? { ...sides, left: sides.right, right: sides.left } : sides;
  const clockwise = [left, top, right, bottom];
  const at = (index: number) => clockwise[(index + 4 - view.turns) % 4]!;
  return { left: at(0), top: at(1), right: at(2), bottom: at(3) };
}

/** Millimeters between two points of the picture; null where the spacing is not known. */
export function distance(a: Point, b: Point, spacing: [number, number] | null): number | null {
  if (!spacing) return null;
  return Math.hypot((a.x - b.x) * spacing[1], (a.y - b.y) * spacing[0]);
}

/** A round length for the scale bar, at most a fifth of the stage: {millimeters, CSS pixels}. */
export function scaleBar(cssPixelsPerMillimeter: number, stageWidth: number): { millimeters: number; length: number } {
  const most = stageWidth / 5 / cssPixelsPerMillimeter;
  const power = 10 ** Math.floor(Math.log10(most));
  const millimeters = [5, 2, 1].map((step) => step * power).find((length) => length <= most) ?? power;
  return { millimeters, length: millimeters * cssPixelsPerMillimeter };
}

export type Rectangle = { left: number; top: number; right: number; bottom: number };

/** The rectangle between two points, or the square around a circle from its center, inside the picture. */
export function regionBetween<Shape extends "box" | "circle">(shape: Shape, a: Point, b: Point, picture: Size): { shape: Shape } & Rectangle {
  const radius = Math.hypot(a.x - b.x, a.y - b.y);
  const [from, to] = shape === "circle" ? [{ x: a.x - radius, y: a.y - radius }, { x: a.x + radius, y: a.y + radius }] : [a, b];
  const inside = (value: number, most: number) => Math.min(Math.max(value, 0), most);
  const [left, right] = [Math.min(from.x, to.x), Math.max(from.x, to.x)].map((x) => inside(x, picture.width)) as [number, number];
  const [top, bottom] = [Math.min(from.y, to.y), Math.max(from.y, to.y)].map((y) => inside(y, picture.height)) as [number, number];
  return { shape, left, top, right: Math.max(right, left + 1), bottom: Math.max(bottom, top + 1) };
}
