"""DICOM files: the pixels of one frame in 8 bits, and the header fields on an allow-list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from medical_vqa.data.imaging.decoded_frame import DecodedFrame, DecodeLimits
from medical_vqa.data.imaging.dicom.dataset import DICOM_ERRORS, Frame, read_elements
from medical_vqa.data.imaging.dicom.facts import HEADER_FIELDS, plane_of_frame, term_of
from medical_vqa.data.imaging.dicom.grayscale import gray_pixels
from medical_vqa.data.imaging.dicom.lookup_tables import colors
from medical_vqa.data.imaging.dicom.values import check_dataset, stored_values
from medical_vqa.data.imaging.geometry import Spacing, valid_spacing
from medical_vqa.data.imaging.planes import squared
from medical_vqa.data.imaging.recognition import is_dicom_directory
from medical_vqa.data.imaging.suppress_warnings import suppress_warnings
from medical_vqa.data.imaging.windowing import percentile_range, ramp, to_8_bits
from medical_vqa.errors import ImageError, UnsupportedImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing")  # calibrated where the header has it, otherwise at the detector
_SHAPES = (*_SPACINGS, "NominalScannedPixelSpacing", "PixelAspectRatio")
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_OFTEN_ANNOTATED = ("US", "SC", "OT")  # modalities whose pictures often have text in their pixels


def read_dicom(
    data: bytes,
    name: str,
    *,
    limits: DecodeLimits,
    frame: int | None = None,
    window: tuple[float, float] | None = None,
) -> DecodedFrame:
    """Decode one frame of a DICOM file.

    Values pass the modality LUT or rescaling, then `window`, or else the VOI LUT or the first window of the header.
    Without any of these 8-bit values are unchanged and others are mapped from their 0.5th and 99.5th percentile to
    0..255. MONOCHROME1 is inverted; YBR and palettes become RGB; pixels that are not square are resampled. Optional
    elements that cannot be used are left out, with a warning.

    Args:
        data: The file's bytes.
        name: What messages call the image.
        limits: Limits that are checked before anything is inflated or decoded.
        frame: The frame, from 0; by default the middle one.
        window: Center and width of the values to show.

    Raises:
        TooLargeError: A limit is exceeded.
        UnsupportedImageError: A transfer syntax or pixel type that is not supported, or needs an extra.
        ImageError: Damaged, truncated or without pixels, no such frame, or a window for a color image.
    """
    if is_dicom_directory(data):
        raise UnsupportedImageError(
            f"{name}: is a DICOMDIR, a list of files without a picture; give the folder that holds it and the files"
        )
    try:
        with suppress_warnings("pydicom"):
            return _read(data, name, limits, frame, window)
    except DICOM_ERRORS as error:  # its text may quote the header
        raise ImageError(
            f"{name}: expected a whole DICOM picture, but its {len(data):,} bytes cannot be decoded "
            f"({type(error).__name__}); export the file again"
        ) from error


def _read(
    data: bytes, name: str, limits: DecodeLimits, index: int | None, window: tuple[float, float] | None
) -> DecodedFrame:
    dataset = read_elements(data, name, limits)
    selected, frames = check_dataset(dataset, name, limits, index)
    frame = Frame(dataset, selected, name)
    values = stored_values(frame)  # (rows, columns) or (rows, columns, 3)
    if dataset.PhotometricInterpretation == "PALETTE COLOR" or values.ndim == 3:
        if window is not None:
            raise ImageError(f"{name}: a window is for gray pictures, and this one has colors; leave it out")
        pixels, used_window, source = _color_pixels(values, frame), None, None
    else:
        pixels, used_window, source = gray_pixels(values, frame, window)
    spacing = _sides(frame, _SPACINGS)
    pixels, spacing = squared(pixels, _sides(frame, _SHAPES), spacing, max_pixels=limits.pixels)
    annotation = burned_in(frame)
    return DecodedFrame(
        pixels,
        "DICOM",
        removed_metadata=("DICOM header", "other frames") if frames > 1 else ("DICOM header",),
        header_fields=header_fields(dataset),
        burned_in_annotation=annotation,
        frame=selected,
        frames=frames,
        window=used_window,
        spacing=spacing,
        window_source=source,
        plane=plane_of_frame(frame),
        warnings=tuple(frame.warnings),
    )


def _color_pixels(values: NDArray[Any], frame: Frame) -> NDArray[np.uint8]:
    dataset = frame.dataset
    if values.ndim == 2:
        big_endian = dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
        pixels, differs = colors(values, dataset, big_endian=big_endian)
        if differs:
            frame.warn("the palette declares other bits than it holds; those that it holds were used")
        return pixels
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    bits = max(8, int(dataset.BitsStored))
    if int(values.max()) >> (bits - 4) == 0:  # such as 12 bits in 16: nearly black if taken literally
        frame.warn("the colors use less than the bits that the header declares and were stretched")
        brightness = ramp(*percentile_range(values))
        return np.concatenate([to_8_bits(values[:, :, band], brightness) for band in range(3)], axis=2)
    return (values >> (bits - 8)).astype(np.uint8)


def _sides(frame: Frame, keywords: tuple[str, ...]) -> Spacing | None:
    """Height and width of a pixel by the first element that states them. Source: PS3.3, 10.7.1."""
    for module in (frame.group("PixelMeasuresSequence"), frame.dataset):
        for keyword in keywords:
            sides = valid_spacing(frame.numbers(module, keyword)) if keyword in module else None
            if sides is not None:
                return sides
    return None


def burned_in(frame: Frame) -> bool | None:
    """Whether the header declares text in the pixels; warns where it does, or often should and does not say."""
    dataset = frame.dataset
    flag = {"YES": True, "NO": False}.get(str(dataset.get("BurnedInAnnotation") or "").strip().upper())
    captured = str(dataset.get("SOPClassUID") or "").startswith(_SECONDARY_CAPTURE)
    if flag:
        frame.warn("the header says that text is burned into the picture, which may name a patient")
    elif flag is None and (captured or term_of(dataset, "Modality") in _OFTEN_ANNOTATED):
        frame.warn(
            "the header does not say whether text is burned into the picture, as pictures of this type often have"
        )
    return flag


def header_fields(dataset: Dataset) -> dict[str, str]:
    """Header fields on the allow-list, where they hold a term that the standard defines, and the size."""
    terms = {keyword: term_of(dataset, keyword) for keyword in HEADER_FIELDS}
    known = {keyword: term for keyword, term in terms.items() if term}
    return {**known, "Rows": str(int(dataset.Rows)), "Columns": str(int(dataset.Columns))}
