"""Regions in SLAKE's images: organ masks and boxes of findings.

Masks are ``imgs/xmlab1/mask.png`` or ``masks/xmlab1.png``, boxes ``imgs/xmlab1/detection.json``.
One row of ``mask.txt`` is ``70:Liver``: the pixel value of an organ. One ``detection.json``::

    [{"Liver": [54.0, 106.0, 30.0, 31.0]}, {"Spleen": [190.0, 175.0, 75.0, 69.0]}]

with boxes as [x, y, width, height] in pixels of the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from medical_vqa.data.cache.regions import Regions, coverage_grid
from medical_vqa.data.imaging.raster import DECODER_ERRORS, open_image_file
from medical_vqa.errors import DataError
from medical_vqa.io import json_value


def region_reader(source: Path) -> Callable[[str], Regions] | None:
    """A function from an image's folder name (``xmlab1``) to its regions; None where the source has none."""
    if not (source / "mask.txt").is_file():
        return None
    names = source / "mask.txt"
    try:
        rows = [line.split(":", 1) for line in names.read_text(encoding="utf-8").splitlines() if line.strip()]
        organs = {int(value): name.strip() for value, name in rows}
    except ValueError as error:
        raise DataError(f"{names}: expected rows such as 70:Liver ({error}); get the published file") from error
    findings = sorted({name for path in source.glob("imgs/*/detection.json") for name, _ in _read_boxes(path)})
    return lambda stem: {
        **_mask_regions(source, stem, organs),
        **_box_regions(source / "imgs" / stem, findings),
    }


def _mask_regions(source: Path, stem: str, organs: dict[int, str]) -> Regions:
    paths = (source / "masks" / f"{stem}.png", source / "imgs" / stem / "mask.png")
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return {}
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except DECODER_ERRORS as error:
        raise DataError(f"{path}: expected a whole mask, but it cannot be decoded ({error}); get it again") from error
    if values.ndim != 2:
        return {}  # a color overlay, in another coding
    if not np.isin(values, list(organs)).any():
        return {}  # an empty mask, as of most chest radiographs, means unknown: their lungs are not drawn either
    return {
        f"mask: {name}": coverage_grid(values == value) if (values == value).any() else None
        for value, name in organs.items()
    }


def _box_regions(folder: Path, findings: list[str]) -> Regions:
    path = folder / "detection.json"
    if not path.is_file():
        return {}
    width, height = open_image_file(folder / "source.jpg").size
    masks: dict[str, np.ndarray[tuple[int, int], np.dtype[np.bool_]]] = {}
    for name, (x, y, w, h) in _read_boxes(path):
        mask = masks.setdefault(name, np.zeros((height, width), bool))
        mask[max(0, round(y)) : max(0, round(y + h)), max(0, round(x)) : max(0, round(x + w))] = True
    return {f"box: {name}": coverage_grid(masks[name]) if name in masks else None for name in findings}


def _read_boxes(path: Path) -> list[tuple[str, list[float]]]:
    try:
        rows = json_value(path.read_text(encoding="utf-8"))
        boxes = [(name, [float(v) for v in box]) for row in rows for name, box in row.items() if len(box) == 4]
        if not all(math.isfinite(value) for _, box in boxes for value in box):
            raise ValueError("a number is not finite")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path}: expected boxes such as [{{'Liver': [x, y, w, h]}}] ({error}); get it again"
        ) from error
    return boxes
