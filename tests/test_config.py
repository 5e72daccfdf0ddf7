from pathlib import Path

import pytest

from medical_vqa.config import find_recipe, load_recipe, parse_recipe, where_split
from medical_vqa.errors import ConfigError

SMALLEST = {"name": "run", "data": {"name": "slake"}, "model": {"family": "compact"}}
RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


def refusal(**changes: object) -> str:
    with pytest.raises(ConfigError) as error:
        parse_recipe(SMALLEST | changes, origin="recipe.yaml")
    return str(error.value)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_project_loads_and_survives_a_round_trip(path, tmp_path):
    recipe = load_recipe(path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(copy) == recipe
    assert load_recipe(copy).digest() == recipe.digest()
    assert recipe.name == path.stem


def test_there_are_recipes():
    assert len(RECIPES) >= 2


def test_an_unknown_key_names_the_nearest_one():
    message = refusal(training={"epocs": 3})
    assert "unknown key 'training.epocs'; did you mean 'epochs'?" in message


def test_an_unknown_key_of_a_model_names_the_nearest_one():
    assert "did you mean 'label_smoothing'?" in refusal(model={"family": "compact", "label_smoothin": 0.1})


def test_an_unknown_key_inside_the_picture_names_the_nearest_one():
    assert "did you mean 'side'?" in refusal(model={"family": "compact", "picture": {"sides": 100}})


def test_an_unknown_key_like_no_other_lists_the_known_ones():
    assert "the keys there are" in refusal(zzz=1)


def test_an_unknown_family_is_refused():
    assert "family" in refusal(model={"family": "compct"})


def test_a_missing_key_is_named():
    with pytest.raises(ConfigError, match="missing key 'data'"):
        parse_recipe({"name": "run", "model": {"family": "compact"}}, origin="recipe.yaml")


def test_a_value_out_of_bounds_is_shown():
    message = refusal(training={"epochs": 0})
    assert "training.epochs" in message
    assert "got 0" in message


def test_the_test_split_can_choose_nothing():
    assert "validation" in refusal(data={"name": "slake", "validation": "test"})
    assert "train" in refusal(data={"name": "slake", "train": "test"})


def test_a_name_that_would_leave_the_run_folder_is_refused():
    assert "name" in refusal(name="../elsewhere")


def test_overrides_are_yaml_values_under_dotted_keys(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("name: run\ndata: {name: slake}\nmodel: {family: compact}\n", encoding="utf-8")
    recipe = load_recipe(path, {"training.epochs": "7", "model.augment": "null"})
    assert recipe.training.epochs == 7
    assert recipe.model.augment is None


def test_an_override_into_a_value_is_refused(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("name: run\ndata: {name: slake}\nmodel: {family: compact}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="is a value"):
        load_recipe(path, {"name.first": "x"})


@pytest.mark.parametrize("content", ["- a list", "a: [broken", ""])
def test_what_is_no_recipe_is_one_sentence(content, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_recipe(path)
    assert "\n" not in str(error.value)


def test_a_missing_recipe_says_where_recipes_are(tmp_path):
    with pytest.raises(ConfigError, match="recipes/"):
        load_recipe(tmp_path / "none.yaml")


def test_a_shipped_recipe_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe(Path("slake-compact")).name == "slake-compact.yaml"
    assert find_recipe(Path("recipes/demo.yaml")).is_file()
    assert find_recipe(Path("elsewhere/demo.yaml")) == Path("elsewhere/demo.yaml")


def test_splits_are_understood_by_their_usual_names():
    assert [where_split(n) for n in ("train", "val", "validate", "dev", "TEST")] == [
        "train",
        "validation",
        "validation",
        "validation",
        "test",
    ]
    with pytest.raises(ConfigError, match="unknown split 'all'"):
        where_split("all")


def test_regions_are_for_families_that_learn_them():
    content = {"name": "r", "data": {"name": "slake", "regions": True}, "model": {"family": "vilt"}}
    with pytest.raises(ConfigError, match=r"data\.regions: the family vilt learns nothing from regions; set it"):
        parse_recipe(content, origin="r.yaml")
