import assert from "node:assert/strict";
import { test } from "node:test";
import { applyWindow, draggedWindow, percentileWindow } from "../src/viewer/pixels.ts";

const pixels = { width: 3, height: 1, values: new Int16Array([-160, 40, 240]), color: null, unit: "HU" };

test("a window maps its edges to black and white", () => {
  const out = new Uint8ClampedArray(12);
  applyWindow(pixels, { center: 40, width: 400 }, false, out);
  assert.deepEqual([...out], [0, 0, 0, 255, 128, 128, 128, 255, 255, 255, 255, 255]);
});

test("inversion exchanges black and white", () => {
  const out = new Uint8ClampedArray(12);
  applyWindow(pixels, { center: 40, width: 400 }, true, out);
  assert.deepEqual([out[0], out[8]], [255, 0]);
});

test("a sigmoid window is half gray at its center and levels off at its edges", () => {
  const out = new Uint8ClampedArray(12);
  applyWindow(pixels, { center: 40, width: 400, sigmoid: true }, false, out);
  assert.deepEqual([out[0], out[4], out[8]], [30, 128, 225]); // 255 / (1 + exp(2)), and 255 less of it
});

test("a table of the file gives each value its brightness, and its ends to the values outside", () => {
  const out = new Uint8ClampedArray(12);
  applyWindow(pixels, { center: 0, width: 1, curve: [[-100, 200], [0, 90], [40, 7]] }, false, out);
  assert.deepEqual([out[0], out[4], out[8]], [200, 7, 7]);
});

test("percentiles leave outliers out", () => {
  const values = new Float32Array(1000).map((_, index) => (index === 999 ? 1e6 : index));
  const window = percentileWindow({ width: 1000, height: 1, values, color: null, unit: "" }, [1, 99]);
  assert.ok(window.center > 490 && window.center < 510 && window.width < 1000);
});

test("a constant picture has a window of more than no width", () => {
  const values = new Uint8Array(10).fill(7);
  assert.ok(percentileWindow({ width: 10, height: 1, values, color: null, unit: "" }, [0, 100]).width > 0);
});

test("dragging to the right widens the window and never makes it empty", () => {
  assert.ok(draggedWindow({ center: 0, width: 100 }, 10, 0, 512).width === 110);
  assert.ok(draggedWindow({ center: 0, width: 100 }, -1e6, 0, 512).width > 0);
});

test("the values of a picture are read once, however often the page is drawn", () => {
  let reads = 0;
  const values = new Proxy(new Uint8Array([1, 2, 3, 4]), { get: (target, key) => (typeof key === "string" && /^\d+$/.test(key) && reads++, Reflect.get(target, key)) });
  const picture = { width: 4, height: 1, values, color: null, unit: "" };
  assert.deepEqual(percentileWindow(picture, [0, 100]), { center: 2.5, width: 3 });
  percentileWindow(picture, [1, 99]);
  assert.equal(reads, 4);
});
