"""Answer questions over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medical_vqa import registry
from medical_vqa.pipelines.bundles import load_model
from medical_vqa.pipelines.load import SHIPPED, bundle_folder

if TYPE_CHECKING:
    from medical_vqa.serving.engine import Engine
    from medical_vqa.serving.settings import Settings


CPU_BATCH_SIZE, GPU_BATCH_SIZE = 8, 64  # on a few cores a larger batch only makes each question wait longer


def serve(settings: Settings) -> None:
    """Answer questions over HTTP until the process is stopped.

    Raises `BundleError`, or `ConfigError` when the address is in use or the image store is unavailable.
    """
    from medical_vqa.serving.server import run

    run(build_engine(settings), settings)


def build_engine(settings: Settings) -> Engine:
    """The engine that answers with a bundle's model, with the batch size of its device."""
    from medical_vqa.models.guards.guard import Guards
    from medical_vqa.runtime.devices import choose_device
    from medical_vqa.serving.engine import Engine, EngineOptions

    bundle = bundle_folder(settings.model or SHIPPED)
    model, card = load_model(bundle, settings.device)
    on_gpu = registry.find("models", card.family).needs_torch and choose_device(settings.device).type != "cpu"
    options = EngineOptions(
        batch_size=settings.batch_size or (GPU_BATCH_SIZE if on_gpu else CPU_BATCH_SIZE),
        batch_wait=settings.batch_wait_ms / 1000,
        queue_size=settings.queue_size,
        deadline=settings.deadline,
        answer_cache_size=settings.answer_cache_size,
    )
    return Engine(model, card, options, guards=Guards.load(model, card, bundle))
