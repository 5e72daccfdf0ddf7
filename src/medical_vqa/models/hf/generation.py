"""What BLIP-2 and chat models share: the prompt, padded rows, masked labels, and reading what was generated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from medical_vqa.errors import ConfigError
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Prediction

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = -100
"""A label that no loss is taken on."""
RANK_ROWS = 256  # candidate answers that are scored at once


def fill(prompt: str, question: str) -> str:
    """The prompt with the question in it."""
    return prompt.replace("{question}", question)


def check_prompt(prompt: str) -> str:
    """The prompt itself; raises `ConfigError` when the question has no place in it."""
    if "{question}" not in prompt:
        raise ConfigError(f"the prompt {prompt!r} has no {{question}} in it; write where the question goes")
    return prompt


def fingerprint_of(checkpoint: str, processor: Any, *settings: Any) -> str:
    """SHA-256 over a checkpoint's digest, its image processor's settings, and whatever else the features depend on."""
    images = {key: value for key, value in processor.to_dict().items() if not key.startswith("_")}
    about = [checkpoint, images, *settings]
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


def pad(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> Tensor:
    """Rows of token ids -> (N, longest), filled with `value`; `left` puts the filling in front."""
    width = max(map(len, rows))
    fill_up = [[value] * (width - len(row)) for row in rows]
    return torch.tensor([[*f, *r] if left else [*r, *f] for r, f in zip(rows, fill_up, strict=True)])


def ones_mask(rows: Sequence[Sequence[int]], *, left: bool = False) -> Tensor:
    """(N, longest), 1 where `pad` put a token and 0 where it put filling."""
    return pad([[1] * len(row) for row in rows], 0, left=left)


def summed_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy (..., V) against (...) in nats, summed over labels that are not `IGNORE`, computed in fp32."""
    return F.cross_entropy(logits.flatten(0, -2).float(), labels.flatten(), ignore_index=IGNORE, reduction="sum")


def log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over each row of the log-probabilities of its labels: (N, L, V), (N, L) -> (N,)."""
    losses = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORE, reduction="none")
    return -losses.view(labels.shape).sum(1)


@dataclass(frozen=True, slots=True)
class Written:
    """One generated answer."""

    text: str
    """As generated, special tokens left out."""
    confidence: float
    """exp of the mean log-probability of its tokens, the end mark included; in [0, 1]."""


def generation_settings(model: Any, decoding: Decoding) -> Any:
    """How to generate: the checkpoint's special tokens, and nothing else of its own defaults (no sampling)."""
    from transformers import GenerationConfig  # noqa: PLC0415 - the module that needs it has imported it

    own = model.generation_config
    eos = own.eos_token_id if own.eos_token_id is not None else model.config.eos_token_id
    beams = decoding.beams if decoding.method == "beam" else 1
    return GenerationConfig(
        max_new_tokens=decoding.max_tokens,
        num_beams=beams,
        num_return_sequences=min(beams, decoding.alternatives + 1),
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        bos_token_id=own.bos_token_id,
        eos_token_id=eos,
        pad_token_id=own.pad_token_id if own.pad_token_id is not None else (eos[0] if isinstance(eos, list) else eos),
        decoder_start_token_id=own.decoder_start_token_id,
    )


def read_generated(model: Any, out: Any, settings: Any, tokenizer: Any) -> list[list[Written]]:
    """The answers of each question, best first, from what ``generate`` returned."""
    beam_indices = getattr(out, "beam_indices", None)
    steps = model.compute_transition_scores(
        out.sequences, out.scores, beam_indices, normalize_logits=beam_indices is None
    )
    new = out.sequences[:, out.sequences.shape[1] - steps.shape[1] :]
    ends = torch.isin(new, torch.as_tensor(settings.eos_token_id, device=new.device))
    counted = (ends.cumsum(1) - ends.long()) == 0  # up to the first end mark, and it
    mean = steps.float().masked_fill(~counted, 0.0).sum(1) / counted.sum(1)
    texts = tokenizer.batch_decode(new, skip_special_tokens=True)
    written = [Written(text, min(1.0, value)) for text, value in zip(texts, mean.exp().tolist(), strict=True)]
    size = settings.num_return_sequences
    return [written[start : start + size] for start in range(0, len(written), size)]


def prediction(id_: str, written: Sequence[Written], alternatives: int) -> Prediction:
    """The best as the answer, the next different ones as alternatives."""
    best = written[0]
    others: dict[str, float] = {}
    for other in written[1:]:
        text = other.text.strip()
        if text != best.text.strip():
            others.setdefault(text, other.confidence)
    return Prediction(id_, best.text.strip(), best.text, best.confidence, tuple(others.items())[:alternatives])


def ranked(id_: str, answers: Sequence[str], scores: Tensor, tokens: Tensor, alternatives: int) -> Prediction:
    """Answers in the order of their likelihood: `scores` (C,) sums of log-probabilities over `tokens` (C,) tokens."""
    best = scores.topk(min(alternatives + 1, len(answers))).indices.tolist()
    mean = (scores / tokens).exp().clamp(max=1.0).tolist()
    first, *rest = [(answers[index], mean[index]) for index in best]
    return Prediction(id_, first[0], first[0], first[1], tuple(rest))
