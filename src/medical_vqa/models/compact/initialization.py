"""Initialize a compact network with the weights of one that was trained before.

Words, answers and regions are matched by name, every other tensor by its own name in the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from medical_vqa.models.compact.network import ANSWER_LAYER, CompactNet
from medical_vqa.models.vocabulary import RESERVED_WORDS


@dataclass(frozen=True, slots=True)
class NamedNetwork:
    """A network with the names that its embeddings and classifiers are indexed by."""

    network: CompactNet
    """The network."""
    words: Sequence[str]
    """Known words, in the order of their indices."""
    answers: Sequence[str]
    """Answers of the classifier."""
    regions: Sequence[str]
    """Regions that the image encoder localizes."""


def copy_weights(target: NamedNetwork, source: NamedNetwork) -> float:
    """Copy what two networks of the same sizes have in common, in place.

    Args:
        target: The network to initialize; what the source lacks keeps its random values.
        source: The trained network.

    Returns:
        Fraction of the target's answers that the source knows, in [0, 1].
    """
    words = _matches((*RESERVED_WORDS, *target.words), (*RESERVED_WORDS, *source.words))
    answers = _matches(target.answers, source.answers)
    regions = _matches(target.regions, source.regions)
    rows = {
        "question_encoder.embedding.weight": words,
        f"{ANSWER_LAYER}.weight": answers,
        f"{ANSWER_LAYER}.bias": answers,
        "image_encoder.region_head.classifier.weight": regions,
        "image_encoder.region_head.classifier.bias": regions,
        "image_encoder.presence_head.classifier.weight": regions,
        "image_encoder.presence_head.classifier.bias": regions,
    }
    columns = {
        "image_encoder.region_head.embedding.weight": regions,
        "image_encoder.presence_head.embedding.weight": regions,
    }
    trained = source.network.state_dict()
    with torch.no_grad():
        for name, value in target.network.state_dict().items():
            if name not in trained:
                continue
            if name in rows:
                to, origin = rows[name]
                value[to] = trained[name][origin]
            elif name in columns:
                to, origin = columns[name]
                value[:, to] = trained[name][:, origin]
            else:
                value.copy_(trained[name])
    return len(answers[0]) / len(target.answers)


def _matches(target: Sequence[str], source: Sequence[str]) -> tuple[list[int], list[int]]:
    """Indices in the target and in the source of the names that both have, whatever their case."""
    index_of = {name.lower(): index for index, name in enumerate(source)}
    pairs = [(index, index_of[name.lower()]) for index, name in enumerate(target) if name.lower() in index_of]
    return [index for index, _ in pairs], [index for _, index in pairs]
