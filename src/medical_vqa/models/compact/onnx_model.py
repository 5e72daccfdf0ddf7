"""A compact model exported to two ONNX graphs, answering without torch: onnxruntime and numpy are enough.

Its bundle holds `image.onnx` (pictures -> keys, values …), `answer.onnx` (those and words -> logits, attention),
`compact.json`, and `weights.safetensors`, from which both graphs read their weights and the torch family can train on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.errors import MissingDependencyError
from medical_vqa.models.base import ModelFamily, Query, distinct
from medical_vqa.models.compact.answering import CompactAnswering
from medical_vqa.models.compact.postprocess import stack_pictures
from medical_vqa.models.compact.settings import SETTINGS_FILE, WEIGHTS_FILE, CompactSettings, damaged_bundle
from medical_vqa.runtime.devices import cores

if TYPE_CHECKING:
    import torch

IMAGE_GRAPH, ANSWER_GRAPH = "image.onnx", "answer.onnx"


class CompactOnnx(CompactAnswering, ModelFamily):
    """The two graphs with their vocabularies: question and picture in, one of the training answers out."""

    family = "compact-onnx"
    has_closed_answers = True
    has_attention_maps = True

    def __init__(self, folder: Path, settings: CompactSettings) -> None:
        """Open the graphs in `folder`."""
        super().__init__(settings)
        self._folder = folder
        self._answer_graph = _open_session(folder / ANSWER_GRAPH, threads=1)  # too small to gain by a second one
        inputs = (graph_input.name for graph_input in self._answer_graph.get_inputs())
        self._run_options = onnxruntime_module().RunOptions()
        self._run_options.only_execute_path_to_fetches = True  # no attention weights where logits are read
        self._image_inputs = [name for name in inputs if name not in ("image_of", "words")]
        self._vision = OnnxVision(folder, settings.picture)

    @classmethod
    def load(cls, folder: Path, *, device: torch.device | None = None) -> Self:  # noqa: ARG003 - runs on the CPU
        """Read what `onnx_export.write_graphs` wrote.

        Raises:
            BundleError: A file is damaged.
            MissingDependencyError: ONNX Runtime is not installed.
        """
        try:
            return cls(folder, CompactSettings.read(folder))
        except MissingDependencyError:
            raise
        except Exception as error:  # errors of ONNX Runtime have no common base class
            raise damaged_bundle(folder, error, made_by="export") from error

    @property
    def vision(self) -> OnnxVision:
        """The image encoder's graph."""
        return self._vision

    def logits(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Logits (N, answers), from which a softmax makes probabilities."""
        return self._run("logits", queries)

    def probabilities(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Probability of each answer (N, answers)."""
        logits = self.logits(queries)
        powers = np.exp(logits - logits.max(1, keepdims=True))
        probabilities: NDArray[np.float32] = powers / powers.sum(1, keepdims=True)
        return probabilities

    def attention_weights(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Attention of each question to each image token (N, T)."""
        return self._run("attention", queries)

    @staticmethod
    def to_numpy(feature: Any) -> NDArray[Any]:
        """The feature itself."""
        array: NDArray[Any] = feature
        return array

    def _run(self, output: str, queries: Sequence[Query]) -> NDArray[np.float32]:
        visuals, image_of = distinct(queries)
        features = self.features_of(visuals)
        inputs = {
            **{name: np.stack([of_image[name] for of_image in features]) for name in self._image_inputs},
            "image_of": np.array(image_of, np.int64),
            "words": self.encode_words([query.question for query in queries]),
        }
        result: NDArray[np.float32] = self._answer_graph.run([output], inputs, self._run_options)[0]
        return result

    def save(self, folder: Path) -> None:
        """Copy the graphs, their settings and their weights."""
        for name in (IMAGE_GRAPH, ANSWER_GRAPH, SETTINGS_FILE, WEIGHTS_FILE):
            shutil.copyfile(self._folder / name, folder / name)

    def describe(self) -> dict[str, Any]:
        """Answers, words and sizes."""
        sizes = dataclasses.asdict(self.settings.sizes)
        return {"answers": len(self.answers), "words": len(self.settings.words), **sizes}


class OnnxVision:
    """The image encoder's graph: one picture in, out what questions about it need."""

    frozen = False  # it cannot train, but encoding takes milliseconds: nothing is gained by keeping features on disk

    def __init__(self, folder: Path, picture: PictureSpec) -> None:
        self._session = _open_session(folder / IMAGE_GRAPH, threads=cores())
        self._outputs = [output.name for output in self._session.get_outputs()]
        content = (folder / IMAGE_GRAPH).read_bytes() + (folder / WEIGHTS_FILE).read_bytes()
        self.fingerprint = hashlib.sha256(picture.key.encode() + content).hexdigest()
        """SHA-256 over the picture's preparation, the graph and the weights."""

    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Mapping[str, NDArray[Any]]]:
        """Prepared pictures -> what `CompactVision.encode` gives; a bundle of an earlier version gives tokens."""
        if not pictures:
            return []
        features = self._session.run(self._outputs, {"pictures": stack_pictures(pictures)})
        return [dict(zip(self._outputs, of_picture, strict=True)) for of_picture in zip(*features, strict=True)]

    def to(self, device: torch.device) -> None:
        """Stay: the graph runs on the CPU."""


def onnxruntime_module() -> Any:
    """The package onnxruntime; raises `MissingDependencyError` where it is not installed."""
    try:
        import onnxruntime  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError(
            "this bundle runs on ONNX Runtime, which is not installed; run: pip install onnxruntime"
        ) from error
    return onnxruntime


def _open_session(path: Path, *, threads: int) -> Any:
    onnxruntime = onnxruntime_module()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other processes want the cores too
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
