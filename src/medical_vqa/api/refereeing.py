"""Examine a claimed score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.api.arguments import (
    StrPath,
    as_columns,
    as_predictions,
    as_selection,
    optional_facts,
    optional_output,
    optional_split,
)
from medical_vqa.api.calls import public

if TYPE_CHECKING:
    from medical_vqa.evaluation.reporting.referee import Referee
    from medical_vqa.pipelines.score import Scores


@dataclass(frozen=True, slots=True)
class Examination:
    """A claimed score compared with every protocol. ``str(examination)`` is the comparison as a table."""

    referee: Referee
    """The claim with every number that the predictions give."""
    scores: Scores
    """The scores it rests on."""
    page: Path | None
    """The HTML page; None if none was requested."""

    @property
    def reproduced_by(self) -> list[str]:
        """The numbers that equal the claim, as ``PROTOCOL (NUMBER)``."""
        return [f"{candidate.protocol} ({candidate.label})" for candidate in self.referee.reproduced_by]

    def __repr__(self) -> str:
        return f"<medical_vqa.Examination {self.referee.conclusion()!r}>"

    def __str__(self) -> str:
        from medical_vqa.evaluation.reporting.referee import referee_text

        return referee_text(self.referee)


@public
def referee(
    predictions: StrPath,
    claim: str | float,
    *,
    page: StrPath | None = None,
    split: str | None = None,
    columns: str | Mapping[str, str] | None = None,
    dataset: StrPath | None = None,
    root: StrPath | None = None,
    where: Mapping[str, str] | None = None,
) -> Examination:
    """Examine a claimed score: which published rule gives it from these predictions, and which cannot.

    Args:
        predictions: What `predict` returned, or a predictions file, also of another program.
        claim: The claimed score in per cent, with the decimals it was published with: ``"84.9"``.
        page: HTML page to write.
        split: As in `score`.
        columns: As in `score`.
        dataset: As in `score`.
        root: As in `score`.
        where: As in `score`.

    Returns:
        The comparison with every protocol, the score without leaked rows, baseline, intervals and power.

    Raises:
        MedicalVqaError: As in `score`, or the claim is no per cent.

    Examples:
        >>> mv.referee("runs/demo/predictions-validation.jsonl", "43.2").reproduced_by
        ['squad_v2 (EM)']
    """
    from medical_vqa.pipelines.referee import referee as stage
    from medical_vqa.pipelines.referee import referee_page

    result, scores = stage(
        as_predictions(predictions),
        str(claim),
        selection=as_selection(dataset, root, where, has_card=True),
        split=optional_split(split),
        where=optional_facts(where),
        columns=as_columns(columns),
    )
    path = optional_output(page, "page")
    return Examination(result, scores, None if path is None else referee_page(result, scores, path))
