"""How numbers and names are written for people, in the headline, the report and the terminal."""

from __future__ import annotations

from medical_vqa.schema.results import Interval

_NO_VALUE = "\N{EN DASH}"


def percent(value: float | None, *, signed: bool = False) -> str:
    """A fraction in per cent with one decimal, without the unit: ``82.3``; a dash for None."""
    if value is None:
        return _NO_VALUE
    return f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"


def bounds(interval: Interval, *, signed: bool = False) -> str:
    """An interval in per cent: ``[80.1, 84.4]``; ``[no interval]`` if it has no bounds."""
    if interval.low is None or interval.high is None:
        return "[no interval]"
    return f"[{percent(interval.low, signed=signed)}, {percent(interval.high, signed=signed)}]"


def count(n: int, noun: str) -> str:
    """A number with its noun: ``1 image``, ``1,053 questions``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def title(name: str) -> str:
    """A key as a title: ``answer_type`` is ``Answer type``, ``question-only`` stays hyphenated."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
