"""Pictures decoded and resized once, kept in one memory-mapped file and found by their content.

Under the cache's folder every `PictureSpec` has a folder of its own::

    L-160-stretch/index.json          {"format": 1, "file": "pictures-3f2a.bin",
                                       "pictures": {SHA-256: [offset, height, width, channels]}}
    L-160-stretch/pictures-3f2a.bin   the pixels, one picture after the other, only ever appended to
    L-160-stretch/lock                held while a process appends

What the index does not name does not exist: the index is replaced as a whole after the pixels have reached the disk,
so a process that is killed loses at most the last batch, and the next one writes over its bytes. Processes that
fill the same cache wait for each other (an advisory lock, which the system frees when its holder dies; on Windows
there is none, fill a cache from one process there). A cache that is damaged is begun anew in a file with another
name, so readers of the old one are not disturbed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medical_vqa.data.imaging.pictures import PictureSpec, prepare_picture
from medical_vqa.errors import DataError
from medical_vqa.io import atomic_write, describe_disk_errors, file_lock
from medical_vqa.runtime import ProgressCallback

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medical_vqa.data.formats.base import ImageSource

FORMAT = 1
"""Version of the layout above."""
_BATCH = 64  # pictures between two writes of the index
_WORKERS = 2  # Pillow decodes outside the interpreter's lock


@dataclass(frozen=True, slots=True)
class _Index:
    file: str
    pictures: Mapping[str, tuple[int, int, int, int]]  # digest -> offset, height, width, channels

    @property
    def end(self) -> int:
        """First free byte."""
        return max((offset + math.prod(shape) for offset, *shape in self.pictures.values()), default=0)


class PictureCache:
    """Prepared pictures of one `PictureSpec`, by the SHA-256 of the published file."""

    def __init__(self, folder: Path, spec: PictureSpec) -> None:
        self.spec = spec
        self.folder = folder / spec.key
        self._index = _Index("", {})
        self._pixels: NDArray[np.uint8] = np.empty(0, dtype=np.uint8)
        self._load()

    def __len__(self) -> int:
        return len(self._index.pictures)

    def __contains__(self, digest: str) -> bool:
        return digest in self._index.pictures

    def __getstate__(self) -> tuple[Path, PictureSpec]:
        # A pickled memory map would carry all pixels along; the other process maps the file itself.
        return self.folder.parent, self.spec

    def __setstate__(self, state: tuple[Path, PictureSpec]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def get(self, digest: str) -> NDArray[np.uint8]:
        """A read-only view of a picture, uint8 (height, width, channels); raises `DataError` when it is not here."""
        if digest not in self._index.pictures:
            self._load()  # another process may have added it
        if digest not in self._index.pictures:
            raise DataError(f"{self.folder}: has no picture {digest[:12]}; call ensure() with its image first")
        offset, height, width, channels = self._index.pictures[digest]
        return self._pixels[offset : offset + height * width * channels].reshape(height, width, channels)

    def ensure(
        self,
        source: ImageSource,
        image_ids: Sequence[str],
        progress: ProgressCallback | None = None,
    ) -> None:
        """Decode, resize and keep the pictures that are not here yet, each distinct content once.

        Args:
            source: Where the pictures come from.
            image_ids: Which are wanted; an id may occur often.
            progress: Told how many of the missing are done, and how many there are.

        Raises:
            ImageError: A picture cannot be read; the ones before it are kept.
            DataError: The disk is full or the folder cannot be written.
        """
        wanted = {source.digest(image_id): image_id for image_id in dict.fromkeys(image_ids)}
        if all(digest in self for digest in wanted):
            return
        with describe_disk_errors(self.folder, self._bytes_needed(len(wanted))), file_lock(self.folder / "lock"):
            self._load()
            self._append(source, {d: i for d, i in wanted.items() if d not in self}, progress)

    def _append(self, source: ImageSource, wanted: Mapping[str, str], progress: ProgressCallback | None) -> None:
        index = self._index if self._index.file else _Index(f"pictures-{secrets.token_hex(4)}.bin", {})
        digests = list(wanted)
        with ThreadPoolExecutor(_WORKERS) as pool:
            for start in range(0, len(digests), _BATCH):
                batch = digests[start : start + _BATCH]
                pictures = pool.map(lambda digest: prepare_picture(source.load(wanted[digest]), self.spec), batch)
                index = self._commit(index, dict(zip(batch, pictures, strict=True)))
                if progress is not None:
                    progress(start + len(batch), len(digests))
        self._load()
        self._remove_others()

    def _commit(self, index: _Index, pictures: Mapping[str, NDArray[np.uint8]]) -> _Index:
        added = dict(index.pictures)
        path = self.folder / index.file
        with describe_disk_errors(self.folder, sum(picture.nbytes for picture in pictures.values())):
            # r+b and a seek, not append: what a killed process left beyond the index is written over.
            with path.open("r+b" if path.exists() else "w+b") as file:
                file.seek(index.end)
                for digest, picture in pictures.items():
                    height, width, channels = picture.shape
                    added[digest] = (file.tell(), height, width, channels)
                    file.write(picture.tobytes())
                file.flush()
                os.fsync(file.fileno())
            row = {"format": FORMAT, "file": index.file, "pictures": added}
            atomic_write(self.folder / "index.json", json.dumps(row))
        return _Index(index.file, added)

    def _load(self) -> None:
        """Read the index and map the pixels; a cache that is damaged or of another version counts as empty."""
        self._index, self._pixels = _Index("", {}), np.empty(0, dtype=np.uint8)
        index = _read_index(self.folder / "index.json")
        path = self.folder / index.file
        if not index.pictures or not path.is_file() or path.stat().st_size < index.end:
            return
        self._index = index
        self._pixels = np.memmap(path, dtype=np.uint8, mode="r", shape=(index.end,))

    def _remove_others(self) -> None:
        for path in self.folder.glob("pictures-*.bin"):
            if path.name != self._index.file:
                with contextlib.suppress(OSError):  # still mapped by another process on Windows
                    path.unlink()

    def _bytes_needed(self, pictures: int) -> int:
        return pictures * self.spec.side**2 * self.spec.channels


def _read_index(path: Path) -> _Index:
    try:
        row: Any = json.loads(path.read_bytes())
        if row["format"] != FORMAT:
            return _Index("", {})
        pictures = {str(digest): _place(place) for digest, place in row["pictures"].items()}
        return _Index(Path(str(row["file"])).name, pictures)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _Index("", {})


def _place(place: Any) -> tuple[int, int, int, int]:
    offset, height, width, channels = (int(number) for number in place)
    if offset < 0 or min(height, width, channels) < 1:
        raise ValueError(f"impossible place {place!r}")
    return offset, height, width, channels
