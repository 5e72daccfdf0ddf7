"""What a report about stored images must repeat, as JSON: their UIDs, and the patient's and the study's elements.

It is stored only where a setting says so: everywhere else nothing of a header is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medical_vqa.data.imaging.dicom_export.source import read_source, source
from medical_vqa.errors import ImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from medical_vqa.data.imaging.decoded_frame import DecodeLimits

_COMMON = (
    "StudyInstanceUID", "SeriesInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate",
    "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredSources:
    """The images of one series that a report may refer to."""

    common: Mapping[str, str]
    """Elements of the patient, the study and the series."""
    instances: tuple[tuple[str, str, int], ...]
    """SOPClassUID, SOPInstanceUID and number of frames of each file."""
    slices: tuple[tuple[int, int], ...] = ()
    """Place among the instances and frame, from 0, of each slice of the stored plane; empty: not known."""

    @classmethod
    def read(
        cls, files: Mapping[int, Callable[[], bytes]], slices: Sequence[tuple[int, int]], limits: DecodeLimits
    ) -> StoredSources | None:
        """Those of a series or a single file; None where a file has no UIDs, or there are several series.

        Args:
            files: Functions that return the bytes of a file, by its number.
            slices: Number of the file and frame, from 0, of each slice.
            limits: Limits of what a file inflates to.
        """
        try:
            datasets = {number: read_source(read(), limits=limits) for number, read in files.items()}
        except ImageError:
            return None
        if len({(str(one.StudyInstanceUID), str(one.SeriesInstanceUID)) for one in datasets.values()}) != 1:
            return None
        places = {number: place for place, number in enumerate(datasets)}
        first = next(iter(datasets.values()))
        return cls(
            {key: str(first.get(key)) for key in _COMMON if first.get(key)},
            tuple(
                (str(one.SOPClassUID), str(one.SOPInstanceUID), int(one.get("NumberOfFrames") or 1))
                for one in datasets.values()
            ),
            tuple((places[number], frame) for number, frame in slices),
        )

    @classmethod
    def from_json(cls, text: str) -> StoredSources:
        """The sources that `to_json` wrote."""
        content = json.loads(text)
        instances = tuple((str(uid), str(instance), int(frames)) for uid, instance, frames in content["instances"])
        slices = tuple((int(place), int(frame)) for place, frame in content["slices"])
        return cls(content["common"], instances, slices)

    def to_json(self) -> str:
        """The sources as text."""
        return json.dumps({"common": dict(self.common), "instances": self.instances, "slices": self.slices})

    def datasets(self) -> list[Dataset]:
        """The images as a report needs them."""
        return [
            source(**self.common, SOPClassUID=uid, SOPInstanceUID=instance, NumberOfFrames=frames)
            for uid, instance, frames in self.instances
        ]

    def images(self, slices: Sequence[int] | None) -> tuple[tuple[int, int | None], ...]:
        """Place among the instances, and number of the frame from 1 of a file of frames, as a report refers to them.

        Args:
            slices: Slices of the stored plane, from 0; None: the whole series.
        """
        if slices is None or not self.slices:
            return tuple((place, None) for place in range(len(self.instances)))
        selected = [self.slices[index] for index in slices]
        return tuple((place, frame + 1 if self.instances[place][2] > 1 else None) for place, frame in selected)
