"""From published rows to what a model sees: `PictureQueries` makes each `Query` when it is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from medical_vqa.models.base import Query
from medical_vqa.schema.records import Example

if TYPE_CHECKING:
    from medical_vqa.data.cache.regions import RegionStore
    from medical_vqa.models.base import Visual

NO_PICTURE = np.zeros((1, 1, 1), np.uint8)
"""What a model that never looks gets to see."""


class Visuals(Protocol):
    """Where pictures or features are found: a `PictureCache` or a `FeatureStore`."""

    def get(self, digest: str) -> Visual:
        """What a model sees of the image with this SHA-256."""


class PictureQueries(Sequence[Query]):
    """Queries over a cache of prepared pictures, or of features; none is made twice, however many ask about it."""

    def __init__(
        self,
        examples: Sequence[Example],
        digests: Sequence[str],
        cache: Visuals | None,
        *,
        learn: bool = False,
        regions: RegionStore | None = None,
    ) -> None:
        """`digests[i]` is the image of ``examples[i]``; `learn` gives each query its first accepted answer."""
        self.ids = [example.id for example in examples]
        self.images = list(digests)
        self._examples, self._cache, self._learn, self._regions = examples, cache, learn, regions

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Query:  # type: ignore[override]  # no slices: nobody asks for them
        example, image = self._examples[index], self.images[index]
        target = example.answers[0] if self._learn and example.answers else None
        visual = self._cache.get(image) if self._cache is not None else NO_PICTURE
        regions = self._regions.get(image) if self._regions is not None else None
        return Query(example.id, example.question, image, visual, target, regions)
