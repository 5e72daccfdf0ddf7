"""What can be shown of a stored image or series: its planes, windows, values and orientation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medical_vqa.data.imaging.planes import PLANES, Plane
from medical_vqa.data.imaging.volume import Volume
from medical_vqa.data.imaging.windowing import Curve
from medical_vqa.serving.schema.images import ImageFacts, NamedWindow, ValueRange

# Center and width in Hounsfield units, as most viewers offer them.
_CT_WINDOWS = {
    "lung": (-600.0, 1500.0),
    "mediastinum": (50.0, 350.0),
    "abdomen": (40.0, 400.0),
    "liver": (80.0, 160.0),
    "brain": (40.0, 80.0),
    "bone": (400.0, 1800.0),
}
_SIDES: dict[Plane, list[str]] = {
    "axial": ["R", "L", "A", "P"],
    "coronal": ["R", "L", "S", "I"],
    "sagittal": ["A", "P", "S", "I"],
}


def facts_of_picture(
    header_fields: Mapping[str, str], window: tuple[float, float] | None, warnings: list[str]
) -> ImageFacts:
    """Facts of an image of which only the picture in 8 bits is stored.

    Args:
        header_fields: Facts on the allow-list.
        window: The window that the picture shows; None: its pixels are unchanged.
        warnings: What could not be used.
    """
    return ImageFacts(
        modality=header_fields.get("Modality"),
        body_part=header_fields.get("BodyPartExamined"),
        planes={"axial": 1},
        window=None if window is None else NamedWindow(name="default", center=window[0], width=window[1]),
        warnings=warnings,
    )


def facts_of_volume(volume: Volume, *, frame: int | None = None) -> ImageFacts:
    """Facts of an image whose values are stored.

    Args:
        volume: The values.
        frame: The frame that a file of frames is asked about; None: this is a series.
    """
    modality = volume.facts.get("Modality")
    (center, width), source = volume.default_window()
    default = NamedWindow(
        name="header" if source == "header" else "percentiles",
        center=center,
        width=width,
        function="sigmoid" if source == "header" and volume.function == "SIGMOID" else "linear",
    )
    presets = _CT_WINDOWS if modality == "CT" else {}
    low, high = _range(volume)
    depth, down, across = _axes(volume.acquired)
    rows_and_columns = volume.spacing[down], volume.spacing[across]
    distance = volume.spacing[depth] if volume.located else None
    return ImageFacts(
        series=frame is None,
        modality=modality,
        body_part=volume.facts.get("BodyPartExamined"),
        planes={plane: volume.slices[plane] for plane in reversed(PLANES) if plane in volume.slices},
        plane=volume.acquired,
        frame=volume.slices[volume.acquired] // 2 if frame is None else frame,
        spacing_mm=None if frame is not None or not volume.measured else (*rows_and_columns, distance),
        windows=[default, *(NamedWindow(name=name, center=c, width=w) for name, (c, w) in presets.items())],
        window=default,
        curve=None if volume.curve is None else _steps(volume.curve),
        values=ValueRange(low=low, high=high, unit="HU" if modality == "CT" else None),
        inverted=volume.inverted,
        orientation={plane: _SIDES[plane] for plane in reversed(PLANES)} if volume.located else {},
        notes=_notes(volume),
        warnings=list(volume.warnings),
    )


def _steps(curve: Curve) -> list[tuple[int, int]]:
    """The table as pairs of a value and the brightness from it on; at most 256 where brightness only rises or falls."""
    before_first = curve.entries[:1] ^ 1  # another brightness, so that the first entry counts as a change
    changes = np.flatnonzero(np.diff(curve.entries, prepend=before_first))
    return [(curve.first + int(index), int(curve.entries[index])) for index in changes]


def _axes(plane: Plane) -> tuple[int, int, int]:
    """The axes of a volume along the slices, the rows and the columns of a plane."""
    axis = PLANES.index(plane)
    across, down = (place for place in range(3) if place != axis)
    return axis, down, across


def _range(volume: Volume) -> tuple[float, float]:
    values = volume.values
    ends = (float(np.nanmin(values)), float(np.nanmax(values))) if values.size else (0.0, 0.0)
    return volume.scaled(ends[0]), volume.scaled(ends[1])


def _notes(volume: Volume) -> list[str]:
    burned_in = ["burned_in_annotation"] if volume.burned_in_annotation else []
    return [*dict.fromkeys([*volume.notes, *burned_in])]
