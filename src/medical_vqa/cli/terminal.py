"""Text that commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medical_vqa.text import per_cent

if TYPE_CHECKING:
    from medical_vqa.pipelines.ask import Answer

DISCLAIMER = "Research software: not a medical device and not for diagnosis."


def answer_lines(answer: Answer) -> list[str]:
    """An answer with its confidence and alternatives; an abstention begins with its reason."""
    lines = [str(answer)]
    if answer.abstained:
        lines.append(f"Do not rely on this: {answer.text}")
    if answer.confidence is not None:
        lines.append(f"confidence {per_cent(answer.confidence)}")
    if answer.alternatives:
        lines.append("or: " + ", ".join(f"{text} ({per_cent(value)})" for text, value in answer.alternatives))
    if answer.suggestions:
        lines.append("ask instead: " + " ".join(answer.suggestions))
    return lines
