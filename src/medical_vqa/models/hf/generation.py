"""Prompts, padded rows, masked labels, and reading what a language model generated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from medical_vqa.errors import ConfigError, ModelError
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Prediction

if TYPE_CHECKING:
    from torch import Tensor

GENERATION_FAILED = (
    "cannot be generated ({reason}); lower decoding.max_tokens, shorten the question, or use another checkpoint"
)
"""End of the message about an error inside transformers' ``generate``."""
IGNORED_LABEL = -100
"""A label that the loss ignores."""


def fill_prompt(prompt: str, question: str) -> str:
    """The prompt with the question in it."""
    return prompt.replace("{question}", question)


def check_prompt(prompt: str) -> str:
    """The prompt itself; raises `ConfigError` when it has no place for the question."""
    if "{question}" not in prompt:
        raise ConfigError(f"the prompt {prompt!r} has no {{question}} in it; write where the question goes")
    return prompt


def fingerprint_of(checkpoint: str, processor: Any, *settings: Any) -> str:
    """SHA-256 over everything that cached features depend on.

    Args:
        checkpoint: Digest of the checkpoint.
        processor: Its image processor.
        settings: Further values, JSON or convertible to text.
    """
    images = {key: value for key, value in processor.to_dict().items() if not key.startswith("_")}
    content = [checkpoint, images, *settings]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def pad(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> Tensor:
    """Rows of token ids -> (N, longest), padded with `value` at the end, or at the start with `left`."""
    width = max(map(len, rows))
    padding = [[value] * (width - len(row)) for row in rows]
    return torch.tensor([[*p, *r] if left else [*r, *p] for r, p in zip(rows, padding, strict=True)])


def attention_mask(rows: Sequence[Sequence[int]], *, left: bool = False) -> Tensor:
    """(N, longest), 1 where `pad` puts a token and 0 where it puts padding."""
    return pad([[1] * len(row) for row in rows], 0, left=left)


def summed_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy (..., V) against (...) in nats, summed over labels that are not ignored, computed in fp32."""
    return F.cross_entropy(logits.flatten(0, -2).float(), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="sum")


def log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over each row of the log-probabilities of its labels: (N, L, V), (N, L) -> (N,)."""
    losses = F.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="none"
    )
    return -losses.view(labels.shape).sum(1)


@dataclass(frozen=True, slots=True)
class GeneratedAnswer:
    """One generated answer."""

    text: str
    """Text without special tokens."""
    confidence: float
    """exp of the mean log-probability of its tokens, the end token included; in [0, 1]."""
    cut_off: bool = False
    """Whether it has no end token, because the limit of tokens was reached."""


def isolate_special_tokens(network: Any, generating: Any, tokenizer: Any) -> tuple[int, ...]:
    """Leave the generating module nothing but special tokens to take from the checkpoint's generation_config.json.

    transformers fills every parameter of a call that is None from that file: a repetition penalty, forbidden n-grams,
    suppressed tokens. Greedy search and beams would then not be what `Decoding` says.

    Args:
        network: The network, with what transformers read from the file or derived from the configuration.
        generating: The module whose ``generate`` is called: the network itself, or the language model inside it.
        tokenizer: Its end token is the one that training appends to answers.

    Returns:
        The tokens at which generation stops: those that the checkpoint names, and the tokenizer's end token.

    Raises:
        ModelError: Neither names one.
    """
    from transformers import GenerationConfig  # noqa: PLC0415 - the module that needs it has imported it

    sources = [module.generation_config for module in (network, generating) if module.generation_config is not None]

    def first(name: str) -> Any:
        return next((value for source in sources if (value := getattr(source, name)) is not None), None)

    named = first("eos_token_id")
    ends = [*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id]
    stops = tuple(dict.fromkeys(token for token in ends if token is not None))
    if not stops:
        raise ModelError(
            "nothing says at which token an answer ends: expected eos_token in the checkpoint's tokenizer_config.json, "
            "or eos_token_id in its generation_config.json; add one"
        )
    padding = first("pad_token_id")
    generating.generation_config = GenerationConfig(
        bos_token_id=first("bos_token_id"),
        eos_token_id=list(stops),
        pad_token_id=padding if padding is not None else stops[0],
        decoder_start_token_id=first("decoder_start_token_id"),
    )
    return stops


def generation_config(decoding: Decoding) -> Any:
    """The transformers configuration of a decoding; `isolate_special_tokens` provides the special tokens."""
    from transformers import GenerationConfig  # noqa: PLC0415 - the module that needs it has imported it

    beams = decoding.beams if decoding.method == "beam" else 1
    return GenerationConfig(
        max_new_tokens=decoding.max_tokens,
        num_beams=beams,
        num_return_sequences=min(beams, decoding.alternatives + 1),
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )


def read_generated(
    output: Any, tokenizer: Any, ends: Sequence[int], *, per_question: int
) -> list[list[GeneratedAnswer]]:
    """The answers to each question, best first.

    Args:
        output: What ``generate`` returned, with its logits.
        tokenizer: Decodes token ids.
        ends: Tokens at which generation stops.
        per_question: Number of answers to each question.
    """
    new, steps = token_log_probabilities(output)
    is_end = torch.isin(new, torch.as_tensor(ends, device=new.device))
    counted = (is_end.cumsum(1) - is_end.long()) == 0  # up to the first end token, and it
    mean = steps.masked_fill(~counted, 0.0).sum(1) / counted.sum(1)
    texts = tokenizer.batch_decode(
        [row[in_answer].tolist() for row, in_answer in zip(new, counted & ~is_end, strict=True)],
        skip_special_tokens=True,
    )
    answers = [
        GeneratedAnswer(text, min(1.0, value), not ended)
        for text, value, ended in zip(texts, mean.exp().tolist(), is_end.any(1).tolist(), strict=True)
    ]
    return [answers[start : start + per_question] for start in range(0, len(answers), per_question)]


def token_log_probabilities(output: Any) -> tuple[Tensor, Tensor]:
    """Generated tokens (N, T) and their log-probabilities (N, T), from the logits before any processing."""
    beams = getattr(output, "beam_indices", None)
    length = len(output.logits) if beams is None else int((beams >= 0).sum(1).max())
    new = output.sequences[:, output.sequences.shape[1] - length :]
    rows = torch.arange(len(new), device=new.device)
    steps = []
    for step in range(length):
        sources = rows if beams is None else beams[:, step].clamp(min=0)  # -1 after the end of a shorter beam
        steps.append(output.logits[step].float().log_softmax(-1)[sources, new[:, step]])
    return new, torch.stack(steps, 1)


def to_prediction(id_: str, answers: Sequence[GeneratedAnswer], alternatives: int) -> Prediction:
    """The best generated answer as the prediction, up to `alternatives` different ones after it."""
    best = answers[0]
    others: dict[str, float] = {}
    for answer in answers[1:]:
        text = answer.text.strip()
        if text != best.text.strip():
            others.setdefault(text, answer.confidence)
    alternative = tuple(others.items())[:alternatives]
    return Prediction(id_, best.text.strip(), best.text, best.confidence, alternative, cut_off=best.cut_off)


def rank_candidates(
    id_: str, candidates: Sequence[str], log_likelihoods: Tensor, tokens: Tensor, alternatives: int
) -> Prediction:
    """The most likely candidate as the prediction; confidences are exp of the mean log-probability per token.

    Args:
        id_: Id of the question.
        candidates: Possible answers, C of them.
        log_likelihoods: Sum of the log-probabilities of each candidate's tokens (C,).
        tokens: Number of tokens of each candidate (C,).
        alternatives: How many of the next best candidates the prediction carries.
    """
    best = log_likelihoods.topk(min(alternatives + 1, len(candidates))).indices.tolist()
    confidences = (log_likelihoods / tokens).exp().clamp(max=1.0).tolist()
    (answer, confidence), *others = [(candidates[index], confidences[index]) for index in best]
    return Prediction(id_, answer, answer, confidence, tuple(others))
