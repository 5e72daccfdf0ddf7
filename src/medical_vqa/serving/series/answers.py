"""Answers about slices of stored images: about one slice, or about a series by several of its slices."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from cachetools import LRUCache

from medical_vqa.data.imaging.picture_statistics import PictureContext
from medical_vqa.errors import ImageError
from medical_vqa.models.slices import (
    CANDIDATES,
    combined,
    ranking,
    showing_slices,
    slices_at_once,
    slices_note,
    spread,
)
from medical_vqa.schema.records import Prediction
from medical_vqa.serving.decoding.pictures import prepared_slice
from medical_vqa.serving.engine.answers import EngineAnswer
from medical_vqa.serving.engine.local import Engine
from medical_vqa.serving.engine.remote import RemoteEngine
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.image_store.blob import StoredImage
from medical_vqa.serving.image_store.repository import ImageRepository
from medical_vqa.serving.schema.answers import SliceAnswer
from medical_vqa.serving.series.views import Selection, chosen_window, facts_of, frame_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medical_vqa.data.imaging.decoded_frame import DecodedFrame
    from medical_vqa.data.imaging.planes import Plane

_SERIES_AT_ONCE = 2  # whose slices are being prepared, each with its values in memory
_PREPARED_SLICES = 512  # as the model receives them, tens of kilobytes each


@dataclass(frozen=True, slots=True)
class SeriesResult:
    """One answer about several slices."""

    result: EngineAnswer
    """The combined answer, with the evidence of the slice that it rests on."""
    frame: int
    """That slice."""
    plane: Plane
    """Its plane."""
    slices: tuple[SliceAnswer, ...]
    """The answers about each slice."""


class SliceAnswers:
    """Asks the engine about slices of stored images."""

    def __init__(self, images: ImageRepository, engine: Engine | RemoteEngine) -> None:
        self._images = images
        self._engine = engine
        self._preparing = asyncio.Semaphore(_SERIES_AT_ONCE)
        self._prepared: LRUCache[Any, StoredImage] = LRUCache(_PREPARED_SLICES)

    async def one_slice(self, image: StoredImage, selection: Selection) -> StoredImage:
        """One slice of a stored image as an image that can be asked about; raises `ApiError` (404, 422)."""
        facts = facts_of(image)
        window = chosen_window(facts, selection.window)
        (one,) = await self._slices(image, [frame_of(facts, selection)], selection.plane, window)
        return one

    async def ask(self, image: StoredImage, question: str, selection: Selection, **options: Any) -> SeriesResult:
        """Answer a question about a series by several of its slices.

        Args:
            image: The series.
            question: In words.
            selection: Plane and window of the slices.
            options: As `Engine.ask` takes them.

        Raises:
            ApiError: There is no such plane, or the question cannot be answered (in time).
        """
        try:
            return await self._ask_over_slices(image, question, selection, options)
        except ApiError as error:
            if error.code != "deadline":
                raise
            advice = "ask again later, about one slice (frame), or raise MEDICAL_VQA_DEADLINE"
            message = f"no answer about several slices was ready within the deadline; {advice}"
            raise ApiError(error.status, error.code, message, error.headers) from None

    async def _ask_over_slices(
        self, image: StoredImage, question: str, selection: Selection, options: dict[str, Any]
    ) -> SeriesResult:
        facts = facts_of(image)
        window = chosen_window(facts, selection.window)
        plane = selection.plane or facts.plane
        if plane not in facts.planes:
            raise ApiError(
                422, "invalid", f"this series has no {plane} plane; its planes are {', '.join(facts.planes)}"
            )
        presence = await self._presence(image, question, plane, window, options.get("received"))
        number = slices_at_once(self._engine.model.slices_together)
        showing = showing_slices(presence, number)
        indices = showing or spread(facts.planes[plane], number)
        together = min(len(indices), self._engine.model.slices_together)
        if together > 1:
            indices = [indices[place] for place in spread(len(indices), together)]
        slices = await self._slices(image, indices, plane, window)
        if together > 1:
            first, *others = slices
            options["others"] = [(other.digest, other.visual, other.context) for other in others]
            if isinstance(self._engine, RemoteEngine):
                options["note"] = slices_note(len(indices), facts.planes[plane], plane)
            results = [await self._ask(first, question, options)] * len(indices)
        else:
            results = await self._ask_each(slices, question, {**options, "on_text": None})
        result, place = _combined(results)
        if isinstance(self._engine, Engine) and together <= 1:
            result = _with_evidence(result, await self._ask(slices[place], question, options))
        answers = tuple(
            SliceAnswer(
                frame=index,
                plane=plane,
                answer=one.answer.prediction.answer,
                confidence=one.answer.prediction.confidence,
                abstained=one.answer.abstention.abstained,
                reason_code=one.answer.abstention.code,
                presence=presence.get(index) if showing else None,
            )
            for index, one in zip(indices, results, strict=True)
        )
        return SeriesResult(result, indices[place], plane, answers)

    async def _ask_each(
        self, slices: Sequence[StoredImage], question: str, options: dict[str, Any]
    ) -> list[EngineAnswer]:
        if isinstance(self._engine, Engine):
            parts = [(one.digest, one.visual, one.context) for one in slices]
            received, turns = options.get("received"), options.get("turns", ())
            return await self._engine.compare(question, parts, received=received, turns=turns)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._ask(one, question, options)) for one in slices]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _ask(self, one: StoredImage, question: str, options: dict[str, Any]) -> EngineAnswer:
        return await self._engine.ask(one.digest, one.visual, question, context=one.context, **options)

    async def _presence(
        self,
        image: StoredImage,
        question: str,
        plane: Plane,
        window: tuple[float, float] | None,
        received: float | None,
    ) -> dict[int, float]:
        if self._engine.model.entity_in(question) is None:
            return {}
        candidates = spread(facts_of(image).planes[plane], CANDIDATES)
        slices = await self._slices(image, candidates, plane, window)
        pictures = {index: one.visual for index, one in zip(candidates, slices, strict=True)}
        return await self._engine.presence(question, pictures, received=received)

    async def _slices(
        self,
        image: StoredImage,
        indices: Sequence[int | None],
        plane: Plane | None,
        window: tuple[float, float] | None,
    ) -> list[StoredImage]:
        """Slices as the model receives them, each prepared once, as long as it stays in the cache.

        The values are held only until the pictures are there, and of few series at once: while the model encodes them,
        many questions about other series may wait.
        """
        places = {index: f"{plane or facts_of(image).plane}/{index}/{window}" for index in indices}
        known = {
            index: self._prepared[image.id, one] for index, one in places.items() if (image.id, one) in self._prepared
        }
        missing = [index for index in places if index not in known]
        pictures = await self._pictures(image, missing, plane, window) if missing else []
        for index, (frame, picture) in zip(missing, pictures, strict=True):
            # Files with one frame in common, or of the same values with other windows, have other slices.
            content = hashlib.sha256(np.ascontiguousarray(picture).data).hexdigest()[:32]
            digest = f"{image.digest}/{places[index]}/{content}"
            features = await self._engine.encode(digest, picture)
            visual = picture if features is None else features
            known[index] = StoredImage(image.id, digest, visual, context=PictureContext.of(frame))
            self._prepared[image.id, places[index]] = known[index]
        return [known[index] for index in indices]

    async def _pictures(
        self,
        image: StoredImage,
        indices: Sequence[int | None],
        plane: Plane | None,
        window: tuple[float, float] | None,
    ) -> list[tuple[DecodedFrame, NDArray[np.uint8]]]:
        spec = self._engine.model.picture
        async with self._preparing:
            volume = await self._images.volume(image.id)
            try:
                return [
                    await asyncio.to_thread(prepared_slice, volume, index, plane, window, spec) for index in indices
                ]
            except ImageError as error:
                raise ApiError(422, "invalid", str(error)) from None


def _combined(results: Sequence[EngineAnswer]) -> tuple[EngineAnswer, int]:
    """One answer about several slices, and the place of the slice whose evidence it has.

    The model abstains where it does about more than half of them. Otherwise it is the answer with the largest mean
    probability over the slices about which it does not abstain.
    """
    abstaining = [place for place, one in enumerate(results) if one.answer.abstention.abstained]
    abstained = 2 * len(abstaining) > len(results)
    places = abstaining if abstained else [place for place in range(len(results)) if place not in abstaining]
    predictions = [results[place].answer.prediction for place in places]
    text, confidence, alternatives = _ranked(predictions)
    codes = [results[place].answer.abstention.code for place in places]
    commonest = max(codes, key=codes.count)

    def fitness(place: int) -> tuple[bool, bool, float]:
        answer = results[place].answer
        fits = answer.prediction.answer == text
        return answer.abstention.code == commonest, fits, answer.prediction.confidence or 0.0

    best = max(places, key=fitness)
    one = results[best]
    prediction = dataclasses.replace(
        one.answer.prediction,
        answer=text,
        confidence=confidence,
        alternatives=alternatives,
        cut_off=any(prediction.cut_off for prediction in predictions if prediction.answer == text),
    )
    over_slices = EngineAnswer(
        dataclasses.replace(one.answer, prediction=prediction),
        max(part.queue_seconds for part in results),
        sum(part.model_seconds / max(1, part.batch_size) for part in results),
        max(part.batch_size for part in results),
    )
    return over_slices, best


def _with_evidence(result: EngineAnswer, complete: EngineAnswer) -> EngineAnswer:
    """A combined answer with the suggestions, evidence and attention map of the slice that it rests on."""
    prediction, abstention = result.answer.prediction, result.answer.abstention
    if abstention.abstained and complete.answer.abstention.abstained:
        abstention = complete.answer.abstention
    answer = dataclasses.replace(complete.answer, prediction=prediction, abstention=abstention)
    return dataclasses.replace(result, answer=answer, model_seconds=result.model_seconds + complete.model_seconds)


def _ranked(predictions: Sequence[Prediction]) -> tuple[str, float | None, tuple[tuple[str, float], ...]]:
    """The combined answer, its confidence and the next best ones."""
    text, confidence = combined(predictions)
    if confidence is None:
        return text, None, ()
    others = ranking(predictions)[1:]
    return text, confidence, tuple(others[: max(len(one.alternatives) for one in predictions)])
