"""What BLIP-2 and chat models share: a frozen published network with adapters, which writes its answers.

The network is divided in two. What is upstream of everything that trains, the vision modules as a rule, is taken out of
it, so that its output, the features of an image, can be cached and reused for every question and epoch. The rest, with
the adapters and the modules that train wholly, is an `AdapterNet`.
"""

from __future__ import annotations

import json
import shutil
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch

from medical_vqa.errors import ContextLengthError, ModelError
from medical_vqa.models.augment import Augment
from medical_vqa.models.base import Query, Vision
from medical_vqa.models.hf.adapter_net import AdapterNet
from medical_vqa.models.hf.checkpoint import Checkpoint, find_checkpoint
from medical_vqa.models.hf.generation import (
    GENERATION_FAILED,
    check_prompt,
    generation_config,
    isolate_special_tokens,
    read_generated,
    to_prediction,
)
from medical_vqa.models.hf.loading import Dtype, explain_errors, library_versions
from medical_vqa.models.hf.peft_io import (
    check_initial,
    check_initial_parts,
    load_adapted,
    load_language,
    save_adapter,
    save_merged,
)
from medical_vqa.models.hf.published_network import PublishedNetwork
from medical_vqa.models.memory import count_parameters
from medical_vqa.models.vocabulary import AnswerVocabulary
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Example, Prediction

if TYPE_CHECKING:
    from medical_vqa.models.base import Batch

_QUOTED = 60
"""Characters of a question that an error message repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSettings:
    """What a model with adapters depends on in addition to its weights."""

    checkpoint: Checkpoint
    """The published checkpoint of the frozen weights."""
    dtype: Dtype
    """Precision of the frozen weights."""
    prompt: str
    """Template of the question."""
    answers: tuple[str, ...]
    """Answers of the training rows, the most frequent first; `Decoding.method` ``rank`` chooses from them."""
    features: bool = True
    """Whether the output of the frozen vision modules is cached."""
    augment: Augment | None = None
    """Random changes of training pictures."""


class AdapterModel(PublishedNetwork):
    """Building, answering, saving and loading of a model with adapters; a family adds its network and its inputs."""

    settings_file: ClassVar[str]
    """Name of the settings file in a bundle."""
    own_options: ClassVar[tuple[str, ...]] = ()
    """Options of `build` that only this family has; they are stored in the bundle."""

    module: AdapterNet
    """The half of the network that trains."""
    learning_rate_factors: Mapping[str, float]
    """As in `ModelFamily`."""
    vision: Vision
    """The frozen vision modules, which fill the feature cache."""

    def __init__(
        self, peft_model: Any, cached_modules: Sequence[str], processor: Any, settings: AdapterSettings
    ) -> None:
        """Keep what all families need; a family then divides the network into `module` and `vision`.

        Args:
            peft_model: The network with adapters.
            cached_modules: Names of the modules whose output is cached.
            processor: Has a ``tokenizer`` and an ``image_processor``.
            settings: Checkpoint, prompt and answers.
        """
        self.parameters = count_parameters(peft_model)
        self.cached_modules = tuple(cached_modules)
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.settings = settings
        self.prompt = check_prompt(settings.prompt)
        network = peft_model.get_base_model()
        self.end_tokens = isolate_special_tokens(network, self.generating_module(network), self.tokenizer)

    @abstractmethod
    def generation_inputs(self, queries: Sequence[Query]) -> tuple[Any, dict[str, Any]]:
        """The network whose ``generate`` is called, and its inputs."""

    @abstractmethod
    def rank(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:
        """The most likely training answers to each question."""

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
        attention: str = "auto",
        initial: Path | None = None,
        **options: Any,
    ) -> Self:
        """A published network with adapters, fresh or those of `initial`; the options are those of `Options`.

        Args:
            examples: Training rows; their answers are the candidates of ``rank``.

        Raises:
            ModelError: The checkpoint does not exist or is of another kind, or `lora` does not fit it.
            OfflineError: The checkpoint would have to be downloaded and cannot be.
        """
        if unknown := sorted(options.keys() - set(cls.own_options)):
            raise TypeError(f"{cls.__name__}.build has no option {unknown[0]!r}")
        source = find_checkpoint(checkpoint, revision)
        if initial is not None:
            check_initial(initial, source, cls.settings_file)
        network = cls.load_network(source, dtype, options | {"attention": attention})
        rates = cls._rate_factors(network, lora)
        if initial is not None:
            load_language(network, initial)
        peft_model, cached_modules = cls.adapt(network, lora, initial)
        if initial is not None:
            base = peft_model.get_base_model()
            tower, projector = cls.vision_parts(base)
            check_initial_parts(base, lora, initial, tower=tower, projector=projector)
        settings = AdapterSettings(
            checkpoint=source,
            dtype=dtype,
            prompt=prompt,
            answers=AnswerVocabulary.from_answers(e.answers[0] for e in examples if e.answers).answers,
            features=features,
            augment=Augment(**augment) if augment else None,
        )
        processor = cls.load_processor(source.folder, checkpoint, peft_model.get_base_model().config)
        model = cls(peft_model, cached_modules, processor, settings, **options)
        model.learning_rate_factors = rates
        if gradient_checkpointing:
            model.module.base.activation_checkpointing_enable({"use_reentrant": False})
        return model

    @classmethod
    def _rate_factors(cls, network: Any, lora: Mapping[str, Any]) -> dict[str, float]:
        """Factors of the learning rate, by the beginning of the names of the module's parameters."""
        tower, projector = cls.vision_parts(network)
        factors = dict.fromkeys(projector, lora.get("projector_rate", 1.0))
        factors |= dict.fromkeys(tower, lora.get("vision_rate", 1.0))
        return {f"peft_model.base_model.model.{name}.": factor for name, factor in factors.items()}

    @property
    def partly_unused(self) -> bool:
        """Whether the vision encoder trains: many networks do not read the output of its last layer."""
        return not self.cached_modules

    def refuse_stale_features(self, queries: Sequence[Query]) -> None:
        """Raise `ModelError` when training would read features that an encoder computed before it was trained."""
        if not self.cached_modules and any(not isinstance(query.visual, np.ndarray) for query in queries):
            raise ModelError(
                "the vision encoder trains, and features that were computed before the last step are stale: give it "
                "pictures"
            )

    @property
    def device(self) -> torch.device:
        """Device of the language model."""
        device: torch.device = self.module.base.get_input_embeddings().weight.device
        return device

    @cached_property
    def context(self) -> int | None:
        """Most tokens of a prompt and its answer together; None where positions are relative (T5)."""
        config = self.module.base.config.get_text_config()
        return getattr(config, "max_position_embeddings", None)

    def check_length(self, query: Query, prompt: int, answer: int) -> None:
        """Raise `ContextLengthError` when a question is too long for the positions of the language model.

        Args:
            query: The question.
            prompt: Tokens of its prompt, those of the pictures included.
            answer: Tokens of its answer, at most.
        """
        if self.context is not None and prompt + answer > self.context:
            start = query.question[:_QUOTED] + ("..." if len(query.question) > _QUOTED else "")
            numbers = (
                f"takes {prompt:,} tokens with its pictures and what precedes it, and its answer up to {answer:,}; the "
                f"model reads {self.context:,} in all: shorten it"
            )
            raise ContextLengthError(
                f"the question {start!r} {numbers}, leave earlier turns or pictures out, or lower decoding.max_tokens",
                f"the question {numbers}, or leave earlier turns or pictures out",
            )

    def to_device(self, batch: Batch) -> Batch:
        """The batch on the device of the language model."""
        return {key: value.to(self.device) for key, value in batch.items()}

    @torch.inference_mode()
    def answer(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:
        """An answer to each question: generated greedily or by beam search, or the most likely training answer."""
        if not queries:
            return []
        self.module.eval()
        if decoding.method == "rank":
            return self.rank(queries, decoding)
        network, inputs = self.generation_inputs(queries)
        for query, length in zip(queries, inputs["attention_mask"].sum(1).tolist(), strict=True):
            self.check_length(query, length, decoding.max_tokens)
        config = generation_config(decoding)
        with explain_errors(f"an answer of {self.settings.checkpoint.name}", GENERATION_FAILED):
            output = network.generate(**inputs, generation_config=config)
        generated = read_generated(output, self.tokenizer, self.end_tokens, per_question=config.num_return_sequences)
        return [
            to_prediction(query.id, answers, decoding.alternatives)
            for query, answers in zip(queries, generated, strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write the adapter as PEFT does, tokenizer and processor, and which base they belong to."""
        settings = self.settings
        peft_model = self.module.peft_model
        save_adapter(peft_model, folder, settings.checkpoint, self.language_modules(peft_model.get_base_model()))
        for path in settings.checkpoint.processor_files():  # as published: nothing is lost by writing them again
            shutil.copyfile(path, folder / path.name)
        stored = {
            "checkpoint": settings.checkpoint.location,
            "revision": settings.checkpoint.revision,
            "digest": settings.checkpoint.digest(),
            "cached_modules": list(self.cached_modules),
            "prompt": settings.prompt,
            "answers": list(settings.answers),
            "features": settings.features,
            **{name: getattr(self, name) for name in self.own_options},
        }
        (folder / self.settings_file).write_text(json.dumps(stored, ensure_ascii=False, indent=1), encoding="utf-8")

    @classmethod
    def write_merged(cls, bundle: Path, folder: Path) -> None:
        """Write the network of a bundle with its adapter merged, in 32 bits, in the layout of its base.

        Processor, tokenizer and chat template are exactly those of the base.
        """
        save_merged(bundle, folder, cls.settings_file, cls.load_network)

    @classmethod
    def load(cls, folder: Path, *, device: torch.device) -> Self:
        """Read what `save` wrote and the base it names; raises `BundleError` when either does not fit."""
        bundle = load_adapted(folder, cls.settings_file, cls.load_network, device)
        stored = bundle.settings
        settings = AdapterSettings(
            checkpoint=bundle.checkpoint,
            dtype=bundle.dtype,
            prompt=stored["prompt"],
            answers=tuple(stored["answers"]),
            features=stored["features"],
        )
        config = bundle.peft_model.get_base_model().config
        processor = cls.load_processor(folder, f"the bundle {folder}", config)
        options = {name: stored[name] for name in cls.own_options if name in stored}
        model = cls(bundle.peft_model, stored["cached_modules"], processor, settings, **options)
        model.module.to(device).eval()
        model.vision.to(device)
        return model

    def describe(self) -> dict[str, Any]:
        """Parameters, checkpoint and precision."""
        return {
            "parameters": self.parameters,
            "trainable": count_parameters(self.module, trainable=True),
            "checkpoint": self.settings.checkpoint.name,
            "revision": self.settings.checkpoint.revision,
            "cached_modules": list(self.cached_modules),
            "precision": self.settings.dtype,
            "libraries": library_versions(),
        }
