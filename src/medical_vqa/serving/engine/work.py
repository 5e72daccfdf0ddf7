"""What waits for the model and what it computes at once: tasks, work and batches."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from medical_vqa.data.imaging.picture_statistics import PictureContext
from medical_vqa.models.base import Query
from medical_vqa.serving.engine.answer_cache import Key


@dataclass(frozen=True, slots=True)
class Task:
    """A question to answer, a picture to encode, or something else that a model computes."""

    image: str = ""
    """Key of the picture."""
    visual: Any = None
    """The picture as the model needs it, or its features."""
    query: Query | None = None
    """The question about the picture; None: encode it."""
    call: Callable[[], Any] | None = None
    """What to compute in place of both, alone."""
    count: int = 1
    """Questions that the call answers: it takes the time of as many."""
    attention_map: bool = False
    """Whether the answer needs its attention map."""
    contexts: Mapping[str, PictureContext] = field(default_factory=dict, hash=False)
    """Key of a picture -> what is known of it apart from its pixels."""

    @property
    def key(self) -> Key:
        """What the answer depends on."""
        assert self.query is not None
        return Key.of(self.query)

    def names(self, image: str) -> bool:
        """Whether it is about an image whose key begins so."""
        return self.image.startswith(image) if self.query is None else self.key.names(image)

    @property
    def operation(self) -> Literal["answer", "encode", "localize"]:
        """What is computed, as the metrics name it."""
        if self.call is not None:
            return "localize"
        return "encode" if self.query is None else "answer"


@dataclass(slots=True, eq=False)
class Work:
    """A task of a client, and the future of whoever awaits it."""

    task: Task
    deadline: float
    """In seconds of `time.monotonic`."""
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    tenant: str = ""
    client: str = ""
    cacheable: bool = True
    """Not once its image has been deleted."""
    arrived: float = field(default_factory=time.monotonic)
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    """For the request's id in the log."""


@dataclass(slots=True, eq=False)
class Batch:
    """Work that is done together, charged to the client of its first piece."""

    work: list[Work]
    step_began: float = 0.0
    seconds: float = 0.0
    """Computed so far."""
    charged: float = 0.0
    """Seconds charged so far."""

    @property
    def sender(self) -> tuple[str, str]:
        """Tenant and client."""
        return self.work[0].tenant, self.work[0].client


def settle(results: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    """In the event loop: pass results to those who still wait."""
    for future, result in results:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
