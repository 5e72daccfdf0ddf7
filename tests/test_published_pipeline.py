"""Published families through the stages: features are made once, runs resume exactly, two processes equal one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import FullyShardedDataParallelPlugin
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]
from PIL import Image
from safetensors.torch import load_file

from medical_vqa.config import load_recipe, parse_recipe
from medical_vqa.data.imaging.picture_statistics import PictureContext, PictureStatistics
from medical_vqa.data.imaging.preprocessing import prepare_picture
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.errors import BundleError, ConfigError, ModelError, OfflineError
from medical_vqa.models.base import Query
from medical_vqa.models.hf.blip2 import Blip2Vision
from medical_vqa.models.hf.checkpoint import find_checkpoint
from medical_vqa.models.hf.lora import hide_peft_warnings
from medical_vqa.pipelines.ask import ask
from medical_vqa.pipelines.bundles import load_model
from medical_vqa.pipelines.calibrate import calibrate
from medical_vqa.pipelines.export import export
from medical_vqa.pipelines.load import load
from medical_vqa.pipelines.plan import plan
from medical_vqa.pipelines.predict import predict
from medical_vqa.pipelines.score import score
from medical_vqa.pipelines.train import train
from medical_vqa.pipelines.training_inputs import select_rows
from medical_vqa.schema.prediction_card import read_prediction_card
from medical_vqa.training.journal import Journal
from medical_vqa.training.loop import check_fsdp

sys.path.insert(0, str(Path(__file__).parent / "hub"))
import tiny_hub

MAKERS = {"blip2": tiny_hub.blip2, "vilt": tiny_hub.vilt, "chat": tiny_hub.chat}


@pytest.fixture(scope="session")
def hubs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


@pytest.fixture
def recipe(root: Path, hubs: dict[str, Path]) -> Any:
    def make(family: str = "blip2", *, model: dict[str, Any] | None = None, **training: Any) -> Any:
        settings = {"epochs": 1, "batch_size": 32, "device": "cpu", "average": 0, "learning_rate": 1e-3} | training
        side = {"side": 56} if family == "chat" else {}
        content = {
            "name": family,
            "data": {"name": "slake-mini", "root": str(root), "where": {"content_type": "Size"}},
            "model": {"family": family, "checkpoint": str(hubs[family])} | side | (model or {}),
            "training": settings,
            "decoding": {"max_tokens": 3},
        }
        return parse_recipe(content, origin="test")

    return make


@pytest.mark.parametrize("family", MAKERS)
def test_a_bundle_of_each_family_predicts_and_answers(recipe, family, tmp_path, watcher, picture):
    trained = train(recipe(family), tmp_path / "run", watcher=watcher)
    loaded = load(trained.bundle, device="cpu")
    predictions = predict(loaded, split="validation").path
    assert len(score(predictions).answered.predictions) > 5
    (answer,), card = ask(loaded, picture, ["Which organ is the largest?"]), loaded.card
    assert answer.confidence is not None
    assert card.facts.parameters > card.facts.trainable - 1
    assert card.decoding.max_tokens == 3
    assert (card.prompt is None) == (family == "vilt")


@pytest.mark.slow
@pytest.mark.parametrize("family", MAKERS)
def test_calibration_gives_the_bundle_of_each_family_a_picture_guard(recipe, family, tmp_path, watcher):
    trained = train(recipe(family), tmp_path / "run", watcher=watcher)
    calibrate(predict(load(trained.bundle, device="cpu"), split="validation").path, risk=0.5)
    guards = load(trained.bundle, device="cpu").guards
    assert guards.reference.features is not None
    assert guards.reference.modalities
    spec = guards.model.picture
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).convert("RGB")
    query = Query("q", "Which organ is the largest?", "noise", prepare_picture(noise, spec))
    constant = PictureContext(PictureStatistics(contrast=0, saturation=0, entropy=0, outside_common_levels=0))
    assert guards.answer([query], {"noise": constant}, suggest=False)[0].abstention.code == "constant_picture"
    assert guards.answer([query], suggest=False)[0].prediction.answer is not None
    assert guards.measures_dependence is (family == "vilt")


@pytest.mark.parametrize("family", MAKERS)
def test_half_precision_trains_and_the_bundle_answers_in_full(recipe, family, tmp_path, watcher):
    trained = train(recipe(family, precision="bf16"), tmp_path / "run", watcher=watcher)
    about = json.loads((trained.bundle / "card.json").read_text())["facts"]
    assert about.get("precision", "bf16") == "bf16"
    assert all(loss > 0 for _, loss in losses(tmp_path / "run"))
    weights = load_file(next(trained.bundle.glob("*.safetensors")))
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert score(predict(load(tmp_path / "run", device="cpu"), split="validation").path).answered.predictions


def test_a_closed_list_of_answers_says_how_many_it_covers(recipe, tmp_path, watcher):
    trained = train(recipe("vilt"), tmp_path / "run", watcher=watcher)
    card = json.loads((trained.bundle / "card.json").read_text())
    known = set(json.loads((trained.bundle / "vilt.json").read_text())["answers"])
    rows = SelectedDataset.open(select_rows(recipe("vilt"))).rows("validation")
    share = sum(row.answers[0].lower() in {answer.lower() for answer in known} for row in rows) / len(rows)
    assert 0 < share < 1
    assert card["data"]["validation_answer_coverage"] == pytest.approx(share, abs=1e-4)
    for split, covered in (("train", 1.0), ("validation", share)):
        predictions = predict(load(tmp_path / "run", device="cpu"), split=split).path
        assert read_prediction_card(predictions).answer_coverage == pytest.approx(covered, abs=1e-4)


@pytest.mark.parametrize("family", ["blip2", "chat"])
def test_an_encoder_that_trains_leaves_no_features_behind_and_its_weights_are_in_the_bundle(
    recipe, hubs, family, root, tmp_path, watcher
):
    stores = root / "slake-mini" / "features"
    before = sorted(stores.rglob("*.safetensors")) if stores.is_dir() else []
    trained = train(recipe(family, model=VISION), tmp_path / "run", watcher=watcher)
    predict(load(trained.bundle, device="cpu"), split="validation")
    assert (sorted(stores.rglob("*.safetensors")) if stores.is_dir() else []) == before
    published = load_file(hubs[family] / "model.safetensors")
    learned = load_file(trained.bundle / "adapter_model.safetensors")
    for part in (
        ("blocks.0.attn.qkv.weight", "merger.mlp.0.weight") if family == "chat" else ("0.self_attn.qkv.weight",)
    ):
        (new,) = (value for name, value in learned.items() if name.endswith(part))
        (old,) = (value for name, value in published.items() if name.endswith(part))
        assert 0 < (new - old).abs().max() < 0.1


def test_images_are_encoded_once_and_for_all(recipe, root, tmp_path, watcher, monkeypatch):
    encoded: list[int] = []
    encode = Blip2Vision.encode

    def counted(self: Any, pictures: Any) -> Any:
        encoded.append(len(pictures))
        return encode(self, pictures)

    monkeypatch.setattr(Blip2Vision, "encode", counted)
    lora = {"lora": {"targets": "qformer"}}
    train(recipe(model=lora), tmp_path / "one", watcher=watcher)
    assert sum(encoded) > 0
    encoded.clear()
    train(recipe(model=lora, seed=1), tmp_path / "two", watcher=watcher)
    predict(load(tmp_path / "one", device="cpu"), split="validation")
    assert encoded == []


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in Journal(folder).rows() if "loss" in row]


class Killed(Exception):
    pass


VISION = {"lora": {"vision": "full", "projector": True}}
PROJECTOR = {"lora": {"targets": "none", "projector": True}}
WHOLE = {"lora": {"language": "full"}}


@pytest.mark.parametrize(
    ("family", "model"),
    [
        *((family, None) for family in MAKERS),
        *(("blip2", model) for model in (VISION, WHOLE)),
        *(("chat", model) for model in (VISION, PROJECTOR, WHOLE)),
    ],
)
@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_exactly(recipe, family, model, tmp_path, watcher, monkeypatch, caplog):
    settings = {"epochs": 3, "batch_size": 16, "evaluate_every": 9, "model": model}
    train(recipe(family, **settings), tmp_path / "whole", watcher=watcher)
    steps = losses(tmp_path / "whole")

    def kill(**_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(watcher, "step", lambda *, done, **_: kill() if done >= len(steps) // 2 else None)
        train(recipe(family, checkpoint_minutes=0, **settings), tmp_path / "cut", watcher=watcher)
    checkpoint = Journal(tmp_path / "cut").checkpoint()
    assert checkpoint is not None
    train(recipe(family, checkpoint_minutes=0, **settings), tmp_path / "cut", watcher=watcher)
    assert losses(tmp_path / "cut") == steps
    assert "shared tensor" not in caplog.text


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.parametrize(
    ("family", "trained"),
    [
        ("blip2", {"targets": "both"}),
        *(("chat", lora) for lora in ({}, VISION["lora"], PROJECTOR["lora"], WHOLE["lora"])),
    ],
)
def test_two_processes_take_the_steps_of_one(recipe, family, trained, tmp_path, watcher, forks):
    lora = {"lora": trained | {"dropout": 0.0}}
    settings = {"learning_rate": 1e-2, "grouping": "question", "epochs": 2, "micro_batch": 3}
    rows = len(SelectedDataset.open(select_rows(recipe())).rows("train"))
    whole = next(size for size in range(6, rows, 2) if rows % size == 1)  # one row is left over
    train(recipe(family, model=lora, batch_size=whole, **settings), tmp_path / "one", watcher=watcher)
    (tmp_path / "two.yaml").write_text(recipe(family, model=lora, batch_size=whole // 2, **settings).to_yaml())
    words = ["-m", "medical_vqa", "train", "two.yaml", "--run-dir", "two"]
    for done in forks.launch(2, words, tmp_path):
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert [step for step, _ in one] == [step for step, _ in two]
    assert [loss for _, loss in one] == pytest.approx([loss for _, loss in two], rel=1e-4)
    scores = [[row["em"] for row in Journal(tmp_path / name).rows() if "em" in row] for name in ("one", "two")]
    assert scores[0] == scores[1]  # the questions were divided among the processes


FSDP = {
    "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "T5Block", "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false", "FSDP_RESHARD_AFTER_FORWARD": "true",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.parametrize(
    ("family", "trained", "layer"),
    [
        ("blip2", {}, "T5Block"),
        ("blip2", VISION["lora"], "T5Block"),
        ("blip2", WHOLE["lora"], "T5Block"),
        ("chat", {}, "Qwen2_5_VLDecoderLayer"),
        ("chat", WHOLE["lora"], "Qwen2_5_VLDecoderLayer"),
    ],
)
def test_weights_shared_out_take_the_steps_of_one_process_and_survive_a_kill(
    recipe, family, trained, layer, tmp_path, watcher, forks
):
    rate = 1e-3 if trained == WHOLE["lora"] else 1e-2  # as docs/how-to/fine-tune.md says
    settings = {"model": {"lora": trained | {"dropout": 0.0}}, "learning_rate": rate, "epochs": 2}
    one = train(recipe(family, batch_size=16, **settings), tmp_path / "one", watcher=watcher)
    (tmp_path / "recipe.yaml").write_text(recipe(family, batch_size=8, **settings).to_yaml(), encoding="utf-8")
    script = Path(__file__).parent / "training" / "sharded.py"

    def launch(**changes: str) -> list[subprocess.CompletedProcess[str]]:
        words = [script, "train", "recipe.yaml", "--run", "two"]
        return forks.launch(2, words, tmp_path, **FSDP | {"FSDP_TRANSFORMER_CLS_TO_WRAP": layer} | changes)

    assert [stopped.returncode for stopped in launch(STOP_AFTER="8")] == [9, 9]
    assert [path.name for path in (tmp_path / "two" / "checkpoints").iterdir()] == ["step-00000008"]
    for done in launch():
        assert done.returncode == 0, done.stderr[-2000:]
    expected, found = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert [step for step, _ in found] == [step for step, _ in expected]
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in expected], rel=1e-4)
    files = sorted(path.name for path in one.bundle.glob("*.safetensors"))
    assert files == sorted(path.name for path in (tmp_path / "two/bundle").glob("*.safetensors"))
    for file in files:
        whole, gathered = (load_file(folder / file) for folder in (one.bundle, tmp_path / "two/bundle"))
        assert whole.keys() == gathered.keys()
        assert all(torch.allclose(whole[name], gathered[name], atol=1e-5) for name in whole)


def test_a_plan_counts_parameters_and_steps_and_loads_nothing(recipe, hubs, tmp_path, watcher, monkeypatch):
    paper = plan(recipe(epochs=2))
    trained = train(recipe(epochs=2), tmp_path / "run", watcher=watcher)
    about = json.loads((trained.bundle / "card.json").read_text())["facts"]
    assert trained.result is not None
    assert (paper.steps, paper.estimate.trainable) == (trained.result.steps, about["trainable"])
    assert paper.memory.gradients == 4 * about["trainable"]
    assert any("trained" in line for line in paper.lines())


@pytest.mark.parametrize(
    ("checkpoint", "parameters", "tokens"),
    [("Salesforce/blip2-flan-t5-xl", 3.9e9, 32), ("Qwen/Qwen2.5-VL-3B-Instruct", 3.75e9, 256)],
)
def test_a_shipped_recipe_is_planned_before_its_checkpoint_is_downloaded(
    recipe, checkpoint, parameters, tokens, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    family = "blip2" if "blip2" in checkpoint else "chat"
    side = {"side": 448} if family == "chat" else {}
    paper = plan(recipe(family, model={"checkpoint": checkpoint} | side))
    assert paper.estimate.parameters == pytest.approx(parameters, rel=0.02)
    assert paper.estimate.stacks[0].tokens in (tokens + 32, tokens + 40)
    assert f"the configuration of {checkpoint} that this package ships" in paper.lines()[-1]


def test_a_bundle_that_could_not_answer_a_new_picture_stops_training_before_its_first_step(
    recipe, tmp_path, watcher, monkeypatch
):
    monkeypatch.setattr(Blip2Vision, "encode", lambda *_: [])
    monkeypatch.setattr("medical_vqa.models.hf.blip2.to_pixels", lambda *_: {"pixel_values": torch.zeros(1)})
    with pytest.raises(ModelError, match=r"could not answer a new picture \(.*\); nothing was trained"):
        train(recipe(), tmp_path / "run", watcher=watcher)
    assert Journal(tmp_path / "run").rows() == []


@pytest.mark.parametrize("family", ["blip2", "chat"])
def test_a_run_starts_from_the_adapters_of_another_and_its_card_says_so(recipe, family, tmp_path, watcher):
    first = train(recipe(family), tmp_path / "first", watcher=watcher)
    second = train(recipe(family, model={"initial": str(tmp_path / "first")}), tmp_path / "second", watcher=watcher)
    facts = json.loads((second.bundle / "card.json").read_text())
    assert facts["data"]["started_from"]["name"] == family
    assert losses(tmp_path / "second")[0][1] < losses(tmp_path / "first")[0][1]
    assert load_file(first.bundle / "adapter_model.safetensors").keys() == (
        load_file(second.bundle / "adapter_model.safetensors").keys()
    )


def test_a_run_starts_from_an_adapter_on_the_hub(recipe, tmp_path, watcher, monkeypatch):
    """The hub's local cache, as downloads leave it, with an adapter, a bundle, and a repository of neither."""
    first = train(recipe("chat"), tmp_path / "first", watcher=watcher)
    contents = {
        "them--adapter": ["adapter_config.json", "adapter_model.safetensors"],
        "me--bundle": [path.name for path in first.bundle.iterdir()],
        "them--pickle": ["adapter_config.json"],
        "them--nothing": [],
    }
    for name, files in contents.items():
        folder = tmp_path / "hub" / f"models--{name}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("0" * 40)
        (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
        for file in files:
            shutil.copyfile(first.bundle / file, folder / "snapshots" / ("0" * 40) / file)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    expected = load_file(first.bundle / "adapter_model.safetensors")
    for name in ("adapter", "bundle"):
        owner = "them" if name == "adapter" else "me"
        options = recipe("chat", model={"initial": f"hub:{owner}/{name}"}, learning_rate=1e-9)
        second = train(options, tmp_path / name, watcher=watcher)
        found = load_file(second.bundle / "adapter_model.safetensors")
        assert all(torch.allclose(found[key], expected[key], atol=1e-6) for key in expected)
        data = json.loads((second.bundle / "card.json").read_text())["data"]
        assert (data["started_from"] is None) == (name == "adapter")
    with pytest.raises(ModelError, match=r"holds no adapter_model\.safetensors: expected an adapter as safetensors"):
        train(recipe("chat", model={"initial": "hub:them/pickle"}), tmp_path / "pickle", watcher=watcher)
    with pytest.raises(OfflineError, match=r"hf download them/nothing"):
        train(recipe("chat", model={"initial": "hub:them/nothing"}), tmp_path / "none", watcher=watcher)


def test_a_checkpoint_that_is_an_adapter_says_where_it_belongs(recipe, tmp_path, watcher):
    trained = train(recipe(), tmp_path / "run", watcher=watcher)
    with pytest.raises(ModelError, match=r"holds an adapter and not a checkpoint: .*model\.initial"):
        train(recipe(model={"checkpoint": str(trained.bundle)}), tmp_path / "next", watcher=watcher)


def test_a_bundle_records_the_libraries_that_trained_it(recipe, tmp_path, watcher):
    facts = json.loads((train(recipe("vilt"), tmp_path / "run", watcher=watcher).bundle / "card.json").read_text())
    assert facts["facts"]["libraries"]["transformers"].startswith("5.")


def test_a_gpu_too_small_is_said_before_anything_loads(recipe, monkeypatch):
    monkeypatch.setattr("medical_vqa.runtime.devices.device_memory", lambda device: 100_000)
    with pytest.raises(ConfigError, match=r"GPU is too small: .*four_bit"):
        plan(recipe()).check()


def test_augmentation_and_features_exclude_each_other(recipe):
    with pytest.raises(ConfigError, match=r"augment: null or features: false"):
        recipe(model={"augment": {}})
    assert recipe(model={"augment": {}, "features": False})


def test_a_wrong_key_of_the_adapters_names_the_nearest(recipe):
    with pytest.raises(ConfigError, match=r"model\.lora\.rnk.*did you mean 'rank'"):
        recipe(model={"lora": {"rnk": 8}})


@pytest.mark.parametrize(
    "name", ["slake-vilt", "slake-vilt-long", "slake-blip2-lora", "slake-blip2-all-linear", "slake-chat-lora"]
)
def test_the_recipes_that_ship_are_valid(name):
    shipped = load_recipe(Path(__file__).parents[1] / "recipes" / f"{name}.yaml")
    assert shipped.name == name
    assert yaml.safe_load(shipped.to_yaml())


FIRST = {
    "slake-vilt": (
        {"family": "vilt", "checkpoint": "dandelin/vilt-b32-mlm"},
        {"epochs": 3, "batch_size": 64, "learning_rate": 2e-5, "accumulate": 1, "average": 0.0},
    ),
    "slake-blip2-lora": (
        {"family": "blip2", "checkpoint": "Salesforce/blip2-flan-t5-xl",
         "lora": {"targets": "language", "layers": "attention", "rank": 8, "alpha": 32.0, "dropout": 0.1}},
        {"epochs": 10, "batch_size": 64, "learning_rate": 2e-3, "weight_decay": 0.0, "average": 0.0},
    ),
}  # fmt: skip
BETTER = {
    "slake-vilt-long": (
        {"family": "vilt", "checkpoint": "dandelin/vilt-b32-mlm"},
        {"epochs": 10, "batch_size": 64, "accumulate": 4, "learning_rate": 1e-4, "weight_decay": 0.01, "warmup": 0.1},
    ),
    "slake-blip2-all-linear": (
        {"family": "blip2", "checkpoint": "Salesforce/blip2-flan-t5-xl",
         "lora": {"layers": "all-linear", "rank": 16, "alpha": 16.0, "dropout": 0.05, "rslora": True}},
        {"epochs": 10, "batch_size": 64, "learning_rate": 2e-4, "patience": 3},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "values"), list((FIRST | BETTER).items()), ids=str)
def test_the_first_recipes_and_their_successors_have_these_values(name, values):
    content = yaml.safe_load(load_recipe(Path(__file__).parents[1] / "recipes" / f"{name}.yaml").to_yaml())
    model, training = values
    assert content["data"]["where"] == {"language": "en"}
    for key, value in model.items():
        actual = content["model"][key]
        assert value.items() <= actual.items() if isinstance(value, dict) else actual == value
    assert training.items() <= content["training"].items()


@pytest.mark.parametrize("name", list(FIRST | BETTER))
def test_each_of_these_recipes_is_planned_without_its_checkpoint_or_a_network(name, root, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("medical_vqa.models.hf.checkpoint._download", offline)
    changes = {"data.name": "slake-mini", "data.root": str(root)}
    shipped = load_recipe(Path(__file__).parents[1] / "recipes" / f"{name}.yaml", changes)
    paper = plan(shipped)
    assert paper.steps > 0
    assert paper.estimate.stand_in == shipped.model.checkpoint


def offline(*_: object) -> Path:
    raise OfflineError("no network in this test")


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_the_launcher_configurations_are_understood(kind, monkeypatch):
    path = Path(__file__).parents[1] / "recipes" / "accelerate" / f"{kind}.yaml"
    understood = load_config_from_file(str(path))  # raises on an unknown key
    for key, value in getattr(understood, "fsdp_config", {}).items():
        monkeypatch.setenv(key.upper().replace("LAYER_CLS", "CLS"), str(value))
    if kind == "fsdp":
        plugin = FullyShardedDataParallelPlugin()
        check_fsdp(plugin)
        assert plugin.transformer_cls_names_to_wrap == ["T5Block"]


def test_a_checkpoint_folder_that_is_not_there(recipe, tmp_path, watcher):
    with pytest.raises(ModelError, match=r"no checkpoint at /nowhere/blip2: expected a folder .*or a hub id"):
        train(recipe(model={"checkpoint": "/nowhere/blip2"}), tmp_path / "run", watcher=watcher)


def test_a_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(ModelError, match=r"is not a checkpoint: expected config\.json"):
        find_checkpoint(str(tmp_path))


def test_a_hub_checkpoint_that_is_not_in_the_cache_says_how_to_fetch_it(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OfflineError, match=r"hf download nobody/nothing --local-dir"):
        find_checkpoint("nobody/nothing")


def test_a_checkpoint_of_another_kind_is_refused(recipe, hubs, tmp_path, watcher):
    with pytest.raises(ModelError, match=r"is a 'vilt' and a 'blip-2' is needed"):
        train(recipe(model={"checkpoint": str(hubs["vilt"])}), tmp_path / "run", watcher=watcher)


def test_a_pattern_into_the_vision_tower_is_refused(recipe, tmp_path, watcher):
    model = {"lora": {"modules": r".*\.(qkv|q|v)"}}
    with pytest.raises(ModelError, match="in a frozen module whose output is cached"):
        train(recipe(model=model), tmp_path / "run", watcher=watcher)


def test_a_bundle_whose_base_was_changed_is_refused(recipe, tmp_path, watcher):
    base = tiny_hub.blip2(tmp_path / "base")
    trained = train(recipe(model={"checkpoint": str(base)}), tmp_path / "run", watcher=watcher)
    tiny_hub.blip2(base, d_ff=32)
    with pytest.raises(BundleError, match="is not the checkpoint that"):
        load_model(trained.bundle, "cpu")


@pytest.mark.parametrize("family", ["blip2", "chat"])
def test_four_bits_without_the_extra_say_what_to_install(recipe, family, tmp_path, watcher, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    from medical_vqa.errors import MissingDependencyError

    with pytest.raises(MissingDependencyError, match=r"pip install 'medical-vqa\[train,hub,qlora\]'"):
        train(recipe(family, model={"four_bit": True}), tmp_path / "run", watcher=watcher)


@pytest.mark.parametrize("family", ["blip2", "chat"])
def test_four_bits_without_a_gpu_say_so(recipe, family, tmp_path, watcher, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="four_bit needs an NVIDIA GPU"):
        train(recipe(family, model={"four_bit": True}), tmp_path / "run", watcher=watcher)


def test_a_plan_counts_four_bits_as_four_bits(recipe):
    whole, packed = (plan(recipe("chat", model={"four_bit": on})) for on in (False, True))
    numbers = packed.estimate.quantized
    assert numbers > 10_000
    assert whole.memory.weights - packed.memory.weights == 4 * numbers - round(0.52 * numbers)
    assert packed.estimate.parameters == whole.estimate.parameters


class Hub:
    """Stands for the hub: keeps what was uploaded."""

    pushed: dict[str, str]
    copy: Path | None = None
    """New folder that keeps the files themselves; None: their texts alone are kept."""

    def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> str:
        Hub.pushed = {"repository": repository, "private": str(private)}
        return f"https://huggingface.co/{repository}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        Hub.pushed |= {path.name: path.read_text(errors="ignore") for path in folder_path.iterdir()}
        if Hub.copy is not None:
            shutil.copytree(folder_path, Hub.copy)


def test_a_bundle_is_pushed_with_a_model_card_and_loads_elsewhere(recipe, hubs, tmp_path, watcher, monkeypatch):
    from peft import PeftModel
    from transformers import Blip2ForConditionalGeneration

    train(recipe(), tmp_path / "run", watcher=watcher)
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert export(tmp_path / "run", to="hub", repository="me/mine") == "https://huggingface.co/me/mine"
    card = Hub.pushed["README.md"]
    metadata = yaml.safe_load(card.split("---")[1])
    assert Hub.pushed["private"] == "True"
    assert metadata["library_name"] == "peft"
    assert metadata["license"] == "cc-by-4.0"
    assert metadata["pipeline_tag"] == "visual-question-answering"
    assert [found["type"] for found in metadata["model-index"][0]["results"][0]["metrics"]] == ["em", "f1"]
    for said in ("## Data", "License: CC BY 4.0", "## Scores", "| EM |", "## Limits", "not for diagnosis"):
        assert said in card
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "card.json"} <= set(Hub.pushed)

    exported = export(tmp_path / "run", to=str(tmp_path / "elsewhere"))
    base = Blip2ForConditionalGeneration.from_pretrained(hubs["blip2"])
    assert str(hubs["blip2"]) not in card
    assert f"the checkpoint that was the local folder {hubs['blip2'].name!r}" in card
    assert "processor_config.json" in Hub.pushed
    with hide_peft_warnings():
        assert PeftModel.from_pretrained(base, exported)
    with pytest.raises(ModelError, match="exists; export into a new folder"):
        export(tmp_path / "run", to=str(tmp_path / "elsewhere"))


def test_what_is_pushed_names_a_local_base_by_its_folder_and_finds_it_among_the_checkpoints_of_another_machine(
    recipe, hubs, tmp_path, watcher, monkeypatch, picture
):
    run = train(recipe(), tmp_path / "run", watcher=watcher)
    expected = ask(load(run.bundle, device="cpu"), picture, ["Which organ is the largest?"])[0]
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr(Hub, "copy", tmp_path / "pushed")
    export(tmp_path / "run", to="hub", repository="me/mine")
    assert [name for name, text in Hub.pushed.items() if str(hubs["blip2"]) in text] == []
    assert json.loads(Hub.pushed["adapter_config.json"])["base_model_name_or_path"] == hubs["blip2"].name
    home = tmp_path / "home"
    (home / "checkpoints").mkdir(parents=True)
    (home / "checkpoints" / hubs["blip2"].name).symlink_to(hubs["blip2"])
    monkeypatch.setenv("MEDICAL_VQA_HOME", str(home))
    assert ask(load(tmp_path / "pushed", device="cpu"), picture, ["Which organ is the largest?"])[0] == expected


def test_a_bundle_with_a_whole_language_model_says_how_others_load_it(recipe, tmp_path, watcher, picture):
    run = train(recipe("chat", model=WHOLE), tmp_path / "run", watcher=watcher)
    folder = Path(export(run.run, to=str(tmp_path / "elsewhere")))
    text = (folder / "README.md").read_text()
    assert yaml.safe_load(text.split("---")[1])["library_name"] == "medical-vqa"
    assert "PeftModel" not in text
    assert "export bundle DIR --to merged, then AutoModelForImageTextToText.from_pretrained(DIR)" in text
    answer = ask(load(folder, device="cpu"), picture, ["Which organ is the largest?"])[0]
    assert answer == ask(load(run.bundle, device="cpu"), picture, ["Which organ is the largest?"])[0]


def test_a_push_without_a_network_says_so(recipe, tmp_path, watcher, monkeypatch):
    def unreachable(*_: object, **__: object) -> None:
        raise HTTPError("[Errno -2] Name or service not known")

    train(recipe("vilt"), tmp_path / "run", watcher=watcher)
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.HfApi.create_repo", unreachable)
        with pytest.raises(OfflineError, match=r"hub cannot be reached.*--to DIR"):
            export(tmp_path / "run", to="hub", repository="me/mine")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OfflineError, match=r"hub cannot be reached.*--to DIR"):
        export(tmp_path / "run", to="hub", repository="me/mine")
    with pytest.raises(ConfigError, match="needs a repository"):
        export(tmp_path / "run", to="hub")
