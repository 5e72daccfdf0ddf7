"""The main path on the shipped sample, stage by stage, and what stops it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medical_vqa import registry
from medical_vqa.config import load_recipe, parse_recipe
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.deploying.hub import model_card
from medical_vqa.errors import BundleError, ConfigError, DataError, ModelError
from medical_vqa.evaluation.predicting import image_batches
from medical_vqa.models.compact.model import Compact
from medical_vqa.models.compact.settings import CompactSettings
from medical_vqa.pipelines import train as train_stage
from medical_vqa.pipelines.ask import ask
from medical_vqa.pipelines.bundles import shipped_bundle
from medical_vqa.pipelines.load import load
from medical_vqa.pipelines.predict import predict
from medical_vqa.pipelines.score import score
from medical_vqa.pipelines.training_inputs import initial_bundle, refuse_shared_groups
from medical_vqa.schema.bundle_card import read_bundle_card
from medical_vqa.schema.prediction_card import card_path
from medical_vqa.schema.records import read_predictions
from medical_vqa.schema.selection import Selection
from medical_vqa.training.journal import Journal

SAMPLE = Path(__file__).parents[1] / "src/medical_vqa/assets/slake-mini"


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in Journal(run).rows() if "loss" in row]


def test_the_bundle_says_what_it_is(run):
    card = read_bundle_card(run / "bundle")
    assert card.family == "compact"
    assert card.data.rows == 1225  # qid 1622 has no answer to learn
    assert card.data.images == 110
    assert card.checkpoint_selection.metric == "em"
    assert card.checkpoint_selection.split == "validation"
    assert 0 < card.checkpoint_selection.scores["em"] < 1
    assert "CC BY" in card.license
    assert 0.9 < card.data.validation_answer_coverage <= 1
    assert set(card.files) == {"compact.json", "weights.safetensors"}


def test_the_run_folder_holds_the_resolved_recipe_and_the_environment(run):
    assert load_recipe(run / "recipe.yaml").training.epochs == 3
    environment = json.loads((run / "environment.json").read_text())
    assert {"python", "packages", "git", "device", "dataset_manifest"} <= set(environment)
    assert environment["device"]["reason"]
    assert (run / "finished.json").is_file()
    assert not (run / "checkpoints").exists()


def test_validation_is_scored_while_training(run):
    scored = [row for row in Journal(run).rows() if "em" in row]
    assert [row["epoch"] for row in scored] == [1, 2, 3]
    assert all({"em", "f1", "train_loss", "seconds"} <= set(row) for row in scored)


def test_the_score_of_the_predictions_is_the_score_that_chose_the_checkpoint(run):
    scored = score(run / "predictions-validation.jsonl")
    metrics = {metric.name: metric for metric in scored.results.metrics}
    selected = read_bundle_card(run / "bundle").checkpoint_selection.scores
    assert metrics["em"].score.value == pytest.approx(selected["em"])
    assert metrics["f1"].score.value == pytest.approx(selected["f1"])
    assert set(metrics["em"].baselines) == {"question-only", "majority"}
    assert metrics["em"].score.clusters == 40


def test_predictions_are_resumed_by_id(run, tmp_path, monkeypatch):
    predictions = read_predictions(run / "predictions-validation.jsonl")
    path = tmp_path / "p.jsonl"
    partial = tmp_path / "p.jsonl.partial"
    lines = (run / "predictions-validation.jsonl").read_text().splitlines(keepends=True)
    partial.write_text("".join(lines[:200]) + lines[200][:10])  # the kill came in the middle of a line
    shutil.copy(card_path(run / "predictions-validation.jsonl"), card_path(partial))
    answered = []
    loaded = load(run, device="cpu")
    answer = loaded.model.answer
    monkeypatch.setattr(loaded.model, "answer", lambda q, d: answered.extend(q) or answer(q, d))
    predict(loaded, split="validation", out=path)
    assert len(answered) == len(predictions) - 200
    assert [p.id for p in read_predictions(path)] == [p.id for p in predictions]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.card.json", "p.jsonl"]


def test_answers_of_another_model_are_not_taken_up(run, tmp_path):
    partial = tmp_path / "p.jsonl.partial"
    partial.write_text('{"id": "x", "answer": "y"}\n')
    card_path(partial).write_text('{"model": "another"}')
    path = predict(load(run, device="cpu"), split="validation", out=tmp_path / "p.jsonl").path
    assert "x" not in [p.id for p in read_predictions(path)]


def test_a_batch_for_answering_holds_whole_images():
    batches = list(image_batches(["a", "b", "a", "c", "b"], range(5), 3))
    assert batches == [[0, 2], [1, 4, 3]]
    assert list(image_batches(["a"] * 5, range(5), 2)) == [[0, 1], [2, 3], [4]]


def test_a_baseline_is_trained_and_asked_like_any_model(root, tmp_path, watcher, tiny):
    content = tiny().model_dump(mode="json") | {"model": {"family": "question-only"}}
    recipe = parse_recipe(content, origin="test")
    trained = train_stage.train(recipe, tmp_path / "baseline", watcher=watcher)
    path = predict(load(trained.bundle), split="validation").path
    results = score(path).results
    em = next(metric for metric in results.metrics if metric.name == "em")
    assert em.score.value == pytest.approx(em.baselines["question-only"].value)
    baseline = load(tmp_path / "baseline")
    (answer,) = ask(baseline, SAMPLE / "imgs/xmlab112/source.jpg", ["What modality is this image?"])
    assert answer.text


def test_ask_answers_with_confidence_and_alternatives(run):
    loaded = load(run, device="cpu")
    (answer,) = ask(loaded, SAMPLE / "imgs/xmlab112/source.jpg", ["Is the liver healthy?"])
    assert answer.text
    assert 0 < answer.confidence <= 1
    assert {text for text, _ in answer.alternatives} == {"Yes", "No"} - {answer.text}  # of the question's answer type


def test_a_finished_run_is_not_overwritten_unless_asked(tiny, tmp_path, watcher):
    recipe = tiny(epochs=1, batch_size=512)
    train_stage.train(recipe, tmp_path / "r", watcher=watcher)
    with pytest.raises(ConfigError, match="finished; train with --fresh"):
        train_stage.train(recipe, tmp_path / "r", watcher=watcher)
    with pytest.raises(ConfigError, match=r"another recipe \(training.epochs: \d, now \d\); train"):
        train_stage.train(tiny(epochs=2, batch_size=512), tmp_path / "r", watcher=watcher)
    train_stage.train(recipe, tmp_path / "r", watcher=watcher, fresh=True)


def test_the_same_seed_gives_the_same_losses_and_another_does_not(tiny, tmp_path, watcher):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_stage.train(tiny(epochs=1, seed=seed), tmp_path / name, watcher=watcher)
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")


def test_rows_that_changed_since_the_run_began_are_noticed(tiny, tmp_path, watcher):
    run = tmp_path / "r"
    recipe = tiny(epochs=1)
    train_stage.train(recipe, run, watcher=watcher)
    (run / "finished.json").unlink()
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(environment | {"dataset_manifest": "0" * 64}))
    with pytest.raises(ConfigError, match="rows have changed"):
        train_stage.train(recipe, run, watcher=watcher)


def test_an_image_in_training_and_validation_is_refused(root):
    rows = SelectedDataset.open(Selection(dataset="slake-mini", root=root)).rows("train")
    with pytest.raises(DataError, match="both the training and the validation"):
        refuse_shared_groups(rows, [replace(rows[0], id="other")])


def test_validation_can_be_carved_from_the_training_split(root):
    selection = Selection(dataset="slake-mini", root=root, validation=None, validation_fraction=0.2)
    selected = SelectedDataset.open(selection)
    train, held_out = selected.rows("train"), selected.rows("validation")
    assert not {row.group for row in train} & {row.group for row in held_out}
    published = SelectedDataset.open(Selection(dataset="slake-mini", root=root))
    assert len(train) + len(held_out) == len(published.rows("train"))
    assert Selection.model_validate_json(selection.model_dump_json()) == selection


def test_a_model_may_start_from_another_and_its_card_says_so(run, tiny, tmp_path, watcher):
    trained = train_stage.train(tiny(model={"initial": str(run)}, epochs=1), tmp_path / "later", watcher=watcher)
    earlier, card = read_bundle_card(run / "bundle"), read_bundle_card(trained.bundle)
    assert card.data.started_from.name == earlier.name
    assert card.data.started_from.rows == earlier.data.rows
    assert f"started from {earlier.name}, which was trained on {earlier.data.rows} questions" in model_card(card)
    assert "trained on from" not in model_card(earlier)
    assert watcher.scores[0]["em"] > earlier.checkpoint_selection.scores["em"] - 0.1  # it did not begin at nothing


def test_a_model_has_the_picture_and_sizes_of_the_one_that_it_starts_from(run, root, tmp_path, watcher):
    content = {
        "name": "later",
        "data": {"name": "slake-mini", "root": str(root)},
        "model": {"family": "compact", "initial": str(run), "mirror": 0.2},
        "training": {"epochs": 1, "batch_size": 128, "device": "cpu"},
    }
    trained = train_stage.train(parse_recipe(content, origin="test"), tmp_path / "later", watcher=watcher)
    earlier, later = (CompactSettings.read(bundle) for bundle in (run / "bundle", trained.bundle))
    assert (later.picture, later.sizes) == (earlier.picture, earlier.sizes)
    written = load_recipe(tmp_path / "later" / "recipe.yaml")
    assert (written.model.width, written.model.mirror) == (earlier.sizes.width, 0.2)
    other = parse_recipe(content | {"model": content["model"] | {"width": 8}}, origin="test")
    with pytest.raises(ModelError, match="give the recipe the same picture and sizes"):
        train_stage.train(other, tmp_path / "other", watcher=watcher)


def test_a_damaged_bundle_is_nothing_to_start_from(run, tiny, tmp_path, watcher):
    shutil.copytree(run / "bundle", tmp_path / "damaged")
    (tmp_path / "damaged" / "compact.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BundleError, match="damaged"):
        train_stage.train(tiny(model={"initial": str(tmp_path / "damaged")}), tmp_path / "later", watcher=watcher)


def test_a_compact_model_cannot_start_from_another_family(root, tiny, tmp_path, watcher):
    baseline = train_stage.train(
        parse_recipe(
            {
                "name": "baseline",
                "data": {"name": "slake-mini", "root": str(root)},
                "model": {"family": "question-only"},
            },
            origin="test",
        ),
        tmp_path / "baseline",
        watcher=watcher,
    )
    with pytest.raises(ConfigError, match="is a question-only bundle, and a compact model starts from"):
        train_stage.train(tiny(model={"initial": str(baseline.bundle)}), tmp_path / "later", watcher=watcher)
    with pytest.raises(BundleError, match="no bundle at"):
        train_stage.train(tiny(model={"initial": str(tmp_path / "nobody")}), tmp_path / "other", watcher=watcher)
    assert not (tmp_path / "other/bundle").exists()


def test_the_shipped_model_can_be_started_from(tiny):
    recipe = tiny(model={"initial": "shipped"})
    assert initial_bundle(recipe.model.initial, registry.find("models", "compact")) == shipped_bundle()
    assert Compact.load(shipped_bundle(), device=torch.device("cpu")).answers.answers


def test_a_bundle_that_is_not_there_says_so(tmp_path):
    with pytest.raises(BundleError, match="no bundle at"):
        load(tmp_path)
    with pytest.raises(BundleError, match=r"no bundle at shiped: .* did you mean 'shipped'\?"):
        load("shiped")


def test_predictions_without_a_card_need_the_rows_named(run, root, tmp_path):
    path = tmp_path / "other.jsonl"
    shutil.copy(run / "predictions-validation.jsonl", path)
    with pytest.raises(DataError, match="--dataset and --split"):
        score(path)
    scored = score(path, selection=Selection(dataset="slake-mini", root=root), split="validation")
    assert scored.results.counts.scored == 424


@pytest.mark.slow
def test_a_run_killed_from_outside_goes_on_to_the_same_losses(root, tmp_path):
    recipe = Path(__file__).parents[1] / "recipes/demo.yaml"
    settings = [f"data.root={root}", "training.epochs=4", "training.batch_size=64"]
    settings += [
        "training.device=cpu",
        "model.picture.side=32",
        "model.channels=[8,16]",
        "model.width=16",
        "model.heads=2",
        "model.mirror=0.3",
        "model.reword=0.5",
    ]
    command = [sys.executable, "-m", "medical_vqa", "train", str(recipe), "--run"]
    options = [word for setting in settings for word in ("--set", setting)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    complete, interrupted = tmp_path / "complete", tmp_path / "interrupted"
    subprocess.run([*command, str(complete), *options], check=True, env=environment, capture_output=True)
    options += ["--set", "training.checkpoint_minutes=0"]
    process = subprocess.Popen([*command, str(interrupted), *options], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(losses(interrupted)) < 25 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (interrupted / "finished.json").exists(), "it finished before it could be killed"
    subprocess.run([*command, str(interrupted), *options], check=True, env=environment, capture_output=True)
    assert losses(interrupted) == losses(complete)
    weights = [(folder / "bundle" / "weights.safetensors").read_bytes() for folder in (interrupted, complete)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_two_processes_under_a_launcher_make_one_run(root, tmp_path):
    settings = [f"data.root={root}", "training.epochs=2", "training.batch_size=64", "training.device=cpu"]
    settings += ["model.picture.side=32", "model.channels=[8,16]", "model.width=16", "model.heads=2"]
    launcher = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--num_processes",
        "2",
        "--cpu",
        "-m",
        "medical_vqa",
    ]
    options = [word for setting in settings for word in ("--set", setting)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*launcher, "train", "demo", *options]
    done = subprocess.run(command, check=False, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("steps on cpu") == 1
    run = tmp_path / "runs" / "demo"
    assert json.loads((run / "finished.json").read_text())["steps"] == len(losses(run))
    assert read_bundle_card(run / "bundle").checkpoint_selection.scores["em"] > 0
