"""Whose work the model computes next: requests of many clients wait in a bounded queue and are computed in batches.

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
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from medical_vqa.serving.clients import current_client
from medical_vqa.serving.engine.answers import EngineAnswer, EngineOptions, ModelAnswer
from medical_vqa.serving.engine.work import Batch, Task, Work, settle
from medical_vqa.serving.errors import deadline_exceeded, overloaded, shutting_down
from medical_vqa.serving.fair_queue import FairQueue
from medical_vqa.serving.metrics import Metrics

_RECENT_SECONDS = 1.0  # a client that asked so lately counts as one that asks
_THREADS = 4  # batches at once, all but one of which are interrupted
_LEAST_COST = 1e-3  # seconds of work that was never measured
_SMOOTHING = 0.2  # weight of the newest batch in the moving average of seconds per item


class Scheduler:
    """A queue of work, and the threads that compute it in turn."""

    def __init__(
        self,
        options: EngineOptions,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up the queue; `start` starts the threads.

        Args:
            options: Sizes and times.
            metrics: Where work is counted.
            clock: Measures what work costs, in seconds.
        """
        self._options = options
        self._metrics = metrics
        self._clock = clock
        self._queue: FairQueue[Work] = FairQueue()
        lock = threading.RLock()
        self._work_arrived = threading.Condition(lock)  # for a thread without a batch
        self._turn_ended = threading.Condition(lock)  # for those whose batch was interrupted
        self._company_arrived = threading.Condition(lock)  # for one that waits for more questions
        self._current: Batch | None = None  # what is being computed or put together
        self._interrupted: list[Batch] = []
        self._asked_at: dict[tuple[str, str], float] = {}  # of the clients that asked lately
        self._last_batch_size = 1
        self._seconds_per_item = 0.0
        self._closed = False
        self._threads: list[threading.Thread] = []

    def start(self, compute: Callable[[Sequence[Work]], Sequence[Any]]) -> None:
        """Accept work from now on.

        Args:
            compute: Called in a thread with the work of a batch; returns one result or exception per piece.
        """
        count = 1 if self._options.step_seconds is None else _THREADS
        self._threads = [
            threading.Thread(target=self._run, args=(compute,), name=f"model-{n}", daemon=True) for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Questions and pictures in the queue."""
        return len(self._queue)

    @property
    def seconds_per_item(self) -> float:
        """Moving average of the time that a question or picture takes."""
        return self._seconds_per_item

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

    def queued(self) -> list[Work]:
        """The work that waits."""
        with self._work_arrived:
            return list(self._queue)

    def mark_deleted(self, image: str) -> None:
        """Have no answer cached about pictures whose key begins so, of the work that waits or is being computed."""
        with self._work_arrived:
            batches = [*self._interrupted, *([self._current] if self._current else [])]
            for work in (*self._queue, *(work for batch in batches for work in batch.work)):
                if work.task.names(image):
                    work.cacheable = False

    async def submit(self, task: Task, received: float | None = None) -> Any:
        """The result of a task of the current client.

        Args:
            task: What to compute.
            received: When the request arrived (`time.monotonic`): its deadline counts from there; None: now.

        Raises:
            ApiError: Too much is queued, the deadline has passed, or the computation failed.
        """
        loop, now = asyncio.get_running_loop(), time.monotonic()
        deadline = (now if received is None else received) + self._options.deadline
        client = current_client()
        work = Work(task, deadline, loop.create_future(), loop, client.queue, client.name)
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
        """Whether a tenant must come back later: the queue is full, or what is ahead takes longer than the deadline."""
        if self._queue.is_full_for(tenant, self._options.queue_size):
            return True
        waiting, own = len(self._queue), self._queue.waiting(tenant)
        ahead = min(waiting, own * (self._queue.tenants + (own == 0)))
        return ahead * self._seconds_per_item > self._options.deadline

    def _backlog(self) -> float:
        """Seconds until the work that is queued now will be done."""
        return len(self._queue) * self._seconds_per_item

    # --- in the threads -----------------------------------------------------------------------------------------------

    def _run(self, compute: Callable[[Sequence[Work]], Sequence[Any]]) -> None:
        while (batch := self._next_batch()) is not None:
            if batch.work:
                self._process(batch, compute)
            with self._work_arrived:
                self._end_turn()

    def _next_batch(self) -> Batch | None:
        """Work to do together, which is then the current batch; None when there will be no more."""
        with self._work_arrived:
            self._work_arrived.wait_for(self._queue_is_next)
            if not len(self._queue):
                self._work_arrived.notify_all()  # for there will be no more
                return None
            batch = self._current = Batch([])
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

    def _first_interrupted(self) -> tuple[tuple[float, float], Batch]:
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

    def let_others_go_first(self) -> None:
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

    def _charge(self, batch: Batch, *, complete: bool = False) -> None:
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
        wait_until = min(work.arrived for work in self._queue.heads()) + self._options.batch_wait
        self._company_arrived.wait_for(
            lambda: len(self._queue) >= expected or self._closed, timeout=max(0.0, wait_until - time.monotonic())
        )

    def _drop_stale(self) -> None:
        """Remove the work of clients that have disconnected, and work past its deadline."""
        now = time.monotonic()
        for work in self._queue.remove(lambda work: work.future.cancelled() or work.deadline <= now):
            self._metrics.dropped.labels("gone" if work.future.cancelled() else "deadline").inc()

    def _fill(self, batch: Batch) -> None:
        """Add what is next in turn, with more of the same: either questions, about one image first, or pictures."""
        if not len(self._queue):
            return
        size, interruptible = self._largest_batch(), self._options.step_seconds is not None
        # One that is interrupted pays as it goes, and is of one client; of others each pays in advance for its work.
        cost = 0.0 if interruptible else max(self._seconds_per_item, _LEAST_COST)
        _, first = self._queue.pop(cost)
        batch.work.append(first)
        if first.task.call is not None:
            batch.charged = cost
            return

        def fits(work: Work) -> bool:
            same_client = (work.tenant, work.client) == batch.sender
            same_operation = work.task.operation == first.task.operation
            return same_operation and (same_client or not interruptible)

        with contextlib.suppress(LookupError):
            while len(batch.work) < size:
                _, work = self._queue.pop(cost, fits=fits, prefer=lambda work: work.task.image == first.task.image)
                batch.work.append(work)
        batch.charged = cost * len(batch.work)

    def _largest_batch(self) -> int:
        """How much may be done together now: less while several clients ask."""
        since = time.monotonic() - _RECENT_SECONDS
        self._asked_at = {sender: at for sender, at in self._asked_at.items() if at > since}
        several = len(self._asked_at) > 1 or self._queue.clients > 1
        return (several and self._options.contended_batch_size) or self._options.batch_size

    def _process(self, current: Batch, compute: Callable[[Sequence[Work]], Sequence[Any]]) -> None:
        batch = current.work
        operation = batch[0].task.operation
        start = time.monotonic()
        results = compute(batch)
        with self._work_arrived:
            self._charge(current, complete=True)
        seconds = current.seconds
        items = sum(max(1, work.task.count) for work in batch)
        self._seconds_per_item += _SMOOTHING * (seconds / items - self._seconds_per_item)
        self._metrics.batch_size.labels(operation).observe(len(batch))
        self._metrics.model_seconds.labels(operation).observe(seconds)
        for work in batch:
            self._metrics.queue_seconds.observe(start - work.arrived)
        timed = [
            EngineAnswer(result, start - work.arrived, seconds, len(batch))
            if isinstance(result, ModelAnswer)
            else result
            for work, result in zip(batch, results, strict=True)
        ]
        for loop in {work.loop for work in batch}:
            settled = [(work.future, result) for work, result in zip(batch, timed, strict=True) if work.loop is loop]
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it those who waited
                loop.call_soon_threadsafe(settle, settled)
