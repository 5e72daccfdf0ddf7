"""A synthetic CT of 300 slices: time to the first answer, to a slice, and memory.

    python benchmarks/series.py        # writes results/series.json

By folder and by zip archive in this process, by folder on the command line, and by zip archive over HTTP, where a slice
is shown as PNG (`/view`) and as values (`/values`).
"""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

import medical_vqa as mv
from medical_vqa.data.imaging.series.reading import read_series

RESULTS = Path(__file__).parent / "results" / "series.json"
QUESTION = "What modality is used to take this image?"
SLICES, SIDE = 300, 512
_LISTENING = re.compile(r"http://[\w.]+:(\d+)")
_VIEWS = range(100, 140)


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


class PeakMemory(threading.Thread):
    """The largest resident memory of a process and its children, in bytes, while it runs."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(process)
        self.bytes = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        """Look every 20 ms."""
        while not self.stopped.wait(0.02):
            try:
                parts = [self._process, *self._process.children(recursive=True)]
                self.bytes = max(self.bytes, sum(part.memory_info().rss for part in parts))
            except psutil.NoSuchProcess:
                return


def over_http(archive: Path) -> dict[str, Any]:
    """Upload, first answer and slices by a server in its own process, with the settings that it has by default."""
    command = [sys.executable, "-m", "medical_vqa", "serve", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        port = next(match[1] for line in server.stderr if (match := _LISTENING.search(line)))
        threading.Thread(target=server.stderr.read, daemon=True).start()  # or the server waits for it to be read
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            return measured_over_http(client, server.pid, archive)
    finally:
        server.terminate()
        server.wait()


def measured_over_http(client: httpx2.Client, process: int, archive: Path) -> dict[str, Any]:
    """Times and memory of a server."""
    before = psutil.Process(process).memory_info().rss
    memory = PeakMemory(process)
    memory.start()
    start = time.perf_counter()
    with archive.open("rb") as file:
        uploaded = client.post("/series", files={"files": ("ct.zip", file)}).raise_for_status().json()
    upload = time.perf_counter() - start
    identifier = uploaded["series"][0]["image_id"]
    answer = client.post("/ask_question", data={"image_id": identifier, "question": QUESTION})
    first_answer = time.perf_counter() - start
    memory.stopped.set()  # it would take time from the slices
    memory.join()
    results = {
        "upload_seconds": round(upload, 2),
        "upload_to_first_answer_seconds": round(first_answer, 2),
        "slices_asked": len(answer.raise_for_status().json()["slices"]),
        "peak_memory_megabytes": round(memory.bytes / 1e6),
        "memory_before_megabytes": round(before / 1e6),
    }
    for plane in ("axial", "coronal", "sagittal"):
        for kind in ("view", "values"):

            def show(index: int, plane: str = plane, kind: str = kind) -> None:
                parameters: dict[str, Any] = {"frame": index, "plane": plane}
                client.get(f"/images/{identifier}/{kind}", params=parameters).raise_for_status()

            times = sorted(seconds(lambda i=i, show=show: show(i)) for i in _VIEWS)
            results[f"{plane}_{kind}_ms_median"] = round(1000 * statistics.median(times), 1)
            results[f"{plane}_{kind}_ms_95th"] = round(1000 * times[int(0.95 * len(times))], 1)
    results["memory_after_megabytes"] = round(psutil.Process(process).memory_info().rss / 1e6)
    return results


def on_the_command_line(folder: Path) -> dict[str, Any]:
    """`medical-vqa ask FOLDER`, from its start to its answer."""
    command = [sys.executable, "-m", "medical_vqa", "ask", str(folder), QUESTION, "--model", "shipped"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ) as process:
        memory = PeakMemory(process.pid)
        memory.start()
        code = process.wait()
    assert code == 0, f"ask ended with {code}"
    return {
        "cli_folder_seconds": round(time.perf_counter() - start, 2),
        "cli_peak_memory_megabytes": round(memory.bytes / 1e6),
    }


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
        results |= on_the_command_line(folder)
        results["http"] = over_http(archive)
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
