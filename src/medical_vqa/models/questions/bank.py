"""The training questions of a model: what it can be asked, and which answers belong to which type of question."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Self

from medical_vqa.models.questions.aspects import Aspect, asked_aspect, existence_noun
from medical_vqa.models.questions.disease_knowledge import disease_question
from medical_vqa.models.questions.form import asks_yes_or_no
from medical_vqa.models.questions.meaning import meaning_similarities
from medical_vqa.models.questions.premises import counted_topic, organ_of_system, patient_side
from medical_vqa.models.questions.subjects import Relation, Subject
from medical_vqa.models.questions.terms import canonical_terms
from medical_vqa.models.questions.wording import misspellings, well_worded
from medical_vqa.models.vocabulary import words
from medical_vqa.schema.records import Example
from medical_vqa.text import is_chinese, squad_normalize

_LEAST_SIMILARITY = 0.2
"""Less similar questions are not compared."""
_OTHER_SUBJECT_SIMILARITY = 0.5
"""From this similarity on, a question about another subject is offered too."""
_TYPE_SIMILARITY = 0.3
"""From this similarity on, a question is of the type of a training question."""
_OUTSIDE_WEIGHT = 0.7
"""Weight of a broader subject against that of a word that the question contains."""
_FORM_BONUS, _FREQUENCY_BONUS = 0.15, 0.02
_SUBJECT_ORDER: Mapping[Relation | None, int] = {"same": 0, "container": 1, "technique": 2, "abnormality": 2, None: 3}
"""Questions about the same subject are offered before others, however many words they share."""
_FORM_TEXT = """
a about an the is are was were do does did can could has have in on of to this that these there it and or with from by
for at as be been any some please image picture scan photo show shown shows see seen look observed patient you me which
what where how why who when many kind type exist existing appear contain main take taken used located locate belong
situated visible would will if s t
这 张 图 片 像 的 是 吗 么 什 有 在 中 哪 里 个 于 为 及 和 与 请 一 了 上 那 呢 怎 多 少 些
"""
FORM_WORDS = frozenset(_FORM_TEXT.split())
"""Words that do not say what a question is about."""
_BADLY_WORDED = re.compile(r"\b(?:the|an?) (?:on|in|at|of|the|an?)\b|\b([a-z]+) \1\b", re.IGNORECASE)
"""An article before a preposition, and a word twice: errors of the datasets, in which no question is offered; others
are corrected (`well_worded`)."""
_NAMES_SIDE = re.compile(r"\b(?:left|right|both)\b|[左右双]")
_FORM = re.compile(r"how many|what colou?r|how|where|which|what|why|who|when")


@dataclass(frozen=True, slots=True)
class TrainingQuestion:
    """A question of the training rows, with what was answered to it."""

    text: str
    """The question, as published."""
    question_type: str
    """Content type of its rows: ``Modality``, ``Plane`` ...; empty where the dataset has none."""
    rows: int
    """Number of training rows that ask it."""
    answers: tuple[str, ...]
    """Its answers, normalized, the commonest first."""


class QuestionBank:
    """Distinct training questions, which are searched by their words."""

    def __init__(self, questions: Sequence[TrainingQuestion]) -> None:
        """`questions` are distinct; their order does not matter."""
        self.questions = tuple(questions)

    @classmethod
    def from_examples(cls, examples: Sequence[Example]) -> Self:
        """The bank of training rows; questions that differ in case and punctuation alone are one."""
        texts: dict[str, Counter[str]] = {}
        types: dict[str, Counter[str]] = {}
        answers: dict[str, Counter[str]] = {}
        for example in examples:
            key = squad_normalize(example.question)
            texts.setdefault(key, Counter())[" ".join(example.question.split())] += 1
            types.setdefault(key, Counter())[example.facts.get("content_type", "")] += 1
            answers.setdefault(key, Counter()).update(squad_normalize(answer) for answer in example.answers[:1])
        return cls(
            [
                TrainingQuestion(
                    texts[key].most_common(1)[0][0],
                    types[key].most_common(1)[0][0],
                    texts[key].total(),
                    tuple(answer for answer, _ in answers[key].most_common()),
                )
                for key in sorted(texts, key=lambda key: (-texts[key].total(), key))
            ]
        )

    @classmethod
    def from_json(cls, rows: Sequence[Sequence[Any]]) -> Self:
        """Read back what `to_json` wrote."""
        return cls([TrainingQuestion(text, kind, rows, tuple(answers)) for text, kind, rows, answers in rows])

    def to_json(self) -> list[list[Any]]:
        """A JSON array per question: text, type, rows, answers."""
        return [[q.text, q.question_type, q.rows, list(q.answers)] for q in self.questions]

    def nearest(self, question: str, limit: int, accept: Callable[[str], bool] | None = None) -> list[str]:
        """Training questions nearest in meaning, in the language of the question, the nearest first, as `well_worded`.

        Questions about the same subject (`subject_relation`) come first. Among them, and among the others, they are
        compared by their words, after `canonical_terms`, where rare words weigh more than common ones; in English by
        the text encoder of the extra ``meaning`` instead, where it is installed. Questions that share neither the
        subject nor most words of content are not offered, and of those with the same content only the commonest.

        Args:
            question: The question, as typed.
            limit: Most questions.
            accept: Whether a training question may be offered; None: all may.
        """
        nearest: list[str] = []
        contents: set[frozenset[str]] = set()
        for place in self._candidates(question):
            entry = self._entries[place]
            if entry.content in contents or entry.is_badly_worded or (accept is not None and not accept(entry.text)):
                continue
            contents.add(entry.content)
            nearest.append(entry.offered)
            if len(nearest) == limit:
                break
        return nearest

    def _candidates(self, question: str) -> list[int]:
        """Places of the questions that may be offered, the nearest first."""
        chinese = is_chinese(question)
        similarity = {place: similarity for similarity, place in self._ranked(question)}
        related = {}
        subject = Subject.of(question)
        for place, entry in enumerate(self._entries):
            if entry.is_chinese == chinese:
                relation = subject.relation_to(entry.subject)
                if relation is not None or similarity.get(place, 0.0) >= _OTHER_SUBJECT_SIMILARITY:
                    related[place] = _SUBJECT_ORDER[relation]
        meaning = None if chinese else meaning_similarities(question, self._texts)
        if meaning is not None:
            similarity = dict(enumerate(meaning))
        return sorted(
            related,
            key=lambda place: (related[place], -similarity.get(place, 0.0), -self.questions[place].rows, place),
        )

    def commonest(self, limit: int, *, chinese: bool, accept: Callable[[str], bool] | None = None) -> list[str]:
        """The questions with most training rows in a language, at most two of each type, as `well_worded`.

        Args:
            limit: Most questions.
            chinese: Whether they are in Chinese.
            accept: Whether a training question may be offered; None: all may.
        """
        questions: list[TrainingQuestion] = []
        offered: dict[str, None] = {}
        for place in self._places_by_rows:
            question, entry = self.questions[place], self._entries[place]
            if entry.is_chinese != chinese or entry.is_badly_worded:
                continue
            of_type = sum(other.question_type == question.question_type for other in questions)
            if of_type < 2 and (accept is None or accept(question.text)):
                questions.append(question)
                offered[entry.offered] = None
            if len(offered) == limit:
                break
        return list(offered)

    def answers_like(self, question: str) -> frozenset[str] | None:
        """Normalized answers to training questions of the same type and form; None where no question is like this."""
        result: frozenset[str] | None = self._answers_like(question)
        return result

    def answers_with(self, answer: str) -> frozenset[str]:
        """Normalized answers to training questions of the types that have this answer too."""
        result: frozenset[str] = self._answers_with(squad_normalize(answer))
        return result

    def disease_answers(self, question: str) -> frozenset[str] | None:
        """Normalized answers to training questions for the same of a disease, of the same organ where there are any.

        None for a question that wants to know nothing of the picture's disease (`disease_question`), and where no
        training question does.
        """
        disease = disease_question(question)
        if disease is None:
            return None
        chinese = is_chinese(question)
        of_organ = self._disease_answers.get((chinese, *disease))
        return of_organ or self._disease_answers.get((chinese, disease.aspect, None))

    def aspect_answers(self, question: str) -> frozenset[str] | None:
        """Normalized answers to training questions in the same language for the same aspect, such as the plane.

        None where what a question asks for is not known (`asked_aspect`), and where no training question asks for it.
        """
        aspect, chinese = asked_aspect(question), is_chinese(question)
        if aspect is None:
            return None
        answers = self._aspect_answers.get((chinese, aspect))
        if aspect == "side" and answers is not None:  # ``Right Lung`` says which lung, as ``Right`` does
            places = self._aspect_answers.get((chinese, "place"), frozenset())
            return answers | {place for place in places if _NAMES_SIDE.search(place)}
        return answers

    def offers(self, question: str) -> bool:
        """Whether a text is a training question or one as `well_worded`."""
        return question in self or question in self._offered

    def __contains__(self, question: object) -> bool:
        """Whether a text is a training question, apart from case and punctuation."""
        return isinstance(question, str) and squad_normalize(question) in self._places

    @cached_property
    def words(self) -> frozenset[str]:
        """All words of the training questions."""
        return frozenset(word for question in self.questions for word in words(question.text))

    @cached_property
    def counted_topics(self) -> frozenset[str]:
        """The organs and findings that training questions count."""
        topics = (counted_topic(question.text) for question in self.questions)
        return frozenset(topic for topic in topics if topic is not None)

    @cached_property
    def existence_nouns(self) -> frozenset[str]:
        """What training questions ask whether there is, other than organs and findings."""
        nouns = (existence_noun(question.text) for question in self.questions)
        return frozenset(noun for noun in nouns if noun is not None)

    @cached_property
    def names_patient_side(self) -> bool:
        """Whether a training question means the patient's left or right, and not that of the picture."""
        return any(patient_side(question.text) is not None for question in self.questions)

    @cached_property
    def names_organ_of_system(self) -> bool:
        """Whether a training question is whether an organ belongs to a system."""
        return any(organ_of_system(question.text) is not None for question in self.questions)

    @cached_property
    def _disease_answers(self) -> Mapping[tuple[bool, str, str | None], frozenset[str]]:
        """Language, aspect and organ, None for all organs together -> answers of the training questions."""
        answers: dict[tuple[bool, str, str | None], set[str]] = {}
        for question in self.questions:
            if disease := disease_question(question.text):
                for organ in (disease.organ, None):
                    key = (is_chinese(question.text), disease.aspect, organ)
                    answers.setdefault(key, set()).update(question.answers)
        return {key: frozenset(of_key) for key, of_key in answers.items()}

    @cached_property
    def _aspect_answers(self) -> Mapping[tuple[bool, Aspect], frozenset[str]]:
        """Language and aspect -> answers of the training questions."""
        answers: dict[tuple[bool, Aspect], set[str]] = {}
        for question in self.questions:
            if (aspect := asked_aspect(question.text)) is not None:
                answers.setdefault((is_chinese(question.text), aspect), set()).update(question.answers)
        return {key: frozenset(of_key) for key, of_key in answers.items()}

    @cached_property
    def _entries(self) -> list[_Entry]:
        rows_of_word: Counter[str] = Counter()
        for question in self.questions:
            rows_of_word.update(dict.fromkeys(words(question.text), question.rows))
        meant = misspellings(rows_of_word)
        return [_Entry.of(q, self._weighted(dict.fromkeys(_content(q.text), 1.0)), meant) for q in self.questions]

    @cached_property
    def _offered(self) -> frozenset[str]:
        return frozenset(entry.offered for entry in self._entries)

    @cached_property
    def _places_by_rows(self) -> list[int]:
        return sorted(range(len(self.questions)), key=lambda place: -self.questions[place].rows)

    @cached_property
    def _places_of_word(self) -> Mapping[str, Sequence[int]]:
        """Word of content -> places of the questions that contain it, in order."""
        places: dict[str, list[int]] = {}
        for place, entry in enumerate(self._entries):
            for word in entry.weights:
                places.setdefault(word, []).append(place)
        return places

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        return tuple(question.text for question in self.questions)

    @cached_property
    def _frequency(self) -> Counter[str]:
        return Counter(word for question in self.questions for word in set(_content(question.text)))

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {squad_normalize(question.text): place for place, question in enumerate(self.questions)}

    @cached_property
    def _answers_like(self) -> Any:
        return lru_cache(maxsize=1 << 10)(self._uncached_answers_like)

    @cached_property
    def _answers_with(self) -> Any:
        return lru_cache(maxsize=1 << 10)(self._uncached_answers_with)

    def _uncached_answers_with(self, answer: str) -> frozenset[str]:
        types = {q.question_type for q in self.questions if answer in q.answers}
        return frozenset(other for q in self.questions if q.question_type in types for other in q.answers)

    def _uncached_answers_like(self, question: str) -> frozenset[str] | None:
        place = self._places.get(squad_normalize(question))
        if place is None:
            ranked = self._ranked(question)
            if not ranked or ranked[0][0] < _TYPE_SIMILARITY:
                return None
            place = ranked[0][1]
        model = self.questions[place]
        form, chinese = _form(model.text), is_chinese(model.text)
        alike = [
            other
            for other, entry in zip(self.questions, self._entries, strict=True)
            if other.question_type == model.question_type and entry.is_chinese == chinese and entry.form == form
        ]
        return frozenset(answer for other in alike for answer in other.answers)

    def _ranked(self, question: str) -> list[tuple[float, int]]:
        """Similarity and place of the questions that share a word of content, the most similar first."""
        canonical = canonical_terms(question, self.words)
        present = dict.fromkeys(_content(canonical.text), 1.0)
        for term in canonical.outside:
            for word in words(term.target):
                present[word] = max(present.get(word, 0.0), _OUTSIDE_WEIGHT)
        weights = self._weighted({word: weight for word, weight in present.items() if word in self._frequency})
        length = math.sqrt(sum(weight**2 for weight in weights.values()))
        form, chinese = _form(question), is_chinese(question)
        products: dict[int, float] = {}
        for word, weight in weights.items():
            for place in self._places_of_word.get(word, ()):
                products[place] = products.get(place, 0.0) + weight * self._entries[place].weights[word]
        ranked = []
        for place, product in products.items():
            entry = self._entries[place]
            if not product or entry.is_chinese != chinese:
                continue
            similarity = round(product / (length * entry.length), 9)  # equal for equal words, in whatever order
            if similarity >= _LEAST_SIMILARITY:
                ranked.append((similarity + _FORM_BONUS * (form == entry.form) + entry.frequency_bonus, place))
        return sorted(ranked, key=lambda pair: (-pair[0], pair[1]))

    def _weighted(self, present: Mapping[str, float]) -> Mapping[str, float]:
        """Words with their weights, by how few of the questions have them."""
        total = len(self.questions) + 1
        return {word: weight * math.log(total / (1 + self._frequency[word])) for word, weight in present.items()}


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a search needs of a training question, computed once."""

    text: str
    offered: str
    weights: Mapping[str, float]
    length: float
    content: frozenset[str]
    form: str
    is_chinese: bool
    is_badly_worded: bool
    frequency_bonus: float
    subject: Subject

    @classmethod
    def of(cls, question: TrainingQuestion, weights: Mapping[str, float], meant: Mapping[str, str]) -> Self:
        chinese = is_chinese(question.text)
        return cls(
            text=question.text,
            offered=question.text if chinese else well_worded(question.text, meant),
            weights=weights,
            length=math.sqrt(sum(weight**2 for weight in weights.values())),
            content=frozenset(weights),
            form=_form(question.text),
            is_chinese=chinese,
            is_badly_worded=_BADLY_WORDED.search(question.text) is not None,
            frequency_bonus=_FREQUENCY_BONUS * math.log(question.rows),
            subject=Subject.of(question.text),
        )


def _content(question: str) -> list[str]:
    """The words that say what a question is about, in the singular."""
    return [_stem(word) for word in words(question) if word not in FORM_WORDS and word.isalnum()]


def _stem(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "is", "us")) and len(word) > 3 else word


@lru_cache(maxsize=1 << 12)
def _form(question: str) -> str:
    """What kind of answer a question asks for: ``yes or no``, ``where``, ``how many`` ..."""
    if asks_yes_or_no(question):
        return "yes or no"
    if is_chinese(question):
        return next((mark for mark in ("几", "多少", "哪", "怎", "如何", "什么") if mark in question), "")
    match = _FORM.search(question.lower())
    return match.group() if match else ""
