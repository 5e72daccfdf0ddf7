"""Answers to compare an answer with: about pictures of the same type, or about a picture without its content."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from medical_vqa.models.base import Query, VqaModel
from medical_vqa.models.guards.pictures.image_dependence import without_content
from medical_vqa.models.guards.pictures.reference import ReferenceSet
from medical_vqa.schema.records import Prediction

if TYPE_CHECKING:
    from medical_vqa.models.base import Visual

_CACHED_QUESTIONS = 4096
"""Questions whose answers about the reference pictures are kept: other pictures of the type get them too."""
Key = tuple[str, str, tuple[Any, ...]]
"""What the answers depend on: the image type, or a picture of a type without reference pictures; the question; and its
`Query.surroundings`."""


class ReferenceAnswers:
    """Which questions to ask for comparison, and the answers that they got."""

    def __init__(self, model: VqaModel, reference: ReferenceSet | None, *, measured: bool) -> None:
        """Set what is compared with.

        Args:
            model: Encodes the reference pictures.
            reference: Training pictures; None for a bundle without them.
            measured: Whether anything is compared.
        """
        self._model = model
        self._reference = reference
        self._measured = measured
        self._visuals: dict[str, list[Visual]] = {}
        self._answers: LRUCache[Key, list[Prediction]] = LRUCache(_CACHED_QUESTIONS)

    def __contains__(self, key: Key) -> bool:
        return key in self._answers

    def __getitem__(self, key: Key) -> list[Prediction]:
        return self._answers[key]

    def __setitem__(self, key: Key, answers: list[Prediction]) -> None:
        self._answers[key] = answers

    def has_pictures(self, image_type: str) -> bool:
        """Whether there are reference pictures of a type."""
        return bool(self._visuals_of(image_type))

    def name(self, image_type: str, picture: NDArray[np.uint8] | None) -> str:
        """What answers to compare with depend on: the image type, or the picture where its type has no pictures."""
        if picture is None or self._visuals_of(image_type):
            return image_type
        return hashlib.sha256(picture.tobytes()).hexdigest() if self._measured else ""

    def queries(self, query: Query, image_type: str, picture: NDArray[np.uint8] | None) -> list[Query]:
        """The question about the reference pictures of its image type, or where there are none without content."""
        if not self._measured:
            return []
        visuals: Sequence[Visual] = self._visuals_of(image_type)
        name = f"reference/{image_type}"
        if not visuals and picture is not None:
            visuals, name = without_content(picture), f"{query.image}/without content"
        return [
            dataclasses.replace(query, image=f"{name}/{number}", visual=visual) for number, visual in enumerate(visuals)
        ]

    def _visuals_of(self, image_type: str) -> list[Visual]:
        """The reference pictures of a type as the model receives them, encoded once."""
        if image_type not in self._visuals:
            pictures = self._reference.pictures.get(image_type, ()) if self._reference else ()
            visuals: list[Visual] = list(pictures)
            if visuals and self._model.vision is not None:
                visuals = list(self._model.vision.encode(list(pictures)))
            self._visuals[image_type] = visuals
        return self._visuals[image_type]
