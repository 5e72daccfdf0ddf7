"""What the compact network and its exported graphs share, without torch: questions, predictions, attention maps."""

from __future__ import annotations

import dataclasses
import math
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
from medical_vqa.models.questions.form import form_reason
from medical_vqa.models.vocabulary import AnswerVocabulary
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Prediction
from medical_vqa.text import is_chinese

if TYPE_CHECKING:
    from medical_vqa.models.base import Visual

    Answer = Callable[[Sequence[Query], Decoding], list[Prediction]]


def encode_questions(questions: Sequence[str], parser: QuestionParser, limit: int) -> NDArray[np.int64]:
    """Word indices (N, L) of the first `limit` words, padded with 0 to the longest question of the batch."""
    rows = [parser.encode(check_question(question), limit=limit) for question in questions]
    length = max(map(len, rows))
    return np.array([row + [0] * (length - len(row)) for row in rows], np.int64)


def ranked(
    queries: Sequence[Query], shares: NDArray[np.floating[Any]], answers: AnswerVocabulary, alternatives: int
) -> list[Prediction]:
    """The most probable answers by their shares (N, answers), the best first; in English to an English question.

    A question that offers a choice gets what it offers, or an answer that is no thing at all (``both``).
    """
    questions = [query.question for query in queries]
    shares = shares * _readable(questions, answers.answers) * _eligible(questions, answers)
    best = np.argsort(-shares, axis=1, kind="stable")[:, : alternatives + 1]
    return [
        _prediction(query.id, [(answers.answers[i], min(float(row[i]), 1.0)) for i in top])
        for query, row, top in zip(queries, shares, best, strict=True)
    ]


def _readable(questions: Sequence[str], answers: Sequence[str]) -> NDArray[np.bool_]:
    """Which answers (N, answers) are of use to who asked; a Chinese question may have a Latin one ("MRI")."""
    chinese = np.array([is_chinese(answer) for answer in answers])
    if chinese.all():
        return np.ones((len(questions), len(answers)), bool)
    asked = np.array([is_chinese(question) for question in questions])
    readable: NDArray[np.bool_] = asked[:, None] | ~chinese
    return readable


def _eligible(questions: Sequence[str], answers: AnswerVocabulary) -> NDArray[np.bool_]:
    """Which answers (N, answers) are among what the question offers, all of them where it offers nothing."""
    eligible = np.ones((len(questions), len(answers)), bool)
    for row, question in zip(eligible, questions, strict=True):
        if choices := choices_in(question, answers.normalized):
            row[:] = [name in choices or name in UNLISTED_ANSWERS for name in answers.normalized]
    return eligible


def _prediction(id_: str, found: Sequence[tuple[str, float]]) -> Prediction:
    (answer, confidence), *rest = found
    return Prediction(id_, answer, answer, confidence, tuple(rest))


def scope_abstention_reason(
    query: Query, parser: QuestionParser, image_types: ImageTypes, answer: Answer
) -> str | None:
    """Why an answer means nothing: a language, form or words that training never used, or an entity that is absent."""
    if parser.is_foreign(query.question):
        return f"I read {parser.languages()} only; ask again in that."
    if (reason := form_reason(query.question)) is not None:
        return reason
    if (reason := words_reason(query.question, parser)) is not None:
        return reason
    thing = parser.presupposed_entity(parser.canonical(query.question))
    if thing is not None and image_types.entities and _unfamiliar(query, thing, image_types, answer):
        return f"I cannot tell from this kind of image: nobody showed me the {thing} in one like it."
    return None


def words_reason(question: str, parser: QuestionParser) -> str | None:
    """Why the words of a question cannot be answered, all of them named; None where all are known."""
    unknown = parser.unknown_words(question)
    outside = [term.spelling for term in parser.terms_outside(question)]
    it, words_ = ("it", "word") if len(unknown) + len(outside) == 1 else ("them", "words")
    if unknown and outside:
        return (
            f"I do not know the {'word' if len(unknown) == 1 else 'words'} {_listed(unknown)}, and none of my training "
            f"questions is about {_listed(outside)}; ask again without {it}."
        )
    if unknown:
        return f"I do not know the {words_} {_listed(unknown)}; ask again without {it}."
    if outside:
        return f"None of my training questions is about {_listed(outside)}; ask again without {it}."
    return None


def _listed(names: Sequence[str]) -> str:
    """Names in quotes: ``'a', 'b' and 'c'``."""
    quoted = [repr(name) for name in names]
    return " and ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]]))


def _unfamiliar(query: Query, entity: str, image_types: ImageTypes, answer: Answer) -> bool:
    probe = dataclasses.replace(query, question=image_types.question)
    return image_types.is_unfamiliar(entity, answer([probe], Decoding(alternatives=0))[0].answer)


def encoded_once(
    queries: Sequence[Query], encode: Callable[[Sequence[Visual]], list[Mapping[str, Any]]]
) -> list[Query]:
    """The queries with features in place of pictures, every image among them encoded once."""
    visuals, image_of = distinct(queries)
    features = encode(visuals)
    return [dataclasses.replace(q, visual=features[image]) for q, image in zip(queries, image_of, strict=True)]


def looks_at(
    queries: Sequence[Query],
    answers: Sequence[Prediction],
    attended: Sequence[NDArray[np.float32]],
    found: Sequence[NDArray[Any] | None],
    parser: QuestionParser,
    regions: Sequence[str],
) -> list[NDArray[np.float32]]:
    """Maps that sum to 1: what was found of the thing that a question or its answer names, otherwise the attention.

    Args:
        queries: What was asked.
        answers: What was answered.
        attended: The attention of each question's words.
        found: Shares of each kind of region in each cell (regions, rows, columns); None where none is learned.
        parser: Knows the names of entities.
        regions: Names of the regions.
    """
    things = [
        parser.entity_in_any_language(q.question) or parser.entity_in_any_language(a.answer)
        for q, a in zip(queries, answers, strict=True)
    ]
    maps = [
        _found(shares, _kinds_of(thing, regions), otherwise)
        for shares, thing, otherwise in zip(found, things, attended, strict=True)
    ]
    return [(shown / shown.sum()).astype(np.float32) for shown in maps]


def _kinds_of(thing: str | None, regions: Sequence[str]) -> list[int]:
    """Places of the kinds of region that are the thing, on either side, or else of those that speak of it."""
    if thing is None:
        return []
    exactly = [n for n, name in enumerate(regions) if name.lower().endswith(thing)]
    return exactly or [n for n, name in enumerate(regions) if thing in name.lower()]


def _found(shares: NDArray[Any] | None, kinds: Sequence[int], otherwise: NDArray[np.float32]) -> NDArray[Any]:
    if shares is None or not kinds:
        return otherwise
    most: NDArray[Any] = shares[list(kinds)].astype(np.float32).max(0)
    return most + 1e-6  # so that a map of nothing is even


def maps_of(
    shares: NDArray[np.floating[Any]], frames: Sequence[NDArray[np.floating[Any]] | None]
) -> list[NDArray[np.float32]]:
    """Shares of attention (N, T) as square maps of the whole picture that sum to 1.

    `frames` are the affine maps (2, 3) from what was seen to the picture; None where all of it was seen.
    """
    cells = math.isqrt(shares.shape[1])
    maps = [
        row if frame is None else _whole(row, frame)
        for row, frame in zip(shares.reshape(-1, cells, cells), frames, strict=True)
    ]
    return [(shown / shown.sum()).astype(np.float32) for shown in maps]


def _whole(shown: NDArray[Any], frame: NDArray[Any]) -> NDArray[Any]:
    """A map of what was seen -> one of the whole picture, of the same number of cells, next to nothing outside."""
    down, across = (_read_at(length, *frame[axis, [axis, 2]]) for length, axis in zip(shown.shape, (1, 0), strict=True))
    whole: NDArray[Any] = down @ shown @ across.T + 1e-9
    return whole


def _read_at(length: int, half: float, middle: float) -> NDArray[np.float64]:
    """Weights (length, length) that read `length` cells linearly where those of the whole picture lie among them."""
    centers = (np.arange(length) + 0.5) / length * 2 - 1
    places = ((centers - middle) / half + 1) / 2 * length - 0.5
    weights: NDArray[np.float64] = np.clip(1 - np.abs(places[:, None] - np.arange(length)), 0, None)
    return weights


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
