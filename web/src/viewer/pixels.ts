// Pixel values and what is shown of them: the window, inversion, and presets.

/** A header's table of brightness: pairs of a value and the brightness, 0 to 255, from it up to the next pair's value. */
export type Curve = readonly (readonly [number, number])[];

export type Window = {
  center: number;
  width: number;
  /** Whether values become brightness by DICOM's sigmoid, and not by a ramp. */
  sigmoid?: boolean;
  /** The table that is shown in place of center and width. */
  curve?: Curve;
};

export type Pixels = {
  width: number;
  height: number;
  /** One value per pixel, row by row; null for a color picture. */
  values: Float32Array | Int16Array | Uint16Array | Uint8Array | null;
  /** RGBA bytes of a color picture. */
  color: Uint8ClampedArray | null;
  /** What the values are: "HU" for CT, "" where it is not known. */
  unit: string;
  /** Distance of rows and of columns in millimeters, where the slice has its own. */
  spacing?: [number, number] | null;
};

/** Window presets of CT, in Hounsfield units, in the order of the keys 1 to 9. */
export const CT_PRESETS: { name: string; window: Window }[] = [
  { name: "soft_tissue", window: { center: 40, width: 400 } },
  { name: "lung", window: { center: -600, width: 1500 } },
  { name: "bone", window: { center: 500, width: 2000 } },
  { name: "brain", window: { center: 40, width: 80 } },
  { name: "liver", window: { center: 60, width: 160 } },
  { name: "mediastinum", window: { center: 50, width: 350 } },
  { name: "stroke", window: { center: 35, width: 35 } },
  { name: "subdural", window: { center: 75, width: 215 } },
  { name: "vessels", window: { center: 300, width: 600 } },
];

/** Presets of other pictures: percentiles [low, high] of their values. */
export const PERCENTILE_PRESETS: { name: string; percentiles: [number, number] }[] = [
  { name: "full", percentiles: [0, 100] },
  { name: "usual", percentiles: [1, 99] },
  { name: "bright", percentiles: [1, 90] },
  { name: "dark", percentiles: [20, 100] },
  { name: "middle", percentiles: [10, 90] },
];

const samples = new WeakMap<Pixels, Float32Array>();

/** About 65,536 values of a picture in order, sorted once: every drawing of the page asks for them. */
function sortedSample(pixels: Pixels, values: NonNullable<Pixels["values"]>): Float32Array {
  const known = samples.get(pixels);
  if (known) return known;
  const step = Math.max(1, Math.floor(values.length / 65_536));
  const sample = new Float32Array(Math.ceil(values.length / step));
  for (let index = 0; index < sample.length; index++) sample[index] = values[index * step]!;
  samples.set(pixels, sample.sort());
  return sample;
}

/** The values at two percentiles of a picture. */
export function percentileWindow(pixels: Pixels, [low, high]: [number, number]): Window {
  const values = pixels.values;
  if (!values || values.length === 0) return { center: 127.5, width: 255 };
  const sample = sortedSample(pixels, values);
  const at = (percentile: number) => sample[Math.round((percentile / 100) * (sample.length - 1))]!;
  const [from, to] = [at(low), at(high)];
  return { center: (from + to) / 2, width: Math.max(to - from, 1e-6) };
}

/** Brightness, 0 to 255 and not yet clipped, by a window. */
function brightness({ center, width, sigmoid, curve }: Window): (value: number) => number {
  if (curve?.length) {
    const first = curve[0]![0];
    const table = new Uint8Array(curve.at(-1)![0] - first + 1);
    for (const [value, level] of curve) table.fill(level, value - first);
    return (value) => table[Math.min(Math.max(Math.floor(value - first), 0), table.length - 1)]!;
  }
  if (sigmoid) return (value) => 255 / (1 + Math.exp((-4 * (value - center)) / width));
  const scale = 255 / Math.max(width, 1e-6);
  const offset = -(center - width / 2) * scale;
  return (value) => value * scale + offset;
}

/** RGBA bytes of a gray picture under a window; `out` has four bytes per pixel. */
export function applyWindow(pixels: Pixels, window: Window, inverted: boolean, out: Uint8ClampedArray): void {
  const values = pixels.values;
  if (!values) {
    const color = pixels.color!;
    for (let index = 0; index < out.length; index += 4) {
      for (let channel = 0; channel < 3; channel++) {
        const value = color[index + channel]!;
        out[index + channel] = inverted ? 255 - value : value;
      }
      out[index + 3] = 255;
    }
    return;
  }
  const bright = brightness(window);
  const words = new Uint32Array(out.buffer, out.byteOffset, values.length);
  for (let index = 0; index < values.length; index++) {
    let gray = bright(values[index]!);
    gray = gray < 0 ? 0 : gray > 255 ? 255 : gray;
    const level = (inverted ? 255.5 - gray : gray + 0.5) | 0;
    words[index] = 0xff000000 | (level << 16) | (level << 8) | level;
  }
}

/** The window after a drag: to the right widens the contrast, down darkens. Both in CSS pixels. */
export function draggedWindow(window: Window, dx: number, dy: number, range: number): Window {
  const sensitivity = range / 512;
  return { center: window.center + dy * sensitivity, width: Math.max(window.width + dx * sensitivity, range / 4096) };
}
