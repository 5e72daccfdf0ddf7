"""The models of one server: chosen for each request, loaded, replaced and removed while it runs.

All use one image store, the same decoders and one audit log; each has its own queue, threads and caches. A request that
names no model is answered by the default model or, for a part of the images, by a canary: the same image always by the
same one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medical_vqa.errors import ConfigError, MedicalVqaError
from medical_vqa.serving.engine.local import Engine
from medical_vqa.serving.engine.remote import RemoteEngine
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.metrics import Metrics
from medical_vqa.serving.service.service import Service
from medical_vqa.serving.settings import parse_further_model

LoadModel = Callable[[str, Metrics], Engine | RemoteEngine]
"""Loads what `--model` may name; raises `MedicalVqaError`."""
DEFAULT = "medical-vqa"
"""A name of the default model, whatever its own."""
_MOST = 16  # models at once
_SHOW_SECONDS = 1.0  # between two values of a gauge that several processes share


@dataclass(slots=True)
class ServedModel:
    """One model of the server."""

    name: str
    """By which requests choose it."""
    service: Service
    """Answers with it."""
    fraction: float = 0.0
    """Part of the images whose questions it answers where a request names no model; of the default model, the rest."""
    memory_bytes: int | None = None
    """Memory by which the process grew when it was loaded; None: not measured."""
    loaded_at: float = field(default_factory=time.time)
    """Unix time."""


class Models:
    """The models by name; used from the event loop alone."""

    def __init__(self, default: Service, load: LoadModel | None = None) -> None:
        """Begin with one model.

        Args:
            default: Answers with the default model.
            load: Loads further ones; None: there will be none.
        """
        self._load = load
        self._default_name = default.model.name
        self._served = {default.model.name: ServedModel(default.model.name, default)}
        self._loading = asyncio.Lock()
        self._closing: dict[Service, asyncio.Task[None]] = {}
        """Those that were replaced or removed -> what closes them later."""
        self._showing: asyncio.Task[None] | None = None
        self._metrics = default.engine.metrics
        self._metrics.queue_size.set_function(lambda: sum(model.service.engine.waiting for model in self))

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(list(self._served.values()))

    @property
    def default(self) -> Service:
        """Answers with the default model."""
        return self._served[self._default_name].service

    def is_default(self, model: ServedModel) -> bool:
        """Whether a request that names no model is answered by this one."""
        return model.name == self._default_name

    def choose(self, name: str | None, image: str = "") -> Service:
        """The service of the model that answers a request.

        Args:
            name: Of the model; None: the default one, or a canary.
            image: Id of the image: questions about one image are answered by one model.

        Raises:
            ApiError: There is no such model (404).
        """
        if name is None:
            return self._default_or_canary(image)
        if name == DEFAULT:
            return self.default
        if name not in self._served:
            raise ApiError(404, "not_found", f"this server serves {', '.join(self._served)}; name one", param="model")
        return self._served[name].service

    def _default_or_canary(self, image: str) -> Service:
        canaries = [model for model in self._served.values() if model.fraction > 0 and not self.is_default(model)]
        if canaries:
            point = int.from_bytes(hashlib.sha256(image.encode()).digest()[:6], "big") / 2**48
            for model in canaries:
                if point < model.fraction:
                    return model.service
                point -= model.fraction
        return self.default

    async def load(self, name: str, source: str, fraction: float = 0.0) -> ServedModel:
        """Load a model, or replace the one of this name; requests that the old one has accepted are answered by it.

        Args:
            name: By which requests choose it.
            source: What `--model` may name.
            fraction: Part of the images that it answers as a canary.

        Raises:
            ApiError: 422 where the model cannot be loaded, 409 where there are too many.
        """
        if self._load is None:
            raise ApiError(403, "forbidden", "this server loads no models; start it with medical-vqa serve")
        async with self._loading:
            if name not in self._served and len(self._served) >= _MOST:
                raise ApiError(422, "invalid", f"this server has {_MOST} models; remove one first")
            others = sum(model.fraction for model in self._served.values() if model.name != name)
            if others + fraction > 1:
                raise ApiError(422, "invalid", "the canaries' fractions have a sum above 1; choose a smaller one")
            before = _resident_bytes()
            try:
                engine = await asyncio.to_thread(self._load, source, self._metrics)
                await _started(engine)
            except MedicalVqaError as error:
                raise ApiError(422, "invalid", f"the model cannot be loaded: {error}") from error
            after = _resident_bytes()
            memory = max(0, after - before) if after is not None and before is not None else None
            old = self._served.get(name)
            self._served[name] = ServedModel(name, self.default.with_engine(engine), fraction, memory)
            self._show(self._served[name])
            if old is not None:
                self._close_later(old)
            return self._served[name]

    def set_fraction(self, name: str, fraction: float) -> ServedModel:
        """Change a canary's part; 1 makes it the default model.

        Args:
            name: Of the model.
            fraction: In [0, 1].

        Raises:
            ApiError: There is no such model (404), or the parts have a sum above 1 (422).
        """
        self.choose(name)
        model = self._served[name]
        if fraction >= 1:
            self._default_name = name
            for other in self._served.values():
                other.fraction = 0.0
            return model
        if sum(other.fraction for other in self._served.values() if other is not model) + fraction > 1:
            raise ApiError(422, "invalid", "the canaries' fractions have a sum above 1; choose a smaller one")
        model.fraction = fraction
        return model

    def remove(self, name: str) -> None:
        """Remove a model; raises `ApiError` (404, or 422 for the default one)."""
        self.choose(name)
        if name in (self._default_name, DEFAULT):
            raise ApiError(422, "invalid", "this is the default model; give another one the fraction 1 first")
        self._close_later(self._served.pop(name))
        self._metrics.model_queue.remove(name)
        self._metrics.model_memory.remove(name)

    async def start(self, further: tuple[str, ...] = ()) -> None:
        """Start the default model, and load others given as NAME=MODEL or NAME=MODEL@FRACTION."""
        before = _resident_bytes()
        await self.default.start()
        if self._metrics.of_several_processes:
            self._showing = asyncio.create_task(self.show_queues())
        after = _resident_bytes()
        if before is not None and after is not None:
            self._served[self._default_name].memory_bytes = max(0, after - before)
        self._show(self._served[self._default_name])
        for entry in further:
            name, source, fraction = parse_further_model(entry)
            try:
                await self.load(name, source, fraction)
            except ApiError as error:
                raise ConfigError(f"setting FURTHER_MODELS: {name}: {error}; correct it") from None

    async def close(self) -> None:
        """Finish the queued work of every model, and stop."""
        tasks = [*self._closing.values(), *([] if self._showing is None else [self._showing])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with contextlib.AsyncExitStack() as closing:  # the others also where one cannot be closed
            closing.push_async_callback(self.default.close)
            for service in (*self._closing, *(model.service for model in self if not self.is_default(model))):
                closing.push_async_callback(_close, service)

    async def show_queues(self) -> None:
        """Keep the gauges of queues up to date where they are not computed when they are read, until canceled."""
        while True:
            self._metrics.queue_size.set(sum(model.service.engine.waiting for model in self))
            for model in self:
                self._metrics.model_queue.labels(model.name).set(model.service.engine.waiting)
            await asyncio.sleep(_SHOW_SECONDS)

    def forget(self, image_id: str) -> None:
        """Remove a deleted image, and the answers about it, from the memory of every model."""
        for model in self:
            model.service.images.forget(image_id)

    def _show(self, model: ServedModel) -> None:
        """Add a model to the metrics."""
        self._metrics.model_queue.labels(model.name).set_function(lambda: model.service.engine.waiting)
        self._metrics.model_memory.labels(model.name).set(model.memory_bytes or 0)

    def _close_later(self, model: ServedModel) -> None:
        """Close a model once every request that has chosen it has been answered or refused."""

        async def close() -> None:
            await asyncio.sleep(model.service.engine.options.deadline)
            await _close(model.service)
            del self._closing[model.service]

        self._closing[model.service] = asyncio.create_task(close())


async def _started(engine: Engine | RemoteEngine) -> None:
    """Start an engine; one that cannot start is closed."""
    try:
        await asyncio.to_thread(engine.start)
    except BaseException:
        await asyncio.to_thread(engine.close)
        raise


async def _close(service: Service) -> None:
    """Finish the queued work of one model, and stop what the others do not share."""
    await asyncio.to_thread(service.engine.close)
    await asyncio.to_thread(service.images.close)


def _resident_bytes() -> int | None:
    """Memory of this process; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * 4096
