"""Thumbs and corrections as files that one can train on: ``medical-vqa prepare folder --source FOLDER``.

``votes.jsonl`` keeps every vote as it came. ``questions.jsonl`` holds those that teach something: the picture may be
kept, and the right answer is known because it was confirmed or corrected. One row::

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

MOST_BYTES = 2_000_000_000
"""Of pictures in one folder; beyond it votes are kept without theirs."""
_LONGEST = 1_000  # characters of a correction


@dataclass(frozen=True, slots=True)
class Vote:
    """What a person thinks of an answer."""

    id: str
    """Names the answer: a later vote with the same id replaces this one."""
    question: str
    """As it was asked."""
    answer: str
    """As the model gave it."""
    good: bool
    """Thumb up or down."""
    model: str
    """Name of the model."""
    correction: str = ""
    """The right answer, where the person wrote one."""
    picture: bytes | None = None
    """PNG without any header, only where the person agreed that it is kept."""

    @property
    def right_answer(self) -> str:
        """What is to be learned; empty where that is not known."""
        return self.answer if self.good else self.correction.strip()[:_LONGEST]


def record(folder: Path, vote: Vote) -> bool:
    """Write a vote down; whether it is a row to train on. Raises `DataError` where the disk cannot take it."""
    with describe_disk_errors(folder, 10_000), file_lock(folder / ".lock"):
        image = _keep(folder, vote.picture) if vote.picture is not None else None
        with (folder / "votes.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(_line(vote, image), ensure_ascii=False) + "\n")
        rows = _rows(folder)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        atomic_write(folder / "questions.jsonl", text)
        _drop_unused(folder)
    return any(row["id"] == vote.id for row in rows)


def _line(vote: Vote, image: str | None) -> dict[str, Any]:
    return {
        "id": vote.id,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "question": vote.question,
        "answer": vote.answer,
        "good": vote.good,
        "correction": vote.correction.strip()[:_LONGEST],
        "right_answer": vote.right_answer,
        "model": vote.model,
        "image": image,
    }


def _rows(folder: Path) -> list[dict[str, str]]:
    """The last vote of each answer, where picture and right answer are known."""
    return [
        {
            "id": vote["id"],
            "image": vote["image"],
            "question": vote["question"],
            "answer": vote["right_answer"],
            "source": "confirmed" if vote["good"] else "corrected",
            "model": vote["model"],
        }
        for vote in _last_votes(folder)
        if vote["image"] and vote["right_answer"]
    ]


def _last_votes(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "votes.jsonl").read_text(encoding="utf-8").splitlines()
    return list({vote["id"]: vote for vote in map(json.loads, lines)}.values())


def _keep(folder: Path, picture: bytes) -> str | None:
    """Path of the picture inside the folder, named by its content; None where the folder is full."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    path = images / f"{sha256(picture)[:32]}.png"
    if not path.is_file():
        if sum(file.stat().st_size for file in images.iterdir()) + len(picture) > MOST_BYTES:
            return None
        atomic_write(path, picture)
    return f"images/{path.name}"


def _drop_unused(folder: Path) -> None:
    """A picture whose consent was taken back goes away."""
    used = {vote["image"] for vote in _last_votes(folder)}
    for path in (folder / "images").glob("*.png"):
        if f"images/{path.name}" not in used:
            path.unlink()
