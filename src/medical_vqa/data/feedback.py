"""Ratings and corrections as files to train on: ``medical-vqa prepare folder --source FOLDER``.

``ratings.jsonl`` holds every rating as it came in. ``questions.jsonl`` holds those that can be trained on: the visitor
agreed that the picture is kept, and the correct answer is known because it was confirmed or corrected. One row::

    {"id": "5f0c…", "image": "images/9c1e….png", "question": "Is the liver healthy?", "answer": "no",
     "source": "corrected", "model": "slake-compact"}
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medical_vqa.io import atomic_write, describe_disk_errors, file_lock, sha256

MAX_BYTES = 2_000_000_000
"""Total size of the pictures in one folder; beyond it ratings are stored without theirs."""
_MAX_CORRECTION = 1_000  # characters
_MAX_LINE = 10_000  # bytes of one line of ratings.jsonl, for the message about a full disk


@dataclass(frozen=True, slots=True)
class Rating:
    """A visitor's rating of one answer."""

    id: str
    """Id of the answer; a later rating with the same id replaces this one."""
    question: str
    """The question, on one line."""
    answer: str
    """The model's answer."""
    correct: bool
    """Whether the visitor called the answer right."""
    model: str
    """Name of the model."""
    correction: str = ""
    """Correct answer, where the visitor wrote one."""
    picture: bytes | None = None
    """PNG without metadata; None unless the visitor agreed that it is kept."""


def record(folder: Path, rating: Rating) -> bool:
    """Append a rating and rebuild the rows to train on.

    Args:
        folder: Feedback folder; created where it is missing.
        rating: The rating.

    Returns:
        Whether the rating became a row to train on.

    Raises:
        DataError: The folder cannot be written or the disk is full.
    """
    with describe_disk_errors(folder, _MAX_LINE), file_lock(folder / ".lock"):
        image = None if rating.picture is None else _store_picture(folder, rating.picture)
        with (folder / "ratings.jsonl").open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(_line(rating, image), ensure_ascii=False) + "\n")
        lines = map(json.loads, (folder / "ratings.jsonl").read_text(encoding="utf-8").splitlines())
        ratings = {line["id"]: line for line in lines}.values()  # the last one of each answer
        rows = [_row(line) for line in ratings if line["image"] and line["correct_answer"]]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        atomic_write(folder / "questions.jsonl", text)
        used_images = {line["image"] for line in ratings}
        for path in (folder / "images").glob("*.png"):
            if f"images/{path.name}" not in used_images:  # consent was withdrawn
                path.unlink()
    return any(row["id"] == rating.id for row in rows)


def _line(rating: Rating, image: str | None) -> dict[str, Any]:
    correction = rating.correction.strip()[:_MAX_CORRECTION]
    return {
        "id": rating.id,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "question": rating.question,
        "answer": rating.answer,
        "correct": rating.correct,
        "correction": correction,
        "correct_answer": rating.answer if rating.correct else correction,
        "model": rating.model,
        "image": image,
    }


def _row(line: dict[str, Any]) -> dict[str, str]:
    return {
        "id": line["id"],
        "image": line["image"],
        "question": line["question"],
        "answer": line["correct_answer"],
        "source": "confirmed" if line["correct"] else "corrected",
        "model": line["model"],
    }


def _store_picture(folder: Path, picture: bytes) -> str | None:
    """Path of the picture inside the folder, named by its content; None where the folder is full."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    path = images / f"{sha256(picture)[:32]}.png"
    if not path.is_file():
        if sum(file.stat().st_size for file in images.iterdir()) + len(picture) > MAX_BYTES:
            return None
        atomic_write(path, picture)
    return f"images/{path.name}"
