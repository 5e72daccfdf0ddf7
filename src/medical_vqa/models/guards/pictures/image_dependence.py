"""Image dependence: how much the picture moves the answer to a question, compared with other pictures of its type.

The distribution over answers given the picture is compared with those given reference pictures of its image type by
total variation, half the sum of absolute differences of probabilities: 0 where every picture gets the same answer with
the same confidence, 1 where no probability is shared. It needs nothing of a model but its answers with their
alternatives, so that every family, local or remote, is measured in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medical_vqa.schema.records import Prediction

Source = Literal["picture", "usual", "knowledge"]
"""Where an answer comes from: this picture, what is usual for pictures of its type, or general knowledge."""

_PARTS = 8
THRESHOLD = 0.1
"""Mean total variation from which an answer counts as dependent on the picture."""


@dataclass(frozen=True, slots=True)
class ImageDependence:
    """What other pictures do to the answer to one question."""

    score: float
    """Mean total variation between the picture's answers and those of each reference picture, in [0, 1]."""
    same_answer: float
    """Fraction of the reference pictures that get the same answer."""
    references: int
    """Number of reference pictures."""

    @property
    def depends_on_image(self) -> bool:
        """Whether the picture changes the answer or its confidence."""
        return self.score >= THRESHOLD

    @property
    def changes_answer(self) -> bool:
        """Whether the picture changes the answer itself: what all reference pictures get is no finding in this one."""
        return self.depends_on_image and self.same_answer < 1


def image_dependence(answer: Prediction, reference_answers: Sequence[Prediction]) -> ImageDependence | None:
    """Compare an answer with those to the same question about reference pictures.

    Args:
        answer: The answer about the picture, with as many alternatives as the model gives.
        reference_answers: The answers about the reference pictures, likewise.

    Returns:
        None without reference pictures. Where one of the answers has no confidence, the answers alone are
        compared.
    """
    if not reference_answers:
        return None
    known = all(one.confidence is not None for one in (answer, *reference_answers))
    own = _distribution(answer) if known else {answer.answer: 1.0}
    others = [_distribution(other) if known else {other.answer: 1.0} for other in reference_answers]
    distances = [total_variation(own, other) for other in others]
    same = [other.answer == answer.answer for other in reference_answers]
    return ImageDependence(sum(distances) / len(distances), sum(same) / len(same), len(distances))


def total_variation(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Total variation between two distributions of which only the largest probabilities are known, in [0, 1].

    What is missing from 1 is taken for one further answer that both share; the result is a lower bound.
    """
    known = sum(abs(probability - other.get(name, 0.0)) for name, probability in one.items())
    known += sum(probability for name, probability in other.items() if name not in one)
    rest = abs(max(0.0, 1 - sum(one.values())) - max(0.0, 1 - sum(other.values())))
    return min(1.0, (known + rest) / 2)


def answer_source(
    dependence: ImageDependence | None, *, about_image: bool, names_image_type: bool = False
) -> Source | None:
    """Where an answer comes from; None where that was not measured.

    Args:
        dependence: What other pictures do to the answer.
        about_image: Whether the question is about this image, and not one of general knowledge (what an organ does).
        names_image_type: Whether the answer is the modality or location of the picture's own type: reference pictures
            of that type share it, although it was read from the picture.
    """
    if dependence is None:
        return None
    if dependence.depends_on_image or (about_image and names_image_type):
        return "picture"
    return "usual" if about_image else "knowledge"


def _distribution(prediction: Prediction) -> dict[str, float]:
    return {prediction.answer: prediction.confidence or 0.0, **dict(prediction.alternatives)}


def without_content(picture: NDArray[np.uint8], seed: int = 0) -> list[NDArray[np.uint8]]:
    """Two pictures in place of reference pictures: a black one, and this one with its parts in another order.

    Args:
        picture: The prepared picture (height, width, channels).
        seed: Seed of the order of the 8 x 8 parts.
    """
    rows, columns = (np.array_split(np.arange(side), min(_PARTS, side)) for side in picture.shape[:2])
    places = [(row, column) for row in range(len(rows)) for column in range(len(columns))]
    order = np.random.default_rng(seed).permutation(len(places))
    shuffled = np.zeros_like(picture)
    for place, source in zip(places, order, strict=True):
        target = np.ix_(rows[place[0]], columns[place[1]])
        part = picture[np.ix_(rows[places[source][0]], columns[places[source][1]])]
        height, width = len(target[0]), target[1].size
        shuffled[target] = np.resize(part, (height, width, picture.shape[2])) if part.size else 0
    return [np.zeros_like(picture), shuffled]
