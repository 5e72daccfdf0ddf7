"""What BLIP-2 and chat models share: a frozen published network with adapters, which writes its answers.

The network is divided in two. What is upstream of everything that trains, the vision modules as a rule, is taken out of
it, so that its output, the features of an image, can be cached and reused for every question and epoch. The rest, with
the adapters and the modules that train wholly, is an `AdapterNet`.
"""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from medical_vqa.errors import ModelError
from medical_vqa.models.augment import Augment
from medical_vqa.models.base import Query, Vision
from medical_vqa.models.hf.checkpoint import Checkpoint, find_checkpoint
from medical_vqa.models.hf.generation import (
    GENERATION_FAILED,
    check_prompt,
    generation_config,
    isolate_special_tokens,
    read_generated,
    summed_loss,
    to_prediction,
)
from medical_vqa.models.hf.loading import Dtype, explain_errors, fp16_problem, library_versions, read_config
from medical_vqa.models.hf.lora import hide_peft_warnings, keep_trainable_state, separate_adapted_weights
from medical_vqa.models.hf.peft_io import load_adapted, load_language, save_adapter
from medical_vqa.models.memory import (
    MemoryEstimate,
    count_parameters,
    estimate_memory,
    is_within,
    language_model_stacks,
    vision_stack,
)
from medical_vqa.models.vocabulary import AnswerVocabulary
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Example, Prediction

if TYPE_CHECKING:
    from medical_vqa.models.base import Batch

_COPIED_SUFFIXES = (".json", ".jinja", ".model", ".txt")
"""Files of a base that are not weights."""


class AdapterNet(nn.Module, ABC):
    """The trainable half of a network; its state is what trains alone."""

    def __init__(self, peft_model: Any, vision_encoder: nn.Module) -> None:
        super().__init__()
        self.peft_model = peft_model
        self._frozen = (vision_encoder,)  # in a tuple: not a submodule, neither moved with this one nor saved
        keep_trainable_state(self)

    @property
    def base(self) -> Any:
        """The network with its adapters."""
        return self.peft_model.get_base_model()

    @property
    def vision_encoder(self) -> Any:
        """The frozen vision modules."""
        return self._frozen[0]

    @abstractmethod
    def answer_logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (..., V) that predict the labels (...) of the answers."""

    def forward(self, batch: Batch) -> Tensor:
        """Cross entropy summed over the tokens of the answers, in nats."""
        return summed_loss(*self.answer_logits(batch))


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


class AdapterModel(ABC):
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

    # --- what a family provides

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

    @abstractmethod
    def generation_inputs(self, queries: Sequence[Query]) -> tuple[Any, dict[str, Any]]:
        """The network whose ``generate`` is called, and its inputs."""

    @abstractmethod
    def rank(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:
        """The most likely training answers to each question."""

    # --- what all families share

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
            cls.check_initial(initial, source)
        network = cls.load_network(source, dtype, options | {"attention": attention})
        rates = cls._rate_factors(network, lora)
        if initial is not None:
            load_language(network, initial)
        peft_model, cached_modules = cls.adapt(network, lora, initial)
        if initial is not None:
            cls._check_parts(peft_model.get_base_model(), lora, initial)
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

    @classmethod
    def check_initial(cls, folder: Path, checkpoint: Checkpoint) -> None:
        """Raise `ModelError` when the adapters of a folder were trained on another checkpoint."""
        settings = folder / cls.settings_file
        with explain_errors(f"the adapter {folder}"):
            if settings.is_file():
                stored = json.loads(settings.read_text(encoding="utf-8"))
                trained_on, same = stored["checkpoint"], stored["digest"] == checkpoint.digest()
            else:
                config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
                trained_on = config.get("base_model_name_or_path")
                same = checkpoint.revision is None or trained_on in (None, checkpoint.name)  # a folder has no known id
        if not same:
            raise ModelError(
                f"the adapter {folder} was trained on {trained_on} and not on {checkpoint.name}; name the former in "
                "model.checkpoint, or another adapter in model.initial"
            )

    @classmethod
    def _check_parts(cls, network: Any, lora: Mapping[str, Any], initial: Path) -> None:
        """Raise `ModelError` where a recipe asks for parts to train that the adapter to start from does not contain."""
        tower, projector = cls.vision_parts(network)
        learning = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        requested = {"projector": (lora.get("projector", False), projector)}
        requested["vision"] = (lora.get("vision", "none") != "none", tower)
        for key, (is_requested, part) in requested.items():
            if is_requested and not any(is_within(name, part) for name in learning):
                raise ModelError(
                    f"model.lora.{key} is {str(lora[key]).lower()}, and the adapter that training starts from, "
                    f"{initial}, has nothing there; leave the key out, or start from one that was trained with it"
                )

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
        """Parameter counts of what `build` returns, from the checkpoint's configuration alone."""
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
        adapted = load_adapted(bundle, cls.settings_file, cls.load_network, torch.device("cpu"))
        for path in sorted(adapted.checkpoint.folder.iterdir()):
            if path.name == "params.json" or path.name.endswith(".index.json"):  # of weights in another form
                continue
            if path.suffix in _COPIED_SUFFIXES:
                shutil.copyfile(path, folder / path.name)
        separate_adapted_weights(adapted.peft_model)
        with hide_peft_warnings():
            adapted.peft_model.merge_and_unload().save_pretrained(folder)

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
