"""Answer every question of a split with a loaded model, local or remote."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medical_vqa.data.imaging.picture_statistics import PictureContext, PictureStatistics
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.errors import ConfigError, DataError
from medical_vqa.io import describe_disk_errors
from medical_vqa.pipelines.queries import answer_coverage, queries
from medical_vqa.pipelines.runs import require_outside_dataset
from medical_vqa.pipelines.usage_record import UsageRecord
from medical_vqa.schema.records import Example, GuardRecord, Prediction, Split, read_predictions
from medical_vqa.schema.selection import Selection

if TYPE_CHECKING:
    from medical_vqa.models.base import Query
    from medical_vqa.models.remote.usage import Usage
    from medical_vqa.pipelines.load import LoadedModel
    from medical_vqa.runtime import ProgressCallback
    from medical_vqa.schema.bundle_card import Decoding


@dataclass(frozen=True, slots=True)
class Predictions:
    """A written predictions file; every function that takes the path of one takes this too."""

    path: Path
    """The file, ``predictions-SPLIT.jsonl``; its card is in the same folder."""
    split: Split
    """The split that it answers."""
    coverage: float | None = None
    """Fraction of the rows whose answer is on the model's closed list; None for models that write answers."""
    usage: Usage | None = None
    """What a remote model spent on this file, interrupted runs included; None for a local model."""
    price: tuple[float, float] | None = None
    """Cost per million tokens in and out, where ``models.yaml`` has it."""

    def __fspath__(self) -> str:
        return str(self.path)

    def read(self) -> list[Prediction]:
        """The predictions, in the order of the split's rows."""
        return read_predictions(self.path)


def predict(
    loaded: LoadedModel,
    *,
    split: Split,
    out: Path | None = None,
    selection: Selection | None = None,
    shuffle_images: bool = False,
    guards: bool = False,
    progress: ProgressCallback | None = None,
) -> Predictions:
    """Answer every question of a split; an interrupted run resumes.

    Args:
        loaded: The model.
        split: The split to answer.
        out: File to write; by default in the run folder of the model.
        selection: Rows to answer; by default those of the dataset that the model was trained on.
        shuffle_images: Whether to ask every question about another row's image. What is right then owes nothing to the
            image, and is a baseline of this very model.
        guards: Whether every prediction also carries what the guards decide about it. The answers stay the model's own,
            so that no score changes.
        progress: Receives the number of answers and the total.

    Raises:
        ConfigError: The model names no dataset and no `selection` is passed.
        DataError: The dataset is not prepared, or has no such rows.
        ModelError: A remote model cannot be reached; answers so far are kept.
    """
    from medical_vqa.evaluation.predicting import predict as write_predictions
    from medical_vqa.schema.prediction_card import AnsweringModel, PredictionCard

    card = loaded.card
    if selection is None:
        if card.data is None:
            raise ConfigError(f"{card.name} names no dataset of its own; pass one (--dataset) to ask about")
        selection = card.data.selection
    selected = SelectedDataset.open(selection)
    path = out or loaded.output / f"{'shuffled' if shuffle_images else 'predictions'}-{split}.jsonl"
    require_outside_dataset(path, selected.dataset.folder)
    rows = selected.rows(split)
    coverage = answer_coverage(loaded.model, rows)
    prediction_card = PredictionCard(
        model=AnsweringModel.of_bundle(card, loaded.bundle.resolve() if loaded.bundle else None),
        selection=selected.selection,
        split=split,
        manifest=selected.manifest.digest,
        answer_coverage=coverage,
        shuffled_images=shuffle_images,
        guards=guards,
        calibration=card.calibration,
    )
    with describe_disk_errors(path.parent, 0):
        path.parent.mkdir(parents=True, exist_ok=True)
    questions = queries(selected, rows, loaded.model)
    if shuffle_images:
        questions.ask_about(other_images(questions.all_images))
    record = UsageRecord(path, loaded.usage)
    try:
        write_predictions(
            GuardedAnswers(loaded, selected, rows) if guards else loaded.model,
            questions,
            decoding=card.decoding,
            path=path,
            card=prediction_card,
            batch_size=loaded.batch_size,
            progress=record.watched(progress),
        )
    finally:
        spent = record.write()
    return Predictions(path, split, coverage, spent, loaded.price)


class GuardedAnswers:
    """Answers as the model gives them, each with the decision of the guards."""

    def __init__(self, loaded: LoadedModel, data: SelectedDataset, rows: Sequence[Example]) -> None:
        """Answer about images of a dataset; `rows` are those that name them."""
        self._guards = loaded.guards
        self._images = data.dataset.images
        self._ids = {self._images.digest(row.image_id): row.image_id for row in rows}

    def answer_batches(self, batches: Iterable[Sequence[Query]], decoding: Decoding) -> Iterator[Prediction]:
        """Predictions for batches of queries, in order; raises what the model raises."""
        for batch in batches:
            yield from self.answer(batch, decoding)

    def answer(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:
        """One prediction per query, in order; raises what the model raises."""
        contexts = {image: self._context(image) for image in dict.fromkeys(query.image for query in queries)}
        predictions = []
        for guarded in self._guards.answer(queries, contexts, suggest=False):
            own = guarded.raw or guarded.prediction
            record = GuardRecord(
                withheld=guarded.abstention.abstained,
                reason_code=guarded.abstention.code,
                source=guarded.source,
                image_dependence=round(guarded.dependence.score, 4) if guarded.dependence else None,
            )
            alternatives = own.alternatives[: decoding.alternatives]
            predictions.append(dataclasses.replace(own, alternatives=alternatives, guards=record))
        return predictions

    def _context(self, image: str) -> PictureContext:
        if image not in self._ids:
            return PictureContext()
        pixels = np.asarray(self._images.load(self._ids[image]))
        return PictureContext(PictureStatistics.of(pixels.reshape(*pixels.shape[:2], -1)))


def other_images(images: Sequence[str], seed: int = 0) -> dict[str, str]:
    """Each image with another one to take its place; raises `DataError` for a single image."""
    distinct = sorted(set(images))
    if len(distinct) < 2:
        raise DataError("every question is about one image, so there is no other to ask about; choose more rows")
    random.Random(seed).shuffle(distinct)
    return dict(zip(distinct, [*distinct[1:], distinct[0]], strict=True))
