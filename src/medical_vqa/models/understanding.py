"""How much of a typed question a closed vocabulary understands: typing errors mended, idle words left, others named.

Nothing here is learned: a word counts as known because training questions use it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from medical_vqa.models.vocabulary import WordVocabulary, words

_IDLE_WORDS = """
a all also am an and any are as at be been being both but by can could did do does exactly for from give good
had has have having he hello her here hey hi his i if in indeed into is it its just kindly let like may maybe
me might my now of oh ok okay on or our out over please really say seem seems she should so some such sure
than thank thanks that the their them then there these they this those to too very was we well were will with
would yes you your
"""
_IDLE = frozenset(_IDLE_WORDS.split())
_MARK = re.compile(r"[^\w\s]|_")
_LATIN_OR_HAN = re.compile(r"[\u0000-\u024f\u2000-\u206f\u3000-\u303f\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef]*")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_SHORTEST = 4  # letters of a word that may be a typing error: shorter ones are too near to each other
_EXISTENCE = re.compile(  # such questions take nothing for granted
    r"\b(contains?|includes?|exists?|existing|there|visible|visuali[sz]ed|observed|seen|see|appears?|presented?|present|any|"
    r"many|number|count|study|shows?|shown|have|has|bigger|biggest|larger|largest|smaller|smallest|signs?|system)\b"
)


class Reader:
    """Reads questions with the words of a vocabulary."""

    def __init__(self, vocabulary: WordVocabulary, things: Sequence[str] = ()) -> None:
        """`things`: names of what can lie in a picture, ``left lung``."""
        self._vocabulary = vocabulary
        self._known = frozenset(vocabulary.known)
        self._things = sorted({thing.lower() for thing in things}, key=lambda thing: (-len(thing), thing))
        self._mended = lru_cache(maxsize=1 << 12)(self._mend)

    def encode(self, question: str, *, limit: int) -> list[int]:
        """Indices of the first `limit` words, at least one; typing errors mended, idle unknown words passed over."""
        read = [word for token in words(question) if (word := self._mended(token)) is not None]
        return self._vocabulary.indices(read[:limit])

    def unknown(self, question: str) -> list[str]:
        """Words that mean something and that training never used, in their order."""
        return [token for token in words(question) if self._mended(token) == ""]

    def foreign(self, question: str) -> bool:
        """Whether it is in a script, or for Chinese in a language, that no training question has."""
        chinese = _HAN.search(question) is not None and not any(_HAN.search(word) for word in self._known)
        return chinese or _LATIN_OR_HAN.fullmatch(question) is None

    def presupposed(self, question: str) -> str | None:
        """The thing whose presence an English question takes for granted (``Where is the liver?``), if any."""
        text = " ".join(token for token in words(question))
        if _EXISTENCE.search(text):
            return None
        return next((thing for thing in self._things if re.search(rf"\b{re.escape(thing)}s?\b", text)), None)

    def _mend(self, token: str) -> str | None:
        """The known word it stands for; None for one to pass over, and "" for one that means something unknown."""
        if token in self._known:
            return token
        if token in _IDLE or _MARK.fullmatch(token):
            return None
        near = _nearest(token, self._known) if len(token) >= _SHORTEST and token.isascii() else None
        return near or ""


def _nearest(word: str, known: frozenset[str]) -> str | None:
    """The one known word within a typing error of this one (two in a long word); None for none and for a choice."""
    for allowed in (1, 2) if len(word) >= 8 else (1,):
        near = [other for other in known if len(other) >= _SHORTEST and distance(word, other, allowed) <= allowed]
        same_start = [other for other in near if other[0] == word[0]] or near
        if len(same_start) == 1:
            return same_start[0]
        if near:
            return None
    return None


def distance(one: str, other: str, most: int) -> int:
    """Letters added, left out, changed or swapped with a neighbour between two words; `most` + 1 where it is more."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        last, row = row, [i] + [0] * len(other)
        for j, b in enumerate(other, 1):
            row[j] = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if before and j > 1 and a == other[j - 2] and one[i - 2] == b:
                row[j] = min(row[j], before[j - 2] + 1)
        before = last
        if min(row) > most:
            return most + 1
    return row[-1]
