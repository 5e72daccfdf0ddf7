"""Slices of stored images: as PNG in a window, and as values."""

from __future__ import annotations

import asyncio
import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from medical_vqa.data.imaging.decode import check_window
from medical_vqa.data.imaging.volume import Volume
from medical_vqa.errors import ImageError
from medical_vqa.serving.decoding.pictures import png_of
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.fair_turns import FairTurns
from medical_vqa.serving.image_store.blob import StoredImage
from medical_vqa.serving.image_store.repository import ImageRepository
from medical_vqa.serving.schema.images import ImageFacts

if TYPE_CHECKING:
    from medical_vqa.data.imaging.planes import Plane

_TYPES = {"<i2": "int16", "<u2": "uint16", "|u1": "uint8"}


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a stored image a request is about."""

    frame: int | None = None
    """The slice, from 0; None: the default one, or several of a series."""
    plane: Plane | None = None
    """Its plane; None: that of the stored slices."""
    window: str | None = None
    """A name of `ImageFacts.windows`, or center and width with a comma; None: the default."""

    @property
    def empty(self) -> bool:
        """Whether everything is the default."""
        return self.frame is None and self.plane is None and self.window is None


@dataclass(frozen=True, slots=True)
class SliceValues:
    """The values of one slice."""

    data: bytes
    """Row by row, little endian."""
    headers: dict[str, str]
    """Size, type, spacing and scale."""


def chosen_window(facts: ImageFacts, window: str | None) -> tuple[float, float] | None:
    """Center and width of a request's window; None for the default one; raises `ApiError` (422) for an unknown name."""
    if window is None:
        return None
    if "," in window:
        center, _, width = window.partition(",")
        parts = float(center), float(width)
        try:
            check_window(parts)
        except ImageError as error:
            raise ApiError(422, "invalid", str(error)) from None
        return parts
    for one in facts.windows:
        if one.name == window:
            return one.center, one.width
    names = ", ".join(one.name for one in facts.windows) or "none"
    raise ApiError(422, "invalid", f"window: expected CENTER,WIDTH or a name that this image has ({names})")


def facts_of(image: StoredImage) -> ImageFacts:
    """What can be shown of an image."""
    return image.facts or ImageFacts(planes={"axial": 1})


class SliceViews:
    """Shows stored images."""

    def __init__(self, images: ImageRepository, turns: FairTurns) -> None:
        self._images = images
        self._turns = turns  # one for all pictures that are shown: reading and drawing them takes memory and time

    async def picture(self, image_id: str) -> bytes:
        """The picture of an image as it was decoded, as PNG; raises `ApiError` (404, 429)."""
        async with self._turns.turn():
            return await self._images.png(image_id)

    async def etag(self, image_id: str, selection: Selection, *, invert: bool) -> str:
        """A strong entity tag of a view, without making it; raises `ApiError` (404) where there is no such image."""
        image = await self._images.get(image_id)
        parts = (image.digest, selection.frame, selection.plane, selection.window, invert)
        return f'"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"'

    async def png(self, image_id: str, selection: Selection, *, invert: bool) -> bytes:
        """One slice in a window.

        Args:
            image_id: Of the image.
            selection: The slice and its window.
            invert: Whether black and white change places.

        Raises:
            ApiError: 404 for an unknown image, or a window of one without values; 422 where there is no such slice; 429
                where too many are drawn.
        """
        async with self._turns.turn():
            return await self._png(image_id, selection, invert)

    async def _png(self, image_id: str, selection: Selection, invert: bool) -> bytes:
        image = await self._images.get(image_id)
        facts = facts_of(image)
        if _is_stored_picture(facts, selection):
            png = await self._images.png(image_id)
            return await asyncio.to_thread(_inverted, png) if invert else png
        window = chosen_window(facts, selection.window)
        volume = await self._volume(image_id, facts, selection)
        return await asyncio.to_thread(_rendered, volume, facts, selection, window, invert)

    async def values(self, image_id: str, selection: Selection) -> SliceValues:
        """The values of one slice; raises `ApiError` like `png`, and 404 ``no_values`` where none are stored."""
        async with self._turns.turn():
            image = await self._images.get(image_id)
            volume = await self._images.volume(image_id)
            return await asyncio.to_thread(_slice_values, volume, facts_of(image), selection)

    async def _volume(self, image_id: str, facts: ImageFacts, selection: Selection) -> Volume:
        if facts.values is None and selection.window is None:  # a picture of 8 bits has its one frame alone
            raise ApiError(422, "invalid", "this image has the frame 0 in the plane axial alone; leave both out")
        return await self._images.volume(image_id)


def _is_stored_picture(facts: ImageFacts, selection: Selection) -> bool:
    return (
        not facts.series
        and selection.window is None
        and selection.frame in (None, facts.frame)
        and selection.plane in (None, facts.plane)
    )


def _rendered(
    volume: Volume, facts: ImageFacts, selection: Selection, window: tuple[float, float] | None, invert: bool
) -> bytes:
    try:
        frame = volume.view(frame_of(facts, selection), plane=selection.plane, window=window)
    except ImageError as error:
        raise ApiError(422, "invalid", str(error)) from None
    picture = frame.image
    return png_of(Image.fromarray(255 - np.asarray(picture)) if invert else picture)


def frame_of(facts: ImageFacts, selection: Selection) -> int | None:
    """The slice of a selection: in the stored plane the default one where none is named, else the middle one."""
    if selection.frame is None and selection.plane in (None, facts.plane):
        return facts.frame
    return selection.frame


def _inverted(png: bytes) -> bytes:
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        return png_of(Image.fromarray(255 - np.asarray(picture)))


def _slice_values(volume: Volume, facts: ImageFacts, selection: Selection) -> SliceValues:
    try:
        section, sides, _ = volume.section(frame_of(facts, selection), plane=selection.plane)
    except ImageError as error:
        raise ApiError(422, "invalid", str(error)) from None
    values: Any = np.ascontiguousarray(section)
    rows, columns = values.shape
    headers = {
        "X-Rows": str(rows),
        "X-Columns": str(columns),
        "X-Type": _TYPES[values.dtype.newbyteorder("<").str],
        "X-Slope": f"{volume.slope:.9g}",
        "X-Intercept": f"{volume.intercept:.9g}",
    }
    if volume.measured:
        headers["X-Spacing"] = f"{sides[0]:g},{sides[1]:g}"
    return SliceValues(values.tobytes(), headers)
