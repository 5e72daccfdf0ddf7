"""Chat models that see: any ``AutoModelForImageTextToText`` with a chat template, with LoRA, DoRA or 4-bit QLoRA.

Adapters go into the language model; what the vision part and its projector make of a picture is kept per image and
handed back as ``mm_encoder_outputs``, the seam that transformers has for it. The loss is taken on the answer alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medical_vqa.data.imaging.pictures import PictureSpec
from medical_vqa.errors import ConfigError, MissingDependencyError
from medical_vqa.models.augment import Augment, augment_pictures
from medical_vqa.models.base import Query, check_question, distinct, targets_of
from medical_vqa.models.hf.chat_network import BESIDE_LANGUAGE, ChatNet, Upstream, adapt, frozen_parts, language_weights
from medical_vqa.models.hf.chat_processor import ChatFormat, load_processor, save_processor
from medical_vqa.models.hf.checkpoint import Checkpoint, find_checkpoint
from medical_vqa.models.hf.families import ChatFamily
from medical_vqa.models.hf.generation import (
    IGNORE,
    check_prompt,
    fingerprint_of,
    generation_settings,
    log_likelihood,
    ones_mask,
    pad,
    prediction,
    ranked,
    read_generated,
)
from medical_vqa.models.hf.loading import DTYPES, Dtype, load_network, reading
from medical_vqa.models.hf.peft_io import load_adapted, save_adapter
from medical_vqa.models.memory import MemoryEstimate, count_parameters, estimate_memory, language_model_stacks
from medical_vqa.models.vocabulary import AnswerVocabulary
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Example, Prediction

if TYPE_CHECKING:
    from medical_vqa.models.base import Batch, Visual

_SETTINGS = "chat.json"
_PIXELS_PER_TOKEN = 28  # side of the square that Qwen's models make one token of; others are near it
_RANK_ROWS = 32  # candidates scored at once: each is a whole sequence, image tokens included


class ChatVision:
    """The vision part with its processor, as what fills a feature store."""

    def __init__(self, model: ChatVlm, fingerprint: str, *, frozen: bool) -> None:
        self._model, self.fingerprint, self.frozen = model, fingerprint, frozen
        self._device = torch.device("cpu")

    @torch.inference_mode()
    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Mapping[str, Tensor]]:
        """Features and prompt head of each picture; one at a time, because pictures differ in size."""
        upstream = self._model.module.upstream
        encoded: list[Mapping[str, Tensor]] = []
        for picture in pictures:
            made = self._model.format.image(picture)
            encoded.append(upstream.encode(made.pixels, self._device) | _apart(made))
        return encoded

    def to(self, device: torch.device) -> None:
        """Move the vision part."""
        self._device = device
        self._model.module.upstream.to(device)


class ChatVlm(ChatFamily):
    """The network with its processor and prompt."""

    prompt: str

    def __init__(
        self,
        *,
        adapted: Any,
        processor: Any,
        checkpoint: Checkpoint,
        prompt: str,
        answers: Sequence[str],
        dtype: Dtype,
        side: int,
        features: bool = True,
        four_bit: bool = False,
        augment: Augment | None = None,
    ) -> None:
        self.processor, self.checkpoint, self.prompt = processor, checkpoint, check_prompt(prompt)
        self.candidates, self.dtype, self.four_bit, self.augment = tuple(answers), dtype, four_bit, augment
        self.total = count_parameters(adapted)
        self.module = ChatNet(adapted, Upstream(adapted.get_base_model().model))
        self.format = ChatFormat(processor, prompt, _end_tokens(adapted.get_base_model(), processor.tokenizer))
        self.picture = PictureSpec(side=side, mode="RGB", fit="inside")
        self.vision = ChatVision(self, self._fingerprint(), frozen=features)

    def _fingerprint(self) -> str:
        images = self.processor.image_processor
        return fingerprint_of(self.checkpoint.digest(), images, self.dtype, self.picture.key, self.prompt)

    @classmethod
    def build(
        cls,
        examples: Sequence[Example],
        *,
        checkpoint: str,
        lora: Mapping[str, Any],
        prompt: str,
        side: int,
        revision: str | None = None,
        features: bool = True,
        four_bit: bool = False,
        augment: Mapping[str, float] | None = None,
        gradient_checkpointing: bool = False,
        dtype: Dtype = "fp32",
    ) -> Self:
        """A published chat model with fresh adapters; raises `ModelError`."""
        found = find_checkpoint(checkpoint, revision)
        chat = cls(
            adapted=adapt(load_base(found, dtype, four_bit=four_bit), lora),
            processor=load_processor(found.folder, checkpoint),
            checkpoint=found,
            prompt=prompt,
            answers=AnswerVocabulary.from_answers(e.answers[0] for e in examples if e.answers).answers,
            dtype=dtype,
            side=side,
            features=features,
            four_bit=four_bit,
            augment=Augment(**augment) if augment else None,
        )
        if gradient_checkpointing:
            chat.module.base.activation_checkpointing_enable({"use_reentrant": False})
        return chat

    @classmethod
    def memory_estimate(
        cls,
        examples: Sequence[Example],  # noqa: ARG003 - a classifier needs its answers
        *,
        checkpoint: str,
        lora: Mapping[str, Any],
        side: int,
        revision: str | None = None,
        four_bit: bool = False,
        **_: Any,
    ) -> MemoryEstimate:
        """What this would be, counted without its weights."""
        from transformers import AutoConfig, AutoModelForImageTextToText  # noqa: PLC0415

        found = find_checkpoint(checkpoint, revision, weights=False)
        with reading(f"the configuration of {checkpoint}"), torch.device("meta"):
            config = AutoConfig.from_pretrained(found.folder)
            base = adapt(AutoModelForImageTextToText.from_config(config), lora).get_base_model()
        stacks = language_model_stacks(config.get_text_config(), image_tokens=(side // _PIXELS_PER_TOKEN) ** 2)
        quantized = language_weights(base) if four_bit else 0
        return estimate_memory(base, vision_encoder=frozen_parts(base), stacks=stacks, quantized=quantized)

    @property
    def device(self) -> torch.device:
        """Where the language model is."""
        device: torch.device = self.module.base.get_input_embeddings().weight.device
        return device

    def collate(self, queries: Sequence[Query]) -> Batch:
        """What `ChatNet.forward` takes, with labels (N, A) and supervised (), the number of answer tokens."""
        answers = [self.format.answer(target) for target in targets_of(queries)]
        batch = self._asked(queries, self.augment)
        return self.answered(batch, answers)

    def answered(self, batch: Batch, answers: Sequence[Sequence[int]]) -> Batch:
        """The batch with answers behind its prompts: one row for each answer."""
        labels = pad(answers, IGNORE)
        rows = {
            "row.input_ids": pad(answers, self._filling),
            "row.attention_mask": ones_mask(answers),
            "row.token_type_ids": torch.full_like(labels, int(self._model_type == "paligemma")),
        }
        fresh = {
            key: torch.cat([value, rows.get(key, torch.zeros_like(labels))], 1) if _per_token(key) else value
            for key, value in batch.items()
        }
        return fresh | {"labels": labels, "supervised": (labels != IGNORE).sum()}

    @property
    def _model_type(self) -> str:
        return str(self.module.base.config.model_type)

    @property
    def _filling(self) -> int:
        return int(self.processor.tokenizer.pad_token_id or 0)

    def _asked(self, queries: Sequence[Query], augment: Augment | None = None) -> Batch:
        """Prompts, filled up in front, and the features or the pixels of each distinct image."""
        visuals, image_of = distinct(queries)
        seen = [self._seen(visual, augment) for visual in visuals]
        tails = [self.format.tail(check_question(query.question)) for query in queries]
        rows = [[*seen[i]["head"].tolist(), *tail] for i, tail in zip(image_of, tails, strict=True)]
        batch = {
            "image_of": torch.tensor(image_of),
            "row.input_ids": pad(rows, self._filling, left=True),
            "row.attention_mask": ones_mask(rows, left=True),
        }
        for name in (key for key in seen[0] if key.startswith("type.")):
            values = [[*seen[i][name].tolist(), *[0] * len(t)] for i, t in zip(image_of, tails, strict=True)]
            batch[f"row.{name.removeprefix('type.')}"] = pad(values, 0, left=True)
        for name in (key for key in seen[0] if key.startswith("side.")):
            batch[f"row.{name.removeprefix('side.')}"] = torch.cat([seen[i][name] for i in image_of])
        for place, one in enumerate(seen):
            batch |= {f"features.{place}.{key}": one[key] for key in ("tokens", "deep") if key in one}
            batch |= {f"picture.{place}.{k[7:]}": v for k, v in one.items() if k.startswith("pixels.")}
        return batch

    def _seen(self, visual: Visual, augment: Augment | None) -> Mapping[str, Tensor]:
        """Features with their prompt head where they are given, pixels with theirs otherwise."""
        if not isinstance(visual, np.ndarray):
            return visual
        made = self.format.image(augment_pictures([visual], augment)[0])
        return _apart(made) | {f"pixels.{k}": v for k, v in made.pixels.items()}

    @torch.inference_mode()
    def answer(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:
        """An answer to each question: written greedily or by beams, or the likeliest of the training answers."""
        if not queries:
            return []
        self.module.eval()
        if decoding.method == "rank":
            return [self._ranked(query, decoding) for query in queries]
        batch = {key: value.to(self.device) for key, value in self._asked(queries).items()}
        settings = generation_settings(self.module.base, decoding)
        out = self.module.base.generate(**self.module.inputs(batch), generation_config=settings)
        found = read_generated(self.module.base, out, settings, self.processor.tokenizer)
        return [prediction(q.id, written, decoding.alternatives) for q, written in zip(queries, found, strict=True)]

    def _ranked(self, query: Query, decoding: Decoding) -> Prediction:
        answers = [self.format.answer(candidate) for candidate in self.candidates]
        visual = query.visual if not isinstance(query.visual, np.ndarray) else self.vision.encode([query.visual])[0]
        seen = Query(query.id, query.question, query.image, visual)
        scores = []
        for start in range(0, len(answers), _RANK_ROWS):
            some = answers[start : start + _RANK_ROWS]
            batch = self.answered(self._asked([seen] * len(some)), some)
            logits, labels = self.module.answer_logits({key: value.to(self.device) for key, value in batch.items()})
            scores.append(log_likelihood(logits, labels))
        tokens = torch.tensor([len(answer) for answer in answers], device=self.device)
        return ranked(query.id, self.candidates, torch.cat(scores), tokens, decoding.alternatives)

    def save(self, folder: Path) -> None:
        """Write the adapter as PEFT does, the processor, and which base they belong to."""
        save_adapter(self.module.adapted, folder, self.checkpoint)
        save_processor(self.processor, folder)
        settings = {
            "checkpoint": self.checkpoint.name,
            "revision": self.checkpoint.revision,
            "digest": self.checkpoint.digest(),
            "prompt": self.prompt,
            "answers": list(self.candidates),
            "features": self.vision.frozen,
            "four_bit": self.four_bit,
            "side": self.picture.side,
        }
        (folder / _SETTINGS).write_text(json.dumps(settings, ensure_ascii=False, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, *, device: torch.device) -> Self:
        """Read back what `save` wrote and the base it names; raises `BundleError` when either does not fit."""

        def network(base: Checkpoint, dtype: Dtype, settings: dict[str, Any]) -> Any:
            return load_base(base, dtype, four_bit=settings["four_bit"])

        settings, base, adapted, dtype = load_adapted(folder, _SETTINGS, network, device)
        model = cls(
            adapted=adapted,
            processor=load_processor(folder, f"the bundle {folder}"),
            checkpoint=base,
            prompt=settings["prompt"],
            answers=settings["answers"],
            dtype=dtype,
            side=settings["side"],
            features=settings["features"],
            four_bit=settings["four_bit"],
        )
        model.module.to(device).eval()
        model.vision.to(device)
        return model

    def describe(self) -> dict[str, Any]:
        """Parameters and the base."""
        return {
            "parameters": self.total,
            "trainable": count_parameters(self.module, trainable=True),
            "checkpoint": self.checkpoint.name,
            "revision": self.checkpoint.revision,
            "precision": "nf4" if self.four_bit else self.dtype,
        }


def load_base(found: Checkpoint, dtype: Dtype, *, four_bit: bool) -> Any:
    """The frozen network, its language model in 4 bits (NF4, Dettmers et al. 2023) where asked; raises `ModelError`."""
    from transformers import AutoModelForImageTextToText  # noqa: PLC0415 - hub_files says how to install it

    settings: dict[str, Any] = {"dtype": DTYPES[dtype]}
    if four_bit:
        settings["quantization_config"] = _four_bits(DTYPES[dtype])
    return load_network(AutoModelForImageTextToText, found.folder, found.name, **settings)


def _four_bits(dtype: torch.dtype) -> Any:
    from importlib.util import find_spec  # noqa: PLC0415

    from transformers import BitsAndBytesConfig  # noqa: PLC0415

    if find_spec("bitsandbytes") is None:
        raise MissingDependencyError(
            "4-bit weights need bitsandbytes, which is not installed; run: pip install 'medical-vqa[train,hub,qlora]'"
        )
    if not torch.cuda.is_available():
        raise ConfigError(
            "model.four_bit needs an NVIDIA GPU and none is visible; set model.four_bit: false, or train where there "
            "is one"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=[BESIDE_LANGUAGE],
    )


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    own = model.generation_config.eos_token_id
    listed = own if isinstance(own, list) else [own]
    return {token for token in (*listed, tokenizer.eos_token_id) if token is not None}


def _apart(made: Any) -> dict[str, Tensor]:
    """What is kept beside an image's features: its prompt head, token kinds, and sizes that positions need."""
    sides = {f"side.{key}": value for key, value in made.pixels.items() if key.endswith("_thw")}
    return {"head": made.head} | {f"type.{key}": value for key, value in made.types.items()} | sides


def _per_token(key: str) -> bool:
    return key.startswith("row.") and not key.endswith("_thw")
