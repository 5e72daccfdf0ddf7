"""The other copies of VQA-RAD: that of MEVF and QCR with 3,064 training rows, and the deduplicated one on the hub.

One row of ``trainset.json`` (MEVF, QCR, PubMedCLIP, PMC-VQA), and one of the hub's parquet::

    {"qid": 1, "image_name": "synpic54610.jpg", "image_organ": "HEAD", "answer": "Yes", "answer_type": "CLOSED",
     "question_type": "PRES", "question": "Are regions of the brain infarcted?", "phrase_type": "freeform"}
    {"image": {"bytes": b"...", "path": null}, "question": "are regions of the brain infarcted?", "answer": "yes"}

The first has the framed and reworded questions as rows of their own; its test split has 308 freeform and 143 para rows.
The second (flaviagiammarino/vqa-rad) is in lower case, has no types of questions, and its rows no ids.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medical_vqa.data.formats import vqa_rad
from medical_vqa.data.formats.base import DatasetCard, Published
from medical_vqa.data.formats.building import DatasetBuilder, published_files, split_of_name
from medical_vqa.data.formats.rows import check_fields, read_json_rows
from medical_vqa.data.formats.table_files import table_rows
from medical_vqa.data.formats.values import answer_text, as_text, question_text
from medical_vqa.errors import DataError

_FIELDS = ("qid", "image_name", "image_organ", "answer", "answer_type", "question_type", "question", "phrase_type")


def _card(name: str, title: str, homepage: str, train: int) -> DatasetCard:
    return DatasetCard(
        name=name,
        title=title,
        license=vqa_rad.CARD.license,
        citation=vqa_rad.CARD.citation,
        homepage=homepage,
        rows={"train": train, "test": 451},
    )


class VqaRadMevf:
    """The ``vqa-rad-mevf`` dataset."""

    card = _card(
        "vqa-rad-mevf", "VQA-RAD (2018), the copy of MEVF and QCR", "https://github.com/Awenbocc/med-vqa", 3064
    )

    def read(self, source: Path) -> Published:
        """Parse ``trainset.json`` and ``testset.json``; raises `DataError` where a row is not as published."""
        builder = DatasetBuilder(self.card.name, source)
        for path in published_files(source, "*set.json"):
            for place, row in builder.numbered(path, read_json_rows(path)):
                check_fields(row, place, required=_FIELDS)
                self._add(builder, row, path, place)
        return builder.published()

    def bundled(self) -> Path | None:
        """None: it does not ship with the package."""
        return None

    def _add(self, builder: DatasetBuilder, row: dict[str, Any], path: Path, place: str) -> None:
        facts = {
            "answer_type": as_text(row["answer_type"]).strip().upper(),
            "question_type": as_text(row["question_type"]).strip(),
            "phrase_type": as_text(row["phrase_type"]).strip(),
            "organ": as_text(row["image_organ"]).strip(),
            "qid": as_text(row["qid"]),
        }
        builder.add(
            split_of_name(path.stem) or "train",
            question_text(row["question"], place),
            [answer_text(row["answer"], place)],
            [builder.image(row["image_name"], place)],
            place,
            number=facts["qid"],
            facts=facts,
        )


class VqaRadHub:
    """The ``vqa-rad-hub`` dataset."""

    card = _card(
        "vqa-rad-hub",
        "VQA-RAD (2018), the deduplicated copy on the hub",
        "https://huggingface.co/datasets/flaviagiammarino/vqa-rad",
        1793,
    )

    def read(self, source: Path) -> Published:
        """Parse the parquet files; raises `DataError` where a row is not as published."""
        builder = DatasetBuilder(self.card.name, source)
        for path in published_files(source, "*.parquet"):
            for place, row in builder.numbered(path, table_rows(path)):
                if not {"image", "question", "answer"} <= row.keys():
                    raise DataError(f"{place}: expected image, question and answer; get the published file")
                question, answer = question_text(row["question"], place), answer_text(row["answer"], place)
                facts = {"answer_type": "CLOSED" if answer.strip().lower() in ("yes", "no") else "OPEN"}
                images = [builder.image(row["image"], place)]
                builder.add(split_of_name(path.name) or "train", question, [answer], images, place, facts=facts)
        return builder.published()

    def bundled(self) -> Path | None:
        """None: it does not ship with the package."""
        return None
