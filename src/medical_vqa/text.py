"""Text: normalization of answers before they are compared, and parts of messages.

``squad_normalize("The left lung.")`` is ``"left lung"``; ``squad_normalize("X-Ray")`` is ``"xray"``.
"""

from __future__ import annotations

import difflib
import re
import string
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@lru_cache(maxsize=1 << 17)
def squad_normalize(text: str) -> str:
    """Normalize an answer by the SQuAD v2 rule: lower case, no ASCII punctuation, no articles, single spaces.

    The order is that of the published rule and matters: punctuation goes first, so ``"a.n"`` becomes the
    article ``"an"`` and disappears. Only ASCII punctuation is dropped: a Chinese full stop stays. The rule is
    idempotent.

    Source: ``normalize_answer`` of the official SQuAD 2.0 evaluation script, evaluate-v2.0.py.
    """
    bare = text.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def is_chinese(text: str) -> bool:
    """Whether the text contains a Chinese character."""
    return _HAN.search(text) is not None


def tokens(text: str) -> list[str]:
    """The words of an answer after `squad_normalize`, in order; Chinese without spaces is one word."""
    return squad_normalize(text).split()


def per_cent(fraction: float) -> str:
    """A fraction in [0, 1] for people: ``83%``, and ``<1%`` where a small one would be rounded to zero."""
    return "<1%" if 0 < fraction < 0.005 else f"{fraction:.0%}"


def whole_characters(text: str) -> str:
    """A text without halves of characters (surrogates), which JSON can state and no file can hold.

    Two halves that belong together become their character, any other becomes U+FFFD.
    """
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def one_line(message: object) -> str:
    """A message of another library with all line breaks and control characters replaced by single spaces."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in str(message)).split())


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """A text without characters that move a terminal's cursor, color it or turn the direction of what follows.

    Each is written as its escape: ``\\x1b``. Line ends and tabs stay.
    """
    return _CONTROL.sub(lambda character: ascii(character[0])[1:-1], text.replace("\r\n", "\n"))


def shortened(text: str, limit: int = 1000) -> str:
    """A text of which so many characters are shown, and how many it has."""
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text):,} characters)"


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str | None = None) -> str:
    """Advice for a name that does not exist: the most similar known one, or else what is known.

    Args:
        name: The unknown name.
        known: The names that exist, in the order in which they are listed.
        otherwise: Advice when no known name is similar; by default the first twelve names.

    Returns:
        ``did you mean 'slake'?``, or ``known: folder, slake``.
    """
    names = list(known)
    if similar := nearest(name, names):
        return f"did you mean {similar!r}?"
    return otherwise or f"known: {', '.join(names[:12])}{' ...' if len(names) > 12 else ''}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most similar to this one; None where none is similar enough to be a typing error."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


# --- characters that look alike ---------------------------------------------------------------------------------------

_LATIN = "ABEKMHOPCTXaeopcyxsijABEZHIKMNOPTYXovu"
_LIKE_LATIN = "АВЕКМНОРСТХаеорсухѕіјΑΒΕΖΗΙΚΜΝΟΡΤΥΧονυ"  # Cyrillic, then Greek  # noqa: RUF001 - that is the point
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212"
_REPLACEMENTS = str.maketrans(
    dict(zip(_LIKE_LATIN, _LATIN, strict=True)) | dict.fromkeys(_DASHES, "-") | dict.fromkeys("\u2018\u2019\u02bc", "'")
)


def plain_letters(text: str) -> str:
    """The text with characters that look alike replaced by one of them, and without invisible ones.

    Covers full-width and combined letters, Cyrillic and Greek letters that look Latin, dashes and quotes. No score uses
    it; it finds wrong answers that a reader would call right.
    """
    composed = unicodedata.normalize("NFKC", text).translate(_REPLACEMENTS)
    return "".join(letter for letter in composed if unicodedata.category(letter) != "Cf")


THOUGHT_TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[think]", "[/think]"),  # Magistral
    ("<seed:think>", "</seed:think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("◁think▷", "◁/think▷"),  # Kimi-VL
    ("<unused94>", "<unused95>"),  # MedGemma
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # gpt-oss
)
"""What reasoning models put around their chain of thought: opening and closing, in lower case."""
_OPENINGS = frozenset(opening for opening, _ in THOUGHT_TAGS)
_TAGS = tuple(tag for tags in THOUGHT_TAGS for tag in tags)
_ANY_TAG = re.compile("|".join(map(re.escape, _TAGS)), re.IGNORECASE)
_LONGEST_TAG = max(map(len, _TAGS))


def without_thoughts(text: str) -> str:
    """The text outside of chains of thought; empty where a thought was interrupted before an answer."""
    thoughts = ThoughtFilter()
    thoughts.add(text)
    return thoughts.complete


class ThoughtFilter:
    """Separates an answer from chains of thought, also while it is written; each piece is read once.

    Thoughts may be nested. A closing tag without its opening ends a thought that the prompt's template has opened.
    """

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._depth = 0
        self._tag_beginning = ""  # what may be the beginning of a tag

    def add(self, piece: str) -> None:
        """Read the next piece."""
        text = self._tag_beginning + piece
        position = 0
        for tag in _ANY_TAG.finditer(text):
            self._append(text[position : tag.start()])
            if tag[0].lower() in _OPENINGS:
                self._depth += 1
            elif self._depth:
                self._depth -= 1
            else:
                self._parts.clear()
            position = tag.end()
        rest = text[position:]
        length = _beginning_of_tag(rest)
        self._append(rest[: len(rest) - length])
        self._tag_beginning = rest[len(rest) - length :]

    @property
    def so_far(self) -> str:
        """The answer so far: no thought, and no beginning of a tag at its end."""
        return "".join(self._parts)

    @property
    def complete(self) -> str:
        """The answer, where nothing follows."""
        return self.so_far + ("" if self._depth else self._tag_beginning)

    def _append(self, text: str) -> None:
        if text and not self._depth:
            self._parts.append(text)


def _beginning_of_tag(text: str) -> int:
    """Characters at the end of a text that begin a tag, and do not complete it."""
    end = text[-_LONGEST_TAG + 1 :].lower()
    starts = (start for start in range(len(end)) if any(tag.startswith(end[start:]) for tag in _TAGS))
    return len(end) - next(starts, len(end))
