"""The DICOM files that pydicom ships, as this package and as DCMTK show them: accepted, refused, largest difference.

    python benchmarks/dicom_reference.py            # needs Debian's dcmtk; writes results/dicom_reference.json

The reference is DCMTK (`dcmj2pnm`, `dcml2pnm`), with the same frame and window. It has no JPEG 2000: such files, and
others that it does not decompress, go through GDCM's `ImageChangeTransferSyntax` first.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
from PIL import Image

from medical_vqa.data.imaging.decode import decode_image_file
from medical_vqa.data.imaging.decoded_frame import DecodedFrame
from medical_vqa.errors import ImageError

FILES = Path(pydicom.data.__file__).parent / "test_files"
RESULTS = Path(__file__).parent / "results" / "dicom_reference.json"
LEVELS = 3
"""Largest difference in gray levels that needs no explanation."""
REASONS = {
    "rtdose_expb": "32 bits, big-endian: DCMTK swaps words; equal to the little-endian twin rtdose.dcm",
    "JPEG-lossy.dcm": "lossy JPEG",
    "SC_rgb_jpeg": "lossy JPEG: decoders differ in the inverse transform and the upsampling of colors",
    "SC_rgb_dcmtk": "lossy JPEG: decoders differ in the inverse transform and the upsampling of colors",
    "SC_jpeg_no_color_transform": "the stream is RGB without a marker of it; pydicom shows it as this package does",
    "examples_ybr_color.dcm": "lossy JPEG: decoders differ in the upsampling of colors",
}


def reference(path: Path, shown: DecodedFrame | None, frame: int, folder: Path) -> np.ndarray | None:
    """The picture by DCMTK, or None where it shows none; pixels that are not square are scaled as this package does."""
    scaled = shown is not None and (str(shown.width), str(shown.height)) != (
        shown.header_fields["Columns"], shown.header_fields["Rows"])  # fmt: skip
    size = ["--scale-x-size", str(shown.width), "--scale-y-size", str(shown.height), "-a"] if shown and scaled else []
    plain = folder / "plain.dcm"
    for source in (path, plain):
        if source is plain and not _decompressed(path, plain):
            return None
        for program in ("dcmj2pnm", "dcml2pnm", "dcm2pnm"):
            command = [program, "--write-raw-pnm", "--frame", str(frame + 1)]
            out = folder / "shown.pnm"
            out.unlink(missing_ok=True)
            options = [*_window(shown), "--no-overlays", *size]
            subprocess.run([program, *command[1:], *options, str(source), str(out)], capture_output=True, check=False)
            if out.is_file() and out.stat().st_size:
                return np.asarray(Image.open(io.BytesIO(out.read_bytes())))
    return None


def _window(shown: DecodedFrame | None) -> list[str]:
    if shown is None or shown.window_source is None:
        return []
    if shown.window_source == "header LUT":
        return ["--use-voi-lut", "1"]
    if shown.window_source == "header":
        return ["--use-window", "1"]
    center, width = shown.window or (0.0, 1.0)
    return ["--set-window", repr(center + 0.5), repr(width + 1)]  # the same ends by DICOM's linear function


def _decompressed(path: Path, target: Path) -> bool:
    import gdcm  # noqa: PLC0415

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        return False
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    change.SetInput(reader.GetImage())
    if not change.Change():
        return False
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    return bool(writer.Write())


def row_of(path: Path, folder: Path) -> dict[str, Any]:
    """One line of the table."""
    row: dict[str, Any] = {"file": path.relative_to(FILES).as_posix()}
    shown = None
    try:
        shown = decode_image_file(path)
        row |= {"accepted": True, "frame": shown.frame, "window": shown.window_source}
    except ImageError as error:
        row |= {"accepted": False, "why": str(error).removeprefix(f"{path}: ")}
    picture = reference(path, shown, shown.frame if shown else 0, folder)
    row["reference shows it"] = picture is not None
    if shown is None or picture is None:
        return row
    ours = shown.pixels if picture.ndim == 3 else shown.pixels[:, :, 0]
    if ours.shape[:2] != picture.shape[:2]:
        return row | {"difference": None, "why": f"size {ours.shape} and {picture.shape}"}
    difference = np.abs(ours.astype(int) - picture.astype(int))
    row |= {"difference": int(difference.max()), "mean": round(float(difference.mean()), 3)}
    stored = int(shown.header_fields["Columns"]), int(shown.header_fields["Rows"])
    if row["difference"] > LEVELS:
        squared = "resampled to square pixels by another kernel" if (shown.width, shown.height) != stored else None
        row["why"] = squared or next(
            (why for start, why in REASONS.items() if path.name.startswith(start)), "not explained"
        )
    return row


def main() -> None:
    """Write the table and print it."""
    if shutil.which("dcmj2pnm") is None:
        sys.exit("expected DCMTK's dcmj2pnm; install Debian's dcmtk")
    paths = sorted(path for path in FILES.rglob("*") if path.suffix == ".dcm" or "dicomdirtests" in path.parts)
    with tempfile.TemporaryDirectory() as folder:
        rows = [row_of(path, Path(folder)) for path in paths if path.is_file()]
    accepted = [row for row in rows if row["accepted"]]
    compared = [row["difference"] for row in accepted if row.get("difference") is not None]
    summary = {
        "files": len(rows),
        "accepted": len(accepted),
        "refused": len(rows) - len(accepted),
        "refused that the reference shows": sum(row["reference shows it"] for row in rows if not row["accepted"]),
        "compared": len(compared),
        f"within {LEVELS} levels": sum(difference <= LEVELS for difference in compared),
    }
    RESULTS.write_text(json.dumps({"summary": summary, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(row)
    print(summary)


if __name__ == "__main__":
    main()
