r"""The final answer in the text of a reasoning model: ``<think>...</think><answer>CT</answer>`` and ``\boxed{CT}``.

Without this step such a text is never equal to a reference, and every answer is wrong without a word. It is applied to
the project's own metrics and to repaired rules, is part of their signature, and is counted; published rules receive
the text as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from medical_vqa.schema.prediction_table import AnswersById
from medical_vqa.text import THOUGHT_TAGS, without_thoughts

NAME = "extract:final-answer|v:2"
"""The step, as it appears in signatures."""
_TAGS = ("<answer>", "\\boxed{", *(tag for tags in THOUGHT_TAGS for tag in tags))
_START_OF_TAG = re.compile("|".join(re.escape(first) for first in sorted({tag[0] for tag in _TAGS})))
_ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_LEAD_IN = re.compile(
    r"^[^\S\n]*(?:\*\*)?(?:(?:so|thus|therefore|hence),?\s+)?(?:the\s+)?(?:final\s+)?answer(?:\s+is)?\s*[:\uff1a]?\s*(?:\*\*)?"
    r"\s*(.+)$",
    re.IGNORECASE | re.MULTILINE,
)
_LATEX = re.compile(r"^\\(?:text|mathrm|textbf|mathbf)\{(.*)\}$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Extraction:
    """Predictions whose reasoning was removed."""

    answers: AnswersById
    """Example id -> prediction with the final answer."""
    changed: tuple[str, ...]
    """Ids of the rows whose text held more than the answer, in order."""
    unfinished: tuple[str, ...]
    """Ids of the rows whose reasoning ends without an answer, as when the number of tokens was limited."""


def extract_answers(answers: AnswersById) -> Extraction:
    """The final answers of the predictions of the scored rows; each different text is examined once."""
    texts = answers.predictions.answers
    changed = texts.per_row(lambda text: _has_tag(text) and final_answer(text) != text)
    unfinished = texts.per_row(lambda text: _has_tag(text) and not final_answer(text))
    if changed.any():
        answers = AnswersById(answers.examples, answers.predictions.with_answers(final_answer))
    ids = answers.examples.ids
    of_changed, of_unfinished = ([ids[row] for row in np.flatnonzero(rows).tolist()] for rows in (changed, unfinished))
    return Extraction(answers, tuple(of_changed), tuple(of_unfinished))


def _has_tag(text: str) -> bool:
    if not _START_OF_TAG.search(text):  # nearly every text
        return False
    lower = text.lower()
    return any(tag in lower for tag in _TAGS)


@lru_cache(maxsize=1 << 14)
def final_answer(text: str) -> str:
    """The answer that a reasoning model ends with; the text itself where it has no such marks, empty if it has no end.

    In this order: what is in the last ``<answer>``; what is in the last ``boxed``; what follows the reasoning, without
    a lead-in such as ``Final answer:``.
    """
    if not _has_tag(text):
        return text
    rest = without_thoughts(text).strip()
    if not rest and any(closing in text.lower() for _, closing in THOUGHT_TAGS):  # the thought holds the answer
        rest = text
    if (tagged := _in_answer_tags(rest)) is not None:
        return _without_box(tagged).strip()
    if "\\boxed{" in rest:
        return _without_box(rest).strip()
    if rest is text:
        return ""
    if led := _LEAD_IN.findall(rest):
        return str(led[-1]).strip()
    return rest


def _in_answer_tags(text: str) -> str | None:
    """What is in the last pair of answer tags, or else what follows the first opening one; None without any."""
    start = open_from = last = None
    for tag in _ANSWER_TAG.finditer(text):
        if tag[1] and start is not None:
            last, start = text[start : tag.start()], None
        elif not tag[1] and start is None:
            start = tag.end()
            open_from = start if open_from is None else open_from
    return text[open_from:] if last is None and open_from is not None else last


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
