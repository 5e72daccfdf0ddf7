"""The picture on the page: zoomed and moved in the browser, with the heat of where the model looked over it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import streamlit as st

from medical_vqa.app.i18n import Words

_FOLDER = files("medical_vqa.app.components")
_LABELS = ("zoom_in", "zoom_out", "zoom_reset", "zoom_help", "look_toggle")


@dataclass(frozen=True, slots=True)
class Shown:
    """What the viewer shows."""

    picture: str
    """Data URI."""
    width: int
    """Pixels of the picture; only the ratio to the height matters."""
    height: int
    """Pixels."""
    alt: str
    """What the picture is, in words."""
    heat: str | None = None
    """Data URI of the overlay; None where there is none."""
    caption: str = ""
    """What the overlay belongs to."""
    announcement: str = ""
    """Read out by a screen reader when it changes."""


def show(shown: Shown, words: Words, *, key: str) -> None:
    """Mount the viewer, or update the one that is there."""
    data: dict[str, Any] = {name: getattr(shown, name) for name in Shown.__slots__}
    data |= {"labels": {name: words(name) for name in _LABELS}, "language": words.language}
    _component()(key=key, data=data)


def asset(name: str) -> str:
    """Text of a file that ships beside this module."""
    return (_FOLDER / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _component() -> Any:
    return st.components.v2.component(
        "medical_vqa_viewer", html=asset("viewer.html"), css=asset("viewer.css"), js=asset("viewer.js")
    )
