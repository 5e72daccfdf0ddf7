"""Cache of decoded and resized images in one memory-mapped file, by their content: `PictureCache`.

Each `PictureSpec` has a folder in the cache::

    L-160-stretch/index.json          {"format": 1, "file": "pictures-3f2a.bin",
                                       "pictures": {SHA-256: [offset, height, width, channels]}}
    L-160-stretch/pictures-3f2a.bin   the pixels, one picture after the other, only ever appended to
    L-160-stretch/lock                locked while a process appends

Only pictures in the index count. The index is replaced atomically after the pixels have reached the disk, so a process
that is killed loses at most its last batch, and the next one overwrites those bytes. Processes that fill the same cache
wait for each other (the system releases the lock of a process that dies). A damaged cache is rebuilt in a file with
another name, so readers of the old one are not disturbed.
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
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from medical_vqa.data.imaging.preprocessing import PictureSpec, prepare_picture
from medical_vqa.errors import DataError
from medical_vqa.io import atomic_write, describe_disk_errors, file_lock
from medical_vqa.runtime import ProgressCallback

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

FORMAT = 1
"""Version of the layout above."""
_BATCH = 64  # pictures between two writes of the index
_WORKERS = 2  # Pillow decodes outside the interpreter's lock


class ImageSource(Protocol):
    """Images of a prepared dataset, by id."""

    def load(self, image_id: str) -> Image.Image:
        """The image, RGB, upright; raises `ImageError`."""

    def digest(self, image_id: str) -> str:
        """SHA-256 of the file's bytes, lower-case hex."""


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
        """A picture, uint8 (height, width, channels), read-only; raises `DataError` when the cache lacks it."""
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
        """Decode, resize and store the images that the cache lacks, each distinct content once.

        Args:
            source: The images.
            image_ids: Ids of the images; one may occur several times.
            progress: Called with the number of missing images that are done.

        Raises:
            ImageError: An image cannot be read; those before it are stored.
            DataError: The disk is full or the folder cannot be written.
        """
        images = {source.digest(image_id): image_id for image_id in dict.fromkeys(image_ids)}
        if all(digest in self for digest in images):
            return
        needed = len(images) * self.spec.side**2 * self.spec.channels
        with describe_disk_errors(self.folder, needed), file_lock(self.folder / "lock"):
            self._load()
            self._append(source, {d: i for d, i in images.items() if d not in self}, progress)

    def _append(self, source: ImageSource, images: Mapping[str, str], progress: ProgressCallback | None) -> None:
        index = self._index if self._index.file else _Index(f"pictures-{secrets.token_hex(4)}.bin", {})
        digests = list(images)
        with ThreadPoolExecutor(_WORKERS) as pool:
            for start in range(0, len(digests), _BATCH):
                batch = digests[start : start + _BATCH]
                pictures = pool.map(lambda digest: prepare_picture(source.load(images[digest]), self.spec), batch)
                index = self._commit(index, dict(zip(batch, pictures, strict=True)))
                if progress is not None:
                    progress(start + len(batch), len(digests))
        self._load()
        for path in self.folder.glob("pictures-*.bin"):
            if path.name != self._index.file:
                with contextlib.suppress(OSError):  # still mapped by another process on Windows
                    path.unlink()

    def _commit(self, index: _Index, pictures: Mapping[str, NDArray[np.uint8]]) -> _Index:
        added = dict(index.pictures)
        path = self.folder / index.file
        with describe_disk_errors(self.folder, sum(picture.nbytes for picture in pictures.values())):
            # r+b and a seek, not append: bytes that a killed process left after the indexed ones are overwritten.
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
        self._index = _Index("", {})
        self._pixels = np.empty(0, dtype=np.uint8)
        index = _read_index(self.folder / "index.json")
        path = self.folder / index.file
        if not index.pictures or not path.is_file() or path.stat().st_size < index.end:
            return
        self._index = index
        self._pixels = np.memmap(path, dtype=np.uint8, mode="r", shape=(index.end,))


def _read_index(path: Path) -> _Index:
    try:
        row: Any = json.loads(path.read_bytes())
        if row["format"] != FORMAT:
            return _Index("", {})
        pictures = {str(digest): _location(numbers) for digest, numbers in row["pictures"].items()}
        return _Index(Path(str(row["file"])).name, pictures)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _Index("", {})


def _location(numbers: Any) -> tuple[int, int, int, int]:
    offset, height, width, channels = (int(number) for number in numbers)
    if offset < 0 or min(height, width, channels) < 1:
        raise ValueError(f"impossible location {numbers!r}")
    return offset, height, width, channels
