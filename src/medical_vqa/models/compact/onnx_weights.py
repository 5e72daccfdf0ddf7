"""ONNX graphs that read their weights from the bundle's ``weights.safetensors``, so that a bundle holds them once.

ONNX stores large tensors outside the graph as a file name, an offset and a length (`external data`_). A safetensors
file is a JSON header followed by the raw tensors (`format`_), so an initializer can point into it. Where the exporter
changed a weight (transposed it, joined it with a batch norm, or reordered the gates of a recurrent net), the graph
computes the change from the stored tensor; ONNX Runtime folds that, and the conversion from 8 or 16 bits, when it opens
the graph.

.. _external data: https://onnx.ai/onnx/repo-docs/ExternalData.html
.. _format: https://huggingface.co/docs/safetensors/index
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file

from medical_vqa.errors import ModelError
from medical_vqa.models.compact.quantization import SCALE_SUFFIX, dequantized

_SMALL = 256
"""Initializers of at most so many bytes stay in the graph: shapes, indices, constants of the exporter."""
_TYPES = {"F32": TensorProto.FLOAT, "F16": TensorProto.FLOAT16, "I8": TensorProto.INT8}
_WEIGHT_NAMES = ("net.", "onnx::")
"""How torch's two exporters name what comes from a module's parameters."""
_GATES = (1, 0, 2)
"""torch stacks the gates of a GRU as reset, update, new; ONNX as update, reset, new."""

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies in a safetensors file."""

    dtype: str
    """``F32``, ``F16`` or ``I8``."""
    shape: tuple[int, ...]
    """Its shape."""
    offset: int
    """First byte in the file."""
    length: int
    """Number of bytes."""


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """The weights of a safetensors file and the scales of those in 8 bits, by name."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    start = 8 + size
    return {
        name: StoredTensor(entry["dtype"], tuple(entry["shape"]), start + begin, end - begin)
        for name, entry in header.items()
        if name != "__metadata__" and entry["dtype"] in _TYPES
        for begin, end in [entry["data_offsets"]]
    }


def share_weights(graph_path: Path, weights_path: Path, epsilons: Mapping[str, float]) -> None:
    """Rewrite a graph in place so that its weights are read from a safetensors file in the same folder.

    Args:
        graph_path: The graph.
        weights_path: The safetensors file.
        epsilons: What each batch norm of the network adds to the variance, by its name.

    Raises:
        ModelError: An initializer is none of the stored tensors, nor one that the exporter derives from them.
    """
    model = onnx.load(str(graph_path))
    graph = model.graph
    sharing = _Sharing(weights_path, epsilons)
    nodes: list[onnx.NodeProto] = []
    for initializer in list(graph.initializer):
        value = numpy_helper.to_array(initializer)
        if value.nbytes <= _SMALL or value.dtype != np.float32:
            continue
        derived = list(sharing.nodes_for(initializer.name, value))
        if not derived and initializer.name.startswith(_WEIGHT_NAMES):
            raise ModelError(
                f"the exporter made a weight ({initializer.name}, {value.shape}) that is not one of the model's; "
                "install the versions of torch, onnx and onnxscript in constraints.txt and export again"
            )
        if not derived:
            continue  # a constant of the network, such as the coordinates of a grid
        nodes.extend(derived)
        graph.initializer.remove(initializer)
    graph.initializer.extend(sharing.initializers)
    exported = list(graph.node)
    for part in (*exported, *graph.value_info, graph, model):  # traces of the exporter, with paths of its machine
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    del graph.node[:]
    graph.node.extend([*nodes, *exported])
    onnx.save_model(model, str(graph_path))


class _Sharing:
    """Derives the initializers of one graph from stored tensors, each of which enters the graph once."""

    def __init__(self, weights_path: Path, epsilons: Mapping[str, float]) -> None:
        self._file = weights_path.name
        self._epsilons = epsilons
        self._stored = stored_tensors(weights_path)
        weights = dequantized(load_file(weights_path))
        self._values: dict[str, Array] = {n: w.float().numpy() for n, w in weights.items() if w.is_floating_point()}
        self._widened: set[str] = set()
        self.initializers: list[TensorProto] = []

    def nodes_for(self, initializer: str, value: Array) -> Iterator[onnx.NodeProto]:
        """Nodes whose last one has the initializer's name as its output; none where it is no weight."""
        for name, stored in self._values.items():
            if stored.shape == value.shape and np.array_equal(stored, value):
                yield from self._tensor(name)
                yield helper.make_node("Identity", [name], [initializer])
                return
            if stored.ndim == 2 and stored.T.shape == value.shape and np.array_equal(stored.T, value):
                yield from self._tensor(name)
                yield helper.make_node("Transpose", [name], [initializer], perm=[1, 0])
                return
        for parts in self._recurrent():
            if np.array_equal(_stacked(self._values, parts), value):
                yield from self._stack(initializer, parts)
                return
        for norm in self._norms(value.shape[0]):
            deviation = np.sqrt(self._values[f"{norm}.running_var"] + np.float32(self._epsilons[norm]))
            scale = self._values[f"{norm}.weight"] / deviation
            shift = self._values[f"{norm}.bias"] - self._values[f"{norm}.running_mean"] * scale
            if shift.shape == value.shape and np.allclose(shift, value, rtol=1e-5, atol=1e-6):
                yield from self._scale(norm)
                for part in ("bias", "running_mean"):
                    yield from self._tensor(f"{norm}.{part}")
                yield helper.make_node("Mul", [f"{norm}.running_mean", f"{norm}.scale"], [f"{initializer}.mean"])
                yield helper.make_node("Sub", [f"{norm}.bias", f"{initializer}.mean"], [initializer])
                return
            for name, stored in self._values.items():
                if (
                    stored.shape == value.shape
                    and value.ndim == 4
                    and np.allclose(stored * scale[:, None, None, None], value, rtol=1e-5, atol=1e-7)
                ):
                    yield from self._tensor(name)
                    yield from self._scale(norm)
                    yield helper.make_node("Mul", [name, f"{norm}.scale.kernel"], [initializer])
                    return

    def _norms(self, channels: int) -> Iterator[str]:
        """Names of the batch norms over so many channels."""
        for name, stored in self._stored.items():
            if name.endswith(".running_var") and stored.shape == (channels,):
                yield name.removesuffix(".running_var")

    def _scale(self, norm: str) -> Iterator[onnx.NodeProto]:
        """What a batch norm multiplies each channel by, as a vector and as a factor of convolution kernels."""
        if f"{norm}.scale" in self._widened:
            return
        self._widened.add(f"{norm}.scale")
        for part in ("weight", "running_var"):
            yield from self._tensor(f"{norm}.{part}")
        constants: dict[str, NDArray[Any]] = {
            "epsilon": np.array(self._epsilons[norm], np.float32),
            "axes": np.array([1, 2, 3], np.int64),
        }
        for name, value in constants.items():
            self.initializers.append(numpy_helper.from_array(value, f"{norm}.{name}"))
        yield helper.make_node("Add", [f"{norm}.running_var", f"{norm}.epsilon"], [f"{norm}.variance"])
        yield helper.make_node("Sqrt", [f"{norm}.variance"], [f"{norm}.deviation"])
        yield helper.make_node("Div", [f"{norm}.weight", f"{norm}.deviation"], [f"{norm}.scale"])
        yield helper.make_node("Unsqueeze", [f"{norm}.scale", f"{norm}.axes"], [f"{norm}.scale.kernel"])

    def _recurrent(self) -> Iterator[list[list[str]]]:
        """Tensors that one operand of a bidirectional GRU is made of: a row for each direction."""
        for name in self._stored:
            if name.endswith("_l0"):
                rows = [[name], [f"{name}_reverse"]]
                if "bias_ih" in name:
                    rows = [[part, part.replace("bias_ih", "bias_hh")] for (part,) in rows]
                if all(part in self._stored for row in rows for part in row):
                    yield rows

    def _stack(self, initializer: str, parts: list[list[str]]) -> Iterator[onnx.NodeProto]:
        """Nodes that reorder the gates of each part, join the parts of a direction, and stack the directions."""
        directions = []
        for number, row in enumerate(parts):
            reordered = []
            for name in row:
                yield from self._tensor(name)
                order = f"{initializer}.order.{name}"
                rows = _gate_rows(self._stored[name].shape[0])
                self.initializers.append(numpy_helper.from_array(rows, order))
                yield helper.make_node("Gather", [name, order], [f"{order}.rows"], axis=0)
                reordered.append(f"{order}.rows")
            joined = f"{initializer}.{number}"
            yield helper.make_node("Concat", reordered, [f"{joined}.joined"], axis=0)
            axes = f"{joined}.axes"
            self.initializers.append(numpy_helper.from_array(np.array([0], np.int64), axes))
            yield helper.make_node("Unsqueeze", [f"{joined}.joined", axes], [joined])
            directions.append(joined)
        yield helper.make_node("Concat", directions, [initializer], axis=0)

    def _tensor(self, name: str) -> Iterator[onnx.NodeProto]:
        """The stored tensor in 32 bits under its own name, once per graph."""
        if name in self._widened:
            return
        self._widened.add(name)
        match self._stored[name].dtype:
            case "F32":
                self._read(name, name)
            case "F16":
                self._read(name, f"{name}.stored")
                yield helper.make_node("Cast", [f"{name}.stored"], [name], to=TensorProto.FLOAT)
            case _:  # not DequantizeLinear, which ONNX Runtime would compute for every picture and question
                self._read(name, f"{name}.stored")
                self._read(name + SCALE_SUFFIX, name + SCALE_SUFFIX)
                yield helper.make_node("Cast", [f"{name}.stored"], [f"{name}.unscaled"], to=TensorProto.FLOAT)
                yield helper.make_node("Mul", [f"{name}.unscaled", name + SCALE_SUFFIX], [name])

    def _read(self, name: str, initializer: str) -> None:
        """Add an initializer that is read from the place of a stored tensor in its file."""
        stored = self._stored[name]
        tensor = TensorProto(
            name=initializer,
            data_type=_TYPES[stored.dtype],
            dims=stored.shape,
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in (("location", self._file), ("offset", stored.offset), ("length", stored.length)):
            tensor.external_data.add(key=key, value=str(value))
        self.initializers.append(tensor)


def _gate_rows(count: int) -> NDArray[np.int64]:
    """The rows of a GRU's weight or bias in ONNX's order of gates."""
    gates = np.split(np.arange(count, dtype=np.int64), len(_GATES))
    return np.concatenate([gates[gate] for gate in _GATES])


def _stacked(values: Mapping[str, Array], parts: list[list[str]]) -> Array:
    """What the nodes of `_Sharing._stack` compute."""
    directions = [[values[name][_gate_rows(len(values[name]))] for name in row] for row in parts]
    return np.stack([np.concatenate(row) for row in directions])
