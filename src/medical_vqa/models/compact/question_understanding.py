"""What a model with a closed vocabulary understands of a typed question, by rules: nothing here is learned by gradient.

Typing errors are corrected, function words that training never used are ignored, and other unknown words are named. An
entity is an organ or a finding; which ones occur in which type of image is counted in the training rows.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from rapidfuzz.distance import OSA

from medical_vqa.models.base import Query
from medical_vqa.models.questions.claims import FINDING
from medical_vqa.models.questions.premises import EXISTENCE, takes_for_granted
from medical_vqa.models.questions.terms import CanonicalQuestion, Term, canonical_terms
from medical_vqa.models.vocabulary import WordVocabulary, words
from medical_vqa.schema.records import Example
from medical_vqa.text import is_chinese, squad_normalize

_IGNORED_TEXT = """
a actually all also am an and any anything are as at basically be been being both but by can could currently
did do does everything exactly find for found from get gets give good got had has have having he hello her
here hey hi his i if in indeed into is it its just kindly know let lie lies like made make makes making may
maybe me might my now of oh ok okay on or our out over please really say seem seems she should so some
something sort such sure than thank thanks that the their them then there these they think this those to too
use very want was way ways we well were will with would yes you your
"""
_IGNORED_WORDS = frozenset(_IGNORED_TEXT.split())
_PUNCTUATION = re.compile(r"[^\w\s]|_")
_LATIN_OR_HAN = re.compile(r"[\u0000-\u024f\u2000-\u206f\u3000-\u303f\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef]*")
_LATIN_WORD = re.compile("[A-Za-z]+")
_MIN_LETTERS = 4
"""Shorter words are not corrected: too many known words are within one letter of them."""
_LONG_WORD_LETTERS = 8
"""From this length on a word may have two typing errors."""
_DENIALS = frozenset(("no", "none", "否", "不是", "没有", "无", "不存在", "不包含", "不包括", "不"))
_CHINESE_NAMES = {  # what SLAKE's Chinese questions call the entities whose masks and boxes have English names
    "肝脏": "liver", "肝癌": "liver cancer", "肺": "lung", "左肺": "left lung", "右肺": "right lung",
    "肺癌": "lung cancer", "肾脏": "kidney", "左肾": "left kidney", "右肾": "right kidney", "脾脏": "spleen",
    "心脏": "heart", "胃": "stomach", "心脏肥大": "cardiomegaly", "肺不张": "atelectasis", "肺炎": "pneumonia",
    "气胸": "pneumothorax", "积液": "effusion", "胸腔积液": "effusion", "浸润": "infiltrate", "肺浸润": "infiltrate",
    "肿块": "mass", "肺肿块": "mass", "结节": "nodule", "肺结节": "nodule", "脑水肿": "brain edema",
    "脑干": "brain stem", "颞叶": "temporal lobe", "脊髓": "spinal cord", "小肠": "small bowel", "结肠": "colon",
    "直肠": "rectum", "十二指肠": "duodenum", "膀胱": "bladder", "食管": "esophagus", "食道": "esophagus",
    "气管": "trachea", "喉": "larynx", "下颌骨": "mandible", "下颚": "mandible", "腮腺": "parotid", "眼": "eye",
    "肝": "liver", "脾": "spleen", "肾": "kidney", "大脑": "brain", "脑": "brain", "脑肿瘤": "brain", "脑瘤": "brain",
    "耳": "ear", "牙": "tooth", "股骨头": "femoral head", "肱骨头": "humerus head",
}  # fmt: skip
_SITES = {
    "atelectasis": "lung", "pneumonia": "lung", "pneumothorax": "lung", "effusion": "lung", "infiltrate": "lung",
    "cardiomegaly": "heart",
}  # fmt: skip
"""Findings whose name does not contain the organ that they are in."""


# --- choices in a question --------------------------------------------------------------------------------------------

UNLISTED_ANSWERS = frozenset(("yes", "no", "both", "neither", "none", "equal", "same", "almost same"))
"""Answers that may answer a question with choices although they are none of them, normalized."""
_CHOICE_TOKEN = re.compile(r"[a-z0-9-]+|,")
_BEFORE_CHOICE = frozenset(("a", "an", "the", "on", "at", "in"))
"""Words that may come before a choice (``on the left or on the right``)."""
_MAX_CHOICE_WORDS = 4


def choices_in(question: str, known: Container[str]) -> list[str]:
    """The choices that a question offers (``Which is larger, liver or spleen?``), in order.

    Args:
        question: As typed.
        known: Normalized answers; other phrases are no choices.

    Returns:
        At least two known answers, or an empty list where the question offers no choice between known answers.
    """
    tokens = [token for token in _CHOICE_TOKEN.findall(question.lower()) if token not in _BEFORE_CHOICE]
    if tokens.count("or") != 1:
        return []
    place = tokens.index("or")
    before, after = tokens[:place], tokens[place + 1 :]
    last = _longest_known([" ".join(after[:n]) for n in range(1, _MAX_CHOICE_WORDS + 1)], known)
    if last is None:
        return []
    choices = [last]
    while before and (len(choices) == 1 or before[-1] == ","):
        if before[-1] == ",":
            before = before[:-1]
        lengths = range(1, min(_MAX_CHOICE_WORDS, len(before)) + 1)
        choice = _longest_known([" ".join(before[-n:]) for n in lengths], known)
        if choice is None:
            break
        choices.insert(0, choice)
        before = before[: -len(choice.split())]
    return choices if len(choices) > 1 else []


def _longest_known(phrases: Sequence[str], known: Container[str]) -> str | None:
    return next((phrase for phrase in reversed(phrases) if phrase in known), None)


# --- words and entities -----------------------------------------------------------------------------------------------


class QuestionParser:
    """Reads questions with a word vocabulary and a list of entities."""

    def __init__(self, vocabulary: WordVocabulary, entities: Sequence[str] = ()) -> None:
        """Compile the patterns; `entities` are names of organs and findings, such as ``left lung``."""
        self._vocabulary = vocabulary
        self._known = frozenset(vocabulary.known)
        longest_first = sorted({name.lower() for name in entities}, key=lambda name: (-len(name), name))
        self._pattern = re.compile(rf"\b({'|'.join(map(re.escape, longest_first)) or '(?!)'})s?\b")
        chinese = [name for name, english in _CHINESE_NAMES.items() if english in longest_first]
        self._chinese_pattern = re.compile("|".join(sorted(chinese, key=len, reverse=True)) or "(?!)")
        self._corrected = lru_cache(maxsize=1 << 12)(self._correct)
        self._canonical = lru_cache(maxsize=1 << 10)(self._uncached_canonical)

    def encode(self, question: str, *, limit: int) -> list[int]:
        """Indices of the first `limit` words, at least one, of the question in known words (`canonical`).

        Typing errors are corrected and ignored words left out.
        """
        corrected = [self._corrected(token) for token in words(self.canonical(question))]
        return self._vocabulary.indices([word for word in corrected if word is not None][:limit])

    def spelled(self, question: str) -> str:
        """The question with typing errors corrected; words of no meaning, unknown ones and medical terms stay."""
        canonical = self._canonical(question)
        spellings = [*(typed for typed, _ in canonical.replaced), *(term.spelling for term in canonical.outside)]
        terms = {word for spelling in spellings for word in words(spelling)}

        def corrected(match: re.Match[str]) -> str:
            word = match.group().lower()
            if word in self._known or any(_is_form_of(word, term) for term in terms):
                return match.group()
            return self._corrected(word) or match.group()

        return _LATIN_WORD.sub(corrected, question)

    def says_nothing(self, question: str) -> bool:
        """Whether all words of a question are left out (``Thanks``, ``?``)."""
        tokens = [token for token in words(self.canonical(question)) if not _PUNCTUATION.fullmatch(token)]
        return all(self._corrected(token) is None for token in tokens)

    def unknown_words(self, question: str) -> list[str]:
        """Words that carry meaning, that training never used and that no table of terms knows, each once, in order."""
        canonical = self._canonical(question)
        tokens = words(canonical.text)
        for term in canonical.outside:
            for spelled in words(term.spelling):
                tokens = [token for token in tokens if not _is_form_of(token, spelled)]
        return list(dict.fromkeys(token for token in tokens if self._corrected(token) == ""))

    def terms_outside(self, question: str) -> list[Term]:
        """Medical terms of the question that training never used, each once, in order."""
        return list(dict.fromkeys(self._canonical(question).outside))

    def canonical(self, question: str) -> str:
        """The question with synonyms and abbreviations of known words in place of these."""
        return self._canonical(question).text

    def is_foreign(self, question: str) -> bool:
        """Whether the question is in a script, or for Chinese in a language, that no training question has."""
        chinese = is_chinese(question) and not any(is_chinese(word) for word in self._known)
        return chinese or _LATIN_OR_HAN.fullmatch(question) is None

    def languages(self) -> str:
        """The languages of the training questions, in words."""
        return "English and Chinese" if any(map(is_chinese, self._known)) else "English"

    def presupposed_entity(self, question: str) -> str | None:
        """The entity whose presence an English question presupposes (``Where is the liver?``), if any."""
        return None if EXISTENCE.search(question.lower()) else self.entity_in(question)

    def premises(self, question: str) -> list[str]:
        """The organs and findings that a picture must be able to show for a question to have an answer, as entities.

        Whether an organ is in the picture can be asked of any picture (``Is the liver visible?``). Whether it is
        healthy, or has a finding, presupposes it (``Is there a tumor in the liver?``), and a finding presupposes
        pictures in which it can be seen (``Does this patient have pneumonia?``).
        """
        return self.entities_in(question) if takes_for_granted(question) else []

    def entities_in(self, text: str) -> list[str]:
        """All entities that a text mentions, in English or Chinese, by their English names, each once."""
        chinese = [_CHINESE_NAMES[match.group()] for match in self._chinese_pattern.finditer(text)]
        english = [match.group(1) for match in self._pattern.finditer(" ".join(words(text)))]
        return list(dict.fromkeys([*chinese, *english]))

    def entity_in(self, text: str) -> str | None:
        """The first entity that an English text mentions, the most specific one where several match."""
        match = self._pattern.search(" ".join(words(text)))
        return match.group(1) if match else None

    def entity_in_any_language(self, text: str) -> str | None:
        """As `entity_in`, of Chinese text too: the English name of the entity, which is that of its region."""
        match = self._chinese_pattern.search(text)
        return _CHINESE_NAMES[match.group()] if match else self.entity_in(text)

    def affirmed_entities(self, question: str, answer: str) -> list[str]:
        """English names of all entities that a question and its answer mention, each once, in order.

        Those of the question are left out where the answer denies that they are there (``Is there a mass?``, ``No``).
        """
        is_denied = squad_normalize(answer) in _DENIALS and self.presupposed_entity(question) is None
        return list(dict.fromkeys([*([] if is_denied else self._entities(question)), *self._entities(answer)]))

    def _entities(self, text: str) -> list[str]:
        chinese = [_CHINESE_NAMES[name] for name in self._chinese_pattern.findall(text)]
        return chinese + self._pattern.findall(" ".join(words(text)))

    def canonical_queries(self, queries: Sequence[Query]) -> list[Query]:
        """The queries with `canonical` questions."""
        canonical = {question: self.canonical(question) for question in {query.question for query in queries}}
        return [
            query
            if canonical[query.question] == query.question
            else dataclasses.replace(query, question=canonical[query.question])
            for query in queries
        ]

    def _uncached_canonical(self, question: str) -> CanonicalQuestion:
        return canonical_terms(question, self._known)

    def _correct(self, token: str) -> str | None:
        """The known word that a token stands for; None for an ignored token, and "" for an unknown word."""
        if token in self._known:
            return token
        if token in _IGNORED_WORDS or _PUNCTUATION.fullmatch(token):
            return None
        correctable = len(token) >= _MIN_LETTERS and token.isascii()
        return (_nearest_word(token, self._known) if correctable else None) or ""


def _is_form_of(token: str, singular: str) -> bool:
    """Whether a token is a word or its regular plural."""
    return token in (singular, f"{singular}s", f"{singular}es", f"{singular.removesuffix('y')}ies")


def _nearest_word(word: str, known: frozenset[str]) -> str | None:
    """The one known word within a typing error of this one (two in a long word); None for none and for several.

    A typing error is a letter added, left out, changed or swapped with its neighbor (optimal string alignment).
    """
    for errors in (1, 2) if len(word) >= _LONG_WORD_LETTERS else (1,):
        near = [w for w in known if len(w) >= _MIN_LETTERS and OSA.distance(word, w, score_cutoff=errors) <= errors]
        candidates = [other for other in near if other[0] == word[0]] or near
        if len(candidates) == 1:
            return candidates[0]
        if near:
            return None
    return None


def entity_names(regions: Iterable[str], answers: Iterable[str]) -> list[str]:
    """Entities that a question can be about: names of regions, with and without side, and their words that are answers.

    Args:
        regions: Region names, such as ``mask: Left Lung``.
        answers: Answers of the training rows.
    """
    names = {region.rpartition(": ")[2].lower() for region in regions}
    without_side = {re.sub(r"^(?:left|right) ", "", name) for name in names}
    single_answers = {answer.lower() for answer in answers} - {"left", "right"}
    return sorted(names | without_side | {word for name in names for word in name.split() if word in single_answers})


# --- entities by image type -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImageTypes:
    """Which entities training rows mention in which type of image; an image's type is the answer to one question."""

    question: str = ""
    """The question whose answer is an image's type: the commonest of the training rows."""
    entities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Image type, normalized -> the entities that rows about such images presuppose, affirm or answer."""

    @classmethod
    def from_examples(cls, examples: Sequence[Example], parser: QuestionParser) -> ImageTypes:
        """Count which entities the training rows mention in each image type."""
        question = Counter(e.question for e in examples).most_common(1)[0][0]
        type_of = {e.image_id: squad_normalize(e.answers[0]) for e in examples if e.question == question}
        entities: dict[str, set[str]] = {image_type: set() for image_type in type_of.values()}
        for example in examples:
            if example.image_id in type_of:
                entities[type_of[example.image_id]] |= _mentioned(example, parser)
        return cls(question, {image_type: tuple(sorted(names)) for image_type, names in sorted(entities.items())})

    def is_unfamiliar(self, entity: str, image_type: str) -> bool:
        """Whether the image type is known and no training row mentions the entity in such an image.

        A finding is familiar where any finding of the same organ is: such as a tumor for brains with edema.
        """
        name = squad_normalize(image_type)
        entities = self.entities.get(name)
        if entities is None or entity in (*entities, name, _PART_OF.get(name)):
            return False
        site = _site_of(entity)
        return site is None or all(_site_of(other) != site for other in entities)


_PART_OF = {"brain": "head"}
"""Body part that a picture of another shows as well: a picture of the brain is one of the head."""


def _site_of(finding: str) -> str | None:
    """The organ that a finding is in (``brain edema`` -> ``brain``); None for an organ, and for a mass or nodule."""
    if FINDING.search(finding) is None:
        return None
    return _SITES.get(finding) or (finding.split(maxsplit=1)[0] if " " in finding else None)


def _mentioned(example: Example, parser: QuestionParser) -> set[str]:
    answer = example.answers[0]
    names = {parser.presupposed_entity(example.question), parser.entity_in(answer)}
    if squad_normalize(answer) == "yes":
        names.add(parser.entity_in(example.question))
    return {name for name in names if name is not None}
