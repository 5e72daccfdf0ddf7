"""Statistics of a decoded picture that tell photographs, drawings and masks from radiology pictures."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from medical_vqa.data.imaging.geometry import PictureGeometry

if TYPE_CHECKING:
    from medical_vqa.data.imaging.decoded_frame import DecodedFrame

_SIDE = 128
"""Statistics are taken of at most about so many rows and columns, evenly spaced."""
_MASK_LEVELS = 4
"""A mask has a background and a few labels."""


@dataclass(frozen=True, slots=True)
class PictureStatistics:
    """What can be said of a picture's values without knowing what it shows."""

    contrast: float
    """Difference between the 99.5th and the 0.5th percentile of the gray values, 0 to 255."""
    saturation: float
    """Mean over pixels of the largest minus the smallest of red, green and blue, 0 to 255; 0 for a gray picture."""
    entropy: float
    """Shannon entropy of the gray values, in bits, 0 to 8."""
    outside_common_levels: float
    """Fraction of pixels whose gray value is none of the picture's four commonest."""

    @classmethod
    def of(cls, picture: NDArray[np.uint8]) -> Self:
        """Statistics of a picture (height, width, 1 or 3), 8 bits."""
        height, width = picture.shape[:2]
        rows = np.linspace(0, height - 1, min(height, _SIDE)).astype(int)
        columns = np.linspace(0, width - 1, min(width, _SIDE)).astype(int)
        values = picture[rows][:, columns].astype(np.int16)
        gray = values.mean(axis=2).round().astype(np.int64)
        low, high = np.percentile(gray, [0.5, 99.5])
        fractions = np.bincount(gray.ravel(), minlength=256) / gray.size
        present = fractions[fractions > 0]
        return cls(
            contrast=float(high - low),
            saturation=float((values.max(axis=2) - values.min(axis=2)).mean()),
            entropy=float(-(present * np.log2(present)).sum()),
            outside_common_levels=float(np.sort(fractions)[:-_MASK_LEVELS].sum()),
        )


@dataclass(frozen=True, slots=True)
class PictureContext:
    """What is known of a picture apart from its pixels."""

    statistics: PictureStatistics | None = None
    """Statistics of the decoded picture; None where it was not measured."""
    facts: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Header facts: Modality, BodyPartExamined ..."""
    geometry: PictureGeometry | None = None
    """Size and spacing of the decoded picture; None where they are not known: then there is no evidence."""
    _digest: str | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, frame: DecodedFrame) -> Self:
        """What is known of a decoded picture."""
        return cls(PictureStatistics.of(frame.pixels), dict(frame.header_fields), frame.geometry)

    @property
    def digest(self) -> str:
        """Equal for equal contexts."""
        if self._digest is None:  # once: it is the key of every answer about the picture
            object.__setattr__(self, "_digest", hashlib.sha256(self.to_json().encode()).hexdigest()[:16])
        return str(self._digest)

    def to_json(self) -> str:
        """The fields above as JSON."""
        values = dataclasses.asdict(self)
        del values["_digest"]
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read back what `to_json` wrote."""
        values = json.loads(text)
        statistics, geometry = values["statistics"], values.get("geometry")
        if geometry and geometry["spacing"]:
            geometry["spacing"] = tuple(geometry["spacing"])
        return cls(
            PictureStatistics(**statistics) if statistics else None,
            values["facts"],
            PictureGeometry(**geometry) if geometry else None,
        )


NO_CONTEXT = PictureContext()
"""Of a picture of which nothing is known."""
