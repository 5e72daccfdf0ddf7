"""A clean split: no image, near-duplicate or group is in two parts, whatever the published split says.

446 of the 451 test questions of VQA-RAD are about images of its training split, and SLAKE's English and Chinese splits
were drawn apart. Images that are equal, near-duplicates, or of one group are joined; a hash of each component's content
decides where it belongs, the same on every machine and for every later version of the rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medical_vqa.data.disjoint_sets import DisjointSets
from medical_vqa.data.formats.base import DatasetCard, Published
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.errors import DataError
from medical_vqa.schema.audit import Audit
from medical_vqa.schema.records import Example, Split

CLEAN = "clean"
PUBLISHED_SPLIT = "published_split"
"""Fact with the split in which a row was published."""
_BOUNDS: Sequence[tuple[float, Split]] = ((0.7, "train"), (0.85, "validation"), (1.0, "test"))


class CleanSplit:
    """A prepared dataset with clean splits, as a reader that `prepare` takes.

    Args:
        dataset: The dataset as it was published.
        audit: Its audit, which names the near-duplicates.
    """

    def __init__(self, dataset: PreparedDataset, audit: Audit) -> None:
        if not audit.images_compared:
            raise DataError(f"{dataset.name}: a clean split needs the near-duplicates; run the audit without --quick")
        self.dataset, self.audit = dataset, audit
        manifest = dataset.manifest
        self.card = DatasetCard(
            name=f"{manifest.dataset}-{CLEAN}",
            title=f"{manifest.title}, split again without shared images",
            license=manifest.license,
            citation=manifest.citation,
            homepage=manifest.homepage,
            default_where=manifest.default_where,
        )

    def read(self, source: Path) -> Published:  # noqa: ARG002 - the dataset is open already
        """The rows under their published ids, in the clean splits; `source` is the prepared dataset."""
        rows = {split: self.dataset.examples(split) for split in self.dataset.splits}
        split_of = clean_splits([row for part in rows.values() for row in part], self.dataset, self.audit)
        examples: dict[Split, list[Example]] = {}
        for published, part in rows.items():
            for row in part:
                facts = {**row.facts, PUBLISHED_SPLIT: published}
                examples.setdefault(split_of[row.image_id], []).append(dataclasses.replace(row, facts=facts))
        counts = ", ".join(f"{split} {len(part):,}" for split, part in examples.items())
        return Published(
            examples=examples,
            image_names={image_id: file.file for image_id, file in self.dataset.manifest.images.items()},
            read_image=lambda image_id: self.dataset.images.path(image_id).read_bytes(),
            notes=[f"not a published split: whole components of equal and similar images by a fixed hash ({counts})"],
        )

    def bundled(self) -> Path | None:
        """None: it is made of a prepared dataset."""
        return None


def clean_splits(rows: Iterable[Example], dataset: PreparedDataset, audit: Audit) -> Mapping[str, Split]:
    """Image id -> clean split.

    Args:
        rows: All rows.
        dataset: Their dataset, for the content of images.
        audit: Its audit.
    """
    linked = DisjointSets()
    images: dict[str, None] = {}
    for row in rows:
        for image_id in row.images:
            images[image_id] = None
            linked.join(f"image {image_id}", f"content {dataset.images.digest(image_id)}")
            linked.join(f"image {image_id}", f"group {row.group}")
    for pair in (*audit.near_duplicates, *audit.near_duplicates_of_one_part):
        linked.join(f"image {pair.first}", f"image {pair.second}")
    members: dict[str, list[str]] = {}
    for image_id in images:
        members.setdefault(linked.first(f"image {image_id}"), []).append(dataset.images.digest(image_id))
    return {image_id: _split_of(min(members[linked.first(f"image {image_id}")])) for image_id in images}


def _split_of(digest: str) -> Split:
    position = int.from_bytes(hashlib.sha256(f"clean:{digest}".encode()).digest()[:6], "big") / 2**48
    return next(split for bound, split in _BOUNDS if position < bound)
