"""A claimed score against every protocol: which rule reproduces it from the predictions, and which does not.

Two rules differ by more than two models do. A reader of a paper who has its predictions sees here which rule gives the
published number, what is left of it on images that training cannot have shown, and what a baseline reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medical_vqa.evaluation.reporting.page import write_page
from medical_vqa.evaluation.reporting.summary import headline, plain_words, row_lines, withheld_line, without_leaks_line
from medical_vqa.evaluation.reporting.text_table import aligned
from medical_vqa.evaluation.reporting.wording import bounds, percent
from medical_vqa.evaluation.statistics.comparison import detectable_difference
from medical_vqa.schema.results import Results, Score

REPRODUCED, POSSIBLE, EXCLUDED = "reproduces the claim", "interval holds the claim", "does not"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One number that the claim could be."""

    protocol: str
    """Name of the protocol."""
    label: str
    """Name of the number."""
    published: Score
    """The number as the protocol's authors compute it."""
    repaired: Score | None
    """The number without the rule's defect."""
    baseline: float | None
    """The question-only baseline by the same rule."""
    outcome: str
    """Whether the number reproduces the claim."""
    unpublished: bool
    """Whether the protocol's authors publish no number on this dataset."""


@dataclass(frozen=True, slots=True)
class Referee:
    """A claim with every number that the predictions give."""

    claim: float
    """The claimed score, in per cent."""
    decimals: int
    """Decimals of the claim."""
    candidates: Sequence[Candidate]
    """Every number, those that reproduce the claim first."""
    results: Results
    """The scores."""

    @property
    def reproduced_by(self) -> list[Candidate]:
        """The numbers that equal the claim when rounded as it is."""
        return [candidate for candidate in self.candidates if candidate.outcome == REPRODUCED]

    def conclusion(self) -> str:
        """What the comparison shows, in one sentence."""
        claim = f"{self.claim:.{self.decimals}f}"
        if names := [f"{c.protocol} ({c.label})" for c in self.reproduced_by]:
            return f"The claim of {claim} is reproduced by {', '.join(names)}."
        nearest = min(
            (c for c in self.candidates if c.published.value is not None),
            key=lambda c: abs(100 * (c.published.value or 0.0) - self.claim),
            default=None,
        )
        if nearest is None:
            return f"The claim of {claim} cannot be examined: no protocol scores a row of this file."
        return (
            f"No protocol reproduces the claim of {claim} from these predictions; the nearest is {nearest.protocol} "
            f"({nearest.label}) with {percent(nearest.published.value)} {bounds(nearest.published.interval)}."
        )

    def power(self) -> str:
        """What difference to the baseline these questions could show, in one sentence; empty without a baseline."""
        metric = self.results.metrics[0]
        difference = next(iter(metric.differences.values()), None)
        detectable = detectable_difference(difference) if difference else None
        if detectable is None:
            return ""
        return (
            f"These {metric.score.n:,} questions on {metric.score.clusters:,} groups of images show a difference to "
            f"the baseline of {percent(detectable)} points or more in four of five cases."
        )


def examine(results: Results, claim: float, decimals: int) -> Referee:
    """Compare a claim with the scores of every protocol.

    Args:
        results: Scores under all protocols.
        claim: The claimed score, in per cent.
        decimals: Decimals of the claim.
    """
    candidates = [
        Candidate(
            protocol=results.protocol.name,
            label=metric.label,
            published=metric.score,
            repaired=metric.unanswered_as_wrong,
            baseline=next((score.value for score in metric.baselines.values()), None),
            outcome=_outcome(metric.score, claim, decimals),
            unpublished=False,
        )
        for metric in results.metrics
    ]
    candidates += [
        Candidate(
            protocol=score.protocol,
            label=score.label,
            published=score.published,
            repaired=score.repaired,
            baseline=score.baseline,
            outcome=_outcome(score.published, claim, decimals),
            unpublished=not score.published_here,
        )
        for score in results.protocols
        if score.published.value is not None and score.protocol != results.protocol.name
    ]
    order = (REPRODUCED, POSSIBLE, EXCLUDED)
    ranked = sorted(candidates, key=lambda c: (order.index(c.outcome), abs(100 * (c.published.value or 0) - claim)))
    return Referee(claim, decimals, ranked, results)


def referee_text(referee: Referee) -> str:
    """The comparison for a terminal."""
    head = ("protocol", "number", "as published", "", "n", "baseline", "claim")
    rows = [
        (
            candidate.protocol,
            candidate.label,
            percent(candidate.published.value),
            bounds(candidate.published.interval),
            f"{candidate.published.n:,}",
            percent(candidate.baseline),
            candidate.outcome + (", not published on this dataset" if candidate.unpublished else ""),
        )
        for candidate in referee.candidates
    ]
    lines = [
        headline(referee.results),
        referee.conclusion(),
        withheld_line(referee.results),
        without_leaks_line(referee.results),
        referee.power(),
    ]
    return "\n".join([*(line for line in lines if line), "", aligned([head, *rows], left=(0, 1, 6))])


def write_referee_page(path: Path, referee: Referee, *, title: str, reproduce: Sequence[str]) -> None:
    """Write the page, which appears complete or not at all.

    Args:
        path: The HTML file.
        referee: The comparison.
        title: Title of the page.
        reproduce: Commands that reproduce it.

    Raises:
        DataError: If the file cannot be written.
    """
    results = referee.results
    write_page(
        path,
        "referee.html.j2",
        title=title,
        referee=referee,
        results=results,
        headline=headline(results),
        sentences=plain_words(results),
        leaks=without_leaks_line(results),
        excluded=row_lines(results.excluded),
        warnings=row_lines(results.warnings),
        reproduce=list(reproduce),
    )


def _outcome(score: Score, claim: float, decimals: int) -> str:
    if score.value is None:
        return EXCLUDED
    if abs(100 * score.value - claim) <= 0.5 * 10**-decimals + 1e-9:
        return REPRODUCED
    low, high = score.interval.low, score.interval.high
    holds = low is not None and high is not None and 100 * low <= claim <= 100 * high
    return POSSIBLE if holds else EXCLUDED
