// Where the viewer's pixels come from: stored values, which are windowed here, or a picture in 8 bits.
import * as api from "../api.ts";
import type { Pixels } from "./pixels.ts";

const CACHED = 96;

/** Decodes a PNG into gray values, or colors where it has any. */
export async function decode(blob: Blob): Promise<Pixels> {
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

/** The values of a slice in the scanner's units, from the body and the headers of the server's answer. */
export async function valuesOf(response: Response, unit: string): Promise<Pixels> {
  const header = (name: string) => response.headers.get(name) ?? "";
  const buffer = await response.arrayBuffer();
  const raw = header("X-Type") === "uint8" ? new Uint8Array(buffer) : header("X-Type") === "uint16" ? new Uint16Array(buffer) : new Int16Array(buffer);
  const slope = Number(header("X-Slope") || 1);
  const intercept = Number(header("X-Intercept") || 0);
  const values = slope === 1 && intercept === 0 ? raw : Float32Array.from(raw, (value) => value * slope + intercept);
  const spacing = header("X-Spacing").split(",").map(Number);
  return {
    width: Number(header("X-Columns")),
    height: Number(header("X-Rows")),
    values,
    color: null,
    unit,
    spacing: spacing.length === 2 && spacing.every((length) => length > 0) ? [spacing[0]!, spacing[1]!] : null,
  };
}

/** The slices of one image, the recently shown ones in memory. */
export class Source {
  private readonly cache = new Map<string, Promise<Pixels>>();
  private hasValues = true;

  private constructor(readonly imageId: string, readonly item: api.ImageItem | null) {}

  static async open(imageId: string): Promise<Source> {
    return new Source(imageId, await api.imageItem(imageId));
  }

  frames(plane: api.Plane): number {
    return this.item?.planes[plane] ?? 1;
  }

  /** The pixels of a slice; a failed one is asked for again next time. */
  pixels(slice: api.Slice): Promise<Pixels> {
    const name = `${slice.plane} ${slice.frame}`;
    const cached = this.cache.get(name);
    if (cached) return cached;
    const pixels = this.load(slice);
    this.cache.set(name, pixels);
    pixels.catch(() => this.cache.delete(name));
    if (this.cache.size > CACHED) this.cache.delete(this.cache.keys().next().value!);
    return pixels;
  }

  /** Loads the slices around one, the nearer ones first. */
  prefetch(slice: api.Slice, reach = 6): void {
    const count = this.frames(slice.plane);
    for (let distance = 1; distance <= reach; distance++) {
      for (const frame of [slice.frame + distance, slice.frame - distance]) {
        if (frame >= 0 && frame < count) this.pixels({ ...slice, frame }).catch(() => undefined);
      }
    }
  }

  private async load(slice: api.Slice): Promise<Pixels> {
    if (!this.item) return decode(await api.pictureBlob(this.imageId));
    if (this.item.values && this.hasValues) {
      try {
        return await valuesOf(await api.sliceValues(this.imageId, slice), this.item.values.unit ?? "");
      } catch (error) {
        if (!(error instanceof api.Failure) || error.code !== "no_values") throw error;
        this.hasValues = false;
      }
    }
    return decode(await (this.item.series || this.frames(slice.plane) > 1 ? api.sliceView(this.imageId, slice) : api.pictureBlob(this.imageId)));
  }
}
