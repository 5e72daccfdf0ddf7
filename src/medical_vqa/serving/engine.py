"""One model and one thread that runs it: requests of many clients meet in a bounded queue and are answered in batches.

The event loop only puts work in and awaits it. Work whose client has gone or whose deadline has passed is dropped
before it is computed. Questions about one image are taken together, because that image's part is then computed once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from medical_vqa.errors import ModelError
from medical_vqa.models.base import Query, VqaModel
from medical_vqa.models.guards.abstention import AbstentionDecision, abstention_decision, calibrated
from medical_vqa.schema.bundle_card import BundleCard
from medical_vqa.schema.records import Prediction
from medical_vqa.serving.errors import RefusedError, defect, overloaded, past_deadline, stopping
from medical_vqa.serving.metrics import Meters

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Features = Mapping[str, Tensor]

_LOG = logging.getLogger("medical_vqa.serving")
_RECENT = 0.2  # weight of the newest batch in the estimate of seconds per item


@dataclass(frozen=True, slots=True)
class Found:
    """What the model says to one question."""

    prediction: Prediction
    """With the calibrated confidence."""
    abstention: AbstentionDecision
    """Whether it should be relied on."""
    attention_map: NDArray[np.float32] | None = None
    """Where it comes from (rows, columns); None unless asked for."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`Found`, and what it took."""

    found: Found
    """The answer."""
    waited: float = 0.0
    """Seconds in the queue."""
    ran: float = 0.0
    """Seconds of the batch in the model."""
    batch: int = 0
    """Questions in that batch; 0: remembered."""


@dataclass(slots=True, eq=False)
class _Work:
    """One question or one picture to encode, and who waits for it."""

    image: str
    visual: Any
    deadline: float
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    question: str | None = None  # None: encode the picture
    attention_map: bool = False
    arrived: float = field(default_factory=time.monotonic)


class Engine:
    """Answers questions about pictures that `encode` has seen."""

    def __init__(
        self,
        model: VqaModel,
        card: BundleCard,
        *,
        batch: int = 8,
        wait: float = 0.003,
        queue: int = 256,
        deadline: float = 7.0,
        cached: int = 10_000,
        meters: Meters | None = None,
    ) -> None:
        """`wait` and `deadline` are seconds; `queue` is how many may wait; `cached` how many answers are remembered."""
        self.model, self.card, self.deadline = model, card, deadline
        self.meters = meters or Meters()
        self.id = _identity(card)
        self.has_attention_map = model.has_attention_maps
        self.fingerprint = model.vision.fingerprint if model.vision is not None else self.id
        self.batch, self._wait, self._limit = batch, wait, queue
        self._queue: deque[_Work] = deque()
        self._changed = threading.Condition()
        self._remembered = _Remembered(cached)
        self._last, self._seconds, self._closed = 1, 0.0, False
        self._thread: threading.Thread | None = None
        self.meters.waiting.set_function(lambda: len(self._queue))

    def start(self) -> None:
        """Answer one question, so that the first client waits for nothing, and take work from now on."""
        self._warm_up()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether it takes work."""
        return self._thread is not None and self._thread.is_alive() and not self._closed

    def close(self) -> None:
        """Finish what waits, and stop."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    async def ask(
        self,
        image: str,
        visual: NDArray[np.uint8] | Features,
        question: str,
        *,
        attention_map: bool = False,
        since: float | None = None,
    ) -> Outcome:
        """The answer to a question; raises `RefusedError`.

        `image` is the digest of the picture; `since` is when the request came (`time.monotonic`): its deadline counts
        from there.
        """
        if (known := self._remembered.get((image, question), attention_map)) is not None:
            self.meters.cache.labels("hit").inc()
            return Outcome(known)
        self.meters.cache.labels("miss").inc()
        outcome: Outcome = await self._submit(image, visual, question, attention_map and self.has_attention_map, since)
        return outcome

    async def encode(self, image: str, picture: NDArray[np.uint8]) -> Features | None:
        """What the model keeps of a picture; None where nothing of it can be reused. Raises `RefusedError`."""
        if self.model.vision is None:
            return None
        features: Features = await self._submit(image, picture, None, False, None)
        return features

    async def _submit(
        self, image: str, visual: Any, question: str | None, attention_map: bool, since: float | None
    ) -> Any:
        loop, now = asyncio.get_running_loop(), time.monotonic()
        until = (now if since is None else since) + self.deadline
        work = _Work(image, visual, until, loop.create_future(), loop, question, attention_map)
        self._enqueue(work)
        try:
            async with asyncio.timeout(until - now):
                result = await work.future
        except TimeoutError:
            raise past_deadline(self._backlog()) from None
        if time.monotonic() > work.deadline:  # it was ready in time, but this loop was too busy to notice
            raise past_deadline(self._backlog())
        return result

    def _enqueue(self, work: _Work) -> None:
        with self._changed:
            if self._closed:
                raise stopping()
            if len(self._queue) >= self._limit or self._backlog() > self.deadline:
                raise overloaded(self._backlog())
            self._queue.append(work)
            self._changed.notify_all()

    def _backlog(self) -> float:
        """Seconds until what waits now is done."""
        return len(self._queue) * self._seconds

    # --- the model's thread -------------------------------------------------------------------------------------------

    def _warm_up(self) -> None:
        spec = self.model.picture
        shape = (1, 1, 1) if spec is None else (spec.side, spec.side, spec.channels)
        picture = np.zeros(shape, np.uint8)
        visual = self.model.vision.encode([picture])[0] if self.model.vision is not None else picture
        self._answer([Query("0", "What is shown?", "warm", visual)], [self.has_attention_map])

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            if batch:
                self._do(batch)

    def _take(self) -> list[_Work] | None:
        """Work to do together; None when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if not self._queue:
                return None
            self._linger()
            self._drop_stale()
            batch = self._choose()
            self._last = max(1, len(batch))
            return batch

    def _linger(self) -> None:
        """Where several clients ask at once, give those that have just been answered the time to ask again."""
        if self._last > 1 and not self._closed:
            wanted = min(self.batch, self._last)
            until = self._queue[0].arrived + self._wait
            self._changed.wait_for(lambda: len(self._queue) >= wanted, timeout=max(0.0, until - time.monotonic()))

    def _drop_stale(self) -> None:
        now, kept = time.monotonic(), deque[_Work]()
        for work in self._queue:
            if work.future.cancelled():
                self.meters.dropped.labels("gone").inc()
            elif work.deadline <= now:
                self.meters.dropped.labels("deadline").inc()
            else:
                kept.append(work)
        self._queue = kept

    def _choose(self) -> list[_Work]:
        """The oldest, those about its image, and then the next oldest of its kind."""
        if not self._queue:
            return []
        first = self._queue[0]
        alike = [work for work in self._queue if (work.question is None) == (first.question is None)]
        alike.sort(key=lambda work: work.image != first.image)  # stable: the oldest first among equals
        chosen = alike[: self.batch]
        taken = set(map(id, chosen))
        self._queue = deque(work for work in self._queue if id(work) not in taken)
        return chosen

    def _do(self, batch: list[_Work]) -> None:
        kind = "encode" if batch[0].question is None else "answer"
        began = time.monotonic()
        results = self._results(batch)
        took = time.monotonic() - began
        self._seconds += _RECENT * (took / len(batch) - self._seconds)
        self.meters.batch.labels(kind).observe(len(batch))
        self.meters.model_seconds.labels(kind).observe(took)
        for work in batch:
            self.meters.wait_seconds.observe(began - work.arrived)
        done = [
            (work, Outcome(result, began - work.arrived, took, len(batch)) if isinstance(result, Found) else result)
            for work, result in zip(batch, results, strict=True)
        ]
        for loop in {work.loop for work in batch}:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it those who waited
                loop.call_soon_threadsafe(_settle, [(w.future, result) for w, result in done if w.loop is loop])

    def _results(self, batch: list[_Work]) -> Sequence[Any]:
        """One result or exception per piece of work; a piece that fails does not take the others with it."""
        try:
            return self._encoded(batch) if batch[0].question is None else self._answers(batch)
        except Exception as error:
            if len(batch) > 1:
                return [self._results([work])[0] for work in batch]
            if isinstance(error, ModelError):
                return [RefusedError(422, "invalid", str(error))]
            _LOG.exception("the model failed")
            return [defect()]

    def _encoded(self, batch: list[_Work]) -> list[Features]:
        pictures = {work.image: work.visual for work in batch}
        encoded = self.model.vision.encode(list(pictures.values())) if self.model.vision is not None else []
        kept = {
            image: {name: _on_host(tensor) for name, tensor in features.items()}
            for image, features in zip(pictures, encoded, strict=True)
        }
        return [kept[work.image] for work in batch]

    def _answers(self, batch: list[_Work]) -> list[Found]:
        asked: dict[tuple[str, str], _Work] = {}
        attention_maps: dict[tuple[str, str], bool] = {}
        for work in batch:
            key = (work.image, work.question or "")
            asked.setdefault(key, work)
            attention_maps[key] = attention_maps.get(key, False) or work.attention_map
        queries = [Query(str(n), w.question or "", w.image, w.visual) for n, w in enumerate(asked.values())]
        found = dict(zip(asked, self._answer(queries, list(attention_maps.values())), strict=True))
        for key, answer in found.items():
            self._remembered.put(key, answer)
        return [found[work.image, work.question or ""] for work in batch]

    def _answer(self, queries: Sequence[Query], attention_map: Sequence[bool]) -> list[Found]:
        predictions = [calibrated(p, self.card) for p in self.model.answer(queries, self.card.decoding)]
        verdicts = [abstention_decision(self.model, self.card, q, p) for q, p in zip(queries, predictions, strict=True)]
        wanted = [query for query, asked in zip(queries, attention_map, strict=True) if asked]
        maps = iter(self.model.attention_maps(wanted) if wanted and self.has_attention_map else ())
        return [
            Found(prediction, judged, next(maps, None) if asked else None)
            for prediction, judged, asked in zip(predictions, verdicts, attention_map, strict=True)
        ]


class _Remembered:
    """The last answers, by image and question; model and decoding are those of the engine that owns it."""

    def __init__(self, limit: int) -> None:
        self._limit, self._lock = limit, threading.Lock()
        self._found: OrderedDict[tuple[str, str], Found] = OrderedDict()

    def get(self, key: tuple[str, str], attention_map: bool) -> Found | None:
        with self._lock:
            found = self._found.get(key)
            if found is None or (attention_map and found.attention_map is None):
                return None
            self._found.move_to_end(key)
            return found

    def put(self, key: tuple[str, str], found: Found) -> None:
        with self._lock:
            self._found[key] = found
            self._found.move_to_end(key)
            while len(self._found) > self._limit:
                self._found.popitem(last=False)


def _settle(done: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    """In the event loop: hand over results to those who still wait."""
    for future, result in done:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)


def _on_host(tensor: Any) -> Any:
    return tensor if isinstance(tensor, np.ndarray) else tensor.detach().cpu()


def _identity(card: BundleCard) -> str:
    """Equal for bundles that answer equally: their files, decoding and calibration."""
    about = card.model_dump(mode="json", include={"family", "files", "decoding", "calibration"})
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
