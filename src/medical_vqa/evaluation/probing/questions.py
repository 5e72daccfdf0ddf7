"""What is asked in a probe: every question with replaced pictures, in other words, and together with its opposite."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from medical_vqa.evaluation.probing.pictures import MIRRORED, ORIGINAL, OTHER_MODALITY, REPLACED, SHUFFLED
from medical_vqa.models.guards.contradiction import opposite, related_questions
from medical_vqa.models.questions.claims import claim_of
from medical_vqa.schema.records import Example
from medical_vqa.text import is_chinese

_SIDES = re.compile(r"\b(?:left|right)(?=most\b|ward\b|-?sided\b|\b)|[左右]", re.IGNORECASE)
_OTHER_SIDE = {"left": "right", "right": "left", "左": "右", "右": "左"}


@dataclass(frozen=True, slots=True)
class ProbeQuestion:
    """One question about one picture."""

    id: str
    """Unique in a probe: picture, image or row, and wording."""
    question: str
    """The question."""
    image_id: str
    """Id of the image whose picture is replaced, or shown."""
    picture: str
    """Which picture is shown: ``original``, ``black`` ..."""
    number: int = 0
    """Which of several pictures of that description."""


@dataclass(frozen=True, slots=True)
class QuestionPair:
    """Two questions about one image that belong together."""

    first: ProbeQuestion
    """One."""
    second: ProbeQuestion
    """The other."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is asked."""

    rows: Sequence[Example]
    """The published rows."""
    questions: Mapping[str, ProbeQuestion]
    """Everything that is asked, by id, each question about one picture once."""
    replaced: Mapping[tuple[str, str], Sequence[ProbeQuestion]]
    """(id of the row, picture) -> what is asked; nothing where there is no such picture."""
    opposites: Sequence[QuestionPair]
    """Questions and their opposites."""
    paraphrases: Sequence[QuestionPair]
    """Questions and the same in other words."""


def plan(rows: Sequence[Example], same: Mapping[str, Sequence[str]], different: Mapping[str, str]) -> Plan:
    """What to ask about rows.

    Args:
        rows: The rows.
        same: Image id -> other images of its type.
        different: Image id -> an image of another modality.
    """
    questions: dict[str, ProbeQuestion] = {}

    def ask(question: str, image_id: str, picture: str = ORIGINAL, number: int = 0) -> ProbeQuestion:
        entry = ProbeQuestion(f"{picture} {number}|{image_id}|{question}", question, image_id, picture, number)
        return questions.setdefault(entry.id, entry)

    replaced: dict[tuple[str, str], list[ProbeQuestion]] = {}
    for row in rows:
        replaced[row.id, ORIGINAL] = [ask(row.question, row.image_id)]
        for picture in REPLACED:
            count = {SHUFFLED: len(same.get(row.image_id, ())), OTHER_MODALITY: int(row.image_id in different)}
            replaced[row.id, picture] = [
                ask(row.question, row.image_id, picture, number) for number in range(count.get(picture, 1))
            ]
        replaced[row.id, MIRRORED] = [ask(mirrored_text(row.question), row.image_id, MIRRORED)]
    opposites = [
        QuestionPair(ask(first, image), ask(second, image))
        for image, pairs in opposite_pairs(rows).items()
        for first, second in pairs
    ]
    paraphrases = [
        QuestionPair(ask(row.question, row.image_id), ask(text, row.image_id))
        for row in rows
        for text in rewordings().get(row.question, ())
    ]
    return Plan(rows, questions, replaced, opposites, paraphrases)


def opposite_pairs(rows: Sequence[Example]) -> dict[str, list[tuple[str, str]]]:
    """Image id -> pairs of a question and its opposite, by rules.

    The questions are the claims among the image's own questions (`claim_of`), and whether the picture and its main
    organ are normal, in the language of the rows.
    """
    texts: dict[str, dict[str, None]] = {}
    for row in rows:
        of_image = texts.setdefault(row.image_id, {})
        if is_chinese(row.question):
            of_image["这张图片看起来正常吗?"] = None
        else:
            of_image["Does this image look normal?"] = None
            organ = row.facts.get("organ", "")
            if organ and organ.isascii() and "_" not in organ:
                of_image[f"Is the {organ.lower()} healthy?"] = None
        if claim_of(row.question) is not None:
            of_image[row.question] = None
    pairs: dict[str, list[tuple[str, str]]] = {}
    for image, questions in texts.items():
        of_image_pairs = {}
        for question in questions:
            claim = claim_of(question)
            for other in (opposite(question), *related_questions(question)):
                related = claim_of(other) if other is not None else None
                if claim and related and claim.yes_means_normal != related.yes_means_normal:
                    of_image_pairs[frozenset((question, other or ""))] = (question, other or "")
        pairs[image] = list(of_image_pairs.values())
    return pairs


def names_side(text: str) -> bool:
    """Whether a text names left or right."""
    return _SIDES.search(text) is not None


def mirrored_text(text: str) -> str:
    """A text with left and right exchanged."""

    def exchanged(match: re.Match[str]) -> str:
        side = _OTHER_SIDE[match.group().lower()]
        return side.capitalize() if match.group()[0].isupper() else side

    return _SIDES.sub(exchanged, text)


@lru_cache(maxsize=1)
def rewordings() -> Mapping[str, Sequence[str]]:
    """Published question -> the same in other words, written by hand and apart from the rules that augment training."""
    text = resources.files("medical_vqa.models.questions").joinpath("rewordings.json").read_text(encoding="utf-8")
    table: dict[str, list[str]] = json.loads(text)
    return table
