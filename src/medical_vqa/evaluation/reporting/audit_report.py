"""An audit in words and as one self-contained HTML page with the pictures that are shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medical_vqa.data.audit.audit import dataset_parts
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.evaluation.reporting.gallery import Thumbnail, thumbnails
from medical_vqa.evaluation.reporting.page import environment
from medical_vqa.evaluation.reporting.wording import count, percent
from medical_vqa.io import atomic_write
from medical_vqa.schema.audit import Audit, NearDuplicate
from medical_vqa.schema.records import Example

_PAIRS, _IMAGES = 24, 24


@dataclass(frozen=True, slots=True)
class Seen:
    """One image that is in a training and in a held-out part, with what both ask about it."""

    image_id: str
    """As the held-out part calls it."""
    first: str
    """The training part."""
    second: str
    """The held-out part."""
    learned: tuple[str, ...]
    """Questions and answers of the training part, some."""
    asked: tuple[str, ...]
    """Those of the held-out part."""


def audit_text(found: Audit) -> str:
    """The findings for a terminal, the gravest first."""
    lines = [
        f"{found.title}: " + ", ".join(f"{p.name} {p.rows:,} questions on {p.images:,} images" for p in found.parts)
    ]
    lines += [f"missing from this copy: {phrase}" for phrase in found.missing]
    return "\n".join([*lines, "", *findings(found)])


def findings(found: Audit) -> list[str]:
    """One sentence for every finding; one that says so where there is none."""
    lines = [
        f"{one.images:,} of {one.of_images:,} images of {one.second} are also in {one.first} "
        f"({one.rows:,} of {one.of_rows:,} questions of {one.second})"
        for one in sorted(found.shared_images, key=lambda one: one.second.startswith("train"))
    ]
    if not found.shared_images:
        lines.append("no image is in two parts")
    if found.images_compared:
        across, within = count(len(found.near_duplicates), "pair"), f"{found.near_duplicates_within_parts:,} within one"
        lines.append(f"near-duplicates (another size, a crop, or the next slice): {across} across parts, {within}")
    else:
        lines.append("near-duplicates were not looked for")
    lines += [f"{_leaked(leak.part, leak.exact, leak.near, found)}" for leak in found.leaks]
    lines += [
        f"{one.same_question:,} questions of {one.second} occur word for word in {one.first}, "
        f"{one.same_image:,} of them about the same image"
        for one in found.shared_questions
    ]
    lines += [f"{one.rows:,} of {one.of_rows:,} rows of {one.part} have an answer that {one.train} never gives"
              for one in found.unseen_answers]  # fmt: skip
    lines.append(f"{count(found.duplicate_count, 'question')} asked twice about one image with the same answer")
    lines.append(f"{count(found.contradiction_count, 'question')} asked twice about one image with different answers")
    if found.unreadable_images:
        lines.append(f"{count(found.unreadable_images, 'image')} could not be decoded and were compared as files only")
    return lines


def write_audit_page(path: Path, found: Audit, dataset: PreparedDataset) -> None:
    """Write the page; it appears whole or not at all. Raises `DataError` if the file cannot be written."""
    parts = dataset_parts(dataset)
    seen = [item for one in found.shared_images for item in _seen(one.first, one.second, one.image_ids, parts)][
        :_IMAGES
    ]
    near = _spread(found.near_duplicates)[:_PAIRS]
    ids = [item.image_id for item in seen] + [name for pair in near for name in (pair.first, pair.second)]
    shown: dict[str, Thumbnail] = thumbnails(ids, dataset.images)
    text = (
        environment()
        .get_template("audit.html.j2")
        .render(found=found, lines=findings(found), seen=seen, near=near, pictures=shown, clean=_clean(found))
    )
    atomic_write(path, text)


def _clean(found: Audit) -> list[tuple[str, int, int, int, int]]:
    """Held-out part, its rows, leaked exactly, leaked nearly, clean."""
    rows = {part.name: part.rows for part in found.parts}
    return [
        (one.part, rows[one.part], len(one.exact), len(one.near), rows[one.part] - len(one.exact) - len(one.near))
        for one in found.leaks
    ]


def _leaked(part: str, exact: Sequence[str], near: Sequence[str], found: Audit) -> str:
    rows = next(one.rows for one in found.parts if one.name == part)
    left = rows - len(exact) - len(near)
    return (
        f"{part}: {left:,} of {rows:,} rows ({percent(left / rows if rows else None)} %) are clean; the image of "
        f"{len(exact):,} is in a training part, that of {len(near):,} nearly so"
    )


def _seen(first: str, second: str, images: Sequence[str], parts: dict[str, list[Example]]) -> list[Seen]:
    if not first.startswith("train") or second.startswith("train"):
        return []
    return [Seen(i, first, second, _asked(parts[first], i), _asked(parts[second], i)) for i in images[: _IMAGES // 2]]


def _asked(rows: Sequence[Example], image_id: str) -> tuple[str, ...]:
    about = [f"{row.question} {row.answers[0] if row.answers else ''}" for row in rows if row.image_id == image_id]
    return tuple(about[:3])


def _spread(pairs: Sequence[NearDuplicate]) -> list[NearDuplicate]:
    """Pairs of which one image is learned from and the other held out first."""

    def innocent(pair: NearDuplicate) -> bool:
        learned = [any(part.startswith("train") for part in parts) for parts in (pair.first_parts, pair.second_parts)]
        held = [any(not part.startswith("train") for part in parts) for parts in (pair.first_parts, pair.second_parts)]
        return not ((learned[0] and held[1]) or (learned[1] and held[0]))

    return sorted(pairs, key=lambda pair: (innocent(pair), -pair.similarity))
