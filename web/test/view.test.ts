import assert from "node:assert/strict";
import { test } from "node:test";
import { WHOLE_PICTURE, bounded, distance, matrix, pixelAspect, scaleBar, toPicture, toStage, turnedSides, zoomAt } from "../src/viewer/view.ts";

const stage = { width: 400, height: 300 };
const picture = { width: 100, height: 50 };
const square = { x: 1, y: 1 };

test("the whole picture fits the stage, in its middle", () => {
  const m = matrix(WHOLE_PICTURE, stage, picture, square);
  assert.deepEqual(toStage(m, { x: 0, y: 0 }), { x: 0, y: 50 });
  assert.deepEqual(toStage(m, { x: 100, y: 50 }), { x: 400, y: 250 });
});

test("stage and picture coordinates are inverse, turned and flipped", () => {
  for (const turns of [0, 1, 2, 3] as const)
    for (const flipped of [false, true]) {
      const m = matrix({ zoom: 2.5, pan: { x: 7, y: -3 }, turns, flipped }, stage, picture, { x: 1, y: 1.5 });
      const back = toPicture(m, toStage(m, { x: 12, y: 34 }));
      assert.ok(Math.abs(back.x - 12) < 1e-9 && Math.abs(back.y - 34) < 1e-9);
    }
});

test("a quarter turn clockwise brings the top to the right", () => {
  const m = matrix({ ...WHOLE_PICTURE, turns: 1 }, stage, picture, square);
  assert.ok(toStage(m, { x: 50, y: 0 }).x > toStage(m, { x: 50, y: 50 }).x);
  const sides = turnedSides({ left: "R", right: "L", top: "A", bottom: "P" }, { ...WHOLE_PICTURE, turns: 1 });
  assert.deepEqual(sides, { left: "P", top: "R", right: "A", bottom: "L" });
});

test("a flipped picture has the patient's sides exchanged", () => {
  const sides = turnedSides({ left: "R", right: "L", top: "H", bottom: "F" }, { ...WHOLE_PICTURE, flipped: true });
  assert.deepEqual(sides, { left: "L", right: "R", top: "H", bottom: "F" });
});

test("the point below the pointer stays when one zooms", () => {
  const pointer = { x: 300, y: 100 };
  const before = toPicture(matrix(WHOLE_PICTURE, stage, picture, square), pointer);
  const after = toPicture(matrix(zoomAt(WHOLE_PICTURE, stage, pointer, 3), stage, picture, square), pointer);
  assert.ok(Math.abs(before.x - after.x) < 1e-9 && Math.abs(before.y - after.y) < 1e-9);
});

test("a picture cannot be dragged out of the stage", () => {
  const view = bounded({ ...WHOLE_PICTURE, pan: { x: 1e6, y: -1e6 } }, stage, picture, square);
  assert.deepEqual(view.pan, { x: 300, y: -175 });
});

test("rows that are farther apart than columns are drawn taller", () => {
  assert.deepEqual(pixelAspect([2, 1]), { x: 1, y: 2 });
});

test("distances are in millimeters where the spacing is known", () => {
  assert.equal(distance({ x: 0, y: 0 }, { x: 3, y: 2 }, [2, 1]), 5);
  assert.equal(distance({ x: 0, y: 0 }, { x: 3, y: 2 }, null), null);
});

test("the scale bar has a round length", () => {
  assert.deepEqual(scaleBar(2, 400), { millimeters: 20, length: 40 });
});
