"""Answers that are numbers: counts must be equal, measurements may differ by five per cent, lengths by their unit."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from medical_vqa.evaluation.metrics.base import Mean
from medical_vqa.schema.records import Example, Prediction

TOLERANCE = 0.05
"""Relative difference of two measurements that count as equal."""
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_MILLIMETERS = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "毫米": 1.0, "厘米": 10.0}
_OTHER_UNITS = ("%", "hu", "ml", "kg", "g", "years", "year")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?")
_ONLY_NUMBER = re.compile(r"^\W*?([-+]?\d++(?:\.\d++)?)\s*+([a-z%\u4e00-\u9fff]*+)\W*+$")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit."""

    value: float
    """The number; a length in millimeters."""
    unit: str
    """``mm`` for every length, the unit as written otherwise; empty for a count."""


def numeric_match() -> Mean:
    """Fraction of right numbers, where the reference is one: equal counts, and measurements within five per cent."""

    def score(prediction: Prediction, example: Example) -> float | None:
        references = [quantity for answer in example.answers if (quantity := reference_quantity(answer))]
        if not references:
            return None
        predicted = first_quantity(prediction.answer)
        return float(predicted is not None and any(equal(predicted, reference) for reference in references))

    rule = f"rows:a number in the reference|counts:equal|measurements:{TOLERANCE}|lengths:unit converted|v:2"
    return Mean("numeric", "numbers", rule, score, by_text=True)


def reference_quantity(answer: str) -> Quantity | None:
    """The number that an answer consists of; None where it says anything else."""
    match = _ONLY_NUMBER.match(_digits(answer))
    if match is None:
        return None
    unit = match[2]
    return _quantity(match[1], unit) if not unit or unit in _MILLIMETERS or unit in _OTHER_UNITS else None


def first_quantity(answer: str) -> Quantity | None:
    """The first number of an answer with the unit behind it; None without a number."""
    text = _digits(answer)
    match = _NUMBER.search(text)
    if match is None:
        return None
    behind = text[match.end() :].lstrip()
    units = (unit for unit in (*_MILLIMETERS, *_OTHER_UNITS) if re.match(rf"{re.escape(unit)}(?![a-z])", behind))
    return _quantity(match[0], next(units, ""))


def equal(first: Quantity, second: Quantity) -> bool:
    """Whether two numbers are the same: of one unit, or one of them without; counts exactly."""
    if first.unit and second.unit and first.unit != second.unit:
        return False
    is_count = not (first.unit or second.unit) and first.value.is_integer() and second.value.is_integer()
    return first.value == second.value if is_count else math.isclose(first.value, second.value, rel_tol=TOLERANCE)


def _digits(answer: str) -> str:
    """Lower case, number words as digits, thousands without separators, the minus sign of typesetters as a hyphen."""
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", answer.lower()).replace("\u2212", "-")
    return re.sub(rf"\b({'|'.join(_WORDS)})\b", lambda word: str(_WORDS.index(word[0])), text)


def _quantity(number: str, unit: str) -> Quantity:
    factor = _MILLIMETERS.get(unit)
    return Quantity(float(number), unit) if factor is None else Quantity(float(number) * factor, "mm")
