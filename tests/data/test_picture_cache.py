from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medical_vqa.data.cache.pictures import PictureCache
from medical_vqa.data.imaging.preprocessing import PictureSpec, prepare_picture
from medical_vqa.errors import DataError, ImageError
from medical_vqa.io import sha256

SPEC = PictureSpec(side=16)


class Grays:
    """An image source in memory: image "7" is gray of value 7, and "7b" has the same content."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def load(self, image_id: str) -> Image.Image:
        self.loaded.append(image_id)
        if image_id == "broken":
            raise ImageError("broken: expected a whole picture; get the file again")
        value = int(image_id.rstrip("b"))
        return Image.new("RGB", (20, 10), (value, value, value))

    def digest(self, image_id: str) -> str:
        return sha256(image_id.rstrip("b").encode()) if image_id != "broken" else sha256(image_id.encode())


def value_of(cache: PictureCache, image_id: str) -> int:
    picture = cache.get(Grays().digest(image_id))
    assert picture.shape == (16, 16, 1)
    return int(picture[0, 0, 0])


# Run by path and not by import: a spawned worker could not import this file as a module.
FILL = """
import runpy, sys
from pathlib import Path
names = runpy.run_path(sys.argv[1])
cache = names["PictureCache"](Path(sys.argv[2]), names["SPEC"])
first = int(sys.argv[3])
cache.ensure(names["Grays"](), [str(n) for n in range(first, first + 100)])
"""


def test_each_content_is_decoded_once(tmp_path: Path) -> None:
    source, cache = Grays(), PictureCache(tmp_path, SPEC)
    cache.ensure(source, ["7", "8", "7", "7b"])
    cache.ensure(source, ["8", "7"])
    assert len(source.loaded) == len(cache) == 2
    assert (value_of(cache, "7"), value_of(cache, "8")) == (7, 8)


def test_a_cached_picture_is_the_prepared_one_and_cannot_be_written_to(tmp_path: Path) -> None:
    cache = PictureCache(tmp_path, PictureSpec(side=16, mode="RGB", fit="inside"))
    cache.ensure(Grays(), ["9"])
    picture = cache.get(Grays().digest("9"))
    assert np.array_equal(picture, prepare_picture(Grays().load("9"), cache.spec))
    assert not picture.flags.writeable


def test_another_process_finds_them_later_and_each_specification_has_its_own(tmp_path: Path) -> None:
    early = PictureCache(tmp_path, SPEC)
    PictureCache(tmp_path, SPEC).ensure(Grays(), ["7"])
    assert value_of(early, "7") == 7
    assert len(PictureCache(tmp_path, PictureSpec(side=32))) == 0


def test_a_picture_that_was_never_ensured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no picture abcdef; call ensure"):
        PictureCache(tmp_path, SPEC).get("abcdef")


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    PictureCache(tmp_path, SPEC).ensure(Grays(), [str(n) for n in range(70)], lambda *now: told.append(now))
    assert told == [(64, 70), (70, 70)]


def test_what_was_finished_before_an_error_is_kept(tmp_path: Path) -> None:
    ids = [str(n) for n in range(64)]
    with pytest.raises(ImageError, match="broken"):
        PictureCache(tmp_path, SPEC).ensure(Grays(), [*ids, "broken", "99"])
    source, cache = Grays(), PictureCache(tmp_path, SPEC)
    cache.ensure(source, [*ids, "99"])
    assert source.loaded == ["99"]
    assert [value_of(cache, image_id) for image_id in ("0", "63", "99")] == [0, 63, 99]


def test_bytes_beyond_the_index_are_written_over(tmp_path: Path) -> None:
    cache = PictureCache(tmp_path, SPEC)
    cache.ensure(Grays(), ["7"])
    (pixels,) = cache.folder.glob("*.bin")
    with pixels.open("ab") as file:
        file.write(b"what a killed process left")
    cache.ensure(Grays(), ["8"])
    assert (value_of(cache, "7"), value_of(cache, "8")) == (7, 8)
    assert pixels.stat().st_size == 2 * 16 * 16


@pytest.mark.parametrize("damage", ["cut", "gone", "index", "version", "place"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, damage: str) -> None:
    cache = PictureCache(tmp_path, SPEC)
    cache.ensure(Grays(), ["7", "8"])
    reader, (pixels,), index = (
        PictureCache(tmp_path, SPEC),
        list(cache.folder.glob("*.bin")),
        cache.folder / "index.json",
    )
    row = json.loads(index.read_bytes())
    if damage == "gone":
        pixels.unlink()
    elif damage == "cut":
        pixels.write_bytes(pixels.read_bytes()[:-1])
    elif damage == "index":
        index.write_bytes(b"{")
    elif damage == "version":
        index.write_text(json.dumps({**row, "format": 0}), encoding="utf-8")
    else:
        index.write_text(json.dumps({**row, "pictures": {"x": [-1, 1, 1, 1]}}), encoding="utf-8")
    again = PictureCache(tmp_path, SPEC)
    assert len(again) == 0
    again.ensure(Grays(), ["7", "8"])
    assert (value_of(again, "7"), value_of(again, "8")) == (7, 8)
    assert value_of(reader, "7") == 7 or damage == "cut"
    assert len(list(cache.folder.glob("*.bin"))) == 1


def test_a_pickled_cache_carries_no_pixels(tmp_path: Path) -> None:
    cache = PictureCache(tmp_path, SPEC)
    cache.ensure(Grays(), [str(n) for n in range(60)])
    data = pickle.dumps(cache)
    assert len(data) < 1000
    assert value_of(pickle.loads(data), "7") == 7


def test_two_processes_fill_one_cache(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FILL, __file__, str(tmp_path)]
    others = [subprocess.Popen([*command, first]) for first in ("0", "50")]
    assert [other.wait(60) for other in others] == [0, 0]
    cache = PictureCache(tmp_path, SPEC)
    assert [value_of(cache, str(n)) for n in range(150)] == list(range(150))


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"L-16-stretch: the disk is full, 512 more bytes are needed"):
        PictureCache(tmp_path, SPEC).ensure(Grays(), ["7", "8"])


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be written"):
        PictureCache(tmp_path / "file", SPEC).ensure(Grays(), ["7"])


def test_a_real_picture_goes_through(tmp_path: Path, own_folder: Any) -> None:
    from medical_vqa.data.formats.folder import Folder
    from medical_vqa.data.prepared.dataset import PreparedDataset
    from medical_vqa.data.prepared.prepare import prepare

    prepare(Folder(), own_folder("image,question,answer,image_id\n1.png,a?,b,1.png\n2.png,c?,d,2.png\n"), tmp_path)
    images = PreparedDataset.open("folder", tmp_path).images
    cache = PictureCache(tmp_path / "cache", SPEC)
    cache.ensure(images, ["mine/1.png", "mine/2.png"])
    expected = prepare_picture(images.load("mine/2.png"), SPEC)
    assert np.array_equal(cache.get(images.digest("mine/2.png")), expected)
