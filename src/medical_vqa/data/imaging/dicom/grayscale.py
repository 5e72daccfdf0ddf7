"""From stored gray values to 8 bits: modality LUT or rescaling, then a window, a VOI LUT or percentiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from medical_vqa.data.imaging.dicom.dataset import DICOM_ERRORS, Frame
from medical_vqa.data.imaging.dicom.lookup_tables import LookupTable, read_table, scale_of
from medical_vqa.data.imaging.windowing import Curve, Ramp, percentile_range, ramp, to_8_bits, windowed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medical_vqa.data.imaging.decoded_frame import WindowSource

Window = tuple[float, float]
_SAMPLE = 1_000_000  # values that percentiles are computed from


@dataclass(frozen=True, slots=True)
class Rescaling:
    """From stored values to the scanner's, such as Hounsfield units."""

    slope: float = 1.0
    """Factor."""
    intercept: float = 0.0
    """Added after it."""
    table: LookupTable | None = None
    """Modality LUT, in place of both."""
    stated: bool = False
    """Whether the header has any of these."""

    def __call__(self, values: NDArray[Any]) -> NDArray[Any]:
        """The scanner's values."""
        if self.table is not None:
            return self.table(values).astype(np.float64)
        if (self.slope, self.intercept) == (1.0, 0.0):
            return values
        return values.astype(np.float64) * self.slope + self.intercept


def gray_pixels(
    values: NDArray[Any], frame: Frame, window: Window | None
) -> tuple[NDArray[np.uint8], Window | None, WindowSource | None]:
    """The picture (rows, columns, 1), the window that was used, and where it came from; padding is black.

    Args:
        values: Stored values (rows, columns).
        frame: The frame with its header.
        window: Center and width to show; by default the VOI LUT or the first window of the header, else percentiles.
    """
    rescale = rescaling(frame)
    padding = padding_of(values, frame)
    brightness, used_window, source = _brightness(values, frame, rescale, window, padding)
    pixels = to_8_bits(values, lambda strip: brightness(rescale(strip)), inverted=is_inverted(frame))
    if padding is not None:
        pixels[padding] = 0
    return pixels, used_window, source


def is_inverted(frame: Frame) -> bool:
    """Whether small values are bright; warns where two elements of the header contradict each other.

    Source: PS3.3, C.11.6.1.2; an image's own PresentationLUTShape goes before its PhotometricInterpretation in DCMTK
    and dcm4che.
    """
    inverted = bool(frame.dataset.PhotometricInterpretation == "MONOCHROME1")
    shape = str(frame.dataset.get("PresentationLUTShape") or "").strip().upper()
    if shape not in ("IDENTITY", "INVERSE") or (shape == "INVERSE") == inverted:
        return inverted
    frame.warn(
        "PresentationLUTShape contradicts PhotometricInterpretation and was followed; black and white may be swapped"
    )
    return not inverted


def rescaling(frame: Frame) -> Rescaling:
    """How the header rescales this frame; what it states unusably is left out, with a warning."""
    module = frame.group("PixelValueTransformationSequence")
    if luts := _items(frame, module, "ModalityLUTSequence"):
        try:
            return Rescaling(table=_table(luts[0], frame, signed=_signed(frame)), stated=True)
        except DICOM_ERRORS:
            frame.warn("ModalityLUTSequence cannot be used and was ignored")
    slope, intercept = frame.numbers(module, "RescaleSlope"), frame.numbers(module, "RescaleIntercept")
    stated = "RescaleSlope" in module
    if stated and (slope is None or slope[0] == 0):
        frame.warn("RescaleSlope is empty or zero; 1 was used")
        slope = None
    return Rescaling(slope[0] if slope else 1.0, intercept[0] if intercept else 0.0, stated=stated)


def padding_of(values: NDArray[Any], frame: Frame) -> NDArray[np.bool_] | None:
    """Which pixels are padding; None where there is none, or nothing else. Source: PS3.3, C.7.5.1.1.2."""
    ends = [_padding_value(frame, keyword, values.dtype) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if ends[0] is None:
        return None
    low, high = sorted((ends[0], ends[0] if ends[1] is None else ends[1]))
    inside = (values >= low) & (values <= high)
    return inside if inside.any() and not inside.all() else None


def _padding_value(frame: Frame, keyword: str, dtype: np.dtype[Any]) -> int | None:
    """The value in the range of the stored type: many files state a signed one as unsigned."""
    element = frame.dataset.get(keyword)
    if isinstance(element, bytes):
        element = int.from_bytes(element[:2], "little")
    if element is None or dtype.kind not in "iu":
        return None
    try:
        value = int(np.ravel(element)[0])
    except DICOM_ERRORS:
        frame.warn(f"{keyword} is not a number and was not used")
        return None
    limits = np.iinfo(dtype)
    bits = max(16, int(frame.dataset.BitsAllocated))
    if value > limits.max:
        value -= 2**bits
    elif value < limits.min:
        value += 2**bits
    return value


def _items(frame: Frame, module: Dataset, keyword: str) -> list[Dataset]:
    """The items of an optional sequence that hold a table."""
    try:
        return [item for item in module.get(keyword) or [] if "LUTDescriptor" in item and "LUTData" in item]
    except DICOM_ERRORS:
        frame.warn(f"{keyword} cannot be used and was ignored")
        return []


def _table(item: Dataset, frame: Frame, *, signed: bool) -> LookupTable:
    return read_table(
        item,
        "LUTDescriptor",
        "LUTData",
        signed=signed,
        big_endian=frame.dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian,
    )


def _signed(frame: Frame) -> bool:
    return bool(frame.dataset.get("PixelRepresentation"))


def _brightness(
    values: NDArray[Any],
    frame: Frame,
    rescale: Rescaling,
    window: Window | None,
    padding: NDArray[np.bool_] | None,
) -> tuple[Ramp, Window | None, WindowSource | None]:
    """Brightness, the center and width that were used, if any, and where these came from."""
    module = frame.group("FrameVOILUTSequence")
    if window is not None:
        return windowed(*window, "LINEAR"), window, "option"
    curve = header_curve(frame, module, rescale)
    if curve is not None:
        return curve, None, "header LUT"
    stated = header_window(frame, module)
    if stated is not None:
        return windowed(*stated, window_function(module)), stated, "header"
    if values.dtype == np.uint8 and not rescale.stated:
        return ramp(0, 2.0 ** int(frame.dataset.get("BitsStored") or 8) - 1), None, None
    inside = values if padding is None else values[~padding]
    low, high = percentile_range(rescale(inside.reshape(-1, 1)[:: max(1, inside.size // _SAMPLE)]))
    return ramp(low, high), ((low + high) / 2, high - low), "percentiles"


def header_curve(frame: Frame, module: Dataset, rescale: Rescaling) -> Curve | None:
    """Brightness by the first VOI LUT of the header, of the frame's functional group too. Source: PS3.3, C.11.2.1.1."""
    luts = _items(frame, module, "VOILUTSequence")
    if not luts:
        return None
    try:
        table = _table(luts[0], frame, signed=_signed(frame) or rescale.intercept < 0)
    except DICOM_ERRORS:
        frame.warn("VOILUTSequence cannot be used and was ignored")
        return None
    white, differs = scale_of([table])
    if differs:
        frame.warn("the VOI LUT declares other bits than it holds; those that it holds were used")
    return Curve(table.first, np.rint(table.entries / white * 255).astype(np.uint8))


def window_function(module: Dataset) -> str:
    """How the header's window maps values to brightness."""
    return str(module.get("VOILUTFunction") or "LINEAR").strip().upper()


def header_window(frame: Frame, module: Dataset) -> Window | None:
    """The first window of the header, where it can be used."""
    if "WindowCenter" not in module and "WindowWidth" not in module:
        return None
    centers, widths = (frame.numbers(module, keyword) for keyword in ("WindowCenter", "WindowWidth"))
    if centers and widths and widths[0] > 0:
        return centers[0], widths[0]
    frame.warn("WindowCenter and WindowWidth are no usable window; the window was computed from the values")
    return None
