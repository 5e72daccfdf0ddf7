"""The decoders of a server with the limits of its settings: one pool for single files, one for series."""

from __future__ import annotations

from collections.abc import Sequence

from medical_vqa.data.imaging.decoded_frame import DecodeLimits
from medical_vqa.data.imaging.dicomweb import DicomwebAddress
from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.errors import ConfigError
from medical_vqa.serving.decoding.decoded_image import DecodedImage
from medical_vqa.serving.decoding.pool import DecoderLimits, DecoderPool
from medical_vqa.serving.decoding.upload import DecodeJob
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.schema.images import RetrieveRequest
from medical_vqa.serving.series.decode import DecodedSeries, DicomwebJob, SeriesJob
from medical_vqa.serving.service.inputs import Upload
from medical_vqa.serving.settings import Settings

_SERIES_QUEUE = 8  # requests with series that may wait for their decoder
_PART_OF_SERIES_MEMORY = 5  # the files, the values, and two copies of them on their way to the server


class Decoders:
    """Decodes what clients upload, for the model that is to be asked about it."""

    def __init__(self, settings: Settings) -> None:
        """Set up both pools; `start` starts processes."""
        self._settings = settings
        self._single = DecoderPool(
            settings.decoder_processes,
            DecoderLimits(
                memory_bytes=settings.decoder_memory_bytes,
                timeout=settings.decode_timeout,
                queue_size=settings.queue_size,
                deadline=settings.deadline,
            ),
        )
        self._series = DecoderPool(
            min(1, settings.decoder_processes),
            DecoderLimits(
                memory_bytes=settings.series_memory_bytes,
                timeout=settings.series_timeout,
                queue_size=_SERIES_QUEUE,
                deadline=settings.deadline + settings.series_timeout,
                timeout_setting="MEDICAL_VQA_SERIES_TIMEOUT",
            ),
        )
        self._limits = DecodeLimits(
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

    def start(self) -> None:
        """Start those of single files in advance, in the background."""
        self._single.start()

    def expect_series(self) -> None:
        """Start that of series in the background, unless it runs: the files begin to arrive."""
        self._series.start()

    async def decode(
        self, upload: Upload, spec: PictureSpec | None, client: str, received: float, *, to_store: bool = False
    ) -> DecodedImage:
        """Decode one file.

        Args:
            upload: The file.
            spec: How the model needs its picture; None for a model that uses no image.
            client: Whose file it is.
            received: When the request arrived, in seconds of `time.monotonic`.
            to_store: Whether it will be stored, with its values and what a DICOM report must repeat.

        Raises:
            ApiError: The file cannot be used, or there is no decoder in time.
        """
        keep_sources = to_store and self._settings.dicom_reports
        job = DecodeJob(upload.data, self._limits, spec, upload.frame, upload.window, to_store, keep_sources)
        return await self._single.decode(job, client=client, received=received)

    async def decode_series(self, files: Sequence[bytes], spec: PictureSpec | None, client: str) -> DecodedSeries:
        """Sort a client's files into series and single pictures, and decode them; raises `ApiError`."""
        keep_sources = self._settings.dicom_reports
        job = SeriesJob(tuple(files), self._series_limits, spec, keep_sources=keep_sources)
        return await self._series.decode(job, client=client)

    async def retrieve_series(self, request: RetrieveRequest, spec: PictureSpec | None, client: str) -> DecodedSeries:
        """Retrieve a study or series from a DICOMweb server, and decode it like `decode_series`; raises `ApiError`."""
        address, keep_sources = self._address_of(request), self._settings.dicom_reports
        job = DicomwebJob(address, self._series_limits, spec, keep_sources=keep_sources)
        return await self._series.decode(job, client=client)

    def _address_of(self, request: RetrieveRequest) -> DicomwebAddress:
        """Where to retrieve from; raises `ApiError`: 422 for an address without sense, 403 for one not allowed."""
        service = self._settings.dicomweb_service
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
        if request.address is not None and parsed.host not in {host.lower() for host in self._settings.dicomweb_hosts}:
            message = (
                "images of this DICOMweb host may not be retrieved; MEDICAL_VQA_DICOMWEB_HOSTS lists those that may"
            )
            raise ApiError(403, "forbidden", message)
        return parsed

    def close(self) -> None:
        """Stop the decoders, in the middle of an upload too."""
        self._single.close()
        self._series.close()
