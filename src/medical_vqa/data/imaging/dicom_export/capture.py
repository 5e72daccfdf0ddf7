"""A picture with its attention map as a DICOM Secondary Capture of the study that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from medical_vqa.data.imaging.suppress_warnings import suppress_warnings
from medical_vqa.errors import MissingDependencyError
from medical_vqa.runtime.environment import package_version

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

_OPACITY = 0.45  # of the color where the map is largest
_SERIES_NUMBER = 9902


def attention_picture(picture: Image.Image, weights: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The picture (rows, columns, 3) with the map over it in red.

    Args:
        picture: As a person sees it.
        weights: (rows, columns) over the whole picture, non-negative.
    """
    base = np.asarray(picture.convert("RGB"), np.float32)
    largest = float(weights.max()) or 1.0
    grid = Image.fromarray((weights / largest * 255).astype(np.uint8))
    opacity = np.asarray(grid.resize(picture.size, Image.Resampling.BICUBIC), np.float32)[..., None] / 255 * _OPACITY
    red = np.array([255.0, 0.0, 0.0], np.float32)
    return np.rint(base * (1 - opacity) + red * opacity).astype(np.uint8)


def _orientation(source: Dataset) -> list[str] | None:
    """Directions of rows and columns in the patient, such as L and P; None where the source does not say."""
    cosines = [float(value) for value in source.get("ImageOrientationPatient") or []]
    if len(cosines) != 6:
        return None
    letters = []
    for direction in (cosines[:3], cosines[3:]):
        axis = int(np.abs(direction).argmax())
        letters.append(("RL", "AP", "FH")[axis][int(direction[axis] > 0)])
    return letters


def secondary_capture(
    pixels: NDArray[np.uint8], source: Dataset, *, model: str, series_uid: str, instance_uid: str
) -> Dataset:
    """A Secondary Capture of the source's study.

    Args:
        pixels: (rows, columns, 3).
        source: The image that it shows, from `source.read_source`.
        model: Name of the model.
        series_uid: SeriesInstanceUID of the capture.
        instance_uid: SOPInstanceUID of the capture.

    Returns:
        The object with its file meta information.

    Raises:
        MissingDependencyError: The package highdicom is not installed.
    """
    try:
        from highdicom.sc import SCImage  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"DICOM captures need the package {error.name}; run: pip install 'medical-vqa[dicomweb]'"
        ) from error
    with suppress_warnings("pydicom"):
        capture: Dataset = SCImage.from_ref_dataset(
            ref_dataset=source,
            pixel_array=pixels,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            series_instance_uid=series_uid,
            series_number=_SERIES_NUMBER,
            sop_instance_uid=instance_uid,
            instance_number=1,
            manufacturer="Medical-VQA",
            manufacturer_model_name=model[:64],
            software_versions=package_version(),
            patient_orientation=("L", "P"),  # it takes none that is not stated; set below
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            series_description="Attention map of a model",
        )
    capture.PatientOrientation = _orientation(source)
    capture.Laterality = None  # 2C: not known
    capture.SpecificCharacterSet = "ISO_IR 192"
    return capture
