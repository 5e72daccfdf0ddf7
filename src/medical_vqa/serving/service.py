"""What the routes do, without HTTP: take an upload, answer questions about it, say what is served."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from medical_vqa.data.imaging.decode import IngestLimits
from medical_vqa.serving.api.schema import (
    MAX_QUESTION,
    MAX_QUESTIONS,
    Alternative,
    Answer,
    Answers,
    AttentionMap,
    Limits,
    ModelInfo,
    ModelRef,
    Timings,
    UploadedImage,
)
from medical_vqa.serving.decoding import Decoded, Decoders, Job
from medical_vqa.serving.engine import Engine, Outcome
from medical_vqa.serving.image_store.backends import Store, open_store
from medical_vqa.serving.image_store.images import Images, Kept
from medical_vqa.serving.settings import Settings

FORMATS = ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "DICOM", "NIFTI"]
_LOG = structlog.get_logger("medical_vqa.serving")
_SWEEP = 60.0  # seconds between two sweeps of the store, at most


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that somebody sent."""

    data: bytes
    """As it came."""
    frame: int | None = None
    """Of several, which one; None: the first, or the middle slice of a volume."""
    window: tuple[float, float] | None = None
    """Center and width, for DICOM and NIfTI."""


class Service:
    """The engine, its images, and the processes that decode."""

    def __init__(self, engine: Engine, settings: Settings, store: Store | None = None) -> None:
        self.engine, self.settings = engine, settings
        self.store = store or open_store(settings.store, ttl=settings.store_ttl, limit=settings.store_bytes)
        self.images = Images(
            self.store, engine, ttl=settings.store_ttl, hot=settings.hot_bytes, keep_originals=settings.keep_originals
        )
        self.decoders = Decoders(
            settings.decoders,
            memory=settings.decoder_bytes,
            timeout=settings.decode_timeout,
            waiting=settings.queue,
            deadline=settings.deadline,
        )
        self._limits = IngestLimits(file_bytes=settings.max_upload_bytes, pixels=settings.max_pixels)
        self._sweeper: asyncio.Task[None] | None = None
        self.model = ModelRef(name=engine.card.name, family=engine.card.family, id=engine.id)

    async def start(self) -> None:
        """Check the store, warm the model up, begin to sweep; raises `ConfigError` when the store is not to be had."""
        await asyncio.to_thread(self.store.check)
        await asyncio.to_thread(self.engine.start)
        self._sweeper = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        """Finish what waits, and stop."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.to_thread(self.engine.close)
        await asyncio.to_thread(self.decoders.close)
        self.images.close()

    async def _sweep(self) -> None:
        ttl = self.settings.store_ttl
        while True:
            await asyncio.sleep(_SWEEP if ttl is None else min(_SWEEP, max(1.0, ttl / 4)))
            with contextlib.suppress(Exception):  # a store that does not answer now is swept next time
                await self.images.sweep()

    async def upload(self, upload: Upload) -> UploadedImage:
        """Decode, encode and keep a picture; raises `RefusedError`."""
        decoded = await self._decode(upload)
        kept = await self.images.add(decoded, upload.data)
        ttl = self.settings.store_ttl
        return UploadedImage(image_id=kept.id, expires_in_seconds=ttl, **decoded.about)

    async def ask(
        self, image_id: str, question: str, *, attention_map: bool = False, began: float | None = None
    ) -> Answer:
        """Answer a question about an upload; raises `RefusedError`. `began` is a `time.monotonic`."""
        started = time.monotonic() if began is None else began
        return await self._answer(await self.images.get(image_id), question, attention_map, started)

    async def ask_many(self, image_id: str, questions: Sequence[str], *, attention_map: bool = False) -> Answers:
        """Answer several questions about an upload, together; raises `RefusedError` where one of them cannot be."""
        began = time.monotonic()
        kept = await self.images.get(image_id)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._answer(kept, question, attention_map, began)) for question in questions]
        return Answers(image_id=image_id, answers=[task.result() for task in asked])

    async def ask_once(self, upload: Upload, question: str, *, attention_map: bool = False) -> Answer:
        """Answer a question about a picture that is not kept; raises `RefusedError`."""
        began = time.monotonic()
        decoded = await self._decode(upload)
        return await self._answer(await self.images.visual(decoded), question, attention_map, began)

    async def _decode(self, upload: Upload) -> Decoded:
        job = Job(upload.data, self._limits, self.engine.model.picture, upload.frame, upload.window)
        return await self.decoders.decode(job)

    async def _answer(self, kept: Kept, question: str, attention_map: bool, began: float) -> Answer:
        asked = question.strip()
        outcome = await self.engine.ask(kept.digest, kept.visual, asked, attention_map=attention_map, since=began)
        if self.settings.log_content:
            _LOG.info("answered", question=asked, answer=outcome.found.prediction.answer)
        return self._worded(kept.id or None, asked, outcome, attention_map, began)

    def _worded(
        self, image_id: str | None, question: str, outcome: Outcome, attention_map: bool, began: float
    ) -> Answer:
        found = outcome.found
        if found.abstention.abstained:
            self.engine.meters.abstained.inc()
        return Answer(
            image_id=image_id,
            question=question,
            answer=found.prediction.answer,
            confidence=found.prediction.confidence,
            alternatives=[Alternative(answer=a, confidence=c) for a, c in found.prediction.alternatives],
            abstained=found.abstention.abstained,
            reason=found.abstention.reason,
            attention_map=_look(found.attention_map) if attention_map else None,
            model=self.model,
            timings=Timings(
                queue_ms=_ms(outcome.waited),
                model_ms=_ms(outcome.ran),
                total_ms=_ms(time.monotonic() - began),
                batch=outcome.batch,
            ),
        )

    def info(self) -> ModelInfo:
        """The card of the model, and what the server takes."""
        card, settings = self.engine.card, self.settings
        parts = card.model_dump(mode="json")
        return ModelInfo(
            name=card.name,
            family=card.family,
            id=self.engine.id,
            data=parts["data"] or {},
            checkpoint_selection=parts["checkpoint_selection"] or {},
            facts=parts["facts"],
            decoding=parts["decoding"],
            calibration=parts["calibration"] or {},
            prompt=card.prompt,
            license=card.license,
            intended_use=card.intended_use,
            created=card.created,
            version=card.version,
            has_attention_map=self.engine.has_attention_map,
            limits=Limits(
                max_upload_bytes=settings.max_upload_bytes,
                max_pixels=settings.max_pixels,
                max_question_characters=MAX_QUESTION,
                max_questions=MAX_QUESTIONS,
                formats=FORMATS,
                image_ttl_seconds=settings.store_ttl,
                deadline_seconds=settings.deadline,
            ),
        )


def _look(found: Any) -> AttentionMap | None:
    if found is None:
        return None
    rows, columns = found.shape
    return AttentionMap(rows=rows, columns=columns, values=[[round(float(v), 6) for v in row] for row in found])


def _ms(seconds: float) -> float:
    return round(1000 * max(0.0, seconds), 2)
