"""VQA JSON in the layout of COCO and VQA v2: a file of questions and a file of annotations with ten answers each.

One question and its annotation::

    {"image_id": 42, "question": "Is there a fracture?", "question_id": 42000}
    {"question_id": 42000, "image_id": 42, "question_type": "is there", "answer_type": "yes/no",
     "multiple_choice_answer": "no", "answers": [{"answer": "no", "answer_confidence": "yes", "answer_id": 1}]}

Images are found by the ``file_name`` of the list ``images``, by the id as a name, or by the number at the end of a name
(``COCO_train2014_000000000042.jpg``), in the folder or a zip archive in it. Annotations and images are those of the
split that the names of their files state: files of several splits may count from the same number. All answers are
accepted, the most frequent first, each as often as it was given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medical_vqa.data.formats.base import Published
from medical_vqa.data.formats.building import DatasetBuilder, published_files, split_of_name
from medical_vqa.data.formats.table_files import json_content
from medical_vqa.data.formats.tables import own_card
from medical_vqa.data.formats.values import answer_text, as_text, name_text, question_text
from medical_vqa.errors import DataError
from medical_vqa.io import json_type
from medical_vqa.schema.records import Split

_DIGITS = "0123456789"


class CocoVqa:
    """The ``coco-vqa`` format."""

    card = own_card("coco-vqa", "questions and annotations in the layout of VQA v2")

    def read(self, source: Path) -> Published:
        """Parse the JSON files of a folder; raises `DataError` where there are no questions, or one has no image."""
        builder = DatasetBuilder(self.card.name, source)
        contents = {path: json_content(path) for path in published_files(source, "*.json")}
        for path, content in contents.items():
            if not isinstance(content, Mapping) or not content.keys() & {"questions", "annotations", "images"}:
                builder.notes.append(f"{path.name} has no list of questions, annotations or images: it is not read")
        annotations = _rows_by_id(contents, "annotations", "question_id")
        files = _rows_by_id(contents, "images", "id")
        numbers = _names_by_number(builder.files.paths())
        used: set[str] = set()
        for path, content in contents.items():
            split = split_of_name(path.name)
            for number, row in enumerate(_list(content, "questions", path), 1):
                place = f"{path.name} row {number}"
                if not isinstance(row, Mapping) or not {"question_id", "image_id", "question"} <= row.keys():
                    raise DataError(f"{place}: expected question_id, image_id and question; get the published file")
                question_id, image = name_text(row["question_id"], "question_id", place), as_text(row["image_id"])
                annotation = _of_split(annotations.get(question_id, {}), split, place)
                if as_text(annotation.get("image_id", image)) != image:
                    raise DataError(
                        f"{place}: question {question_id} is about image {image}, and its annotation about "
                        f"{as_text(annotation['image_id'])}; get the published files"
                    )
                used.update([question_id] if annotation else [])
                name = _of_split(files.get(image, {}), split, place).get("file_name")
                name = name or _numbered(numbers.get(image, []), split, place) or image
                builder.add(
                    split or "train",
                    question_text(row["question"], place),
                    _answers(annotation, place),
                    [builder.image(name, place)],
                    place,
                    number=question_id,
                    facts={key: as_text(annotation.get(key)) for key in ("question_type", "answer_type")},
                )
        if unused := [question_id for question_id in annotations if question_id not in used]:
            builder.notes.append(
                f"{len(unused):,} annotations are of questions that are not there, such as {unused[0]}: they are "
                "left out"
            )
        return builder.published()

    def bundled(self) -> Path | None:
        """None: it does not ship with the package."""
        return None


_OfSplits = dict[Split | None, Mapping[str, Any]]
"""Rows of one id, by the split that the name of their file states."""


def _list(content: Any, key: str, path: Path) -> list[Any]:
    rows = content.get(key, []) if isinstance(content, Mapping) else []
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected {key} as a list, got {json_type(rows)}; get the published file")
    return rows


def _rows_by_id(contents: Mapping[Path, Any], key: str, id_key: str) -> dict[str, _OfSplits]:
    """Id -> the rows with it: files of several splits may count from the same number.

    Args:
        contents: What each JSON file holds.
        key: Key of the list in a file.
        id_key: Key of the id in a row.

    Raises:
        DataError: A row has no id, or two rows of a split have the same one.
    """
    rows: dict[str, _OfSplits] = {}
    for path, content in contents.items():
        split = split_of_name(path.name)
        for number, row in enumerate(_list(content, key, path), 1):
            place = f"{path.name} {key} {number}"
            if not isinstance(row, Mapping) or id_key not in row:
                raise DataError(f"{place}: expected an object with {id_key}; get the published file")
            known = rows.setdefault(name_text(row[id_key], id_key, place), {})
            if split in known and (key == "annotations" or known[split] != row):
                raise DataError(f"{place}: {id_key} {row[id_key]!r} occurs twice; keep one of them")
            known[split] = row
    return rows


def _of_split(rows: _OfSplits, split: Split | None, place: str) -> Mapping[str, Any]:
    """The row for a question of a split; empty where there is none, and `DataError` where it may be one of several."""
    for name in (split, None):
        if name in rows:
            return rows[name]
    if split is not None or not rows:
        return {}
    if len(rows) > 1:
        raise DataError(
            f"{place}: its id is in the files of {' and '.join(map(str, rows))}; name the split in this file's name too"
        )
    return next(iter(rows.values()))


def _names_by_number(paths: Iterable[str]) -> dict[str, list[str]]:
    """Number at the end of a name -> names of images that end so."""
    names: dict[str, dict[str, None]] = {}
    for path in paths:
        name = path.replace("!", "/").rpartition("/")[2]
        stem, _, extension = name.rpartition(".")
        digits = stem[len(stem.rstrip(_DIGITS)) :]
        if digits and extension and extension.lower() != "json":
            names.setdefault(digits.lstrip("0") or "0", {})[name] = None
    return {number: list(same) for number, same in names.items()}


def _numbered(names: Sequence[str], split: Split | None, place: str) -> str | None:
    """The one of several images of the same number that is of a split; raises `DataError` where none is clear."""
    if len(names) > 1:
        names = [name for name in names if split_of_name(name) == split] or names
    if len(names) > 1:
        raise DataError(
            f"{place}: {len(names)} images have its number, such as {names[0]} and {names[1]}; list the images with "
            "their id and file_name"
        )
    return names[0] if names else None


def _answers(annotation: Mapping[str, Any], place: str) -> Sequence[str]:
    answers = annotation.get("answers")
    if not isinstance(answers, list):
        answers = [] if answers is None else [answers]
    texts = [answer_text(answer, place) for answer in answers]
    if not texts:
        return [answer_text(annotation.get("multiple_choice_answer", annotation.get("answer")), place)]
    counts = Counter(texts)
    return sorted(texts, key=lambda answer: -counts[answer])
