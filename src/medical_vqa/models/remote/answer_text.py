"""The answer in what a chat model wrote: without its chain of thought, without Markdown, of bounded length."""

from __future__ import annotations

import re

from medical_vqa.text import THOUGHT_TAGS, without_thoughts

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


def visible(text: str) -> str:
    """What of an unfinished text may be shown already: no thought, and no beginning of a tag at its end."""
    beginning = _CONTROLS.sub("", without_thoughts(text)).lstrip()
    for tag in (tag for tags in THOUGHT_TAGS for tag in tags):
        for length in range(len(tag) - 1, 0, -1):
            if beginning.endswith(tag[:length]):
                return beginning[:-length]
    return beginning


def answer_text(text: str) -> str:
    """The answer, as it is shown and scored."""
    answer = _CONTROLS.sub("", _FINAL_TAGS.sub("", without_thoughts(text)))
    answer = _BOXED.sub(r"\1", answer)
    answer = _FENCE.sub("", answer)
    answer = _HEADING.sub("", answer)
    answer = _BULLET.sub("", answer)
    answer = _EMPHASIS.sub(r"\2", answer).strip()
    answer = _LABEL.sub("", answer).strip()
    if len(answer) <= LONGEST_ANSWER:
        return answer
    return answer[:LONGEST_ANSWER].rsplit(maxsplit=1)[0] + " …"
