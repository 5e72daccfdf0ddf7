"""A synthetic CT of 300 slices, by folder and by zip archive: time to the first answer, to a slice, and memory.

python benchmarks/series.py        # writes results/series.json
"""

from __future__ import annotations

import json
import platform
import resource
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

import medical_vqa as mv
from medical_vqa.data.imaging.series import read_series

RESULTS = Path(__file__).parent / "results" / "series.json"
QUESTION = "What modality is used to take this image?"
SLICES, SIDE = 300, 512


def write_slice(path: Path, values: np.ndarray, number: int) -> None:
    """One CT slice of 1 mm."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, f"2.25.{number + 1}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.SeriesInstanceUID = (
        CTImageStorage,
        f"2.25.{number + 1}",
        "2.25.0",
    )
    dataset.Modality, dataset.InstanceNumber = "CT", number
    dataset.Rows = dataset.Columns = SIDE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.WindowCenter, dataset.WindowWidth = "1", "0", "40", "400"
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [0.8, 0.8]
    dataset.PixelData = values.tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.save_as(path, enforce_file_format=True)


def write_series(folder: Path) -> None:
    """An ellipse of soft tissue in air, with noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]  # type: ignore[misc]
    for number in range(SLICES):
        body = (x / 0.8) ** 2 + (y / 0.6) ** 2 < 1
        values = np.where(body, 40, -1000) + rng.normal(0, 12, (SIDE, SIDE))
        write_slice(folder / f"{number:04d}.dcm", values.astype(np.int16), number)


def seconds(call: Callable[[], Any]) -> float:
    """Duration of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Measure and write the results."""
    model = mv.load("shipped")
    results: dict[str, Any] = {"slices": SLICES, "side": SIDE, "machine": f"{platform.machine()}, 2 shared cores"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "ct"
        folder.mkdir()
        write_series(folder)
        archive = folder.with_suffix(".zip")
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            for path in sorted(folder.iterdir()):
                file.write(path, path.name)
        results["zip_megabytes"] = round(archive.stat().st_size / 1e6, 1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for source in (folder, archive):
            kind = source.suffix.lstrip(".") or "folder"
            results[f"{kind}_first_answer_seconds"] = round(seconds(lambda s=source: model.ask_series(s, QUESTION)), 2)
        volume = read_series(folder)
        for plane in ("axial", "coronal", "sagittal"):
            times = [seconds(lambda i=i, p=plane: volume.view(i, plane=p)) for i in range(100, 140)]
            results[f"{plane}_view_ms_median"] = round(1000 * statistics.median(times), 1)
        results["memory_megabytes"] = round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
        results["values_megabytes"] = round(volume.values.nbytes / 1e6)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(results)


if __name__ == "__main__":
    main()
