"""An audit in words and as one self-contained HTML page with the shared images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medical_vqa.data.audit.audit import dataset_parts
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.evaluation.reporting.gallery import thumbnails
from medical_vqa.evaluation.reporting.page import write_page
from medical_vqa.evaluation.reporting.wording import count, percent
from medical_vqa.schema.audit import Audit, NearDuplicate
from medical_vqa.schema.records import Example

_MAX_PAIRS, _MAX_IMAGES, _MAX_QUESTIONS = 24, 24, 3


@dataclass(frozen=True, slots=True)
class LeakedImage:
    """One image that is in a training and in a held-out part, with what both ask about it."""

    image_id: str
    """Id of the image in the held-out part."""
    training_part: str
    """Name of the training part."""
    held_out_part: str
    """Name of the held-out part."""
    training_questions: Sequence[str]
    """Some questions and answers of the training part."""
    held_out_questions: Sequence[str]
    """Some questions and answers of the held-out part."""


@dataclass(frozen=True, slots=True)
class CleanRows:
    """How many rows of a held-out part training cannot have shown."""

    part: str
    """Name of the held-out part."""
    rows: int
    """Number of its rows."""
    exact: int
    """Number of rows whose image is in a training part."""
    near: int
    """Number of rows whose image has a near-duplicate in a training part."""
    same_group: int
    """Number of further rows of whose patient or study another image is in a training part."""
    clean: int
    """Number of the remaining rows."""


def audit_text(audit: Audit) -> str:
    """The findings for a terminal, the most serious first."""
    parts = [f"{part.name} {part.rows:,} questions on {part.images:,} images" for part in audit.parts]
    missing = [f"missing from this copy: {phrase}" for phrase in audit.missing]
    return "\n".join([f"{audit.title}: {', '.join(parts)}", *missing, "", *findings(audit)])


def findings(audit: Audit) -> list[str]:
    """A sentence for every finding, what is clean first; also for the absence of shared images and near-duplicates."""
    lines = [
        f"{row.part}: {row.clean:,} of {row.rows:,} rows ({percent(row.clean / row.rows if row.rows else None)} %) are "
        f"clean; the image of {row.exact:,} is in a training part, that of {row.near:,} has a near-duplicate there"
        + (f"; of the patient or study of {row.same_group:,} another image is there" if row.same_group else "")
        for row in clean_rows(audit)
    ]
    lines += [
        f"{pair.images:,} of {pair.of_images:,} images of {pair.second} are also in {pair.first} "
        f"({pair.rows:,} of {pair.of_rows:,} questions of {pair.second})"
        for pair in sorted(audit.shared_images, key=lambda pair: _is_training(pair.second))
    ]
    if not audit.shared_images:
        lines.append("no image is in two parts")
    if audit.images_compared:
        across, within = count(len(audit.near_duplicates), "pair"), f"{audit.near_duplicates_within_parts:,} within one"
        changed = sum(bool(pair.change) for pair in audit.near_duplicates)
        lines.append(
            f"near-duplicates (another size, a crop, or the next slice): {across} across parts, {within}; "
            f"{changed:,} of those across parts are turned, mirrored or inverted"
        )
    else:
        lines.append("near-duplicates were not searched for")
    lines += [
        f"{pair.same_question:,} questions of {pair.second} occur word for word in {pair.first}, "
        f"{pair.same_image:,} of them about the same image"
        for pair in audit.shared_questions
    ]
    lines += [
        f"{part.rows:,} of {part.of_rows:,} rows of {part.part} have an answer that {part.train} never gives"
        for part in audit.unseen_answers
    ]
    lines.append(f"{count(audit.duplicate_count, 'question')} asked twice about one image with the same answer")
    lines.append(f"{count(audit.contradiction_count, 'question')} asked twice about one image with different answers")
    if audit.unreadable_images:
        lines.append(f"{count(audit.unreadable_images, 'image')} could not be decoded and were compared as files only")
    return lines


def clean_rows(audit: Audit) -> list[CleanRows]:
    """The held-out parts with their leaked and clean rows."""
    rows = {part.name: part.rows for part in audit.parts}
    table = []
    for leak in audit.leaks:
        n, exact, near, group = rows[leak.part], len(leak.exact), len(leak.near), len(leak.same_group)
        table.append(CleanRows(leak.part, n, exact, near, group, n - exact - near - group))
    return table


def write_audit_page(path: Path, audit: Audit, dataset: PreparedDataset) -> None:
    """Write the page, which appears complete or not at all; raises `DataError` if the file cannot be written."""
    parts = {part.name: part.rows for part in dataset_parts(dataset)}
    leaked_images = _leaked_images(audit, parts)
    near_duplicates = sorted(audit.near_duplicates, key=lambda pair: (not _is_leak(pair), -pair.similarity))[
        :_MAX_PAIRS
    ]
    ids = [image.image_id for image in leaked_images]
    ids += [name for pair in near_duplicates for name in (pair.first, pair.second)]
    write_page(
        path,
        "audit.html.j2",
        audit=audit,
        findings=findings(audit),
        clean_rows=clean_rows(audit),
        leaked_images=leaked_images,
        near_duplicates=near_duplicates,
        thumbnails=thumbnails(ids, dataset.images),
    )


def _leaked_images(audit: Audit, parts: Mapping[str, Sequence[Example]]) -> list[LeakedImage]:
    """Some of the images that are in a training and in a held-out part."""
    images = []
    for pair in audit.shared_images:
        if _is_training(pair.first) and not _is_training(pair.second):
            for image_id in pair.image_ids[: _MAX_IMAGES // 2]:
                training, held_out = (
                    [f"{row.question} {''.join(row.answers[:1])}" for row in parts[name] if row.image_id == image_id]
                    for name in (pair.first, pair.second)
                )
                questions = training[:_MAX_QUESTIONS], held_out[:_MAX_QUESTIONS]
                images.append(LeakedImage(image_id, pair.first, pair.second, *questions))
    return images[:_MAX_IMAGES]


def _is_leak(pair: NearDuplicate) -> bool:
    """Whether one of two images is in a training part and the other in a held-out one."""
    first, second = ({_is_training(part) for part in parts} for parts in (pair.first_parts, pair.second_parts))
    return (True in first and False in second) or (True in second and False in first)


def _is_training(part: str) -> bool:
    return part.startswith("train")
