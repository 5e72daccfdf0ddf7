"""Yes or no questions that name a value of what training asks openly: a color, a side, a number, the larger organ.

``Is the lung black?`` has the answer that follows from the one to ``What color is the lung in the picture?``. Training
hardly asks such a question for yes or no, so that an answer of its own would mean nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from medical_vqa.models.questions.anatomy import anatomy
from medical_vqa.models.questions.plain_words import rest_of, statement_of
from medical_vqa.models.questions.presence import LARGEST_ORGAN
from medical_vqa.text import is_chinese

_NUMBERS = {
    "0": "0|zero", "1": "1|one|a single|single", "2": "2|two|both|a pair of|pair of|两|二|一对|双", "3": "3|three|三",
    "4": "4|four|四", "5": "5|five|五", "6": "6|six|六",
}  # fmt: skip
_COLORS = {
    "black": "black|dark|黑色?", "white": "white|bright|白色?", "gray": "gr[ae]y|灰色?",
}  # fmt: skip
_SHAPES = {
    "oval": "oval|ellipti(?:c|cal)|椭圆形?", "irregular": "irregular|不规则", "circular": "circular|round|圆形?",
}  # fmt: skip
_SIDES = {
    "left": "left|左[侧边]?", "right": "right|右[侧边]?", "top": "top|upper|上[部方]|顶部",
    "bottom": "bottom|lower|下[部方]|底部", "center": "center|centre|middle|中[心间部]",
}  # fmt: skip
_LARGEST = re.compile(r"\b(?:largest|biggest)\b|最大")
_LARGER = r"(?:bigger|larger|greater) than|(?:更大|大)"
_SMALLER = r"smaller than|(?:更小|小)"
_ALSO_PLAIN = {
    "count": frozenset(("number",)),
    "color": frozenset(("color", "colour", "colored", "coloured")),
    "shape": frozenset(("shape", "shaped")),
    "side": frozenset(("side", "half", "hand", "corner", "lie", "lies", "lying", "placed")),
}
_CHOICE = re.compile(r"\b(?:or|which|what|where|how|why|who|when|not)\b|还是|或|哪|什么|几|多少|怎")


@dataclass(frozen=True, slots=True)
class ValueClaim:
    """What a yes or no question says that the answer to an open question is."""

    open_question: str
    """Question whose answer decides."""
    value: re.Pattern[str]
    """Pattern of the answers that the question says."""
    known: re.Pattern[str]
    """Pattern of all answers that decide."""
    denied: bool = False
    """Whether the question says the opposite (``Is the liver smaller than the spleen?``)."""

    def yes(self, open_answer: str) -> bool | None:
        """Whether the answer to `open_question` agrees; None where it decides nothing."""
        text = open_answer.strip().lower()
        if self.known.search(text) is None:
            return None
        return (self.value.search(text) is not None) != self.denied


@lru_cache(maxsize=4096)
def value_claims(question: str) -> tuple[ValueClaim, ...]:
    """The value that a yes or no question names, where its other words say nothing more; empty for others."""
    text = statement_of(question)
    chinese = is_chinese(question)
    mentions = anatomy().mentions_in(text)
    if _CHOICE.search(text) or not mentions or any(anatomy().structures[name].kind != "organ" for _, name in mentions):
        return ()
    rest = text
    for word, _ in mentions:
        rest = rest.replace(word, " ", 1)
    names = [word if chinese else name for word, name in mentions]
    if len(mentions) == 2:
        return _comparison(text, rest, [word for word, _ in mentions], names, chinese=chinese)
    if len(mentions) != 1:
        return ()
    (name,) = names
    if _LARGEST.search(rest) is None:
        return _attribute(text, rest, mentions[0][0], name, chinese=chinese)
    if rest_of(_LARGEST.sub(" ", rest)):
        return ()
    return (ValueClaim(LARGEST_ORGAN[chinese], re.compile(rf"^{re.escape(name)}$"), re.compile(r"^(?!yes$|no$)\D+$")),)


def _attribute(text: str, rest: str, word: str, name: str, *, chinese: bool) -> tuple[ValueClaim, ...]:
    """The claim about a color, shape, side or number of one organ."""
    plural = name.removesuffix("y") + "ies" if re.search("[^aeiou]y$", name) else f"{name}s"
    tables = {
        "color": (_COLORS, f"图中的{name}是什么颜色的?" if chinese else f"What color is the {name} in the picture?"),
        "shape": (
            _SHAPES,
            f"图中{name}的形状是什么?" if chinese else f"What is the shape of the {name} in the picture?",
        ),
        "count": (_NUMBERS, f"图中有多少个{name}?" if chinese else f"How many {plural} in this image?"),
        "side": (_SIDES, f"图中{name}在哪?" if chinese else f"Where is the {name}?"),
    }
    for attribute, (values, open_question) in tables.items():
        known = _pattern("|".join(values.values()))
        named = [match.group() for match in known.finditer(rest)]
        if attribute != "count" and re.search(rf"(?:{known.pattern}) ?{re.escape(word)}", text):
            continue  # ``the left lung`` is an organ's name
        left = rest_of(re.sub("颜色|形状|数量", " ", known.sub(" ", rest)), _ALSO_PLAIN[attribute])
        if named and not left:
            patterns = [
                _pattern(form) for form in values.values() if any(_pattern(form).fullmatch(word) for word in named)
            ]
            return tuple(ValueClaim(open_question, value, known) for value in patterns)
    return ()


def _comparison(text: str, rest: str, words: list[str], names: list[str], *, chinese: bool) -> tuple[ValueClaim, ...]:
    """The claim that the first of two organs is the larger one, or the smaller."""
    larger = re.search(_LARGER, rest) is not None
    smaller = re.search(_SMALLER, rest) is not None
    compares = re.search(rf"{re.escape(words[0])}.*(?:{_LARGER}|{_SMALLER}|比).*{re.escape(words[1])}", text)
    if larger == smaller or compares is None or (chinese and "比" not in rest):
        return ()
    left = re.sub(rf"{_LARGER}|{_SMALLER}|比", " ", rest)
    if rest_of(left):
        return ()
    first, second = names
    question = f"图中{first}和{second}哪个更大?" if chinese else f"Which is bigger in this image, {first} or {second}?"
    value, known = re.compile(rf"^{re.escape(first)}$"), re.compile(rf"^(?:{re.escape(first)}|{re.escape(second)})$")
    return (ValueClaim(question, value, known, denied=smaller),)


def _pattern(forms: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z0-9])(?:{forms})(?![a-z0-9])")
