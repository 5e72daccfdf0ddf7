"""The engine in front of a remote model: every question is a request of its own, canceled when the asker leaves.

The endpoint batches, so that nothing waits here but what exceeds the client's concurrency. Of the guards, those run
that need no model: whether the picture shows anything, the confidence threshold of `calibrate`, and, on request, how
much the picture moves the answer, compared with an even gray one.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from cachetools import TTLCache

from medical_vqa.data.imaging.picture_statistics import NO_CONTEXT, PictureContext
from medical_vqa.errors import EndpointDownError, EndpointError, ModelError
from medical_vqa.models.base import Query
from medical_vqa.models.declined import declined_reason
from medical_vqa.models.guards.abstention import AbstentionDecision, abstain, abstention_decision, calibrated
from medical_vqa.models.guards.answer_checks import premise_decision
from medical_vqa.models.guards.pictures.image_dependence import ImageDependence, answer_source, image_dependence
from medical_vqa.models.guards.pictures.picture import statistics_reason
from medical_vqa.models.guards.sides import meant_side
from medical_vqa.models.questions.image_kind import BODY_PART_QUESTION
from medical_vqa.schema.records import Prediction
from medical_vqa.serving.engine.answer_cache import Key
from medical_vqa.serving.engine.answers import EngineAnswer, EngineOptions, ModelAnswer
from medical_vqa.serving.errors import ApiError, deadline_exceeded, overloaded, refused_by_model, shutting_down
from medical_vqa.serving.metrics import Metrics
from medical_vqa.serving.schema.errors import ErrorCode
from medical_vqa.text import squad_normalize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medical_vqa.models.remote.model import RemoteModel
    from medical_vqa.schema.bundle_card import BundleCard

_LOG = logging.getLogger("medical_vqa.serving")
_RECHECK_SECONDS = 2.0  # between two attempts to reach an endpoint that is down
_GRAY = 128

OnText = Callable[[str], None]


class RemoteEngine:
    """Answers questions about pictures with a model behind an endpoint."""

    def __init__(
        self,
        model: RemoteModel,
        card: BundleCard,
        options: EngineOptions | None = None,
        *,
        metrics: Metrics | None = None,
    ) -> None:
        """Set up the cache; `start` contacts the endpoint.

        Args:
            model: Asks the endpoint.
            card: How it is asked; temperature and threshold, where it was calibrated.
            options: Sizes and times; batches do not apply.
            metrics: Where work is counted; None: metrics of its own.
        """
        self.model = model
        self.card = card
        self.options = options or EngineOptions()
        self.metrics = metrics or Metrics()
        self.id = _model_id(card)
        self.has_attention_map = False
        self.fingerprint = self.id
        self._waiting = 0
        self._seconds = 0.0
        ttl = math.inf if self.options.answer_ttl is None else self.options.answer_ttl
        self._cache: TTLCache[Key, ModelAnswer] = TTLCache(self.options.answer_cache_size, ttl)
        self._body_parts: TTLCache[str, str] = TTLCache(self.options.answer_cache_size, ttl)
        """Picture -> the body part that the model sees in it, asked once for all questions about the picture."""
        self._running: dict[object, Key] = {}  # cache keys of the questions that are being answered
        self._up = False
        self._closed = threading.Event()
        self._watch: threading.Thread | None = None

    def start(self) -> None:
        """Ask about a probe picture; an endpoint that is down is tried again until it answers.

        Raises `ModelError` when the endpoint lacks the model, or the model sees no pictures.
        """
        self.check()
        self._watch = threading.Thread(target=self._watch_endpoint, name="endpoint-watch", daemon=True)
        self._watch.start()

    @property
    def waiting(self) -> int:
        """Questions that are being answered."""
        return self._waiting

    @property
    def ready(self) -> bool:
        """Whether the endpoint answered last time."""
        return self._up and not self._closed.is_set()

    def close(self) -> None:
        """Close the connections."""
        self._closed.set()
        self.model.close()  # first, because it ends an attempt to reach the endpoint
        if self._watch is not None:
            self._watch.join()

    def forget(self, image: str) -> None:
        """Remove the answers about pictures whose key begins so, those that are being written now included."""

        self._running = {request: key for request, key in self._running.items() if not key.names(image)}
        for key in [key for key in self._cache if key.names(image)]:
            del self._cache[key]
        for picture in [picture for picture in self._body_parts if picture.startswith(image)]:
            del self._body_parts[picture]

    def cached(
        self,
        image: str,  # noqa: ARG002 - as every engine
        question: str,  # noqa: ARG002
        context: PictureContext,  # noqa: ARG002
        *,
        attention_map: bool = False,  # noqa: ARG002
    ) -> ModelAnswer | None:
        """None: `ask` looks, for an answer depends on more than image and question."""
        return None

    async def encode(self, image: str, picture: NDArray[np.uint8]) -> None:  # noqa: ARG002 - as every engine
        """None: the endpoint encodes the pictures."""
        return

    async def presence(
        self,
        question: str,  # noqa: ARG002 - as every engine
        slices: Mapping[int, Any],  # noqa: ARG002
        *,
        received: float | None = None,  # noqa: ARG002
    ) -> dict[int, float]:
        """Empty: a remote model localizes nothing."""
        return {}

    async def answerable(
        self,
        image: str,  # noqa: ARG002 - as every engine
        visual: Any,  # noqa: ARG002
        questions: Sequence[str],
        *,
        context: PictureContext | None = None,  # noqa: ARG002
        received: float | None = None,  # noqa: ARG002
    ) -> list[str]:
        """All of the questions: every question to a remote model costs, so that none is tried."""
        return list(questions)

    def turns_read(self, turns: Sequence[tuple[str, str]]) -> int:
        """How many of the earlier turns are read: the newest, as many as the model takes."""
        return min(len(turns), self.model.max_turns)

    async def ask(
        self,
        image: str,
        visual: Any,
        question: str,
        *,
        attention_map: bool = False,  # noqa: ARG002 - a remote model has none
        received: float | None = None,
        context: PictureContext | None = None,
        others: Sequence[tuple[str, Any, PictureContext]] = (),
        turns: Sequence[tuple[str, str]] = (),
        system: str = "",
        places: Sequence[tuple[int, int]] = (),
        on_text: OnText | None = None,
        check_image: bool = False,
        note: str = "",
    ) -> EngineAnswer:
        """The answer to a question.

        Args:
            image: Digest of the picture.
            visual: The picture.
            question: In words.
            attention_map: Ignored.
            received: When the request arrived (`time.monotonic`): its deadline counts from there; None: now.
            context: What is known of the picture apart from its pixels; None: nothing.
            others: Digest, picture and context of further images of the question.
            turns: Earlier questions of the conversation with their answers.
            system: System message.
            places: Where each picture stands, as in `Query.image_places`; empty: before the first question.
            on_text: Receives what of the answer may be shown while it is written.
            check_image: Whether to ask about an even gray picture too, and which body part the picture shows.
            note: What the pictures are, for the model to read.

        Raises:
            ApiError: The endpoint is down, refuses the question, or does not answer within the deadline.
        """
        if self._closed.is_set():
            raise shutting_down()
        if self._waiting >= self.options.queue_size:
            raise overloaded(self._seconds)
        query = Query(
            "q",
            question,
            image,
            visual,
            other_visuals=tuple(other for _, other, _ in others),
            other_images=tuple(digest for digest, *_ in others),
            turns=tuple(turns),
            system=system,
            image_places=tuple(places),
            note=note,
        ).with_newest_turns(self.model.max_turns)
        key = Key.of(query, check_image=check_image)
        cached = self._cache.get(key)
        self.metrics.answer_cache.labels("miss" if cached is None else "hit").inc()
        if cached is not None:
            return EngineAnswer(cached)
        start = time.monotonic()
        deadline = (start if received is None else received) + self.options.deadline
        self._waiting += 1
        request = object()
        self._running[request] = key
        try:
            async with asyncio.timeout(deadline - start):
                contexts = [context or NO_CONTEXT, *(own for *_, own in others)]
                answer, body_part = await self._answer(query, contexts, on_text, check_image)
        except TimeoutError:
            raise deadline_exceeded(self._seconds) from None
        except EndpointError as error:
            self._up = False
            code: ErrorCode = "engine_unavailable" if isinstance(error, EndpointDownError) else "engine_refused"
            raise ApiError(503, code, str(error), {"Retry-After": "5"}) from None
        except ModelError as error:
            raise refused_by_model(error) from None
        finally:
            self._waiting -= 1
            still_stored = self._running.pop(request, None) is not None
        seconds = time.monotonic() - start
        self._up = True
        self._seconds += 0.2 * (seconds - self._seconds)
        self.metrics.model_seconds.labels("answer").observe(seconds)
        if still_stored:
            self._cache[key] = answer
            if body_part is not None:
                self._body_parts[image] = body_part
        return EngineAnswer(answer, 0.0, seconds, 1)

    async def _answer(
        self, query: Query, contexts: Sequence[PictureContext], on_text: OnText | None, check_image: bool
    ) -> tuple[ModelAnswer, str | None]:
        """An answer, and the body part that the model sees in the picture; None where that is not checked."""
        requests = [self.model.ask(query, on_text)]
        body_part = self._body_parts.get(query.image) if check_image else None
        if check_image:
            assert isinstance(query.visual, np.ndarray)  # a remote model takes pictures, not features
            requests.append(self.model.ask(dataclasses.replace(query, visual=_gray_picture(query.visual.shape))))
            if body_part is None:
                requests.append(self.model.ask(query.alone(BODY_PART_QUESTION)))
        raw, *checks = await asyncio.gather(*requests)
        if len(checks) == 2:
            body_part = checks[1].answer
        prediction = calibrated(raw, self.card)
        dependence = _dependence(raw, checks[:1])
        answer = ModelAnswer(
            prediction,
            self._abstention(query, prediction, contexts, body_part or ""),
            dependence.score if dependence else None,
            answer_source(dependence, about_image=True),
            meant_side(prediction.answer),
        )
        return answer, body_part

    def _abstention(
        self, query: Query, prediction: Prediction, contexts: Sequence[PictureContext], description: str
    ) -> AbstentionDecision:
        """Whether to withhold an answer; `description` is what the model says it shows; empty: not asked."""
        for context in contexts:
            if context.statistics is not None:
                reason = statistics_reason(context.statistics, gray_only=False)
                if reason is not None:
                    return abstain(reason.code, reason.arguments)
        if (declined := declined_reason(prediction.answer, prediction.raw)) is not None:
            return AbstentionDecision(True, str(declined), declined.code)
        return premise_decision(query.question, prediction.answer, description) or abstention_decision(
            self.model, self.card, query, prediction
        )

    def check(self) -> None:
        """Ask about a probe picture; raises `ModelError` unless the endpoint answers or is merely down."""
        try:
            self.model.check()
            self._up = True
            for note in self.model.notes:
                _LOG.warning(note)
        except EndpointDownError as error:
            _LOG.warning("%s", error)

    def _watch_endpoint(self) -> None:
        while not self._closed.wait(_RECHECK_SECONDS):
            if not self._up:
                # a model that is gone is named in the answer to a question
                with contextlib.suppress(ModelError, CancelledError):
                    self.check()


@lru_cache(maxsize=32)
def _gray_picture(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """An even gray picture; the same array for equal shapes, so that it is encoded for a request once."""
    return np.full(shape, _GRAY, np.uint8)


def _dependence(answer: Prediction, about_gray: Sequence[Prediction]) -> ImageDependence | None:
    """What a gray picture does to the answer; without confidences, whether the answer stays the same."""
    if not about_gray:
        return None
    measured = image_dependence(answer, about_gray)
    if measured is not None:
        return measured
    same = squad_normalize(about_gray[0].answer) == squad_normalize(answer.answer)
    return ImageDependence(0.0 if same else 1.0, float(same), 1)


def _model_id(card: BundleCard) -> str:
    """Equal for endpoints that are asked in the same way."""
    parts = card.model_dump(mode="json", include={"family", "name", "facts", "calibration"})
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
