"""Vision-language chat models: any ``AutoModelForImageTextToText`` with a chat template; LoRA, DoRA or 4-bit QLoRA.

Adapters go into the language model. The output of the vision modules and their projector is cached per image and passed
to the network as ``mm_encoder_outputs``, an input that transformers has for it. The loss is taken on the answer alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.errors import ModelError
from medical_vqa.models.augment import Augment, augment_pictures
from medical_vqa.models.base import Query, check_question, distinct_pictures, targets_of
from medical_vqa.models.hf import chat_network
from medical_vqa.models.hf.adapter_model import AdapterModel, AdapterSettings
from medical_vqa.models.hf.chat_network import ChatNet, ChatVisionEncoder, VisionParts
from medical_vqa.models.hf.chat_processor import (
    MAX_CHARACTERS,
    ChatFormat,
    ImageInputs,
    load_processor,
    shipped_image_tokens,
    stop_splitting,
)
from medical_vqa.models.hf.checkpoint import Checkpoint
from medical_vqa.models.hf.families import ChatFamily
from medical_vqa.models.hf.generation import (
    IGNORED_LABEL,
    attention_mask,
    fingerprint_of,
    log_likelihood,
    pad,
    rank_candidates,
)
from medical_vqa.models.hf.loading import Dtype, count_language_weights, load_network, loading_arguments
from medical_vqa.models.memory import PROMPT_TOKENS
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Example, Prediction

if TYPE_CHECKING:
    from medical_vqa.models.base import Batch, Features, Visual

_LETTERS = 4
"""Characters of a token, on average."""
_RANK_ROWS = 32
"""Candidate answers that are scored at once; each is a whole sequence, image tokens included."""
_FEATURES = ("tokens", "deepstack", "tower", "input")
"""What the names of an image's features in `ChatVisionEncoder.encode` begin with."""
_MOST_PICTURES, _MOST_TURNS = 8, 8
"""Of a question that a person asks; prepared rows may have more."""
_FEATURES_VERSION = 3
"""Part of the fingerprint; changes with the names of the cached features."""


class ChatVision:
    """The vision modules with the processor, as the feature cache uses them."""

    def __init__(self, encoder: ChatVisionEncoder, chat_format: ChatFormat, settings: str, *, frozen: bool) -> None:
        self.frozen = frozen
        self._settings = settings
        self._encoder = encoder
        self._format = chat_format
        self._device = torch.device("cpu")

    @property
    def fingerprint(self) -> str:
        """SHA-256 over checkpoint and settings, and over the trained weights where the vision encoder has such."""
        return self._settings if self._encoder.frozen else self._encoder.trained_digest(self._settings)

    @torch.no_grad()  # not inference mode, whose tensors no module can be trained on
    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Mapping[str, Tensor]]:
        """Features and prompt prefix of each picture; one at a time, because pictures differ in size."""
        encoded: list[Mapping[str, Tensor]] = []
        device = self._device if self._encoder.frozen else self._encoder.weight.device
        for picture in pictures:
            inputs = self._format.image(picture)
            encoded.append(self._encoder.encode(inputs.pixels, device) | _prefix_features(inputs))
        return encoded

    def to(self, device: torch.device) -> None:
        """Move the vision modules."""
        self._device = device
        self._encoder.to(device)


class ChatVlm(AdapterModel, ChatFamily):
    """The network with its processor and prompt."""

    settings_file = "chat.json"
    own_options = ("side", "four_bit", "splitting")
    module: ChatNet
    prompt: str
    adapt = staticmethod(chat_network.adapt)
    language_modules = staticmethod(chat_network.language_modules)
    load_processor = staticmethod(load_processor)

    def __init__(
        self,
        peft_model: Any,
        cached_modules: Sequence[str],
        processor: Any,
        settings: AdapterSettings,
        *,
        side: int,
        four_bit: bool = False,
        splitting: bool = True,
    ) -> None:
        """Take the vision modules out of the network; the first arguments are those of `AdapterModel`.

        Args:
            side: Longest side of a picture, pixels.
            four_bit: Whether the frozen weights are quantized.
            splitting: Whether a model that divides pictures into tiles does so.
        """
        super().__init__(peft_model, cached_modules, processor, settings)
        self.side = side
        self.four_bit = four_bit
        self.splitting = splitting
        network = peft_model.get_base_model()
        if not splitting:
            stop_splitting(processor, network.config)
        encoder = ChatVisionEncoder(network.model, [name.removeprefix("model.") for name in cached_modules])
        self.module = ChatNet(peft_model, encoder)
        self.picture = PictureSpec(side=side, mode="RGB", fit="inside")
        self.format = ChatFormat(processor, settings.prompt, self.end_tokens, splitting=splitting)
        fingerprint = fingerprint_of(
            settings.checkpoint.digest(),
            processor.image_processor,
            settings.dtype,
            self.picture.key,
            settings.prompt,
            settings.checkpoint.processor_digest(),
            splitting,
            list(cached_modules),
            _FEATURES_VERSION,
        )
        self.vision = ChatVision(encoder, self.format, fingerprint, frozen=settings.features and encoder.frozen)

    @cached_property
    def max_pictures(self) -> int:
        """Several where the template writes them and each is computed as it is alone."""
        return _MOST_PICTURES if not self._one_picture and self.format.takes(pictures=2) else 1

    @cached_property
    def max_turns(self) -> int:
        """Several where the template writes earlier turns."""
        return _MOST_TURNS if self.format.takes(turns=(("What is this?", "CT"),)) else 0

    @cached_property
    def reads_system(self) -> bool:
        """Whether the template writes a system message."""
        return self.format.takes(system="Be short.")

    @classmethod
    def load_network(cls, checkpoint: Checkpoint, dtype: Dtype, options: Mapping[str, Any]) -> Any:
        """The published network, its language model in 4 bits (NF4, Dettmers et al. 2023) with ``four_bit``."""
        from transformers import AutoModelForImageTextToText  # noqa: PLC0415 - slow to import

        arguments = loading_arguments(dtype, options)
        return load_network(AutoModelForImageTextToText, checkpoint.folder, checkpoint.name, **arguments)

    @classmethod
    def empty_network(cls, config: Any) -> Any:
        """The network of a configuration."""
        from transformers import AutoModelForImageTextToText  # noqa: PLC0415 - slow to import

        return AutoModelForImageTextToText.from_config(config)

    @classmethod
    def vision_parts(cls, network: Any) -> tuple[Sequence[str], Sequence[str]]:
        """The vision encoder, and the projector behind it, by the type of the network."""
        parts = VisionParts.of(network.model)
        return parts.prefixed(parts.tower), parts.prefixed(parts.projector)

    @classmethod
    def vision_tokens(cls, checkpoint: Checkpoint, config: Any, options: Mapping[str, Any]) -> int:
        """The patches of one black square picture, its largest size."""
        vision = config.vision_config
        if checkpoint.shipped:
            return shipped_image_tokens(checkpoint, options["side"]) * int(vision.spatial_merge_size) ** 2
        size = vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
        values = cls._black_picture(checkpoint, config, options).pixels["pixel_values"].numel()
        return int(values // (3 * size**2 * getattr(vision, "temporal_patch_size", 1)))

    @classmethod
    def image_tokens(cls, checkpoint: Checkpoint, config: Any, options: Mapping[str, Any]) -> int:
        """The processor's tokens of one black square picture, its largest size."""
        if checkpoint.shipped:
            return shipped_image_tokens(checkpoint, options["side"])
        return len(cls._black_picture(checkpoint, config, options).prefix)

    @classmethod
    def longest_row(cls, examples: Sequence[Example]) -> tuple[int, int]:
        """Pictures of the longest row, and about how many tokens of words precede its last question."""
        sizes = [
            (len(row.images), sum(len(turn.question) + len(turn.answer) for turn in row.turns) + len(row.system), row)
            for row in examples
            if row.other_image_ids or row.turns or row.system
        ]
        pictures = max((pictures for pictures, *_ in sizes), default=1)
        words = max((letters // _LETTERS + PROMPT_TOKENS * len(row.turns) for _, letters, row in sizes), default=0)
        return pictures, words

    @staticmethod
    def _black_picture(checkpoint: Checkpoint, config: Any, options: Mapping[str, Any]) -> ImageInputs:
        processor = load_processor(checkpoint.folder, checkpoint.name, config)
        splitting = options.get("splitting", True)
        if not splitting:
            stop_splitting(processor, config)
        picture = np.zeros((options["side"], options["side"], 3), np.uint8)
        return ChatFormat(processor, "{question}", (), splitting=splitting).image(picture)

    @staticmethod
    def quantized_parameters(network: Any, options: Mapping[str, Any]) -> int:
        """The matrices of the language model, with ``four_bit``."""
        return count_language_weights(network) if options.get("four_bit") else 0

    def collate(self, queries: Sequence[Query]) -> Batch:
        """Input of `ChatNet.forward`, with labels (N, A) and supervised (), the number of answer tokens."""
        answers = [self.format.answer(target) for target in targets_of(queries)]
        self.refuse_stale_features(queries)
        return self._with_answers(queries, self._prompts(queries, self.settings.augment), answers)

    def _prompts(self, queries: Sequence[Query], augment: Augment | None = None) -> Batch:
        """Left-padded prompts, and the features or pixels of each image.

        Keys: ``image_of`` (M,), the image of each picture of the rows in order; ``row.NAME`` are inputs of the network,
        ``features.IMAGE.NAME`` cached features, and ``pixels.IMAGE.NAME`` inputs of the vision encoder.
        """
        pictures = [query.pictures for query in queries]
        visuals, image_of = distinct_pictures([picture for own in pictures for picture in own])
        if self._one_picture and len(image_of) > len(queries):
            raise ModelError(
                f"{self.settings.checkpoint.name} computes a picture among several in another way than one alone, "
                "which cannot be cached; use another checkpoint for rows with several images, or leave them out"
            )
        images = [self._image_inputs(visual, augment) for visual in visuals]
        places = iter(image_of)
        of_rows = [[images[next(places)] for _ in own] for own in pictures]
        rows = [self._row(query, own) for query, own in zip(queries, of_rows, strict=True)]
        batch = {
            "image_of": torch.tensor(image_of),
            "row.input_ids": pad(rows, self._padding, left=True),
            "row.attention_mask": attention_mask(rows, left=True),
        }
        for key in images[0]:
            kind, _, name = key.partition(".")
            if kind == "token":  # a value of each token; 0 for words
                values = [
                    _token_values(query, ids, own, key) for query, ids, own in zip(queries, rows, of_rows, strict=True)
                ]
                batch[f"row.{name}"] = pad(values, 0, left=True)
            elif kind == "grid":
                batch[f"row.{name}"] = torch.cat([images[image][key] for image in image_of])
        for number, inputs in enumerate(images):
            features = {key: value for key, value in inputs.items() if key.partition(".")[0] in _FEATURES}
            batch |= {f"features.{number}.{name}": value for name, value in features.items()}
            pixels = {key.removeprefix("pixels."): value for key, value in inputs.items() if key.startswith("pixels.")}
            batch |= {f"pixels.{number}.{name}": value for name, value in pixels.items()}
        return batch

    def _row(self, query: Query, images: Sequence[Features]) -> list[int]:
        """Token ids of a prompt; `images` are the inputs of its pictures."""
        if query.is_single:
            suffix = self.format.suffix(check_question(query.question, MAX_CHARACTERS))
            return [*images[0]["prefix"].tolist(), *suffix]
        return self.format.conversation(query, [image["block"].tolist() for image in images])

    @property
    def _one_picture(self) -> bool:
        """Whether the network treats the pictures of a question by their number (LLaVA-OneVision's tiles)."""
        network = self.module.base.model
        return "batch_num_images" in inspect.signature(network.get_image_features).parameters

    def _image_inputs(self, visual: Visual, augment: Augment | None) -> Features:
        """Features with their prompt prefix where they are given, pixels with theirs otherwise."""
        if not isinstance(visual, np.ndarray):
            return visual
        inputs = self.format.image(augment_pictures([visual], augment)[0])
        return _prefix_features(inputs) | {f"pixels.{name}": value for name, value in inputs.pixels.items()}

    def _with_answers(self, queries: Sequence[Query], prompts: Batch, answers: Sequence[Sequence[int]]) -> Batch:
        """The prompts of queries continued by answers, one for each row."""
        lengths = prompts["row.attention_mask"].sum(1).tolist()
        for query, length, answer in zip(queries, lengths, answers, strict=True):
            self.check_length(query, length, len(answer))
        labels = pad(answers, IGNORED_LABEL)
        is_paligemma = self.module.base.config.model_type == "paligemma"
        continuations = {
            "row.input_ids": pad(answers, self._padding),
            "row.attention_mask": attention_mask(answers),
            "row.token_type_ids": torch.full_like(labels, int(is_paligemma)),
        }
        batch = dict(prompts)
        for key, value in prompts.items():
            if key.startswith("row.") and not key.endswith("_thw"):  # a value of each token
                batch[key] = torch.cat([value, continuations.get(key, torch.zeros_like(labels))], 1)
        return batch | {"labels": labels, "supervised": (labels != IGNORED_LABEL).sum()}

    @property
    def _padding(self) -> int:
        return int(self.tokenizer.pad_token_id or 0)

    def generation_inputs(self, queries: Sequence[Query]) -> tuple[Any, dict[str, Any]]:
        """The network, and prompts with the features of their images."""
        return self.module.base, self.module.inputs(self.to_device(self._prompts(queries)))

    def rank(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:
        """The most likely training answers to each question."""
        return [self._rank_one(query, decoding) for query in queries]

    def _rank_one(self, query: Query, decoding: Decoding) -> Prediction:
        candidates = self.settings.answers
        answers = [self.format.answer(candidate) for candidate in candidates]
        first, *others = [
            self.vision.encode([visual])[0] if isinstance(visual, np.ndarray) else visual
            for _, visual in query.pictures
        ]
        encoded = replace(query, visual=first, other_visuals=tuple(others))
        scores = []
        for start in range(0, len(answers), _RANK_ROWS):
            part = answers[start : start + _RANK_ROWS]
            rows = [encoded] * len(part)
            batch = self._with_answers(rows, self._prompts(rows), part)
            logits, labels = self.module.answer_logits(self.to_device(batch))
            scores.append(log_likelihood(logits, labels))
        tokens = torch.tensor([len(answer) for answer in answers], device=self.device)
        return rank_candidates(query.id, candidates, torch.cat(scores), tokens, decoding.alternatives)

    def describe(self) -> dict[str, Any]:
        """Parameters, checkpoint and precision; ``nf4`` where the frozen weights are quantized."""
        return super().describe() | ({"precision": "nf4"} if self.four_bit else {})


def _prefix_features(inputs: ImageInputs) -> dict[str, Tensor]:
    """What is cached with an image's features: its prompt prefix, token types, and sizes that positions depend on."""
    types = {f"token.{name}": value for name, value in inputs.types.items()}
    grids = {f"grid.{name}": value for name, value in inputs.pixels.items() if name.endswith("_thw")}
    return {"prefix": inputs.prefix, "block": inputs.block, **types, **grids}


def _token_values(query: Query, ids: Sequence[int], images: Sequence[Features], key: str) -> list[int]:
    """A value of each token of a row, such as whether it belongs to an image; 0 for words."""
    prefix, values = images[0]["prefix"].tolist(), images[0][key].tolist()
    if query.is_single:
        return [*values, *[0] * (len(ids) - len(values))]
    of_token = {id_: value for id_, value in zip(prefix, values, strict=True) if value}
    return [of_token.get(id_, 0) for id_ in ids]
