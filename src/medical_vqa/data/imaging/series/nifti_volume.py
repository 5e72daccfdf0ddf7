"""The first volume of a NIfTI file."""

from __future__ import annotations

import gzip
import io
import math

import numpy as np

from medical_vqa.data.imaging.decoded_frame import DecodeLimits
from medical_vqa.data.imaging.planes import PLANES
from medical_vqa.data.imaging.raster import DECODER_ERRORS
from medical_vqa.data.imaging.volume import Volume, oriented
from medical_vqa.errors import ImageError, TooLargeError, UnsupportedImageError

_EXPECTED = "expected a gray volume of three axes; give one"


def nifti_volume(data: bytes, name: str, limits: DecodeLimits) -> Volume:
    """The first volume of a NIfTI file; raises `ImageError` like `read_series`."""
    import nibabel  # noqa: PLC0415 - an extra

    from medical_vqa.data.imaging.nifti import (  # noqa: PLC0415
        NIFTI_ERRORS,
        NOT_LOCATED,
        affine_of,
        is_located,
        read_nifti,
    )

    read_nifti(data, name, limits=limits)  # checks format, limits and that the file is whole up to its middle
    try:
        stream = gzip.GzipFile(fileobj=io.BytesIO(data)) if data[:2] == b"\x1f\x8b" else io.BytesIO(data)
        kind = nibabel.Nifti2Image if stream.read(8)[4:7] in (b"n+2", b"ni2") else nibabel.Nifti1Image
        stream.seek(0)
        image = kind.from_stream(stream)
        if image.ndim < 3:
            raise UnsupportedImageError(f"{name}: {_EXPECTED}")
        size = image.header.get_data_dtype().itemsize * math.prod(image.shape[:3])
        if size > limits.inflated_bytes:
            raise TooLargeError(
                f"{name}: its volume has {size / 1e6:,.0f} million bytes; give a part of it"
                f"{limits.advice('inflated_bytes')}"
            )
        if isinstance(stream, gzip.GzipFile):
            limits.spend(size, name)
        first = tuple([slice(None)] * 3 + [0] * (image.ndim - 3))
        values = np.asarray(image.dataobj[first])
        affine = affine_of(image.header, name)
        located = is_located(image.header)
    except ImageError:
        raise
    except (*DECODER_ERRORS, *NIFTI_ERRORS) as error:
        raise ImageError(f"{name}: expected a whole NIfTI volume, but it cannot be decoded; export it again") from error
    if values.ndim != 3 or values.dtype.names:
        raise UnsupportedImageError(f"{name}: {_EXPECTED}")
    if values.dtype not in (np.dtype(np.int16), np.dtype(np.uint8), np.dtype(np.uint16)):
        values = values.astype(np.float32)
    directions = np.diag([-1.0, -1.0, 1.0]) @ affine[:3, :3]  # NIfTI's x grows to the right and its y to the front
    turned, order = oriented(values, directions)
    steps = np.linalg.norm(directions, axis=0)
    spacing = float(steps[order[0]]), float(steps[order[1]]), float(steps[order[2]])
    volumes = math.prod(image.shape[3:])
    warnings = [f"the file holds {volumes} volumes, of which the first was read"] if volumes > 1 else []
    warnings += [] if located else [NOT_LOCATED]
    return Volume(turned, spacing, PLANES[order.index(2)], format="NIFTI", warnings=tuple(warnings), located=located)
