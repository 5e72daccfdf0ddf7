"""Requests, tokens and cost of a remote model."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_PROMPT = ("prompt_tokens", "input_tokens")  # the second name of each is that of the Responses protocol
_COMPLETION = ("completion_tokens", "output_tokens")


@dataclass(slots=True)
class Usage:
    """Requests and tokens; counted in the client's thread and read from any."""

    requests: int = 0
    """Answers received."""
    retries: int = 0
    """Requests that were repeated."""
    prompt_tokens: int = 0
    """Tokens of questions and pictures, as the endpoint counts them."""
    completion_tokens: int = 0
    """Tokens of answers, as the endpoint counts them."""
    filtered: int = 0
    """Answers that the endpoint's content filter withheld; they are empty."""
    cut_off: int = 0
    """Answers that ended at ``max_tokens``, and not by themselves."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, tokens: Any, *, answers: int = 1, retries: int = 0, finish_reason: str | None = None) -> None:
        """Count one request.

        Args:
            tokens: The endpoint's ``usage``, or None; fields that it lacks count as zero.
            answers: 1, or 0 for a probe, of which only the tokens count.
            retries: Repetitions before it.
            finish_reason: Why the answer ended, in the protocol's words; None: not known.
        """
        with self._lock:
            self.requests += answers
            self.retries += retries
            self.filtered += finish_reason == "content_filter"
            self.cut_off += answers * (finish_reason == "length")
            self.prompt_tokens += _count(tokens, _PROMPT) or 0
            self.completion_tokens += _count(tokens, _COMPLETION) or 0

    def add_retries(self, count: int) -> None:
        """Count the repetitions of a request that got no answer."""
        with self._lock:
            self.retries += count

    def to_json(self) -> dict[str, int]:
        """The counts."""
        names = ("requests", "retries", "prompt_tokens", "completion_tokens", "filtered", "cut_off")
        return {name: getattr(self, name) for name in names}

    def cost(self, *, per_million_in: float, per_million_out: float) -> float:
        """Cost in the currency of the prices, which are per million tokens."""
        return (self.prompt_tokens * per_million_in + self.completion_tokens * per_million_out) / 1e6


def prompt_tokens(usage: Any) -> int | None:
    """Tokens of question and pictures in an endpoint's ``usage``; None where it does not count them."""
    return _count(usage, _PROMPT)


def _count(usage: Any, names: Sequence[str]) -> int | None:
    values = (getattr(usage, name, None) for name in names)
    return next((int(value) for value in values if isinstance(value, int | float) and math.isfinite(value)), None)
