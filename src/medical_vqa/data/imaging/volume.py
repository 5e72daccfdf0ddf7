"""A volume of gray values in the patient: axial, coronal and sagittal pictures of it, with true proportions.

Source of the coordinates: PS3.3, C.7.6.2.1.1: x grows to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from medical_vqa.data.imaging.decoded_frame import DecodedFrame, WindowSource
from medical_vqa.data.imaging.planes import PLANES, Plane, squared
from medical_vqa.data.imaging.raster import MAX_PIXELS
from medical_vqa.data.imaging.windowing import Curve, Ramp, percentile_range, to_8_bits, windowed
from medical_vqa.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SAMPLE = 1_000_000  # values that percentiles are computed from


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """Values on a grid of three axes, each nearest to one axis of the patient."""

    values: NDArray[np.generic]
    """(x, y, z): sagittal slices from the patient's right to left, coronal ones from front to back, axial ones from
    feet to head. A view of the values as they were stored."""
    spacing: tuple[float, float, float]
    """Distance of neighboring values along each axis, in millimeters."""
    acquired: Plane
    """The plane in which the slices were stored."""
    window: tuple[float, float] | None = None
    """Center and width of the header; None where it has none."""
    function: str = "LINEAR_EXACT"
    """How the header's window maps values to brightness: ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID`` of DICOM."""
    curve: Curve | None = None
    """The header's table of brightness, which slices are shown by unless a window is chosen; None: it has none."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Header fields on the allow-list."""
    format: str = "DICOM"
    """``DICOM`` or ``NIFTI``."""
    inverted: bool = False
    """Whether small values are bright."""
    warnings: tuple[str, ...] = ()
    """What was left out, or is missing: sentences without values of the header."""
    burned_in_annotation: bool | None = None
    """Whether a header declares text in the pixels."""
    slope: float = 1.0
    """Factor of the stored values to those of the scanner."""
    intercept: float = 0.0
    """Added after it."""
    located: bool = True
    """Whether the headers state where the slices lie in the patient; otherwise they are shown as stored, in the
    acquired plane alone."""
    notes: tuple[str, ...] = ()
    """Codes of the warnings: ``gaps``, ``localizers_left_out`` ..."""
    measured: bool = True
    """Whether the headers state the size of a pixel; otherwise `spacing` has proportions alone, and nothing is in
    millimeters."""
    files: tuple[tuple[int, int], ...] = ()
    """Number of the file and of the frame in it, from 0, of each slice of the acquired plane; empty: not known."""

    @property
    def slices(self) -> dict[Plane, int]:
        """Number of slices in each plane that can be shown."""
        counts = {plane: self.values.shape[axis] for axis, plane in enumerate(PLANES)}
        return counts if self.located else {self.acquired: counts[self.acquired]}

    def default_window(self) -> tuple[tuple[float, float], WindowSource]:
        """The header's window, else the 0.5th to 99.5th percentile of all values: the same for every slice."""
        if self.window is not None:
            return self.window, "header"
        step = max(1, int(np.cbrt(self.values.size / _SAMPLE)))
        low, high = (self.scaled(end) for end in percentile_range(self.values[::step, ::step, ::step]))
        return ((low + high) / 2, high - low), "percentiles"

    @overload
    def scaled(self, value: float) -> float: ...
    @overload
    def scaled(self, value: NDArray[Any]) -> NDArray[Any]: ...
    def scaled(self, value: Any) -> Any:
        """Stored values in the scanner's units."""
        return value * self.slope + self.intercept

    def _brightness(self, window: tuple[float, float] | None) -> tuple[Ramp, tuple[float, float] | None, WindowSource]:
        """What slices are shown by, the center and width of it, and where these came from."""
        if window is None and self.curve is not None:
            return self.curve, None, "header LUT"
        used, source = self.default_window() if window is None else (window, "option")
        # The header's window by its name or numbers is the same as by default.
        return windowed(*used, self.function if used == self.window else "LINEAR_EXACT"), used, source

    def section(
        self, index: int | None = None, *, plane: Plane | None = None
    ) -> tuple[NDArray[Any], tuple[float, float], int]:
        """The stored values of one slice as a picture: head or face up, the patient's right at the left.

        Args:
            index: The slice, from 0; by default the middle one.
            plane: Plane of the picture; by default that of the stored slices.

        Returns:
            Values (rows, columns), height and width of a pixel in millimeters, and the number of the slice.

        Raises:
            ImageError: There is no such plane or slice.
        """
        plane = plane or self.acquired
        if plane not in PLANES:
            raise ImageError(f"plane: expected axial, coronal or sagittal, got {plane!r}; correct it")
        if plane not in self.slices:
            raise ImageError(f"the file does not state where its slices lie, so there is no {plane} plane; "
                             f"leave the plane out")  # fmt: skip
        axis = PLANES.index(plane)
        count = self.values.shape[axis]
        selected = count // 2 if index is None else index
        if not 0 <= selected < count:
            raise ImageError(f"the {plane} plane has no slice {selected}; the slices are 0 to {count - 1}")
        # A view: np.take would copy all values first, seconds of a CT. (columns, rows); sagittal: the face at the left
        across: NDArray[Any] = self.values[(slice(None),) * axis + (selected,)]
        down = [place for place in range(3) if place != axis]
        return (
            across.T if plane == "axial" or not self.located else across.T[::-1],
            (self.spacing[down[1]], self.spacing[down[0]]),
            selected,
        )

    def view(
        self, index: int | None = None, *, plane: Plane | None = None, window: tuple[float, float] | None = None
    ) -> DecodedFrame:
        """One slice as a picture: head or face up, the patient's right at the left, square pixels.

        Args:
            index: The slice, from 0; by default the middle one.
            plane: Plane of the picture; by default that of the stored slices.
            window: Center and width of the values to show; by default the header's table, else `default_window`.

        Raises:
            ImageError: There is no such plane or slice.
        """
        plane = plane or self.acquired
        rows, sides, selected = self.section(index, plane=plane)
        brightness, used, source = self._brightness(window)
        pixels = to_8_bits(rows, lambda strip: brightness(self.scaled(strip)), inverted=self.inverted)
        pixels, spacing = squared(pixels, sides, sides, max_pixels=MAX_PIXELS)
        return DecodedFrame(
            pixels,
            self.format,
            removed_metadata=(f"{self.format} header", "other slices"),
            header_fields=dict(self.facts),
            burned_in_annotation=self.burned_in_annotation,
            frame=selected,
            frames=self.slices[plane],
            window=used,
            window_source=source,
            spacing=spacing if self.measured else None,
            plane=plane if self.located else None,
            warnings=self.warnings,
        )


def oriented(values: NDArray[np.generic], directions: NDArray[np.float64]) -> tuple[NDArray[np.generic], list[int]]:
    """The values with axes x, y, z, each growing as the patient's, and the stored axis that each was.

    Args:
        values: Three axes, in stored order.
        directions: (3, 3): column i is the step of stored axis i in patient coordinates, in millimeters.

    Raises:
        ImageError: The steps do not span a volume.
    """
    lengths = np.linalg.norm(directions, axis=0)
    if not np.isfinite(directions).all() or (lengths <= 0).any():
        raise ImageError("the series has no usable orientation; export it again")
    cosines = np.abs(directions / lengths)
    # The assignment of stored axes to the patient's whose cosines are largest together, also of oblique series.
    order = max(itertools.permutations(range(3)), key=lambda axes: sum(cosines[p, axes[p]] for p in range(3)))
    turned = values.transpose(order)
    flips = tuple(slice(None, None, -1 if directions[place, axis] < 0 else 1) for place, axis in enumerate(order))
    return turned[flips], list(order)
