"""From published rows to the input of a model: `PictureQueries` creates each `Query` on access."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from medical_vqa.models.base import Query
from medical_vqa.schema.records import Example

if TYPE_CHECKING:
    from medical_vqa.data.cache.regions import RegionStore
    from medical_vqa.models.base import Visual

NO_PICTURE = np.zeros((1, 1, 1), np.uint8)
"""The picture of a query to a model that uses none."""


class Visuals(Protocol):
    """A cache of pictures or features: a `PictureCache` or a `FeatureStore`."""

    def get(self, digest: str) -> Visual:
        """Picture or features of the image with this SHA-256."""


class JoinedQueries(Sequence[Query]):
    """The queries of several datasets, one after the other."""

    def __init__(self, parts: Sequence[PictureQueries]) -> None:
        self.ids = [id_ for part in parts for id_ in part.ids]
        self.images = [image for part in parts for image in part.images]
        self._parts = parts
        self._places = [(number, index) for number, part in enumerate(parts) for index in range(len(part))]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Query:  # type: ignore[override]  # slices are not needed
        part, row = self._places[index]
        return self._parts[part][row]


class PictureQueries(Sequence[Query]):
    """Queries over a cache of prepared pictures or of features."""

    def __init__(
        self,
        examples: Sequence[Example],
        digests: Sequence[str],
        cache: Visuals | None,
        *,
        learn: bool = False,
        regions: RegionStore | None = None,
        other_digests: Sequence[tuple[str, ...]] | None = None,
    ) -> None:
        """Refer to rows and caches.

        Args:
            examples: The rows.
            digests: SHA-256 of each row's image.
            cache: Pictures or features; None for a model that uses no picture.
            learn: Whether each query has its first accepted answer as the target.
            regions: Regions of the images, for a model that learns them.
            other_digests: SHA-256 of each row's further images, for a model that reads conversations; without them each
                query has the first image and the question alone.
        """
        self.ids = [example.id for example in examples]
        self.images = list(digests)
        self._examples = examples
        self._cache = cache
        self._learn = learn
        self._regions = regions
        self._other_digests = other_digests

    def ask_about(self, replaced: Mapping[str, str]) -> None:
        """Ask about other images: digest of each image -> digest of the one in its place."""
        self.images = [replaced[image] for image in self.images]
        if self._other_digests is not None:
            self._other_digests = [tuple(replaced[image] for image in images) for images in self._other_digests]

    @property
    def all_images(self) -> list[str]:
        """Digests of all images that the queries are about."""
        others = (image for images in self._other_digests or () for image in images)
        return list(dict.fromkeys([*self.images, *others]))

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Query:  # type: ignore[override]  # slices are not needed
        example, image = self._examples[index], self.images[index]
        target = example.answers[0] if self._learn and example.answers else None
        visual = self._visual(image)
        regions = self._regions.get(image) if self._regions is not None else None
        query = Query(example.id, example.question, image, visual, target, regions)
        if self._other_digests is None:
            return query
        others = self._other_digests[index]
        return replace(
            query,
            other_visuals=tuple(map(self._visual, others)),
            other_images=others,
            turns=tuple((turn.question, turn.answer) for turn in example.turns),
            system=example.system,
            image_places=example.image_places,
        )

    def _visual(self, image: str) -> Visual:
        return self._cache.get(image) if self._cache is not None else NO_PICTURE
