"""Which columns of another program's file hold the id, the question, the answer ...: named by ``--map``, or guessed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from medical_vqa.errors import ConfigError, DataError

FIELDS = ("id", "position", "image", "question", "answer", "reference", "confidence", "right")
_MAX_SHOWN = 20  # columns in a message
_MAX_NAME = 40  # characters of the name of one
ROW_ORDER = "#"
"""In place of a column of `position`: the rows are in the order of the split."""
_KNOWN_NAMES: Mapping[str, Sequence[str]] = {
    "id": ("id", "question_id", "questionid", "qid", "sample_id", "custom_id"),
    "image": ("image", "image_id", "image_name", "img_name", "img_id", "image_path", "img_path", "figure_path", "img"),
    "question": ("question", "query", "prompt", "q"),
    "answer": (
        "prediction", "pred", "predicted_answer", "predicted", "model_answer", "model_output", "model_prediction",
        "response", "model_response", "output", "generated_text", "generated_answer", "generation", "text", "answer",
    ),
    "reference": (
        "reference", "reference_answer", "ground_truth", "groundtruth", "gt_answer", "gt", "gt_ans", "gold",
        "gold_answer", "target", "correct_answer", "answer", "label",
    ),
    "confidence": ("confidence", "probability", "prob"),
}  # fmt: skip


def parse_map(text: str) -> dict[str, str]:
    """``id=qid,answer=text`` as a mapping; raises `ConfigError` if it does not identify rows and answers."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    names = [name.strip() for name, _, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"--map {text!r}: names {twice[0]!r} twice; name one column for it")
    return check_map({name.strip(): column.strip() for name, _, column in pairs}, text)


def check_map(mapping: Mapping[str, str], text: str = "") -> dict[str, str]:
    """The mapping; raises `ConfigError` if it does not identify rows and answers.

    Args:
        mapping: Field -> column.
        text: How a person wrote it, for messages.
    """
    text = text or ",".join(f"{name}={column}" for name, column in mapping.items())
    if unknown := sorted(set(mapping) - set(FIELDS)):
        raise ConfigError(f"--map {unknown[0]!r}: unknown; the names are {', '.join(FIELDS)}")
    if not {"answer", "right"} & set(mapping) or not {"id", "position", "question", "image"} & set(mapping):
        raise ConfigError(
            f"--map {text!r}: expected the columns of the answer and of the id, or of image and question, such as "
            "--map id=question_id,answer=text; rows in the order of the split are --map position=#,answer=text"
        )
    if empty := [name for name, column in mapping.items() if not column]:
        raise ConfigError(f"--map {empty[0]!r}: name the column it is in, such as {empty[0]}=column")
    for name, column in mapping.items():
        if others := [other for other in mapping if other != name and mapping[other] == column]:
            raise ConfigError(
                f"--map {text!r}: the column {column!r} is named for {name} and for {others[0]}; name another for one "
                "of them"
            )
    return dict(mapping)


def guess_map(columns: Iterable[str], file: object = "the file") -> dict[str, str]:
    """The mapping that the names of the columns suggest.

    Args:
        columns: Names of the columns.
        file: The file, for messages.

    Raises:
        DataError: No column is named like an answer, or none that identifies the rows.
    """
    names = list(columns)
    mapping = guess_fields(names)
    if "answer" not in mapping or not {"id", "question", "image"} & set(mapping):
        listed = ", ".join(name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}..." for name in names[:_MAX_SHOWN])
        further = f" and {len(names) - _MAX_SHOWN:,} more" if len(names) > _MAX_SHOWN else ""
        raise DataError(
            f"{file}: its columns are {listed or 'none'}{further}, and it is not clear which hold the answer and the "
            "id; name them, such as --map id=question_id,answer=text, or --map position=#,answer=text for rows in the "
            "order of the split; a table without names needs a first line with them"
        )
    return mapping


def guess_fields(columns: Sequence[str]) -> dict[str, str]:
    """Field -> column, of the fields that a column is named after."""
    by_name = {column.strip().lower().replace(" ", "_").replace("-", "_"): column for column in columns}
    mapping: dict[str, str] = {}
    for field, known in _KNOWN_NAMES.items():
        free = (by_name[name] for name in known if name in by_name and by_name[name] not in mapping.values())
        if (column := next(free, None)) is not None:
            mapping[field] = column
    return mapping
