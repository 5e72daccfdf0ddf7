"""One model and the threads that run it in turn: requests of many clients wait in a bounded queue and are answered in
batches.

The queue is fair among tenants and their clients, by the time that their work has taken. On a CPU a batch is computed
in steps of a few milliseconds, between which a client that has received less goes first, so that a newcomer waits for
one step and not for all that another client has asked. One thread computes at any time; the others hold batches that
have been interrupted.

The event loop only queues work and awaits it. Work whose client has disconnected or whose deadline has passed is
dropped before it is computed. Questions about one image are batched together, because the image's part of the
computation is then done once.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hashlib
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from cachetools import TTLCache

from medical_vqa.data.imaging.picture_statistics import NO_CONTEXT, PictureContext
from medical_vqa.errors import ModelError
from medical_vqa.models.base import Query, VqaModel
from medical_vqa.models.guards.abstention import AbstentionDecision
from medical_vqa.models.guards.guard import Guards
from medical_vqa.models.guards.image_dependence import Source
from medical_vqa.models.guards.sides import Side
from medical_vqa.models.guards.steps import Steps
from medical_vqa.models.slices import presence_in
from medical_vqa.schema.bundle_card import BundleCard
from medical_vqa.schema.evidence import Evidence
from medical_vqa.schema.records import Prediction
from medical_vqa.serving.clients import current_client
from medical_vqa.serving.errors import ApiError, deadline_exceeded, internal_error, overloaded, shutting_down
from medical_vqa.serving.fair_queue import FairQueue
from medical_vqa.serving.metrics import Metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Features = Mapping[str, Any]  # named tensors: torch's, or numpy's from a model that runs without torch

_LOG = logging.getLogger("medical_vqa.serving")
_RECENT_SECONDS = 1.0  # a client that asked so lately counts as one that asks
_THREADS = 4  # batches at once, all but one of which are interrupted
_LEAST_COST = 1e-3  # seconds of work that was never measured
_LOCALIZED_AT_ONCE = 8  # slices, so that others' questions wait for few of them
_SMOOTHING = 0.2  # weight of the newest batch in the moving average of seconds per item


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Sizes and times of an `Engine`."""

    batch_size: int = 8
    """Most questions in one model call."""
    batch_wait: float = 0.003
    """Seconds that a batch may wait for more questions while several clients ask."""
    queue_size: int = 256
    """Most questions and pictures that may wait."""
    deadline: float = 7.0
    """Seconds in which a question is answered or refused."""
    contended_batch_size: int | None = None
    """The same while several clients ask, so that one waits for little of another's work; None: as many as alone."""
    step_seconds: float | None = None
    """Seconds after which a batch may be interrupted for another client's; None: a batch is computed at once."""
    answer_cache_size: int = 10_000
    """Answers that are cached; 0: none."""
    answer_ttl: float | None = None
    """Seconds that an answer is cached at most; None: until there are too many."""


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """The model's answer to one question."""

    prediction: Prediction
    """With the calibrated confidence."""
    abstention: AbstentionDecision
    """Whether the answer should be relied on."""
    image_dependence: float | None = None
    """How much the picture moves the answer, in [0, 1]; None where that was not measured."""
    source: Source | None = None
    """Where the answer comes from; None where that was not measured."""
    side: Side | None = None
    """Whose left or right it names."""
    evidence: tuple[Evidence, ...] = ()
    """Where the model localizes what the question or the answer names."""
    attention_map: NDArray[np.float32] | None = None
    """Where in the picture the answer comes from (rows, columns); None unless requested."""
    rendered: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """What a server has made of it to send it again, which is forgotten together with the answer."""


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """An answer, with the time that it took."""

    answer: ModelAnswer
    """The model's answer."""
    queue_seconds: float = 0.0
    """Time in the queue."""
    model_seconds: float = 0.0
    """Time of the batch in the model."""
    batch_size: int = 0
    """Questions in that batch; 0: the answer was cached."""


@dataclass(slots=True, eq=False)
class _Work:
    """One question to answer or one picture to encode, and the future of whoever awaits it."""

    image: str
    visual: Any
    deadline: float
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    question: str | None = None  # None: encode the picture
    call: Callable[[], Any] | None = None  # what to compute in place of both, alone
    count: int = 1  # questions that the call answers: it takes the time of as many
    attention_map: bool = False
    picture_context: PictureContext = NO_CONTEXT
    tenant: str = ""
    client: str = ""
    cacheable: bool = True  # not once its image has been deleted
    arrived: float = field(default_factory=time.monotonic)
    context: contextvars.Context = field(default_factory=contextvars.copy_context)  # for the request id in the log

    @property
    def key(self) -> tuple[str, str]:
        return self.image, self.question or ""


@dataclass(slots=True, eq=False)
class _Batch:
    """Work that is done together, charged to the client of its first piece."""

    work: list[_Work]
    step_began: float = 0.0
    seconds: float = 0.0
    """Computed so far."""
    charged: float = 0.0
    """Seconds charged so far."""

    @property
    def sender(self) -> tuple[str, str]:
        """Tenant and client."""
        return (self.work[0].tenant, self.work[0].client)


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
        self._queue: FairQueue[_Work] = FairQueue()
        lock = threading.RLock()
        self._work_arrived = threading.Condition(lock)  # for a thread without a batch
        self._turn_ended = threading.Condition(lock)  # for those whose batch was interrupted
        self._company_arrived = threading.Condition(lock)  # for one that waits for more questions
        self._current: _Batch | None = None  # what is being computed or put together
        self._interrupted: list[_Batch] = []
        self._asked_at: dict[tuple[str, str], float] = {}  # of the clients that asked lately
        self._clock = clock
        self.guards.steps = Steps(self._let_others_go_first, self.options.step_seconds, clock)
        self._encoding = Steps(self._let_others_go_first, self.options.step_seconds, clock)
        # by image and question; model and decoding are this engine's
        ttl = math.inf if self.options.answer_ttl is None else self.options.answer_ttl
        self._cache: TTLCache[tuple[str, str], ModelAnswer] = TTLCache(self.options.answer_cache_size, ttl)
        self._cache_lock = threading.Lock()
        self._last_batch_size = 1
        self._seconds_per_item = 0.0
        self._closed = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Answer one question, so that the first client does not wait for it, and accept work from now on."""
        spec = self.model.picture
        shape = (1, 1, 1) if spec is None else (spec.side, spec.side, spec.channels)
        picture = np.zeros(shape, np.uint8)
        visual = self.model.vision.encode([picture])[0] if self.model.vision is not None else picture
        self._ask_model([Query("0", "What is shown?", "warm-up", visual)], [self.has_attention_map])
        threads = 1 if self.options.step_seconds is None else _THREADS
        self._threads = [threading.Thread(target=self._run, name=f"model-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Questions and pictures in the queue."""
        return len(self._queue)

    @property
    def ready(self) -> bool:
        """Whether work is accepted."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads) and not self._closed

    def close(self) -> None:
        """Finish the queued work, and stop."""
        with self._work_arrived:
            self._closed = True
            self._work_arrived.notify_all()
            self._company_arrived.notify_all()
        for thread in self._threads:
            thread.join()

    def forget(self, image: str) -> None:
        """Remove the answers about pictures whose key begins so, those that are being computed now included."""
        with self._work_arrived, self._cache_lock:
            batches = [*self._interrupted, *([self._current] if self._current else [])]
            for work in (*self._queue, *(work for batch in batches for work in batch.work)):
                if work.image.startswith(image):
                    work.cacheable = False
            for key in [key for key in self._cache if key[0].startswith(image)]:
                del self._cache[key]
            self.guards.forget(image)

    async def ask(
        self,
        image: str,
        visual: NDArray[np.uint8] | Features,
        question: str,
        *,
        attention_map: bool = False,
        received: float | None = None,
        context: PictureContext | None = None,
        others: Sequence[tuple[str, Any]] = (),
        turns: Sequence[tuple[str, str]] = (),  # noqa: ARG002 - these models do not remember
        on_text: Callable[[str], None] | None = None,  # noqa: ARG002 - they answer at once
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
            others: Further pictures of the question; refused.
            turns: Ignored: these models do not remember.
            on_text: Ignored: these models answer at once.
            check_image: Ignored: the guards measure it where the bundle has reference pictures.

        Raises:
            ApiError: Too much is queued, the deadline has passed, or the model refuses the question.
        """
        if others:
            raise ApiError(
                422, "invalid", f"{self.card.name} takes one picture in one question; ask about one at a time"
            )
        attention_map = attention_map and self.has_attention_map
        context = context or NO_CONTEXT
        cached = self.cached(image, question, context, attention_map=attention_map)
        if cached is not None:
            return EngineAnswer(cached)
        image = f"{image}/{context.digest}"  # equal pixels may have unequal headers
        self.metrics.answer_cache_misses.inc()
        answer: EngineAnswer = await self._submit(image, visual, question, attention_map, received, context)
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
        with self._cache_lock:
            answer = self._cache.get((f"{image}/{context.digest}", question))
        if answer is None or (attention_map and self.has_attention_map and answer.attention_map is None):
            return None
        self.metrics.answer_cache_hits.inc()
        return answer

    async def encode(self, image: str, picture: NDArray[np.uint8]) -> Features | None:
        """The features of a picture; None for a model that computes none in advance. Raises `ApiError`."""
        if self.model.vision is None:
            return None
        features: Features = await self._submit(image, picture, None, False, None)
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

            values = await self._submit("", None, None, False, received, call=localize, count=len(part))
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

        answered = await self._submit("", None, None, False, received, call=decide, count=len(queries))
        return [question for question, is_answered in zip(questions, answered, strict=True) if is_answered]

    async def compare(
        self,
        question: str,
        slices: Sequence[tuple[str, Any, PictureContext]],
        *,
        received: float | None = None,
    ) -> list[EngineAnswer]:
        """Answers about several slices without suggestions, evidence and attention maps, which cost more than they do.

        Args:
            question: In words.
            slices: Key of each, the picture as the model needs it or its features, and what is known of it.
            received: When the request arrived (`time.monotonic`); None: now.

        Raises:
            ApiError: Too much is queued, the deadline has passed, or the model refuses the question.
        """
        queries = [Query(str(n), question, key, visual) for n, (key, visual, _) in enumerate(slices)]
        contexts = {key: context for key, _, context in slices}

        def answer() -> list[ModelAnswer]:
            return [
                ModelAnswer(one.prediction, one.abstention, None, one.source, one.side)
                for one in self.guards.answer(queries, contexts, suggest=False)
            ]

        start = time.monotonic()
        answers: list[ModelAnswer] = await self._submit(
            "", None, None, False, received, call=answer, count=len(queries)
        )
        seconds = time.monotonic() - start
        return [EngineAnswer(one, 0.0, seconds, len(answers)) for one in answers]

    async def _submit(
        self,
        image: str,
        visual: Any,
        question: str | None,
        attention_map: bool,
        received: float | None,
        context: PictureContext = NO_CONTEXT,
        call: Callable[[], Any] | None = None,
        count: int = 1,
    ) -> Any:
        loop, now = asyncio.get_running_loop(), time.monotonic()
        deadline = (now if received is None else received) + self.options.deadline
        client = current_client()
        work = _Work(
            image,
            visual,
            deadline,
            loop.create_future(),
            loop,
            question,
            call,
            max(1, count),
            attention_map,
            picture_context=context,
        )
        work.tenant, work.client = client.queue, client.name
        with self._work_arrived:
            if self._closed:
                raise shutting_down()
            if self._is_full_for(client.queue):
                raise overloaded(self._backlog())
            self._queue.push(client.queue, work, client.weight, client=client.name)
            self._asked_at[client.queue, client.name] = now
            if self._current is None:
                self._work_arrived.notify()
            self._company_arrived.notify()
        try:
            async with asyncio.timeout(deadline - now):
                result = await work.future
        except TimeoutError:
            raise deadline_exceeded(self._backlog()) from None
        if time.monotonic() > deadline:  # the result was in time, but this loop was too busy to notice
            raise deadline_exceeded(self._backlog())
        return result

    def _is_full_for(self, tenant: str) -> bool:
        """Whether a tenant must come back later: what others have waiting takes nothing of its part of the queue."""
        waiting, own = len(self._queue), self._queue.waiting(tenant)
        tenants = self._queue.tenants + (own == 0)
        if waiting >= 2 * self.options.queue_size or (
            waiting >= self.options.queue_size and own >= self.options.queue_size / tenants
        ):
            return True
        ahead = min(waiting, own * tenants)
        return ahead * self._seconds_per_item > self.options.deadline

    def _backlog(self) -> float:
        """Seconds until the work that is queued now will be done."""
        return len(self._queue) * self._seconds_per_item

    # --- in the model's threads ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            if batch.work:
                self._process(batch)
            with self._work_arrived:
                self._end_turn()

    def _next_batch(self) -> _Batch | None:
        """Work to do together, which is then the current batch; None when there will be no more."""
        with self._work_arrived:
            self._work_arrived.wait_for(self._queue_is_next)
            if not len(self._queue):
                self._work_arrived.notify_all()  # for there will be no more
                return None
            batch = self._current = _Batch([])
            self._wait_for_company()
            self._drop_stale()
            self._fill(batch)
            self._last_batch_size = max(1, len(batch.work))
            batch.step_began = self._clock()
            return batch

    def _queue_is_next(self) -> bool:
        """Whether a new batch is to begin, or there will be none."""
        if self._current is not None:
            return False
        if not len(self._queue):
            return self._closed
        return self._queue_can_begin()

    def _queue_can_begin(self) -> bool:
        """Whether what waits goes before every batch that was interrupted."""
        first = self._queue.first()
        return first is not None and (not self._interrupted or first < self._first_interrupted()[0])

    def _first_interrupted(self) -> tuple[tuple[float, float], _Batch]:
        orders = [self._queue.order(*batch.sender) for batch in self._interrupted]
        first = min(range(len(orders)), key=orders.__getitem__)
        return orders[first], self._interrupted[first]

    def _end_turn(self) -> None:
        """Let the next continue: a batch that was interrupted, or a thread without one."""
        self._current = None
        if self._interrupted and not self._queue_can_begin():
            self._turn_ended.notify_all()
        else:
            self._work_arrived.notify()

    def _let_others_go_first(self) -> None:
        """Between two steps of the current batch: interrupt it for the work of a client that has received less."""
        with self._work_arrived:
            batch = self._current
            if batch is None or not batch.work:  # the warm-up
                return
            self._charge(batch)
            own = self._queue.order(*batch.sender)
            others = [self._queue.order(*other.sender) for other in self._interrupted]
            waiting = self._queue.first()
            if waiting is not None and len(self._interrupted) < len(self._threads) - 1:
                others.append(waiting)
            if not others or min(others) >= own:
                return
            self._interrupted.append(batch)
            self._end_turn()
            self._turn_ended.wait_for(
                lambda: self._current is None and not self._queue_can_begin() and self._first_interrupted()[1] is batch
            )
            self._interrupted.remove(batch)
            self._current = batch
            self._queue.serve(*batch.sender)
            batch.step_began = self._clock()

    def _charge(self, batch: _Batch, *, complete: bool = False) -> None:
        """Charge the time since the batch's last step beyond what was charged in advance; give back what was not used.

        Args:
            batch: The current one.
            complete: Whether this was its last step.
        """
        now = self._clock()
        batch.seconds += now - batch.step_began
        batch.step_began = now
        cost = batch.seconds - batch.charged
        if cost > 0 or complete:
            batch.charged += cost
            for work in batch.work:
                self._queue.charge(work.tenant, cost / len(batch.work), client=work.client)

    def _wait_for_company(self) -> None:
        """While several clients ask at once, give those that have just been answered the time to ask again."""
        if self._last_batch_size == 1 or self._closed:
            return
        expected = min(self._largest_batch(), self._last_batch_size)
        wait_until = min(work.arrived for work in self._queue.heads()) + self.options.batch_wait
        self._company_arrived.wait_for(
            lambda: len(self._queue) >= expected or self._closed, timeout=max(0.0, wait_until - time.monotonic())
        )

    def _drop_stale(self) -> None:
        """Remove the work of clients that have disconnected, and work past its deadline."""
        now = time.monotonic()
        for work in self._queue.remove(lambda work: work.future.cancelled() or work.deadline <= now):
            self.metrics.dropped.labels("gone" if work.future.cancelled() else "deadline").inc()

    def _fill(self, batch: _Batch) -> None:
        """Add what is next in turn, with more of the same: either questions, about one image first, or pictures."""
        if not len(self._queue):
            return
        size, interruptible = self._largest_batch(), self.options.step_seconds is not None
        # One that is interrupted pays as it goes, and is of one client; of others each pays in advance for its work.
        cost = 0.0 if interruptible else max(self._seconds_per_item, _LEAST_COST)
        _, first = self._queue.pop(cost)
        batch.work.append(first)
        if first.call is not None:
            batch.charged = cost
            return

        def fits(work: _Work) -> bool:
            same_client = (work.tenant, work.client) == batch.sender
            same_kind = work.call is None and (work.question is None) == (first.question is None)
            return same_kind and (same_client or not interruptible)

        with contextlib.suppress(LookupError):
            while len(batch.work) < size:
                _, work = self._queue.pop(cost, fits=fits, prefer=lambda work: work.image == first.image)
                batch.work.append(work)
        batch.charged = cost * len(batch.work)

    def _largest_batch(self) -> int:
        """How much may be done together now: less while several clients ask."""
        since = time.monotonic() - _RECENT_SECONDS
        self._asked_at = {sender: at for sender, at in self._asked_at.items() if at > since}
        several = len(self._asked_at) > 1 or self._queue.clients > 1
        return (several and self.options.contended_batch_size) or self.options.batch_size

    def _process(self, current: _Batch) -> None:
        batch = current.work
        operation = "localize" if batch[0].call else "encode" if batch[0].question is None else "answer"
        start = time.monotonic()
        results = self._compute(batch)
        with self._work_arrived:
            self._charge(current, complete=True)
        seconds = current.seconds
        items = sum(work.count for work in batch)
        self._seconds_per_item += _SMOOTHING * (seconds / items - self._seconds_per_item)
        self.metrics.batch_size.labels(operation).observe(len(batch))
        self.metrics.model_seconds.labels(operation).observe(seconds)
        for work in batch:
            self.metrics.queue_seconds.observe(start - work.arrived)
        timed = [
            EngineAnswer(result, start - work.arrived, seconds, len(batch))
            if isinstance(result, ModelAnswer)
            else result
            for work, result in zip(batch, results, strict=True)
        ]
        for loop in {work.loop for work in batch}:
            settled = [(work.future, result) for work, result in zip(batch, timed, strict=True) if work.loop is loop]
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it those who waited
                loop.call_soon_threadsafe(_settle, settled)

    def _compute(self, batch: list[_Work]) -> Sequence[Any]:
        """One result or exception per piece of work; where a batch fails, its parts are computed one by one."""
        try:
            if batch[0].call is not None:
                return [batch[0].call()]
            return self._encode(batch) if batch[0].question is None else self._answer(batch)
        except Exception as error:
            if len(batch) > 1:
                return [self._compute([work])[0] for work in batch]
            if isinstance(error, ModelError):
                return [ApiError(422, "invalid", str(error))]
            batch[0].context.run(_LOG.exception, "the model failed")
            return [internal_error()]

    def _encode(self, batch: list[_Work]) -> list[Features]:
        pictures = {work.image: work.visual for work in batch}
        vision = self.model.vision
        encoded = self._encoding.run(vision.encode, list(pictures.values())) if vision is not None else []
        features = {
            image: {
                name: tensor if isinstance(tensor, np.ndarray) else tensor.detach().cpu()
                for name, tensor in tensors.items()
            }
            for image, tensors in zip(pictures, encoded, strict=True)
        }
        return [features[work.image] for work in batch]

    def _answer(self, batch: list[_Work]) -> list[ModelAnswer]:
        """Answers in the order of the batch; equal questions about one image are computed once."""
        distinct: dict[tuple[str, str], _Work] = {}
        attention_maps: dict[tuple[str, str], bool] = {}
        for work in batch:
            distinct.setdefault(work.key, work)
            attention_maps[work.key] = attention_maps.get(work.key, False) or work.attention_map
        queries = [Query(str(n), w.question or "", w.image, w.visual) for n, w in enumerate(distinct.values())]
        contexts = {work.image: work.picture_context for work in distinct.values()}
        answers = dict(zip(distinct, self._ask_model(queries, list(attention_maps.values()), contexts), strict=True))
        if self._cache.maxsize:
            with self._cache_lock:
                deleted = {work.key for work in batch if not work.cacheable}
                self._cache.update({key: answer for key, answer in answers.items() if key not in deleted})
        return [answers[work.key] for work in batch]

    def _ask_model(
        self,
        queries: Sequence[Query],
        attention_map: Sequence[bool],
        contexts: Mapping[str, PictureContext] | None = None,
    ) -> list[ModelAnswer]:
        """One answer per query, with attention maps where they are requested; `contexts` by the queries' ``image``."""
        guarded = self.guards.answer(queries, contexts)
        with_map = [query for query, requested in zip(queries, attention_map, strict=True) if requested]
        maps = iter(self.model.attention_maps(with_map) if with_map and self.has_attention_map else ())
        return [
            ModelAnswer(
                answer.prediction,
                answer.abstention,
                answer.dependence.score if answer.dependence else None,
                answer.source,
                answer.side,
                answer.evidence,
                next(maps, None) if requested else None,
            )
            for answer, requested in zip(guarded, attention_map, strict=True)
        ]


def _settle(results: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    """In the event loop: pass results to those who still wait."""
    for future, result in results:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)


def _model_id(card: BundleCard) -> str:
    """Equal for bundles that answer equally: their files, decoding and calibration."""
    parts = card.model_dump(mode="json", include={"family", "files", "decoding", "calibration"})
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
