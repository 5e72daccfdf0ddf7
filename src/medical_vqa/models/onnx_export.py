"""A compact model written as two ONNX graphs, and the proof that they answer as the model does.

torch's older exporter is used, the one that traces: it writes the packed recurrent net as one ONNX operator of any
length, which the newer one cannot (it needs shapes that do not depend on the words).
"""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from medical_vqa.errors import MissingDependencyError, ModelError
from medical_vqa.models.compact_net import CompactNet, to_unit
from medical_vqa.models.compact_onnx import ANSWER_GRAPH, IMAGE_GRAPH, CompactOnnx
from medical_vqa.models.compact_parts import write_settings
from medical_vqa.models.model import Decoding, Query

if TYPE_CHECKING:
    from medical_vqa.models.compact import Compact

OPSET = 18
TOLERANCE = 1e-4
"""Largest difference between a logit of the graphs and the model's own."""


class Encode(nn.Module):
    """pictures uint8 (B, H, W, C) -> tokens (B, T, D)."""

    def __init__(self, net: CompactNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, pictures: Tensor) -> Tensor:
        """The image half of the network."""
        tokens: Tensor = self.net.image(to_unit(pictures))
        return tokens


class Answer(nn.Module):
    """tokens (B, T, D), image_of (N,), words (N, L) -> logits (N, answers)."""

    def __init__(self, net: CompactNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, tokens: Tensor, image_of: Tensor, words: Tensor) -> Tensor:
        """The question half, every question with its own copy of its image's tokens."""
        return self.net.logits(tokens[image_of], torch.arange(image_of.shape[0]), words)


class Alone:
    """The `Place` of questions that share no image: nothing to bring together, and no shape that depends on values."""

    def __init__(self, image_of: Tensor, images: int, length: int) -> None:
        """As `Place`."""

    def scatter(self, x: Tensor) -> Tensor:
        """(N, L, D) as it is."""
        return x

    def gather(self, x: Tensor) -> Tensor:
        """(N, L, D) as it is."""
        return x


def write_graphs(model: Compact, folder: Path) -> None:
    """Write both graphs and ``compact.json``; raises `MissingDependencyError` where `onnx` is not installed."""
    if importlib.util.find_spec("onnx") is None:
        raise MissingDependencyError(
            "writing ONNX graphs needs the package onnx, which is not installed; "
            "run: pip install 'medical-vqa[onnx-export]'"
        )
    net = copy.deepcopy(model.module).cpu().eval()
    net.place = Alone
    side, channels = model.picture.side, model.picture.channels
    pictures = torch.zeros(2, side, side, channels, dtype=torch.uint8)
    _write(Encode(net), (pictures,), folder / IMAGE_GRAPH, {"pictures": ["images"]}, "tokens")
    with torch.inference_mode():
        tokens = net.image(to_unit(pictures))
    words = torch.tensor([[2, 2, 2], [2, 0, 0], [1, 2, 0]])  # of several lengths: what is traced must pack them
    inputs = (tokens, torch.tensor([1, 0, 1]), words)
    axes = {"tokens": ["images"], "image_of": ["questions"], "words": ["questions", "length"]}
    _write(Answer(net), inputs, folder / ANSWER_GRAPH, axes, "logits")
    write_settings(folder, model.settings())


def _write(module: nn.Module, inputs: tuple[Tensor, ...], path: Path, axes: dict[str, list[str]], output: str) -> None:
    free = {name: dict(enumerate(names)) for name, names in axes.items()}
    free[output] = {0: "images" if output == "tokens" else "questions"}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # about the exporter's age and about batches, which `check` tries
        torch.onnx.export(
            module,
            inputs,
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(axes),
            output_names=[output],
            dynamic_axes=free,
        )


def check(model: Compact, exported: CompactOnnx, queries: Sequence[Query]) -> float:
    """The largest difference between logits; raises `ModelError` above `TOLERANCE` or where an answer differs."""
    difference = float(np.abs(model.logits(queries).cpu().numpy() - exported.logits(queries)).max())
    answers = [[p.answer for p in m.answer(queries, Decoding())] for m in (model, exported)]
    wrong = sum(ours != theirs for ours, theirs in zip(*answers, strict=True))
    if wrong or not difference <= TOLERANCE:  # `not <=` catches a nan as well
        raise ModelError(
            f"the exported graphs differ from the model: {wrong} of {len(queries)} answers, logits by up to "
            f"{difference:.1e} (at most {TOLERANCE:.0e} is allowed); nothing was written, install the versions of "
            "torch, onnx and onnxruntime in constraints.txt and export again"
        )
    return difference
