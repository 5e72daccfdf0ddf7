"""VQA JSON in the layout of COCO and VQA v2: a file of questions and a file of annotations with ten answers each.

One question and its annotation::

    {"image_id": 42, "question": "Is there a fracture?", "question_id": 42000}
    {"question_id": 42000, "image_id": 42, "question_type": "is there", "answer_type": "yes/no",
     "multiple_choice_answer": "no", "answers": [{"answer": "no", "answer_confidence": "yes", "answer_id": 1}]}

Images are found by the ``file_name`` of the list ``images``, by the id as a name, or by the number at the end of a name
(``COCO_train2014_000000000042.jpg``), in the folder or a zip archive in it. All answers are accepted, the most frequent
first, each as often as it was given.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medical_vqa.data.formats.base import Published
from medical_vqa.data.formats.building import DatasetBuilder, published_files, split_of_name
from medical_vqa.data.formats.table_files import json_content
from medical_vqa.data.formats.tables import own_card
from medical_vqa.data.formats.values import as_text
from medical_vqa.errors import DataError

_NUMBER = re.compile(r"[^/!]*?(\d+)\.\w+$")


class CocoVqa:
    """The ``coco-vqa`` format."""

    card = own_card("coco-vqa", "questions and annotations in the layout of VQA v2")

    def read(self, source: Path) -> Published:
        """Parse the JSON files of a folder; raises `DataError` where there are no questions, or one has no image."""
        builder = DatasetBuilder(self.card.name, source)
        contents = {path: json_content(path) for path in published_files(source, "*.json")}
        parts = [content for content in contents.values() if isinstance(content, Mapping)]
        annotations = {as_text(row["question_id"]): row for part in parts for row in part.get("annotations", ())}
        names = {as_text(row["id"]): row["file_name"] for part in parts for row in part.get("images", ())}
        numbers = {
            str(int(match[1])): match[0]
            for path in builder.files.paths()
            if not path.lower().endswith(".json") and (match := _NUMBER.search(path))
        }
        for path, content in contents.items():
            rows = content.get("questions", ()) if isinstance(content, Mapping) else ()
            for number, row in enumerate(rows, 1):
                place = f"{path.name} row {number}"
                if not isinstance(row, Mapping) or not {"question_id", "image_id", "question"} <= row.keys():
                    raise DataError(f"{place}: expected question_id, image_id and question; get the published file")
                image = as_text(row["image_id"])
                name = names.get(image) or numbers.get(image) or image
                annotation = annotations.get(as_text(row["question_id"]), {})
                builder.add(
                    split_of_name(path.name) or "train",
                    as_text(row["question"]),
                    _answers(annotation),
                    [builder.image(name, place)],
                    place,
                    number=as_text(row["question_id"]),
                    facts={key: as_text(annotation.get(key)) for key in ("question_type", "answer_type")},
                )
        return builder.published()

    def bundled(self) -> Path | None:
        """None: it does not ship with the package."""
        return None


def _answers(annotation: Mapping[str, Any]) -> Sequence[str]:
    answers = [as_text(answer) for answer in annotation.get("answers", ())]
    if not answers:
        return [as_text(annotation.get("multiple_choice_answer", annotation.get("answer")))]
    counts = Counter(answers)
    return sorted(answers, key=lambda answer: -counts[answer])
