"""Training all weights of the language model: what learns, what is saved, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from medical_vqa.errors import BundleError, ModelError
from medical_vqa.models.hf.families import LANGUAGE_FILE, Blip2Options, ChatOptions
from medical_vqa.models.memory import count_parameters, is_within
from medical_vqa.schema.bundle_card import Decoding

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
from cases import EXAMPLES, LORA, build, queries
from layouts import LAYOUTS
from plain import Plain

WHOLE = {"language": "full"}
ALL = {"language": "full", "projector": True, "vision": "full"}
NAMES = ["blip2-flan-t5-xl", "blip2-opt-2.7b", "qwen2.5-vl", "llava-1.5", "smolvlm", "gemma3"]


def disturbed(model: Any) -> Any:
    with torch.no_grad():
        for number, p in enumerate(p for p in model.module.parameters() if p.requires_grad):
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(number)))
    return model


def trained(model: Any) -> dict[str, torch.Tensor]:
    return {n: p for n, p in model.module.base.named_parameters() if p.requires_grad}


def answers(model: Any, decoding: Decoding | None = None) -> list[tuple[str, float]]:
    return [(p.raw, p.confidence) for p in model.answer(queries(model), decoding or Decoding(max_tokens=3))]


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_of_the_language_model_trains_in_fp32_and_no_other(written, name):
    model = build(name, written(name), lora=WHOLE, dtype="bf16")
    language = model.language_modules(model.module.base)
    own = {n for n, _ in model.module.base.named_parameters() if is_within(n, language)}
    assert set(trained(model)) == own
    assert {p.dtype for p in trained(model).values()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.module(model.collate(queries(model, learn=True)))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained(model).values())
    assert answers(model)  # without autocast, as a server answers


@pytest.mark.parametrize(
    ("name", "lora"), [*((name, WHOLE) for name in NAMES), ("blip2-opt-2.7b", ALL), ("qwen2.5-vl", ALL)]
)
def test_losses_gradients_and_answers_equal_those_of_a_merged_checkpoint_in_transformers_alone(
    written, tmp_path, name, lora
):
    from transformers import AutoModelForImageTextToText, Blip2ForConditionalGeneration

    model = disturbed(build(name, written(name), dtype="fp32", lora=lora))
    query = queries(model, learn=True)[1]
    model.module.train()
    loss = model.module(model.collate([query]))
    loss.backward()
    own = {n.replace(".modules_to_save.default", ""): p.grad for n, p in trained(model).items() if p.grad is not None}

    model.save(tmp_path / "bundle")
    (tmp_path / "merged").mkdir()
    type(model).write_merged(tmp_path / "bundle", tmp_path / "merged")
    network = Blip2ForConditionalGeneration if LAYOUTS[name].family == "blip2" else AutoModelForImageTextToText
    plain = Plain(name, written(name), tmp_path / "merged", network.from_pretrained(tmp_path / "merged"))
    picture, prompt = Image.fromarray(query.visual), model.prompt.replace("{question}", query.question)
    expected, gradients = plain.loss_and_gradients(picture, prompt, query.target)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert own.keys() <= gradients.keys()
    assert {n for n in gradients if is_within(n, model.language_modules(model.module.base))} <= own.keys()
    assert all(torch.allclose(own[n], gradients[n], atol=1e-5, rtol=1e-4) for n in own)
    decoding = Decoding(max_tokens=4, alternatives=0)
    (prediction,) = model.answer([query], decoding)
    assert prediction.raw == plain.answer(picture, prompt, stops=list(model.end_tokens), tokens=4)


@pytest.mark.parametrize("name", ["blip2-flan-t5-xl", "qwen2.5-vl", "llava-1.5"])
def test_a_bundle_answers_as_the_model_did_and_training_continues_from_it(written, tmp_path, name):
    model = disturbed(build(name, written(name), lora=WHOLE | {"projector": True}))
    model.save(tmp_path)
    expected = answers(model)
    loaded = type(model).load(tmp_path, device=torch.device("cpu"))
    assert answers(loaded) == expected
    assert not trained(loaded)
    resumed = build(name, written(name), initial=tmp_path)
    assert answers(resumed) == expected
    assert trained(resumed).keys() == trained(model).keys()
    assert resumed.vision.fingerprint == model.vision.fingerprint


def test_adapters_in_the_q_former_train_with_the_whole_language_model(written, tmp_path):
    name = "blip2-opt-2.7b"
    model = disturbed(build(name, written(name), lora=WHOLE | {"targets": "both"}))
    adapted = {n for n in trained(model) if ".lora_" in n}
    assert adapted
    assert all(n.startswith("qformer.") for n in adapted)
    model.save(tmp_path)
    assert answers(type(model).load(tmp_path, device=torch.device("cpu"))) == answers(model)


def test_weights_of_another_network_are_refused(written, tmp_path):
    name = "qwen2.5-vl"
    model = build(name, written(name), lora=WHOLE)
    model.save(tmp_path)
    build("llava-1.5", written("llava-1.5"), lora=WHOLE).save(tmp_path / "other")
    (tmp_path / LANGUAGE_FILE).write_bytes((tmp_path / "other" / LANGUAGE_FILE).read_bytes())
    with pytest.raises(BundleError, match=r"language_model\.safetensors cannot be loaded"):
        type(model).load(tmp_path, device=torch.device("cpu"))


@pytest.mark.parametrize("name", ["blip2-opt-2.7b", "qwen2.5-vl"])
def test_the_plan_counts_what_trains(written, name):
    model = build(name, written(name), lora=WHOLE)
    options = {"checkpoint": str(written(name)), "side": 56, "lora": LORA | WHOLE}
    estimate = type(model).memory_estimate(EXAMPLES, **options)
    assert estimate.trainable == count_parameters(model.module, trainable=True)
    memory = estimate.memory(batch_size=1, precision="bf16", features=True, checkpointing=False)
    frozen = estimate.parameters - estimate.trainable - estimate.vision_encoder
    assert memory.weights == 4 * estimate.trainable + 2 * frozen
    assert (memory.gradients, memory.optimizer) == (4 * estimate.trainable, 8 * estimate.trainable)


@pytest.mark.parametrize("options", [Blip2Options, ChatOptions])
def test_weights_of_four_bits_cannot_train(options):
    content = {"family": options.__name__[:-7].lower(), "lora": WHOLE}
    assert options.model_validate(content | {"lora": WHOLE | {"targets": "none"}})
    with pytest.raises(ValueError, match=r"lora\.language full trains the weights that four_bit stores in 4 bits"):
        options.model_validate(content | {"four_bit": True})


def test_adapters_inside_a_language_model_that_trains_wholly_are_refused(written):
    with pytest.raises(ModelError, match=r"all of whose weights train.*model\.lora\.language: lora"):
        build("qwen2.5-vl", written("qwen2.5-vl"), lora=WHOLE | {"modules": r".*language_model\..*q_proj"})
