"""Training the projector and the vision encoder: what learns, what is cached, what is saved, and what is refused."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medical_vqa.data.cache.features import FeatureStore
from medical_vqa.errors import ConfigError, ModelError
from medical_vqa.models.hf.families import Blip2Options, ChatOptions
from medical_vqa.models.memory import count_parameters, is_within
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.training.optimizer import adamw

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
from cases import EXAMPLES, GENERATIVE, build, queries
from plain import Plain

PROJECTOR = {"targets": "none", "projector": True}
VISION_LORA = {"targets": "language", "vision": "lora", "layers": "all-linear"}
ALL = {"targets": "language", "projector": True, "vision": "full"}
MODES = {"projector": PROJECTOR, "vision-lora": VISION_LORA, "all": ALL}


def every_mode(function: Any) -> Any:
    names = pytest.mark.parametrize("name", GENERATIVE)
    return names(pytest.mark.parametrize("mode", list(MODES))(function))


def disturbed(model: Any) -> Any:
    with torch.no_grad():
        for number, p in enumerate(p for p in model.module.parameters() if p.requires_grad):
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(number)))
    return model


def trained(model: Any) -> dict[str, torch.Tensor]:
    prefix = "peft_model.base_model.model."
    return {n.removeprefix(prefix): p for n, p in model.module.named_parameters() if p.requires_grad}


def with_features(model: Any, rows: list[Any], folder: Path) -> list[Any]:
    """The rows with the features of their picture, as they come back from the cache."""
    store = FeatureStore(folder / "features", model.vision.fingerprint)
    store.ensure(["image"], lambda _: rows[0].visual, model.vision.encode)
    features = store.get("image")
    return [dataclasses.replace(row, visual=features) for row in rows]


def answers(model: Any, rows: list[Any] | None = None) -> list[tuple[str, float]]:
    found = model.answer(rows or queries(model), Decoding(max_tokens=3))
    return [(p.raw, p.confidence) for p in found]


# --- what learns


@every_mode
def test_gradients_reach_the_named_modules_and_no_other(written, name, mode):
    model = disturbed(build(name, written(name), lora=MODES[mode]))
    tower, projector = model.vision_parts(model.module.base)
    model.module(model.collate(queries(model, learn=True))).backward()
    reached = {n for n, p in trained(model).items() if p.grad is not None and p.grad.abs().sum() > 0}
    other = {n for n, p in model.module.named_parameters() if not p.requires_grad and p.grad is not None}
    assert not other
    parts = {
        "tower": {n for n in reached if is_within(n, tower)},
        "projector": {n for n in reached if is_within(n, projector)},
    }
    parts["language"] = {n for n in reached if "language_model" in n or "text_model" in n}
    assert reached == set().union(*parts.values())
    expected = {
        "projector": {"projector"}, "vision-lora": {"tower", "language"}, "all": {"tower", "projector", "language"}
    }  # fmt: skip
    assert {part for part, names in parts.items() if names} == expected[mode]
    assert all("lora_" in n for n in parts["language"])
    assert all(("lora_" in n) == (mode == "vision-lora") for n in parts["tower"] | parts["projector"])
    if mode == "projector":
        assert reached == set(trained(model))  # a projector has no weight without an effect


@every_mode
def test_losses_gradients_and_answers_equal_those_of_transformers_and_peft(written, tmp_path, name, mode):
    model = disturbed(build(name, written(name), dtype="fp32", lora=MODES[mode]))
    model.save(tmp_path)
    plain = Plain(name, written(name), tmp_path)
    query = queries(model, learn=True)[1]
    model.module.train()
    loss = model.module(model.collate([query]))
    loss.backward()
    own = {n.removeprefix("peft_model."): p.grad for n, p in model.module.named_parameters() if p.requires_grad}
    picture, prompt = Image.fromarray(query.visual), model.prompt.replace("{question}", query.question)
    expected, gradients = plain.loss_and_gradients(picture, prompt, query.target)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert {n for n, gradient in own.items() if gradient is not None} == gradients.keys()
    assert all(torch.allclose(own[n], gradients[n], atol=1e-5, rtol=1e-4) for n in gradients)
    stops = list(model.end_tokens)
    for beams in (1, 3):
        decoding = Decoding(method="beam" if beams > 1 else "greedy", beams=max(2, beams), max_tokens=4, alternatives=0)
        (prediction,) = model.answer([query], decoding)
        assert prediction.raw == plain.answer(picture, prompt, stops=stops, tokens=4, beams=beams)


# --- what is cached


@pytest.mark.parametrize("name", GENERATIVE)
def test_features_before_a_trained_projector_give_the_loss_the_gradients_and_the_answers_of_pictures(
    written, tmp_path, name
):
    model = disturbed(build(name, written(name), lora=PROJECTOR))
    assert model.vision.frozen
    rows = queries(model, learn=True)
    found = []
    for batch in (rows, with_features(model, rows, tmp_path)):
        model.module.zero_grad()
        loss = model.module(model.collate(batch))
        loss.backward()
        found.append(
            (loss.item(), torch.cat([p.grad.flatten() for p in trained(model).values()]), answers(model, batch))
        )
    (loss, gradients, plain), (cached_loss, cached_gradients, cached) = found
    assert cached_loss == pytest.approx(loss, rel=1e-6)
    assert torch.allclose(cached_gradients, gradients, atol=1e-6)
    assert cached == plain


@every_mode
def test_a_step_changes_no_feature_that_may_be_cached_and_no_others_are_called_frozen(written, name, mode):
    model = disturbed(build(name, written(name), lora=MODES[mode]))
    picture = queries(model)[0].visual
    before, fingerprint = model.vision.encode([picture])[0], model.vision.fingerprint
    model.module(model.collate(queries(model, learn=True))).backward()
    torch.optim.SGD(list(trained(model).values()), lr=1.0).step()
    after = model.vision.encode([picture])[0]
    same = all(torch.equal(before[key], after[key]) for key in before)
    assert model.vision.frozen == same == (mode == "projector")
    assert (model.vision.fingerprint == fingerprint) == same


def test_each_place_of_the_cache_has_a_fingerprint_of_its_own(written):
    name = "qwen2.5-vl"
    models = [build(name, written(name), lora=lora) for lora in ({}, PROJECTOR, VISION_LORA, ALL)]
    assert len({model.vision.fingerprint for model in models}) == len(models)


@pytest.mark.parametrize("name", ["blip2-opt-2.7b", "qwen3-vl"])
def test_features_of_an_encoder_that_trains_are_refused_in_training_and_answer_afterwards(written, tmp_path, name):
    model = disturbed(build(name, written(name), lora=ALL))
    rows = queries(model, learn=True)
    with pytest.raises(ModelError, match=r"the vision encoder trains, and features .* are stale"):
        model.collate(with_features(model, rows, tmp_path))
    assert answers(model, with_features(model, rows, tmp_path)) == answers(model, rows)


# --- what is saved


@every_mode
def test_a_bundle_answers_as_the_model_did_and_training_continues_from_it(written, tmp_path, name, mode):
    model = disturbed(build(name, written(name), lora=MODES[mode]))
    model.save(tmp_path)
    expected = answers(model)
    loaded = type(model).load(tmp_path, device=torch.device("cpu"))
    assert answers(loaded) == expected
    assert loaded.vision.frozen == model.vision.frozen
    assert loaded.vision.fingerprint == model.vision.fingerprint
    resumed = build(name, written(name), initial=tmp_path)
    assert answers(resumed) == expected
    assert trained(resumed).keys() == trained(model).keys()
    assert resumed.cached_modules == model.cached_modules


@pytest.mark.parametrize("name", ["blip2-flan-t5-xl", "qwen3-vl", "llava-1.6", "gemma3"])
def test_a_merged_model_answers_alike_with_transformers_alone(written, tmp_path, name):
    from transformers import AutoModelForImageTextToText, Blip2ForConditionalGeneration

    model = disturbed(build(name, written(name), dtype="fp32", lora=ALL | {"layers": "all-linear"}))
    model.save(tmp_path / "bundle")
    (tmp_path / "merged").mkdir()
    type(model).write_merged(tmp_path / "bundle", tmp_path / "merged")
    plain = Plain(name, written(name), tmp_path / "bundle")
    network = Blip2ForConditionalGeneration if name.startswith("blip2") else AutoModelForImageTextToText
    merged = network.from_pretrained(tmp_path / "merged").eval()
    inputs = plain.inputs(
        Image.fromarray(queries(model)[0].visual), model.prompt.replace("{question}", "What is this?"), "CT"
    )
    with torch.inference_mode():
        assert torch.allclose(merged(**inputs).loss, plain.model(**inputs).loss, rtol=1e-4)


@pytest.mark.parametrize("name", ["blip2-opt-2.7b", "qwen2.5-vl", "internvl3"])
def test_modules_that_train_wholly_are_fp32_among_frozen_weights_of_16_bits(written, tmp_path, name):
    model = disturbed(build(name, written(name), dtype="bf16", lora=ALL))
    assert {p.dtype for p in trained(model).values()} == {torch.float32}
    assert torch.bfloat16 in {p.dtype for p in model.module.parameters() if not p.requires_grad}
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.module(model.collate(queries(model, learn=True)))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in trained(model).values())
    expected = answers(model)  # without autocast, as a server answers
    model.save(tmp_path)
    resumed = build(name, written(name), dtype="bf16", initial=tmp_path)
    assert all(torch.equal(p, trained(model)[n]) for n, p in trained(resumed).items())
    assert answers(resumed) == expected


def test_a_run_state_holds_the_trained_weights_and_no_frozen_ones(written):
    model = build("qwen2.5-vl", written("qwen2.5-vl"), lora=ALL)
    named = {n for n, p in model.module.named_parameters() if p.requires_grad}
    assert {n for n in model.module.state_dict() if "inv_freq" not in n} == named


# --- rates, sizes, mistakes


@pytest.mark.parametrize("name", ["blip2-opt-2.7b", "qwen3-vl", "llava-1.5", "smolvlm2"])
def test_projector_and_vision_encoder_have_learning_rates_of_their_own(written, name):
    model = build(name, written(name), lora=ALL | {"projector_rate": 0.5, "vision_rate": 0.1})
    optimizer = adamw(model.module, learning_rate=1.0, weight_decay=0.0, factors=model.learning_rate_factors)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    tower, projector = model.vision_parts(model.module.base)
    for parameter_name, p in trained(model).items():
        part = 0.1 if is_within(parameter_name, tower) else 0.5 if is_within(parameter_name, projector) else 1.0
        assert rates[id(p)] == part


@every_mode
def test_the_plan_counts_what_trains_and_the_activations_of_an_encoder_that_trains(written, name, mode):
    model = build(name, written(name), lora=MODES[mode])
    options = {"checkpoint": str(written(name)), "side": 56, "lora": model_options(name, MODES[mode])}
    estimate = type(model).memory_estimate(EXAMPLES, **options)
    assert estimate.trainable == count_parameters(model.module, trainable=True)
    language = type(model).memory_estimate(EXAMPLES, **options | {"lora": model_options(name, {})})
    sizes = {"batch_size": 4, "precision": "fp32", "features": True, "checkpointing": False}
    assert estimate.memory(**sizes).optimizer == 8 * estimate.trainable
    if mode == "projector":
        assert estimate.stacks == language.stacks
        assert 0 < estimate.vision_encoder < language.vision_encoder
    else:
        assert estimate.vision_encoder == 0
        assert estimate.memory(**sizes).activations > language.memory(**sizes).activations
        black = np.zeros((56, 56, 3), np.uint8)
        class_tokens = tower_tokens(model, black) - estimate.stacks[-1].tokens  # at most one of each tile
        assert 0 <= class_tokens <= estimate.stacks[-1].tokens / 16


def model_options(name: str, lora: dict[str, Any]) -> dict[str, Any]:
    return {"targets": "language", "rank": 4, "alpha": 16.0, "dropout": 0.0} | lora


def tower_tokens(model: Any, picture: Any) -> int:
    """Tokens in the first layer of the vision encoder."""
    tokens = []
    layers = [
        m for n, m in model.module.base.named_modules() if n.endswith((".layers.0", ".layer.0", "visual.blocks.0"))
    ]
    vision = next(m for m in layers if any(p.requires_grad for p in m.parameters()))
    handle = vision.register_forward_hook(lambda *args: tokens.append(args[1][0].shape[:-1].numel()))
    model.vision.encode([picture])
    handle.remove()
    return tokens[0]


@pytest.mark.parametrize("options", [Blip2Options, ChatOptions])
def test_a_recipe_in_which_nothing_trains_is_refused(options):
    with pytest.raises(ConfigError, match=r"nothing would train: targets is none; set projector: true"):
        options.model_validate({"family": options.__name__[:-7].lower(), "lora": {"targets": "none"}})


def test_adapters_inside_a_module_that_trains_wholly_are_refused(written):
    with pytest.raises(ModelError, match=r"model\.visual\.blocks\.0.*all of whose weights train"):
        build("qwen2.5-vl", written("qwen2.5-vl"), lora=ALL | {"modules": r"model\.visual\.blocks\..*qkv"})


def test_a_pattern_that_reaches_a_frozen_encoder_is_refused_as_before(written):
    for name, pattern in (("qwen2.5-vl", r".*qkv"), ("blip2-opt-2.7b", r"vision_model\..*")):
        with pytest.raises(ModelError, match="frozen module whose output is cached"):
            build(name, written(name), lora={"modules": pattern})
