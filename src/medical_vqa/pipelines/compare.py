"""Compare prediction files of the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.schema.records import Split

if TYPE_CHECKING:
    from medical_vqa.evaluation.statistics.compare import Comparison
    from medical_vqa.schema.selection import Selection


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
    from medical_vqa.pipelines.inputs import answered_rows_of_all, display_names, read_answers, require_same_rows

    rows = answered_rows_of_all(files, selection, split)
    require_same_rows(files, rows)
    examples = rows[0].examples()
    answers = [read_answers(path, columns, examples) for path in files]
    models = dict(zip(display_names(files), answers, strict=True))
    return [
        pair
        for metric in registry.find("protocols", "squad_v2").published_metrics()
        for pair in stage(metric, examples, models)
    ]
