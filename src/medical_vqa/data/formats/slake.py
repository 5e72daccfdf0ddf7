"""SLAKE: 642 CT, MR and X-ray images with 14,028 questions in English and Chinese (Liu et al. 2021).

One row of ``train.json``::

    {"img_id": 1, "img_name": "xmlab1/source.jpg", "question": "What modality is used to take this image?",
     "answer": "MRI", "q_lang": "en", "location": "Abdomen", "modality": "MRI", "answer_type": "OPEN",
     "base_type": "vqa", "content_type": "Modality", "triple": ["vhead", "_", "_"], "qid": 0}

Two layouts are read: the authors' folder (``imgs/xmlab1/source.jpg``, the validation file called
``validate.json``) and the hub's (``imgs.zip``, read without unpacking, and ``validation.json``). Questions and
answers stay as published. Facts are for breakdowns: they have one spelling for each modality and location, and
``organ`` is the body region of a location.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
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
    text,
)
from medical_vqa.data.formats.slake_regions import region_reader
from medical_vqa.data.imaging.raster import read_image_file
from medical_vqa.errors import DataError, ImageError
from medical_vqa.schema.records import SPLITS, Example, Split

CARD = DatasetCard(
    name="slake",
    title="SLAKE 1.0 (2021)",
    license="CC BY 4.0 (the authors' dataset card on the Hugging Face hub, BoKelvin/SLAKE)",
    citation=(
        "B. Liu, L.-M. Zhan, L. Xu, L. Ma, Y. Yang, X.-M. Wu: SLAKE: a semantically-labeled knowledge-enhanced "
        "dataset for medical visual question answering. ISBI 2021, arXiv:2102.09542"
    ),
    homepage="https://www.med-vqa.com/slake/",
    rows={"train": 9835, "validation": 2099, "test": 2094},
    images=642,
    hub_repo="BoKelvin/SLAKE",
    hub_revision="a9083ce6c34ac3ffb17671a605962924d8a8f9e9",
    hub_files=("train.json", "validation.json", "test.json", "imgs.zip"),
    default_where={"language": "en"},
)

_FILES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train.json",),
    "validation": ("validation.json", "validate.json"),
    "test": ("test.json",),
}
_FIELDS = (
    "img_id", "img_name", "question", "answer", "q_lang", "location", "modality", "answer_type", "base_type",
    "content_type", "triple", "qid",
)  # fmt: skip
_MODALITIES = {"ct": "CT", "mri": "MRI", "mr": "MRI", "xray": "X-Ray"}
_LOCATIONS = {
    "abdomen": ("Abdomen", "Abdomen"),
    "brain": ("Brain", "Head"),
    "brainface": ("Brain_Face", "Head"),
    "braintissue": ("Brain_Tissue", "Head"),
    "chestheart": ("Chest_heart", "Chest"),
    "chestlung": ("Chest_lung", "Chest"),
    "chestmediastinal": ("Chest_mediastinal", "Chest"),
    "lung": ("Lung", "Chest"),
    "neck": ("Neck", "Neck"),
    "pelviccavity": ("Pelvic Cavity", "Pelvis"),
}
_EMPTY_ANSWER: tuple[Split, str] = ("train", "1622")  # "Does the picture contain liver?" about xmlab281
_MAX_IMAGE_BYTES = 256 * 1024 * 1024  # an archive's member that unpacks to more is not an image of SLAKE


class Slake:
    """The ``slake`` dataset."""

    card = CARD

    def read(self, source: Path) -> Published:
        """Parse the authors' folder or the hub's; raises `DataError` with file and row where it is neither."""
        return read_slake(source, name="slake", splits=SPLITS)

    def bundled(self) -> Path | None:
        """None: SLAKE itself does not ship with the package."""
        return None


def read_slake(source: Path, *, name: str, splits: Sequence[Split]) -> Published:
    """Parse a folder in one of SLAKE's layouts.

    Args:
        source: The folder that holds the JSON files.
        name: First part of all ids: ``slake``.
        splits: Splits of the complete dataset; those without a file are reported in `Published.missing`.

    Raises:
        DataError: Not such a folder, or a row that is not as published.
    """
    paths, missing = _find_files(source, splits)
    image_names: dict[str, str] = {}
    notes: list[str] = []
    examples = {split: _read_split(path, split, name, image_names, notes) for split, path in paths.items()}
    archive = source / "imgs.zip"
    if (source / "imgs").is_dir() or not archive.is_file():
        reader = _folder_reader(source, image_names)
    else:
        reader = _zip_reader(archive, image_names)
    if not (source / "imgs").is_dir() and not archive.is_file():
        missing.append("imgs/ or imgs.zip")
    regions = region_reader(source)
    return Published(
        examples=examples,
        image_names=image_names,
        read_image=reader,
        missing=missing,
        notes=notes,
        read_regions=regions and (lambda image_id: regions(image_id.rpartition("/")[2])),
    )


def _find_files(source: Path, splits: Sequence[Split]) -> tuple[dict[Split, Path], list[str]]:
    paths: dict[Split, Path] = {}
    missing: list[str] = []
    for split in splits:
        existing = [source / name for name in _FILES[split] if (source / name).is_file()]
        if len(existing) > 1:
            raise DataError(f"{source} has both {existing[0].name} and {existing[1].name}; keep one of them")
        if existing:
            paths[split] = existing[0]
        else:
            missing.append(" or ".join(_FILES[split]))
    if not paths:
        raise DataError(
            f"{source}: expected a SLAKE folder, but there is no {missing[0]} in it; name the folder that holds it"
        )
    return paths, missing


def _read_split(path: Path, split: Split, name: str, image_names: dict[str, str], notes: list[str]) -> list[Example]:
    places: dict[str, str] = {}
    examples = []
    rows = read_json_rows(path)
    notes += note_extra_fields(rows, _FIELDS, path.name)
    for number, row in enumerate(rows, 1):
        place = f"{path.name} row {number}"
        example = _example(row, split, name, place)
        require_unique(places, example.id, place, "question id")
        require_same_name(image_names, example.image_id, f"imgs/{relative_name(row['img_name'], place)}", place)
        if not example.answers:
            notes.append(f"{split} qid {example.facts['qid']} has an empty answer: kept without one")
        examples.append(example)
    return examples


def _example(row: Any, split: Split, name: str, place: str) -> Example:
    check_fields(row, place, required=_FIELDS)
    qid = filled(row, "qid", place)
    image = relative_name(filled(row, "img_name", place), place)
    folder = image.rpartition("/")[0]  # xmlab1 of xmlab1/source.jpg
    if not folder:
        raise DataError(f"{place}: image {image!r} is not like xmlab1/source.jpg; get the published file")
    image_id = f"{name}/{folder}"
    return Example(
        id=f"{name}/{split}/{qid}",
        image_id=image_id,
        question=filled(row, "question", place),
        answers=_answers(row, split, qid, place),
        group=image_id,
        facts=_facts(row, qid, place),
    )


def _answers(row: Mapping[str, Any], split: Split, qid: str, place: str) -> tuple[str, ...]:
    answer = text(row, "answer", place)
    if answer.strip():
        return (answer,)
    if (split, qid) == _EMPTY_ANSWER:
        return ()
    raise DataError(f"{place} (qid {qid}): the answer is empty; fill it in or take the row out")


def _facts(row: Mapping[str, Any], qid: str, place: str) -> dict[str, str]:
    location = filled(row, "location", place).strip()
    modality = filled(row, "modality", place).strip()
    spelled, organ = _LOCATIONS.get(_letters(location), (location, ""))
    facts = {
        **extra_facts(row, _FIELDS),
        "answer_type": filled(row, "answer_type", place).strip().upper(),
        "content_type": filled(row, "content_type", place).strip(),
        "modality": _MODALITIES.get(_letters(modality), modality),
        "location": spelled,
        "organ": organ,
        "base_type": filled(row, "base_type", place).strip(),
        "language": filled(row, "q_lang", place).strip().lower(),
        "qid": qid,
    }
    return {key: value for key, value in facts.items() if value}


def _letters(value: str) -> str:
    return "".join(character for character in value.casefold() if character.isalnum())


def _folder_reader(source: Path, image_names: Mapping[str, str]) -> Callable[[str], bytes]:
    return lambda image_id: read_image_file(source / image_names[image_id])


def _zip_reader(archive: Path, image_names: Mapping[str, str]) -> Callable[[str], bytes]:
    try:
        opened = zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{archive}: not a complete zip archive ({error}); download it again") from error
    # The archive may or may not have `imgs/` on top, so a member goes by its last two parts.
    members = {
        "/".join(info.filename.split("/")[-2:]): info
        for info in opened.infolist()
        if not info.is_dir() and not info.filename.startswith("__MACOSX/")
    }
    return lambda image_id: _read_member(opened, members, image_names[image_id])


def _read_member(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], name: str) -> bytes:
    info = members.get("/".join(name.split("/")[-2:]))
    if info is None:
        raise ImageError(f"{archive.filename}: has no {name}; download the archive again")
    if info.file_size > _MAX_IMAGE_BYTES:
        raise ImageError(f"{archive.filename}: {name} unpacks to {info.file_size:,} bytes; get the published archive")
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ImageError(f"{archive.filename}: {name} cannot be unpacked ({error}); download it again") from error
