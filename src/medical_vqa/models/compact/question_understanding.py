"""How much of a typed question a closed vocabulary understands: typing errors mended, idle words left, others named.

Nothing here is learned by gradient: a word counts as known because training questions use it, and a thing as being in a
kind of image because training rows speak of it there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from medical_vqa.models.vocabulary import WordVocabulary, words
from medical_vqa.schema.records import Example
from medical_vqa.text import squad_normalize

_IDLE_WORDS = """
a actually all also am an and any anything are as at basically be been being both but by can could currently
did do does everything exactly find for found from get gets give good got had has have having he hello her
here hey hi his i if in indeed into is it its just kindly know let lie lies like made make makes making may
maybe me might my now of oh ok okay on or our out over please really say seem seems she should so some
something sort such sure than thank thanks that the their them then there these they think this those to too
use very want was way ways we well were will with would yes you your
"""
_IDLE = frozenset(_IDLE_WORDS.split())
_MARK = re.compile(r"[^\w\s]|_")
_LATIN_OR_HAN = re.compile(r"[\u0000-\u024f\u2000-\u206f\u3000-\u303f\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef]*")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_SHORTEST = 4  # letters of a word that may be a typing error: shorter ones are too near to each other
_OFFERS = re.compile(r"[a-z0-9-]+|,")
_EXISTENCE = re.compile(  # such questions take nothing for granted
    r"\b(contains?|includes?|exists?|existing|there|visible|visuali[sz]ed|observed|seen|see|appears?|presented?|present|any|"
    r"many|number|count|study|shows?|shown|have|has|bigger|biggest|larger|largest|smaller|smallest|signs?|system)\b"
)

_IN_CHINESE = {  # what SLAKE's Chinese questions call the things whose masks and boxes have English names
    "肝脏": "liver", "肝癌": "liver cancer", "肺": "lung", "左肺": "left lung", "右肺": "right lung",
    "肺癌": "lung cancer", "肾脏": "kidney", "左肾": "left kidney", "右肾": "right kidney", "脾脏": "spleen",
    "心脏": "heart", "胃": "stomach", "心脏肥大": "cardiomegaly", "肺不张": "atelectasis", "肺炎": "pneumonia",
    "气胸": "pneumothorax", "积液": "effusion", "胸腔积液": "effusion", "浸润": "infiltrate", "肺浸润": "infiltrate",
    "肿块": "mass", "肺肿块": "mass", "结节": "nodule", "肺结节": "nodule", "脑水肿": "brain edema",
    "脑干": "brain stem", "颞叶": "temporal lobe", "脊髓": "spinal cord", "小肠": "small bowel", "结肠": "colon",
    "直肠": "rectum", "十二指肠": "duodenum", "膀胱": "bladder", "食管": "esophagus", "食道": "esophagus",
    "气管": "trachea", "喉": "larynx", "下颌骨": "mandible", "下颚": "mandible", "腮腺": "parotid", "眼": "eye",
    "耳": "ear", "牙": "tooth", "股骨头": "femoral head", "肱骨头": "humerus head",
}  # fmt: skip


def is_chinese(text: str) -> bool:
    """Whether a Chinese character is in it."""
    return _HAN.search(text) is not None


NO_CHOICE = frozenset(("yes", "no", "both", "neither", "none", "equal", "same", "almost same"))
"""Answers that are none of the things a question offers, normalized, and yet may answer it."""
_LONGEST_OFFER = 4


def offered(question: str, known: Container[str]) -> list[str]:
    """What a question gives to choose from (``Which is larger, liver or spleen?``), among known, normalized answers.

    Empty where it gives no choice, or one of things that are no answers.
    """
    read = [token for token in _OFFERS.findall(question.lower()) if token not in ("a", "an", "the")]
    if read.count("or") != 1:
        return []
    place = read.index("or")
    last = _longest([" ".join(read[place + 1 : place + 1 + n]) for n in range(1, _LONGEST_OFFER + 1)], known)
    before, found = read[:place], [last]
    while before and (not found[1:] or before[-1] == ","):
        before = before[:-1] if before[-1] == "," else before
        one = _longest([" ".join(before[-n:]) for n in range(1, min(_LONGEST_OFFER, len(before)) + 1)], known)
        if one is None:
            break
        found.append(one)
        before = before[: -len(one.split())]
    return [one for one in reversed(found) if one is not None] if last is not None and found[1:] else []


def _longest(phrases: Sequence[str], known: Container[str]) -> str | None:
    return next((phrase for phrase in reversed(phrases) if phrase in known), None)


class Reader:
    """Reads questions with the words of a vocabulary."""

    def __init__(self, vocabulary: WordVocabulary, things: Sequence[str] = ()) -> None:
        """`things`: names of what can lie in a picture, ``left lung``."""
        self._vocabulary = vocabulary
        self._known = frozenset(vocabulary.known)
        longest_first = sorted({thing.lower() for thing in things}, key=lambda thing: (-len(thing), thing))
        self._pattern = re.compile(rf"\b({'|'.join(map(re.escape, longest_first)) or '(?!)'})s?\b")
        chinese = sorted((name for name, thing in _IN_CHINESE.items() if thing in longest_first), key=len, reverse=True)
        self._chinese = re.compile("|".join(chinese) or "(?!)")
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
        chinese = is_chinese(question) and not any(is_chinese(word) for word in self._known)
        return chinese or _LATIN_OR_HAN.fullmatch(question) is None

    def languages(self) -> str:
        """The languages of the training questions, in words."""
        return "English and Chinese" if any(map(is_chinese, self._known)) else "English"

    def presupposed(self, question: str) -> str | None:
        """The thing whose presence an English question takes for granted (``Where is the liver?``), if any."""
        return None if _EXISTENCE.search(question.lower()) else self.named(question)

    def named(self, text: str) -> str | None:
        """The first of the things that a text speaks of, the most particular one where several fit."""
        found = self._pattern.search(" ".join(words(text)))
        return found.group(1) if found else None

    def named_in_any_language(self, text: str) -> str | None:
        """As `named`, of Chinese text too: the English name of the thing, which is that of its region."""
        found = self._chinese.search(text)
        return _IN_CHINESE[found.group()] if found else self.named(text)

    def _mend(self, token: str) -> str | None:
        """The known word it stands for; None for one to pass over, and "" for one that means something unknown."""
        if token in self._known:
            return token
        if token in _IDLE or _MARK.fullmatch(token):
            return None
        near = _nearest(token, self._known) if len(token) >= _SHORTEST and token.isascii() else None
        return near or ""


@dataclass(frozen=True, slots=True)
class ImageTypes:
    """Which entities training rows mention in which type of image; an image's type is the answer to one question."""

    question: str = ""
    """The question whose answer is an image's type: the commonest of the training rows."""
    entities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Image type, normalized -> the entities that rows about such images presuppose, affirm or answer."""

    @classmethod
    def from_examples(cls, examples: Sequence[Example], reader: Reader) -> ImageTypes:
        """Count which entities the training rows mention in each image type."""
        question = Counter(e.question for e in examples).most_common(1)[0][0]
        type_of = {e.image_id: squad_normalize(e.answers[0]) for e in examples if e.question == question}
        entities: dict[str, set[str]] = {image_type: set() for image_type in type_of.values()}
        for example in examples:
            if example.image_id in type_of:
                entities[type_of[example.image_id]] |= _mentioned(example, reader)
        return cls(question, {image_type: tuple(sorted(names)) for image_type, names in sorted(entities.items())})

    def is_unfamiliar(self, entity: str, image_type: str) -> bool:
        """Whether the image type is known and no training row mentions the entity in such an image."""
        entities = self.entities.get(squad_normalize(image_type))
        return entities is not None and entity not in entities


def _mentioned(example: Example, reader: Reader) -> set[str]:
    answer = example.answers[0]
    names = {reader.presupposed(example.question), reader.named(answer)}
    if squad_normalize(answer) == "yes":
        names.add(reader.named(example.question))
    return {name for name in names if name is not None}


def things_of(regions: Iterable[str], answers: Iterable[str]) -> list[str]:
    """What can be asked about: names of regions, also without their side, and words of theirs that are answers."""
    names = {region.rpartition(": ")[2].lower() for region in regions}
    plain = {re.sub(r"^(?:left|right) ", "", name) for name in names}
    alone = {answer.lower() for answer in answers} - {"left", "right"}
    return sorted(names | plain | {word for name in names for word in name.split() if word in alone})


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
    """Letters added, left out, changed or swapped with a neighbor between two words; `most` + 1 where it is more."""
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
