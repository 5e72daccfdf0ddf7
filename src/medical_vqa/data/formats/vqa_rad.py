"""VQA-RAD: 315 radiology pictures, of which 314 are asked about, with 2,248 questions of clinicians (Lau et al. 2018).

One row of ``VQA_RAD Dataset Public.json``::

    {"qid": "0", "phrase_type": "freeform", "qid_linked_id": "03f451ca-de62-4617-9679-e836026a7642",
     "image_case_url": "https://medpix.nlm.nih.gov/case?id=48e1dd0e-8552-46ad-a354-5eb55be86de6",
     "image_name": "synpic54610.jpg", "image_organ": "HEAD", "evaluation": "not evaluated",
     "question": "Are regions of the brain infarcted?", "question_rephrase": "NULL", "question_relation": "NULL",
     "question_frame": "NULL", "question_type": "PRES", "answer": "Yes", "answer_type": "CLOSED"}

Rows whose ``phrase_type`` starts with ``test`` are the test split, all others train; there is no published validation
split. Questions and answers stay as published, answers that are numbers become text. The facts are for breakdowns:
surrounding spaces and the misspelled types ``PRSE`` and ``ATRIB`` are corrected, several types of one question are
sorted, and ``NULL`` is left out. ``pair`` links a question to its rewording, and ``relation`` says how the two relate
(``strict agreement``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medical_vqa.data.formats.base import DatasetCard, Published
from medical_vqa.data.formats.rows import (
    check_fields,
    extra_facts,
    filled,
    note_extra_fields,
    read_json_rows,
    relative_name,
    require_same_name,
    require_unique,
)
from medical_vqa.data.imaging.raster import read_image_file
from medical_vqa.errors import DataError
from medical_vqa.schema.records import Example, Split

CARD = DatasetCard(
    name="vqa-rad",
    title="VQA-RAD (2018)",
    license="CC0 1.0 (the dataset's page, osf.io/89kps)",
    citation=(
        "J. J. Lau, S. Gayen, A. Ben Abacha, D. Demner-Fushman: A dataset of clinically generated visual questions "
        "and answers about radiology images. Scientific Data 5, 180251 (2018)"
    ),
    homepage="https://osf.io/89kps/",
    rows={"train": 1797, "test": 451},
    images=314,  # that questions are about; the folder holds one more, synpic35356.jpg
)

_REQUIRED = (
    "qid", "phrase_type", "image_name", "image_organ", "question", "question_type", "answer", "answer_type",
)  # fmt: skip
_OPTIONAL = (
    "qid_linked_id", "image_case_url", "evaluation", "question_rephrase", "question_relation", "question_frame",
)  # fmt: skip
_MISSPELLED = {"PRSE": "PRES", "ATRIB": "ATTRIB"}


class VqaRad:
    """The ``vqa-rad`` dataset."""

    card = CARD

    def read(self, source: Path) -> Published:
        """Parse the published folder; raises `DataError` with file and row where it is not in this format."""
        questions = _find(source, "vqaraddatasetpublic", "VQA_RAD Dataset Public.json", folder=False)
        pictures = _find(source, "vqaradimagefolder", "VQA_RAD Image Folder", folder=True)
        image_names: dict[str, str] = {}
        examples: dict[Split, list[Example]] = {}
        places: dict[str, str] = {}
        rows = read_json_rows(questions)
        for number, row in enumerate(rows, 1):
            place = f"{questions.name} row {number}"
            split, example = _example(row, place)
            require_unique(places, example.facts["qid"], place, "question id")
            name = relative_name(filled(row, "image_name", place), place)
            require_same_name(image_names, example.image_id, f"{pictures.name}/{name}", place)
            examples.setdefault(split, []).append(example)
        return Published(
            examples=examples,
            image_names=image_names,
            read_image=lambda image_id: read_image_file(source / image_names[image_id]),
            notes=note_extra_fields(rows, (*_REQUIRED, *_OPTIONAL), questions.name),
        )

    def bundled(self) -> Path | None:
        """None: VQA-RAD does not ship with the package."""
        return None


def _find(source: Path, letters: str, published: str, *, folder: bool) -> Path:
    """The file or folder of that name, whatever its spaces, underscores and capitals."""
    candidates = [path for path in sorted(source.iterdir()) if path.is_dir() == folder]
    paths = [path for path in candidates if "".join(filter(str.isalnum, path.stem.casefold())) == letters]
    if len(paths) == 1:
        return paths[0]
    reason = f"both {paths[0].name} and {paths[1].name} are there" if paths else "it is not there"
    raise DataError(f"{source}: expected one {published!r}, but {reason}; name the folder that holds it")


def _example(row: Any, place: str) -> tuple[Split, Example]:
    check_fields(row, place, required=_REQUIRED, optional=_OPTIONAL)
    phrase_type = filled(row, "phrase_type", place).strip()
    split: Split = "test" if phrase_type.startswith("test") else "train"
    image_id = f"vqa-rad/{relative_name(filled(row, 'image_name', place), place).rpartition('.')[0]}"
    facts = _facts(row, place)
    example = Example(
        id=f"vqa-rad/{split}/{facts['qid']}",
        image_id=image_id,
        question=filled(row, "question", place),
        answers=(filled(row, "answer", place),),
        group=image_id,
        facts=facts,
    )
    return split, example


def _facts(row: Mapping[str, Any], place: str) -> dict[str, str]:
    types = {name.strip().upper() for name in filled(row, "question_type", place).split(",")}
    facts = {
        **extra_facts(row, (*_REQUIRED, *_OPTIONAL)),
        "answer_type": filled(row, "answer_type", place).strip().upper(),
        "question_type": ", ".join(sorted(_MISSPELLED.get(name, name) for name in types if name)),
        "phrase_type": filled(row, "phrase_type", place).strip(),
        "organ": filled(row, "image_organ", place).strip().upper(),
        "qid": filled(row, "qid", place).strip(),
        "pair": str(row.get("qid_linked_id") or "NULL").strip(),
        "relation": str(row.get("question_relation") or "NULL").strip().lower(),
    }
    return {key: value for key, value in facts.items() if value.upper() != "NULL"}
