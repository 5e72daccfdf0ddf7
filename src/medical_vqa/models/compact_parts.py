"""What the compact network and its exported graphs share, without torch: settings file, questions, predictions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medical_vqa.errors import ModelError
from medical_vqa.models.model import Decoding, Query, check_question
from medical_vqa.models.understanding import Reader
from medical_vqa.models.vocabulary import AnswerVocabulary, WordVocabulary
from medical_vqa.records import Prediction

if TYPE_CHECKING:
    from medical_vqa.models.model import Visual

    Answer = Callable[[Sequence[Query], Decoding], list[Prediction]]

SETTINGS = "compact.json"
_SURE_OF_ABSENCE = 0.7  # chosen on validation images: see docs/log.md


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write ``compact.json``: picture, sizes, words, answers."""
    (folder / SETTINGS).write_text(json.dumps(settings, ensure_ascii=False, indent=1), encoding="utf-8")


def read_settings(folder: Path) -> dict[str, Any]:
    """Read back what `write_settings` wrote; raises `OSError` or `ValueError` where it is missing or damaged."""
    settings: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    return settings


def encode_questions(questions: Sequence[str], reader: Reader, limit: int) -> NDArray[np.int64]:
    """Word indices (N, L) of the first `limit` words, padded with 0 to the longest question of the batch."""
    rows = [reader.encode(check_question(question), limit=limit) for question in questions]
    length = max(map(len, rows))
    return np.array([row + [0] * (length - len(row)) for row in rows], np.int64)


def ranked(
    queries: Sequence[Query], shares: NDArray[np.floating[Any]], answers: AnswerVocabulary, alternatives: int
) -> list[Prediction]:
    """The most probable answers by their shares (N, answers), the best first."""
    best = np.argsort(-shares, axis=1, kind="stable")[:, : alternatives + 1]
    return [
        _prediction(query.id, [(answers.answers[i], min(float(row[i]), 1.0)) for i in top])
        for query, row, top in zip(queries, shares, best, strict=True)
    ]


def _prediction(id_: str, found: Sequence[tuple[str, float]]) -> Prediction:
    (answer, confidence), *rest = found
    return Prediction(id_, answer, answer, confidence, tuple(rest))


def doubt_about(query: Query, reader: Reader, known: WordVocabulary, answer: Answer) -> str | None:
    """Why an answer means nothing: a language or words that training never used, or a thing that is not there."""
    if reader.foreign(query.question):
        return f"I read {_languages(known)} only; ask again in that."
    if unknown := reader.unknown(query.question):
        return f"I do not know the word {unknown[0]!r}; ask again without it."
    thing = reader.presupposed(query.question)
    if thing is not None and _absent(query, thing, answer):
        return f"I cannot tell from this kind of image: I see no {thing} in it."
    return None


def _languages(known: WordVocabulary) -> str:
    return "English and Chinese" if any("\u4e00" <= word[0] <= "\u9fff" for word in known.known) else "English"


def _absent(query: Query, thing: str, answer: Answer) -> bool:
    """Whether the model itself, asked for it, says no."""
    asked = dataclasses.replace(query, question=f"Does the picture contain {thing}?")
    said = answer([asked], Decoding(alternatives=0))[0]
    return said.answer.lower() == "no" and (said.confidence or 0.0) > _SURE_OF_ABSENCE


def looks_over(shares: NDArray[np.floating[Any]], cells: int) -> list[NDArray[np.float32]]:
    """Shares of attention (N, T) as maps (cells, cells) that sum to 1."""
    whole = shares / shares.sum(-1, keepdims=True)
    return [row.reshape(cells, cells).astype(np.float32) for row in whole]


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
