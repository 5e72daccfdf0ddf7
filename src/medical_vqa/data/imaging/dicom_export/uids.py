"""UIDs of exported objects."""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass
from typing import Self

from medical_vqa.errors import ConfigError

UID_PATTERN = r"[0-2](\.(0|[1-9][0-9]*))+"
"""A UID, of which there are at most 64 characters. Source: PS3.5, 9.1."""
_UID = re.compile(UID_PATTERN)


@dataclass(frozen=True, slots=True)
class ObjectUids:
    """UIDs of an exported object."""

    series: str
    """SeriesInstanceUID."""
    instance: str
    """SOPInstanceUID."""

    def __post_init__(self) -> None:
        for uid in (self.series, self.instance):
            if len(uid) > 64 or not _UID.fullmatch(uid):
                raise ConfigError(f"UID: expected numbers with points, such as 2.25.1, got {uid!r}; correct it")

    @classmethod
    def new(cls) -> Self:
        """UIDs that nothing else has."""
        return cls(new_uid(), new_uid())


def new_uid() -> str:
    """A UID that nothing else has. Source: PS3.5, B.2."""
    return f"2.25.{uuid.uuid4().int}"


def device_uid(model: str) -> str:
    """A UID that stands for a model: equal for equal names. Source: PS3.5, B.2."""
    digest = hashlib.sha256(f"medical-vqa/{model}".encode()).digest()[:16]
    return f"2.25.{int.from_bytes(digest, 'big')}"
