"""Text that commands print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from medical_vqa.errors import MedicalVqaError
from medical_vqa.evaluation.reporting.text_table import aligned
from medical_vqa.text import per_cent, printable

if TYPE_CHECKING:
    from medical_vqa.pipelines.ask import Answer, ImageView
    from medical_vqa.pipelines.ask_series import SeriesAnswer
    from medical_vqa.schema.evidence import Evidence

DISCLAIMER = "Research software: not a medical device and not for diagnosis."

_CUT_OFF = "ended at the limit of tokens (max_tokens) and not by itself: it may lack its end"
_SIDES = {
    "patient": "left and right: the patient's; the patient's left is at the right of the picture",
    "picture": "left and right: those of the picture, as you look at it",
    "both": "left and right: of an organ the patient's, of a position the picture's, as you look at it",
}
_SOURCES = {
    "picture": "from this picture",
    "usual": "from what is usual for pictures of this type: other pictures of it get the same answer",
    "knowledge": "from general knowledge, not from this picture",
}


_WINDOW_SOURCES = {
    "option": "as requested",
    "header": "from the header",
    "percentiles": "0.5th to 99.5th percentile",
}


def echo(content: object = "", *, err: bool = False) -> None:
    """Print text that may hold what files and models say: without control characters, which a terminal obeys."""
    click.echo(printable(str(content)), err=err)


def view_lines(view: ImageView, name: str = "") -> list[str]:
    """What the model received: frame, window and its origin, facts of the header, and what to be careful about.

    `name` is the file's, where there are several.
    """
    width, height = view.size
    parts = [f"{view.format}, {width}x{height}"]
    if view.frames > 1:
        parts.append(f"frame {view.frame} of {view.frames}, counted from 0")
    if view.window is not None and view.window_source is not None:
        center, window_width = view.window
        parts.append(f"window {center:g} {window_width:g} ({_WINDOW_SOURCES[view.window_source]})")
    elif view.window_source == "header LUT":
        parts.append("window: the lookup table of the header")
    facts = [view.facts.get(key) for key in ("Modality", "BodyPartExamined", "ViewPosition")]
    parts += [fact for fact in (*facts, view.plane) if fact]
    lines = [f"seen{f' of {name}' if name else ''}: " + "; ".join(parts)]
    if view.removed:
        lines.append("not seen: " + ", ".join(view.removed))
    return lines + [f"warning: {sentence}" for sentence in view.warnings]


def series_lines(answer: SeriesAnswer) -> list[str]:
    """A combined answer, the slices it comes from with their own answers, and what the model received."""
    lines = [str(answer)]
    if answer.abstained and answer.text:
        lines.append(f"Do not rely on this: {answer.text}")
    if answer.cut_off:
        lines.append(_CUT_OFF)
    if answer.confidence is not None:
        lines.append(f"confidence {per_cent(answer.confidence)}, mean of the slices")
    selection = "localized by the model" if answer.selection == "localized" else "evenly spread"
    lines.append(
        f"slices, {selection}: {', '.join(map(str, answer.slice_numbers))} of {answer.view.frames}, counted from 0"
    )
    for one in answer.slices:
        certainty = "" if one.confidence is None else f" ({per_cent(one.confidence)})"
        lines.append(f"  slice {one.slice}: {one.reason if one.abstained else one.text + certainty}")
    return lines + view_lines(answer.view)


def answer_lines(answer: Answer) -> list[str]:
    """An answer with its confidence and alternatives; an abstention begins with its reason."""
    lines = [str(answer)]
    if answer.abstained and answer.text:
        lines.append(f"Do not rely on this: {answer.text}")
    if answer.cut_off:
        lines.append(_CUT_OFF)
    if answer.confidence is not None:
        basis = " (agreement of several answers)" if answer.confidence_basis == "agreement" else ""
        lines.append(f"confidence {per_cent(answer.confidence)}{basis}")
    if answer.alternatives:
        lines.append("or: " + ", ".join(f"{text} ({per_cent(value)})" for text, value in answer.alternatives))
    if answer.side is not None:
        lines.append(_SIDES[answer.side])
    if answer.source is not None and not answer.abstained:
        lines.append(_SOURCES[answer.source])
    if answer.evidence:
        lines.append("localized: " + "; ".join(map(evidence_text, answer.evidence)))
    if answer.suggestions:
        lines.append("ask instead: " + " ".join(answer.suggestions))
    return lines


def answer_table(answers: Mapping[str, Sequence[Answer] | MedicalVqaError]) -> str:
    """The answers of several models as a table; a model without one has the reason there."""
    rows = [("model", "question", "answer", "confidence")]
    for name, result in answers.items():
        if isinstance(result, MedicalVqaError):
            rows.append((name, "", str(result), ""))
            continue
        for answer in result:
            confidence = "none" if answer.confidence is None else per_cent(answer.confidence)
            basis = " (agreement)" if answer.confidence_basis == "agreement" else ""
            text = f"{answer} ({_CUT_OFF})" if answer.cut_off else str(answer)
            rows.append((name, answer.question, text, f"{confidence}{basis}"))
    return aligned(rows, left=range(4))


def evidence_text(evidence: Evidence) -> str:
    """Name, place and size of one item: ``Left Lung at 312,80 to 470,402 (right of the picture, 190.6 cm², 97 %)``."""
    left, top, right, bottom = (round(value) for value in evidence.box)
    area = f"{evidence.area:,.0f} pixels" if evidence.area_mm2 is None else f"{evidence.area_mm2 / 100:.1f} cm²"
    place = "middle" if evidence.position == "middle" else f"{evidence.position} side"
    return (
        f"{evidence.name} at {left},{top} to {right},{bottom} "
        f"({place} of the picture, {area}, {per_cent(evidence.score)})"
    )
