"""The compact family: the small default, trained from scratch on a CPU; a classifier over the training answers."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.errors import ModelError
from medical_vqa.models.augment import IGNORED_CLASS, Augment, Mirror, mirror_text
from medical_vqa.models.base import Query, distinct, targets_of
from medical_vqa.models.compact.answering import CompactAnswering
from medical_vqa.models.compact.family import CompactFamily
from medical_vqa.models.compact.image_encoder import to_unit_range
from medical_vqa.models.compact.initialization import NamedNetwork, copy_weights
from medical_vqa.models.compact.network import CompactNet, ImageMemory, image_features
from medical_vqa.models.compact.postprocess import stack_pictures
from medical_vqa.models.compact.quantization import dequantized, quantized
from medical_vqa.models.compact.question_understanding import ImageTypes, QuestionParser, entity_names
from medical_vqa.models.compact.rewording import reword, rule_phrases
from medical_vqa.models.compact.settings import WEIGHTS_FILE, CompactSettings, Sizes, damaged_bundle
from medical_vqa.models.compact.trunk import LICENSE, VARIANTS, EfficientNetLite, published_weights
from medical_vqa.models.fsdp import unsharded_state
from medical_vqa.models.memory import count_parameters
from medical_vqa.models.questions.bank import QuestionBank
from medical_vqa.models.vocabulary import RESERVED_WORDS, AnswerVocabulary, WordVocabulary
from medical_vqa.schema.records import Example

if TYPE_CHECKING:
    from medical_vqa.models.base import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Regularization:
    """What changes training and not answering."""

    region_weight: float = 1.0
    """Weight of the loss on regions, relative to that on answers."""
    presence_weight: float = 0.0
    """Weight of the loss on which regions a picture shows, relative to that on answers."""
    label_smoothing: float = 0.0
    """Fraction of the target spread over all answers."""
    augment: Augment | None = None
    """Random changes to training pictures."""
    mirror: float = 0.0
    """Fraction of training pictures that are mirrored, with left and right swapped in their texts."""
    reword: float = 0.0
    """Fraction of training questions that are reworded by rules."""
    trunk_rate: float = 0.3
    """Learning rate of a pretrained trunk, relative to that of the other weights."""
    drop_connect: float = 0.0
    """Fraction of the pictures for which the last block of a pretrained trunk is left out."""


_NONE = Regularization()


class Compact(CompactAnswering, CompactFamily):
    """The network with its vocabularies: question and picture in, one of the training answers out."""

    def __init__(
        self, settings: CompactSettings, regularization: Regularization = _NONE, *, learn_regions: bool = True
    ) -> None:
        """Create a model with random weights.

        Args:
            settings: Vocabularies, sizes and input.
            regularization: Used in training only.
            learn_regions: Whether training queries carry regions; otherwise what was learned of them before stays.

        Raises:
            ModelError: The settings contradict each other.
        """
        super().__init__(settings)
        _check(settings)
        self.learn_regions = learn_regions
        self._reword = regularization.reword
        trunk = EfficientNetLite(settings.trunk, regularization.drop_connect) if settings.trunk else None
        if trunk is not None:
            self.learning_rate_factors = {"image_encoder.trunk.": regularization.trunk_rate}
        self.module = CompactNet(
            settings.sizes,
            side=settings.picture.side,
            words=len(settings.words),
            answers=len(settings.answers),
            regions=len(settings.regions),
            region_weight=regularization.region_weight,
            presence_weight=regularization.presence_weight,
            presence=settings.presence,
            region_stride=settings.region_stride,
            contrast=settings.local_contrast,
            foreground=settings.foreground,
            trunk=trunk,
            smoothing=regularization.label_smoothing,
            augment=regularization.augment,
            mirror=_mirror(settings, regularization.mirror) if regularization.mirror else None,
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def build(
        cls,
        examples: Sequence[Example],
        *,
        picture: Mapping[str, Any],
        augment: Mapping[str, float] | None,
        label_smoothing: float,
        mirror: float = 0.0,
        reword: float = 0.0,
        regions: Sequence[str] = (),
        region_weight: float = 1.0,
        presence_weight: float = 0.0,
        local_contrast: bool = True,
        foreground: int | None = None,
        initial: Path | None = None,
        trunk: str | None = None,
        trunk_rate: float = 0.3,
        drop_connect: float = 0.0,
        channels: Sequence[int],
        width: int,
        heads: int,
        layers: int,
        dropout: float,
        question_words: int,
    ) -> Self:
        """A model to train, its vocabularies from these training rows; the options are those of `CompactOptions`.

        Args:
            examples: Training rows.
            regions: Names of the regions that the training queries carry.
            initial: Bundle of a compact model to start from. Its words stay known, and its regions where these rows
                have none.

        Raises:
            BundleError: The initial bundle is damaged.
            ModelError: No row has an answer, or the initial model has another picture or other sizes.
        """
        answered = [e for e in examples if e.answers]
        earlier = cls.load(initial, device=torch.device("cpu")) if initial else None
        questions = [e.question for e in answered]
        if reword:
            questions.extend(rule_phrases())
        if earlier is not None:
            questions.extend(earlier.settings.words.known)
        words = WordVocabulary.from_questions(questions)
        answers = AnswerVocabulary.from_answers(e.answers[0] for e in answered)
        parser = QuestionParser(words, entity_names(regions, answers.answers))
        settings = CompactSettings(
            picture=PictureSpec(**picture),
            sizes=Sizes(tuple(channels), width, heads, layers, dropout, question_words),
            words=words,
            answers=answers,
            regions=tuple(regions) or (earlier.settings.regions if earlier else ()),
            local_contrast=local_contrast,
            foreground=foreground,
            trunk=trunk,
            region_stride=earlier.settings.region_stride if earlier else 8,
            presence=presence_weight > 0 or (earlier is not None and earlier.settings.presence),
            image_types=ImageTypes.from_examples(answered, parser) if regions else ImageTypes(),
            question_bank=QuestionBank.from_examples(answered),
        )
        regularization = Regularization(
            region_weight=region_weight,
            presence_weight=presence_weight,
            label_smoothing=label_smoothing,
            augment=Augment(**augment) if augment else None,
            mirror=mirror,
            reword=reword,
            trunk_rate=trunk_rate,
            drop_connect=drop_connect,
        )
        model = cls(settings, regularization, learn_regions=bool(regions))
        if trunk and earlier is None and model.module.image_encoder.trunk is not None:
            model.module.image_encoder.trunk.load_published(published_weights(trunk))
        if earlier is not None:
            model.initialize_from(earlier)
        return model

    def initialize_from(self, earlier: Compact) -> float:
        """Copy an earlier model's weights in place; returns the fraction of this model's answers that it knew.

        Raises `ModelError` where the two differ in picture or sizes.
        """
        shapes = [
            f"{s.picture.key}, foreground {s.foreground}, local contrast {s.local_contrast}, trunk {s.trunk}, {s.sizes}"
            for s in (earlier.settings, self.settings)
        ]
        if shapes[0] != shapes[1]:
            raise ModelError(
                f"the model to start from has {shapes[0]}, this one {shapes[1]}; "
                "give the recipe the same picture and sizes, or leave model.initial out"
            )
        target, source = (
            NamedNetwork(m.module, m.settings.words.known, m.answers.answers, m.settings.regions)
            for m in (self, earlier)
        )
        return copy_weights(target, source)

    @property
    def vision(self) -> CompactVision:
        """The image encoder; it is trained, so its features are for answering only."""
        return CompactVision(self.module, self.picture)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        device: torch.device = self.module.image_encoder.position_embedding.device
        return device

    def collate(self, queries: Sequence[Query]) -> Batch:
        """pictures uint8 (B, H, W, 1), image_of (N,), words (N, L), target (N,), supervised (), regions (B, R, h, w).

        Raises `ModelError` where a query has no answer, features in place of a picture, or no regions to learn.
        """
        visuals, image_of = distinct(queries)
        targets = [self.answers.index(target) for target in targets_of(queries)]
        questions = [self._maybe_reworded(query.question) for query in queries]
        batch = {
            "pictures": torch.from_numpy(stack_pictures(visuals)),
            "image_of": torch.tensor(image_of),
            "words": torch.from_numpy(self.encode_words(questions)),
            "target": torch.tensor(targets),
            "supervised": torch.tensor(len(targets)),
        }
        if self.settings.regions and self.learn_regions:
            query_of = dict(zip(image_of, queries, strict=True))
            regions = [torch.from_numpy(_regions_of(query_of[image])) for image in range(len(visuals))]
            batch["regions"] = torch.stack(regions)
        return batch

    def _maybe_reworded(self, question: str) -> str:
        """A training question, reworded at random; the random numbers are torch's, whose state a checkpoint stores."""
        if not self._reword or float(torch.rand(())) >= self._reword:
            return question
        return reword(question, lambda n: int(torch.randint(n, ())))

    @torch.inference_mode()
    def logits(self, queries: Sequence[Query]) -> Tensor:
        """Logits (N, answers) in fp32, from which a softmax makes probabilities."""
        logits: Tensor = self.module.logits(*self._inputs(queries)).float()
        return logits

    def probabilities(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Probability of each answer (N, answers)."""
        probabilities: NDArray[np.float32] = self.logits(queries).softmax(-1).cpu().numpy()
        return probabilities

    @torch.inference_mode()
    def attention_weights(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Attention of each question to each image token in the last layer (N, T)."""
        weights: NDArray[np.float32] = self.module.attention(*self._inputs(queries)).float().cpu().numpy()
        return weights

    @staticmethod
    def to_numpy(feature: Tensor) -> NDArray[np.float32]:
        """The tensor in fp32 on the CPU."""
        array: NDArray[np.float32] = feature.float().cpu().numpy()
        return array

    def _inputs(self, queries: Sequence[Query]) -> tuple[ImageMemory, Tensor, Tensor]:
        """Memory of B images, image_of (N,), words (N, L), with the network in evaluation mode."""
        if self.module.training:  # walking all modules takes longer than half a question
            self.module.eval()
        visuals, image_of = distinct(queries)
        features = self.features_of(visuals)
        device = self.device
        memory = ImageMemory(*(stacked([of[name].to(device) for of in features]) for name in ImageMemory._fields))
        words = torch.from_numpy(self.encode_words([query.question for query in queries]))
        return memory, torch.tensor(image_of, device=device), words.to(device)

    def save(self, folder: Path, *, quantize: bool = False) -> None:
        """Write ``weights.safetensors`` and ``compact.json``.

        Args:
            folder: An existing folder.
            quantize: Store 8 bits a weight, as in `quantization`; `load` computes 32 from them.
        """
        state = unsharded_state(self.module)
        weights = {k: v.contiguous().cpu() for k, v in state.items()}
        save_file(quantized(weights) if quantize else weights, folder / WEIGHTS_FILE)
        self.settings.write(folder)

    @classmethod
    def load(cls, folder: Path, *, device: torch.device) -> Self:
        """Read what `save` wrote; raises `BundleError` when a file is damaged or does not fit."""
        try:
            model = cls(CompactSettings.read(folder))
            model.module.load_state_dict(dequantized(load_file(folder / WEIGHTS_FILE)))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise damaged_bundle(folder, error) from error
        model.module.to(device).eval()
        return model

    def describe(self) -> dict[str, Any]:
        """Parameters, answers, words and sizes; of a pretrained trunk also where its weights are from."""
        trunk = self.settings.trunk
        origin = {"trunk": trunk, "trunk_source": VARIANTS[trunk].package, "trunk_license": LICENSE} if trunk else {}
        return {
            "parameters": count_parameters(self.module),
            "answers": len(self.answers),
            "words": len(self.settings.words),
            **dataclasses.asdict(self.settings.sizes),
            **origin,
        }


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of one shape as one with a new first axis; a single one is not copied."""
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(list(tensors))


class CompactVision:
    """The image half of a compact model, for answering: one picture in, out what questions about it need."""

    frozen = False

    def __init__(self, network: CompactNet, picture: PictureSpec) -> None:
        self._network = network
        self._picture = picture

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the picture's preparation and the weights of encoder, keys and values."""
        encoder = self._network.image_encoder
        digest = hashlib.sha256(f"{self._picture.key}/{encoder.foreground}".encode())
        for name, value in self._network.state_dict().items():
            if (
                name.startswith("image_encoder.")
                or ".cross_attention.key." in name
                or ".cross_attention.value." in name
            ):
                digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Mapping[str, Tensor]]:
        """Prepared pictures -> what `ImageMemory` holds of each, and {"token_deviation": (D,)} of the image tokens.

        With {"regions": (R, H, W)} in [0, 1] where it localizes them, and {"frame": (2, 3)} where it crops to the
        foreground.
        """
        if not pictures:
            return []
        if self._network.training:
            self._network.eval()
        encoder = self._network.image_encoder
        pixels = torch.from_numpy(stack_pictures(pictures)).to(encoder.position_embedding.device)
        features = image_features(self._network, encoder.encode(to_unit_range(pixels)))
        return [dict(zip(features, of_picture, strict=True)) for of_picture in zip(*features.values(), strict=True)]

    def to(self, device: torch.device) -> None:
        """Move the network, which it is part of."""
        self._network.to(device)


def _check(settings: CompactSettings) -> None:
    picture, sizes, foreground = settings.picture, settings.sizes, settings.foreground
    if picture.mode != "L" or picture.fit == "inside":
        raise ModelError(
            f"the compact model takes square grayscale pictures, not {picture.key}; use mode L, fit stretch or pad"
        )
    if sizes.width % sizes.heads:
        raise ModelError(f"width {sizes.width} cannot be divided among {sizes.heads} heads; use a multiple of it")
    if foreground is not None and foreground > picture.side:
        raise ModelError(
            f"the foreground has {foreground} pixels a side and the picture {picture.side}; "
            "prepare pictures at least as large as what is cut out of them"
        )


def _mirror(settings: CompactSettings, fraction: float) -> Mirror:
    """Tables from each word, answer and region to its mirror image."""
    index_of = {word: index for index, word in enumerate(settings.words.known, len(RESERVED_WORDS))}
    words = [*range(len(RESERVED_WORDS)), *(index_of.get(mirror_text(w), index) for w, index in index_of.items())]
    mirrored_answers = [mirror_text(answer) for answer in settings.answers.answers]
    answers = [settings.answers.index(a) if a in settings.answers else IGNORED_CLASS for a in mirrored_answers]
    region_of = {name.lower(): index for index, name in enumerate(settings.regions)}
    regions = [region_of.get(mirror_text(name), index) for name, index in region_of.items()]
    return Mirror(fraction, *(torch.tensor(table, dtype=torch.long) for table in (words, answers, regions)))


def _regions_of(query: Query) -> NDArray[np.uint8]:
    if query.regions is None:
        raise ModelError("the compact model was built to learn regions and got a question without them; prepare again")
    return query.regions
