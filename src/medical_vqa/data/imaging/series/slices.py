"""The slices of one DICOM file, from its header alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from medical_vqa.data.imaging.decoded_frame import DecodeLimits
from medical_vqa.data.imaging.geometry import Spacing, valid_spacing
from medical_vqa.errors import ImageError, TooLargeError

_SAME_SPACING = 1e-4  # millimeters
_SAME_COSINE = 1e-3
_HEADER_TAGS = [
    0x00080008, 0x00080060, 0x00180015, 0x00185101, 0x00280301, 0x0020000E, 0x00200013, 0x00200032, 0x00200037,
    0x00280008, 0x00280010, 0x00280011, 0x00280030, 0x00080016, 0x52009229, 0x52009230,
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice, without its pixels."""

    read: Callable[[], bytes] = field(repr=False)
    file: int
    frame: int
    series: str = field(repr=False)
    """Identifies the series; never stored or shown."""
    number: float
    """Its place among the slices by the header's InstanceNumber; without one, by its frame alone."""
    numbered: bool
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    size: tuple[int, int]
    spacing: Spacing | None
    """Height and width of a pixel in millimeters; None where the header does not say."""
    localizer: bool
    computed: bool
    """Whether it is no slice of a scanner but one computed from such: a dose, a parametric map."""

    def fits(self, other: Slice) -> bool:
        """Whether both can lie in one volume: scanners write the same orientation with other last digits."""
        return (
            self.size == other.size
            and _close(self.spacing, other.spacing, _SAME_SPACING)
            and _close(self.orientation, other.orientation, _SAME_COSINE)
        )

    @property
    def located(self) -> bool:
        """Whether its place in the patient is known."""
        return self.position is not None and self.orientation is not None

    @property
    def distance(self) -> float:
        """Position along its normal, in millimeters; of a slice that is located."""
        assert self.position is not None
        assert self.orientation is not None
        return float(np.dot(np.cross(self.orientation[:3], self.orientation[3:]), self.position))


def _close(one: Sequence[float] | None, other: Sequence[float] | None, tolerance: float) -> bool:
    if one is None or other is None:
        return one is other
    return all(abs(a - b) <= tolerance for a, b in zip(one, other, strict=True))


class NoPictureError(ImageError):
    """A DICOM object without a picture of its own; the text says which, without the file's name."""


class DamagedError(ImageError):
    """A file that cannot be read; the text says why, without the file's name."""


def slices_of(read: Callable[[], bytes], data: bytes, number: int, limits: DecodeLimits) -> list[Slice]:
    """The slices of one DICOM file.

    Of a header that states more frames than the limit, one more than the limit: `_check_count` refuses them.

    Raises:
        NoPictureError: It is a report, a segmentation or another object without a picture of its own.
        DamagedError: Its header cannot be read, or not within the limits.
    """
    from medical_vqa.data.imaging.dicom.dataset import (  # noqa: PLC0415 - pydicom is an extra
        DICOM_ERRORS,
        Frame,
        read_elements,
    )
    from medical_vqa.data.imaging.dicom.object_kind import (  # noqa: PLC0415
        describe_without_picture,
        is_about_images,
        is_computed,
    )

    try:
        dataset = read_elements(data, "", limits, _HEADER_TAGS)
        if is_about_images(dataset) or dataset.get("Rows") is dataset.get("Columns") is None:
            raise NoPictureError(f"is {describe_without_picture(dataset)[0]}")
        size = int(dataset.Rows), int(dataset.Columns)
        frames = int(dataset.get("NumberOfFrames") or 1)
        localizer = "LOCALIZER" in [str(part).upper() for part in np.ravel(dataset.get("ImageType") or [])]
        instance = Frame(dataset, 0, "").numbers(dataset, "InstanceNumber")
        computed = is_computed(dataset)
        slices = []
        for index in range(min(frames, limits.frames + 1)):
            frame = Frame(dataset, index, "")
            spacing = valid_spacing(frame.numbers(frame.group("PixelMeasuresSequence"), "PixelSpacing"))
            position = frame.numbers(frame.group("PlanePositionSequence"), "ImagePositionPatient")
            orientation = frame.numbers(frame.group("PlaneOrientationSequence"), "ImageOrientationPatient")
            slices.append(
                Slice(
                    read,
                    number,
                    index,
                    str(dataset.get("SeriesInstanceUID") or ""),
                    (instance[0] if instance else 0.0) + index / frames,
                    bool(instance) or frames > 1,
                    tuple(position) if position and len(position) == 3 else None,
                    tuple(orientation) if orientation and len(orientation) == 6 else None,
                    size,
                    spacing,
                    localizer,
                    computed,
                )
            )
    except NoPictureError:
        raise
    except TooLargeError as error:
        raise DamagedError(str(error).removeprefix(": ")) from error
    except (*DICOM_ERRORS, ImageError) as error:
        raise DamagedError("is DICOM, but its header is damaged; export it again") from error
    return slices
