r"""The final answer in the text of a reasoning model: ``<think>...</think><answer>CT</answer>`` and ``\boxed{CT}``.

Without this step such a text is never equal to a reference, and every answer is wrong without a word. It is applied to
the project's own metrics and to repaired rules, is part of their signature, and is counted; published rules receive
the text as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from medical_vqa.schema.records import Example, Prediction

NAME = "extract:final-answer|v:1"
"""The step, as it appears in signatures."""
_TAGS = ("<answer>", "</think>", "<think>", "\\boxed{", "◁/think▷")
_ANSWER = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL | re.IGNORECASE)
_OPEN_ANSWER = re.compile(r"<answer>\s*(.*)$", re.DOTALL | re.IGNORECASE)
_THOUGHT = re.compile(r"^.*(?:</think(?:ing)?>|◁/think▷)", re.DOTALL | re.IGNORECASE)
_LEAD_IN = re.compile(
    r"^\s*(?:\*\*)?(?:(?:so|thus|therefore|hence),?\s+)?(?:the\s+)?(?:final\s+)?answer(?:\s+is)?\s*[:\uff1a]?\s*(?:\*\*)?"
    r"\s*(.+?)\s*$",
    re.IGNORECASE | re.MULTILINE,
)
_LATEX = re.compile(r"^\\(?:text|mathrm|textbf|mathbf)\{(.*)\}$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Extraction:
    """Predictions whose reasoning was removed."""

    answers: Mapping[str, Prediction]
    """Example id -> prediction with the final answer."""
    changed: tuple[str, ...]
    """Ids of the rows whose text held more than the answer, in order."""
    unfinished: tuple[str, ...]
    """Ids of the rows whose reasoning ends without an answer, as when the number of tokens was limited."""


def extract_answers(examples: Sequence[Example], answers: Mapping[str, Prediction]) -> Extraction:
    """The final answers of predictions.

    Args:
        examples: The scored rows.
        answers: Example id -> prediction, of at least these rows.
    """
    final, changed, unfinished = dict(answers), [], []
    for example in examples:
        prediction = answers[example.id]
        text = prediction.answer
        if not any(mark in text for mark in _TAGS):
            continue
        answer = final_answer(text)
        if answer != text:
            final[example.id] = replace(prediction, answer=answer)
            changed.append(example.id)
        if not answer:
            unfinished.append(example.id)
    return Extraction(final, tuple(changed), tuple(unfinished))


@lru_cache(maxsize=1 << 14)
def final_answer(text: str) -> str:
    """The answer that a reasoning model ends with; the text itself where it has no such marks, empty if it has no end.

    In this order: what is in the last ``<answer>``; what is in the last ``boxed``; what follows the reasoning, without
    a lead-in such as ``Final answer:``.
    """
    if not any(mark in text for mark in _TAGS):
        return text
    if tagged := _ANSWER.findall(text) or _OPEN_ANSWER.findall(text):
        return _without_box(tagged[-1]).strip()
    if "\\boxed{" in text:
        return _without_box(text).strip()
    rest = _THOUGHT.sub("", text).strip()
    if rest == text.strip():  # <think> without an end
        return "" if "<think>" in text else text
    if led := _LEAD_IN.findall(rest):
        return str(led[-1]).strip()
    return rest


def _without_box(text: str) -> str:
    r"""The content of the last ``\boxed{}``, with nested braces and without ``\text{}``; the text if it has none."""
    start, depth = text.rfind("\\boxed{"), 1
    if start < 0:
        return text
    inside = text[start + len("\\boxed{") :]
    end = len(inside)
    for position, character in enumerate(inside):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            end = position
            break
    content = inside[:end].strip()
    latex = _LATEX.match(content)
    return latex[1] if latex else content
