"""Confidence of a remote model: from the probabilities of its tokens, or from the agreement of several answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from medical_vqa.models.questions.form import asks_yes_or_no
from medical_vqa.text import squad_normalize

Basis = Literal["probability", "agreement"]
"""What a confidence was computed from."""
_CLOSED = ("yes", "no")


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure a model is of its answer."""

    value: float | None = None
    """In [0, 1]; None where nothing is known."""
    basis: Basis | None = None
    """What it was computed from; None where nothing is known."""
    alternatives: tuple[tuple[str, float], ...] = ()
    """The other answer of a closed question, with its probability."""


def token_confidence(question: str, answer: str, raw: str, tokens: Sequence[Any]) -> Confidence:
    """Confidence from token log-probabilities, in the shape of OpenAI's ``logprobs.content``.

    Args:
        question: The question; one that is answered by yes or no compares these two.
        answer: The answer in the text.
        raw: The model's text, of which the answer is the end where it thought aloud.
        tokens: The tokens of the text with ``token``, ``logprob`` and ``top_logprobs``.

    Returns:
        For a closed question the probability of the answer among yes and no, at the first token that is one of them;
        otherwise exp(mean log-probability of the answer's tokens). Without log-probabilities: none.
    """
    own = _tokens_of_answer(answer, raw, tokens)
    if asks_yes_or_no(question) and (closed := _closed(answer, own)) is not None:
        return closed
    values = [float(token.logprob) for token in own if _finite(getattr(token, "logprob", None))]
    if not values:
        return Confidence()
    return Confidence(min(1.0, math.exp(sum(values) / len(values))), "probability")


def agreement(answer: str, samples: Iterable[str]) -> Confidence:
    """Fraction of further answers, drawn at random, that say the same; they need no log-probabilities."""
    others = [squad_normalize(sample) for sample in samples]
    if not others:
        return Confidence()
    return Confidence(sum(other == squad_normalize(answer) for other in others) / len(others), "agreement")


def _tokens_of_answer(answer: str, raw: str, tokens: Sequence[Any]) -> Sequence[Any]:
    """The tokens from the answer's beginning on; all of them where it cannot be located."""
    start = raw.rfind(answer) if answer else -1
    if start <= 0:
        return tokens
    position = 0
    for number, token in enumerate(tokens):
        text = getattr(token, "token", None) or ""
        position += len(text)
        if position > start:
            return tokens[number:]
    return tokens


def _closed(answer: str, tokens: Sequence[Any]) -> Confidence | None:
    word = (answer.split() or [""])[0].strip(".,;:!").lower()
    if word not in _CLOSED:
        return None
    for token in tokens:
        if _word(token) not in _CLOSED:
            continue
        probabilities = dict.fromkeys(_CLOSED, 0.0)
        candidates = getattr(token, "top_logprobs", None) or [token]
        if not any(_word(candidate) == _word(token) for candidate in candidates):
            candidates = [token, *candidates]
        for candidate in candidates:
            if _word(candidate) in probabilities and _finite(candidate.logprob):
                probabilities[_word(candidate)] += math.exp(candidate.logprob)
        total = sum(probabilities.values())
        if not total or len(candidates) < 2:  # the other answer's probability is not known
            return None
        other = "no" if word == "yes" else "yes"
        value, rest = probabilities[word] / total, probabilities[other] / total
        return Confidence(value, "probability", ((other.capitalize() if answer[0].isupper() else other, rest),))
    return None


def _word(token: Any) -> str:
    return str(getattr(token, "token", "") or "").strip(" \n\t.,▁Ġ").lower()


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
