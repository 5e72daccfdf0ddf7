"""Starting from a compact model that was trained before: what both have in common is taken over.

Words, answers and kinds of region are matched by name, everything else by its place in the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medical_vqa.errors import ModelError

if TYPE_CHECKING:
    from medical_vqa.models.compact.model import Compact


def start_from(model: Compact, earlier: Compact) -> float:
    """Take over an earlier model's weights in place; returns the share of its answers that were known before.

    Raises `ModelError` where the two differ in picture or sizes.
    """
    shapes = [
        f"{m.picture.key}, foreground {m.foreground}, local contrast {m.local_contrast}, {m.sizes}"
        for m in (earlier, model)
    ]
    if shapes[0] != shapes[1]:
        raise ModelError(
            f"the model to start from has {shapes[0]}, this one {shapes[1]}; "
            "give the recipe the same picture and sizes, or leave model.initial out"
        )
    words = _places(("", " ", *model.words.known), ("", " ", *earlier.words.known))  # padding and the unknown word
    answers = _places(model.answers.answers, earlier.answers.answers)
    regions = _places(model.regions, earlier.regions)
    named = {
        "question_encoder.embedding.weight": words,
        "head.5.weight": answers,
        "head.5.bias": answers,
        "image_encoder.region_head.classifier.weight": regions,
        "image_encoder.region_head.classifier.bias": regions,
    }
    before = earlier.module.state_dict()
    with torch.no_grad():
        for name, value in model.module.state_dict().items():
            if name == "image_encoder.region_head.embedding.weight" and name in before:
                _take(value.transpose(0, 1), before[name].transpose(0, 1), regions)
            elif name in named and name in before:
                _take(value, before[name], named[name])
            elif name in before:
                value.copy_(before[name])
    return len(answers[0]) / len(model.answers)


def _places(ours: Sequence[str], theirs: Sequence[str]) -> tuple[list[int], list[int]]:
    """Where the names that both have lie, in ours and in theirs."""
    places = {name.lower(): place for place, name in enumerate(theirs)}
    both = [(place, places[name.lower()]) for place, name in enumerate(ours) if name.lower() in places]
    return [to for to, _ in both], [source for _, source in both]


def _take(value: Tensor, before: Tensor, places: tuple[list[int], list[int]]) -> None:
    to, source = places
    value[to] = before[source]
