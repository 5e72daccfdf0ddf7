// Cohen's kappa of two readers with its 95 % interval.
// Standard error: Fleiss, Cohen and Everitt, "Large sample standard errors of kappa and weighted kappa", 1969, equation 13.

export type Agreement = { n: number; same: number; kappa: number | null; low: number; high: number };

export function agreement(pairs: readonly (readonly [string, string])[]): Agreement {
  const n = pairs.length;
  const same = pairs.filter(([a, b]) => a === b).length;
  const categories = [...new Set(pairs.flat())];
  const part = (reader: 0 | 1, category: string) => pairs.filter((pair) => pair[reader] === category).length / n;
  const rows = new Map(categories.map((c) => [c, part(0, c)]));
  const columns = new Map(categories.map((c) => [c, part(1, c)]));
  const observed = same / n;
  const expected = categories.reduce((sum, c) => sum + rows.get(c)! * columns.get(c)!, 0);
  if (n === 0 || expected === 1) return { n, same, kappa: null, low: NaN, high: NaN };
  const kappa = (observed - expected) / (1 - expected);
  let variance = -((kappa - expected * (1 - kappa)) ** 2);
  for (const [a, b] of pairs) {
    const margins = columns.get(a)! + rows.get(b)!;
    variance += (a === b ? (1 - (rows.get(a)! + columns.get(a)!) * (1 - kappa)) ** 2 : ((1 - kappa) * margins) ** 2) / n;
  }
  const error = Math.sqrt(Math.max(variance, 0) / n) / (1 - expected);
  return { n, same, kappa, low: Math.max(-1, kappa - 1.96 * error), high: Math.min(1, kappa + 1.96 * error) };
}

/** An answer as it is compared: case, surrounding spaces and a final period do not matter. */
export const normalized = (answer: string): string => answer.trim().toLowerCase().replace(/[.。]$/, "");
