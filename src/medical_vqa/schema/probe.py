"""What ``probe-SPLIT.json`` contains: whether a model's answers depend on the picture, and agree with each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from medical_vqa.schema.document import SchemaModel, write_document
from medical_vqa.schema.prediction_card import AnsweringModel
from medical_vqa.schema.result_files import read_scores
from medical_vqa.schema.results import Bootstrap, DatasetRef, Score

FORMAT: Final = 1


class ProbeGroup(SchemaModel):
    """Questions of one type."""

    fact: str
    """What groups them: ``all``, ``finding``, or a fact such as ``answer_type``."""
    value: str
    """Value of the fact; empty for all questions."""
    uses_image: Score
    """Fraction whose answer changes with at least one of several other pictures of the same type."""
    changed: Mapping[str, Score]
    """Replaced picture -> fraction of answers that change with it."""
    accuracy: Score
    """Fraction of right answers about the picture itself, by exact match."""
    accuracy_of: Mapping[str, Score]
    """Replaced picture -> fraction of right answers about it."""
    benefit: Score
    """Accuracy about the picture itself minus that about other pictures of its type, paired by question."""


class ProbePair(SchemaModel):
    """Two questions about one picture whose answers exclude each other, or should have been the same."""

    image_id: str
    """Id of the image."""
    first: str
    """One question."""
    first_answer: str
    """Its answer."""
    second: str
    """The other question."""
    second_answer: str
    """Its answer."""


class ProbeCheck(SchemaModel):
    """Agreement of answers to questions that belong together."""

    score: Score
    """Fraction of pairs."""
    not_judged: int = 0
    """Pairs that are not counted, because an answer is neither yes nor no."""
    examples: tuple[ProbePair, ...] = ()
    """Some of the pairs that fail."""


class Probe(SchemaModel):
    """The content of ``probe-SPLIT.json``."""

    format: Literal[1] = FORMAT
    """Version of this layout."""
    headline: str
    """The result in one sentence."""
    model: AnsweringModel
    """Model that answered."""
    dataset: DatasetRef
    """Rows that were asked."""
    bootstrap: Bootstrap
    """How the intervals were resampled."""
    seed: int
    """Seed of the replaced pictures, and of the images where there is a limit."""
    images: int
    """Number of images that were asked about."""
    images_of: int
    """Number of images that the split has."""
    images_learned: Annotated[int | None, Field(exclude_if=lambda n: n is None)] = None
    """How many of these images the model was trained on, by its card; absent where it is unknown."""
    questions: int
    """Number of published questions that were asked."""
    answers: int
    """Number of answers that the model gave for this probe."""
    pictures: Mapping[str, str]
    """Replaced picture -> what it is."""
    groups: list[ProbeGroup]
    """All questions, then those of each type."""
    contradictions: ProbeCheck
    """Pairs of a question and its opposite whose answers exclude each other."""
    paraphrases: ProbeCheck
    """Questions in other words that get another answer."""
    sides: ProbeCheck
    """Questions or answers with a side whose answer about the mirrored picture is not the mirrored answer."""
    mirrored: ProbeCheck
    """Questions without a side whose answer changes when the picture is mirrored."""
    version: str = ""
    """Version of medical-vqa that wrote the file."""


def probe_path(predictions: Path, split: str) -> Path:
    """Where the probe of a model is, next to its predictions."""
    return predictions.with_name(f"probe-{split}.json")


def read_probe(path: Path) -> Probe:
    """Read a probe; raises `DataError` when there is none or it is damaged, of another format or impossible."""
    missing = f"no probe at {path}; write it with `medical-vqa probe`"
    return read_scores(path, Probe, missing=missing, advice="run `medical-vqa probe` again")


def write_probe(path: Path, probe: Probe) -> None:
    """Write a probe."""
    write_document(path, probe)
