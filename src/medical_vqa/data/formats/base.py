"""What a dataset module gives (`VqaDataset`), and what the rest of the house reads (`ImageSource`, `DatasetCard`).

A dataset module knows one published format and nothing else: it parses a folder into a `Published`. Checking,
copying, hashing and the manifest are the same for all of them and live in `prepare.py`; reading what was prepared
lives in `prepared.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from PIL import Image

from medical_vqa.data.cache.regions import Regions
from medical_vqa.schema.records import Example, Split


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """Where a dataset comes from, and what the whole of it holds."""

    name: str
    """The name on the command line: ``slake``."""
    title: str
    """The dataset's own name, with its year."""
    license: str
    """License, with where it is stated."""
    citation: str
    """How the authors want to be cited."""
    homepage: str
    """Where a person reads about it."""
    rows: Mapping[Split, int] = field(default_factory=dict)
    """Official rows per split; empty where there is no official count (a folder of one's own)."""
    images: int | None = None
    """Official number of images."""
    hub_repo: str | None = None
    """Dataset repository on the Hugging Face hub, where there is one."""
    hub_revision: str | None = None
    """The pinned revision (commit) of that repository."""
    hub_files: tuple[str, ...] = ()
    """Files of that repository that are needed."""
    default_where: Mapping[str, str] = field(default_factory=dict)
    """Facts that select the usual subset: ``{"language": "en"}``."""


@dataclass(frozen=True, slots=True)
class Published:
    """A dataset as it lies in a folder, parsed and not yet checked."""

    examples: Mapping[Split, Sequence[Example]]
    """Rows of each split that was found, in file order."""
    image_names: Mapping[str, str]
    """Image id -> the file's name inside the folder, for messages: ``imgs/xmlab1/source.jpg``."""
    read_image: Callable[[str], bytes]
    """Image id -> the file's bytes; raises `ImageError` where the file is missing."""
    missing: Sequence[str] = ()
    """What the complete dataset has and this folder has not, each as a short phrase: ``test.json``."""
    notes: Sequence[str] = ()
    """Known quirks met on the way, each one sentence: ``train qid 1622 has an empty answer: kept, not trained on``."""
    read_regions: Callable[[str], Regions] | None = None
    """Image id -> where things lie in it (`data.regions`); None where the source says nothing of it."""


class VqaDataset(Protocol):
    """One published format."""

    @property
    def card(self) -> DatasetCard:
        """License, citation and official counts."""

    def read(self, source: Path) -> Published:
        """Parse the folder; raises `DataError` with file and row where it is not in this format."""

    def bundled(self) -> Path | None:
        """The folder inside the package that holds this dataset, for the shipped sample; None for all others."""


class ImageSource(Protocol):
    """Images of a prepared dataset, by id."""

    def load(self, image_id: str) -> Image.Image:
        """The picture, RGB, upright; raises `ImageError`."""

    def digest(self, image_id: str) -> str:
        """SHA-256 of the file's bytes, lower-case hex."""
