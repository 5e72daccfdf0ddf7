"""Checkpoints in the form in which they are published: what the files of each say is what training and answering do."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from PIL import Image

from medical_vqa.errors import ConfigError, MissingDependencyError, ModelError
from medical_vqa.models.base import Query
from medical_vqa.models.hf import checkpoint
from medical_vqa.models.hf.blip2 import Blip2
from medical_vqa.models.hf.chat import ChatVlm
from medical_vqa.runtime.devices import ComputeChoice, without_fp16
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.training.optimizer import adamw

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
from cases import EXAMPLES, GENERATIVE, build, queries
from layouts import LAYOUTS
from plain import Plain


def every(*names: str) -> Any:
    return pytest.mark.parametrize("name", names or list(LAYOUTS))


# --- where an answer ends


@every(*GENERATIVE)
def test_generation_stops_at_the_token_that_training_puts_behind_an_answer(written, name):
    model = build(name, written(name))
    labels = model.collate(queries(model, learn=True))["labels"]
    last = [[token for token in row if token >= 0][-1] for row in labels.tolist()]
    stops = model.generating_module(model.module.base).generation_config.eos_token_id
    assert set(last) <= set(stops)


@pytest.mark.slow
def test_blip2_with_opt_writes_an_answer_that_it_has_learned_and_nothing_behind_it(written):
    name = "blip2-opt-2.7b"
    model = build(name, written(name), lora={"modules": r"language_model\..*", "rank": 32, "alpha": 64.0})
    one = queries(model, learn=True)[:1]
    optimizer = torch.optim.Adam([p for p in model.module.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(200):
        optimizer.zero_grad()
        loss = model.module(model.collate(one))
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    (prediction,) = model.answer(one, Decoding(max_tokens=8))
    assert (prediction.answer, prediction.raw) == ("CT", " CT")


# --- generation_config.json

LEAKS = {
    "repetition_penalty": 9.0, "no_repeat_ngram_size": 1, "min_new_tokens": 5, "length_penalty": 7.0,
    "suppress_tokens": list(range(30, 150)), "bad_words_ids": [[5], [6], [7]], "do_sample": True, "temperature": 0.1,
    "begin_suppress_tokens": list(range(100)), "forced_eos_token_id": 4, "renormalize_logits": True, "top_k": 3,
    "encoder_repetition_penalty": 3.0, "exponential_decay_length_penalty": [1, 5.0], "guidance_scale": 3.0,
}  # fmt: skip


@every(*GENERATIVE)
@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_no_value_of_the_published_generation_settings_changes_an_answer(written, tmp_path, name, method):
    changed = tmp_path / "changed"
    shutil.copytree(written(name), changed)
    path = changed / "generation_config.json"
    settings = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(settings | LEAKS))
    decoding = Decoding(method=method, max_tokens=4, beams=2, alternatives=1)
    answers = []
    for folder in (written(name), changed):
        model = build(name, folder)
        answers.append([(p.raw, p.confidence) for p in model.answer(queries(model), decoding)])
    assert answers[0] == answers[1]


@every(*GENERATIVE)
def test_confidence_is_the_mean_log_probability_of_the_network_own_logits(written, name):
    model = build(name, written(name))
    network, inputs = model.generation_inputs(queries(model)[:1])
    (prediction,) = model.answer(queries(model)[:1], Decoding(max_tokens=1))
    if getattr(network.config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = torch.tensor([[network.generation_config.decoder_start_token_id]])
    with torch.inference_mode():
        logits = network(**inputs).logits[0, -1]
    assert prediction.confidence == pytest.approx(logits.float().softmax(-1).max().item(), rel=1e-4)


# --- fp16


def test_t5_under_fp16_autocast_gives_the_loss_of_fp32_where_its_feed_forward_exceeds_the_range_of_fp16(written):
    name = "blip2-flan-t5-xl"
    model = build(name, written(name))
    layers = [m for n, m in model.module.base.language_model.named_modules() if n.endswith("DenseReluDense.wo")]
    with torch.no_grad():
        for layer in layers:
            layer.weight.mul_(3e5)
    batch = model.collate(queries(model, learn=True))
    exact = model.module(batch)
    with torch.autocast("cpu", torch.float16):
        half = model.module(batch)
    half.backward()
    assert half.item() == pytest.approx(exact.item(), rel=0.02)
    gradients = [p.grad for p in model.module.parameters() if p.requires_grad]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_t5_loaded_in_fp16_trains_and_answers_with_finite_numbers(written):
    name = "blip2-flan-t5-xl"
    model = build(name, written(name), dtype="fp16")
    weights = {n: p.dtype for n, p in model.module.base.language_model.named_parameters() if "lora_" not in n}
    assert {dtype for n, dtype in weights.items() if n.endswith(".wo.weight")} == {torch.float32}
    assert torch.float16 in weights.values()
    with torch.autocast("cpu", torch.float16):
        loss = model.module(model.collate(queries(model, learn=True)))
    assert torch.isfinite(loss)
    assert all(0 < p.confidence <= 1 for p in model.answer(queries(model), Decoding(max_tokens=2)))


@every(*GENERATIVE)
def test_only_networks_of_the_gemma_family_are_kept_from_fp16(written, name):
    family = Blip2 if LAYOUTS[name].family == "blip2" else ChatVlm
    problem = family.fp16_problem(checkpoint=str(written(name)), side=56)
    assert (problem is not None) == (name in ("gemma3", "paligemma2"))
    choice = without_fp16(ComputeChoice("cuda", "fp16", "for the test"), problem)
    assert choice.precision == ("fp32" if problem else "fp16")
    if problem:
        with pytest.raises(ConfigError, match="precision fp16 is set and activations of gemma"):
            without_fp16(choice=ComputeChoice("cuda", "fp16", "set"), problem=problem, requested="fp16")


# --- what cannot be had here


def test_a_processor_that_needs_torchvision_says_so(written, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(written("qwen3-vl"), changed)
    (changed / "processor_config.json").write_text('{"processor_class": "OmDetTurboProcessor"}')
    with pytest.raises(MissingDependencyError, match="OmDetTurboProcessor of transformers needs torchvision"):
        build("qwen3-vl", changed)


def test_a_template_that_writes_the_date_writes_the_same_one_every_day(written, monkeypatch):
    from transformers.utils import chat_template_utils

    class Tomorrow(datetime):
        @classmethod
        def now(cls, *_: object) -> datetime:
            return datetime(2031, 7, 9)

    model = build("mistral3", written("mistral3"))
    black = np.zeros((56, 56, 3), np.uint8)
    before = model.format.image(black).prefix
    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)
    later = build("mistral3", written("mistral3"))
    assert torch.equal(later.format.image(black).prefix, before)
    assert "The current date is 2025-01-01." in later.tokenizer.decode(before)


def test_every_layout_names_its_source():
    assert all(layout.source for layout in LAYOUTS.values())


# --- the same numbers with transformers and PEFT alone


@pytest.fixture
def pair(written: Any, tmp_path: Path) -> Callable[[str], tuple[Any, Plain]]:
    """A model whose adapters have an effect, and its bundle in the hands of transformers and PEFT."""

    def make(name: str) -> tuple[Any, Plain]:
        model = build(name, written(name), dtype="fp32")
        with torch.no_grad():
            for number, p in enumerate(p for p in model.module.parameters() if p.requires_grad):
                p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(number)))
        model.save(tmp_path)
        return model, Plain(name, written(name), tmp_path)

    return make


@every(*GENERATIVE)
def test_losses_and_gradients_equal_those_of_transformers_and_peft(pair, name):
    model, plain = pair(name)
    query = queries(model, learn=True)[1]
    batch = model.collate([query])
    model.module.train()
    loss = model.module(batch)
    loss.backward()
    own = {n.removeprefix("peft_model."): p.grad for n, p in model.module.named_parameters() if p.requires_grad}
    prompt = model.prompt.replace("{question}", query.question)
    expected, gradients = plain.loss_and_gradients(Image.fromarray(query.visual), prompt, query.target)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert own.keys() == gradients.keys()
    assert all(torch.allclose(own[n], gradients[n], atol=1e-5, rtol=1e-4) for n in own)


@every(*GENERATIVE)
@pytest.mark.parametrize("beams", [1, 3])
def test_greedy_and_beam_answers_equal_those_of_transformers_and_peft(pair, name, beams):
    model, plain = pair(name)
    decoding = Decoding(method="beam" if beams > 1 else "greedy", beams=max(2, beams), max_tokens=5, alternatives=0)
    for query in queries(model):
        (prediction,) = model.answer([query], decoding)
        prompt = model.prompt.replace("{question}", query.question)
        stops = list(model.end_tokens)
        expected = plain.answer(Image.fromarray(query.visual), prompt, stops=stops, tokens=5, beams=beams)
        assert prediction.raw == expected


# --- which files of a repository are fetched

SMALL = ["config.json", "tokenizer.json", "README.md"]
REPOSITORIES = {  # files of the repository in addition to `SMALL`, and those that are weights of its
    "mistralai/Mistral-Small-3.1-24B-Instruct-2503": (
        ["consolidated.safetensors", "model-00001-of-00010.safetensors", "params.json", "tekken.json"],
        ["model-00001-of-00010.safetensors"],
    ),
    "HuggingFaceTB/SmolVLM-Instruct": (
        ["model.safetensors", "onnx/decoder_model_merged.onnx", "backup/model.safetensors"], ["model.safetensors"]
    ),
    "Salesforce/blip2-opt-2.7b": (
        ["pytorch_model-00001-of-00002.bin", "model-00001-of-00002.safetensors"], ["model-00001-of-00002.safetensors"]
    ),
    "dandelin/vilt-b32-mlm": (["pytorch_model.bin", "vocab.txt"], ["pytorch_model.bin"]),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REPOSITORIES))
def test_of_a_repository_no_weights_are_fetched_twice(name, tmp_path, monkeypatch):
    others, weights = REPOSITORIES[name]
    (tmp_path / "config.json").write_text("{}")
    fetched: list[str] = []

    def download(repository: str, *, revision: str | None, **patterns: Any) -> str:
        fetched.extend(filter_repo_objects([*SMALL, *others], **patterns))
        return str(tmp_path)

    class Hub:
        def model_info(self, *_: object, **__: object) -> SimpleNamespace:
            return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in [*SMALL, *others]])

    monkeypatch.setattr(checkpoint, "snapshot_download", download)
    monkeypatch.setattr(checkpoint, "HfApi", Hub)
    checkpoint.find_checkpoint(name)
    assert [file for file in fetched if file.endswith((".safetensors", ".bin", ".onnx"))] == weights
    assert {"config.json", "tokenizer.json"} <= set(fetched)


def test_a_bundle_and_its_checkpoint_are_the_same_with_and_without_weights_in_mistral_own_form(written, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(written("mistral3"), changed)
    (changed / "consolidated.safetensors").write_bytes(b"the same weights once more")
    with_both, without = (checkpoint.find_checkpoint(str(folder)) for folder in (changed, written("mistral3")))
    assert with_both.digest() == without.digest()
    assert "params.json" not in {path.name for path in with_both.processor_files()}


# --- where adapters go, and where they start


@pytest.mark.parametrize("name", ["blip2-flan-t5-xl", "blip2-opt-2.7b", "qwen2.5-vl", "gemma3", "llava-1.5"])
def test_all_linear_adapts_every_matrix_of_the_language_model_and_none_of_the_head_or_the_vision_part(written, name):
    model = build(name, written(name), lora={"layers": "all-linear", "rslora": True})
    base = model.module.base
    language = base.language_model if LAYOUTS[name].family == "blip2" else base.model.language_model
    linear = {n for n, m in language.named_modules() if isinstance(m, torch.nn.Linear) and "lora_" not in n}
    matrices = {n for n in linear if "lm_head" not in n}
    adapted = {n.removesuffix(".base_layer") for n in matrices if n.endswith(".base_layer")}
    assert adapted == {n.removesuffix(".base_layer") for n in matrices}
    trained = [n for n, p in model.module.named_parameters() if p.requires_grad]
    assert not [n for n in trained if "lm_head" in n or "vision" in n or "visual" in n]
    layer = next(m for m in language.modules() if hasattr(m, "lora_A"))
    assert layer.scaling["default"] == pytest.approx(16.0 / 4**0.5)


@pytest.mark.parametrize("name", ["blip2-flan-t5-xl", "qwen2.5-vl"])
def test_training_resumes_from_the_adapters_of_a_bundle_or_of_another_program(pair, written, tmp_path, name):
    model, _ = pair(name)
    expected = [(p.raw, p.confidence) for p in model.answer(queries(model), Decoding(max_tokens=3))]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(tmp_path / file, elsewhere / file)
    for initial in (tmp_path, elsewhere):
        again = build(name, written(name), initial=initial, lora={"rank": 2})
        assert [(p.raw, p.confidence) for p in again.answer(queries(again), Decoding(max_tokens=3))] == expected
        assert {p.shape for p in again.module.parameters() if p.requires_grad} == {
            p.shape for p in model.module.parameters() if p.requires_grad
        }
        assert again.vision.fingerprint == model.vision.fingerprint


def test_adapters_of_another_checkpoint_are_refused(pair, written, tmp_path):
    pair("qwen2.5-vl")
    with pytest.raises(ModelError, match=r"was trained on .* and not on .*; name the former in model\.checkpoint"):
        build("qwen3-vl", written("qwen3-vl"), initial=tmp_path)


@pytest.mark.parametrize("name", ["blip2-flan-t5-xl", "blip2-opt-2.7b"])
def test_the_projection_of_blip2_trains_at_its_own_rate_behind_the_cache_and_is_saved(written, tmp_path, name):
    model = build(name, written(name), lora={"projector": True, "projector_rate": 0.5})
    picture = queries(model)[0].visual
    before = model.vision.encode([picture])[0]["tokens"]
    rows = queries(model, learn=True)
    optimizer = adamw(model.module, learning_rate=0.1, weight_decay=0.0, factors=model.learning_rate_factors)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    trained = {n: p for n, p in model.module.named_parameters() if p.requires_grad}
    projection = {n for n in trained if "language_projection" in n}
    assert {rates[id(trained[n])] for n in projection} == {0.05}
    assert {rates[id(trained[n])] for n in trained.keys() - projection} == {0.1}
    old = {n: trained[n].detach().clone() for n in projection}
    model.module(model.collate(rows)).backward()
    optimizer.step()
    assert all(not torch.equal(old[n], trained[n]) for n in projection)
    assert torch.equal(model.vision.encode([picture])[0]["tokens"], before)  # the cache is upstream of what trains
    model.save(tmp_path)
    expected = [(p.raw, p.confidence) for p in model.answer(queries(model), Decoding(max_tokens=3))]
    again = type(model).load(tmp_path, device=torch.device("cpu"))
    assert [(p.raw, p.confidence) for p in again.answer(queries(again), Decoding(max_tokens=3))] == expected
    resumed = build(name, written(name), initial=tmp_path)
    assert [(p.raw, p.confidence) for p in resumed.answer(queries(resumed), Decoding(max_tokens=3))] == expected


# --- what a bundle holds, and how many tokens an image takes


@every()
def test_a_bundle_holds_the_processor_files_of_its_checkpoint_to_the_byte(written, tmp_path, name):
    model = build(name, written(name))
    model.save(tmp_path)
    if LAYOUTS[name].family == "vilt":
        return
    for file in model.settings.checkpoint.processor_files():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()
    again = type(model).load(tmp_path, device=torch.device("cpu"))
    assert [p.raw for p in again.answer(queries(again, seed=7), Decoding(max_tokens=3))] == [
        p.raw for p in model.answer(queries(model, seed=7), Decoding(max_tokens=3))
    ]


@pytest.mark.parametrize("name", [name for name in GENERATIVE if LAYOUTS[name].family == "chat"])
def test_the_plan_counts_the_tokens_that_the_processor_makes_of_a_picture_and_splitting_can_be_turned_off(
    written, name
):
    lora = {"targets": "language", "rank": 2, "alpha": 2.0}
    tokens = {}
    for splitting in (True, False):
        options = {"checkpoint": str(written(name)), "lora": lora, "side": 56, "splitting": splitting}
        (stack,) = ChatVlm.memory_estimate(EXAMPLES, **options).stacks
        model = build(name, written(name), splitting=splitting)
        black = np.zeros((56, 56, 3), np.uint8)
        prefix = model.format.image(black).prefix
        assert 0 <= stack.tokens - len(prefix) <= 40 + len(model.format.suffix("?"))
        wide = model.format.image(black[:28]).prefix  # two tiles for every model that divides
        tokens[splitting] = int((wide == model.processor.image_token_id).sum())
        query = Query("t", "What is this?", "black", black, "CT")
        assert torch.isfinite(model.module(model.collate([query])))
    divides = name in ("smolvlm", "smolvlm2", "idefics3", "llava-1.6", "llava-onevision", "internvl3")
    assert (tokens[False] < tokens[True]) == divides
