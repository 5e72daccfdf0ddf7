import assert from "node:assert/strict";
import { test } from "node:test";
import { agreement, normalized } from "../src/kappa.ts";

const pairs = (counts: [string, string, number][]) => counts.flatMap(([a, b, n]) => Array.from({ length: n }, () => [a, b] as const));

test("kappa of a published table of yes and no", () => {
  // 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: observed 0.7, expected 0.5 (Wikipedia, "Cohen's kappa", first example)
  const result = agreement(pairs([["yes", "yes", 20], ["yes", "no", 5], ["no", "yes", 10], ["no", "no", 15]]));
  assert.ok(Math.abs(result.kappa! - 0.4) < 1e-12);
  // statsmodels.stats.inter_rater.cohens_kappa([[20, 5], [10, 15]]): standard error 0.12673
  assert.ok(Math.abs(result.high - (0.4 + 1.96 * 0.12673)) < 1e-3, String(result.high));
});

test("readers who always agree have kappa 1, and an interval of no width", () => {
  const result = agreement(pairs([["yes", "yes", 5], ["no", "no", 5]]));
  assert.deepEqual([result.kappa, result.low, result.high], [1, 1, 1]);
});

test("kappa is not defined where both give one answer to everything", () => {
  assert.equal(agreement(pairs([["no", "no", 9]])).kappa, null);
});

test("case and a final period do not make two answers", () => {
  assert.equal(normalized(" Liver. "), normalized("liver"));
});
