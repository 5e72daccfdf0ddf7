"""Model and questions in, ``predictions.jsonl`` out; cut short, it goes on where it stopped.

Beside ``predictions-validation.jsonl`` lies its card, ``predictions-validation.card.json``: which model answered which
rows, so that `score` and `report` need no other word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from medical_vqa.errors import DataError
from medical_vqa.models.base import Query, VqaModel
from medical_vqa.runtime import ProgressCallback
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.prediction_card import PredictionCard, card_path, read_prediction_card, write_prediction_card
from medical_vqa.schema.records import Prediction, read_predictions


class QuerySource(Protocol):
    """Queries that are made when they are looked at, with what must be known of all of them beforehand."""

    @property
    def ids(self) -> Sequence[str]:
        """The id of every query."""

    @property
    def images(self) -> Sequence[str]:
        """The image of every query: what tells two images apart."""

    def __getitem__(self, index: int) -> Query:
        """One query, with its picture."""


def predict(
    model: VqaModel,
    queries: QuerySource,
    *,
    decoding: Decoding,
    path: Path,
    card: PredictionCard,
    batch_size: int,
    progress: ProgressCallback | None = None,
) -> int:
    """Answer every query into `path`, which appears once it is complete; returns how many were answered just now.

    Answers of an interrupted run are kept when its card is the same, and dropped otherwise.
    """
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = _kept(partial, card)
    write_prediction_card(partial, card)
    partial.write_text("".join(map(_line, kept)), encoding="utf-8")  # without a line that was cut in the middle
    answered = {prediction.id for prediction in kept}
    left = [index for index, id_ in enumerate(queries.ids) if id_ not in answered]
    done = len(queries.ids) - len(left)
    with partial.open("a", encoding="utf-8") as out:
        for batch in image_batches(queries.images, left, batch_size):
            out.writelines(map(_line, model.answer([queries[index] for index in batch], decoding)))
            out.flush()
            done += len(batch)
            if progress is not None:
                progress(done, len(queries.ids))
    card_path(partial).replace(card_path(path))
    partial.replace(path)
    return len(left)


def answer_all(model: VqaModel, queries: QuerySource, decoding: Decoding, *, batch_size: int) -> list[Prediction]:
    """Answers to every query, in order, kept in memory: for validation during training."""
    rows = range(len(queries.ids))
    batches = list(image_batches(queries.images, rows, batch_size))
    answers = [a for batch in batches for a in model.answer([queries[index] for index in batch], decoding)]
    places = [index for batch in batches for index in batch]
    return [answer for _, answer in sorted(zip(places, answers, strict=True), key=lambda pair: pair[0])]


def image_batches(images: Sequence[str], rows: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Batches of row numbers in which the questions of an image stand together, so that it is encoded once.

    A batch holds whole images and ends with the one that fills it; an image with more than `batch_size` questions
    is spread over several.
    """
    by_image: dict[str, list[int]] = {}
    for row in rows:
        by_image.setdefault(images[row], []).append(row)
    batch: list[int] = []
    for group in by_image.values():
        for start in range(0, len(group), batch_size):
            piece = group[start : start + batch_size]
            if batch and len(batch) + len(piece) > batch_size:
                yield batch
                batch = []
            batch = batch + piece
    if batch:
        yield batch


def _kept(partial: Path, card: PredictionCard) -> list[Prediction]:
    """What an interrupted run of the same model on the same rows has answered."""
    try:
        same = partial.is_file() and read_prediction_card(partial) == card
    except DataError:
        same = False
    if not same:
        return []
    text = partial.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    partial.write_text(whole, encoding="utf-8")
    return read_predictions(partial)


def _line(prediction: Prediction) -> str:
    return json.dumps(prediction.to_json(), ensure_ascii=False) + "\n"
