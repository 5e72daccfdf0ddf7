"""The image viewer: zoom and pan in the browser; attention map, outlines and the patient's sides over the image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import streamlit as st

from medical_vqa.app.components.assets import read_asset
from medical_vqa.app.i18n.texts import Texts

_LABELS = (
    "zoom_in", "zoom_out", "zoom_reset", "zoom_help", "attention_toggle", "marker_right", "marker_left", "marker_help",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outline:
    """One organ or finding that is outlined in the image."""

    name: str
    """Its name, in the visitor's language."""
    path: str
    """Commands of an SVG path, in pixels of the image."""
    left: float
    """Left end of its box, where the name is written."""
    top: float
    """Upper end of its box."""


@dataclass(frozen=True, slots=True)
class ViewerContent:
    """Image, overlay and texts of the viewer."""

    picture: str
    """Data URI of the image."""
    width: int
    """Width of the image in pixels; only its ratio to the height matters."""
    height: int
    """Height of the image in pixels."""
    alt: str
    """Description of the image."""
    heatmap: str | None = None
    """Data URI of the attention overlay; None: no overlay."""
    caption: str = ""
    """Question that the overlay belongs to, as a sentence."""
    outlines: tuple[Outline, ...] = ()
    """What the answer's evidence outlines."""
    markers: bool = True
    """Whether R and L mark the patient's sides."""
    announcement: str = ""
    """Sentence that screen readers announce when it changes."""


def show_viewer(content: ViewerContent, texts: Texts, *, key: str) -> None:
    """Mount the viewer or update the mounted one.

    Args:
        content: What to show.
        texts: Texts in the visitor's language.
        key: Streamlit's key of the component.
    """
    labels = {name: texts(name) for name in _LABELS}
    if content.outlines:
        labels["attention_toggle"] = texts("outline_toggle")
    _component()(key=key, data={**asdict(content), "labels": labels, "language": texts.language})


@lru_cache(maxsize=1)
def _component() -> Any:
    return st.components.v2.component(
        "medical_vqa_viewer",
        html=read_asset("viewer.html"),
        css=read_asset("viewer.css"),
        js=read_asset("viewer.js"),
    )
