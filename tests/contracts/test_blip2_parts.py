"""A batch of BLIP-2 whose rows differ in length is computed in two parts, with the same loss and gradients."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medical_vqa.data.imaging.preprocessing import prepare_picture
from medical_vqa.models.base import Query
from medical_vqa.models.hf import blip2
from medical_vqa.models.hf.blip2 import shorter_rows

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
from cases import build

ANSWERS = ["CT", "left lung", "no"]


def rows(model: Any) -> list[Query]:
    """Ten rows on three images, each image with short questions and a long one."""
    pictures = []
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (44, 60, 3), dtype=np.uint8)
        pictures.append(prepare_picture(Image.fromarray(pixels), model.picture))
    questions = ["Which part?", "What is this?", "Is the heart there? Which part is this of the left lung there?"]
    return [
        Query(f"q{row}", questions[row % 3], f"i{row // 4}", pictures[row // 4], ANSWERS[row % 3]) for row in range(10)
    ]


def double(batch: Any) -> dict[str, torch.Tensor]:
    """The batch with its numbers in fp64."""
    return {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}


@pytest.mark.parametrize("name", ["blip2-flan-t5-xl", "blip2-opt-2.7b"])
@pytest.mark.parametrize("targets", ["language", "both"])
def test_two_parts_have_the_loss_and_the_gradients_of_one_and_of_each_row(written, monkeypatch, name, targets):
    model = build(name, written(name), dtype="fp32", lora={"targets": targets})
    with torch.no_grad():
        for number, p in enumerate(p for p in model.module.parameters() if p.requires_grad):
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(number)))
    model.module.double()  # what fp32 rounds off depends on the processor
    batches = [double(model.collate(rows(model)))]
    monkeypatch.setattr(blip2, "shorter_rows", lambda *_: None)
    batches.append(double(model.collate(rows(model))))
    assert [any(key.startswith("longer.") for key in batch) for batch in batches] == [True, False]
    tokens = [sum(value.numel() for key, value in batch.items() if "input_ids" in key) for batch in batches]
    assert tokens[0] < tokens[1]
    assert [int(batch["supervised"]) for batch in batches] == [int((batches[1]["labels"] != -100).sum())] * 2
    losses, gradients = [], []
    for batch in batches:
        model.module.zero_grad()
        loss = model.module(batch)
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in model.module.parameters() if p.requires_grad]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # the loss itself is summed in fp32
    assert torch.allclose(gradients[0], gradients[1], atol=1e-10, rtol=1e-9)
    alone = sum(model.module(double(model.collate([row]))).item() for row in rows(model))
    assert losses[0] == pytest.approx(alone, rel=1e-6)


def test_the_cut_leaves_the_fewest_tokens():
    lengths = [10] * 12 + [40] * 4
    assert shorter_rows(lengths, image_tokens=32) == 10
    assert shorter_rows([30] * 16, image_tokens=32) is None  # nothing is padded
    assert shorter_rows([*[30] * 15, 33], image_tokens=32) is None  # little is
    assert shorter_rows([10, 10, 10, 40], image_tokens=32) is None  # too few rows for two parts
    assert shorter_rows([10] * 15 + [60], image_tokens=4) == 10
