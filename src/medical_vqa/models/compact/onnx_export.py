"""Exports a compact model as two ONNX graphs, and checks that they answer as the model does.

The image encoder passes torch's newer exporter. The rest needs the older one, which traces: it writes the packed
recurrent net as one ONNX operator of any length, while the newer requires shapes that do not depend on the words.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from medical_vqa.errors import MissingDependencyError, ModelError
from medical_vqa.models.base import Query
from medical_vqa.models.compact.image_encoder import to_unit_range
from medical_vqa.models.compact.network import CompactNet, ImageMemory, QuestionEncoder, WordRows, image_features
from medical_vqa.models.compact.onnx_model import ANSWER_GRAPH, IMAGE_GRAPH, CompactOnnx
from medical_vqa.models.compact.settings import WEIGHTS_FILE
from medical_vqa.schema.bundle_card import Decoding

if TYPE_CHECKING:
    from medical_vqa.models.compact.model import Compact

OPSET = 18
TOLERANCE = 1e-4
"""Largest difference of a logit, of a probability or of an attention weight, between the model and its export."""
RELATIVE_TOLERANCE = 2e-5
"""Largest difference of a logit, as a fraction of the largest logit, where that is more: fp32 rounds a sum of products
to a fraction of its size, about 1e-7 for each of some hundred steps."""


class Encode(nn.Module):
    """pictures uint8 (B, H, W, C) -> what `CompactVision.encode` gives of each, in the order of `outputs`."""

    def __init__(self, net: CompactNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """The image half of the network."""
        return tuple(image_features(self.net, self.net.image_encoder.encode(to_unit_range(pictures))).values())

    @property
    def outputs(self) -> list[str]:
        """Names of its outputs."""
        encoder = self.net.image_encoder
        optional = {"regions": encoder.region_head is not None, "frame": encoder.foreground is not None}
        return [*ImageMemory._fields, "token_deviation", *(name for name, present in optional.items() if present)]


class Answer(nn.Module):
    """Memory of B images, image_of (N,), words (N, L) -> logits (N, answers), attention weights (N, T)."""

    def __init__(self, net: CompactNet) -> None:
        super().__init__()
        self.net = net
        self.question_encoder = Once(net.question_encoder)
        net.question_encoder = self.question_encoder  # type: ignore[assignment]

    def forward(
        self, keys: Tensor, values: Tensor, token_mean: Tensor, image_of: Tensor, words: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The question half, every question with its own copy of its image's memory."""
        self.question_encoder.vectors = None
        memory = ImageMemory(keys[image_of], values[image_of], token_mean[image_of])
        inputs = (memory, torch.arange(image_of.shape[0]), words)
        return self.net.logits(*inputs), self.net.attention(*inputs)


class Once(nn.Module):
    """Encodes the words once for logits and attention: the exporter confuses two recurrent nets over the same words."""

    def __init__(self, encoder: QuestionEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.vectors: Tensor | None = None

    def forward(self, words: Tensor) -> Tensor:
        """Words (N, L) -> padded vectors (N L, D), those of the last call where there was one."""
        if self.vectors is None:
            self.vectors = self.encoder.padded(words).flatten(0, 1)
        return self.vectors


class PaddedLayout:
    """The `WordLayout` of questions that share no image, with their padding: nothing has to be packed or unpacked."""

    def __init__(self, mask: Tensor, image_of: Tensor, images: int) -> None:  # noqa: ARG002 - as in `WordLayout`
        self.mask = mask[:, None, None, :]  # (N, 1, 1, L)
        self.by_question = self.by_image = WordRows(torch.arange(mask.numel()), *mask.shape, full=True)
        self.fractions = (mask / mask.sum(1, keepdim=True)).unsqueeze(1)  # (N, 1, L)

    def mean(self, x: Tensor) -> Tensor:
        """(N L, D) -> the mean over each question's words (N, D)."""
        return (self.fractions @ self.by_question.unpack(x)).squeeze(1)


def export(model: Compact, bundle: Path, folder: Path, queries: Sequence[Query]) -> tuple[float, int]:
    """Write the export of a bundle and compare it with the model.

    Args:
        model: The model of the bundle.
        bundle: Folder of the bundle.
        folder: An existing folder to write into.
        queries: Questions that both must answer alike.

    Returns:
        The largest difference between their logits and attention, and the version of the ONNX operator set.

    Raises:
        MissingDependencyError: If `onnx` or `onnxscript` is not installed.
        ModelError: If the export answers otherwise, or a weight was changed.
    """
    write_graphs(model, bundle / WEIGHTS_FILE, folder)
    return check(model, CompactOnnx.load(folder), queries), OPSET


def write_graphs(model: Compact, weights: Path, folder: Path) -> None:
    """Write a bundle's files that answer without torch: two graphs, ``compact.json`` and the weights they share.

    Args:
        model: The model that `weights` were loaded into, unchanged since.
        weights: Its ``weights.safetensors``.
        folder: An existing folder.

    Raises:
        MissingDependencyError: If `onnx` or `onnxscript` is not installed.
        ModelError: If the exporter changed a weight in a way that the graph cannot express.
    """
    if missing := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise MissingDependencyError(
            f"writing ONNX graphs needs the package {missing[0]}, which is not installed; "
            "run: pip install 'medical-vqa[onnx-export]'"
        )
    net = copy.deepcopy(model.module).cpu().eval()
    net.layout = PaddedLayout
    side, channels = model.picture.side, model.picture.channels
    pictures = torch.zeros(2, side, side, channels, dtype=torch.uint8)
    with _quiet(), torch.inference_mode():
        _write_encoder(net, pictures, folder / IMAGE_GRAPH)
        memory = net.memory(net.image_encoder(to_unit_range(pictures)))
        _write_answerer(net, memory, folder / ANSWER_GRAPH)
    model.settings.write(folder)
    shutil.copyfile(weights, folder / WEIGHTS_FILE)
    from medical_vqa.models.compact.onnx_weights import share_weights  # noqa: PLC0415 - needs the package onnx

    epsilons = {name: norm.eps for name, norm in net.named_modules() if isinstance(norm, nn.BatchNorm2d)}
    for graph in (IMAGE_GRAPH, ANSWER_GRAPH):
        share_weights(folder / graph, folder / WEIGHTS_FILE, epsilons)


def _write_encoder(net: CompactNet, pictures: Tensor, path: Path) -> None:
    encode = Encode(net).eval()
    torch.onnx.export(
        encode,
        (pictures,),
        str(path),
        dynamo=True,
        external_data=False,
        verbose=False,
        opset_version=OPSET,
        input_names=["pictures"],
        output_names=encode.outputs,
        dynamic_shapes=({0: torch.export.Dim("images")},),
    )


def _write_answerer(net: CompactNet, memory: ImageMemory, path: Path) -> None:
    words = torch.tensor([[2, 2, 2], [2, 0, 0], [1, 2, 0]])  # of several lengths: what is traced must pack them
    torch.onnx.export(
        Answer(net).eval(),
        (*memory, torch.tensor([1, 0, 1]), words),
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=[*ImageMemory._fields, "image_of", "words"],
        output_names=["logits", "attention"],
        dynamic_axes={
            **{name: {0: "images"} for name in ImageMemory._fields},
            "image_of": {0: "questions"},
            "words": {0: "questions", 1: "length"},
            "logits": {0: "questions"},
            "attention": {0: "questions"},
        },
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporters' warnings of deprecation, absent packages and other batch sizes, which `check` covers."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def check(model: Compact, exported: CompactOnnx, queries: Sequence[Query]) -> float:
    """The largest difference between logits or attention weights of the model and of its export.

    Args:
        model: The model.
        exported: Its graphs.
        queries: Questions that both answer.

    Raises:
        ModelError: A difference is above `TOLERANCE` and `RELATIVE_TOLERANCE`, or an answer differs.
    """
    expected_logits, actual_logits = model.logits(queries).cpu(), torch.from_numpy(exported.logits(queries))
    logits = (expected_logits - actual_logits).abs().max()
    probabilities = (expected_logits.softmax(-1) - actual_logits.softmax(-1)).abs().max()
    allowed = max(TOLERANCE, RELATIVE_TOLERANCE * float(expected_logits.abs().max()))
    pairs = zip(model.attention(queries), exported.attention(queries), strict=True)
    attention = max(np.abs(expected - actual).max() for expected, actual in pairs)
    difference = max(float(logits), float(attention))
    in_unit_range = max(float(probabilities), float(attention))
    answers = [[p.answer for p in m.answer(queries, Decoding())] for m in (model, exported)]
    wrong = sum(expected != actual for expected, actual in zip(*answers, strict=True))
    if wrong or not (difference <= allowed and in_unit_range <= TOLERANCE):  # `not <=` catches a nan as well
        raise ModelError(
            f"the exported graphs differ from the model: {wrong} of {len(queries)} answers, logits or attention by up "
            f"to {difference:.1e} (at most {allowed:.1e} is allowed); nothing was written, install the versions of "
            "torch, onnx and onnxruntime in constraints.txt and export again"
        )
    return difference
