"""Kvasir-VQA and Kvasir-VQA-x1: images of the digestive tract with questions (Gautam et al. 2024 and 2025).

One row of the hub's parquet, and one of x1's JSON or parquet::

    {"image": {"bytes": b"...", "path": null}, "source": "HyperKvasir", "question": "Is there text?", "answer": "No",
     "img_id": "cl8k2u1pm1dw7083203g1b7yv"}
    {"img_id": "cl8k2u1pm1dw7083203g1b7yv", "complexity": 1, "question": "...", "answer": "...", "original": [...],
     "question_class": ["polyp_count"]}

The images of x1 are those of Kvasir-VQA, named by ``img_id``. Frames of one examination resemble each other, and the
published rows do not say which belong together: the audit of near-duplicates shows what a random split leaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medical_vqa.data.formats.base import DatasetCard, Published
from medical_vqa.data.formats.building import DatasetBuilder, split_of_name
from medical_vqa.data.formats.table_files import table_rows
from medical_vqa.data.formats.tables import table_paths
from medical_vqa.data.formats.values import answer_text, as_text, question_text
from medical_vqa.errors import DataError
from medical_vqa.schema.records import Split

_LICENSE = "CC BY-NC 4.0: no commercial use (the authors' dataset cards)"


class KvasirVqa:
    """Reader of both datasets.

    Args:
        card: Card of the dataset.
    """

    def __init__(self, card: DatasetCard) -> None:
        self.card = card

    def read(self, source: Path) -> Published:
        """Parse the hub's files; raises `DataError` where a row is not as published."""
        builder = DatasetBuilder(self.card.name, source)
        for path in table_paths(source):
            split = split_of_name(path.name) or "train"
            for place, row in builder.numbered(path, table_rows(path)):
                if not {"img_id", "question", "answer"} <= row.keys():
                    raise DataError(f"{place}: expected img_id, question and answer; get the published file")
                image_id = as_text(row["img_id"])
                facts = {
                    "source": as_text(row.get("source")),
                    "complexity": as_text(row.get("complexity")),
                    "question_class": as_text(row.get("question_class")),
                    "img_id": image_id,
                }
                image = builder.image(row.get("image") or image_id, place)
                question, answers = question_text(row["question"], place), [answer_text(row["answer"], place)]
                group = as_text(row.get("video_id"))
                builder.add(split, question, answers, [image], place, group=group, facts=facts)
        builder.notes.append("the rows do not say which frames belong to one examination: run the audit")
        return builder.published()

    def bundled(self) -> Path | None:
        """None: it does not ship with the package."""
        return None


def kvasir_vqa() -> KvasirVqa:
    """The ``kvasir-vqa`` dataset."""
    rows: Mapping[Split, int] = {"train": 58849}
    return KvasirVqa(
        DatasetCard(
            name="kvasir-vqa",
            title="Kvasir-VQA (2024)",
            license=_LICENSE,
            citation="S. Gautam et al.: Kvasir-VQA: a text-image pair GI tract dataset. arXiv:2409.01437 (2024)",
            homepage="https://datasets.simula.no/kvasir-vqa/",
            rows=rows,
            images=6500,
        )
    )


def kvasir_vqa_x1() -> KvasirVqa:
    """The ``kvasir-vqa-x1`` dataset."""
    return KvasirVqa(
        DatasetCard(
            name="kvasir-vqa-x1",
            title="Kvasir-VQA-x1 (2025)",
            license=_LICENSE,
            citation="S. Gautam et al.: Kvasir-VQA-x1: a multimodal dataset for medical reasoning and robust MedVQA in "
            "gastrointestinal endoscopy. arXiv:2506.09958 (2025)",
            homepage="https://github.com/simula/Kvasir-VQA-x1",
        )
    )
