"""The answer in what a chat model wrote: without its chain of thought, without Markdown, of bounded length."""

from __future__ import annotations

import re

from medical_vqa.text import ThoughtFilter, without_thoughts

LONGEST_ANSWER = 2_000
"""Characters of an answer; what follows is left out, and an ellipsis says so."""
LONGEST_RAW = 20_000
"""Characters of the model's text that are recorded."""

_FINAL_TAGS = re.compile(r"</?(?:answer|final|response)>|<\|(?:begin|end)_of_box\|>", re.IGNORECASE)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_FENCE = re.compile(r"^\s*```[\w-]*\s*$", re.MULTILINE)
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s+", re.MULTILINE)
_BULLET = re.compile(r"^\s*[*+-]\s+", re.MULTILINE)
_EMPHASIS = re.compile(r"(?<![\w*])(\*\*\*|\*\*|__|\*|`)(?=\S)(.+?)(?<=\S)\1(?![\w*])", re.DOTALL)
_BOXED = re.compile(r"\\boxed\{(?:\\text\{)?([^{}]*)\}?\}")
_LABEL = re.compile(r"^\s*(?:(?:the\s+)?(?:final\s+)?answer(?:\s+is)?\s*[::])\s*", re.IGNORECASE)


class UnfinishedAnswer:
    """What of an answer may be shown while it is written, at most `LONGEST_ANSWER` characters."""

    def __init__(self) -> None:
        self._thoughts = ThoughtFilter()
        self._shown = ""

    def add(self, piece: str) -> str | None:
        """Read the next piece; returns what may be shown now, None where that has not changed."""
        self._thoughts.add(piece)
        if len(self._shown) > LONGEST_ANSWER // 2 and self._shown.endswith(" …"):  # nothing more is shown
            return None
        now = _bounded(_CONTROLS.sub("", self._thoughts.so_far).lstrip())
        if now == self._shown:
            return None
        self._shown = now
        return now


def answer_text(text: str) -> str:
    """The answer, as it is shown and scored."""
    answer = _CONTROLS.sub("", _FINAL_TAGS.sub("", without_thoughts(text)))
    answer = _BOXED.sub(r"\1", answer)
    answer = _FENCE.sub("", answer)
    answer = _HEADING.sub("", answer)
    answer = _BULLET.sub("", answer)
    answer = _EMPHASIS.sub(r"\2", answer).strip()
    answer = _LABEL.sub("", answer).strip()
    return _bounded(answer)


def recorded(text: str) -> str:
    """The model's text as it is recorded: of a very long one the beginning, and the end, where its answer is."""
    if len(text) <= LONGEST_RAW:
        return text
    half = LONGEST_RAW // 2 - 2
    return f"{text[:half]} … {text[-half:]}"


def _bounded(answer: str) -> str:
    if len(answer) <= LONGEST_ANSWER:
        return answer
    return answer[:LONGEST_ANSWER].rsplit(maxsplit=1)[0] + " …"
