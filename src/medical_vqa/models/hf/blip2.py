"""BLIP-2 (Li et al. 2023): a frozen vision encoder, the Q-Former, and a frozen language model, with LoRA where it pays.

    picture -> vision encoder -> [A] -> Q-Former -> projection -> [B] -> language model <- prompt

What is computed once per picture and kept depends on where adapters are: at A (257 tokens of width 1408 for ViT-g) when
the Q-Former learns, at B (32 tokens of the language model's width) when only the language model does. The Q-Former
sees the picture alone, so at A it runs once per picture of a batch and not once per question.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medical_vqa.data.imaging.pictures import PictureSpec
from medical_vqa.errors import ModelError
from medical_vqa.models.augment import Augment, augment_pictures
from medical_vqa.models.base import Query, check_question, distinct, targets_of
from medical_vqa.models.hf.blip2_network import Blip2Net, Tower, adapt, take_out
from medical_vqa.models.hf.checkpoint import Checkpoint, find_checkpoint
from medical_vqa.models.hf.families import Blip2Family
from medical_vqa.models.hf.generation import (
    IGNORE,
    RANK_ROWS,
    check_prompt,
    fill,
    fingerprint_of,
    generation_settings,
    log_likelihood,
    ones_mask,
    pad,
    prediction,
    ranked,
    read_generated,
)
from medical_vqa.models.hf.loading import (
    DTYPES,
    Dtype,
    load_image_processor,
    load_network,
    load_tokenizer,
    reading,
    to_pixels,
)
from medical_vqa.models.hf.peft_io import load_adapted, save_adapter
from medical_vqa.models.memory import MemoryEstimate, count_parameters, estimate_memory, language_model_stacks
from medical_vqa.models.vocabulary import AnswerVocabulary
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Example, Prediction

if TYPE_CHECKING:
    from medical_vqa.models.base import Batch, Visual

_SETTINGS = "blip2.json"


class Blip2Vision:
    """The tower with its image processor, as what fills a feature store."""

    def __init__(self, tower: Tower, processor: Any, fingerprint: str, *, frozen: bool) -> None:
        self.tower, self._processor, self.fingerprint, self.frozen = tower, processor, fingerprint, frozen

    @torch.inference_mode()
    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Mapping[str, Tensor]]:
        """Prepared pictures -> {"tokens": (T, W)} each, on the tower's device."""
        if not pictures:
            return []
        weight = next(self.tower.parameters())
        pixels = to_pixels(self._processor, pictures)["pixel_values"].to(weight.device, weight.dtype)
        return [{"tokens": tokens} for tokens in self.tower(pixels)]

    def to(self, device: torch.device) -> None:
        """Move the tower."""
        self.tower.to(device)


class Blip2(Blip2Family):
    """The network with its tokenizer, image processor and prompt."""

    prompt: str

    def __init__(
        self,
        *,
        adapted: Any,
        upstream: Sequence[str],
        tokenizer: Any,
        processor: Any,
        checkpoint: Checkpoint,
        prompt: str,
        answers: Sequence[str],
        dtype: Dtype,
        features: bool = True,
        augment: Augment | None = None,
    ) -> None:
        self.tokenizer, self.processor, self.checkpoint = tokenizer, processor, checkpoint
        self.prompt, self.candidates, self.dtype = check_prompt(prompt), tuple(answers), dtype
        self.upstream, self.augment = tuple(upstream), augment
        self.total = count_parameters(adapted)
        tower = take_out(adapted.get_base_model(), upstream)
        self.module = Blip2Net(adapted, tower)
        self.picture = PictureSpec(side=_side(processor), mode="RGB", fit="stretch")
        self.vision = Blip2Vision(tower, processor, self._fingerprint(), frozen=features)

    def _fingerprint(self) -> str:
        return fingerprint_of(
            self.checkpoint.digest(), self.processor, self.dtype, list(self.upstream), self.picture.key
        )

    @classmethod
    def build(
        cls,
        examples: Sequence[Example],
        *,
        checkpoint: str,
        lora: Mapping[str, Any],
        prompt: str,
        revision: str | None = None,
        features: bool = True,
        augment: Mapping[str, float] | None = None,
        gradient_checkpointing: bool = False,
        dtype: Dtype = "fp32",
    ) -> Self:
        """A published BLIP-2 with fresh adapters; raises `ModelError`."""
        from transformers import Blip2ForConditionalGeneration  # noqa: PLC0415 - hub_files says how to install it

        found = find_checkpoint(checkpoint, revision)
        model = load_network(Blip2ForConditionalGeneration, found.folder, checkpoint, dtype=DTYPES[dtype])
        adapted, upstream = adapt(model, lora)
        blip2 = cls(
            adapted=adapted,
            upstream=upstream,
            tokenizer=load_tokenizer(found.folder, checkpoint),
            processor=load_image_processor(found.folder, checkpoint),
            checkpoint=found,
            prompt=prompt,
            answers=AnswerVocabulary.from_answers(e.answers[0] for e in examples if e.answers).answers,
            dtype=dtype,
            features=features,
            augment=Augment(**augment) if augment else None,
        )
        if gradient_checkpointing:
            blip2.module.base.activation_checkpointing_enable({"use_reentrant": False})
        return blip2

    @classmethod
    def memory_estimate(
        cls,
        examples: Sequence[Example],  # noqa: ARG003 - a classifier needs its answers
        *,
        checkpoint: str,
        lora: Mapping[str, Any],
        revision: str | None = None,
        **_: Any,
    ) -> MemoryEstimate:
        """What this would be, counted without its weights."""
        from transformers import AutoConfig, Blip2ForConditionalGeneration  # noqa: PLC0415

        found = find_checkpoint(checkpoint, revision, weights=False)
        with reading(f"the configuration of {checkpoint}"), torch.device("meta"):
            config = AutoConfig.from_pretrained(found.folder)
            adapted, upstream = adapt(Blip2ForConditionalGeneration(config), lora)
        stacks = language_model_stacks(config.text_config, image_tokens=config.num_query_tokens)
        return estimate_memory(adapted.get_base_model(), vision_encoder=upstream, stacks=stacks)

    @property
    def device(self) -> torch.device:
        """Where the language model is."""
        device: torch.device = self.module.base.language_model.get_input_embeddings().weight.device
        return device

    def collate(self, queries: Sequence[Query]) -> Batch:
        """What `Blip2Net.forward` takes, with labels (N, L) and supervised (), the number of answer tokens."""
        targets = targets_of(queries)
        batch = self._visual(queries, self.augment)
        prompts = self._prompts(queries)
        if self.module.written_apart:
            labels = pad(self.tokenizer(text_target=targets).input_ids, IGNORE)
            words = self._words(prompts)
        else:
            answers = [self._continuation(target) for target in targets]
            rows = [[*p, *a] for p, a in zip(prompts, answers, strict=True)]
            labels = pad([[IGNORE] * len(p) + a for p, a in zip(prompts, answers, strict=True)], IGNORE)
            words = self._words(rows)
        return batch | words | {"labels": labels, "supervised": (labels != IGNORE).sum()}

    def _prompts(self, queries: Sequence[Query]) -> list[list[int]]:
        texts = [fill(self.prompt, check_question(query.question)) for query in queries]
        rows: list[list[int]] = self.tokenizer(texts).input_ids
        return rows

    def _continuation(self, answer: str) -> list[int]:
        """Token ids of an answer that goes on after the prompt, its end mark included."""
        ids: list[int] = self.tokenizer(f" {answer}", add_special_tokens=False).input_ids
        return [*ids, self.tokenizer.eos_token_id]

    def _words(self, rows: Sequence[Sequence[int]], *, left: bool = False) -> Batch:
        filling = self.tokenizer.pad_token_id or 0
        return {"input_ids": pad(rows, filling, left=left), "attention_mask": ones_mask(rows, left=left)}

    def _visual(self, queries: Sequence[Query], augment: Augment | None = None) -> Batch:
        """Features of each distinct image where the queries carry them, pixels otherwise."""
        visuals, image_of = distinct(queries)
        pictures = [v for v in visuals if isinstance(v, np.ndarray)]
        batch = {"image_of": torch.tensor(image_of)}
        if not pictures:
            return batch | {"features": torch.stack([_tokens(v) for v in visuals])}
        if len(pictures) != len(visuals):
            raise ModelError("a batch mixes pictures and cached features; give one or the other")
        return batch | {"pixel_values": to_pixels(self.processor, augment_pictures(pictures, augment))["pixel_values"]}

    @torch.inference_mode()
    def answer(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:
        """An answer to each question: written greedily or by beams, or the likeliest of the training answers."""
        if not queries:
            return []
        self.module.eval()
        batch = self._visual(queries) | self._words(self._prompts(queries), left=not self.module.written_apart)
        batch = {key: value.to(self.device) for key, value in batch.items()}
        embeds, mask = self.module.embed(batch)
        if decoding.method == "rank":
            return self._ranked(queries, embeds, mask, decoding)
        language = self.module.base.language_model
        settings = generation_settings(language, decoding)
        out = language.generate(inputs_embeds=embeds, attention_mask=mask, generation_config=settings)
        found = read_generated(language, out, settings, self.tokenizer)
        return [prediction(q.id, written, decoding.alternatives) for q, written in zip(queries, found, strict=True)]

    def _ranked(self, queries: Sequence[Query], embeds: Tensor, mask: Tensor, decoding: Decoding) -> list[Prediction]:
        if self.module.written_apart:
            rows = self.tokenizer(text_target=list(self.candidates)).input_ids
            score: Callable[[Tensor, Tensor, Tensor], Tensor] = self._score_apart
            encoder = self.module.base.language_model.get_encoder()
            embeds = encoder(inputs_embeds=embeds, attention_mask=mask).last_hidden_state  # once for all candidates
        else:
            rows = [self._continuation(answer) for answer in self.candidates]
            score = self._score_continued
        labels = pad(rows, IGNORE).to(self.device)
        tokens = (labels != IGNORE).sum(1)
        return [
            ranked(query.id, self.candidates, score(embeds[i : i + 1], mask[i : i + 1], labels), tokens,
                   decoding.alternatives)
            for i, query in enumerate(queries)
        ]  # fmt: skip

    def _score_apart(self, encoded: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Log-likelihood (C,) of candidates under one encoded question (1, L, D)."""
        from transformers.modeling_outputs import BaseModelOutput  # noqa: PLC0415

        scores = []
        for rows in labels.split(RANK_ROWS):
            states = BaseModelOutput(last_hidden_state=encoded.expand(len(rows), -1, -1))
            out = self.module.base.language_model(
                encoder_outputs=states, attention_mask=mask.expand(len(rows), -1), labels=rows, use_cache=False
            )
            scores.append(log_likelihood(out.logits, rows))
        return torch.cat(scores)

    def _score_continued(self, embeds: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Log-likelihood (C,) of candidates after one embedded prompt (1, L, D), read once for `RANK_ROWS` of them."""
        language = self.module.base.language_model
        scores = []
        for rows in labels.split(RANK_ROWS):
            begun = language.model(inputs_embeds=embeds, attention_mask=mask, use_cache=True)
            first = language.lm_head(begun.last_hidden_state[:, -1:]).expand(len(rows), -1, -1)
            cache = begun.past_key_values
            cache.batch_repeat_interleave(len(rows))
            words = rows.clamp(min=0)[:, :-1]
            seen = torch.cat([mask.expand(len(rows), -1), (rows[:, :-1] != IGNORE).long()], 1)
            later = language(input_ids=words, attention_mask=seen, past_key_values=cache).logits
            scores.append(log_likelihood(torch.cat([first, later], 1), rows))
        return torch.cat(scores)

    def save(self, folder: Path) -> None:
        """Write the adapter as PEFT does, tokenizer and image processor, and which base they belong to."""
        save_adapter(self.module.adapted, folder, self.checkpoint)
        self.tokenizer.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        settings = {
            "checkpoint": self.checkpoint.name,
            "revision": self.checkpoint.revision,
            "digest": self.checkpoint.digest(),
            "upstream": list(self.upstream),
            "prompt": self.prompt,
            "answers": list(self.candidates),
            "features": self.vision.frozen,
        }
        (folder / _SETTINGS).write_text(json.dumps(settings, ensure_ascii=False, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, *, device: torch.device) -> Self:
        """Read back what `save` wrote and the base it names; raises `BundleError` when either does not fit."""
        from transformers import Blip2ForConditionalGeneration  # noqa: PLC0415

        def network(base: Checkpoint, dtype: Dtype, _: Any) -> Any:
            return load_network(Blip2ForConditionalGeneration, base.folder, base.name, dtype=DTYPES[dtype])

        settings, base, adapted, dtype = load_adapted(folder, _SETTINGS, network, device)
        model = cls(
            adapted=adapted,
            upstream=settings["upstream"],
            tokenizer=load_tokenizer(folder, f"the bundle {folder}"),
            processor=load_image_processor(folder, f"the bundle {folder}"),
            checkpoint=base,
            prompt=settings["prompt"],
            answers=settings["answers"],
            dtype=dtype,
            features=settings["features"],
        )
        model.module.to(device).eval()
        model.module.tower.to(device)
        return model

    def describe(self) -> dict[str, Any]:
        """Parameters, the base, and what of a picture is kept."""
        return {
            "parameters": self.total,
            "trainable": count_parameters(self.module, trainable=True),
            "checkpoint": self.checkpoint.name,
            "revision": self.checkpoint.revision,
            "kept": list(self.upstream),
            "precision": self.dtype,
        }


def _side(processor: Any) -> int:
    size = dict(processor.size)
    return int(size.get("height") or size.get("shortest_edge") or size.get("longest_edge") or 224)


def _tokens(visual: Visual) -> Tensor:
    if isinstance(visual, np.ndarray):
        raise ModelError("a batch mixes pictures and cached features; give one or the other")
    tokens: Tensor = visual["tokens"]
    return tokens
