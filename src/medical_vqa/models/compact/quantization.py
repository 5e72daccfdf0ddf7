"""Weights stored in 8 bits: symmetric, weight only, one scale for each output channel.

A weight ``NAME`` of two or more axes is stored as int8 ``NAME`` (rows, ...) and fp32 ``NAME_scale`` (rows, 1, ...), the
names of `compressed-tensors`_; the weight is their product. Biases, norms and statistics are stored in 16 bits. What is
computed with is in 32 bits: the files are smaller, and not the memory.

.. _compressed-tensors: https://github.com/neuralmagic/compressed-tensors
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE_SUFFIX = "_scale"
"""What the name of a weight's scales has in addition to that of the weight."""
_LARGEST = 127
_FEWEST = 2048
"""Weights of fewer elements keep 16 bits: they save little, and errors of a small one reach every token."""


def quantized(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors to store: int8 with their scales, and 16 bits for what has one axis or few elements."""
    stored = {}
    for name, weight in weights.items():
        if not weight.is_floating_point():
            stored[name] = weight
        elif weight.ndim < 2 or weight.numel() < _FEWEST:
            stored[name] = weight.half()
        else:
            largest = weight.float().abs().amax(tuple(range(1, weight.ndim)), keepdim=True)
            scale = largest.clamp_min(torch.finfo(torch.float32).tiny) / _LARGEST
            stored[name] = (weight.float() / scale).round().to(torch.int8)
            stored[name + SCALE_SUFFIX] = scale
    return stored


def dequantized(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of what was stored, in however many bits.

    Raises `ValueError` where int8 weights and scales are not in pairs, or their shapes do not fit.
    """
    weights = dict(stored)
    for name in [name for name, tensor in stored.items() if tensor.dtype == torch.int8]:
        scale = weights.pop(name + SCALE_SUFFIX, None)
        expected = (len(stored[name]), *(1 for _ in stored[name].shape[1:]))
        if scale is None or scale.shape != expected:
            received = "none" if scale is None else f"scales of shape {tuple(scale.shape)}"
            raise ValueError(f"{name} is stored in 8 bits: expected scales of shape {expected}, received {received}")
        weights[name] = stored[name].float() * scale.float()
    return weights
