"""Comparisons in words: for a terminal, and the conclusion of each for a page."""

from __future__ import annotations

from collections.abc import Sequence

from medical_vqa.evaluation.reporting.summary import withheld_text
from medical_vqa.evaluation.reporting.wording import bounds, count, percent
from medical_vqa.evaluation.statistics.comparison import SIGNIFICANCE, Comparison
from medical_vqa.schema.results import Withheld


def comparison_text(pairs: Sequence[Comparison]) -> str:
    """Each pair in a few lines: scores, difference, the three p-values, and what it means.

    Before them: what the guards withhold of each model's answers, which count in all these scores.
    """
    scope = pairs[0].difference
    head = [f"{count(scope.n, 'question')} that all answered, in {count(scope.clusters, 'group')}"]
    label = {pairs[0].metric: pairs[0].label}
    head += [f"{name}: {withheld_text(guards, label)}" for name, guards in withheld_by_model(pairs).items()]
    return "\n\n".join(["\n".join(head), *("\n".join(_lines(pair)) for pair in pairs)])


def withheld_by_model(pairs: Sequence[Comparison]) -> dict[str, Withheld]:
    """Model -> what the guards withhold of its answers, under the first metric; without models that have no guards."""
    of_first = [pair for pair in pairs if pair.metric == pairs[0].metric]
    named = [item for pair in of_first for item in zip((pair.first, pair.second), pair.withheld, strict=True)]
    return {name: guards for name, guards in named if guards is not None}


def conclusion(pair: Comparison) -> str:
    """What a comparison shows, in one sentence."""
    difference = pair.difference.value or 0.0
    if not difference:
        return f"{pair.first} and {pair.second} have the same {pair.label}."
    better, worse = (pair.first, pair.second) if difference > 0 else (pair.second, pair.first)
    points = f"{100 * abs(difference):.1f} points {pair.label}"
    if pair.holm_p < SIGNIFICANCE:
        return f"{better} is better than {worse} by {points}."
    return f"{better} is ahead of {worse} by {points}, which chance alone can explain; {detectable(pair)}."


def detectable(pair: Comparison) -> str:
    """What these questions could show, as half a sentence."""
    if pair.detectable_difference is None:
        return "the difference that these questions could show is unknown"
    points = 100 * pair.detectable_difference
    return f"these questions would show a difference of {points:.1f} points or more in four of five cases"


def p_value(value: float) -> str:
    """A p-value for people: ``0.032``, ``<0.001``."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _lines(pair: Comparison) -> list[str]:
    first, second = pair.scores
    difference = f"{percent(pair.difference.value, signed=True)} {bounds(pair.difference.interval, signed=True)}"
    return [
        f"{pair.label}  {pair.first} {percent(first.value)} {bounds(first.interval)}"
        f"  against  {pair.second} {percent(second.value)} {bounds(second.interval)}",
        f"  difference {difference} points; only {pair.first} right: {pair.only_first_correct:,}, "
        f"only {pair.second} right: {pair.only_second_correct:,}",
        f"  p: whole groups swapped {p_value(pair.permutation_p)} (Holm {p_value(pair.holm_p)}), "
        f"McNemar exact {p_value(pair.mcnemar_p)}",
        f"  {conclusion(pair)}",
        *([f"  power: {detectable(pair)}"] if pair.holm_p < SIGNIFICANCE else []),
    ]
