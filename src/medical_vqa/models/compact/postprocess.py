"""From questions to word indices and from probabilities to predictions, in NumPy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medical_vqa.errors import ModelError
from medical_vqa.models.base import Query, check_question, distinct
from medical_vqa.models.compact.question_understanding import (
    UNLISTED_ANSWERS,
    ImageTypes,
    QuestionParser,
    choices_in,
)
from medical_vqa.models.questions.claims import FINDING, is_yes
from medical_vqa.models.questions.disease_knowledge import is_knowledge
from medical_vqa.models.questions.form import form_reason
from medical_vqa.models.questions.reasons import Reason
from medical_vqa.models.vocabulary import AnswerVocabulary
from medical_vqa.schema.records import Prediction
from medical_vqa.text import is_chinese

if TYPE_CHECKING:
    from medical_vqa.models.base import Visual
    from medical_vqa.models.questions.bank import QuestionBank


def encode_questions(questions: Sequence[str], parser: QuestionParser, limit: int) -> NDArray[np.int64]:
    """Word indices (N, L) of the first `limit` words, padded with 0 to the longest question of the batch."""
    encoded = {question: parser.encode(check_question(question), limit=limit) for question in dict.fromkeys(questions)}
    rows = [encoded[question] for question in questions]
    length = max(map(len, rows))
    return np.array([row + [0] * (length - len(row)) for row in rows], np.int64)


def rank_answers(
    queries: Sequence[Query],
    probabilities: NDArray[np.floating[Any]],
    answers: AnswerVocabulary,
    alternatives: int,
    bank: QuestionBank | None = None,
) -> list[Prediction]:
    """The most probable answer to each question, with the next best ones.

    An English question gets an English answer. A question that offers choices gets one of them, or an answer that is no
    entity at all (``both``). A question for the treatment, cause, symptoms or prevention of the disease in the picture
    gets one that training rows gave to such a question.

    Args:
        queries: The questions.
        probabilities: Probability of each answer (N, answers).
        answers: The answers.
        alternatives: How many of the next best answers a prediction carries.
        bank: The training questions with their answers; None where they are not known.
    """
    questions = [query.question for query in queries]
    eligible = _in_readable_language(questions, answers) & _among_choices(questions, answers)
    probabilities = probabilities * (eligible & _about_disease(questions, answers, bank))
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, : alternatives + 1]
    highest = np.minimum(np.take_along_axis(probabilities, best, axis=1), 1.0)
    predictions = []
    for query, row, indices in zip(queries, highest.tolist(), best.tolist(), strict=True):
        ranked = [(answers.answers[index], probability) for index, probability in zip(indices, row, strict=True)]
        (answer, confidence), *others = ranked
        predictions.append(Prediction(query.id, answer, answer, confidence, tuple(others)))
    return predictions


def _in_readable_language(questions: Sequence[str], answers: AnswerVocabulary) -> NDArray[np.bool_]:
    """Which answers (N, answers) the user can read; a Chinese question may have a Latin answer ("MRI")."""
    chinese_answers = answers.chinese
    if chinese_answers.all():
        return np.ones((len(questions), len(answers)), bool)
    chinese_questions = np.array([is_chinese(question) for question in questions])
    readable: NDArray[np.bool_] = chinese_questions[:, None] | ~chinese_answers
    return readable


def _among_choices(questions: Sequence[str], answers: AnswerVocabulary) -> NDArray[np.bool_]:
    """Which answers (N, answers) are among the choices of the question; all of them where it offers none."""
    eligible = np.ones((len(questions), len(answers)), bool)
    choices_of = {question: choices_in(question, answers.normalized) for question in set(questions)}
    for row, question in zip(eligible, questions, strict=True):
        if choices := choices_of[question]:
            row[:] = [name in choices or name in UNLISTED_ANSWERS for name in answers.normalized]
    return eligible


def _about_disease(questions: Sequence[str], answers: AnswerVocabulary, bank: QuestionBank | None) -> NDArray[np.bool_]:
    """Which answers (N, answers) training gave to questions for the same of a disease; all for other questions."""
    eligible = np.ones((len(questions), len(answers)), bool)
    if bank is None:
        return eligible
    answers_of = {question: bank.disease_answers(question) for question in set(questions)}
    for row, question in zip(eligible, questions, strict=True):
        if disease_answers := answers_of[question]:
            row[:] = [name in disease_answers for name in answers.normalized]
    return eligible


def question_reason(question: str, parser: QuestionParser) -> Reason | None:
    """Why a question is not understood: a language, form or words that training never used; None where it is."""
    if parser.is_foreign(question):
        return Reason("foreign_language", languages=parser.languages())
    return form_reason(question) or words_reason(question, parser)


def absent_entity_reason(
    query: Query,
    prediction: Prediction,
    parser: QuestionParser,
    image_types: ImageTypes,
    image_type_of: Callable[[Query], str],
) -> Reason | None:
    """Why an answer means nothing although the question is understood: an entity that such a picture does not show.

    An organ that no training picture of the image's type shows may be said to be absent, and not to be present.

    Args:
        query: The question and its image.
        prediction: The answer to it.
        parser: Knows the training questions' words and the entities.
        image_types: Which entities the training rows mention in which type of image.
        image_type_of: The type of a query's image.
    """
    question = parser.canonical(parser.spelled(query.question))
    entities = parser.premises(question)
    if not entities and is_yes(prediction.answer) and not is_knowledge(question):
        entities = parser.entities_in(question)
    if entities and image_types.entities:
        image_type = image_type_of(query)
        unfamiliar = next((entity for entity in entities if image_types.is_unfamiliar(entity, image_type)), None)
        if unfamiliar is not None:
            kind = "finding" if FINDING.search(unfamiliar) else "organ"
            return Reason(f"{kind}_not_in_image_type", entity=unfamiliar)
    return None


def words_reason(question: str, parser: QuestionParser) -> Reason | None:
    """Why the words of a question cannot be answered, all of them named; None where all are known."""
    unknown = parser.unknown_words(question)
    outside = [term.spelling for term in parser.terms_outside(question)]
    if unknown and outside:
        return Reason("unknown_words_and_terms", words=_listed(unknown), terms=_listed(outside))
    if unknown:
        return Reason("unknown_word" if len(unknown) == 1 else "unknown_words", words=_listed(unknown))
    if outside:
        return Reason("untrained_term" if len(outside) == 1 else "untrained_terms", terms=_listed(outside))
    return None


_LONGEST_NAME, _MOST_NAMES = 40, 8
"""Characters of a word, and words, that a reason names."""


def _listed(names: Sequence[str]) -> str:
    """Names in quotes: ``'a', 'b' and 'c'``."""
    quoted = [repr(name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…") for name in names[:_MOST_NAMES]]
    return " and ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]]))


def with_features(
    queries: Sequence[Query], encode: Callable[[Sequence[Visual]], list[Mapping[str, Any]]]
) -> list[Query]:
    """The queries with features in place of pictures, every image among them encoded once."""
    visuals, image_of = distinct(queries)
    features = encode(visuals)
    return [dataclasses.replace(q, visual=features[image]) for q, image in zip(queries, image_of, strict=True)]


def stack_pictures(visuals: Sequence[Visual]) -> NDArray[np.uint8]:
    """Prepared pictures as one array (B, H, W, C); raises `ModelError` where they are features, or differ in size."""
    pictures = [v for v in visuals if isinstance(v, np.ndarray)]
    if len(pictures) != len(visuals):
        raise ModelError("the compact model trains on pictures and got cached features; set no feature cache for it")
    shapes = {picture.shape for picture in pictures}
    if len(shapes) > 1:
        raise ModelError(
            f"pictures of one batch differ in size ({sorted(shapes)[:2]}); prepare them with the model's own spec"
        )
    return np.stack(pictures)
