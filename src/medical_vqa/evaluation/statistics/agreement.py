"""Agreement of two judges beyond chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medical_vqa.evaluation.statistics.intervals import Floats, clustered_bootstrap
from medical_vqa.schema.results import Bootstrap, Score


def cohen_kappa(
    first: Sequence[bool], second: Sequence[bool], groups: Sequence[str], bootstrap: Bootstrap | None = None
) -> Score:
    """Cohen's kappa of two judgments on the same answers, with an interval that resamples whole groups.

    Args:
        first: Judgments of the first judge, right or wrong.
        second: Judgments of the second judge on the same answers.
        groups: Group (patient or image) of each answer.
        bootstrap: How the interval is resampled.

    Returns:
        Kappa in [-1, 1]; without a value where chance alone explains everything, as when all judgments are equal.

    Source: Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20 (1960).
    """
    bootstrap = bootstrap or Bootstrap()
    pairs = np.stack([np.asarray(first, bool), np.asarray(second, bool)], axis=1).astype(float).reshape(-1, 2)
    both = pairs[:, 0] * pairs[:, 1]
    counts = np.stack([both, pairs[:, 0], pairs[:, 1], np.ones(len(pairs))], axis=1)
    value = float(_kappa(counts.sum(axis=0, keepdims=True))[0]) if len(counts) else float("nan")
    interval = clustered_bootstrap(
        counts,
        groups,
        _kappa,
        resamples=bootstrap.resamples,
        level=bootstrap.level,
        seed=bootstrap.seed,
    )
    known = None if np.isnan(value) else value
    return Score(value=known, interval=interval, n=len(counts), clusters=len(set(groups)))


def _kappa(totals: Floats) -> Floats:
    """Kappa of each row of (both right, first right, second right, n); nan where chance explains everything."""
    both, first, second, n = totals.T
    observed = (n - first - second + 2 * both) / n
    expected = (first * second + (n - first) * (n - second)) / n**2
    kappa: Floats = np.full(len(totals), np.nan)
    np.divide(observed - expected, 1 - expected, out=kappa, where=expected < 1)
    return kappa
