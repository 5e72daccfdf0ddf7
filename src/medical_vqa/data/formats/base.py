"""The interface of datasets: `VqaDataset` parses a published format.

A format module knows one published format and nothing else: it parses a folder into a `Published`. Checking, copying,
hashing and the manifest are the same for all of them (`data.prepared.prepare`), and so is reading a prepared dataset
(`data.prepared.dataset`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from medical_vqa.data.cache.regions import Regions
from medical_vqa.schema.records import Example, Split


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """Origin of a dataset, and the official counts of the complete one."""

    name: str
    """Name on the command line: ``slake``."""
    title: str
    """Title of the dataset, with its year."""
    license: str
    """License, with where it is stated."""
    citation: str
    """Citation that the authors ask for."""
    homepage: str
    """Web page of the dataset."""
    rows: Mapping[Split, int] = field(default_factory=dict)
    """Official rows per split; empty where there is no official count, as of your own data."""
    images: int | None = None
    """Official number of images."""
    hub_repo: str | None = None
    """Dataset repository on the Hugging Face hub, where there is one."""
    hub_revision: str | None = None
    """Pinned revision (commit) of that repository."""
    hub_files: tuple[str, ...] = ()
    """Files of that repository to download."""
    default_where: Mapping[str, str] = field(default_factory=dict)
    """Facts that select the usual subset: ``{"language": "en"}``."""


@dataclass(frozen=True, slots=True)
class Published:
    """A dataset parsed from its published files, not yet checked."""

    examples: Mapping[Split, Sequence[Example]]
    """Rows of each existing split, in file order."""
    image_names: Mapping[str, str]
    """Image id -> name of its file, for messages and its suffix: ``imgs/xmlab1/source.jpg``."""
    read_image: Callable[[str], bytes]
    """Function from an image id to the file's bytes; raises `ImageError` where the file is missing."""
    missing: Sequence[str] = ()
    """Parts of the complete dataset that the folder lacks, each a short phrase: ``test.json``."""
    notes: Sequence[str] = ()
    """Known irregularities, each one sentence: ``train qid 1622 has an empty answer: kept without one``."""
    read_regions: Callable[[str], Regions] | None = None
    """Function from an image id to the regions in it; None where the source has none."""


class VqaDataset(Protocol):
    """Reader of one published format."""

    @property
    def card(self) -> DatasetCard:
        """License, citation and official counts."""

    def read(self, source: Path) -> Published:
        """Parse the folder; raises `DataError` with file and row where it is not in this format."""

    def bundled(self) -> Path | None:
        """Folder of the dataset in the package, for the shipped sample; None for all others."""
