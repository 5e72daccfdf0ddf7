"""Each published family, at tiny size and from random weights, learns the shipped sample through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from medical_vqa.data.prepared import PreparedDataset

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
        {"epochs": 25, "learning_rate": 3e-3},
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


def medical_vqa(*arguments: str, home: Path) -> str:
    environment = os.environ | {"MEDICAL_VQA_HOME": str(home), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "medical_vqa", *arguments]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("family", LEARNERS)
def test_a_tiny_model_learns_the_sample_beyond_the_question_only_floor(family, root, tmp_path):
    make, model, training = LEARNERS[family]
    rows = PreparedDataset(root, "slake-mini").examples("train", MODALITY)
    hub = make(tmp_path / "hub", [f"{row.question} {row.answers[0]}" for row in rows if row.answers])
    recipe = {
        "name": family,
        "data": {"name": "slake-mini", "root": str(root), "where": MODALITY},
        "model": model | {"checkpoint": str(hub)},
        "training": {"batch_size": 32, "weight_decay": 0, "average": 0, "device": "cpu", "evaluate_every": 100}
        | training,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    medical_vqa("train", "recipe.yaml", "--run", "run", home=tmp_path)
    medical_vqa("predict", "run", "--split", "train", "--device", "cpu", home=tmp_path)
    scored = json.loads(medical_vqa("score", "run/predictions-train.jsonl", "--json", home=tmp_path))
    exact_match = scored["metrics"][0]
    assert exact_match["score"]["value"] > exact_match["floors"]["question-only"]["value"]
