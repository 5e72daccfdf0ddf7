"""A judge's judgments for a terminal."""

from __future__ import annotations

from medical_vqa.evaluation.reporting.wording import bounds, percent
from medical_vqa.schema.results import Score


def judge_text(name: str, accuracy: Score, exact: Score, pairs: tuple[int, int, int], agreement: Score | None) -> str:
    """The judge's number next to exact match, and how far the judge can be trusted.

    Args:
        name: Name of the judge.
        accuracy: Fraction of the answers that it calls right.
        exact: Exact match of the same answers.
        pairs: Number of pairs that it was asked about, of those whose judgment depends on the order of the two answers,
            and of those without a readable judgment.
        agreement: Kappa with earlier judgments; None where there are none.
    """
    compared, order_dependent, unreadable = pairs
    lines = [
        f"judged right by {name} {percent(accuracy.value)} {bounds(accuracy.interval)}, exact match "
        f"{percent(exact.value)} {bounds(exact.interval)}, n={accuracy.n:,}"
    ]
    if compared:
        lines.append(
            f"{compared:,} pairs asked in both orders: the judgment depends on the order in {order_dependent:,} "
            f"({order_dependent / compared:.1%}), {unreadable:,} without a readable judgment; both count as wrong"
        )
    if agreement is not None:
        value = "undefined" if agreement.value is None else f"{agreement.value:.2f}"
        low, high = agreement.interval.low, agreement.interval.high
        interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
        lines.append(f"agreement with the judgments in the file: Cohen's kappa {value}{interval}, n={agreement.n:,}")
    return "\n".join(lines)
