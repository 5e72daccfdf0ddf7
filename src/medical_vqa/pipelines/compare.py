"""Compare prediction files of the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.data.prepared.selection import Selection
from medical_vqa.schema.records import Split

if TYPE_CHECKING:
    from medical_vqa.data.prepared.selection import Selection
    from medical_vqa.evaluation.statistics.compare import Comparison


def compare(
    files: Sequence[Path],
    *,
    selection: Selection | None = None,
    split: Split | None = None,
    columns: Mapping[str, str] | None = None,
) -> list[Comparison]:
    """Compare prediction files of the same rows, every two of them, under SQuAD v2's EM and F1.

    Raises `DataError` when their cards say that they answer different rows.
    """
    from medical_vqa import registry
    from medical_vqa.evaluation.statistics.compare import compare as stage
    from medical_vqa.pipelines.inputs import asked_of_all, names, read_answers, refuse_other_rows

    asked = asked_of_all(files, selection, split)
    refuse_other_rows(files, asked)
    examples = asked[0][0].rows(asked[0][1])
    models = {name: read_answers(path, columns, examples) for name, path in zip(names(files), files, strict=True)}
    return [
        pair
        for metric in registry.find("protocols", "squad_v2").published_metrics()
        for pair in stage(metric, examples, models)
    ]
