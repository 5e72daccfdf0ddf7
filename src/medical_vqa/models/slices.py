"""Which slices of a series a question is asked about, and how the answers about them become one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from medical_vqa.schema.records import Prediction

if TYPE_CHECKING:
    from medical_vqa.models.base import Query, VqaModel

DEFAULT_SLICES = 5
"""Slices that a question is asked about."""
MAX_SLICES = 100
"""Most slices that a question is asked about."""
CANDIDATES = 32
"""Evenly spread slices in which the entity of a question is searched for."""
_PRESENT = 0.5  # probability of a region's most certain cell from which on the slice shows it


def spread(count: int, number: int) -> list[int]:
    """Evenly spread slices, without the ends: the middle of each of `number` equal parts of `count` slices."""
    parts = min(number, count)
    return [int((part + 0.5) * count / parts) for part in range(parts)]


def slices_at_once(together: int) -> int:
    """How many slices a model receives where nobody says: as many as it takes in a question, if that is several."""
    return min(together, MAX_SLICES) if together > 1 else DEFAULT_SLICES


def slices_note(number: int, count: int, plane: str) -> str:
    """What a chat model reads about its pictures: `number` of the `count` slices of a plane."""
    which = "all" if number == count else f"{number} of the"
    return f"The pictures are {which} {count} {plane} slices of one series, in the order of their position."


def presence_in(model: VqaModel, query: Query) -> float | None:
    """Probability that a slice shows what the question names; None where the model localizes nothing of it."""
    regions = model.localizations(query, Prediction(query.id, ""))
    return max((float(np.max(region.probability)) for region in regions), default=None)


def showing_slices(presence: Mapping[int, float], number: int) -> list[int]:
    """At most `number` of the slices that probably show the entity, those that most certainly do, in their order."""
    showing = sorted((i for i, value in presence.items() if value >= _PRESENT), key=lambda i: -presence[i])
    return sorted(showing[:number])


def combined(predictions: Sequence[Prediction]) -> tuple[str, float | None]:
    """The answer with the largest mean probability; without probabilities the commonest one."""
    if any(one.confidence is None for one in predictions):
        texts = [one.answer for one in predictions]
        return max(texts, key=texts.count), None
    return ranking(predictions)[0]


def ranking(predictions: Sequence[Prediction]) -> list[tuple[str, float]]:
    """Answers with their mean probability over predictions that all have one, the best first."""
    sums: defaultdict[str, float] = defaultdict(float)
    for one in predictions:
        sums[one.answer] += one.confidence or 0.0
        for text, probability in one.alternatives:
            sums[text] += probability
    means = [(text, value / len(predictions)) for text, value in sums.items()]
    return sorted(means, key=lambda one: -one[1])
