"""Parameters of OpenAI's protocols: where an answer ends, and those that nothing here reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

FinishReason = Literal["stop", "length"]
Stop = Annotated[str, Field(min_length=1, max_length=200)]
"""A text before which an answer ends."""

_NEUTRAL: Mapping[str, Any] = {
    "temperature": 0,
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logit_bias": {},
    "modalities": ["text"],
    "store": False,
    "truncation": "disabled",
    "include": [],
}
"""The value of a parameter that asks for what is done anyway."""
_WITHOUT_EFFECT = frozenset(
    {
        "function_call", "metadata", "parallel_tool_calls", "prompt_cache_key", "prompt_cache_retention",
        "safety_identifier", "seed", "service_tier", "tool_choice", "user",
    }
)  # fmt: skip
"""Parameters that ask for nothing: equal questions get equal answers, whatever the seed."""
_MOST_NAMES, _LONGEST_NAME = 20, 64
"""Of the unread parameters that are reported."""
_WORD = re.compile(r"\S+")


class Parameters(BaseModel):
    """What both protocols have; further fields are kept, to report them."""

    model_config = ConfigDict(extra="allow", frozen=True)

    temperature: float | None = Field(
        None, ge=0, le=2, description="Answers are not drawn at random: any other value than 0 is named in `ignored`."
    )
    top_p: float | None = Field(None, ge=0, le=1, description="As temperature: read as 1.")

    @property
    def unread(self) -> list[str]:
        """Names of the parameters that ask for something else than what is done."""
        values = {name: getattr(self, name, None) for name in _NEUTRAL} | (self.model_extra or {})
        names = [
            name[:_LONGEST_NAME]
            for name, value in values.items()
            if value is not None and name not in _WITHOUT_EFFECT and value != _NEUTRAL.get(name)
        ]
        return names[:_MOST_NAMES]


@dataclass(frozen=True, slots=True)
class End:
    """Where an answer ends before its own end."""

    words: int | None = None
    """Most words: what the usage counts; None: all."""
    stops: tuple[str, ...] = ()
    """Texts before which it ends."""

    def cut(self, text: str) -> tuple[str, FinishReason]:
        """An answer up to its end, and why it ends there."""
        places = [text.find(stop) for stop in self.stops]
        text = text[: min((place for place in places if place >= 0), default=len(text))]
        words = list(_WORD.finditer(text))
        if self.words is None or len(words) <= self.words:
            return text, "stop"
        return text[: words[self.words - 1].end()], "length"

    def cut_unfinished(self, text: str) -> str:
        """An unfinished answer up to its end, without what may be the beginning of a stop."""
        part, _ = self.cut(text)
        if part != text:
            return part
        sizes = (size for stop in self.stops for size in range(1, len(stop)) if text.endswith(stop[:size]))
        return text[: len(text) - max(sizes, default=0)]
