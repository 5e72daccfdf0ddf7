"""BLIP-2 (Li et al. 2023): a frozen vision encoder, the Q-Former, and a frozen language model, with LoRA adapters.

    picture -> vision encoder -> [A] -> Q-Former -> projection -> [B] -> language model <- prompt

Which output is cached per picture depends on where the adapters are: A (257 tokens of width 1408 for ViT-g) when the
Q-Former learns, B (32 tokens of the language model's width) when only the language model does. The Q-Former sees the
picture alone, so at A it runs once per picture of a batch and not once per question.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.errors import ModelError
from medical_vqa.models.augment import Augment, augment_pictures
from medical_vqa.models.base import Query, check_question, distinct, targets_of
from medical_vqa.models.fsdp import is_sharded
from medical_vqa.models.hf import blip2_network
from medical_vqa.models.hf.adapter_model import AdapterModel, AdapterSettings
from medical_vqa.models.hf.blip2_network import LONGER, Blip2Net, Blip2VisionEncoder
from medical_vqa.models.hf.checkpoint import Checkpoint
from medical_vqa.models.hf.families import Blip2Family
from medical_vqa.models.hf.generation import (
    IGNORED_LABEL,
    attention_mask,
    fill_prompt,
    fingerprint_of,
    log_likelihood,
    pad,
    rank_candidates,
)
from medical_vqa.models.hf.loading import (
    Dtype,
    count_language_weights,
    load_image_processor,
    load_network,
    load_tokenizer,
    loading_arguments,
    to_pixels,
)
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Prediction

if TYPE_CHECKING:
    from medical_vqa.models.base import Batch

_RANK_ROWS = 256
"""Candidate answers that are scored at once."""
_LEAST_ROWS, _LEAST_SAVING = 8, 0.1
"""A batch of so many rows is computed in two parts where that saves such a fraction of its tokens."""


class Blip2Vision:
    """The vision encoder with its image processor, as the feature cache uses it."""

    def __init__(self, encoder: Blip2VisionEncoder, processor: Any, settings: str, *, frozen: bool) -> None:
        self.frozen = frozen
        self._settings = settings
        self._encoder = encoder
        self._processor = processor

    @property
    def fingerprint(self) -> str:
        """SHA-256 over checkpoint and settings, and over the trained weights where the vision encoder has such."""
        return self._settings if self._encoder.frozen else self._encoder.trained_digest(self._settings)

    @torch.no_grad()  # not inference mode, whose tensors no module can be trained on
    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Mapping[str, Tensor]]:
        """Prepared pictures -> {"tokens": (T, W)} each, on the encoder's device."""
        if not pictures:
            return []
        weight = self._encoder.weight
        pixels = to_pixels(self._processor, pictures)["pixel_values"].to(weight.device, weight.dtype)
        return [{"tokens": tokens} for tokens in self._encoder(pixels)]

    def to(self, device: torch.device) -> None:
        """Move the encoder."""
        self._encoder.to(device)


@dataclass(frozen=True, slots=True)
class Blip2Processor:
    """The two parts of BLIP-2's processor that are used."""

    tokenizer: Any
    """Tokenizer of the language model."""
    image_processor: Any
    """Image processor of the vision encoder."""


class Blip2(AdapterModel, Blip2Family):
    """The network with its tokenizer, image processor and prompt."""

    settings_file = "blip2.json"
    own_options = ("four_bit",)
    module: Blip2Net
    prompt: str
    adapt = staticmethod(blip2_network.adapt)

    def __init__(
        self,
        peft_model: Any,
        cached_modules: Sequence[str],
        processor: Blip2Processor,
        settings: AdapterSettings,
        *,
        four_bit: bool = False,
    ) -> None:
        """Take the cached modules out of the network; the first arguments are those of `AdapterModel`.

        Args:
            four_bit: Whether the frozen weights of the language model are quantized.
        """
        super().__init__(peft_model, cached_modules, processor, settings)
        self.four_bit = four_bit
        images = processor.image_processor
        encoder = Blip2VisionEncoder(peft_model.get_base_model(), cached_modules)
        self.module = Blip2Net(peft_model, encoder)
        self.picture = PictureSpec(side=_picture_side(images), mode="RGB", fit="stretch")
        digest = settings.checkpoint.digest()
        fingerprint = fingerprint_of(digest, images, settings.dtype, list(cached_modules), self.picture.key)
        self.vision = Blip2Vision(encoder, images, fingerprint, frozen=settings.features and encoder.frozen)

    @classmethod
    def load_network(cls, checkpoint: Checkpoint, dtype: Dtype, options: Mapping[str, Any]) -> Any:
        """The published BLIP-2 with its weights, its language model in 4 bits with ``four_bit``."""
        from transformers import Blip2ForConditionalGeneration  # noqa: PLC0415 - slow to import

        arguments = loading_arguments(dtype, options)
        return load_network(Blip2ForConditionalGeneration, checkpoint.folder, checkpoint.name, **arguments)

    @classmethod
    def vision_parts(cls, network: Any) -> tuple[Sequence[str], Sequence[str]]:  # noqa: ARG003 - always the same
        """The vision model, and the projection behind the Q-Former."""
        return (blip2_network.VISION,), (blip2_network.PROJECTOR,)

    @staticmethod
    def language_modules(network: Any) -> tuple[str, ...]:  # noqa: ARG004 - always the same
        """The language model, which has its head inside."""
        return (blip2_network.LANGUAGE,)

    @staticmethod
    def quantized_parameters(network: Any, options: Mapping[str, Any]) -> int:
        """The matrices of the language model, with ``four_bit``."""
        return count_language_weights(network) if options.get("four_bit") else 0

    @classmethod
    def empty_network(cls, config: Any) -> Any:
        """BLIP-2 of a configuration."""
        from transformers import Blip2ForConditionalGeneration  # noqa: PLC0415 - slow to import

        return Blip2ForConditionalGeneration(config)

    @staticmethod
    def load_processor(folder: Path, name: str, config: Any) -> Blip2Processor:  # noqa: ARG004 - as for every family
        """Tokenizer and image processor from a folder."""
        return Blip2Processor(load_tokenizer(folder, name), load_image_processor(folder, name))

    def save(self, folder: Path) -> None:
        """As `AdapterModel.save`, with a processor_config.json for ``AutoProcessor`` where the checkpoint has none."""
        super().save(folder)
        path = folder / "processor_config.json"
        if not path.is_file():
            content = {
                "num_query_tokens": self.module.base.config.num_query_tokens,
                "processor_class": "Blip2Processor",
            }
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def image_tokens(cls, checkpoint: Checkpoint, config: Any, options: Mapping[str, Any]) -> int:  # noqa: ARG003
        """The queries of the Q-Former."""
        return int(config.num_query_tokens)

    @classmethod
    def vision_tokens(cls, checkpoint: Checkpoint, config: Any, options: Mapping[str, Any]) -> int:  # noqa: ARG003
        """The patches of a picture, and one token for all of it."""
        return int(config.vision_config.image_size // config.vision_config.patch_size) ** 2 + 1

    @staticmethod
    def generating_module(network: Any) -> Any:
        """The language model: the network's own ``generate`` requires pixels."""
        return network.language_model

    def collate(self, queries: Sequence[Query]) -> Batch:
        """Input of `Blip2Net.forward`, with labels (N, L) and supervised (), the number of answer tokens.

        A batch of which some rows are much longer than the others has them apart, under `LONGER` and the same names.
        """
        targets = targets_of(queries)
        self.refuse_stale_features(queries)
        batch = self._images(queries, self.settings.augment)
        prompts = self._prompts(queries)
        decodes = self.module.is_encoder_decoder
        answers = self.tokenizer(text_target=targets).input_ids if decodes else [*map(self._continuation, targets)]
        for query, prompt, answer in zip(queries, prompts, answers, strict=True):
            self.check_length(query, self.module.base.config.num_query_tokens + len(prompt), len(answer))
        rows = list(zip(prompts, answers, batch.pop("image_of").tolist(), strict=True))
        batch["supervised"] = torch.tensor(sum(map(len, answers)))
        lengths = [len(prompt) + (0 if decodes else len(answer)) for prompt, answer, _ in rows]
        # sharded processes must call a layer equally often, and compute all rows at once
        cut = None if is_sharded(self.module) else shorter_rows(lengths, self.module.base.config.num_query_tokens)
        if cut is None:
            return batch | self._rows(rows)
        shorter = [row for row, length in zip(rows, lengths, strict=True) if length <= cut]
        longer = [row for row, length in zip(rows, lengths, strict=True) if length > cut]
        return batch | self._rows(shorter) | {LONGER + name: part for name, part in self._rows(longer).items()}

    def _rows(self, rows: Sequence[tuple[list[int], list[int], int]]) -> Batch:
        """Prompts, answers and numbers of images as tensors, padded to the longest."""
        prompts, answers, images = ([*column] for column in zip(*rows, strict=True))
        if self.module.is_encoder_decoder:
            labels, words = answers, prompts
        else:
            pairs = list(zip(prompts, answers, strict=True))
            labels = [[IGNORED_LABEL] * len(prompt) + answer for prompt, answer in pairs]
            words = [[*prompt, *answer] for prompt, answer in pairs]
        return self._words(words) | {"labels": pad(labels, IGNORED_LABEL), "image_of": torch.tensor(images)}

    def _prompts(self, queries: Sequence[Query]) -> list[list[int]]:
        texts = [fill_prompt(self.prompt, check_question(query.question)) for query in queries]
        rows: list[list[int]] = self.tokenizer(texts).input_ids
        return rows

    def _continuation(self, answer: str) -> list[int]:
        """Token ids of an answer that continues the prompt, its end token included."""
        ids: list[int] = self.tokenizer(f" {answer}", add_special_tokens=False).input_ids
        own = self.tokenizer.eos_token_id
        return [*ids, self.end_tokens[0] if own is None else own]

    def _words(self, rows: Sequence[Sequence[int]], *, left: bool = False) -> Batch:
        padding = self.tokenizer.pad_token_id or 0
        return {"input_ids": pad(rows, padding, left=left), "attention_mask": attention_mask(rows, left=left)}

    def _images(self, queries: Sequence[Query], augment: Augment | None = None) -> Batch:
        """Features of each image where the queries have them, pixels otherwise."""
        visuals, image_of = distinct(queries)
        pictures = [v for v in visuals if isinstance(v, np.ndarray)]
        features = [v["tokens"] for v in visuals if not isinstance(v, np.ndarray)]
        if pictures and features:
            raise ModelError("a batch mixes pictures and cached features; give one or the other")
        batch = {"image_of": torch.tensor(image_of)}
        if features:
            return batch | {"features": torch.stack(features)}
        return batch | {
            "pixel_values": to_pixels(self.processor.image_processor, augment_pictures(pictures, augment))[
                "pixel_values"
            ]
        }

    def _prompt_embeddings(self, queries: Sequence[Query]) -> tuple[Tensor, Tensor]:
        words = self._words(self._prompts(queries), left=not self.module.is_encoder_decoder)
        return self.module.embed(self.to_device(self._images(queries) | words))

    def generation_inputs(self, queries: Sequence[Query]) -> tuple[Any, dict[str, Any]]:
        """The language model, and images and prompts as its embeddings."""
        embeddings, mask = self._prompt_embeddings(queries)
        return self.generating_module(self.module.base), {"inputs_embeds": embeddings, "attention_mask": mask}

    def rank(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:
        """The most likely training answers to each question."""
        embeddings, mask = self._prompt_embeddings(queries)
        candidates = self.settings.answers
        if self.module.is_encoder_decoder:
            rows = self.tokenizer(text_target=list(candidates)).input_ids
            encoder = self.module.base.language_model.get_encoder()
            context = encoder(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
            score: Callable[[Tensor, Tensor, Tensor], Tensor] = self._score_decoder
        else:
            rows = [self._continuation(answer) for answer in candidates]
            context = embeddings
            score = self._score_continuations
        labels = pad(rows, IGNORED_LABEL).to(self.device)
        tokens = (labels != IGNORED_LABEL).sum(1)
        predictions = []
        for row, query in enumerate(queries):
            self.check_length(query, int(mask[row].sum()), labels.shape[1])
            scores = score(context[row : row + 1], mask[row : row + 1], labels)
            predictions.append(rank_candidates(query.id, candidates, scores, tokens, decoding.alternatives))
        return predictions

    def _score_decoder(self, encoded: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Log-likelihood (C,) of candidates given one encoded question (1, L, D)."""
        from transformers.modeling_outputs import BaseModelOutput  # noqa: PLC0415

        scores = []
        for rows in labels.split(_RANK_ROWS):
            states = BaseModelOutput(last_hidden_state=encoded.expand(len(rows), -1, -1))
            out = self.module.base.language_model(
                encoder_outputs=states, attention_mask=mask.expand(len(rows), -1), labels=rows, use_cache=False
            )
            scores.append(log_likelihood(out.logits, rows))
        return torch.cat(scores)

    def _score_continuations(self, prompt: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Log-likelihood (C,) of candidates after one embedded prompt (1, L, D), which is read once per part."""
        language = self.module.base.language_model
        scores = []
        for rows in labels.split(_RANK_ROWS):
            read = language.model(inputs_embeds=prompt, attention_mask=mask, use_cache=True)
            first = language.lm_head(read.last_hidden_state[:, -1:]).expand(len(rows), -1, -1)
            cache = read.past_key_values
            cache.batch_repeat_interleave(len(rows))
            words = rows.clamp(min=0)[:, :-1]
            full_mask = torch.cat([mask.expand(len(rows), -1), (rows[:, :-1] != IGNORED_LABEL).long()], 1)
            later = language(input_ids=words, attention_mask=full_mask, past_key_values=cache).logits
            scores.append(log_likelihood(torch.cat([first, later], 1), rows))
        return torch.cat(scores)


def _picture_side(processor: Any) -> int:
    size = dict(processor.size)
    return int(size.get("height") or size.get("shortest_edge") or size.get("longest_edge") or 224)


def shorter_rows(lengths: Sequence[int], image_tokens: int) -> int | None:
    """The greatest length of the first of two parts in which a batch is computed; None for one part.

    A batch of whole images has questions of all lengths, and to pad all to the longest is a fifth of the computation.

    Args:
        lengths: Tokens of each row, without those of its image.
        image_tokens: Tokens of an image, in front of each row.
    """
    ordered = sorted(lengths)
    longest, count = image_tokens + ordered[-1], len(ordered)
    tokens = {
        length: (place + 1) * (image_tokens + length) + (count - place - 1) * longest
        for place, length in enumerate(ordered)
    }
    cut = min(tokens, key=tokens.__getitem__)
    is_worth_it = count >= _LEAST_ROWS and tokens[cut] <= (1 - _LEAST_SAVING) * count * longest
    return cut if is_worth_it else None
