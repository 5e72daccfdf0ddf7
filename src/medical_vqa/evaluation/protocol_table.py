"""The same predictions under every published rule, side by side: why two numbers from two papers do not compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medical_vqa.evaluation.protocols import Context, Protocol
from medical_vqa.evaluation.tally import Bootstrap, Score, tally
from medical_vqa.evaluation.wording import bounds, percent
from medical_vqa.records import Example, Prediction


@dataclass(frozen=True, slots=True)
class ProtocolScore:
    """One number of one protocol, as published and repaired."""

    protocol: str
    """``llava_med``."""
    metric: str
    """``closed``."""
    label: str
    """What the number is called."""
    signature: str
    """Everything that moves the published number."""
    published: Score
    """By the rule as its authors compute it."""
    floor: float | None
    """The first floor by the same rule."""
    repaired: Score | None
    """With the defect mended; None where that cannot be computed here."""
    repaired_signature: str | None
    """Everything that moves the repaired number."""
    changes: str
    """What the defect changes; empty where there is none."""


def protocol_scores(
    protocols: Sequence[Protocol],
    examples: Sequence[Example],
    predictions: Mapping[str, Prediction],
    *,
    train: Sequence[Example],
    floor: Mapping[str, Prediction] | None,
    bootstrap: Bootstrap,
) -> list[ProtocolScore]:
    """Score the same examples under each protocol.

    Args:
        protocols: Which, in the order of the table.
        examples: The rows that have exactly one prediction.
        predictions: Example id -> answer.
        train: Training rows, for the rules that need labels.
        floor: Example id -> the floor's answer.
        bootstrap: How intervals are drawn.
    """
    context = Context(train, examples)
    found = []
    for protocol in protocols:
        for line in protocol.lines(context):
            ours = tally(line.published, examples, predictions)
            under = tally(line.published, examples, floor).total() if floor else None
            mended = tally(line.repaired, examples, predictions).score(bootstrap) if line.repaired else None
            found.append(
                ProtocolScore(
                    protocol=protocol.name,
                    metric=line.published.name,
                    label=line.published.label,
                    signature=line.published.signature(),
                    published=ours.score(bootstrap),
                    floor=under,
                    repaired=mended,
                    repaired_signature=line.repaired.signature() if line.repaired else None,
                    changes=line.changes,
                )
            )
    return found


def table_text(scores: Sequence[ProtocolScore]) -> str:
    """The table for a terminal: protocol, number, as published, floor, repaired, rows."""
    head = ("protocol", "number", "as published", "", "floor", "repaired", "", "rows")
    rows = [head]
    for number, score in enumerate(scores):
        first = number == 0 or scores[number - 1].protocol != score.protocol
        rows.append(
            (
                score.protocol if first else "",
                score.label,
                percent(score.published.value),
                bounds(score.published.interval) if score.published.value is not None else "",
                percent(score.floor),
                percent(score.repaired.value if score.repaired else None),
                bounds(score.repaired.interval) if score.repaired and score.repaired.value is not None else "",
                f"{score.published.n:,}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    left = (0, 1)
    cells = (
        cell.ljust(width) if number in left else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join(cells).rstrip()
