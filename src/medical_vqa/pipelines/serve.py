"""Answer questions over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medical_vqa import registry
from medical_vqa.pipelines.bundles import find_bundle, load_model, shipped_bundle

if TYPE_CHECKING:
    from medical_vqa.serving.engine import Engine
    from medical_vqa.serving.settings import Settings


CPU_BATCH, GPU_BATCH = 8, 64  # questions that a server answers at once: on few cores more only make each wait longer


def serve(settings: Settings) -> None:
    """Answer questions over HTTP until the process is told to stop.

    Raises `BundleError`, or `ConfigError` when the address is taken or the store of images cannot be reached.
    """
    from medical_vqa.serving.server import run

    run(engine_for(settings), settings)


def engine_for(settings: Settings) -> Engine:
    """The engine that answers for a bundle, sized for its device."""
    from medical_vqa.runtime.devices import choose_device
    from medical_vqa.serving.engine import Engine

    model, card = load_model(find_bundle(settings.model or shipped_bundle()), settings.device)
    on_gpu = registry.find("models", card.family).needs_torch and choose_device(settings.device).type != "cpu"
    return Engine(
        model,
        card,
        batch=settings.batch or (GPU_BATCH if on_gpu else CPU_BATCH),
        wait=settings.batch_wait_ms / 1000,
        queue=settings.queue,
        deadline=settings.deadline,
        cached=settings.cached_answers,
    )
