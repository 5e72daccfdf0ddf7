"""Compare prediction files of the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medical_vqa.evaluation.imports.tables import ImportedAnswers
from medical_vqa.evaluation.joining import AnsweredQuestions
from medical_vqa.evaluation.reporting.summary import notes
from medical_vqa.evaluation.scoring import answer_warnings, squad_answers
from medical_vqa.evaluation.statistics.comparison import Comparison
from medical_vqa.evaluation.statistics.comparison import compare as compare_models
from medical_vqa.evaluation.statistics.tally import AnswerTable
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
    metric: str | None = None,
) -> list[Comparison]:
    """`compare`, with the name of each file: model name -> predictions file; the other arguments are the same.

    Only the pairs of one `metric` are computed where it is named.
    """
    rows = answered_rows_of_all(list(files.values()), selection, split, where)
    require_same_rows(list(files.values()), rows)
    examples = rows[0].examples()
    joined: dict[str, AnsweredQuestions] = {}
    imports: dict[str, ImportedAnswers] = {}
    for name, file in files.items():
        imports[name] = read_answers(file, columns, examples)
        joined[name] = rows[0].joined(imports[name].predictions)
        joined[name].require_scored(f"{file}: ")
    scored, metrics = squad_answers(joined)
    sentences: list[str] = []
    for (name, answered), of_file in zip(scored.items(), rows, strict=True):
        imported = imports[name]
        warnings = [
            *answer_warnings(metrics[0], AnswerTable(answered.scored, answered.answers)),
            *of_another_preparation(of_file, answered),
            *imported.warnings,
        ]
        guess = [imported.guess] if imported.guess else []
        sentences += [f"{name}: {line}" for line in (*guess, *notes(answered.excluded, warnings))]
    if any(imported.interchangeable for imported in imports.values()):
        paired = {
            name: rows[0].joined(imports[name].paired) if imports[name].interchangeable else answered
            for name, answered in joined.items()
        }
        scored, metrics = squad_answers(paired)
    named_metrics = [one for one in metrics if metric in (None, one.name)]
    pairs = [pair for one in named_metrics for pair in compare_models(one, scored)]
    return [pair.model_copy(update={"notes": tuple(sentences)}) for pair in pairs]
