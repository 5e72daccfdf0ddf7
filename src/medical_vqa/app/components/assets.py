"""HTML, style sheets and scripts of the page."""

from __future__ import annotations

from importlib.resources import files

_FOLDER = files("medical_vqa.app.components")


def read_asset(name: str) -> str:
    """Text of a file in this package."""
    return (_FOLDER / name).read_text(encoding="utf-8")
