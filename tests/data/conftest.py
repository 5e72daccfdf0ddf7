"""Tiny folders in the published layouts, written where a test asks for them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """A picture file's bytes; another seed gives another picture."""

    def build(seed: int = 0, size: tuple[int, int] = (24, 16), fmt: str = "PNG", **options: Any) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, fmt, **options)
        return out.getvalue()

    return build


@pytest.fixture
def slake_row() -> Callable[..., dict[str, Any]]:
    """A row as SLAKE publishes it."""

    def build(qid: int, image: int, **changes: Any) -> dict[str, Any]:
        row = {
            "img_id": image,
            "img_name": f"xmlab{image}/source.jpg",
            "question": "What modality is used to take this image?",
            "answer": "MRI",
            "q_lang": "en",
            "location": "Abdomen",
            "modality": "MRI",
            "answer_type": "OPEN",
            "base_type": "vqa",
            "content_type": "Modality",
            "triple": ["vhead", "_", "_"],
            "qid": qid,
        }
        return {**row, **changes}

    return build


@pytest.fixture
def slake_folder(tmp_path: Path, picture: Any, slake_row: Any) -> Callable[..., Path]:
    """A folder in the authors' layout: two train rows on one image, one validation row, unless told otherwise."""

    def build(**splits: list[Any]) -> Path:
        folder = tmp_path / "Slake1.0"
        splits = splits or {"train": [slake_row(0, 1), slake_row(1, 1)], "validate": [slake_row(2, 2)]}
        for name, rows in splits.items():
            folder.mkdir(exist_ok=True)
            (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
        names = {str(row["img_name"]) for rows in splits.values() for row in rows if "img_name" in row}
        for name in names:
            path = folder / "imgs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(seed=len(name) + int("0" + "".join(c for c in name if c.isdigit())), fmt="JPEG"))
        return folder

    return build


@pytest.fixture
def own_folder(tmp_path: Path, picture: Any) -> Callable[..., Path]:
    """A folder of one's own: a questions file and the images 1.png and 2.png."""

    def build(text: str, ending: str = "csv") -> Path:
        folder = tmp_path / "mine"
        folder.mkdir(exist_ok=True)
        (folder / f"questions.{ending}").write_text(text, encoding="utf-8")
        for number in (1, 2):
            (folder / f"{number}.png").write_bytes(picture(seed=number))
        return folder

    return build
