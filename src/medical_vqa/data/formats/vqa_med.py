"""VQA-Med 2019, 2020 and 2021: radiology images of MedPix with questions, one text file per split (ImageCLEF).

One row of the test file of 2019, and of the question-answer files of the other splits and years::

    synpic54082|modality|what modality is shown?|cta - ct angiography
    synpic41148|what kind of image is this?|cta - ct angiography

In the answers ``#`` separates accepted answers, and what is in parentheses may be left out (README of the test set of
2019). The test answers of 2020 and 2021 are in a file of their own, ``synpic42072|avascular necrosis|...``, whose
further columns are further accepted answers. The training questions of 2021 are those of 2020, train and validation
together; its new validation and test sets ask about abnormalities only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from medical_vqa.data.formats.base import DatasetCard, Published
from medical_vqa.data.formats.building import DatasetBuilder, published_files, split_of_name
from medical_vqa.errors import DataError
from medical_vqa.schema.records import Split

_LICENSE = "research use under the terms of ImageCLEF; the images are MedPix's (the authors' README files)"
_CITATION = (
    "A. Ben Abacha et al.: Overview of the VQA-Med task at ImageCLEF {year}. CLEF {year} Working Notes, CEUR-WS.org"
)
_ROWS: Mapping[str, tuple[Mapping[Split, int], int]] = {
    "2019": ({"train": 12792, "validation": 2000, "test": 500}, 4200),
    "2020": ({"train": 4000, "validation": 500, "test": 500}, 5000),
    "2021": ({"train": 4500, "validation": 500, "test": 500}, 5500),
}
_OPTIONAL = re.compile(r"\(([^()]*)\)")
_CATEGORIES = {"c1": "modality", "c2": "plane", "c3": "organ", "c4": "abnormality"}


class VqaMed:
    """Reader of one year of VQA-Med.

    Args:
        year: ``2019``, ``2020`` or ``2021``.
    """

    def __init__(self, year: str) -> None:
        rows, images = _ROWS[year]
        self.card = DatasetCard(
            name=f"vqa-med-{year}",
            title=f"VQA-Med {year} (ImageCLEF)",
            license=_LICENSE,
            citation=_CITATION.format(year=year),
            homepage=f"https://github.com/abachaa/VQA-Med-{year}",
            rows=rows,
            images=images,
        )

    def read(self, source: Path) -> Published:
        """Parse the published folders; raises `DataError` with file and row where a line is not as published."""
        builder = DatasetBuilder(self.card.name, source)
        files = [path for path in published_files(source, "*.txt") if "readme" not in path.name.lower()]
        categories = _categories(files)
        with_answers = [path for path in files if _has_rows(path)]
        if not with_answers:
            raise DataError(
                f"{source}: expected text files of lines such as synpic1|question|answer; name the folder of "
                f"{self.card.title}"
            )
        answer_files = [
            path for path in with_answers if "answers" in path.name.lower() and "question" not in path.name.lower()
        ]
        references = _references(answer_files)
        with_question: set[str] = set()
        for path in with_answers:
            if path in answer_files or path.name[:2].lower() in _CATEGORIES:
                continue
            split = split_of_name(path.name) or split_of_name(path.parent.name) or _split_of_path(path, source)
            if _superseded(path, with_answers):
                continue
            for place, row in builder.numbered(path, _lines(path)):
                if len(row) == 2 and row[0] in references and row[0] in with_question:
                    raise DataError(
                        f"{place}: {row[0]!r} has a second question, and the reference answers name only images; "
                        "write the answer behind the question: image|question|answer"
                    )
                _add(builder, row, split, references, categories, place)
                with_question.add(row[0])
        if unused := [image for image in references if image not in with_question]:
            builder.notes.append(
                f"{len(unused):,} reference answers are of images without a question, such as {unused[0]}: they are "
                "left out"
            )
        return builder.published()

    def bundled(self) -> Path | None:
        """None: it does not ship with the package."""
        return None


def vqa_med_2019() -> VqaMed:
    """The ``vqa-med-2019`` dataset."""
    return VqaMed("2019")


def vqa_med_2020() -> VqaMed:
    """The ``vqa-med-2020`` dataset."""
    return VqaMed("2020")


def vqa_med_2021() -> VqaMed:
    """The ``vqa-med-2021`` dataset."""
    return VqaMed("2021")


def accepted_answers(text: str) -> list[str]:
    """``a#(b) c`` as the accepted answers: a, b c, c."""
    answers: list[str] = []
    for part in text.split("#"):
        complete = " ".join(_OPTIONAL.sub(r"\1", part).split())
        answers += [complete, " ".join(_OPTIONAL.sub("", part).split())]
    return list(dict.fromkeys(answer for answer in answers if answer))


def _references(paths: Iterable[Path]) -> dict[str, list[str]]:
    """Image -> its accepted answers, of the files of reference answers; raises `DataError` where an image is twice."""
    references: dict[str, list[str]] = {}
    for path in paths:
        for number, (image, *answers) in enumerate(_lines(path), 1):
            if references.setdefault(image, answers) != answers:
                raise DataError(
                    f"{path.name} row {number}: {image!r} has other answers in another row; keep one of them"
                )
    return references


def _add(
    builder: DatasetBuilder,
    row: list[str],
    split: Split,
    references: Mapping[str, list[str]],
    categories: Mapping[tuple[str, str], str],
    place: str,
) -> None:
    if len(row) not in (2, 3, 4):
        raise DataError(f"{place}: has {len(row)} cells; expected image|question|answer, in 2019 also a category")
    image, question = row[0], row[2] if len(row) == 4 else row[1]
    answers = accepted_answers(row[-1]) if len(row) > 2 else references.get(image, [])
    category = row[1] if len(row) == 4 else categories.get((image, question), "")
    facts = {"category": category, "source_image": image}
    builder.add(split, question, answers, [builder.image(image, place)], place, facts=facts)


def _lines(path: Path) -> list[list[str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start}); get the published file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    return [[cell.strip() for cell in line.split("|")] for line in lines if line.strip()]


def _has_rows(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        return any("|" in line for line in lines)


def _superseded(path: Path, others: list[Path]) -> bool:
    """Whether another file has the same questions together with their answers."""
    return any(
        other != path and other.stem.lower().startswith(path.stem.lower()) and "answers" in other.name.lower()
        for other in others
    )


def _split_of_path(path: Path, source: Path) -> Split:
    """The split that the folders of a file name: ``VQAMed2020-VQAnswering-TrainingSet``."""
    name = path.relative_to(source).as_posix().lower()
    return "validation" if "val" in name else "test" if "test" in name else "train"


def _categories(files: list[Path]) -> dict[tuple[str, str], str]:
    """(image, question) -> category, of the files by category: ``C1_Modality_train.txt``."""
    return {
        (row[0], row[1]): _CATEGORIES[path.name[:2].lower()]
        for path in files
        if path.name[:2].lower() in _CATEGORIES
        for row in _lines(path)
        if len(row) > 1
    }
