"""The use cases of the server, without HTTP: accept an upload, answer questions about it, describe the model."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import structlog

from medical_vqa.data.imaging.decoded_frame import DecodeLimits
from medical_vqa.data.imaging.dicomweb import DicomwebAddress
from medical_vqa.data.imaging.raster import heic_plugin
from medical_vqa.errors import ConfigError
from medical_vqa.serving.audit_log import AuditLog
from medical_vqa.serving.clients import current_client
from medical_vqa.serving.decoding.decoded_image import DecodedImage
from medical_vqa.serving.decoding.pool import DecoderLimits, DecoderPool
from medical_vqa.serving.decoding.upload import DecodeJob
from medical_vqa.serving.engine.answers import EngineAnswer, ModelAnswer
from medical_vqa.serving.engine.local import Engine
from medical_vqa.serving.engine.remote import RemoteEngine
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.image_store.base import ImageStore, open_store, store_unavailable
from medical_vqa.serving.image_store.blob import StoredImage
from medical_vqa.serving.image_store.repository import ID_HEAD, ImageRepository
from medical_vqa.serving.schema.answers import Alternative, Answer, Answers, AttentionMap, ModelRef, Timings
from medical_vqa.serving.schema.common import MAX_QUESTION, MAX_QUESTIONS
from medical_vqa.serving.schema.images import ImageItem, LeftOutFile, RetrieveRequest, SeriesUpload, UploadedImage
from medical_vqa.serving.schema.models import Limits, ModelInfo
from medical_vqa.serving.schema.questions import AskRequest
from medical_vqa.serving.series.answers import SliceAnswers
from medical_vqa.serving.series.decode import DicomwebJob, SeriesJob
from medical_vqa.serving.series.views import Selection, SliceViews, facts_of, frame_of
from medical_vqa.serving.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMATS = ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "DICOM", "NIFTI"]
"""Supported file formats."""
_LOG = structlog.get_logger("medical_vqa.serving")
_TRIED, _SUGGESTED = 12, 6  # common questions that are tried about an image, and suggested at most
_RENDERED = 4  # answers as JSON that are kept for one of the model: of several ids of one picture
_SERIES_QUEUE = 8  # requests with series that may wait for their decoder
_PART_OF_SERIES_MEMORY = 5  # the files, the values, and two copies of them on their way to the server
_STORE_CHECK_INTERVAL, _STORE_CHECK_TIMEOUT = 5.0, 3.0  # seconds
_MAX_SWEEP_INTERVAL = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded file, with the client's options."""

    data: bytes
    """The file."""
    frame: int | None = None
    """Which of several frames, from 0; None: the middle one."""
    window: tuple[float, float] | None = None
    """Center and width, for values of more than 8 bits."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What surrounds a question."""

    other_image_ids: Sequence[str] = ()
    """Further uploaded images of the question."""
    turns: Sequence[tuple[str, str]] = ()
    """Earlier questions with their answers, oldest first."""
    check_image: bool = False
    """Whether to measure how much the picture moves the answer."""
    on_text: Callable[[str], None] | None = None
    """Receives what of the answer may be shown while it is written, from any thread."""


class Service:
    """The engine, the image repository, and the processes that decode uploads."""

    def __init__(self, engine: Engine | RemoteEngine, settings: Settings, store: ImageStore | None = None) -> None:
        """Set everything up without starting it.

        Args:
            engine: Answers the questions.
            settings: Limits and sizes.
            store: Where uploads live; None: the one that `settings.store` names.
        """
        self.engine = engine
        self.settings = settings
        self.model = ModelRef(name=engine.card.name, family=engine.card.family, id=engine.id)
        self.store = store or open_store(settings.store, ttl=settings.store_ttl, max_bytes=settings.store_bytes)
        self.images = self._repository(engine)
        self.views = SliceViews(self.images)
        self._slice_answers = SliceAnswers(self.images, engine)
        self._decoders = DecoderPool(
            settings.decoder_processes,
            DecoderLimits(
                memory_bytes=settings.decoder_memory_bytes,
                timeout=settings.decode_timeout,
                queue_size=settings.queue_size,
                deadline=settings.deadline,
            ),
        )
        self._series_decoders = DecoderPool(
            min(1, settings.decoder_processes),
            DecoderLimits(
                memory_bytes=settings.series_memory_bytes,
                timeout=settings.series_timeout,
                queue_size=_SERIES_QUEUE,
                deadline=settings.deadline + settings.series_timeout,
            ),
            start_early=False,
        )
        self._store_checked_at = -math.inf
        self._store_check: asyncio.Task[None] | None = None
        self._audit_log = AuditLog(settings.audit_log, with_text=settings.audit_text) if settings.audit_log else None
        self._ingest_limits = DecodeLimits(
            file_bytes=settings.max_upload_bytes,
            pixels=settings.max_pixels,
            settings={"file_bytes": "MEDICAL_VQA_MAX_UPLOAD_BYTES", "pixels": "MEDICAL_VQA_MAX_PIXELS"},
        )
        values = settings.series_memory_bytes // _PART_OF_SERIES_MEMORY
        memory = "MEDICAL_VQA_SERIES_MEMORY_BYTES"
        self._series_limits = DecodeLimits(
            file_bytes=settings.max_series_bytes,
            pixels=values // 2,
            inflated_bytes=values,
            settings={"file_bytes": "MEDICAL_VQA_MAX_SERIES_BYTES", "pixels": memory, "inflated_bytes": memory},
        )
        self._sweeper: asyncio.Task[None] | None = None

    def _repository(self, engine: Engine | RemoteEngine) -> ImageRepository:
        return ImageRepository(
            self.store,
            engine,
            ttl=self.settings.store_ttl,
            cache_bytes=self.settings.image_cache_bytes,
            values_cache_bytes=self.settings.series_cache_bytes,
            keep_originals=self.settings.keep_originals,
        )

    def with_engine(self, engine: Engine | RemoteEngine) -> Self:
        """A service with another model, which shares the store, the decoders and the audit log; its engine runs."""
        other = copy.copy(self)
        other.engine = engine
        other.model = ModelRef(name=engine.card.name, family=engine.card.family, id=engine.id)
        other.images = other._repository(engine)
        other.views = SliceViews(other.images)
        other._slice_answers = SliceAnswers(other.images, engine)
        return other

    async def check_store(self) -> None:
        """Raise `ApiError` (503) when the store does not answer; asks it at most every few seconds."""
        if time.monotonic() - self._store_checked_at < _STORE_CHECK_INTERVAL:
            return
        if self._store_check is None or self._store_check.done():
            self._store_check = asyncio.create_task(asyncio.to_thread(self.store.check))
        try:
            async with asyncio.timeout(_STORE_CHECK_TIMEOUT):
                await asyncio.shield(self._store_check)
        except (ConfigError, TimeoutError) as error:
            raise store_unavailable() from error
        self._store_checked_at = time.monotonic()

    async def start(self) -> None:
        """Check the store, warm the model up, begin to sweep; raises `ConfigError` when the store is unavailable."""
        await asyncio.to_thread(self.store.check)
        await asyncio.to_thread(self.engine.start)
        self._sweeper = asyncio.create_task(self._sweep_forever())

    async def close(self) -> None:
        """Finish the queued work, and stop."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.to_thread(self.engine.close)
        await asyncio.to_thread(self._decoders.close)
        await asyncio.to_thread(self._series_decoders.close)
        self.images.close()

    async def _sweep_forever(self) -> None:
        ttl = self.settings.store_ttl
        interval = _MAX_SWEEP_INTERVAL if ttl is None else min(_MAX_SWEEP_INTERVAL, max(1.0, ttl / 4))
        while True:
            await asyncio.sleep(interval)
            with contextlib.suppress(Exception):  # a store that is unavailable now is swept next time
                await self.images.sweep()

    async def upload(self, upload: Upload, *, client: str = "") -> UploadedImage:
        """Decode, encode and store a client's image; raises `ApiError`."""
        decoded = await self._decode(upload, client, time.monotonic(), keep_values=True)
        image = await self.images.add(decoded, upload.data)
        await self._audit("upload", image.digest)
        ttl = self.settings.store_ttl
        reportable = facts_of(image).dicom_report
        info = dataclasses.asdict(decoded.info)
        return UploadedImage(image_id=image.id, expires_in_seconds=ttl, dicom_report=reportable, **info)

    async def upload_series(self, files: Sequence[bytes], *, client: str = "") -> SeriesUpload:
        """Sort a client's files into series and single pictures, and store each; raises `ApiError`."""
        job = SeriesJob(
            tuple(files), self._series_limits, self.engine.model.picture, keep_sources=self.settings.dicom_reports
        )
        return await self._add_series(job, client)

    async def retrieve_series(self, request: RetrieveRequest, *, client: str = "") -> SeriesUpload:
        """Retrieve a study or series from a DICOMweb server that the settings name, and store it like an upload.

        Raises `ApiError`: 403 for another server, 422 where the address makes no sense or the server has nothing there.
        """
        service = self.settings.dicomweb_service
        address, named = request.address, [one for one in (request.address, request.study) if one is not None]
        if len(named) != 1 or (request.series and not request.study):
            raise ApiError(422, "invalid", "expected either an address, or a study with or without one of its series")
        if address is None:
            if service is None:
                message = (
                    "this server opens no studies by their UID; MEDICAL_VQA_DICOMWEB_SERVICE names the service of them"
                )
                raise ApiError(422, "invalid", message)
            part = f"/series/{request.series}" if request.series else ""
            address = f"{service.rstrip('/')}/studies/{request.study}{part}"
        try:
            parsed = DicomwebAddress.parse(address)
        except ConfigError as error:
            raise ApiError(422, "invalid", str(error)) from None
        if request.address is not None and parsed.host not in {host.lower() for host in self.settings.dicomweb_hosts}:
            message = (
                "images of this DICOMweb host may not be retrieved; MEDICAL_VQA_DICOMWEB_HOSTS lists those that may"
            )
            raise ApiError(403, "forbidden", message)
        job = DicomwebJob(
            parsed, self._series_limits, self.engine.model.picture, keep_sources=self.settings.dicom_reports
        )
        return await self._add_series(job, client)

    async def _add_series(self, job: SeriesJob | DicomwebJob, client: str) -> SeriesUpload:
        decoded = await self._series_decoders.decode(job, client=client)
        stored: list[StoredImage] = []
        try:
            for item in decoded.items:
                stored.append(await self.images.add(item, None))
        except BaseException:  # all of it, or nothing
            for image in stored:
                await self.images.delete(image.id)
            raise
        for image in stored:
            await self._audit("upload", image.digest)
        left_out = [LeftOutFile(file=one.file, reason=one.reason) for one in decoded.left_out]
        return SeriesUpload(series=[_item(image) for image in stored], left_out=left_out)

    async def describe(self, image_id: str) -> ImageItem:
        """What can be shown of a stored image; raises `ApiError` (404)."""
        return _item(await self.images.get(image_id))

    async def ask(
        self,
        image_id: str,
        question: str,
        *,
        attention_map: bool = False,
        received: float | None = None,
        conversation: Conversation | None = None,
        selection: Selection | None = None,
    ) -> Answer:
        """Answer a question about an uploaded image.

        Args:
            image_id: Of the image.
            question: In words.
            attention_map: Whether to add the attention map.
            received: When the request arrived (`time.monotonic`); None: now.
            conversation: Further images, earlier turns, and where unfinished text goes.
            selection: The slice, plane and window to ask about; None: the stored picture, or several of a series.

        Raises:
            ApiError: The image is unknown, or the question cannot be answered (in time).
        """
        start = time.monotonic() if received is None else received
        around = conversation or Conversation()
        image = await self.images.get(image_id)
        others = [await self.images.get(other) for other in around.other_image_ids]
        return await self._answer_selection(image, question, attention_map, start, around, others, selection)

    def cached_answer(self, request: AskRequest, received: float) -> bytes | None:
        """The answer to a question that was answered before, without waiting for anything.

        Args:
            request: What is asked.
            received: When it arrived (`time.monotonic`).

        Returns:
            The JSON of an `Answer`, of which only the times are written anew; None where `ask` must be called:
            something must be loaded, computed or written.

        Raises:
            ApiError: The image's id is none (404).
        """
        if self._audit_log is not None or request.other_image_ids or request.turns or request.check_image:
            return None
        if request.frame is not None or request.plane is not None or request.window is not None:
            return None
        image = self.images.get_cached(request.image_id)
        if image is None or facts_of(image).series:
            return None
        question = request.question.strip()
        cached = self.engine.cached(image.digest, question, image.context, attention_map=request.attention_map)
        if cached is None:
            return None
        self.engine.metrics.image_cache_hits.inc()
        self._count(cached, question)
        key = (image.id, question, request.attention_map)
        parts: tuple[bytes, bytes] | None = cached.rendered.get(key)
        if parts is None:
            result = EngineAnswer(cached)
            answer = self._wire_answer(image, question, result, start=received, attention_map=request.attention_map)
            parts = _around_timings(answer)
            if len(cached.rendered) >= _RENDERED:
                cached.rendered.clear()
            cached.rendered[key] = parts
        return _timings(EngineAnswer(cached), received).model_dump_json().encode().join(parts)

    async def ask_many(
        self,
        image_id: str,
        questions: Sequence[str],
        *,
        attention_map: bool = False,
        selection: Selection | None = None,
    ) -> Answers:
        """Answer several questions about an uploaded image together.

        Args:
            image_id: Of the image.
            questions: In words.
            attention_map: Whether to add attention maps.
            selection: The slice, plane and window to ask about; None: the stored picture, or several of a series.

        Raises:
            ApiError: One of the questions fails.
        """
        start = time.monotonic()
        image = await self.images.get(image_id)
        around = Conversation()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._answer_selection(image, text, attention_map, start, around, (), selection))
                    for text in questions
                ]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return Answers(image_id=image_id, answers=[task.result() for task in tasks])

    async def suggested_questions(self, image_id: str, questions: Sequence[str], *, chinese: bool) -> list[str]:
        """Questions that the model answers about an uploaded image without abstaining; none for a refused picture.

        Args:
            image_id: Of the image.
            questions: Questions to begin with, in the language.
            chinese: Whether the model's own common questions in Chinese follow, or those in English.

        Raises:
            ApiError: There is no such image, too much is queued, or the deadline has passed.
        """
        start = time.monotonic()
        image = await self.images.get(image_id)
        bank = self.engine.model.question_bank
        common = bank.commonest(_TRIED, chinese=chinese) if bank is not None else []
        candidates = list(dict.fromkeys([*questions, *common]))
        if not candidates:
            return []
        answerable = await self.engine.answerable(
            image.digest, image.visual, candidates, context=image.context, received=start
        )
        return answerable[:_SUGGESTED]

    async def ask_once(
        self,
        uploads: Sequence[Upload],
        question: str,
        *,
        attention_map: bool = False,
        conversation: Conversation | None = None,
        client: str = "",
    ) -> Answer:
        """Answer a client's question about images that are not stored.

        Args:
            uploads: The image, and further ones that the question is about.
            question: In words.
            attention_map: Whether to add the attention map.
            conversation: Earlier turns, and where unfinished text goes.
            client: Who asks.

        Raises:
            ApiError: An image or the question cannot be used, or there is no answer in time.
        """
        start = time.monotonic()
        self.require_pictures(len(uploads))
        image, *others = [await self.images.encode(await self._decode(upload, client, start)) for upload in uploads]
        return await self._answer(image, question, attention_map, start, conversation or Conversation(), others)

    def require_pictures(self, pictures: int) -> None:
        """Raise `ApiError` (422) when the model takes fewer pictures in one question."""
        most = self.engine.model.max_pictures
        if pictures > most:
            takes = "one picture" if most == 1 else f"at most {most} pictures"
            name = self.model.name
            raise ApiError(422, "invalid", f"{name} takes {takes} in one question, got {pictures}; send fewer")

    async def _decode(self, upload: Upload, client: str, received: float, *, keep_values: bool = False) -> DecodedImage:
        spec = self.engine.model.picture
        keep_sources = keep_values and self.settings.dicom_reports
        job = DecodeJob(upload.data, self._ingest_limits, spec, upload.frame, upload.window, keep_values, keep_sources)
        return await self._decoders.decode(job, client=client, received=received)

    async def _answer_selection(
        self,
        image: StoredImage,
        question: str,
        attention_map: bool,
        start: float,
        around: Conversation,
        others: Sequence[StoredImage],
        selection: Selection | None,
    ) -> Answer:
        """The answer about a part of a stored image: one slice, several slices of a series, or the stored picture."""
        part = selection or Selection()
        facts = facts_of(image)
        if not facts.series or part.frame is not None:
            if part.empty:
                return await self._answer(image, question, attention_map, start, around, others)
            one = await self._slice_answers.one_slice(image, part)
            answer = await self._answer(one, question, attention_map, start, around, others)
            frame, plane = frame_of(facts, part), part.plane or facts.plane
            return answer.model_copy(update={"frame": frame, "plane": plane})
        if others:
            raise ApiError(
                422, "invalid", "a series and other images are asked about apart; name a frame of the series"
            )
        question = question.strip()
        series = await self._slice_answers.ask(
            image,
            question,
            part,
            attention_map=attention_map,
            received=start,
            turns=around.turns,
            check_image=around.check_image,
            on_text=around.on_text,
        )
        answer = await self._finished(image, question, attention_map, start, around, series.result)
        return answer.model_copy(update={"frame": series.frame, "plane": series.plane, "slices": list(series.slices)})

    async def _answer(
        self,
        image: StoredImage,
        question: str,
        attention_map: bool,
        start: float,
        conversation: Conversation | None = None,
        others: Sequence[StoredImage] = (),
    ) -> Answer:
        question = question.strip()
        around = conversation or Conversation()
        self.require_pictures(1 + len(others))
        result = await self.engine.ask(
            image.digest,
            image.visual,
            question,
            attention_map=attention_map,
            received=start,
            context=image.context,
            others=[(other.digest, other.visual) for other in others],
            turns=around.turns,
            on_text=around.on_text,
            check_image=around.check_image,
        )
        return await self._finished(image, question, attention_map, start, around, result)

    async def _finished(
        self,
        image: StoredImage,
        question: str,
        attention_map: bool,
        start: float,
        around: Conversation,
        result: EngineAnswer,
    ) -> Answer:
        """An answer, counted and written into the audit log, as the client receives it."""
        prediction, abstention = result.answer.prediction, result.answer.abstention
        self._count(result.answer, question)
        await self._audit(
            "answer",
            image.digest,
            question=question,
            answer=prediction.answer,
            abstained=abstention.abstained,
            reason_code=abstention.code,
            model=self.model.name,
            model_id=self.model.id,
        )
        turns_read = min(len(around.turns), self.engine.model.max_turns)
        return self._wire_answer(
            image, question, result, start=start, attention_map=attention_map, turns_read=turns_read
        )

    def _count(self, answer: ModelAnswer, question: str) -> None:
        if answer.abstention.abstained:
            self.engine.metrics.abstained.inc()
        if self.settings.log_content:
            _LOG.info("answered", question=question, answer=answer.prediction.answer)

    def _wire_answer(
        self,
        image: StoredImage,
        question: str,
        result: EngineAnswer,
        *,
        start: float,
        attention_map: bool,
        turns_read: int = 0,
    ) -> Answer:
        """An answer as the client receives it, not validated again: every part of it was made here."""
        answer = result.answer
        prediction, abstention = answer.prediction, answer.abstention
        return Answer.model_construct(
            image_id=image.id or None,
            question=question,
            answer=prediction.answer,
            confidence=prediction.confidence,
            confidence_basis=prediction.confidence_basis,
            turns_read=turns_read,
            alternatives=[
                Alternative.model_construct(answer=other, confidence=confidence)
                for other, confidence in prediction.alternatives
            ],
            abstained=abstention.abstained,
            reason=abstention.reason,
            suggestions=list(abstention.suggestions),
            reason_code=abstention.code,
            reason_arguments=dict(abstention.arguments),
            image_dependence=answer.image_dependence,
            source=answer.source,
            side=answer.side,
            evidence=list(answer.evidence),
            slices=[],  # a default that is made by a call costs more than all else here
            attention_map=_attention_map(answer.attention_map) if attention_map else None,
            model=self.model,
            timings=_timings(result, start),
        )

    async def delete(self, image_id: str) -> None:
        """Forget an uploaded image and the answers about it; raises `ApiError` (404)."""
        await self.images.delete(image_id)
        await self._audit("delete", image_id)

    async def record_report(self, image: StoredImage) -> None:
        """Write to the audit log that a DICOM report about an image was exported."""
        await self._audit("report", image.digest)

    async def _audit(self, event: str, picture: str, **fields: Any) -> None:
        """Write a line of the audit log, if there is one; the image is named by the head of its key."""
        if self._audit_log is None:
            return
        log, client = self._audit_log, current_client()
        if "question" in fields:
            fields["question"] = log.question(fields["question"])
        await asyncio.to_thread(
            log.write,
            event,
            client=client.name,
            tenant=client.tenant,
            request_id=structlog.contextvars.get_contextvars().get("request_id"),
            image=log.digest(picture[:ID_HEAD]),
            **fields,
        )

    def info(self) -> ModelInfo:
        """The card of the model, and the limits of the server."""
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
            max_pictures=self.engine.model.max_pictures,
            max_turns=self.engine.model.max_turns,
            streams=isinstance(self.engine, RemoteEngine),
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
                deadline_seconds=self.engine.options.deadline,
            ),
        )


def _item(image: StoredImage) -> ImageItem:
    expires_at = None if image.expires_at is None else datetime.fromtimestamp(image.expires_at, UTC)
    return ImageItem(**facts_of(image).model_dump(), image_id=image.id, expires_at=expires_at)


def _attention_map(weights: NDArray[np.float32] | None) -> AttentionMap | None:
    if weights is None:
        return None
    rows, columns = weights.shape
    values = [[round(float(weight), 6) for weight in row] for row in weights]
    return AttentionMap(rows=rows, columns=columns, values=values)


def _timings(result: EngineAnswer, start: float) -> Timings:
    """Where the time since `start` (`time.monotonic`) went."""
    return Timings.model_construct(
        queue_ms=_milliseconds(result.queue_seconds),
        model_ms=_milliseconds(result.model_seconds),
        total_ms=_milliseconds(time.monotonic() - start),
        batch_size=result.batch_size,
    )


def _around_timings(answer: Answer) -> tuple[bytes, bytes]:
    """The JSON of an answer before and behind its times; in texts quotation marks are escaped."""
    times = answer.timings.model_dump_json().encode()
    before, _, behind = answer.model_dump_json().encode().rpartition(b'"timings":' + times)
    return before + b'"timings":', behind


def _milliseconds(seconds: float) -> float:
    return round(1000 * max(0.0, seconds), 2)
