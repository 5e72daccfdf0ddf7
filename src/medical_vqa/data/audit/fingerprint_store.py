"""Fingerprints of an audit that is not finished, so that an interrupted one does not decode the images again."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np

from medical_vqa.data.audit.near_duplicates import Fingerprint
from medical_vqa.io import PARTIAL, atomic_path, describe_disk_errors

_VERSION = 1  # another one where fingerprints are computed in another way
_FOLDER = f"fingerprints-{_VERSION}{PARTIAL}"


class FingerprintStore:
    """Files of some hundred fingerprints each in the folder of a prepared dataset; in a read-only one none is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / _FOLDER
        self._is_writable = os.access(folder, os.W_OK)

    def read(self) -> dict[str, Fingerprint]:
        """Digest of the image -> its fingerprint; a damaged file counts as missing."""
        prints: dict[str, Fingerprint] = {}
        for path in sorted(self.folder.glob("*.npz")):
            try:
                with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                    digests, *columns = (arrays[name] for name in ("digests", *_FIELDS))
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                if self._is_writable:
                    path.unlink(missing_ok=True)
                continue
            for digest, *values in zip(digests.tolist(), *columns, strict=True):
                # copies, so that the arrays of the file are not kept for the sake of one of their rows
                prints[digest] = Fingerprint(*(value.copy() for value in values))
        return prints

    def add(self, prints: dict[str, Fingerprint]) -> None:
        """Store further fingerprints; raises `DataError` where the disk cannot take them."""
        if not prints or not self._is_writable:
            return
        columns = {name: np.stack([getattr(one, name) for one in prints.values()]) for name in _FIELDS}
        path = self.folder / f"{next(iter(prints))}.npz"
        size = sum(array.nbytes for array in columns.values())
        with (
            describe_disk_errors(self.folder, size),
            atomic_path(path) as temporary,
            temporary.open("wb") as file,
        ):
            np.savez(file, digests=np.array(list(prints)), **columns)  # type: ignore[arg-type]

    def remove(self) -> None:
        """Remove all files, of every version."""
        for folder in self.folder.parent.glob(f"fingerprints-*{PARTIAL}"):
            shutil.rmtree(folder, ignore_errors=True)


_FIELDS = ("hashes", "turned_hashes", "copy", "thumbnail")
