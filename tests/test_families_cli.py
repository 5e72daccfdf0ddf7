"""Published families on the command line: each learns the shipped sample, and each mistake is one sentence."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.runtime.devices import ComputeChoice

sys.path.insert(0, str(Path(__file__).parent / "hub"))
import tiny_hub

MODALITY = {"content_type": "Modality"}  # few rows and answers, and only the image decides: seconds, not minutes
ALL_LANGUAGE_LAYERS = {"rank": 64, "alpha": 256.0, "dropout": 0.0}
LEARNERS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "vilt": (
        lambda hub, texts: tiny_hub.vilt(hub, texts, hidden_size=64, intermediate_size=128),
        {"family": "vilt"},
        {"epochs": 30, "learning_rate": 2e-3},
    ),
    "blip2": (
        lambda hub, texts: tiny_hub.blip2(
            hub, "t5", texts, d_model=64, d_ff=128, d_kv=16, qformer={"hidden_size": 32, "intermediate_size": 64}
        ),
        {"family": "blip2", "prompt": "{question}", "lora": ALL_LANGUAGE_LAYERS | {"modules": r"language_model\..*"}},
        {"epochs": 15, "learning_rate": 3e-3},
    ),
    "chat": (
        lambda hub, texts: tiny_hub.chat(hub, "smolvlm"),
        {
            "family": "chat", "prompt": "{question}", "side": 28,
            "lora": ALL_LANGUAGE_LAYERS | {"modules": r"model\.text_model\..*|lm_head"},
        },
        {"epochs": 25, "learning_rate": 1e-3},
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("family", LEARNERS)
def test_a_tiny_model_learns_the_sample_beyond_the_question_only_baseline(family, root, tmp_path, forks):
    make, model, training = LEARNERS[family]
    rows = PreparedDataset.open("slake-mini", root).examples("train", MODALITY)
    hub = make(tmp_path / "hub", [f"{row.question} {row.answers[0]}" for row in rows if row.answers])
    recipe = {
        "name": family,
        "data": {"name": "slake-mini", "root": str(root), "where": MODALITY},
        "model": model | {"checkpoint": str(hub)},
        "training": {"batch_size": 32, "weight_decay": 0, "average": 0, "device": "cpu", "evaluate_every": 100}
        | training,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")

    def medical_vqa(*words: str) -> str:
        done = forks.run(["-m", "medical_vqa", *words], tmp_path, MEDICAL_VQA_HOME=str(tmp_path))
        assert done.returncode == 0, done.stderr
        return done.stdout

    medical_vqa("train", "recipe.yaml", "--run", "run")
    medical_vqa("predict", "run", "--split", "train", "--device", "cpu")
    scored = json.loads(medical_vqa("score", "run/predictions-train.jsonl", "--json"))
    exact_match = scored["metrics"][0]
    assert exact_match["score"]["value"] > exact_match["baselines"]["question-only"]["value"]


# --- bad input


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hub.blip2(tmp_path_factory.mktemp("hub"))


@pytest.fixture
def words(root: Path, hub: Path, tmp_path: Path) -> Any:
    """A command line that fine-tunes a tiny BLIP-2 on a few rows, with changes to its recipe."""
    recipe = {
        "name": "tiny",
        "data": {"name": "slake-mini", "root": str(root), "where": {"content_type": "Size"}},
        "model": {"family": "blip2", "checkpoint": str(hub)},
        "training": {"epochs": 1, "batch_size": 16, "device": "cpu", "average": 0},
        "decoding": {"max_tokens": 2},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")

    def make(*changes: str) -> list[str]:
        return ["train", "recipe.yaml", "--fresh", *(word for change in changes for word in ("--set", change))]

    return make


def test_a_plan_is_printed_before_anything_is_trained(call, words):
    code, out, _ = call(*words(), "--plan")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["parameters", "encoder", "memory", "data", "steps"]
    assert not Path("runs").exists()


def test_a_checkpoint_that_is_not_there(refused, words, monkeypatch):
    message = refused(*words("model.checkpoint=/nowhere/blip2"))
    assert "no checkpoint at /nowhere/blip2: expected a folder with config.json, or a hub id" in message
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "hf download nobody/nothing --local-dir DIR" in refused(*words("model.checkpoint=nobody/nothing"))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"language_model\..*\.query", "matches no linear layer of the model; its layers are called"),
        (
            r".*\.(qkv|q|v)",
            "self_attn.qkv, which is in a frozen module whose output is cached",
        ),
        ("(q", "is not a regular expression"),
    ],
)
def test_a_pattern_of_adapters_that_cannot_be_meant(refused, words, pattern, message):
    assert message in refused(*words(f"model.lora.modules='{pattern}'"))


def test_features_that_another_model_wrote(call, refused, words, root):
    features = root / "slake-mini" / "features"
    folders = []
    for targets in ("language", "qformer"):
        before = set(features.glob("*"))
        assert call(*words(f"model.lora.targets={targets}"))[0] == 0
        folders += sorted(set(features.glob("*")) - before)
    language, qformer = folders
    shutil.rmtree(language)
    qformer.rename(language)
    try:
        assert "were written by another model" in refused(*words())
    finally:
        shutil.rmtree(language)


def test_changed_pictures_together_with_kept_features(refused, words):
    assert "set augment: null or features: false" in refused(*words("model.augment={}"))


def test_a_gpu_that_is_too_small(refused, words, monkeypatch):
    monkeypatch.setattr("medical_vqa.runtime.devices.choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(
        "medical_vqa.runtime.devices.choose_precision", lambda *_: ComputeChoice("cuda", "bf16", "for the test")
    )
    monkeypatch.setattr("medical_vqa.runtime.devices.device_memory", lambda device: 100_000)
    assert "this GPU is too small: weights, gradients and optimizer take" in refused(*words())


def test_a_loss_that_is_no_number_names_its_step_and_keeps_the_checkpoint(call, words):
    code, _, message = call(*words("training.learning_rate=1e30", "training.checkpoint_minutes=0", "training.warmup=0"))
    assert code == 2
    assert re.search(r"the loss became nan at step \d+ .*; the checkpoint step-\d+ is kept: lower training", message)
    assert list(Path("runs/tiny/checkpoints").glob("step-*/progress.json"))
