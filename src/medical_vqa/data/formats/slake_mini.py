"""SLAKE-mini: the sample of SLAKE that ships with the package, so that the demo and the tests need no network.

One row of ``train.json``, as in SLAKE itself::

    {"img_id": 1, "img_name": "xmlab1/source.jpg", "question": "What modality is used to take this image?",
     "answer": "MRI", "q_lang": "en", "location": "Abdomen", "modality": "MRI", "answer_type": "OPEN",
     "base_type": "vqa", "content_type": "Modality", "triple": ["vhead", "_", "_"], "qid": 0}

A file in its folder and ``tools/make_slake_mini.py``, which rebuilds it, describe the selection and the changes.
"""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from medical_vqa.data.formats import slake
from medical_vqa.data.formats.base import DatasetCard, Published
from medical_vqa.errors import DataError

CARD = DatasetCard(
    name="slake-mini",
    title="SLAKE-mini, a sample of SLAKE 1.0 (2021), English, pictures made smaller",
    license="CC BY 4.0, as SLAKE itself; changed: a sample, pictures resized and compressed again",
    citation=slake.CARD.citation,
    homepage=slake.CARD.homepage,
    rows={"train": 1226, "validation": 424},
    images=150,
    default_where={"language": "en"},
)


class SlakeMini:
    """The ``slake-mini`` dataset."""

    card = CARD

    def read(self, source: Path) -> Published:
        """Parse the sample's folder; raises `DataError` with file and row where it is not as shipped."""
        return slake.read_slake(source, name="slake-mini", splits=("train", "validation"))

    def bundled(self) -> Path:
        """The sample's folder in the package; raises `DataError` where the package is an archive."""
        folder = importlib.resources.files("medical_vqa") / "assets" / "slake-mini"
        if not isinstance(folder, Path):
            raise DataError("the package is inside an archive; install it unpacked with pip to use its sample")
        return folder
