"""What a family with adapters says about its published network, before there is a model: loading, parts, and memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from medical_vqa.models.hf.checkpoint import Checkpoint, find_checkpoint
from medical_vqa.models.hf.loading import Dtype, explain_errors, fp16_problem, read_config
from medical_vqa.models.memory import MemoryEstimate, estimate_memory, language_model_stacks, vision_stack
from medical_vqa.schema.records import Example


class PublishedNetwork(ABC):
    """How a family loads and adapts its network, the names and sizes of the parts, and the memory that they need."""

    @classmethod
    @abstractmethod
    def load_network(cls, checkpoint: Checkpoint, dtype: Dtype, options: Mapping[str, Any]) -> Any:
        """The published network with its weights, on the CPU; raises `ModelError`."""

    @classmethod
    @abstractmethod
    def empty_network(cls, config: Any) -> Any:
        """The network of a transformers configuration; called on the meta device."""

    @staticmethod
    @abstractmethod
    def adapt(network: Any, lora: Mapping[str, Any], initial: Path | None = None) -> tuple[Any, tuple[str, ...]]:
        """The network with adapters, and the names of the modules whose output is cached.

        Args:
            network: The published network.
            lora: Fresh adapters as a recipe describes them.
            initial: A folder with adapters to start from instead.
        """

    @staticmethod
    @abstractmethod
    def load_processor(folder: Path, name: str, config: Any) -> Any:
        """Tokenizer and image processor of a network's configuration from a folder; raises `ModelError`.

        Args:
            folder: A checkpoint or a bundle.
            name: What error messages call it.
            config: The network's configuration.
        """

    @classmethod
    @abstractmethod
    def image_tokens(cls, checkpoint: Checkpoint, config: Any, options: Mapping[str, Any]) -> int:
        """Number of tokens that an image takes in the language model, with what surrounds them."""

    @classmethod
    @abstractmethod
    def vision_parts(cls, network: Any) -> tuple[Sequence[str], Sequence[str]]:
        """Names of the modules of the vision encoder, and of the projector behind it."""

    @staticmethod
    @abstractmethod
    def language_modules(network: Any) -> tuple[str, ...]:
        """Names of the modules of the language model, its head included."""

    @classmethod
    @abstractmethod
    def vision_tokens(cls, checkpoint: Checkpoint, config: Any, options: Mapping[str, Any]) -> int:
        """Number of tokens that the vision encoder computes of an image."""

    @classmethod
    def longest_row(cls, examples: Sequence[Example]) -> tuple[int, int]:  # noqa: ARG003 - for families with it
        """Pictures of the longest row, and about how many tokens of words precede its last question."""
        return 1, 0

    @staticmethod
    def quantized_parameters(network: Any, options: Mapping[str, Any]) -> int:  # noqa: ARG004 - for families with it
        """How many parameters are stored in 4 bits."""
        return 0

    @staticmethod
    def generating_module(network: Any) -> Any:
        """The module of a network whose ``generate`` writes the answers."""
        return network

    @classmethod
    def memory_estimate(
        cls,
        examples: Sequence[Example],
        *,
        checkpoint: str,
        lora: Mapping[str, Any],
        revision: str | None = None,
        **options: Any,
    ) -> MemoryEstimate:
        """Parameter counts of what `AdapterModel.build` returns, from the checkpoint's configuration alone."""
        source = find_checkpoint(checkpoint, revision, weights=False)
        config = read_config(source)
        with explain_errors(f"the configuration of {checkpoint}"), torch.device("meta"):
            peft_model, cached_modules = cls.adapt(cls.empty_network(config), lora)
        network = peft_model.get_base_model()
        pictures, words = cls.longest_row(examples)
        before = pictures * cls.image_tokens(source, config, options) + words
        stacks = language_model_stacks(config.get_text_config(), image_tokens=before)
        if not cached_modules:  # the vision encoder trains
            tokens = pictures * cls.vision_tokens(source, config, options)
            stacks += (vision_stack(config.vision_config, tokens=tokens),)
        return estimate_memory(
            network,
            vision_encoder=cached_modules,
            stacks=stacks,
            quantized=cls.quantized_parameters(network, options),
            stand_in=checkpoint if source.shipped else None,
        )

    @classmethod
    def fp16_problem(cls, **options: Any) -> str | None:
        """Why the checkpoint of the options cannot be computed in fp16, in words; None where it can."""
        source = find_checkpoint(options["checkpoint"], options.get("revision"), weights=False)
        return fp16_problem(read_config(source))
