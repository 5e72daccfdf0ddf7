"""Rescaled values of the slices of a series, one after another, each file parsed once for all its frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset

from medical_vqa.data.imaging.dicom.dataset import DICOM_ERRORS, Frame, read_elements
from medical_vqa.data.imaging.dicom.grayscale import (
    header_curve,
    header_window,
    is_inverted,
    padding_of,
    rescaling,
    window_function,
)
from medical_vqa.data.imaging.dicom.read import burned_in, header_fields
from medical_vqa.data.imaging.dicom.values import check_dataset, stored_values
from medical_vqa.data.imaging.windowing import Curve
from medical_vqa.errors import ImageError, UnsupportedImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medical_vqa.data.imaging.decoded_frame import DecodeLimits


@dataclass(frozen=True, slots=True)
class SliceDescription:
    """What the header of a slice says of its values."""

    window: tuple[float, float] | None
    """The first window, where it can be used."""
    function: str
    """How the window maps values to brightness."""
    curve: Curve | None
    """The VOI LUT, which goes before the window; None: there is none."""
    facts: dict[str, str]
    """Header fields on the allow-list."""
    inverted: bool
    """Whether small values are bright."""
    burned_in_annotation: bool | None
    """Whether the header declares text in the pixels."""
    white: int
    """The largest value that a pixel can have: the brightest where values are shown as they are."""


class SliceReader:
    """Reads the slices of one series."""

    def __init__(self, name: str, limits: DecodeLimits) -> None:
        self._name = name
        self._limits = limits
        self._read: Callable[[], bytes] | None = None
        self._dataset = Dataset()
        self._streams: list[bytes] = []
        self.warnings: list[str] = []

    def values(self, read: Callable[[], bytes], index: int) -> NDArray[Any]:
        """Values (rows, columns) in the scanner's units: whole numbers of 16 bits where they fit, else floats.

        Raises:
            UnsupportedImageError: The slice has colors, or is of a type that is not read.
            ImageError: It is damaged.
        """
        try:
            frame = self._frame(read, index)
            colors = int(frame.dataset.SamplesPerPixel) > 1
            if colors or frame.dataset.PhotometricInterpretation == "PALETTE COLOR":
                raise UnsupportedImageError(
                    f"{self._name}: expected a series of gray slices, got colors; ask about one"
                )
            values = _without_padding(stored_values(frame), frame)
        except DICOM_ERRORS as error:
            raise ImageError(f"{self._name}: a slice cannot be decoded; export the series again") from error
        self.warnings += [warning for warning in frame.warnings if warning not in self.warnings]
        limits = np.iinfo(np.int16)
        if values.min() >= limits.min and values.max() <= limits.max and (np.rint(values) == values).all():
            return values.astype(np.int16)
        return values.astype(np.float32)

    def description(self, read: Callable[[], bytes], index: int) -> SliceDescription:
        """What the header says of a slice's values."""
        frame = self._frame(read, index)
        module = frame.group("FrameVOILUTSequence")
        described = SliceDescription(
            header_window(frame, module),
            window_function(module),
            header_curve(frame, module, rescaling(frame)),
            header_fields(frame.dataset),
            is_inverted(frame),
            burned_in(frame),
            2 ** int(frame.dataset.get("BitsStored") or 8) - 1,
        )
        self.warnings += [warning for warning in frame.warnings if warning not in self.warnings]
        return described

    def _frame(self, read: Callable[[], bytes], index: int) -> Frame:
        if read is not self._read:
            self._dataset = read_elements(read(), self._name, self._limits)
            self._read = read
            self._streams = []
        check_dataset(self._dataset, self._name, self._limits, index)
        return Frame(self._dataset, index, self._name, streams=self._streams)


def _without_padding(stored: NDArray[Any], frame: Frame) -> NDArray[Any]:
    """Rescaled values, with padding as dark as the darkest of the rest where it would be bright or in percentiles."""
    values = rescaling(frame)(stored)
    padding = padding_of(stored, frame)
    inverted = is_inverted(frame)
    if padding is None or (header_window(frame, frame.group("FrameVOILUTSequence")) is not None and not inverted):
        return values
    rest = values[~padding]
    return np.where(padding, rest.max() if inverted else rest.min(), values)
