"""DICOM files for tests: those that pydicom ships, and small ones of given pixels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

SHIPPED = Path(pydicom.data.__file__).parent / "test_files"


def shipped(name: str) -> bytes:
    return (SHIPPED / name).read_bytes()


def made(values: np.ndarray, syntax: Any = ExplicitVRLittleEndian, **elements: Any) -> bytes:
    """A DICOM file of these pixels, (frames,) rows, columns; a keyword of None leaves an element out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    meta.TransferSyntaxUID = syntax
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    dataset = FileDataset("a", {}, b"\0" * 128, meta, is_implicit_VR=implicit, is_little_endian=little)
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    dataset.PatientName, dataset.PatientID, dataset.Modality = "Doe^Jane", "4711", "CT"
    dataset.Rows, dataset.Columns = values.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * values.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    if values.ndim == 3:
        dataset.NumberOfFrames = len(values)
    dataset.PixelData = values.tobytes()
    dataset["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


RAMP = np.arange(-1024, -1024 + 32 * 32 * 3, 3, dtype=np.int16).reshape(32, 32)


def lut(values: np.ndarray, first: int, bits: int) -> Dataset:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [len(values), first, bits], values.astype(np.uint16).tobytes()
    item["LUTData"].VR = "OW"
    return item
