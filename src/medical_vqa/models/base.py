"""What every model family has: `ModelFamily` declares it, `VqaModel` answers, `Trainable` also learns by gradients.

`Example` is the published row, `Query` is what a model receives: no dataset code knows a tokenizer and no model code
knows SLAKE. A picture is prepared once (`PictureSpec`), and features of the picture alone are computed once (`Vision`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from medical_vqa.config import ModelOptions
from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.errors import ConfigError, ModelError
from medical_vqa.models.declined import declined_reason
from medical_vqa.registry import import_object
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Prediction

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from medical_vqa.models.questions.bank import QuestionBank

    Features = Mapping[str, Any]  # named tensors: torch's, or numpy's from a model that runs without torch
    Visual = NDArray[np.uint8] | Features
    Batch = dict[str, Tensor]

MAX_QUESTION_CHARACTERS = 1_000
"""Longer questions are refused: the longest published one (VQA-RAD, SLAKE) has fewer than 250."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question about one image, as a model receives it."""

    id: str
    """Id of the prediction that answers it."""
    question: str
    """The question, as published or typed."""
    image: str
    """Digest of the image: queries with the same digest share one `visual`."""
    visual: Visual
    """A prepared picture, uint8 (height, width, channels), or its features from `Vision.encode`."""
    target: str | None = None
    """The answer to learn; None when only an answer is wanted."""
    regions: NDArray[np.uint8] | None = None
    """Known regions of organs and findings in the picture (`data.regions`), for training; not needed to answer."""
    other_visuals: tuple[Visual, ...] = ()
    """Further pictures of the question, after `visual`; only for models with `max_pictures` above 1."""
    turns: tuple[tuple[str, str], ...] = ()
    """Earlier questions of the conversation with their answers, oldest first; read by models with `max_turns`."""
    other_images: tuple[str, ...] = ()
    """Digest of each of `other_visuals`; empty where they are not known."""
    system: str = ""
    """System message of the conversation; read as `turns` are."""
    image_places: tuple[tuple[int, int], ...] = ()
    """Where each picture stands, as in `Example.image_places`; empty where all stand before the first question."""
    note: str = ""
    """What the pictures are, such as slices of a plane; read by remote models, before the question."""

    @property
    def questions(self) -> tuple[str, ...]:
        """The questions of the conversation, this one last."""
        return (*(question for question, _ in self.turns), self.question)

    @property
    def pictures(self) -> list[tuple[str, Visual]]:
        """All pictures, in order, each with its digest, or another name for it where that is not known."""
        names = self.other_images or tuple(f"picture {id(visual)}" for visual in self.other_visuals)
        return [(self.image, self.visual), *zip(names, self.other_visuals, strict=True)]

    @property
    def surroundings(self) -> tuple[Any, ...]:
        """What an answer depends on besides the first picture and the question; equal for equal conversations."""
        return tuple(name for name, _ in self.pictures[1:]), self.turns, self.system, self.image_places, self.note

    @property
    def is_single(self) -> bool:
        """Whether it is one question about one picture, which stands before it, and nothing precedes them."""
        return not (self.other_visuals or self.turns or self.system or self.image_places)

    def with_newest_turns(self, most: int) -> Query:
        """The query with at most so many earlier turns; pictures of older ones stand before the first that is left."""
        left_out = max(0, len(self.turns) - most)
        places = tuple(
            (turn - left_out, character) if turn >= left_out else (0, 0) for turn, character in self.image_places
        )
        return replace(self, turns=self.turns[left_out:], image_places=places)

    def alone(self, question: str) -> Query:
        """Another question about the first picture alone, without what preceded."""
        return replace(
            self, question=question, other_visuals=(), other_images=(), turns=(), system="", image_places=(), note=""
        )


@dataclass(frozen=True, slots=True, eq=False)
class Localization:
    """Where in a picture a model places one organ or finding."""

    name: str
    """Name of the organ or finding, as the training data call it: ``Left Lung``."""
    learned_from: Literal["mask", "box"]
    """What it was learned from: outlines, or boxes alone."""
    probability: NDArray[np.floating[Any]]
    """Probability of each cell (rows, columns) of a grid over the prepared picture, in [0, 1]."""


class Vision(Protocol):
    """The part of a model whose output depends on the image alone."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over weights and settings: equal fingerprints give equal features."""

    @property
    def frozen(self) -> bool:
        """Whether training leaves it unchanged; only then may features be kept across training steps."""

    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Features]:
        """Features of each picture, one mapping each, without a batch axis."""

    def to(self, device: torch.device) -> None:
        """Move it to a device; a frozen one needs to be there only while it encodes."""


class VqaModel(Protocol):
    """Anything that answers questions about images."""

    @property
    def family(self) -> str:
        """The name in recipes and bundles: ``compact``."""

    @property
    def picture(self) -> PictureSpec | None:
        """How a picture is prepared for this model; None when it uses no picture."""

    @property
    def vision(self) -> Vision | None:
        """What encodes an image once for any number of questions; None when nothing of it can be reused."""

    @property
    def has_attention_maps(self) -> bool:
        """As in `ModelFamily`."""

    @property
    def has_closed_answers(self) -> bool:
        """As in `ModelFamily`."""

    @property
    def reads_conversations(self) -> bool:
        """As in `ModelFamily`."""

    @property
    def prompt(self) -> str | None:
        """As in `ModelFamily`."""

    @property
    def max_pictures(self) -> int:
        """As in `ModelFamily`."""

    @property
    def max_turns(self) -> int:
        """As in `ModelFamily`."""

    @property
    def reads_system(self) -> bool:
        """As in `ModelFamily`."""

    @property
    def slices_together(self) -> int:
        """As in `ModelFamily`."""

    @property
    def usage(self) -> Any:
        """As in `ModelFamily`."""

    @property
    def notes(self) -> Sequence[str]:
        """As in `ModelFamily`."""

    @property
    def question_bank(self) -> QuestionBank | None:
        """As in `ModelFamily`."""

    def answer(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:
        """One prediction per query, in order. Raises `ModelError` on a question it cannot take."""

    def answer_batches(self, batches: Iterable[Sequence[Query]], decoding: Decoding) -> Iterator[Prediction]:
        """As in `ModelFamily`."""

    def entity_in(self, text: str) -> str | None:
        """As in `ModelFamily`."""

    def question_as_read(self, question: str) -> str:
        """As in `ModelFamily`."""

    def question_reason(self, question: str) -> str | None:
        """As in `ModelFamily`."""

    def abstention_reason(self, query: Query, prediction: Prediction) -> str | None:
        """As in `ModelFamily`."""

    def attention_maps(self, queries: Sequence[Query]) -> list[NDArray[np.float32]]:
        """As in `ModelFamily`."""

    def localizations(self, query: Query, prediction: Prediction) -> list[Localization]:
        """As in `ModelFamily`."""

    def describe(self) -> dict[str, Any]:
        """As in `ModelFamily`."""

    def close(self) -> None:
        """As in `ModelFamily`."""


@runtime_checkable
class Trainable(VqaModel, Protocol):
    """A model that learns by gradient steps; `ModelFamily.build` returns it."""

    learning_rate_factors: Mapping[str, float]
    """Factor of the learning rate of the parameters whose names begin so; 1 for the others."""

    @property
    def partly_unused(self) -> bool:
        """As in `ModelFamily`."""

    @property
    def module(self) -> nn.Module:
        """Called with a collated batch, it returns the loss summed over the batch's supervised items."""

    def collate(self, queries: Sequence[Query]) -> Batch:
        """Tensors of a batch; ``supervised`` holds how many items the loss sums over. Runs in loader workers."""

    def save(self, folder: Path) -> None:
        """Write weights and settings, never a frozen base, into an existing folder."""


class ModelFamily:
    """What the rest of the package may know of a family: its options and capabilities, found through the registry.

    A family is one class. It inherits from this one, overrides what differs from the defaults below, and has the
    classmethods that its capabilities promise:

    - ``load(folder, *, device)``: read what ``save(folder)`` wrote; `device` is a ``torch.device``, or None where
      `needs_torch` is False. Every family has it.
    - ``build(examples, **options)``: a fresh `Trainable` for these training rows, when `trainable`; the options are the
      fields of `Options` without ``family``.
    - ``fit(examples, **options)``: the finished model, when `trainable` and `counted`.
    - ``memory_estimate(examples, **options)``: a `MemoryEstimate`, when `estimates_memory`.

    A family whose module imports torch names that class in `implementation` and declares itself elsewhere, so that a
    recipe is validated and a bundle is described without torch.
    """

    family: ClassVar[str]
    """The name in recipes, bundles and the registry: ``compact``."""
    implementation: ClassVar[str] = ""
    """``module:Class`` of the model class; empty when this class is the model class."""
    Options: ClassVar[type[ModelOptions]] = ModelOptions
    """Validates the family's `model` section of a recipe."""
    trainable: ClassVar[bool] = False
    """Whether a recipe can train it."""
    counted: ClassVar[bool] = False
    """Whether training is one pass over the rows (`fit`) and not a loop of gradient steps (`build`)."""
    needs_torch: ClassVar[bool] = False
    """Whether it runs on PyTorch, on a device that can be chosen."""
    uses_image: ClassVar[bool] = True
    """Whether its answers depend on the image."""
    estimates_memory: ClassVar[bool] = False
    """Whether `memory_estimate` can tell its size before any weight is loaded."""
    learns_regions: ClassVar[bool] = False
    """Whether it learns from masks and boxes; `build` then takes ``regions``, the names of their types."""
    starts_from_bundle: ClassVar[bool] = False
    """Whether its options name an ``initial`` bundle of the same family to start from."""
    reads_conversations: ClassVar[bool] = False
    """Whether it is trained on and asked about rows with all their images, earlier turns and system message; another
    family receives the first image and the question alone."""
    has_closed_answers: ClassVar[bool] = False
    """Whether it chooses from a closed list, its `answers` (`AnswerVocabulary`), and cannot write others."""
    has_attention_maps: ClassVar[bool] = False
    """Whether `attention_maps` shows where in the picture an answer comes from."""
    exported_family: ClassVar[str | None] = None
    """The family as which its ONNX export runs without torch; None when it cannot be exported."""
    exporter: ClassVar[str] = ""
    """``module:function`` that writes the export: called with the model, its bundle, a folder to write into and queries
    to compare with; returns the largest difference of the outputs and the version of the ONNX operator set."""
    learning_rate_factors: Mapping[str, float] = MappingProxyType({})
    """Factor of the learning rate of the parameters whose names begin so; 1 for the others."""
    merges: ClassVar[bool] = False
    """Whether ``write_merged(bundle, folder)`` writes a bundle with its adapter merged, in its base's layout."""
    extras: ClassVar[tuple[str, ...]] = ()
    """Extras of this package that answering needs, for containers."""
    library: ClassVar[str] = "medical-vqa"
    """The hub's ``library_name`` of its bundles."""
    library_usage: ClassVar[str] = ""
    """How that library loads a bundle, in one line; ``{checkpoint}`` stands for the base model."""
    prompt: str | None = None
    """Template of the question, for models that use one."""

    @classmethod
    def options_of(cls, bundle: Path) -> dict[str, Any]:  # noqa: ARG003
        """The options that a model which starts from this bundle shares with it, where a recipe leaves them out.

        Raises `BundleError` when a file of the bundle is damaged.
        """
        return {}

    @classmethod
    def model_class(cls) -> Any:
        """The class of the models: this one, or the one that `implementation` names.

        Raises `MissingDependencyError` when its libraries are not installed, and `ConfigError` when it lacks a method
        that its capabilities promise.
        """
        model = import_object(cls.implementation, cls.family) if cls.implementation else cls
        trained = (("fit",) if cls.counted else ("build", "collate")) if cls.trainable else ()
        promised = ("load", "save", "answer", *trained, *(("memory_estimate",) if cls.estimates_memory else ()))
        if absent := [method for method in promised if not hasattr(model, method)]:
            raise ConfigError(
                f"the model family {cls.family!r} ({model.__module__}:{model.__qualname__}) lacks {', '.join(absent)}, "
                "which its capabilities promise; add them, see docs/how-to/extend.md"
            )
        return model

    @classmethod
    def fp16_problem(cls, **options: Any) -> str | None:  # noqa: ARG003
        """Why the model of these options cannot be computed in fp16, in words; None where it can."""
        return None

    @property
    def partly_unused(self) -> bool:
        """Whether a training step may leave trained parameters without a gradient, which DDP has to expect."""
        return False

    @property
    def max_pictures(self) -> int:
        """Most pictures in one question."""
        return 1

    @property
    def max_turns(self) -> int:
        """Most earlier turns of a conversation that are read; 0: the model does not remember."""
        return 0

    @property
    def reads_system(self) -> bool:
        """Whether a system message before the conversation is read."""
        return False

    @property
    def slices_together(self) -> int:
        """Most slices of a series in one question; 1: each is asked about alone, and the answers are combined."""
        return 1

    @property
    def usage(self) -> Any:
        """Requests and tokens that a remote model has spent (`models.remote.usage.Usage`); None for a local model."""
        return None

    @property
    def notes(self) -> Sequence[str]:
        """What a remote model changed to suit its endpoint, one sentence each."""
        return ()

    @property
    def question_bank(self) -> QuestionBank | None:
        """The training questions, to offer in place of one that is not answered; None where they are not known."""
        return None

    def entity_in(self, text: str) -> str | None:  # noqa: ARG002
        """The organ or finding that a text names, in lower case; None for none, and for a family without a list."""
        return None

    def question_as_read(self, question: str) -> str:
        """The question with typing errors corrected where the model reads it so: the guards go by what it reads."""
        return question

    def question_reason(self, question: str) -> str | None:  # noqa: ARG002
        """Why a question cannot be answered about any picture: the part of `abstention_reason` that follows from its
        words alone; None where it is understood."""
        return None

    def abstention_reason(self, query: Query, prediction: Prediction) -> str | None:  # noqa: ARG002
        """Why an answer to this query means nothing: one sentence for the user, or a `questions.reasons.Reason`, which
        has a code as well; None when the answer may stand. By default an empty answer, and one that declines in words,
        mean nothing."""
        return declined_reason(prediction.answer, prediction.raw)

    def attention_maps(self, queries: Sequence[Query]) -> list[NDArray[np.float32]]:  # noqa: ARG002
        """One map (rows, columns) per query over the prepared picture, non-negative, summing to 1."""
        raise ModelError(f"the model family {self.family} has no attention maps; use one that has, such as compact")

    def localizations(self, query: Query, prediction: Prediction) -> list[Localization]:  # noqa: ARG002
        """Where the model places the organs and findings that a question and its answer name, apart from those that the
        answer denies; of several with one name the better first. None for a family that localizes nothing."""
        return []

    def describe(self) -> dict[str, Any]:
        """Facts for the card: parameter counts and sizes."""
        return {}

    def answer_batches(self, batches: Iterable[Sequence[Query]], decoding: Decoding) -> Iterator[Prediction]:
        """Predictions for batches of queries, in any order, each as soon as it is there."""
        for batch in batches:
            yield from self.answer(batch, decoding)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Release what the model holds outside this process, such as connections."""


def check_question(question: str, most: int = MAX_QUESTION_CHARACTERS) -> str:
    """The question without surrounding white space; raises `ModelError` when it is empty or longer than `most`."""
    text = question.strip()
    if not text:
        raise ModelError("the question is empty; ask something, for example: What modality is this image?")
    if len(text) > most:
        raise ModelError(f"the question has {len(text):,} characters; at most {most:,} are read: shorten it")
    return text


def targets_of(queries: Sequence[Query]) -> list[str]:
    """The answers to learn, in order; raises `ModelError` when a question of the batch has none."""
    targets = [query.target for query in queries if query.target is not None]
    if len(targets) != len(queries):
        raise ModelError("a training batch holds a question without an answer; leave such rows out")
    return targets


def distinct(queries: Sequence[Query]) -> tuple[list[Visual], list[int]]:
    """The first visual of each query, each image once, and for every query the place of its image among them."""
    visuals, places = distinct_pictures([(query.image, query.visual) for query in queries])
    return visuals, places


def distinct_pictures(pictures: Sequence[tuple[str, Visual]]) -> tuple[list[Visual], list[int]]:
    """The visuals of named pictures, each name once, and for every picture its place among them."""
    places: dict[str, int] = {}
    visuals: list[Visual] = []
    for name, visual in pictures:
        if name not in places:
            places[name] = len(visuals)
            visuals.append(visual)
    return visuals, [places[name] for name, _ in pictures]
