"""Decoding of one upload, in the process that calls it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from medical_vqa.data.imaging.decode import decode_image
from medical_vqa.data.imaging.decoded_frame import DecodedFrame, DecodeLimits
from medical_vqa.data.imaging.picture_statistics import PictureContext
from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.data.imaging.stack import read_stack, storable
from medical_vqa.data.imaging.windowed_channels import windowed_image
from medical_vqa.serving.decoding.decoded_image import DecodedImage, info_of
from medical_vqa.serving.decoding.pictures import png_of, prepare_for_model
from medical_vqa.serving.image_facts import facts_of_picture, facts_of_volume

UPLOAD_NAME = "the upload"  # in messages: a client's file name is never repeated


@dataclass(frozen=True, slots=True)
class DecodeJob:
    """One upload to decode."""

    data: bytes
    """The file."""
    limits: DecodeLimits
    """Bounds on bytes, pixels and frames."""
    spec: PictureSpec | None
    """How the model needs its picture; None for a model that uses no image."""
    frame: int | None = None
    """Which of several frames, from 0; None: the middle one."""
    window: tuple[float, float] | None = None
    """Center and width, for values of more than 8 bits."""
    keep_values: bool = False
    """Whether the values of more than 8 bits are returned too, to be stored."""
    keep_sources: bool = False
    """Whether what a DICOM report must repeat is returned too, to be stored."""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.data)

    def run(self) -> DecodedImage:
        """Decode the file in this process; raises `ImageError`."""
        return decode(self)


def decode(job: DecodeJob) -> DecodedImage:
    """Decode one upload in this process; raises `ImageError`."""
    frame = decode_image(job.data, limits=job.limits, frame=job.frame, window=job.window, name=UPLOAD_NAME)
    digest = hashlib.sha256(repr(frame.pixels.shape).encode())
    digest.update(np.ascontiguousarray(frame.pixels).data)
    header_fields = dict(frame.header_fields)
    if frame.window is not None:  # so that a client can offer another one
        center, width = frame.window
        header_fields |= {"WindowCenter": f"{center:g}", "WindowWidth": f"{width:g}"}
    info = info_of(frame, header_fields)
    picture = prepare_for_model(_for_model(job, frame), job.spec)
    stack = read_stack(job.data, frame, limits=job.limits) if job.keep_values else None
    volume = None if stack is None else storable(stack)
    if volume is None:
        facts = facts_of_picture(frame.header_fields, frame.window, list(frame.warnings))
    else:
        facts = facts_of_volume(volume, frame=frame.frame)
    sources = ""
    if job.keep_sources and frame.format == "DICOM":
        slices = range(frame.frames) if volume is not None else [frame.frame]
        sources = read_sources({0: lambda: job.data}, [(0, number) for number in slices], job.limits)
        facts = facts.model_copy(update={"dicom_report": bool(sources)})
    context = PictureContext.of(frame)
    return DecodedImage(digest.hexdigest(), png_of(frame.image), picture, info, context, volume, facts, sources)


def read_sources(
    files: Mapping[int, Callable[[], bytes]], slices: Sequence[tuple[int, int]], limits: DecodeLimits
) -> str:
    """What a DICOM report about a series or a file must repeat, as text; empty where the files do not have it.

    Args:
        files: Functions that return the bytes of a file, by its number.
        slices: Number of the file and frame, from 0, of each slice of the stored plane.
        limits: Limits of what a file inflates to.
    """
    from medical_vqa.data.imaging.dicom_export.stored_sources import StoredSources  # noqa: PLC0415 - pydicom: an extra

    sources = StoredSources.read(files, slices, limits)
    return "" if sources is None else sources.to_json()


def _for_model(job: DecodeJob, frame: DecodedFrame) -> Image.Image:
    """The frame as the model was trained to see it: in its own windows, unless the client chose one."""
    if job.spec is None or not job.spec.windows or job.window is not None:
        return frame.image

    def decode_window(window: tuple[float, float] | None) -> DecodedFrame:
        if window is None:
            return frame
        return decode_image(job.data, limits=job.limits, frame=job.frame, window=window, name=UPLOAD_NAME)

    return windowed_image(decode_window, job.spec).image
