"""A compact model exported to two ONNX graphs, answering without torch: onnxruntime and numpy are enough.

Its bundle holds `image.onnx` (pictures -> tokens), `answer.onnx` (tokens and words -> logits, attention),
`compact.json`, and `weights.safetensors`, from which both graphs read their weights and the torch family can train on.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from medical_vqa.data.imaging.pictures import PictureSpec
from medical_vqa.errors import BundleError, MissingDependencyError
from medical_vqa.models.base import ModelFamily, Query, distinct
from medical_vqa.models.compact.postprocess import (
    SETTINGS,
    WEIGHTS,
    encode_questions,
    encoded_once,
    looks_at,
    maps_of,
    ranked,
    read_settings,
    scope_abstention_reason,
    stack_pictures,
)
from medical_vqa.models.compact.question_understanding import ImageTypes, QuestionParser, entity_names
from medical_vqa.models.vocabulary import AnswerVocabulary, WordVocabulary
from medical_vqa.runtime.devices import cores
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Prediction

if TYPE_CHECKING:
    import torch

    from medical_vqa.models.base import Visual

IMAGE_GRAPH, ANSWER_GRAPH = "image.onnx", "answer.onnx"


class CompactOnnx(ModelFamily):
    """The two graphs with their vocabularies: question and picture in, one of the training answers out."""

    family = "compact-onnx"
    has_closed_answers = True
    has_attention_maps = True
    extras = ("onnx",)

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Open the graphs that lie in `folder`; `settings` are those of ``compact.json``."""
        self.picture = PictureSpec.from_json(settings["picture"])
        self.words = WordVocabulary(tuple(settings["words"]))
        self.answers = AnswerVocabulary(tuple(settings["answers"]))
        self.regions = tuple(settings["regions"])
        self.parser = QuestionParser(self.words, entity_names(self.regions, self.answers.answers))
        self.image_types = ImageTypes(**settings["image_types"])
        self._folder, self._sizes = folder, dict(settings["sizes"])
        self._answerer = _session(folder / ANSWER_GRAPH)
        self.vision = OnnxVision(folder, self.picture)

    @classmethod
    def load(cls, folder: Path, *, device: torch.device | None = None) -> Self:  # noqa: ARG003 - runs on the CPU
        """Read what `onnx_export.write_graphs` wrote; raises `BundleError` when a file is damaged.

        Raises `MissingDependencyError` where onnxruntime is not installed.
        """
        try:
            return cls(folder, read_settings(folder))
        except MissingDependencyError:
            raise
        except Exception as error:  # onnxruntime's errors have no root of their own
            reason = " ".join(str(error).split())[:200]
            raise BundleError(f"the bundle {folder} is damaged ({reason}); export or copy it again") from error

    def answer(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:
        """The most probable training answer to each question; every image among the queries is encoded once."""
        if not queries:
            return []
        return ranked(queries, _softmax(self.logits(queries)), self.answers, decoding.alternatives)

    def logits(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Logits (N, answers), before the softmax that makes confidences of them."""
        return self._run("logits", queries)

    def abstention_reason(self, query: Query, prediction: Prediction) -> str | None:  # noqa: ARG002 (what it answered tells nothing)
        """Why the answer means nothing, as the model that was exported says it."""
        return scope_abstention_reason(query, self.parser, self.image_types, self.answer)

    def attention_maps(self, queries: Sequence[Query]) -> list[NDArray[np.float32]]:
        """Where each answer comes from, one map (rows, columns) each that sums to 1, as `Compact.look` gives it."""
        if not queries:
            return []
        seen = encoded_once(queries, self._encoded)
        answers = self.answer(seen, Decoding(alternatives=0))
        found = _named(seen, "regions")
        return looks_at(seen, answers, self.attention(seen), found, self.parser, self.regions)

    def attention(self, queries: Sequence[Query]) -> list[NDArray[np.float32]]:
        """How much the words of each question look at each cell (rows, columns); sums to 1."""
        seen = encoded_once(queries, self._encoded)
        return maps_of(self._run("attention", seen), _named(seen, "frame"))

    def _run(self, output: str, queries: Sequence[Query]) -> NDArray[np.float32]:
        visuals, image_of = distinct(queries)
        words = encode_questions([q.question for q in queries], self.parser, int(self._sizes["question_words"]))
        inputs = {"tokens": self._tokens(visuals), "image_of": np.array(image_of, np.int64), "words": words}
        found: NDArray[np.float32] = self._answerer.run([output], inputs)[0]
        return found

    def save(self, folder: Path) -> None:
        """Copy the graphs and their settings."""
        for name in (IMAGE_GRAPH, ANSWER_GRAPH, SETTINGS, WEIGHTS):
            shutil.copyfile(self._folder / name, folder / name)

    def describe(self) -> dict[str, Any]:
        """Answers, words and sizes."""
        return {"answers": len(self.answers), "words": len(self.words), **self._sizes}

    def _tokens(self, visuals: Sequence[Visual]) -> NDArray[np.float32]:
        """Image tokens (B, T, D), from features where they are given and from pictures otherwise."""
        return np.stack([features["tokens"] for features in self._encoded(visuals)])

    def _encoded(self, visuals: Sequence[Visual]) -> list[Mapping[str, NDArray[Any]]]:
        """Features as they are given, and those of pictures."""
        encoded = iter(self.vision.encode([v for v in visuals if isinstance(v, np.ndarray)]))
        return [next(encoded) if isinstance(v, np.ndarray) else v for v in visuals]


class OnnxVision:
    """The image encoder's graph: one picture in, its tokens out."""

    frozen = False  # it cannot train, but encoding takes milliseconds: nothing is gained by keeping features on disk

    def __init__(self, folder: Path, picture: PictureSpec) -> None:
        self._session = _session(folder / IMAGE_GRAPH)
        self._outputs = [output.name for output in self._session.get_outputs()]
        content = (folder / IMAGE_GRAPH).read_bytes() + (folder / WEIGHTS).read_bytes()
        self.fingerprint = hashlib.sha256(picture.key.encode() + content).hexdigest()
        """SHA-256 over the picture's preparation, the graph and the weights."""

    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Mapping[str, NDArray[Any]]]:
        """Prepared pictures -> {"tokens": (T, D)} each, and what else `CompactVision.encode` gives."""
        if not pictures:
            return []
        found = self._session.run(self._outputs, {"pictures": stack_pictures(pictures)})
        return [dict(zip(self._outputs, of_picture, strict=True)) for of_picture in zip(*found, strict=True)]

    def to(self, device: torch.device) -> None:
        """Stay: the graph runs on the CPU."""


def _session(path: Path) -> Any:
    try:
        import onnxruntime  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError(
            "this bundle runs on ONNX Runtime, which is not installed; run: pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other processes want the cores too
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _named(seen: Sequence[Query], name: str) -> list[NDArray[Any] | None]:
    """A feature of each query's image, None where it has no such feature."""
    return [query.visual.get(name) for query in seen]  # type: ignore[union-attr]


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    shares: NDArray[np.float32] = powers / powers.sum(1, keepdims=True)
    return shares
