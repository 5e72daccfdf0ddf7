"""What a DICOM object is where it has no picture of its own: a report, a segmentation, structures, a waveform ..."""

from __future__ import annotations

import re

from pydicom.dataset import Dataset
from pydicom.uid import UID

from medical_vqa.data.imaging.dicom.dataset import DICOM_ERRORS

_ABOUT_IMAGES = "1.2.840.10008.5.1.4.1.1.66."  # segmentations, registrations, fiducials; some have masks as pixels
_COMPUTED = ("1.2.840.10008.5.1.4.1.1.481.2", "1.2.840.10008.5.1.4.1.1.30")  # RT Dose, Parametric Map
_NEWER_NAMES = {  # of classes that pydicom's list does not have yet
    f"{_ABOUT_IMAGES}7": "Label Map Segmentation Storage",
    f"{_ABOUT_IMAGES}8": "Height Map Segmentation Storage",
}


def is_about_images(dataset: Dataset) -> bool:
    """Whether this is a segmentation, a registration or the like: its pixels, if any, are masks of another image."""
    identifier = _text(dataset, "SOPClassUID")
    return identifier.startswith(_ABOUT_IMAGES) if identifier else _text(dataset, "Modality") == "SEG"


def is_computed(dataset: Dataset) -> bool:
    """Whether this is a dose or a parametric map: a picture, but none that a scanner acquired."""
    return _text(dataset, "SOPClassUID") in _COMPUTED


def describe_without_picture(dataset: Dataset) -> tuple[str, str]:
    """What an object without a picture of its own is, and what to do; no text of the header is in it.

    ``("DICOM of the class RT Plan, which has no picture of its own", "give the image that belongs to it")``.
    """
    name = _class_name(dataset) or ("Segmentation" if is_about_images(dataset) else "")
    if not name:
        return "DICOM without a picture", "give an object that has pixels"
    if "Image" in name.split():
        return f"DICOM of the class {name} without its pixels", "get the whole file"
    return f"DICOM of the class {name}, which has no picture of its own", "give the image that belongs to it"


def _class_name(dataset: Dataset) -> str:
    """The standard's name of the object's class; empty where there is none."""
    identifier = _text(dataset, "SOPClassUID")
    if not re.fullmatch(r"[0-9.]{1,64}", identifier):
        return ""
    uid = UID(identifier)
    name = _NEWER_NAMES.get(identifier) or (str(uid.name) if uid.type == "SOP Class" else "")
    return name.replace(" Storage", "").replace(" SOP Class", "")


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        return str(dataset.get(keyword) or "").strip("\0 ")
    except DICOM_ERRORS:
        return ""
