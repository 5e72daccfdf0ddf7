"""Weights in 8 bits: what is stored, and that a bundle of them answers as it did, in torch and as graphs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.errors import BundleError
from medical_vqa.models.base import Query
from medical_vqa.models.compact import quantization
from medical_vqa.models.compact.model import Compact
from medical_vqa.models.compact.quantization import dequantized, quantized
from medical_vqa.models.compact.settings import CompactSettings, Sizes
from medical_vqa.models.vocabulary import AnswerVocabulary, WordVocabulary

QUESTION = "where is liver"


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(quantization, "_FEWEST", 1)
    torch.manual_seed(0)
    return Compact(
        CompactSettings(
            picture=PictureSpec(32, "L", "stretch"),
            sizes=Sizes((8, 16), 16, 2, 1, 0.0, 8),
            words=WordVocabulary(("where", "is", "liver")),
            answers=AnswerVocabulary(("left", "right", "yes")),
            regions=("mask: Liver",),
            local_contrast=True,
        )
    )


def test_each_row_has_the_scale_of_its_largest_weight():
    weight = torch.tensor([[127.0, -63.6, 0.4], [0.0, 0.0, 0.0], [0.5, -1.0, 0.25]]).repeat(1, 700)
    stored = quantized({"w": weight, "bias": torch.tensor([0.1, 1.0]), "seen": torch.tensor(3)})
    assert stored["w"].dtype == torch.int8
    assert stored["w"][:, :3].tolist() == [[127, -64, 0], [0, 0, 0], [64, -127, 32]]
    assert stored["w_scale"].dtype == torch.float32
    assert stored["w_scale"].flatten()[[0, 2]].tolist() == pytest.approx([1.0, 1 / 127])
    assert (stored["bias"].dtype, stored["seen"].dtype) == (torch.float16, torch.int64)
    again = dequantized(stored)
    assert again.keys() == {"w", "bias", "seen"}
    expected = torch.tensor([[127, -64, 0], [0, 0, 0], [64 / 127, -1, 32 / 127]])
    assert torch.allclose(again["w"][:, :3], expected)


@pytest.mark.parametrize("shape", [(64, 40), (32, 8, 3, 3), (300, 1, 3, 3)])
def test_no_weight_moves_by_more_than_half_a_step(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 3, shape[0]).view(
        -1, *(1 for _ in shape[1:])
    )
    stored = quantized({"w": weight})
    error = (dequantized(stored)["w"] - weight).abs()
    assert (error <= stored["w_scale"] * 0.5001).all()
    assert stored["w_scale"].shape == (shape[0], *(1 for _ in shape[1:]))


def test_a_weight_of_few_elements_keeps_16_bits():
    assert quantized({"w": torch.ones(8, 8)})["w"].dtype == torch.float16


def test_a_bundle_in_8_bits_answers_alike_in_torch_and_as_graphs(model, tmp_path):
    from medical_vqa.models.compact.onnx_export import check, write_graphs
    from medical_vqa.models.compact.onnx_model import CompactOnnx

    for name in ("large", "small", "onnx"):
        (tmp_path / name).mkdir()
    model.save(tmp_path / "large")
    model.save(tmp_path / "small", quantize=True)
    sizes = [(tmp_path / name / "weights.safetensors").stat().st_size for name in ("large", "small")]
    assert sizes[1] < 0.5 * sizes[0]
    small = Compact.load(tmp_path / "small", device=torch.device("cpu"))
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 1), np.uint8)
    query = Query("q", QUESTION, "a", pixels)
    expected, found = (each.logits([query]).softmax(-1) for each in (model, small))
    assert torch.allclose(expected, found, atol=5e-3)
    assert not torch.equal(expected, found)
    write_graphs(small, tmp_path / "small" / "weights.safetensors", tmp_path / "onnx")
    graphs = CompactOnnx.load(tmp_path / "onnx")
    assert check(small, graphs, [query]) < 1e-4
    small.save(tmp_path / "large", quantize=True)  # once more changes nothing
    first, second = (load_file(tmp_path / name / "weights.safetensors") for name in ("small", "large"))
    assert all(torch.equal(first[name], second[name]) for name in first if first[name].dtype == torch.int8)


@pytest.mark.parametrize("scales", [None, (1,), (16, 2)])
def test_weights_without_their_scales_are_a_damaged_bundle(model, tmp_path, scales):
    model.save(tmp_path, quantize=True)
    stored = load_file(tmp_path / "weights.safetensors")
    name = next(name for name, tensor in stored.items() if tensor.dtype == torch.int8)
    del stored[f"{name}_scale"]
    if scales:
        stored[f"{name}_scale"] = torch.ones(scales)
    save_file(stored, tmp_path / "weights.safetensors")
    with pytest.raises(BundleError, match=r"damaged.*8 bits: expected scales of shape") as error:
        Compact.load(tmp_path, device=torch.device("cpu"))
    assert "\n" not in str(error.value)
