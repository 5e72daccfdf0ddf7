"""Compare prediction files of the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medical_vqa.evaluation.joining import AnsweredQuestions, join
from medical_vqa.evaluation.metrics.exact_match import exact_match
from medical_vqa.evaluation.metrics.token_overlap import token_f1
from medical_vqa.evaluation.reporting.summary import notes
from medical_vqa.evaluation.statistics.comparison import Comparison
from medical_vqa.evaluation.statistics.comparison import compare as compare_models
from medical_vqa.pipelines.inputs import (
    answered_rows_of_all,
    display_names,
    of_another_preparation,
    read_answers,
    require_same_rows,
)
from medical_vqa.schema.records import Split
from medical_vqa.schema.selection import Selection


def compare(
    files: Sequence[Path],
    *,
    selection: Selection | None = None,
    split: Split | None = None,
    where: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
) -> list[Comparison]:
    """Compare prediction files of the same rows, every two of them, under SQuAD v2's EM and F1.

    Args:
        files: The prediction files.
        selection: Rows that files without a card answer.
        split: Split of these rows.
        where: Facts that the rows of the files' cards must have in addition.
        columns: Columns of another program's file that hold the answers (`evaluation.imports`).

    Raises:
        DataError: The files answer different rows according to their cards, or no question is answered by all.
    """
    named = dict(zip(display_names(files), files, strict=True))
    return compare_files(named, selection=selection, split=split, where=where, columns=columns)


def compare_files(
    files: Mapping[str, Path],
    *,
    selection: Selection | None = None,
    split: Split | None = None,
    where: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
) -> list[Comparison]:
    """`compare`, with the name of each file: model name -> predictions file; the other arguments are the same."""
    rows = answered_rows_of_all(list(files.values()), selection, split, where)
    require_same_rows(list(files.values()), rows)
    examples = rows[0].examples()
    models: dict[str, AnsweredQuestions] = {}
    sentences: list[str] = []
    for (name, file), of_file in zip(files.items(), rows, strict=True):
        imported = read_answers(file, columns, examples)
        answered = join(examples, imported.predictions)
        answered.require_scored(f"{file}: ")
        models[name] = join(examples, imported.paired) if imported.interchangeable else answered
        warnings = [*of_another_preparation(of_file, answered), *imported.warnings]
        guess = [imported.guess] if imported.guess else []
        sentences += [f"{name}: {line}" for line in (*guess, *notes(answered.excluded, warnings))]
    pairs = [pair for metric in (exact_match(), token_f1()) for pair in compare_models(metric, models)]
    return [pair.model_copy(update={"notes": tuple(sentences)}) for pair in pairs]
