"""The same predictions under every published rule, side by side: why two numbers from two papers do not compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medical_vqa.evaluation.metrics.tally import Bootstrap, Score, Tally, tally
from medical_vqa.evaluation.protocols.base import Context, Protocol
from medical_vqa.evaluation.reporting.wording import bounds, percent
from medical_vqa.schema.records import Example, Prediction

NAMED = 20


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
    baseline: float | None
    """The first baseline by the same rule."""
    repaired: Score | None
    """With the defect mended; None where that cannot be computed here."""
    repaired_signature: str | None
    """Everything that moves the repaired number."""
    changes: str
    """What the defect changes; empty where there is none."""
    moved: int | None = None
    """Rows that the repair judges otherwise, or that only one of the two counts; None for scores of a corpus."""
    moved_ids: tuple[str, ...] = ()
    """Which: the first twenty, in the order of the rows."""


def protocol_scores(
    protocols: Sequence[Protocol],
    examples: Sequence[Example],
    predictions: Mapping[str, Prediction],
    *,
    train: Sequence[Example],
    baseline: Mapping[str, Prediction] | None,
    bootstrap: Bootstrap,
) -> list[ProtocolScore]:
    """Score the same examples under each protocol.

    Args:
        protocols: Which, in the order of the table.
        examples: The rows that have exactly one prediction.
        predictions: Example id -> answer.
        train: Training rows, for the rules that need labels.
        baseline: Example id -> the baseline's answer.
        bootstrap: How intervals are drawn.
    """
    context = Context(train, examples)
    found = []
    for protocol in protocols:
        for line in protocol.build(context):
            ours = tally(line.published, examples, predictions)
            under = tally(line.published, examples, baseline).total() if baseline else None
            mended = tally(line.repaired, examples, predictions) if line.repaired else None
            moved = moved_rows(ours, mended) if mended else None
            found.append(
                ProtocolScore(
                    protocol=protocol.name,
                    metric=line.published.name,
                    label=line.published.label,
                    signature=line.published.signature(),
                    published=ours.score(bootstrap),
                    baseline=under,
                    repaired=mended.score(bootstrap) if mended else None,
                    repaired_signature=line.repaired.signature() if line.repaired else None,
                    changes=line.defect,
                    moved=None if moved is None else len(moved),
                    moved_ids=tuple((moved or ())[:NAMED]),
                )
            )
    return found


def moved_rows(published: Tally, repaired: Tally) -> list[str] | None:
    """Ids of the rows whose score the repair changes, or that only one of the two counts; None without such scores."""
    if any(len(one.counts) and one.counts.shape[1] != 2 for one in (published, repaired)):
        return None
    before, after = _by_id(published), _by_id(repaired)
    return [id_ for id_ in dict.fromkeys([*after, *before]) if before.get(id_) != after.get(id_)]


def _by_id(given: Tally) -> dict[str, float]:
    return dict(zip((e.id for e in given.examples), given.counts[:, 0].tolist(), strict=True))


def table_text(scores: Sequence[ProtocolScore]) -> str:
    """The table for a terminal: protocol, number, as published, baseline, repaired, rows, rows judged otherwise."""
    head = ("protocol", "number", "as published", "", "baseline", "repaired", "", "rows", "moved")
    rows = [head]
    for number, score in enumerate(scores):
        first = number == 0 or scores[number - 1].protocol != score.protocol
        rows.append(
            (
                score.protocol if first else "",
                score.label,
                percent(score.published.value),
                bounds(score.published.interval) if score.published.value is not None else "",
                percent(score.baseline),
                percent(score.repaired.value if score.repaired else None),
                bounds(score.repaired.interval) if score.repaired and score.repaired.value is not None else "",
                rows_counted(score),
                "" if score.moved is None else f"{score.moved:,}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(_line(row, widths) for row in rows)


def rows_counted(score: ProtocolScore) -> str:
    """The rows behind the published number, and behind the repaired one where those are others: ``375 -> 631``."""
    repaired = score.repaired.n if score.repaired else score.published.n
    same = repaired == score.published.n
    return f"{score.published.n:,}" if same else f"{score.published.n:,} \N{RIGHTWARDS ARROW} {repaired:,}"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    left = (0, 1)
    cells = (
        cell.ljust(width) if number in left else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join(cells).rstrip()
