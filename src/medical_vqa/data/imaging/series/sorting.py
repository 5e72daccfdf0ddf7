"""Which slices form one volume, and their order.

The slices are sorted by their position along the normal, not by file name or number. What does not belong to the volume
(other series, localizers, repeated positions, slices of another geometry) is left out and reported.
"""

from __future__ import annotations

import numpy as np

from medical_vqa.data.imaging.series.report import Report
from medical_vqa.data.imaging.series.slices import Slice
from medical_vqa.errors import ImageError

_SAME_PLACE = 0.01  # millimeters
_GAP = 1.5  # of the usual distance
_TILT = 0.02  # sideways, of the distance along the normal: about a degree
_GEOMETRIES = 64  # of one series that are distinguished


def by_series(slices: list[Slice]) -> list[list[Slice]]:
    """The slices of each series: those of scanners before computed ones, the largest first."""
    series: dict[str, list[Slice]] = {}
    for one in slices:
        series.setdefault(one.series, []).append(one)
    return sorted(series.values(), key=lambda members: (members[0].computed, -len(members)))


def of_one_series(slices: list[Slice], name: str, report: Report) -> list[Slice]:
    """The slices of the largest series, without localizers."""
    pictures = without_localizers(slices, report)
    if not pictures:
        reasons = f" ({'; '.join(report.sentences)})" if report.sentences else ""
        raise ImageError(f"{name}: expected a series of DICOM pictures, but none is there{reasons}; check the path")
    series = by_series(pictures)
    if len(series) > 1:
        report.add("series_left_out", f"{len(series)} series are there; the one with the most slices was read")
    return series[0]


def without_localizers(slices: list[Slice], report: Report) -> list[Slice]:
    """The slices without localizers."""
    localizers = [one for one in slices if one.localizer]
    if localizers:
        sentence = f"{len(localizers)} localizers were left out"
        report.add("localizers_left_out", sentence, localizers, "the file is a localizer of the series")
    return [one for one in slices if not one.localizer]


def of_one_geometry(slices: list[Slice], report: Report) -> list[Slice]:
    """The slices of the commonest size, spacing and orientation."""
    if not slices:
        return []
    groups: list[list[Slice]] = []
    for one in slices:
        group = next((group for group in groups if group[0].fits(one)), None)
        if group is not None:
            group.append(one)
        elif len(groups) < _GEOMETRIES:
            groups.append([one])
    largest = max(groups, key=len)
    together = {id(one) for one in largest}
    others = [one for one in slices if id(one) not in together]
    if others:
        report.add(
            "geometry_left_out",
            f"{len(others)} slices of another size, spacing or orientation were left out",
            others,
            "the slice has another size, spacing or orientation than the rest of its series",
        )
    return largest


def in_order(slices: list[Slice], report: Report) -> list[Slice]:
    """The slices along their normal, one at each position; by their numbers, or files, where positions are absent."""
    if not all(one.located for one in slices):
        if all(one.numbered for one in slices):
            report.add("order_by_number", "positions are missing; the slices are in the order of their numbers")
        else:
            report.add("order_by_file", "positions and numbers are missing; the slices are in the order of the files")
        return sorted(slices, key=lambda one: one.number)
    ordered = sorted(slices, key=lambda one: (one.distance, one.number))
    distinct = ordered[:1]
    repeated: list[Slice] = []
    for one in ordered[1:]:
        (distinct if one.distance - distinct[-1].distance > _SAME_PLACE else repeated).append(one)
    if repeated:
        sentence = f"{len(repeated)} slices repeat a position and were left out"
        report.add("duplicates_left_out", sentence, repeated, "the slice repeats the position of another one")
    return distinct


def report_geometry(slices: list[Slice], report: Report) -> None:
    """Report what makes proportions untrue: gaps, slices that are not stacked along their normal, unknown sizes."""
    if not all(one.spacing for one in slices):
        report.add("size_unknown", "the size of a pixel is not stated: there are no measurements in millimeters")
    if not all(one.located for one in slices):
        return
    first, last = slices[0], slices[-1]
    if first.position is not None and last.position is not None:
        drift = np.linalg.norm(np.subtract(last.position, first.position)) ** 2 - (last.distance - first.distance) ** 2
        if drift > (_TILT * (last.distance - first.distance)) ** 2:
            report.add("tilted", "the scanner's gantry was tilted: planes across the slices are distorted")
    steps = np.diff([one.distance for one in slices])
    if len(steps) and (gaps := int((steps > _GAP * np.median(steps)).sum())):
        report.add("gaps", f"{gaps} gaps: slices are missing, and proportions across them are not true")
