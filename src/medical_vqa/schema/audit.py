"""The result of an audit, ``audit.json``: images, questions and answers that the parts of a dataset share."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from medical_vqa.errors import DataError
from medical_vqa.schema.document import SchemaModel, read_document, write_document

FORMAT: Final = 2
AUDIT_NAME: Final = "audit.json"


class AuditedPart(SchemaModel):
    """One split of one language, compared with the others."""

    name: str
    """``train zh``; without the language where there is only one."""
    rows: int
    """Number of questions."""
    images: int
    """Number of images with different content."""


class SharedImages(SchemaModel):
    """Images with the same content in two parts."""

    first: str
    """Name of the first part."""
    second: str
    """Name of the second part."""
    images: int
    """Number of images in both parts."""
    of_images: int
    """Number of images in the second part."""
    rows: int
    """Number of questions of the second part about shared images."""
    of_rows: int
    """Number of questions in the second part."""
    image_ids: list[str]
    """Ids of the shared images in the second part, the first two hundred."""


class NearDuplicate(SchemaModel):
    """Two images that are nearly the same."""

    first: str
    """Id of the first image."""
    second: str
    """Id of the second image, which shows all or a part of the first."""
    first_parts: list[str]
    """Names of the parts that use the first image."""
    second_parts: list[str]
    """Names of the parts that use the second image."""
    similarity: float
    """Correlation of small copies, at most 1."""
    box: tuple[float, float, float, float]
    """Part of the first image that the second shows, as fractions of its size: left, top, right, bottom."""
    change: str = ""
    """How the second differs: mirrored, turned, or inverted in gray; empty for none of these."""


class SharedQuestions(SchemaModel):
    """Questions of one part that another part asks too."""

    first: str
    """Name of the first part."""
    second: str
    """Name of the second part."""
    same_question: int
    """Number of questions of the second part that occur word for word in the first, about any image."""
    same_image: int
    """Number of those that occur there about the same image."""
    ids: list[str]
    """Ids of the rows with the same question about the same image, the first two hundred."""


class UnseenAnswers(SchemaModel):
    """Answers that no training row gives, and that no classifier over training answers can give."""

    part: str
    """Name of the held-out part."""
    train: str
    """Name of the training part."""
    rows: int
    """Number of rows none of whose accepted answers occurs in training."""
    of_rows: int
    """Number of rows of the part that have an answer."""
    answers: list[str]
    """The unseen answers, the first two hundred."""


class RepeatedQuestion(SchemaModel):
    """One question that a part asks more than once about one image."""

    part: str
    """Name of the part."""
    ids: list[str]
    """Ids of the rows."""
    question: str
    """The question."""
    answers: list[str]
    """Different answers of the rows; one where they agree."""


class Leak(SchemaModel):
    """The rows of a held-out part whose image a model may have been trained on."""

    part: str
    """Name of the held-out part."""
    exact: list[str]
    """Ids of rows whose image is in a training part."""
    near: list[str]
    """Ids of rows whose image is in no training part, but a near-duplicate of it is."""
    same_group: tuple[str, ...] = ()
    """Ids of further rows of whose group (the patient or study, where that is known) another image is in a training
    part."""


class Audit(SchemaModel):
    """The content of ``audit.json``."""

    format: Literal[2] = FORMAT
    """Version of this layout."""
    dataset: str
    """Name under which the dataset was prepared."""
    title: str
    """Title of the dataset, with its year."""
    manifest: str
    """SHA-256 of the rows and images that were audited, lower-case hex."""
    missing: list[str]
    """Parts of the official dataset that this copy lacks, and of which nothing is known."""
    parts: list[AuditedPart]
    """Parts that were compared."""
    shared_images: list[SharedImages]
    """Pairs of parts that have images in common."""
    near_duplicates: list[NearDuplicate]
    """Near-duplicates in different parts, the most similar first."""
    near_duplicates_within_parts: int
    """Number of near-duplicates within one part."""
    near_duplicates_of_one_part: tuple[NearDuplicate, ...] = ()
    """Near-duplicates within one part, which a clean split must keep together."""
    images_compared: bool
    """Whether images were decoded to find near-duplicates; otherwise only equal files are known."""
    unreadable_images: int
    """Number of images that could not be decoded and were compared by content only."""
    shared_questions: list[SharedQuestions]
    """Questions that two parts of one language ask."""
    unseen_answers: list[UnseenAnswers]
    """Answers that training never gives, by held-out part."""
    duplicates: list[RepeatedQuestion]
    """Same question about the same image with the same answer, the first two hundred."""
    duplicate_count: int
    """Number of duplicates."""
    contradictions: list[RepeatedQuestion]
    """Same question about the same image with different answers, the first two hundred."""
    contradiction_count: int
    """Number of contradictions."""
    leaks: list[Leak]
    """Rows that training may have shown, by held-out part."""

    def leaked(self, part: str) -> set[str]:
        """Ids of the rows of a part that training may have shown."""
        return {id_ for leak in self.leaks if leak.part == part for id_ in (*leak.exact, *leak.near, *leak.same_group)}


def read_audit(folder: Path) -> Audit:
    """The audit in the folder of a prepared dataset; raises `DataError` when there is none or it is damaged."""
    advice = "run `medical-vqa audit` again"
    try:
        return read_document(folder / AUDIT_NAME, Audit, advice=advice, error=DataError)
    except FileNotFoundError:
        raise DataError(f"{folder} has no {AUDIT_NAME}; run `medical-vqa audit` for it") from None


def write_audit(folder: Path, audit: Audit) -> None:
    """Write the audit into the folder of a prepared dataset."""
    write_document(folder / AUDIT_NAME, audit)
