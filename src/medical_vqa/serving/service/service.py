"""One model of the server with what it needs: its engine, the stored images, the decoders and the audit log."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import time
from collections.abc import Sequence
from typing import Self

from medical_vqa.serving.engine.local import Engine
from medical_vqa.serving.engine.remote import RemoteEngine
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.fair_turns import FairTurns
from medical_vqa.serving.image_store.base import ImageStore, open_store, store_unavailable
from medical_vqa.serving.image_store.blob import StoredImage
from medical_vqa.serving.image_store.calls import StoreCalls
from medical_vqa.serving.image_store.repository import ImageRepository
from medical_vqa.serving.schema.answers import ModelRef
from medical_vqa.serving.schema.images import ImageItem, LeftOutFile, RetrieveRequest, SeriesUpload, UploadedImage
from medical_vqa.serving.schema.models import ModelInfo
from medical_vqa.serving.series.decode import DecodedSeries
from medical_vqa.serving.series.views import SliceViews, facts_of
from medical_vqa.serving.service.audit import Audit
from medical_vqa.serving.service.checks import PeriodicCheck
from medical_vqa.serving.service.decoders import Decoders
from medical_vqa.serving.service.inputs import Upload
from medical_vqa.serving.service.model_info import model_info
from medical_vqa.serving.service.questions import Questions
from medical_vqa.serving.service.rendering import image_item
from medical_vqa.serving.settings import Settings

_MAX_SWEEP_INTERVAL, _LONGEST_SWEEP = 60.0, 3600.0  # seconds
_VIEWS_AT_ONCE = 2  # pictures and slices that are read and drawn: with more, questions wait for the processor


class Service:
    """Accepts uploads, and answers questions about them with one model: `questions`."""

    def __init__(
        self,
        engine: Engine | RemoteEngine,
        settings: Settings,
        store: ImageStore | None = None,
        decoders: Decoders | None = None,
    ) -> None:
        """Set everything up without starting it.

        Args:
            engine: Answers the questions.
            settings: Limits and sizes.
            store: Where uploads live; None: the one that `settings.store` names.
            decoders: Decode the uploads; None: those of the settings.
        """
        self.settings = settings
        self.store = store or open_store(settings.store, ttl=settings.store_ttl, max_bytes=settings.store_bytes)
        self.store_calls = StoreCalls(self.store)
        self._decoders = decoders or Decoders(settings)
        self._view_turns = FairTurns(_VIEWS_AT_ONCE, settings.queue_size, settings.deadline)
        self._audit = Audit(settings)
        self._store_check = PeriodicCheck(lambda: self.store_calls.call(self.store.check), store_unavailable)
        self._sweeper: asyncio.Task[None] | None = None
        self._use(engine)

    def _use(self, engine: Engine | RemoteEngine) -> None:
        """Set what belongs to one model."""
        self.engine = engine
        self.model = ModelRef(name=engine.card.name, family=engine.card.family, id=engine.id)
        self.images = ImageRepository(
            self.store_calls,
            engine,
            ttl=self.settings.store_ttl,
            cache_bytes=self.settings.image_cache_bytes,
            values_cache_bytes=self.settings.series_cache_bytes,
            keep_originals=self.settings.keep_originals,
        )
        self.views = SliceViews(self.images, self._view_turns)
        self.questions = Questions(engine, self.model, self.images, self._decoders, self._audit, self.settings)

    def with_engine(self, engine: Engine | RemoteEngine) -> Self:
        """A service with another model, which shares the store, the decoders and the audit log; its engine runs."""
        other = copy.copy(self)
        other._use(engine)
        return other

    async def check_ready(self) -> None:
        """Raise `ApiError` (503) while the store or the audit log cannot be used; tries at most every few seconds."""
        await self._store_check()
        await self._audit.check()

    async def start(self) -> None:
        """Check the store, warm the model up, begin to sweep; raises `ConfigError` when the store is unavailable."""
        await self.store_calls.call(self.store.check)
        self._decoders.start()
        await asyncio.to_thread(self.engine.start)
        self._sweeper = asyncio.create_task(self._sweep_forever())

    async def close(self) -> None:
        """Finish the queued work, and stop."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        async with contextlib.AsyncExitStack() as closing:  # the rest also where one cannot be closed
            closing.push_async_callback(asyncio.to_thread, self.store_calls.close)
            closing.push_async_callback(asyncio.to_thread, self.images.close)
            closing.push_async_callback(asyncio.to_thread, self._decoders.close)
            closing.push_async_callback(asyncio.to_thread, self.engine.close)

    async def _sweep_forever(self) -> None:
        ttl = self.settings.store_ttl
        interval = _MAX_SWEEP_INTERVAL if ttl is None else min(_MAX_SWEEP_INTERVAL, max(1.0, ttl / 4))
        while True:
            await asyncio.sleep(interval)
            with contextlib.suppress(Exception):  # a store that is unavailable now is swept next time
                await self.store_calls.call(self.store.sweep, seconds=_LONGEST_SWEEP)

    async def upload(self, upload: Upload, *, client: str = "") -> UploadedImage:
        """Decode, encode and store a client's image; raises `ApiError`."""
        spec, start = self.engine.model.picture, time.monotonic()
        decoded = await self._decoders.decode(upload, spec, client, start, to_store=True)
        image = await self.images.add(decoded, upload.data)
        await self._record_uploads([image])
        ttl = self.settings.store_ttl
        reportable = facts_of(image).dicom_report
        info = dataclasses.asdict(decoded.info)
        return UploadedImage(image_id=image.id, expires_in_seconds=ttl, dicom_report=reportable, **info)

    def expect_series(self) -> None:
        """Have a decoder ready for files that begin to arrive."""
        self._decoders.expect_series()

    async def upload_series(self, files: Sequence[bytes], *, client: str = "") -> SeriesUpload:
        """Sort a client's files into series and single pictures, and store each; raises `ApiError`."""
        return await self._add_series(await self._decoders.decode_series(files, self.engine.model.picture, client))

    async def retrieve_series(self, request: RetrieveRequest, *, client: str = "") -> SeriesUpload:
        """Retrieve a study or series from a DICOMweb server that the settings name, and store it like an upload.

        Raises `ApiError`: 403 for another server, 422 where the address makes no sense or the server has nothing there.
        """
        return await self._add_series(await self._decoders.retrieve_series(request, self.engine.model.picture, client))

    async def _add_series(self, decoded: DecodedSeries) -> SeriesUpload:
        stored: list[StoredImage] = []
        try:
            for item in decoded.items:
                stored.append(await self.images.add(item, None))
        except BaseException:  # all of it, or nothing
            for image in stored:
                await self.images.delete(image.id)
            raise
        await self._record_uploads(stored)
        left_out = [LeftOutFile(file=one.file, reason=one.reason) for one in decoded.left_out]
        return SeriesUpload(series=[image_item(image) for image in stored], left_out=left_out)

    async def _record_uploads(self, images: Sequence[StoredImage]) -> None:
        """Write uploads into the audit log, or delete them where it cannot be written; raises `ApiError` (503)."""
        try:
            await self._audit.write_all("upload", [image.digest for image in images])
        except ApiError:
            for image in images:
                with contextlib.suppress(ApiError):  # of one that the store does not delete now, nobody has the id
                    await self.images.delete(image.id)
            raise

    async def describe(self, image_id: str) -> ImageItem:
        """What can be shown of a stored image; raises `ApiError` (404)."""
        return image_item(await self.images.get(image_id))

    async def delete(self, image_id: str) -> None:
        """Forget an uploaded image and the answers about it; raises `ApiError` (404, 503).

        The line of the audit log comes first: what cannot be recorded is not done. Where the store then does not
        delete, another line says so.
        """
        await self.images.check_exists(image_id)
        await self._audit.write("delete", image_id)
        try:
            await self.images.delete(image_id)
        except ApiError as error:
            await self._audit.write("delete_failed", image_id, reason=error.code)
            raise

    async def record_report(self, image: StoredImage) -> None:
        """Write to the audit log that a DICOM report about an image was exported."""
        await self._audit.write("report", image.digest)

    def info(self) -> ModelInfo:
        """The card of the model, and the limits of the server."""
        return model_info(self.engine, self.settings)
