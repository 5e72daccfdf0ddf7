"""Pictures as a person sees them and as the model does: in its own windows and size, or as PNG."""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from medical_vqa.data.imaging.decoded_frame import DecodedFrame
from medical_vqa.data.imaging.preprocessing import PictureSpec, prepare_picture
from medical_vqa.data.imaging.volume import Volume
from medical_vqa.data.imaging.windowed_channels import windowed_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medical_vqa.data.imaging.planes import Plane


MAX_SIDE = 2048
"""Pixels; the copy of a larger picture is scaled down to it. No model sees more."""


def prepare_for_model(image: Image.Image, spec: PictureSpec | None) -> NDArray[np.uint8]:
    """The picture as the model sees it; one black pixel for a model that uses no image."""
    return np.zeros((1, 1, 1), np.uint8) if spec is None else prepare_picture(image, spec)


def prepared_slice(
    volume: Volume,
    index: int | None,
    plane: Plane | None,
    window: tuple[float, float] | None,
    spec: PictureSpec | None,
) -> tuple[DecodedFrame, NDArray[np.uint8]]:
    """One slice as a person sees it and as the model does: in its own windows, unless one was chosen.

    Args:
        volume: The values.
        index: The slice; None: the middle one.
        plane: Its plane; None: that of the stored slices.
        window: Center and width to show; None: the default.
        spec: How the model needs its picture; None for a model that uses no image.

    Raises:
        ImageError: There is no such slice.
    """
    frame = volume.view(index, plane=plane, window=window)
    picture = frame
    if spec is not None and window is None:
        picture = windowed_image(
            lambda own: frame if own is None else volume.view(index, plane=plane, window=own), spec
        )
    return frame, prepare_for_model(picture.image, spec)


def png_of(image: Image.Image) -> bytes:
    """A picture as PNG, of at most `MAX_SIDE` pixels a side."""
    if max(image.size) > MAX_SIDE:
        image = image.copy()
        image.thumbnail((MAX_SIDE, MAX_SIDE))
    out = io.BytesIO()
    # Runs alone are matched: of a CT slice a third faster than zlib's usual strategy, and not larger.
    image.save(out, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return out.getvalue()
