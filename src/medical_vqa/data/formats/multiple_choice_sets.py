"""Multiple-choice datasets: PMC-VQA, OmniMedVQA, MedXpertQA-MM, MedFrameQA, and VLMEvalKit's TSV (GMAI-MMBench).

One row of each, as published::

    PMC-VQA         index,Figure_path,Caption,Question,Choice A,...,Choice D,Answer,split    (test_2.csv; v1: "Anwser")
    OmniMedVQA      {"dataset": "ACRIMA", "question_id": "acrima_1", "question_type": "...", "question": "...",
                     "gt_answer": "...", "image_path": "Images/ACRIMA/1.png", "option_A": "...", "modality_type": "..."}
    MedXpertQA-MM   {"id": "MM-26", "question": "...", "options": {"A": "..."}, "label": "E",
                     "images": ["MM-26-a.jpeg"], "medical_task": "Diagnosis", "question_type": "Reasoning"}
    MedFrameQA      {"question": "...", "options": ["...", "..."], "correct_answer": "B", "image_1": {...},
                     "image_5": null}
    VLMEvalKit TSV  index, image (base64, or the index of the row that has it), question, A, B, C, D, answer, category

The question is followed by its choices, one per line; accepted are the text and the letter of the right one. The facts
``options`` and ``choice`` hold them for the rules that compare choices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medical_vqa.data.formats.base import DatasetCard, Published
from medical_vqa.data.formats.building import DatasetBuilder, choice_facts, split_of_name, with_options
from medical_vqa.data.formats.table_files import Row, table_rows
from medical_vqa.data.formats.tables import other_facts, table_paths
from medical_vqa.data.formats.values import answer_text, as_id, as_text, listed, question_text
from medical_vqa.errors import DataError
from medical_vqa.io import json_type
from medical_vqa.schema.records import Split

_LETTERS = "ABCDEFGHIJ"
_LONGEST_INDEX = 64  # characters; VLMEvalKit takes a shorter image for the index of another row


class _MultipleChoice(ABC):
    """What the readers of this module share: one row at a time, with its options and its letter."""

    card: DatasetCard
    images_by_index: dict[str, list[Any]]
    """Images of the earlier rows of the same file, for a row that names them by that row's index."""

    def read(self, source: Path) -> Published:
        """Parse the tables of a folder; raises `DataError` with file and row where a row is not as published."""
        builder = DatasetBuilder(self.card.name, source)
        for path in table_paths(source):
            if not self.has_rows(path):
                continue
            split = split_of_name(path.name) or "test"
            self.images_by_index = {}
            for place, row in builder.numbered(path, table_rows(path)):
                try:
                    self.add(builder, row, split, place)
                except KeyError as error:
                    raise DataError(f"{place}: has no column {error.args[0]!r}; get the published file") from error
        return builder.published()

    def has_rows(self, path: Path) -> bool:
        """Whether a table holds questions."""
        return bool(path.name)

    @abstractmethod
    def add(self, builder: DatasetBuilder, row: Row, split: Split, place: str) -> None:
        """Add a row."""

    def bundled(self) -> Path | None:
        """None: it does not ship with the package."""
        return None


def _add_choice(
    builder: DatasetBuilder,
    split: Split,
    question: str,
    options: Mapping[str, str],
    answer: str,
    images: list[Any],
    place: str,
    *,
    number: str = "",
    facts: Mapping[str, str] | None = None,
) -> None:
    """Add a multiple-choice row whose answer is a letter or the text of a choice; raises `DataError` for neither."""
    if not question.strip():
        raise DataError(f"{place}: the question is empty; fill it in or take the row out")
    if not options:
        raise DataError(f"{place}: has no choices; get the published file, or take the row out")
    texts = {
        text.strip().lower(): letter for letter, text in reversed(list(options.items()))
    }  # of equal texts the first
    letter = answer.strip().upper() if answer.strip().upper() in options else texts.get(answer.strip().lower(), "")
    if answer.strip() and not letter:
        raise DataError(f"{place}: the answer {answer!r} is none of the choices {', '.join(options)}; correct it")
    answers = [options[letter].strip(), letter] if letter else []
    builder.add(
        split,
        with_options(question, options),
        answers,
        [builder.image(image, place) for image in images],
        place,
        number=number,
        facts={**(facts or {}), **choice_facts(options, letter)},
    )


def _choices(value: Any, place: str) -> dict[str, str]:
    """Letter -> choice, of an object of letters or a list in their order; raises `DataError` for anything else."""
    content = listed(value)
    if isinstance(content, list) and len(content) <= len(_LETTERS):
        content = dict(zip(_LETTERS, content, strict=False))
    if not isinstance(content, Mapping):
        raise DataError(
            f"{place}: expected the choices as a list of at most {len(_LETTERS)}, or as an object of letters, got "
            f"{json_type(content)}; get the published file"
        )
    return {str(letter): answer_text(text, place) for letter, text in content.items()}


class PmcVqa(_MultipleChoice):
    """The ``pmc-vqa`` dataset."""

    card = DatasetCard(
        name="pmc-vqa",
        title="PMC-VQA (2023)",
        license="CC BY-SA for the questions (hub card); figures under the licenses of their articles",
        citation="X. Zhang et al.: PMC-VQA: visual instruction tuning for medical VQA. arXiv:2305.10415",
        homepage="https://huggingface.co/datasets/RadGenome/PMC-VQA",
    )

    def add(self, builder: DatasetBuilder, row: Row, split: Split, place: str) -> None:
        """Add a row; its choices may begin with their letter, and many figures are compound."""
        options = {letter: _without_letter(as_text(row[f"Choice {letter}"]), letter) for letter in "ABCD"}
        answer = answer_text(row["Anwser"] if "Anwser" in row else row["Answer"], place)
        answer_letter = as_text(row.get("Answer_label"))
        answer = answer_letter or _without_letter(answer, answer.strip()[:1].upper())
        facts = {"caption": as_text(row.get("Caption"))[:200]}
        question, images = question_text(row["Question"], place).strip(), [row["Figure_path"]]
        _add_choice(builder, split, question, options, answer, images, place, facts=facts)


class OmniMedVqa(_MultipleChoice):
    """The ``omnimedvqa`` dataset: the open-access part, whose rows have one to four choices."""

    card = DatasetCard(
        name="omnimedvqa",
        title="OmniMedVQA (2024)",
        license="the licenses of its 73 source datasets; the open-access part (authors' repository)",
        citation="Y. Hu et al.: OmniMedVQA: a new large-scale comprehensive benchmark for medical LVLM. CVPR 2024",
        homepage="https://huggingface.co/datasets/foreverbeliever/OmniMedVQA",
    )

    def add(self, builder: DatasetBuilder, row: Row, split: Split, place: str) -> None:
        """Add a row."""
        options = {
            letter: as_text(row[f"option_{letter}"]) for letter in _LETTERS if as_text(row.get(f"option_{letter}"))
        }
        facts = {
            "modality": as_text(row.get("modality_type")),
            "question_type": as_text(row.get("question_type")),
            "source": as_text(row.get("dataset")),
        }
        question, answer = question_text(row["question"], place), answer_text(row["gt_answer"], place)
        number = as_text(row["question_id"])
        _add_choice(builder, split, question, options, answer, [row["image_path"]], place, number=number, facts=facts)


class MedXpertQa(_MultipleChoice):
    """The ``medxpertqa-mm`` dataset: questions of specialist examinations about one or several images."""

    card = DatasetCard(
        name="medxpertqa-mm",
        title="MedXpertQA-MM (2025)",
        license="MIT (hub card of TsinghuaC3I/MedXpertQA)",
        citation="Y. Zuo et al.: MedXpertQA: benchmarking expert-level medical reasoning and understanding. ICML 2025",
        homepage="https://huggingface.co/datasets/TsinghuaC3I/MedXpertQA",
    )

    def has_rows(self, path: Path) -> bool:
        """Whether a table is of the part with images: not ``Text/test.jsonl``, nor ``medxpertqa_text_input.jsonl``."""
        return path.parent.name.lower() != "text" and "text" not in path.stem.lower()

    def add(self, builder: DatasetBuilder, row: Row, split: Split, place: str) -> None:
        """Add a row."""
        options = {letter: text for letter, text in _choices(row["options"], place).items() if text}
        facts = other_facts(row, {"id", "question", "options", "label", "images"})
        question = question_text(row["question"], place).partition("\nAnswer Choices:")[0]
        number, answer = as_text(row["id"]), answer_text(row["label"], place)
        images = listed(row["images"])
        images = images if isinstance(images, list) else [images]
        _add_choice(builder, split, question, options, answer, images, place, number=number, facts=facts)


class MedFrameQa(_MultipleChoice):
    """The ``medframeqa`` dataset: questions about two to five frames of a teaching video."""

    card = DatasetCard(
        name="medframeqa",
        title="MedFrameQA (2025)",
        license="not stated in the files read; see the hub card of SuhaoYu1020/MedFrameQA",
        citation="S. Yu et al.: MedFrameQA: a multi-image medical VQA benchmark. arXiv:2505.16964",
        homepage="https://huggingface.co/datasets/SuhaoYu1020/MedFrameQA",
    )

    def add(self, builder: DatasetBuilder, row: Row, split: Split, place: str) -> None:
        """Add a row."""
        options = _choices(row["options"], place)
        frames = [number for number in range(1, 6) if row.get(f"image_{number}") is not None]
        if frames != list(range(1, len(frames) + 1)):
            raise DataError(f"{place}: has image_{frames[-1]} without one before it; get the published file")
        images = [row[f"image_{number}"] for number in frames]
        facts = other_facts(row, {"question", "options", "correct_answer", "question_id"})
        number = as_text(row.get("question_id"))
        question, answer = question_text(row["question"], place), answer_text(row["correct_answer"], place)
        _add_choice(builder, split, question, options, answer, images, place, number=number, facts=facts)


class VlmEvalKit(_MultipleChoice):
    """The ``vlmevalkit`` format: TSV files with images in base64, as of GMAI-MMBench."""

    card = DatasetCard(
        name="vlmevalkit",
        title="questions in VLMEvalKit's TSV layout, such as GMAI-MMBench",
        license="that of the dataset; GMAI-MMBench: see its hub card OpenGVLab/GMAI-MMBench",
        citation="for GMAI-MMBench: P. Ye et al.: GMAI-MMBench. NeurIPS 2024, arXiv:2408.03361",
        homepage="https://github.com/open-compass/VLMEvalKit",
    )

    def add(self, builder: DatasetBuilder, row: Row, split: Split, place: str) -> None:
        """Add a row, with choices or without."""
        column = "image_path" if "image_path" in row and "image" not in row else "image"
        index, cell = as_id(row["index"]), as_text(row[column])
        if 0 < len(cell) <= _LONGEST_INDEX and as_id(cell) in self.images_by_index:
            images = self.images_by_index[as_id(cell)]
        else:
            images = listed(cell)
            images = images if isinstance(images, list) else [cell]
        self.images_by_index[index] = images
        options = {letter: as_text(row[letter]) for letter in _LETTERS if as_text(row.get(letter)).strip()}
        facts = other_facts(row, {"index", "image", "image_path", "question", "answer", *options})
        row_split = split_of_name(as_text(row.get("split"))) or split
        question, answer = question_text(row["question"], place), answer_text(row.get("answer"), place)
        if options:
            _add_choice(builder, row_split, question, options, answer, images, place, number=index, facts=facts)
            return
        ids = [builder.image(image, place) for image in images]
        answers = listed(answer)
        texts = [as_text(text) for text in (answers if isinstance(answers, list) else [answer])]
        builder.add(row_split, question, texts, ids, place, number=index, facts=facts)


def _without_letter(text: str, letter: str) -> str:
    """``" A: lung"`` is ``"lung"``."""
    stripped = text.strip()
    return stripped[2:].strip() if stripped[:2].upper() == f"{letter}:" else stripped
