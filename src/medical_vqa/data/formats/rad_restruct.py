"""Rad-ReStruct: reports of chest X-rays as questions that depend on earlier answers (Pellegrini et al. 2023).

``test_qa_pairs/100.json`` is a list; one element is question, answers, history, and what may be answered::

    ["Are there any foreign objects?", ["no"], [], {"answer_type": "single_choice", "options": ["yes", "no"],
                                                    "path": "foreign objects_objects"}]

A report belongs to one or several frontal images (``id_to_img_mapping_frontal_reports.json``), and each image is asked
all its questions, as in the published loader. The history is the questions and answers above in the hierarchy; it
stands before the question, which cannot be understood without it. Several answers are one list.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medical_vqa.data.formats.base import DatasetCard, Published
from medical_vqa.data.formats.building import DatasetBuilder, published_files
from medical_vqa.data.formats.rows import read_json_rows
from medical_vqa.data.formats.table_files import json_content
from medical_vqa.data.formats.values import answer_text, as_text, question_text
from medical_vqa.errors import DataError
from medical_vqa.io import json_type
from medical_vqa.schema.records import Split

_FOLDERS: Mapping[Split, str] = {"train": "train_qa_pairs", "validation": "val_qa_pairs", "test": "test_qa_pairs"}
_MAPPING = "id_to_img_mapping_frontal_reports.json"


class RadReStruct:
    """The ``rad-restruct`` dataset."""

    card = DatasetCard(
        name="rad-restruct",
        title="Rad-ReStruct (2023), on IU X-Ray",
        license="MIT for the reports (the authors' repository); IU X-Ray images: Open-i, CC BY-NC-ND 4.0",
        citation="C. Pellegrini, M. Keicher, E. Özsoy, N. Navab: Rad-ReStruct: a novel VQA benchmark and method for "
        "structured radiology reporting. MICCAI 2023",
        homepage="https://github.com/ChantalMP/Rad-ReStruct",
    )

    def read(self, source: Path) -> Published:
        """Parse the authors' folder; raises `DataError` where a report is not as published."""
        folder = next((path.parent for path in published_files(source, _MAPPING)), None)
        if folder is None:
            raise DataError(f"{source}: expected {_MAPPING}; name the folder data/radrestruct of the repository")
        images = json_content(folder / _MAPPING)
        if not isinstance(images, Mapping):
            raise DataError(
                f"{folder / _MAPPING}: expected an object of report -> images, got {json_type(images)}; get the "
                "published file"
            )
        builder = DatasetBuilder(self.card.name, source)
        without_image: list[str] = []
        for split, name in _FOLDERS.items():
            for path in sorted(published_files(folder / name, "*.json"), key=lambda file: (len(file.stem), file.stem)):
                named = images.get(path.stem) or []
                if not named:
                    without_image.append(f"{name}/{path.name}")
                pairs = [pair for _, pair in builder.numbered(path, read_json_rows(path))]
                for image in named if isinstance(named, list) else [named]:
                    image_id = builder.image(image, path.name)
                    for number, pair in enumerate(pairs, 1):
                        self._add(builder, split, pair, image_id, path, number)
            if not (folder / name).is_dir():
                builder.missing.append(name)
        if without_image:
            builder.notes.append(
                f"{len(without_image):,} reports have no image in {_MAPPING}, such as {without_image[0]}: their "
                "questions are left out"
            )
        return builder.published()

    def bundled(self) -> Path | None:
        """None: it does not ship with the package."""
        return None

    def _add(self, builder: DatasetBuilder, split: Split, pair: Any, image_id: str, path: Path, number: int) -> None:
        place = f"{path.parent.name}/{path.name} question {number}"
        if not isinstance(pair, list) or len(pair) != 4 or not isinstance(pair[3], Mapping):
            raise DataError(f"{place}: expected question, answers, history and options; get the published file")
        question, answers, history, about = pair
        if not isinstance(history, list) or not all(isinstance(earlier, list) for earlier in history):
            raise DataError(f"{place}: expected the history as a list of questions and answers; get the published file")
        own_question = question_text(question, place)
        if not own_question.strip():
            raise DataError(f"{place}: the question is empty; get the published file")
        before = [f"{as_text(earlier[0])} {as_text(earlier[1])}" for earlier in history if len(earlier) > 1]
        options = about.get("options")
        closed = isinstance(options, list) and set(map(as_text, options)) == {"yes", "no"}
        facts = {
            "answer_type": "CLOSED" if closed else "OPEN",
            "choice_type": as_text(about.get("answer_type")),
            "area": as_text(about.get("path")).partition("_")[0],
            "level": str(1 + len(before)),
        }
        text = "\n".join([*before, own_question])
        name = f"{path.stem}-{image_id.rpartition('/')[2]}-{number}"
        group = f"rad-restruct/report-{path.stem}"
        builder.add(
            split, text, [answer_text(answers, place)], [image_id], place, number=name, group=group, facts=facts
        )
