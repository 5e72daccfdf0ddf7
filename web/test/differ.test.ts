import assert from "node:assert/strict";
import { test } from "node:test";
import { differ } from "../src/differ.ts";

test("an answer that is withheld differs from none", () => {
  const [yes, no, withheld] = [{ answer: "Yes", abstained: false }, { answer: "No", abstained: false }, { answer: "No", abstained: true }];
  assert.equal(differ(yes!, no!), true);
  assert.equal(differ(yes!, withheld!), false);
  assert.equal(differ(yes!, yes!), false);
});
