"""Names in place of patients' identifiers and of paths: keyed hashes, which only this machine's key reproduces.

The key is created once, in the folder of prepared data, and is never part of a prepared dataset: whoever receives the
dataset cannot find an identifier by trying all of them, and the same patient has the same name in all datasets here.
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path
from typing import Self

from medical_vqa.errors import DataError
from medical_vqa.io import file_lock
from medical_vqa.runtime.environment import home

KEY_NAME = "pseudonyms.key"
_LENGTH = 16  # hexadecimal digits: 64 bits


class Pseudonyms:
    """Keyed hashes of texts."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def local(cls) -> Self:
        """With the key of this machine, which is created where there is none; raises `DataError` where it cannot be."""
        path = home() / KEY_NAME
        try:
            if not path.is_file():
                with file_lock(path.with_suffix(".lock")):
                    _create(path)
            return cls(path.read_bytes())
        except OSError as error:
            raise DataError(
                f"{path}: the key for hashing patients' identifiers cannot be created ({error.strerror}); "
                "set MEDICAL_VQA_HOME to a folder that can be written"
            ) from error

    def of(self, *parts: str) -> str:
        """The name of these parts: equal for equal parts, 16 hexadecimal digits."""
        message = "\0".join(parts).encode()
        return hmac.new(self._key, message, "sha256").hexdigest()[:_LENGTH]


def _create(path: Path) -> None:
    """Write a new key that only its owner may read, where no other process has."""
    if path.is_file():
        return
    temporary = path.with_name(f"{path.name}.partial")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(32))
    temporary.replace(path)
