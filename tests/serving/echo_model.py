"""Models for tests of the server: their answers contain the image and the question that they received."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from live import PATIENCE

from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.errors import ModelError
from medical_vqa.models.base import ModelFamily, Query
from medical_vqa.schema.bundle_card import BundleCard, Decoding
from medical_vqa.schema.records import Prediction
from medical_vqa.serving.engine.answers import EngineOptions
from medical_vqa.serving.engine.local import Engine


class MeanVision:
    """The mean of the picture."""

    frozen = True

    def __init__(self, fingerprint: str = "mean") -> None:
        self.fingerprint = fingerprint
        self.encoded = 0

    def encode(self, pictures: Sequence[Any]) -> list[Mapping[str, torch.Tensor]]:
        self.encoded += len(pictures)
        return [{"mean": torch.tensor([float(picture.mean())])} for picture in pictures]

    def to(self, device: Any) -> None:
        pass


class Echo(ModelFamily):
    """Answers ``MEAN QUESTION``; sleeps `seconds` per call; refuses questions that contain "refuse", and
    reaches the limit of tokens at "without end".

    With `hold` it begins to answer and continues only once `release` is called: what happens meanwhile is then a
    matter of order and not of time.
    """

    family = "echo"
    has_attention_maps = True

    def __init__(self, *, seconds: float = 0.0, vision: bool = True, hold: bool = False) -> None:
        self.picture = PictureSpec(side=8)
        self.vision = MeanVision() if vision else None
        self.seconds = seconds
        self.batches: list[list[Query]] = []
        self._released = threading.Event()
        if not hold:
            self.release()

    def release(self) -> None:
        """Let a held model continue."""
        self._released.set()

    async def begun(self) -> None:
        """Wait until it has received a batch after the warm-up's."""
        await wait_until(lambda: len(self.batches) > 1)

    def answer(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:
        self.batches.append(list(queries))
        if len(self.batches) > 1:  # the warm-up is not held
            assert self._released.wait(PATIENCE), "nobody released the model"
        time.sleep(self.seconds)
        if any("refuse" in query.question for query in queries):
            raise ModelError("I refuse; ask something else")
        if any("crash" in query.question for query in queries):
            raise ZeroDivisionError("a bug")
        return [
            Prediction(
                q.id, self._words(q), self._words(q), 0.8, (("other", 0.1),), cut_off="without end" in q.question
            )
            for q in queries
        ]

    def _words(self, query: Query) -> str:
        mean = query.visual["mean"].item() if isinstance(query.visual, Mapping) else float(query.visual.mean())
        return f"{mean:.0f} {query.question}"

    def attention_maps(self, queries: Sequence[Query]) -> list[Any]:
        return [np.full((2, 3), 1 / 6, np.float32) for _ in queries]

    def questions_answered(self) -> float:
        """A clock by which every question takes a second."""
        return float(sum(map(len, self.batches)))

    @property
    def questions(self) -> list[str]:
        return [query.question for batch in self.batches[1:] for query in batch]  # the first was the warm-up


class Remembering(Echo):
    """Reads conversations: two earlier turns, three pictures and a system message."""

    max_pictures = 3
    max_turns = 2
    reads_system = True

    @property
    def last(self) -> Query:
        """The last question that it has received."""
        return self.batches[-1][-1]


def make_engine(
    model: Any = None, card: BundleCard | None = None, clock: Callable[[], float] = time.monotonic, **options: Any
) -> Engine:
    """An engine with a long deadline, unless `options` has another one."""
    card = card or BundleCard(family="echo", name="echo-1", created="2026-11-24T10:00:00+00:00")
    return Engine(model or Echo(), card, EngineOptions(**{"deadline": PATIENCE, **options}), clock=clock)


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


async def wait_for_queue(engine: Engine, count: int) -> None:
    """Wait until this much work is in the engine's queue."""
    await wait_until(lambda: engine.waiting == count)
