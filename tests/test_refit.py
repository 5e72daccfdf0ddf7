"""A model that learns from the training and the validation rows once its recipe is chosen, and what its card says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_model import TINY_MODEL, Silent

from medical_vqa.config import parse_recipe
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.deploying.hub import model_card
from medical_vqa.errors import ConfigError, DataError
from medical_vqa.models.bundle import check_files
from medical_vqa.pipelines.bundles import shipped_bundle
from medical_vqa.pipelines.calibrate import calibrate, calibrate_refit
from medical_vqa.pipelines.inputs import learned_images
from medical_vqa.pipelines.load import load
from medical_vqa.pipelines.predict import predict
from medical_vqa.pipelines.score import score
from medical_vqa.pipelines.train import train
from medical_vqa.pipelines.training_inputs import image_digests, training_inputs
from medical_vqa.schema.bundle_card import read_bundle_card
from medical_vqa.schema.selection import Selection
from medical_vqa.serving.engine.answers import EngineOptions
from medical_vqa.serving.engine.local import Engine
from medical_vqa.serving.service.model_info import model_info
from medical_vqa.serving.settings import Settings
from medical_vqa.training.journal import Journal


@pytest.fixture(scope="module")
def make(root: Path) -> Any:
    """Makes recipes of a tiny compact model; keywords change the data and training sections."""

    def recipe(*, train: str = "train", data: dict[str, Any] | None = None, **training: Any) -> Any:
        content = {
            "name": "chosen",
            "data": {"name": "slake-mini", "root": str(root), "train": train} | (data or {}),
            "model": TINY_MODEL,
            "training": {"epochs": 2, "batch_size": 64, "device": "cpu", "select": "last"} | training,
        }
        return parse_recipe(content, origin="test")

    return recipe


@pytest.fixture(scope="module")
def runs(make: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run of the training rows, with its predictions, and that of all rows."""
    folder = tmp_path_factory.mktemp("runs")
    train(make(), folder / "chosen", watcher=Silent())
    predict(load(folder / "chosen", device="cpu"), split="validation")
    train(make(train="train+validation"), folder / "all", watcher=Silent())
    return folder


@pytest.fixture
def mine(runs: Path, tmp_path: Path) -> Path:
    """A copy of both runs, to be written into."""
    shutil.copytree(runs, tmp_path / "runs")
    card = tmp_path / "runs/chosen/predictions-validation.card.json"
    content = json.loads(card.read_text())
    content["model"]["bundle"] = str(tmp_path / "runs/chosen/bundle")
    card.write_text(json.dumps(content))
    return tmp_path / "runs"


def test_all_rows_are_learned_and_none_is_held_out(make, root):
    dataset = PreparedDataset.open("slake-mini", root)
    inputs = training_inputs(make(train="train+validation"))
    published = [row for split in ("train", "validation") for row in dataset.examples(split)]
    assert [row.id for row in inputs.rows] == [row.id for row in published if row.answers]
    assert inputs.validation_rows == []


def test_the_validation_rows_of_such_a_selection_are_those_that_are_published(root):
    selected = SelectedDataset.open(Selection(dataset="slake-mini", root=root, train="train+validation"))
    dataset = PreparedDataset.open("slake-mini", root)
    assert [row.id for row in selected.rows("validation")] == [row.id for row in dataset.examples("validation")]
    counted = {row.id for row in selected.baseline_rows()}
    assert {row.id for row in dataset.examples("validation") if row.answers} < counted


def test_further_rows_are_about_images_of_either_split(root):
    selection = Selection(
        dataset="slake-mini",
        root=root,
        train="train+validation",
        where={"content_type": "Plane"},
        also={"content_type": "Modality"},
    )
    rows = SelectedDataset.open(selection).rows("train")
    assert {row.facts["content_type"] for row in rows} == {"Plane", "Modality"}
    for split in ("train", "validation"):
        published = PreparedDataset.open("slake-mini", root).examples(split, {"content_type": "Modality"})
        assert any(row.id in {one.id for one in rows} for row in published)


def test_no_score_of_the_validation_rows_stands_in_the_run_or_the_card(runs):
    assert not [row for row in Journal(runs / "all").rows() if "em" in row]
    card = read_bundle_card(runs / "all/bundle")
    assert card.checkpoint_selection is not None
    assert dict(card.checkpoint_selection.scores) == {}
    assert card.data is not None
    assert card.data.validation_answer_coverage is None


@pytest.mark.parametrize(
    ("data", "training", "message"),
    [
        ({}, {"select": "em"}, r"training.select: .*no rows are left to choose a checkpoint on; set it to last"),
        ({"validation": None}, {}, r"data.validation: .*none can be held out"),
        ({"validation": "train"}, {}, r"data.validation: .*none can be held out"),
    ],
)
def test_choosing_on_rows_that_are_learned_is_refused(make, data, training, message):
    with pytest.raises(ConfigError, match=message):
        make(train="train+validation", data=data, **training)


def test_a_baseline_has_no_checkpoint_to_choose(root, tmp_path, watcher):
    data = {"name": "slake-mini", "root": str(root), "train": "train+validation"}
    content = {"name": "baseline", "data": data, "model": {"family": "question-only"}}
    trained = train(parse_recipe(content, origin="test"), tmp_path / "run", watcher=watcher)
    training = read_bundle_card(trained.bundle).data
    assert training is not None
    assert training.images == 150


def test_a_dataset_without_validation_rows_says_so(make, root, tmp_path):
    shutil.copytree(root / "slake-mini", tmp_path / "slake-mini")
    manifest = tmp_path / "slake-mini/manifest.json"
    content = json.loads(manifest.read_text())
    del content["splits"]["validation"]
    manifest.write_text(json.dumps(content))
    with pytest.raises(DataError, match="without a validation split"):
        training_inputs(make(train="train+validation", data={"root": str(tmp_path)}))


def test_a_score_on_rows_that_were_learned_says_so(mine):
    predictions = predict(load(mine / "all", device="cpu"), split="validation").path
    results = score(predictions).results
    assert results.without_leaks is not None
    assert results.without_leaks.trained_on == results.metrics[0].score.n


def test_nothing_is_fitted_on_rows_that_were_learned(mine):
    predictions = predict(load(mine / "all", device="cpu"), split="validation").path
    with pytest.raises(DataError, match=r"chosen learned from the validation rows, .*--refit"):
        calibrate(predictions, risk=0.5)
    assert read_bundle_card(mine / "all/bundle").calibration is None


def test_the_refitted_model_has_the_calibration_of_the_one_that_was_measured(mine):
    calibrate(mine / "chosen/predictions-validation.jsonl", risk=0.5, refit=mine / "all")
    chosen, refit = (read_bundle_card(mine / name / "bundle") for name in ("chosen", "all"))
    assert chosen.calibration is not None
    assert refit.calibration == chosen.calibration
    assert refit.reliability == chosen.reliability != ()
    assert refit.refit_of is not None
    assert chosen.checkpoint_selection is not None
    assert refit.refit_of.scores == chosen.checkpoint_selection.scores != {}
    assert chosen.data is not None
    assert refit.data is not None
    assert (refit.refit_of.rows, refit.refit_of.images) == (chosen.data.rows, chosen.data.images)
    assert refit.data.images > chosen.data.images
    assert load(mine / "all", device="cpu").card == refit  # every file has the digest that the card gives


def test_its_guards_know_the_pictures_of_both_splits(mine):
    calibrate(mine / "chosen/predictions-validation.jsonl", risk=0.5, refit=mine / "all")
    data = read_bundle_card(mine / "all/bundle").data
    assert data is not None
    guards = load(mine / "all", device="cpu").guards
    assert guards is not None
    assert guards.reference is not None
    assert len(guards.reference.point_types) == data.images


def test_people_read_whose_scores_they_are(mine):
    calibrate(mine / "chosen/predictions-validation.jsonl", risk=0.5, refit=mine / "all")
    card = read_bundle_card(mine / "all/bundle")
    assert card.refit_of is not None
    text = model_card(card)
    assert f"trained on {card.refit_of.rows} questions about {card.refit_of.images} images" in text
    assert f"| EM | {100 * card.refit_of.scores['em']:.1f} |" in text
    assert "metrics: []" in text
    loaded = load(mine / "all", device="cpu")
    engine = Engine(loaded.model, loaded.card, EngineOptions(), guards=loaded.guards)
    assert model_info(engine, Settings()).refit_of["images"] == card.refit_of.images


def test_a_calibration_goes_to_the_same_recipe_alone_and_nothing_is_written_otherwise(mine, make, watcher):
    predictions = mine / "chosen/predictions-validation.jsonl"
    with pytest.raises(DataError, match=r"chosen.* did not learn from the validation rows"):
        calibrate(predictions, risk=0.5, refit=mine / "chosen")
    train(make(train="train+validation", epochs=1), mine / "shorter", watcher=watcher)
    with pytest.raises(DataError, match="not of one recipe: they differ in epochs"):
        calibrate(predictions, risk=0.5, refit=mine / "shorter")
    assert read_bundle_card(mine / "chosen/bundle").calibration is None
    with pytest.raises(DataError, match="not calibrated"):
        calibrate_refit(mine / "all/bundle", mine / "chosen/bundle")
    assert read_bundle_card(mine / "all/bundle").refit_of is None


def test_the_command_line_takes_the_refitted_run(mine, call):
    status, out, err = call(
        "calibrate", mine / "chosen/predictions-validation.jsonl", "--risk", 0.5, "--refit", mine / "all"
    )
    assert status == 0, err
    assert f"{mine / 'all/bundle'} has this calibration too" in out


def test_another_size_is_another_recipe(mine, watcher):
    content = yaml.safe_load((mine / "all/recipe.yaml").read_text())
    content["model"]["width"] = 32
    train(parse_recipe(content, origin="test"), mine / "wider", watcher=watcher)
    with pytest.raises(DataError, match="they differ in sizes"):
        calibrate(mine / "chosen/predictions-validation.jsonl", risk=0.5, refit=mine / "wider")


def test_the_card_names_the_images_so_that_a_score_elsewhere_says_they_were_learned(mine, root, tmp_path):
    card = read_bundle_card(mine / "all/bundle")
    assert card.data is not None
    assert len(card.data.image_digests) == card.data.images
    shutil.copytree(
        root / "slake-mini", tmp_path / "elsewhere/copy"
    )  # the training rows are not prepared under that name
    manifest = tmp_path / "elsewhere/copy/manifest.json"
    manifest.write_text(manifest.read_text().replace('"slake-mini"', '"copy"', 1))
    selection = Selection(dataset="copy", root=tmp_path / "elsewhere")
    path = predict(
        load(mine / "all", device="cpu"), split="validation", selection=selection, out=tmp_path / "copy.jsonl"
    ).path
    results = score(path).results
    assert results.without_leaks is not None
    assert results.without_leaks.trained_on == results.metrics[0].score.n


def test_what_a_model_started_from_is_behind_its_answers_too(mine, make, root, watcher, tmp_path):
    content = make(train="train+validation", data={"where": {"content_type": "Plane"}}).model_dump(mode="json")
    content["model"]["initial"] = str(mine / "chosen")
    later = read_bundle_card(
        train(parse_recipe(content, origin="test"), tmp_path / "later", watcher=watcher).bundle
    ).data
    chosen = read_bundle_card(mine / "chosen/bundle").data
    assert later is not None
    assert chosen is not None
    assert set(chosen.image_digests) < set(later.image_digests)
    assert later.started_from is not None
    assert later.started_from.selections == (chosen.selection,)
    without = later.model_copy(update={"image_digests": ()})  # as an older card: the datasets are looked up
    selected = SelectedDataset.open(later.selection)
    assert learned_images(without, selected) == set(later.image_digests)


def test_a_model_that_learned_the_validation_images_is_no_start_where_they_choose(mine, make, watcher, tmp_path):
    content = make(select="em").model_dump(mode="json")
    content["model"]["initial"] = str(mine / "all")
    with pytest.raises(
        ConfigError, match=r"learned from 40 of the validation images of slake-mini .*train\+validation"
    ):
        train(parse_recipe(content, origin="test"), tmp_path / "later", watcher=watcher)
    assert not (tmp_path / "later/bundle").exists()


def test_a_mixture_names_the_images_of_all_its_datasets(mine, make, root, tmp_path):
    shutil.copytree(root / "slake-mini", tmp_path / "copies/copy")
    manifest = tmp_path / "copies/copy/manifest.json"
    manifest.write_text(manifest.read_text().replace('"slake-mini"', '"copy"', 1))
    planes = {"where": {"content_type": "Plane"}}
    mixture = [{"name": "copy", "root": str(tmp_path / "copies"), "train": "train+validation"}]
    inputs = training_inputs(make(train="train+validation", data={**planes, "mixture": mixture}))
    assert len(image_digests(inputs.parts, None)) == 150


def test_the_model_whose_figures_the_shipped_card_gives_is_in_the_repository():
    shipped = read_bundle_card(shipped_bundle())
    folder = Path(__file__).parents[1] / "benchmarks/models" / shipped.name
    measured = read_bundle_card(folder)
    check_files(folder, measured)
    assert shipped.refit_of is not None
    assert shipped.refit_of.files == measured.files
    for figures in ("calibration", "reliability", "localization"):
        assert getattr(shipped, figures) == getattr(measured, figures)
    assert measured.data is not None
    assert shipped.data is not None
    assert not measured.data.selection.learns_validation
    assert set(measured.data.image_digests) < set(shipped.data.image_digests)


def test_a_score_of_the_shipped_model_on_the_shipped_sample_says_that_it_has_learned_it(root, tmp_path):
    selection = Selection(dataset="slake-mini", root=root, where={"content_type": "Plane"})
    path = predict(load("shipped"), split="validation", selection=selection, out=tmp_path / "planes.jsonl").path
    results = score(path).results
    assert results.without_leaks is not None
    assert results.without_leaks.trained_on == results.metrics[0].score.n
