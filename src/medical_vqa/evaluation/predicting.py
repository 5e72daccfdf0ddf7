"""Queries answered by a model into ``predictions.jsonl``; an interrupted run resumes.

Next to ``predictions-validation.jsonl`` is its card, ``predictions-validation.card.json``: which model answered which
rows, so that `score` and `report` need no other input.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from medical_vqa.errors import DataError, ModelError
from medical_vqa.io import atomic_write, received, remove_half_line
from medical_vqa.models.base import Query, VqaModel
from medical_vqa.runtime import ProgressCallback
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.prediction_card import PredictionCard, card_path, read_prediction_card, write_prediction_card
from medical_vqa.schema.records import Prediction, read_predictions


class QuerySource(Protocol):
    """Queries that are built on access, with the ids and images of all of them known beforehand."""

    @property
    def ids(self) -> Sequence[str]:
        """The id of every query."""

    @property
    def images(self) -> Sequence[str]:
        """The image of every query, in a form that distinguishes images."""

    def __getitem__(self, index: int) -> Query:
        """One query, with its image."""


class Answering(Protocol):
    """What answers queries: a `VqaModel`, or one with guards."""

    def answer_batches(self, batches: Iterable[Sequence[Query]], decoding: Decoding) -> Iterator[Prediction]:
        """Predictions for batches of queries, in any order."""


def predict(
    model: Answering,
    queries: QuerySource,
    *,
    decoding: Decoding,
    path: Path,
    card: PredictionCard,
    batch_size: int,
    progress: ProgressCallback | None = None,
) -> int:
    """Answer every query into a file, which appears once it is complete, in the order of the queries.

    Answers of an interrupted run are reused if its card is the same, and dropped otherwise.

    Args:
        model: The model.
        queries: The queries.
        decoding: How answers are generated.
        path: The predictions file.
        card: Its card.
        batch_size: Number of queries that are answered at once.
        progress: Called with the number of answered queries and of all queries.

    Returns:
        The number of queries that were answered in this run.

    Raises:
        ModelError: The model gives something other than one prediction for each query.
    """
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    previous = _resumable(partial, card)
    write_prediction_card(partial, card)
    partial.write_text("".join(map(_line, previous)), encoding="utf-8")  # without an incomplete last line
    answered = {prediction.id for prediction in previous}
    remaining = [index for index, id_ in enumerate(queries.ids) if id_ not in answered]
    unanswered = {queries.ids[index] for index in remaining}
    done = len(queries.ids) - len(remaining)
    with partial.open("a", encoding="utf-8") as file:
        batches = image_batches(queries.images, remaining, batch_size)
        loaded = ([queries[index] for index in batch] for batch in batches)
        for prediction in model.answer_batches(loaded, decoding):
            if not isinstance(prediction, Prediction) or prediction.id not in unanswered:
                raise ModelError(
                    f"the model gives {received(getattr(prediction, 'id', prediction))} for an answer, expected one "
                    "Prediction for each query, with its id: correct the answer() of its class"
                )
            unanswered.remove(prediction.id)
            file.write(_line(prediction))
            file.flush()
            done += 1
            if progress is not None:
                progress(done, len(queries.ids))
    if unanswered:
        raise ModelError(
            f"the model gives no answer to {len(unanswered):,} of {len(queries.ids):,} queries, such as "
            f"{min(unanswered)}; expected one Prediction for each: correct the answer() of its class"
        )
    written = read_predictions(partial)
    if [prediction.id for prediction in written] != list(queries.ids):  # batches are of images, in any order
        position = {id_: number for number, id_ in enumerate(queries.ids)}
        written.sort(key=lambda prediction: position[prediction.id])
        atomic_write(partial, "".join(map(_line, written)))
    card_path(partial).replace(card_path(path))
    partial.replace(path)
    return len(remaining)


def answer_all(
    model: VqaModel, queries: QuerySource, decoding: Decoding, *, batch_size: int, part: tuple[int, int] = (0, 1)
) -> list[Prediction]:
    """Answers to every query, in order and in memory: for validation during training.

    Args:
        model: The model.
        queries: The queries.
        decoding: How answers are generated.
        batch_size: Number of queries that are answered at once.
        part: Number of a process and of all processes; the batches of that process are answered.
    """
    answers: dict[int, Prediction] = {}
    process, processes = part
    for batch in list(image_batches(queries.images, range(len(queries.ids)), batch_size))[process::processes]:
        answers.update(zip(batch, model.answer([queries[index] for index in batch], decoding), strict=True))
    return [answers[index] for index in sorted(answers)]


def image_batches(images: Sequence[str], rows: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Batches of row numbers in which the questions of an image are together, so that it is encoded once.

    A batch holds whole images; an image with more than `batch_size` questions is spread over several.

    Args:
        images: The image of every row.
        rows: Numbers of the rows to put into batches.
        batch_size: The largest number of rows of a batch.
    """
    by_image: dict[str, list[int]] = {}
    for row in rows:
        by_image.setdefault(images[row], []).append(row)
    batch: list[int] = []
    for group in by_image.values():
        for start in range(0, len(group), batch_size):
            questions = group[start : start + batch_size]
            if batch and len(batch) + len(questions) > batch_size:
                yield batch
                batch = []
            batch = batch + questions
    if batch:
        yield batch


def _resumable(partial: Path, card: PredictionCard) -> list[Prediction]:
    """The answers of an interrupted run of the same model on the same rows."""
    try:
        same = partial.is_file() and read_prediction_card(partial) == card
    except DataError:
        same = False
    if not same:
        return []
    remove_half_line(partial)
    return read_predictions(partial)


def _line(prediction: Prediction) -> str:
    return json.dumps(prediction.to_json(), ensure_ascii=False) + "\n"
