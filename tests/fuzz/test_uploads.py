from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from mutate import bombs, uploads, valid_files

from medical_vqa.data.imaging.decode import decode_image
from medical_vqa.data.imaging.decoded_frame import DecodedFrame
from medical_vqa.errors import ImageError, TooLargeError, UnsupportedImageError

SMALL_OR_WITHOUT_PIXELS = {"SC_rgb_small_odd_jpeg.dcm", "reportsi.dcm", "priv_SQ.dcm", "liver_1frame.dcm"}
TOO_LARGE = {
    "bits-13000.png", "header-30000.png", "sides-2147483647.png", "column.png", "huge.jpg", "huge.bmp", "canvas.webp",
    "screen.gif", "frame-beyond-screen.gif", "size.tif", "tile.tif", "pages.tif", "deflated.dcm", "rows.dcm",
    "frames.dcm", "huge.nii", "upside-down.bmp",
}  # fmt: skip


def digests(seed: int) -> list[tuple[str, str]]:
    return [(name, hashlib.sha256(data).hexdigest()) for name, data in uploads(300, seed)]


def test_the_same_seed_gives_the_same_uploads_and_another_gives_others(monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = digests(1), digests(2)
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert digests(1) == first  # at any time
    assert sum(a != b for a, b in zip(first, other, strict=True)) > 200
    assert len(first) == 300


@pytest.mark.parametrize("name", sorted(set(valid_files()) - SMALL_OR_WITHOUT_PIXELS))
def test_every_file_can_be_read_before_it_is_changed(name: str) -> None:
    assert min(decode_image(valid_files()[name]).pixels.shape[:2]) >= 8


@pytest.mark.parametrize("name", sorted(TOO_LARGE))
def test_a_decompression_bomb_is_too_large(name: str) -> None:
    with pytest.raises(TooLargeError):
        decode_image(bombs()[name])


def test_a_web_page_or_an_archive_before_a_picture_is_refused() -> None:
    with pytest.raises(UnsupportedImageError, match="got a zip archive"):
        decode_image(bombs()["zip-before.png"])
    with pytest.raises(ImageError, match="got a web page"):
        decode_image(bombs()["page.png"])


def test_a_damaged_upload_gives_a_picture_or_an_image_error() -> None:
    outcomes = set()
    for name, data in uploads(600, seed=7):
        try:
            image = decode_image(data, name="upload")
        except ImageError as error:
            assert str(error).startswith("upload: "), name
            assert "\n" not in str(error), name
            outcomes.add(type(error))
        else:
            assert isinstance(image, DecodedFrame), name
            assert (image.pixels.dtype, image.pixels.ndim) == (np.uint8, 3), name
            outcomes.add(DecodedFrame)
    assert outcomes == {DecodedFrame, ImageError, TooLargeError, UnsupportedImageError}


@pytest.mark.slow
def test_a_thousand_more_damaged_files_give_no_constant_picture_without_a_warning() -> None:
    constant = 0
    for name, data in uploads(1000 + len(bombs()), seed=11):
        try:
            image = decode_image(data, name="upload")
        except ImageError as error:
            assert str(error).startswith("upload: "), name
            continue
        if image.pixels.min() == image.pixels.max():
            constant += 1
            assert "every pixel of the picture has the same value" in image.warnings, name
    assert constant > 0


def test_memory_does_not_grow_after_the_largest_allowed_pictures() -> None:
    script = Path(__file__).with_name("run.py")
    process = subprocess.run(
        [sys.executable, script, "800", "3"], capture_output=True, text=True, check=True, timeout=300
    )
    start = int(re.search(r"MB: (\d+) with", process.stdout)[1])  # type: ignore[index]
    bombed, *later = (int(peak) for peak in re.findall(r"\d: (\d+)", process.stdout))
    assert bombed - start < 350  # a color picture of 36 million pixels is within the limit and takes 250 MB
    assert max(later) - bombed < 30
