"""The engine of a model of this process: it answers from the cache, or queues work for the model and awaits it."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medical_vqa.data.imaging.picture_statistics import NO_CONTEXT, PictureContext
from medical_vqa.models.base import Query, VqaModel
from medical_vqa.models.guards.guard import Guards
from medical_vqa.models.guards.steps import Steps
from medical_vqa.models.slices import presence_in
from medical_vqa.schema.bundle_card import BundleCard
from medical_vqa.serving.engine.answer_cache import AnswerCache, Key
from medical_vqa.serving.engine.answers import EngineAnswer, EngineOptions, ModelAnswer
from medical_vqa.serving.engine.computation import Computation, Features
from medical_vqa.serving.engine.scheduler import Scheduler
from medical_vqa.serving.engine.work import Task
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.metrics import Metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_CONTEXT = 16_000
"""Characters of earlier turns, and of a system message, that a model of this process reads."""
_LOCALIZED_AT_ONCE = 8  # slices, so that others' questions wait for few of them


class Engine:
    """Answers questions about pictures that `encode` has encoded."""

    def __init__(
        self,
        model: VqaModel,
        card: BundleCard,
        options: EngineOptions | None = None,
        *,
        metrics: Metrics | None = None,
        guards: Guards | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up the queue and the cache; `start` starts the thread.

        Args:
            model: Answers the questions.
            card: Of the model's bundle: decoding, temperature and threshold.
            options: Sizes and times.
            metrics: Where work is counted; None: metrics of its own.
            guards: Withhold answers that the picture does not support; None: those that need no reference set.
            clock: Measures what work costs, in seconds.
        """
        self.model = model
        self.card = card
        self.options = options or EngineOptions()
        self.guards = guards or Guards(model, card)
        self.metrics = metrics or Metrics()
        self.id = _model_id(card)
        self.has_attention_map = model.has_attention_maps
        self.fingerprint = model.vision.fingerprint if model.vision is not None else self.id
        self.scheduler = Scheduler(self.options, self.metrics, clock)
        self.cache = AnswerCache(self.options.answer_cache_size, self.options.answer_ttl)
        pause, seconds = self.scheduler.let_others_go_first, self.options.step_seconds
        self.guards.steps = Steps(pause, seconds, clock)
        self._computation = Computation(model, self.guards, self.cache, Steps(pause, seconds, clock))

    def start(self) -> None:
        """Answer one question, so that the first client does not wait for it, and accept work from now on."""
        spec = self.model.picture
        shape = (1, 1, 1) if spec is None else (spec.side, spec.side, spec.channels)
        picture = np.zeros(shape, np.uint8)
        visual = self.model.vision.encode([picture])[0] if self.model.vision is not None else picture
        self._computation.ask([Query("0", "What is shown?", "warm-up", visual)], [self.has_attention_map])
        self.scheduler.start(self._computation.compute)

    @property
    def waiting(self) -> int:
        """Questions and pictures in the queue."""
        return self.scheduler.waiting

    @property
    def ready(self) -> bool:
        """Whether work is accepted."""
        return self.scheduler.ready

    def close(self) -> None:
        """Finish the queued work, and stop."""
        self.scheduler.close()

    def forget(self, image: str) -> None:
        """Remove the answers about pictures whose key begins so, those that are being computed now included."""
        self.scheduler.mark_deleted(image)
        self.cache.forget(image)
        self.guards.forget(image)

    def turns_read(self, turns: Sequence[tuple[str, str]]) -> int:
        """How many of the earlier turns are read: the newest, as many as the model takes, of a bounded length."""
        lengths = [len(question) + len(answer) for question, answer in reversed(turns[-self.model.max_turns :])]
        totals = itertools.accumulate(lengths if self.model.max_turns else [])
        return sum(total <= MAX_CONTEXT for total in totals)

    async def ask(
        self,
        image: str,
        visual: NDArray[np.uint8] | Features,
        question: str,
        *,
        attention_map: bool = False,
        received: float | None = None,
        context: PictureContext | None = None,
        others: Sequence[tuple[str, Any, PictureContext]] = (),
        turns: Sequence[tuple[str, str]] = (),
        system: str = "",
        places: Sequence[tuple[int, int]] = (),
        on_text: Callable[[str], None] | None = None,  # noqa: ARG002 - these models answer at once
        check_image: bool = False,  # noqa: ARG002 - the guards always do
    ) -> EngineAnswer:
        """The answer to a question.

        Args:
            image: Key of the picture.
            visual: The picture as the model needs it, or its features.
            question: In words.
            attention_map: Whether to add the attention map, where the model has one.
            received: When the request arrived (`time.monotonic`): its deadline counts from there; None: now.
            context: What is known of the picture apart from its pixels; None: nothing.
            others: Of each further image of the question the digest, the picture or its features, and its context.
            turns: Earlier questions of the conversation with their answers; the newest are read (`turns_read`).
            system: System message; ignored by a model that reads none.
            places: Where each picture stands, as in `Query.image_places`; empty: before the first question.
            on_text: Ignored: these models answer at once.
            check_image: Ignored: the guards measure it where the bundle has reference pictures.

        Raises:
            ApiError: Too much is queued, the deadline has passed, or the model refuses the question.
        """
        if self.model.reads_system and len(system) > MAX_CONTEXT:
            message = f"the system message has more than {MAX_CONTEXT:,} characters; shorten it"
            raise ApiError(422, "invalid", message)
        attention_map = attention_map and self.has_attention_map
        context = context or NO_CONTEXT
        query = Query(
            "q",
            question,
            f"{image}/{context.digest}",  # equal pixels may have unequal headers
            visual,
            other_visuals=tuple(other for _, other, _ in others),
            other_images=tuple(f"{digest}/{own.digest}" for digest, _, own in others),
            turns=tuple(turns),
            system=system if self.model.reads_system else "",
            image_places=tuple(places),
        )
        query = query.with_newest_turns(self.turns_read(turns))
        cached = self._cached(Key.of(query), attention_map=attention_map)
        if cached is not None:
            return EngineAnswer(cached)
        self.metrics.answer_cache_misses.inc()
        names = (query.image, *query.other_images)
        contexts = dict(zip(names, (context, *(own for *_, own in others)), strict=True))
        task = Task(query.image, visual, query, attention_map=attention_map, contexts=contexts)
        answer: EngineAnswer = await self.scheduler.submit(task, received)
        return answer

    def cached(
        self, image: str, question: str, context: PictureContext, *, attention_map: bool = False
    ) -> ModelAnswer | None:
        """The answer to a question that was answered before.

        Args:
            image: Key of the picture.
            question: In words.
            context: What is known of the picture apart from its pixels.
            attention_map: Whether the answer needs its attention map.

        Returns:
            None where it must be computed.
        """
        return self._cached(Key(f"{image}/{context.digest}", question), attention_map=attention_map)

    def _cached(self, key: Key, *, attention_map: bool) -> ModelAnswer | None:
        answer = self.cache.get(key)
        if answer is None or (attention_map and self.has_attention_map and answer.attention_map is None):
            return None
        self.metrics.answer_cache_hits.inc()
        return answer

    async def encode(self, image: str, picture: NDArray[np.uint8]) -> Features | None:
        """The features of a picture; None for a model that computes none in advance. Raises `ApiError`."""
        if self.model.vision is None:
            return None
        features: Features = await self.scheduler.submit(Task(image, picture))
        return features

    async def presence(
        self, question: str, slices: Mapping[int, Any], *, received: float | None = None
    ) -> dict[int, float]:
        """Probability that slices show what a question names.

        Args:
            question: In words.
            slices: Number of each slice -> the picture as the model needs it, or its features.
            received: When the request arrived (`time.monotonic`); None: now.

        Returns:
            Number of a slice -> probability; empty where the model localizes nothing of the question.

        Raises:
            ApiError: Too much is queued, or the deadline has passed.
        """
        if self.model.entity_in(question) is None:
            return {}
        queries = [Query(str(index), question, str(index), visual) for index, visual in slices.items()]
        presence: dict[int, float] = {}
        for start in range(0, len(queries), _LOCALIZED_AT_ONCE):
            part = queries[start : start + _LOCALIZED_AT_ONCE]

            def localize(part: Sequence[Query] = part) -> list[float | None]:
                return [presence_in(self.model, query) for query in part]

            values = await self.scheduler.submit(Task(call=localize, count=len(part)), received)
            presence |= {int(q.id): value for q, value in zip(part, values, strict=True) if value is not None}
        return presence

    async def answerable(
        self,
        image: str,
        visual: Any,
        questions: Sequence[str],
        *,
        context: PictureContext | None = None,
        received: float | None = None,
    ) -> list[str]:
        """The questions that the model answers about a picture without abstaining, in order.

        Args:
            image: Key of the picture.
            visual: The picture as the model needs it, or its features.
            questions: In words.
            context: What is known of the picture apart from its pixels; None: nothing.
            received: When the request arrived (`time.monotonic`); None: now.

        Raises:
            ApiError: Too much is queued, or the deadline has passed.
        """
        context = context or NO_CONTEXT
        name = f"{image}/{context.digest}"  # as in `ask`
        queries = [Query(str(number), question, name, visual) for number, question in enumerate(questions)]

        def decide() -> list[bool]:
            return self.guards.can_be_offered(queries, {name: context})

        answered = await self.scheduler.submit(Task(call=decide, count=len(queries)), received)
        return [question for question, is_answered in zip(questions, answered, strict=True) if is_answered]

    async def compare(
        self,
        question: str,
        slices: Sequence[tuple[str, Any, PictureContext]],
        *,
        received: float | None = None,
        turns: Sequence[tuple[str, str]] = (),
    ) -> list[EngineAnswer]:
        """Answers about several slices without suggestions, evidence and attention maps, which cost more than they do.

        Args:
            question: In words.
            slices: Key of each, the picture as the model needs it or its features, and what is known of it.
            received: When the request arrived (`time.monotonic`); None: now.
            turns: Earlier questions of the conversation with their answers, as in `ask`.

        Raises:
            ApiError: Too much is queued, the deadline has passed, or the model refuses the question.
        """
        newest = tuple(turns[len(turns) - self.turns_read(turns) :])
        queries = [Query(str(n), question, key, visual, turns=newest) for n, (key, visual, _) in enumerate(slices)]
        contexts = {key: context for key, _, context in slices}

        def answer() -> list[ModelAnswer]:
            return [
                ModelAnswer(one.prediction, one.abstention, None, one.source, one.side)
                for one in self.guards.answer(queries, contexts, suggest=False)
            ]

        start = time.monotonic()
        answers: list[ModelAnswer] = await self.scheduler.submit(Task(call=answer, count=len(queries)), received)
        seconds = time.monotonic() - start
        return [EngineAnswer(one, 0.0, seconds, len(answers)) for one in answers]


def _model_id(card: BundleCard) -> str:
    """Equal for bundles that answer equally: their files, decoding and calibration."""
    parts = card.model_dump(mode="json", include={"family", "files", "decoding", "calibration"})
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
