"""A small CT file in DICOM's format."""

from __future__ import annotations

import io

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

PATIENT = "Doe^Jane"


def dicom() -> bytes:
    """A CT of three frames, with a patient's name in its header."""
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = CTImageStorage
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    file.Modality, file.BodyPartExamined, file.PatientName = "CT", "ABDOMEN", PATIENT
    file.Rows = file.Columns = 64
    file.NumberOfFrames, file.SamplesPerPixel, file.PhotometricInterpretation = 3, 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation = 15, 1
    file.RescaleIntercept, file.RescaleSlope = 0, 1
    file.WindowCenter, file.WindowWidth = 40, 400
    values = np.linspace(-1000, 1000, 3 * 64 * 64).astype(np.int16)
    file.PixelData = values.tobytes()
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
