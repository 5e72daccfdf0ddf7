"""The compact family: the embedded default, trained from scratch on a CPU; a classifier over the training answers."""

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

from medical_vqa.data.imaging.pictures import PictureSpec
from medical_vqa.errors import BundleError, ModelError
from medical_vqa.models.augment import UNSAID, Augment, Mirror, mirrored
from medical_vqa.models.base import Query, distinct, targets_of
from medical_vqa.models.compact.family import CompactFamily
from medical_vqa.models.compact.initialization import NamedNetwork, copy_weights
from medical_vqa.models.compact.network import CompactNet, ImageEncoder, to_unit
from medical_vqa.models.compact.postprocess import (
    WEIGHTS,
    encode_questions,
    encoded_once,
    looks_at,
    maps_of,
    ranked,
    read_settings,
    scope_abstention_reason,
    stack_pictures,
    write_settings,
)
from medical_vqa.models.compact.question_understanding import ImageTypes, QuestionParser, entity_names
from medical_vqa.models.compact.rewording import phrases, reworded
from medical_vqa.models.fsdp import unsharded_state
from medical_vqa.models.vocabulary import AnswerVocabulary, WordVocabulary
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Example, Prediction

if TYPE_CHECKING:
    from medical_vqa.models.base import Batch, Visual

_NO_IMAGE_TYPES = ImageTypes()


@dataclass(frozen=True, slots=True)
class Sizes:
    """What fixes the shape of the network."""

    channels: tuple[int, ...]
    """Output channels of the stem and of each residual block."""
    width: int
    """Width of words and image tokens."""
    heads: int
    """Attention heads."""
    layers: int
    """Layers of attention."""
    dropout: float
    """Share of activations dropped in training."""
    question_words: int
    """Words of a question that are read."""


class Compact(CompactFamily):
    """The network with its vocabularies: question and picture in, one of the training answers out."""

    def __init__(
        self,
        *,
        picture: PictureSpec,
        sizes: Sizes,
        words: WordVocabulary,
        answers: AnswerVocabulary,
        regions: Sequence[str] = (),
        image_types: ImageTypes = _NO_IMAGE_TYPES,
        region_weight: float = 1.0,
        local_contrast: bool = False,
        foreground: int | None = None,
        label_smoothing: float = 0.0,
        augment: Augment | None = None,
        mirror: float = 0.0,
        reword: float = 0.0,
    ) -> None:
        if picture.mode != "L" or picture.fit == "inside":
            raise ModelError(
                f"the compact model takes square grayscale pictures, not {picture.key}; use mode L, fit stretch or pad"
            )
        if sizes.width % sizes.heads:
            raise ModelError(f"width {sizes.width} cannot be shared among {sizes.heads} heads; choose a multiple of it")
        self.picture, self.sizes, self.words, self.answers = picture, sizes, words, answers
        if foreground is not None and foreground > picture.side:
            raise ModelError(
                f"the foreground has {foreground} pixels a side and the picture {picture.side}; "
                "prepare pictures at least as large as what is cut out of them"
            )
        self.regions, self.local_contrast, self.foreground = tuple(regions), local_contrast, foreground
        self._reword = reword
        self.parser = QuestionParser(words, entity_names(self.regions, answers.answers))
        self.image_types = image_types
        self._learn_regions = True
        shape = {k: v for k, v in dataclasses.asdict(sizes).items() if k != "question_words"}
        self.module = CompactNet(
            side=picture.side,
            words=len(words),
            answers=len(answers),
            regions=len(self.regions),
            region_weight=region_weight,
            contrast=local_contrast,
            foreground=foreground,
            smoothing=label_smoothing,
            augment=augment,
            mirror=self._mirror(mirror) if mirror else None,
            **shape,
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
        local_contrast: bool = True,
        foreground: int | None = None,
        initial: Path | None = None,
        channels: Sequence[int],
        width: int,
        heads: int,
        layers: int,
        dropout: float,
        question_words: int,
    ) -> Self:
        """A fresh model, its vocabularies from these training rows; raises `ModelError` when none has an answer.

        `initial` is the bundle of a compact model to start from, whose words stay known, and its regions where these
        rows have none; raises `BundleError` when it is damaged.
        """
        answered = [e for e in examples if e.answers]
        earlier = cls.load(initial, device=torch.device("cpu")) if initial else None
        known = [*earlier.words.known] if earlier else []
        model = cls(
            picture=PictureSpec(**picture),
            sizes=Sizes(tuple(channels), width, heads, layers, dropout, question_words),
            label_smoothing=label_smoothing,
            augment=Augment(**augment) if augment else None,
            mirror=mirror,
            reword=reword,
            regions=regions or (earlier.regions if earlier else ()),
            region_weight=region_weight,
            local_contrast=local_contrast,
            foreground=foreground,
            words=WordVocabulary.from_questions(
                [*(e.question for e in answered), *(phrases() if reword else ()), *known]
            ),
            answers=AnswerVocabulary.from_answers(e.answers[0] for e in answered),
        )
        model._learn_regions = bool(regions)
        if earlier is not None:
            model.initialize_from(earlier)
        if regions:
            model.image_types = ImageTypes.from_examples(answered, model.parser)
        return model

    def initialize_from(self, earlier: Compact) -> float:
        """Copy an earlier model's weights in place; returns the fraction of this model's answers that it knew.

        Raises `ModelError` where the two differ in picture or sizes.
        """
        shapes = [
            f"{m.picture.key}, foreground {m.foreground}, local contrast {m.local_contrast}, {m.sizes}"
            for m in (earlier, self)
        ]
        if shapes[0] != shapes[1]:
            raise ModelError(
                f"the model to start from has {shapes[0]}, this one {shapes[1]}; "
                "give the recipe the same picture and sizes, or leave model.initial out"
            )
        target, source = (NamedNetwork(m.module, m.words.known, m.answers.answers, m.regions) for m in (self, earlier))
        return copy_weights(target, source)

    def _mirror(self, share: float) -> Mirror:
        places = {word: index for index, word in enumerate(self.words.known, 2)}
        words = [0, 1, *(places.get(mirrored(word), index) for word, index in places.items())]
        other = [mirrored(answer) for answer in self.answers.answers]
        answers = [self.answers.index(answer) if answer in self.answers else UNSAID for answer in other]
        kinds = {name.lower(): place for place, name in enumerate(self.regions)}
        regions = [kinds.get(mirrored(name), place) for name, place in kinds.items()]
        return Mirror(share, *(torch.tensor(row, dtype=torch.long) for row in (words, answers, regions)))

    @property
    def vision(self) -> CompactVision:
        """The image encoder: trained, so its features are good for answering only."""
        return CompactVision(self.module.image_encoder, self.picture)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.module.image_encoder.position_embedding.device
        return device

    def collate(self, queries: Sequence[Query]) -> Batch:
        """pictures uint8 (B, H, W, 1), image_of (N,), words (N, L), target (N,), supervised ()."""
        visuals, image_of = distinct(queries)
        targets = [self.answers.index(target) for target in targets_of(queries)]
        batch = {
            "pictures": torch.from_numpy(stack_pictures(visuals)),
            "image_of": torch.tensor(image_of),
            "words": self._words([self._reworded(q.question) for q in queries]),
            "target": torch.tensor(targets),
            "supervised": torch.tensor(len(targets)),
        }
        return batch | self._regions(queries, image_of)

    def _regions(self, queries: Sequence[Query], image_of: Sequence[int]) -> Batch:
        """regions uint8 (B, R, h, w), where the model was built to learn them."""
        if not self.regions or not self._learn_regions:
            return {}
        first = dict(zip(image_of, queries, strict=True))
        return {"regions": torch.stack([torch.from_numpy(_known_regions(first[i])) for i in range(len(first))])}

    def answer(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:
        """The most probable training answer to each question; every image among the queries is encoded once."""
        if not queries:
            return []
        shares = self.logits(queries).softmax(-1).cpu().numpy()
        return ranked(queries, shares, self.answers, decoding.alternatives)

    @torch.inference_mode()
    def logits(self, queries: Sequence[Query]) -> Tensor:
        """Logits (N, answers) in fp32, before the softmax that makes confidences of them."""
        logits: Tensor = self.module.logits(*self._inputs(queries)).float()
        return logits

    def abstention_reason(self, query: Query, prediction: Prediction) -> str | None:  # noqa: ARG002 (what it answered tells nothing)
        """Why the answer means nothing: a language or words that training never used, or a thing that is not there."""
        return scope_abstention_reason(query, self.parser, self.image_types, self.answer)

    @torch.inference_mode()
    def attention_maps(self, queries: Sequence[Query]) -> list[NDArray[np.float32]]:
        """Where in the picture each answer comes from, one map (rows, columns) each that sums to 1.

        Where the question or its answer names a thing that the network learned to find, the map is what it found of it;
        otherwise it is the attention of the question's words to the image.
        """
        seen = encoded_once(queries, self._encoded)
        answers = self.answer(seen, Decoding(alternatives=0))
        found = _named(seen, "regions")
        return looks_at(seen, answers, self.attention(seen), found, self.parser, self.regions)

    @torch.inference_mode()
    def attention(self, queries: Sequence[Query]) -> list[NDArray[np.float32]]:
        """How much the words of each question look at each cell (rows, columns) in the last layer; sums to 1."""
        if not queries:
            return []
        seen = encoded_once(queries, self._encoded)
        shares = self.module.attention(*self._inputs(seen))
        return maps_of(shares.float().cpu().numpy(), _named(seen, "frame"))

    def _inputs(self, queries: Sequence[Query]) -> tuple[Tensor, Tensor, Tensor]:
        """tokens (B, T, D), image_of (N,), words (N, L), with the network ready to answer."""
        self.module.eval()
        visuals, image_of = distinct(queries)
        words = self._words([query.question for query in queries]).to(self.device)
        return self._tokens(visuals), torch.tensor(image_of, device=self.device), words

    def _tokens(self, visuals: Sequence[Visual]) -> Tensor:
        """Image tokens (B, T, D), from features where they are given and from pictures otherwise."""
        return torch.stack([f["tokens"].to(self.device) for f in self._encoded(visuals)])

    def _encoded(self, visuals: Sequence[Visual]) -> list[Mapping[str, Tensor]]:
        """Features as they are given, and those of pictures."""
        encoded = iter(self.vision.encode([v for v in visuals if isinstance(v, np.ndarray)]))
        return [next(encoded) if isinstance(v, np.ndarray) else v for v in visuals]

    def _reworded(self, question: str) -> str:
        """A training question, some of the time in other words; chance comes from torch, whose state a run keeps."""
        if not self._reword or float(torch.rand(())) >= self._reword:
            return question
        return reworded(question, lambda n: int(torch.randint(n, ())))

    def _words(self, questions: Sequence[str]) -> Tensor:
        return torch.from_numpy(encode_questions(questions, self.parser, self.sizes.question_words))

    def save(self, folder: Path, *, half: bool = False) -> None:
        """Write ``weights.safetensors`` and ``compact.json`` (sizes, picture, vocabularies).

        `half` stores 16 bits a weight; reading them back gives a model in 32 bits.
        """
        weights = {k: v.contiguous().cpu() for k, v in unsharded_state(self.module).items()}
        if half:
            weights = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
        save_file(weights, folder / WEIGHTS)
        (folder / WEIGHTS).chmod(0o644)  # the writer leaves it to its owner alone, and packages keep that
        write_settings(folder, self.settings())

    def settings(self) -> dict[str, Any]:
        """What answering needs beside the weights: sizes, picture, vocabularies."""
        return {
            "picture": self.picture.to_json(),
            "sizes": dataclasses.asdict(self.sizes),
            "words": list(self.words.known),
            "answers": list(self.answers.answers),
            "regions": list(self.regions),
            "local_contrast": self.local_contrast,
            "foreground": self.foreground,
            "image_types": dataclasses.asdict(self.image_types),
        }

    @classmethod
    def load(cls, folder: Path, *, device: torch.device) -> Self:
        """Read back what `save` wrote; raises `BundleError` when a file is damaged or does not fit."""
        try:
            settings = read_settings(folder)
            sizes = settings["sizes"]
            model = cls(
                picture=PictureSpec.from_json(settings["picture"]),
                sizes=Sizes(**{**sizes, "channels": tuple(sizes["channels"])}),
                words=WordVocabulary(tuple(settings["words"])),
                answers=AnswerVocabulary(tuple(settings["answers"])),
                regions=settings.get("regions", ()),
                local_contrast=settings.get("local_contrast", False),
                foreground=settings.get("foreground"),
                image_types=ImageTypes(**settings.get("image_types", {})),
            )
            model.module.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BundleError(f"the bundle {folder} is damaged ({reason}); train or copy it again") from error
        model.module.to(device).eval()
        return model

    def describe(self) -> dict[str, Any]:
        """Parameters, answers and words."""
        count = sum(p.numel() for p in self.module.parameters())
        return {
            "parameters": count,
            "answers": len(self.answers),
            "words": len(self.words),
            **dataclasses.asdict(self.sizes),
        }


class CompactVision:
    """The image encoder of a compact model, for answering: one picture in, its tokens out."""

    frozen = False

    def __init__(self, encoder: ImageEncoder, picture: PictureSpec) -> None:
        self._encoder, self._picture = encoder, picture

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the picture's preparation and the encoder's weights."""
        digest = hashlib.sha256(f"{self._picture.key}/{self._encoder.foreground}".encode())
        for name, value in self._encoder.state_dict().items():
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Mapping[str, Tensor]]:
        """Prepared pictures -> {"tokens": (T, D)} each.

        With {"regions": (R, H, W)} in [0, 1] where it finds them, and {"frame": (2, 3)} where it sees the foreground.
        """
        if not pictures:
            return []
        self._encoder.eval()
        shown = to_unit(torch.from_numpy(stack_pictures(pictures)).to(self._encoder.position_embedding.device))
        seen = self._encoder.see(shown)
        named = {"tokens": seen.tokens, "regions": seen.found(), "frame": seen.frame}
        kept = {name: value for name, value in named.items() if value is not None}
        if "regions" in kept:
            kept["regions"] = kept["regions"].half()  # kept for every image a server holds
        return [dict(zip(kept, of_picture, strict=True)) for of_picture in zip(*kept.values(), strict=True)]

    def to(self, device: torch.device) -> None:
        """Move the encoder, which is part of the network."""
        self._encoder.to(device)


def _named(seen: Sequence[Query], name: str) -> list[NDArray[Any] | None]:
    """A feature of each query's image, None where it has no such feature."""
    return [q.visual[name].float().cpu().numpy() if name in q.visual else None for q in seen]  # type: ignore[call-overload]


def _known_regions(query: Query) -> NDArray[np.uint8]:
    if query.regions is None:
        raise ModelError("the compact model was built to learn regions and got a question without them; prepare again")
    return query.regions
