"""Comparisons as a table for a terminal, with a sentence under it for every pair."""

from __future__ import annotations

from collections.abc import Sequence

from medical_vqa.evaluation.reporting.wording import bounds, count, percent
from medical_vqa.evaluation.statistics.compare import SIGNIFICANT, Comparison, power, verdict


def comparison_text(pairs: Sequence[Comparison]) -> str:
    """Each pair in a few lines: scores, difference, the three p-values, and what it means."""
    scope = pairs[0].difference
    head = f"{count(scope.n, 'question')} that all answered, in {count(scope.clusters, 'group')}"
    return "\n\n".join([head, *("\n".join(_lines(pair)) for pair in pairs)])


def p_value(value: float) -> str:
    """A p-value as people write it: ``0.032``, ``<0.001``."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _lines(pair: Comparison) -> list[str]:
    ours, theirs = pair.scores
    difference = f"{percent(pair.difference.value, signed=True)} {bounds(pair.difference.interval, signed=True)}"
    return [
        f"{pair.label}  {pair.first} {percent(ours.value)} {bounds(ours.interval)}"
        f"  against  {pair.second} {percent(theirs.value)} {bounds(theirs.interval)}",
        f"  difference {difference} points; only {pair.first} right: {pair.only_first:,}, "
        f"only {pair.second} right: {pair.only_second:,}",
        f"  p: whole groups swapped {p_value(pair.permutation)} (Holm {p_value(pair.holm)}), "
        f"McNemar exact {p_value(pair.mcnemar)}",
        f"  {verdict(pair)}",
        *([f"  power: {power(pair)}"] if pair.holm < SIGNIFICANT else []),
    ]
