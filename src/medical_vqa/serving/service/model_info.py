"""The card of the model that answers, and the limits of the server, as a client receives them."""

from __future__ import annotations

from medical_vqa.data.imaging.raster import heic_plugin
from medical_vqa.serving.engine.local import Engine
from medical_vqa.serving.engine.remote import RemoteEngine
from medical_vqa.serving.schema.common import MAX_QUESTION, MAX_QUESTIONS
from medical_vqa.serving.schema.models import Limits, ModelInfo
from medical_vqa.serving.settings import Settings

FORMATS = ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "DICOM", "NIFTI"]
"""Supported file formats."""


def model_info(engine: Engine | RemoteEngine, settings: Settings) -> ModelInfo:
    """The card of an engine's model, and the limits of the server."""
    card = engine.card
    parts = card.model_dump(mode="json")
    return ModelInfo(
        name=card.name,
        family=card.family,
        id=engine.id,
        data={name: value for name, value in (parts["data"] or {}).items() if name != "image_digests"},
        checkpoint_selection=parts["checkpoint_selection"] or {},
        refit_of=parts.get("refit_of") or {},
        facts=parts["facts"],
        decoding=parts["decoding"],
        calibration=parts["calibration"] or {},
        prompt=card.prompt,
        license=card.license,
        intended_use=card.intended_use,
        created=card.created,
        version=card.version,
        has_attention_map=engine.has_attention_map,
        max_pictures=engine.model.max_pictures,
        max_turns=engine.model.max_turns,
        streams=isinstance(engine, RemoteEngine),
        reliability=parts.get("reliability") or [],
        localization=parts.get("localization") or {},
        collects_ratings=settings.feedback is not None,
        limits=Limits(
            max_upload_bytes=settings.max_upload_bytes,
            max_series_bytes=settings.max_series_bytes,
            max_pixels=settings.max_pixels,
            max_question_characters=MAX_QUESTION,
            max_questions=MAX_QUESTIONS,
            formats=[*FORMATS, "HEIC"] if heic_plugin() is not None else FORMATS,
            image_ttl_seconds=settings.store_ttl,
            deadline_seconds=engine.options.deadline,
        ),
    )
