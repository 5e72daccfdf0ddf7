"""Answer questions over HTTP."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from medical_vqa import registry
from medical_vqa.errors import MedicalVqaError
from medical_vqa.pipelines.load import SHIPPED, LoadedModel, load

if TYPE_CHECKING:
    from medical_vqa.serving.engine.local import Engine
    from medical_vqa.serving.engine.remote import RemoteEngine
    from medical_vqa.serving.metrics import Metrics
    from medical_vqa.serving.settings import Settings


REMOTE_TRIES = 2  # somebody waits: an engine that is down is better said at once
STOP_SECONDS = 5.0  # beyond the drain timeout, for a worker to close its model and its decoders
STEP_SECONDS = 0.015  # of a model that chooses among answers; one that writes them is slow without batches
CPU_BATCH_SIZE, GPU_BATCH_SIZE = 8, 64  # on a few cores a larger batch only makes each question wait longer


def serve(settings: Settings, announce: Callable[[str], None] | None = None) -> None:
    """Answer questions over HTTP until the process is stopped.

    Args:
        settings: Of the server.
        announce: Receives the server's address once it listens there.

    Raises:
        BundleError: The model cannot be loaded.
        ConfigError: The address is in use or the image store is unavailable.
        EndpointError: A remote model cannot be asked; one that is merely down is waited for.
    """
    if settings.workers > 1:
        _serve_in_workers(settings, announce)
    else:
        _serve_here(settings, announce)


def _serve_in_workers(settings: Settings, announce: Callable[[str], None] | None) -> None:
    from medical_vqa.serving.logs import configure_logging
    from medical_vqa.serving.server import address_of, listen
    from medical_vqa.serving.workers import Workers

    configure_logging(settings.log_level, style=settings.log_format)
    listener = listen(settings)
    address = address_of(listener)
    workers = Workers(_work, settings.for_one_worker(), listener, settings.workers)
    stop_seconds = max(settings.drain_timeout, settings.remote_deadline) + STOP_SECONDS
    workers.run(on_ready=lambda: announce(address) if announce is not None else None, stop_seconds=stop_seconds)


def _work(settings: Settings, listener: socket.socket, ready: Callable[[], None]) -> None:
    """What each process of a server with several does; a mistake of the user is one sentence, as in the first."""
    try:
        _serve_here(settings, lambda _: ready(), listener)
    except MedicalVqaError as error:
        sys.exit(f"medical-vqa: {error}")


def _serve_here(
    settings: Settings, announce: Callable[[str], None] | None, listener: socket.socket | None = None
) -> None:
    from medical_vqa.serving.engine.remote import RemoteEngine
    from medical_vqa.serving.server import run
    from medical_vqa.serving.service.decoders import Decoders

    decoders = Decoders(settings)
    decoders.start()  # before the model is loaded, which takes as long, so that the first upload waits for neither
    try:
        engine = build_engine(settings)
        if isinstance(engine, RemoteEngine):
            engine.check()  # before anything listens, so that a wrong key or name is one sentence
    except BaseException:
        decoders.close()
        raise

    def load_model(name: str, metrics: Metrics) -> Engine | RemoteEngine:
        return build_engine(settings.model_copy(update={"model": name, "base_url": None}), metrics)

    run(engine, settings, announce, load_model, listener=listener, decoders=decoders)


def build_engine(settings: Settings, metrics: Metrics | None = None) -> Engine | RemoteEngine:
    """The engine of a model: a local one with the batch size of its device, or one in front of a remote model.

    Args:
        settings: Which model, where it runs, and the sizes of batches and queues.
        metrics: Where its work is counted; None: metrics of its own.

    Raises:
        MedicalVqaError: The model cannot be loaded.
    """
    loaded = load(
        settings.model or SHIPPED,
        device=settings.device,
        base_url=settings.base_url,
        api_key_env=settings.api_key_env,
        allow_http=settings.allow_http,
        concurrency=settings.remote_concurrency,
        tries=REMOTE_TRIES,
        for_any_model=True,
    )
    if loaded.usage is None:
        return local_engine(loaded, settings, metrics)
    return remote_engine(loaded, settings, metrics)


def local_engine(loaded: LoadedModel, settings: Settings, metrics: Metrics | None = None) -> Engine:
    """The engine that runs a model in this process."""
    from medical_vqa.runtime.devices import choose_device
    from medical_vqa.serving.engine.answers import EngineOptions
    from medical_vqa.serving.engine.local import Engine

    family = registry.find("models", loaded.card.family)
    on_gpu = family.needs_torch and choose_device(settings.device).type != "cpu"
    options = EngineOptions(
        batch_size=settings.batch_size or (GPU_BATCH_SIZE if on_gpu else CPU_BATCH_SIZE),
        batch_wait=settings.batch_wait_ms / 1000,
        queue_size=settings.queue_size,
        deadline=settings.deadline,
        contended_batch_size=None if on_gpu else 1,  # on a few cores a batch saves at most a tenth
        step_seconds=STEP_SECONDS if loaded.model.has_closed_answers and not on_gpu else None,
        answer_cache_size=settings.answer_cache_size,
        answer_ttl=settings.store_ttl,
    )
    return Engine(loaded.model, loaded.card, options, metrics=metrics, guards=loaded.guards)


def remote_engine(loaded: LoadedModel, settings: Settings, metrics: Metrics | None = None) -> RemoteEngine:
    """The engine that asks a model behind an endpoint."""
    from medical_vqa.models.remote.model import RemoteModel
    from medical_vqa.serving.engine.answers import EngineOptions
    from medical_vqa.serving.engine.remote import RemoteEngine

    assert isinstance(loaded.model, RemoteModel)
    options = EngineOptions(
        queue_size=settings.queue_size,
        deadline=settings.remote_deadline,
        answer_cache_size=settings.answer_cache_size,
        answer_ttl=settings.store_ttl,
    )
    return RemoteEngine(loaded.model, loaded.card, options, metrics=metrics)
