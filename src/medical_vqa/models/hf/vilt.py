"""ViLT: words and picture patches in one transformer, a classifier over the training answers (Kim et al. 2021).

Nothing of it is frozen and the first layer already combines picture and words, so no features can be cached; the
questions of an image share its patch embedding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.errors import BundleError, MedicalVqaError, ModelError
from medical_vqa.models.augment import Augment, augment_pictures
from medical_vqa.models.base import Query, check_question, distinct, targets_of
from medical_vqa.models.fsdp import unsharded_state
from medical_vqa.models.hf.checkpoint import find_checkpoint
from medical_vqa.models.hf.families import ViltFamily
from medical_vqa.models.hf.loading import (
    explain_errors,
    library_versions,
    load_image_processor,
    load_network,
    load_tokenizer,
    to_pixels,
)
from medical_vqa.models.memory import LayerStack, MemoryEstimate, count_parameters, estimate_memory
from medical_vqa.models.vocabulary import AnswerVocabulary
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Example, Prediction

if TYPE_CHECKING:
    from medical_vqa.models.base import Batch, Visual

_SETTINGS = "vilt.json"
_LONGER_SIDE = 640
"""Longer side of a picture whose shorter side is 384 pixels, ViLT's limit."""
_MAX_SIDE = 1333
"""ViLT's limit on the longer side, pixels, before it resizes to a shorter side of 384."""


class ViltNet(nn.Module):
    """`ViltForQuestionAnswering` whose pictures are embedded once for all questions about them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """Binary cross entropy summed over questions and answers, in nats: the loss ViLT was fine-tuned with."""
        logits = self.logits(batch).float()
        targets = F.one_hot(batch["target"], logits.shape[1]).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")

    def logits(self, batch: Batch) -> Tensor:
        """pixel_values (B, 3, H, W), pixel_mask (B, H, W), image_of (N,), input_ids (N, L) -> (N, answers)."""
        embeddings = self.model.vilt.embeddings
        patches, mask, _ = embeddings.visual_embed(
            batch["pixel_values"], batch["pixel_mask"], max_image_length=self.model.config.max_image_length
        )
        out: Tensor = self.model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            image_embeds=patches[batch["image_of"]],  # (N, patches, D)
            pixel_mask=mask[batch["image_of"]],  # (N, patches): already one value per patch
        ).logits
        return out


class Vilt(ViltFamily):
    """The network with its tokenizer, image processor and answers."""

    vision = None

    def __init__(
        self, *, model: Any, tokenizer: Any, processor: Any, answers: AnswerVocabulary, augment: Augment | None = None
    ) -> None:
        self.module = ViltNet(model)
        self.tokenizer = tokenizer
        self.processor = processor
        self.answers = answers
        self.augment = augment
        self.picture = PictureSpec(side=_MAX_SIDE, mode="RGB", fit="inside")

    @classmethod
    def build(
        cls,
        examples: Sequence[Example],
        *,
        checkpoint: str,
        revision: str | None = None,
        augment: Mapping[str, float] | None = None,
        gradient_checkpointing: bool = False,
    ) -> Self:
        """A published ViLT with a fresh head over the answers of these rows; raises `ModelError`."""
        from transformers import ViltForQuestionAnswering  # noqa: PLC0415 - hub_files says how to install it

        answers = AnswerVocabulary.from_answers(e.answers[0] for e in examples if e.answers)
        source = find_checkpoint(checkpoint, revision)
        model = load_network(
            ViltForQuestionAnswering, source.folder, checkpoint, new_parameters="classifier.", **head_config(answers)
        )
        if gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        return cls(
            model=model,
            tokenizer=load_tokenizer(source.folder, checkpoint),
            processor=load_image_processor(source.folder, checkpoint),
            answers=answers,
            augment=Augment(**augment) if augment else None,
        )

    @classmethod
    def memory_estimate(
        cls, examples: Sequence[Example], *, checkpoint: str, revision: str | None = None, **_: Any
    ) -> MemoryEstimate:
        """Parameter counts of what `build` returns, from the checkpoint's configuration alone."""
        from transformers import AutoConfig, ViltForQuestionAnswering  # noqa: PLC0415

        source = find_checkpoint(checkpoint, revision, weights=False)
        answers = AnswerVocabulary.from_answers(e.answers[0] for e in examples if e.answers)
        with explain_errors(f"the configuration of {checkpoint}"), torch.device("meta"):
            config = AutoConfig.from_pretrained(source.folder, **head_config(answers))
            net = ViltNet(ViltForQuestionAnswering(config))
        patches = (config.image_size // config.patch_size) * (_LONGER_SIDE // config.patch_size)
        stack = LayerStack(config.num_hidden_layers, config.hidden_size, config.max_position_embeddings + patches)
        return estimate_memory(net, stacks=(stack,), stand_in=checkpoint if source.shipped else None)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        device: torch.device = self.module.model.device
        return device

    def collate(self, queries: Sequence[Query]) -> Batch:
        """Input of `ViltNet.forward`, with target (N,) and supervised ()."""
        targets = [self.answers.index(target) for target in targets_of(queries)]
        return self._inputs(queries, self.augment) | {
            "target": torch.tensor(targets),
            "supervised": torch.tensor(len(targets)),
        }

    def _inputs(self, queries: Sequence[Query], augment: Augment | None = None) -> Batch:
        visuals, image_of = distinct(queries)
        pixels = to_pixels(self.processor, augment_pictures([_require_picture(v) for v in visuals], augment))
        text = self.tokenizer(
            [check_question(query.question) for query in queries],
            padding=True,
            truncation=True,
            max_length=self.module.model.config.max_position_embeddings,
            return_tensors="pt",
        )
        words = {key: text[key] for key in ("input_ids", "attention_mask")}
        return {**words, **pixels, "image_of": torch.tensor(image_of)}

    def question_reason(self, question: str) -> str | None:
        """That a question has more tokens than are read: the rest is cut off."""
        most = self.module.model.config.max_position_embeddings
        tokens = len(self.tokenizer(question.strip()).input_ids)
        if tokens <= most:
            return None
        return f"The question has {tokens} tokens, of which this model reads the first {most}. Shorten it."

    def abstention_reason(self, query: Query, prediction: Prediction) -> str | None:
        """As in `ModelFamily`, and `question_reason`."""
        return self.question_reason(query.question) or super().abstention_reason(query, prediction)

    @torch.inference_mode()
    def answer(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:
        """The most probable training answer to each question, with its probability."""
        if not queries:
            return []
        self.module.eval()
        batch = {key: value.to(self.device) for key, value in self._inputs(queries).items()}
        best = self.module.logits(batch).float().sigmoid().topk(min(decoding.alternatives + 1, len(self.answers)))
        predictions = []
        for query, indices, values in zip(queries, best.indices.tolist(), best.values.tolist(), strict=True):
            ranked = [(self.answers.answers[index], value) for index, value in zip(indices, values, strict=True)]
            (answer, confidence), *others = ranked
            predictions.append(Prediction(query.id, answer, answer, confidence, tuple(others)))
        return predictions

    def save(self, folder: Path) -> None:
        """Write what ``ViltForQuestionAnswering.from_pretrained`` and ``ViltProcessor`` read, and the answers."""
        self.module.model.save_pretrained(folder, state_dict=unsharded_state(self.module.model))
        self.tokenizer.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        answers = json.dumps({"answers": list(self.answers.answers)}, ensure_ascii=False, indent=1)
        (folder / _SETTINGS).write_text(answers, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, *, device: torch.device) -> Self:
        """Read back what `save` wrote; raises `BundleError` when a file is damaged or does not fit."""
        from transformers import ViltForQuestionAnswering  # noqa: PLC0415

        try:
            settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
            model = cls(
                model=load_network(ViltForQuestionAnswering, folder, str(folder)),
                tokenizer=load_tokenizer(folder, "it"),
                processor=load_image_processor(folder, "it"),
                answers=AnswerVocabulary(tuple(settings["answers"])),
            )
        except (OSError, ValueError, KeyError, TypeError, MedicalVqaError) as error:
            raise BundleError(f"the bundle {folder} is damaged ({error}); train or copy it again") from error
        model.module.to(device).eval()
        return model

    def describe(self) -> dict[str, Any]:
        """Parameters and answers."""
        return {
            "parameters": count_parameters(self.module),
            "trainable": count_parameters(self.module, trainable=True),
            "answers": len(self.answers),
            "libraries": library_versions(),
        }


def head_config(answers: AnswerVocabulary) -> dict[str, Any]:
    """Configuration keys that set the size of the classification head and name its classes."""
    return {
        "num_labels": len(answers),
        "id2label": dict(enumerate(answers.answers)),
        "label2id": {answer: index for index, answer in enumerate(answers.answers)},
    }


def _require_picture(visual: Visual) -> NDArray[np.uint8]:
    if not isinstance(visual, np.ndarray):
        raise ModelError("ViLT trains its vision modules and needs pictures, but got cached features; pass the picture")
    return visual
