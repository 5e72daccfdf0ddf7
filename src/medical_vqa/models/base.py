"""What every model family gives: `VqaModel` answers, `Trainable` also learns; `Query` is what a model sees.

`Example` is the published row, `Query` is what a model sees: no dataset code knows a tokenizer and no model code
knows SLAKE. A picture is prepared once (`PictureSpec`), and what a model makes of it alone is encoded once (`Vision`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from medical_vqa.data.imaging.pictures import PictureSpec
from medical_vqa.errors import ModelError
from medical_vqa.schema.records import Example, Prediction

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    Features = Mapping[str, Any]  # named tensors: torch's, or numpy's from a model that runs without torch
    Visual = NDArray[np.uint8] | Features
    Batch = dict[str, Tensor]

MAX_QUESTION_CHARACTERS = 1_000
"""Longer questions are refused: the longest published one (VQA-RAD, SLAKE) has fewer than 250."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question about one image, as a model sees it."""

    id: str
    """Comes back as the prediction's id."""
    question: str
    """The question, as published or typed."""
    image: str
    """What tells two images apart (their digest): queries with the same `image` share one `visual`."""
    visual: Visual
    """A prepared picture, uint8 (height, width, channels), or what `Vision.encode` made of it; never both."""
    target: str | None = None
    """The answer to learn; None when only an answer is wanted."""
    regions: NDArray[np.uint8] | None = None
    """What is known of where things lie in the picture (`data.regions`), to learn from; never needed to answer."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How an answer is chosen; kept in the bundle, so that the server asks as training did."""

    alternatives: int = 4
    """How many next best answers a prediction carries."""
    method: Literal["greedy", "beam", "rank"] = "greedy"
    """For models that write: word by word, several beginnings at once, or by ranking the training answers.
    A classifier ranks its answers whatever this says."""
    beams: int = 4
    """How many beginnings ``beam`` follows."""
    max_tokens: int = 24
    """Longest answer that is written, in tokens; SLAKE's longest has 12 words."""


class Vision(Protocol):
    """The part of a model whose output depends on the image alone."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over weights and settings: equal fingerprints give equal features."""

    @property
    def frozen(self) -> bool:
        """Whether training leaves it as it is; only then may features outlive a training step."""

    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Features]:
        """Features of each picture, one mapping each, without a batch axis."""

    def to(self, device: torch.device) -> None:
        """Move it there; a frozen one is needed there only while it encodes."""


class VqaModel(Protocol):
    """Anything that answers questions about images."""

    @property
    def family(self) -> str:
        """The name in recipes and bundles: ``compact``."""

    @property
    def picture(self) -> PictureSpec | None:
        """How a picture is prepared for this model; None when it never looks at one."""

    @property
    def vision(self) -> Vision | None:
        """What encodes an image once for any number of questions; None when nothing of it can be reused."""

    def answer(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:
        """One prediction per query, in order. Raises `ModelError` on a question it cannot take."""


@runtime_checkable
class Trainable(Protocol):
    """A model that learns by gradient steps; also a `VqaModel`."""

    @property
    def module(self) -> nn.Module:
        """Called with a collated batch, it returns the loss summed over the batch's supervised items."""

    @property
    def family(self) -> str:
        """As in `VqaModel`."""

    @property
    def picture(self) -> PictureSpec | None:
        """As in `VqaModel`."""

    @property
    def vision(self) -> Vision | None:
        """As in `VqaModel`."""

    def answer(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:
        """As in `VqaModel`."""

    def collate(self, queries: Sequence[Query]) -> Batch:
        """Tensors of a batch; ``supervised`` holds how many items the loss sums over. Runs in loader workers."""

    def save(self, folder: Path) -> None:
        """Write weights and settings, never a frozen base, into an existing folder."""

    @classmethod
    def load(cls, folder: Path, *, device: torch.device) -> Self:
        """Read back what `save` wrote."""

    def describe(self) -> dict[str, Any]:
        """Facts for the card: parameter counts and sizes."""


class Fittable(Protocol):
    """A model that is made from examples in one go (the baselines)."""

    @classmethod
    def fit(cls, examples: Sequence[Example]) -> Self:
        """Count what there is to count."""


def check_question(question: str) -> str:
    """The question without surrounding white space; raises `ModelError` when it is empty or far too long."""
    text = question.strip()
    if not text:
        raise ModelError("the question is empty; ask something, for example: What modality is this image?")
    if len(text) > MAX_QUESTION_CHARACTERS:
        raise ModelError(
            f"the question has {len(text):,} characters; at most {MAX_QUESTION_CHARACTERS:,} are read: shorten it"
        )
    return text


def targets_of(queries: Sequence[Query]) -> list[str]:
    """The answers to learn, in order; raises `ModelError` when a question of the batch has none."""
    targets = [query.target for query in queries if query.target is not None]
    if len(targets) != len(queries):
        raise ModelError("a training batch holds a question without an answer; leave such rows out")
    return targets


def distinct(queries: Sequence[Query]) -> tuple[list[Visual], list[int]]:
    """The visuals of the queries, each image once, and for every query the place of its image among them."""
    places: dict[str, int] = {}
    visuals: list[Visual] = []
    for query in queries:
        if query.image not in places:
            places[query.image] = len(visuals)
            visuals.append(query.visual)
    return visuals, [places[query.image] for query in queries]
