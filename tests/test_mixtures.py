"""Training on several datasets at once: weights, one score for each dataset, and what the bundle records."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medical_vqa.config import parse_recipe
from medical_vqa.deploying.hub import model_card
from medical_vqa.errors import ConfigError, DataError
from medical_vqa.pipelines.load import load
from medical_vqa.pipelines.plan import plan
from medical_vqa.pipelines.predict import predict
from medical_vqa.pipelines.prepare import prepare_dataset
from medical_vqa.pipelines.score import score
from medical_vqa.pipelines.train import train
from medical_vqa.pipelines.training_inputs import training_inputs
from medical_vqa.schema.bundle_card import read_bundle_card
from medical_vqa.schema.selection import Selection
from medical_vqa.training.batching import BatchPlan
from medical_vqa.training.journal import Journal


def write_conversations(folder: Path, *, seed: int = 0) -> Path:
    """Eight pictures in LLaVA's layout, bright or dark, six of them to learn from."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    rows: dict[str, list[Any]] = {"train": [], "validation": []}
    for number in range(8):
        bright = number % 2 == 0
        pixels = rng.integers(150 if bright else 0, 256 if bright else 100, (48, 48), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        turns = [
            ("Is the picture bright?", "Yes" if bright else "No"),
            ("Is the picture dark?", "No" if bright else "Yes"),
        ]
        talk = [
            {"from": role, "value": text}
            for question, answer in turns
            for role, text in (("human", question), ("gpt", answer))
        ]
        rows["train" if number < 6 else "validation"].append(
            {"id": str(number), "image": f"{number}.png", "conversations": talk}
        )
    for split, content in rows.items():
        (folder / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def mixed_root(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped sample and conversations, prepared in one folder."""
    folder = tmp_path_factory.mktemp("mixed")
    shutil.copytree(root / "slake-mini", folder / "slake-mini")
    source = write_conversations(folder / "source")
    prepare_dataset("llava-json", root=folder, source=source, name="talks")
    return folder


@pytest.fixture
def recipe(mixed_root: Path, tiny: Any) -> Any:
    def make(*, mixture: Any = ({"name": "talks", "weight": 3.0},), data: Any = None, **training: Any) -> Any:
        settings = {"epochs": 2, "batch_size": 64, "device": "cpu", "precision": "fp32", "average": 0} | training
        content = {
            "name": "mixed",
            "data": {"name": "slake-mini", "root": str(mixed_root), "mixture": list(mixture)} | (data or {}),
            "model": tiny().model.model_dump(mode="json"),
            "training": settings,
        }
        return parse_recipe(content, origin="test")

    return make


def test_an_epoch_takes_each_row_as_often_as_its_weight_says():
    images = [f"a{i // 2}" for i in range(40)] + [f"b{i // 2}" for i in range(20)] + [f"c{i // 2}" for i in range(200)]
    weights = [1.0] * 40 + [2.0] * 20 + [0.25] * 200
    plan_of_rows = BatchPlan(images, batch_size=16, weights=weights)
    counts = [Counter(row for batch in plan_of_rows.epoch(epoch) for row in batch) for epoch in range(30)]
    assert all(count[row] == weights[row] for count in counts for row in range(60))
    taken = [[count[row] for row in range(60, 260)] for count in counts]
    assert {number for epoch in taken for number in epoch} == {0, 1}
    assert np.mean(taken) == pytest.approx(0.25, abs=0.05)
    assert taken[0] != taken[1]  # another part in every epoch
    assert plan_of_rows.epoch(3) == BatchPlan(images, batch_size=16, weights=weights).epoch(3)
    together = [{count[row], count[row + 1]} for count in counts for row in range(60, 260, 2)]
    assert all(len(one) == 1 for one in together)  # all rows of an image


def test_weights_of_one_change_nothing():
    images = [f"a{i // 3}" for i in range(30)]
    assert BatchPlan(images, 8).epoch(1) == BatchPlan(images, 8, weights=None).epoch(1)


def test_each_dataset_has_scores_of_its_own_and_their_mean_chooses(recipe, tmp_path, watcher):
    trained = train(recipe(), tmp_path / "run", watcher=watcher)
    rows = [row for row in Journal(tmp_path / "run").rows() if "em" in row]
    assert len(rows) == 2
    for row in rows:
        assert {"em/slake-mini", "em/talks", "f1/slake-mini", "f1/talks"} <= row.keys()
        assert row["em"] == pytest.approx((row["em/slake-mini"] + row["em/talks"]) / 2)
    assert watcher.scores[-1].keys() >= {"em", "em/slake-mini", "em/talks"}
    card = read_bundle_card(trained.bundle)
    best = max(rows, key=lambda row: row["em"])
    assert card.checkpoint_selection.scores["em/talks"] == pytest.approx(best["em/talks"])
    for name in ("slake-mini", "talks"):
        selection = Selection(dataset=name, root=recipe().data.root)
        predictions = predict(
            load(trained.bundle, device="cpu"), split="validation", selection=selection, out=tmp_path / f"{name}.jsonl"
        ).path
        assert score(predictions).em.value == pytest.approx(card.checkpoint_selection.scores[f"em/{name}"])


def test_the_card_names_every_dataset_with_its_rows_license_and_weight(recipe, tmp_path, watcher):
    card = read_bundle_card(train(recipe(epochs=1), tmp_path / "run", watcher=watcher).bundle)
    assert card.data.selection.dataset == "slake-mini"
    (further,) = card.data.mixture
    assert (further.selection.dataset, further.rows, further.images, further.weight) == ("talks", 12, 6, 3.0)
    assert further.license in card.license
    assert f"{further.title}: 12 questions on 6 images" in model_card(card)


def test_the_plan_counts_the_steps_that_training_takes(recipe, tmp_path, watcher):
    mixed = recipe(mixture=[{"name": "talks", "weight": 2.5}], epochs=3, batch_size=16)
    trained = train(mixed, tmp_path / "run", watcher=watcher)
    assert plan(mixed).steps == trained.result.steps


def test_a_run_of_a_mixture_that_was_killed_goes_on_exactly(recipe, tmp_path, watcher, monkeypatch):
    settings = {"mixture": [{"name": "talks", "weight": 1.5}], "epochs": 3, "batch_size": 64}
    train(recipe(**settings), tmp_path / "one", watcher=watcher)
    losses = [(row["step"], row["loss"]) for row in Journal(tmp_path / "one").rows() if "loss" in row]

    mixed = recipe(**settings, checkpoint_minutes=0)

    def kill(*, done: int, **_: Any) -> None:
        if done >= len(losses) // 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(watcher, "step", kill)
        train(mixed, tmp_path / "two", watcher=watcher)
    train(mixed, tmp_path / "two", watcher=watcher)
    assert [(row["step"], row["loss"]) for row in Journal(tmp_path / "two").rows() if "loss" in row] == losses


def test_a_change_of_any_dataset_is_noticed_when_a_run_resumes(recipe):
    inputs = training_inputs(recipe())
    alone = training_inputs(recipe(mixture=()))
    assert alone.manifest == alone.selected.manifest.digest
    assert len({inputs.manifest, alone.manifest, inputs.parts[1].selected.manifest.digest}) == 3


def test_an_image_that_trains_in_one_dataset_and_is_scored_in_another_is_refused(recipe, mixed_root, tmp_path):
    source = write_conversations(tmp_path / "source")  # the same pictures
    (source / "train.json").rename(source / "kept.json")
    (source / "validation.json").rename(source / "train.json")
    (source / "kept.json").rename(source / "validation.json")
    prepare_dataset("llava-json", root=mixed_root, source=source, name="exchanged")
    with pytest.raises(DataError, match=r"is a validation image of talks and a training image of exchanged"):
        training_inputs(recipe(mixture=[{"name": "talks"}, {"name": "exchanged"}]))


def test_mistakes_of_a_mixture_are_refused(recipe):
    with pytest.raises(ConfigError, match=r"the dataset slake-mini occurs twice; name each once"):
        recipe(mixture=[{"name": "slake-mini", "where": {"language": "zh"}}])
    with pytest.raises(ConfigError, match=r"data\.mixture\[0\]\.weight: expected a number of more than 0 .*, got 0"):
        recipe(mixture=[{"name": "talks", "weight": 0}])
    with pytest.raises(ConfigError, match=r"data\.mixture\[0\]\.wieght.*did you mean 'weight'"):
        recipe(mixture=[{"name": "talks", "wieght": 1}])
    with pytest.raises(ConfigError, match=r"missing key 'data\.mixture\[0\]\.name'"):
        recipe(mixture=[{"weight": 1}])
