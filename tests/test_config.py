import re
import subprocess
import sys
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, field_validator

from medical_vqa import registry
from medical_vqa.config import ModelOptions, Recipe, find_recipe, load_recipe, parse_recipe, where_split
from medical_vqa.config.recipe import DataRecipe, TrainingRecipe
from medical_vqa.errors import ConfigError
from medical_vqa.models.compact.family import CompactOptions
from medical_vqa.schema.bundle_card import Decoding

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


def compact(**options: object) -> dict[str, object]:
    return {"model": {"family": "compact", **options}}


WRONG: list[tuple[str, dict[str, object], str]] = [
    ("unknown key", {"training": {"epocs": 3}}, "unknown key 'training.epocs'; did you mean 'epochs'?"),
    (
        "unknown key of a family",
        compact(label_smoothin=0.1),
        "unknown key 'model.label_smoothin' for the family compact; did you mean 'label_smoothing'?",
    ),
    (
        "unknown key of a section of a family",
        compact(picture={"sides": 100}),
        "unknown key 'model.picture.sides'; did you mean 'side'?",
    ),
    (
        "unknown key of an optional section",
        compact(augment={"turn": 5}),
        "unknown key 'model.augment.turn'; the keys there are intensity, rotate, scale, shift",
    ),
    (
        "key of another family",
        compact(lora={}),
        "unknown key 'model.lora' for the family compact; the keys there are augment, channels,",
    ),
    (
        "unknown top-level key",
        {"zzz": 1},
        "unknown key 'zzz'; the keys there are data, decoding, model, name, training",
    ),
    ("key that is a number", {"training": {1: 2}}, "unknown key 'training.1'; the keys there are accumulate,"),
    (
        "unknown family",
        {"model": {"family": "compct"}},
        "model.family: unknown model family 'compct'; did you mean 'compact'?",
    ),
    (
        "family unlike any",
        {"model": {"family": "zzz"}},
        "model.family: unknown model family 'zzz'; known: blip2, chat, compact,",
    ),
    (
        "family that cannot be trained",
        {"model": {"family": "compact-onnx"}},
        "model.family: compact-onnx only answers and cannot be trained; choose one of question-only, "
        "majority, compact, vilt, blip2, chat",
    ),
    (
        "family that is a list",
        {"model": {"family": ["compact"]}},
        "model.family: expected the name of a model family, got ['compact']; choose one of question-only,",
    ),
    ("missing family", {"model": {}}, "model.family: missing key; add one of question-only, majority,"),
    ("missing key", {"data": {}}, "missing key 'data.name'; add it (text)"),
    (
        "word that is none of a few",
        {"decoding": {"method": "best"}},
        "decoding.method: expected greedy, beam or rank, got 'best'",
    ),
    (
        "word that is none of a few, or null",
        {"data": {"name": "slake", "validation": "test"}},
        "data.validation: expected train, validation or null, got 'test'",
    ),
    (
        "null for a word",
        {"data": {"name": "slake", "train": None}},
        "data.train: expected train, validation or train+validation, got null",
    ),
    (
        "text for a whole number",
        {"training": {"epochs": "many"}},
        "training.epochs: expected a whole number of at least 1, got 'many'",
    ),
    (
        "fraction for a whole number",
        {"training": {"epochs": 1.5}},
        "training.epochs: expected a whole number of at least 1, got 1.5",
    ),
    ("list for a whole number", {"training": {"seed": [1]}}, "training.seed: expected a whole number, got [1]"),
    (
        "keys for a whole number",
        {"training": {"seed": {"a": 1}}},
        "training.seed: expected a whole number, got keys (a)",
    ),
    ("null for a whole number", {"training": {"seed": None}}, "training.seed: expected a whole number, got null"),
    (
        "whole number below its bound",
        {"training": {"epochs": 0}},
        "training.epochs: expected a whole number of at least 1, got 0",
    ),
    (
        "whole number above its bound",
        {"decoding": {"beams": 65}},
        "decoding.beams: expected a whole number from 2 to 64, got 65",
    ),
    (
        "whole number that is no multiple",
        compact(width=9),
        "model.width: expected a whole number of at least 8 and a multiple of 2, got 9",
    ),
    (
        "number, or null",
        compact(foreground="x"),
        "model.foreground: expected a whole number from 16 to 2048 or null, got 'x'",
    ),
    (
        "number, or a word",
        {"training": {"micro_batch": "large"}},
        "training.micro_batch: expected a whole number of at least 1 or auto, got 'large'",
    ),
    (
        "text for a number",
        {"training": {"clip": "small"}},
        "training.clip: expected a number of more than 0, got 'small'",
    ),
    ("null for a number", {"training": {"clip": None}}, "training.clip: expected a number of more than 0, got null"),
    (
        "number at its open bound",
        {"training": {"warmup": 1.0}},
        "training.warmup: expected a number of at least 0 and less than 1, got 1.0",
    ),
    (
        "infinite number",
        {"training": {"learning_rate": float("inf")}},
        "training.learning_rate: expected a number of more than 0, got inf",
    ),
    (
        "number that is none",
        {"training": {"weight_decay": float("nan")}},
        "training.weight_decay: expected a number of at least 0, got nan",
    ),
    (
        "text for true or false",
        {"training": {"length_buckets": "maybe"}},
        "training.length_buckets: expected true or false, got 'maybe'",
    ),
    (
        "null for true or false",
        {"training": {"length_buckets": None}},
        "training.length_buckets: expected true or false, got null",
    ),
    ("number for text", {"data": {"name": 7}}, "data.name: expected text, got 7; put it in quotes"),
    ("null for text", {"data": {"name": None}}, "data.name: expected text, got null"),
    (
        "true or false for text",
        {"data": {"name": "slake", "where": {"language": True}}},
        "data.where.language: expected text, got true; put it in quotes",
    ),
    ("text for a path", {"data": {"name": "slake", "root": 5}}, "data.root: expected a path or null, got 5"),
    (
        "text of another form",
        {"name": "../elsewhere"},
        "name: expected letters, digits, dots, dashes and underscores, a letter or digit first, got '../elsewhere'",
    ),
    (
        "text for keys",
        {"data": {"name": "slake", "where": "en"}},
        "data.where: expected keys whose values are text, got 'en'",
    ),
    (
        "null for a section",
        {"training": None},
        "training: expected keys such as epochs, batch_size, grouping, got null",
    ),
    (
        "list for a section",
        {"training": [{"epochs": 3}]},
        "training: expected keys such as epochs, batch_size, grouping, got [{'epochs': 3}]",
    ),
    ("text for the model", {"model": "compact"}, "model: expected keys such as family, got 'compact'"),
    ("null for the model", {"model": None}, "model: expected keys such as family, got null"),
    (
        "text for an optional section",
        compact(augment="strong"),
        "model.augment: expected keys such as rotate, shift, scale or null, got 'strong'",
    ),
    (
        "list that is too short",
        compact(channels=[8]),
        "model.channels: expected a list of 2 to 6 items, each a whole number of at least 1, got [8]",
    ),
    (
        "list that is too long",
        compact(channels=[8] * 7),
        "model.channels: expected a list of 2 to 6 items, each a whole number of at least 1, got [8, 8, 8, 8, 8, 8, 8]",
    ),
    (
        "item of a list",
        compact(channels=[8, 0]),
        "model.channels: expected a list of 2 to 6 items, each a whole number of at least 1; item 2 is 0",
    ),
    (
        "word in a list",
        {"training": {"trackers": ["tensorbord"]}},
        "training.trackers: expected a list of items, each tensorboard, wandb or mlflow; item 1 is 'tensorbord'",
    ),
    (
        "text for a list",
        {"training": {"trackers": "wandb"}},
        "training.trackers: expected a list of items, each tensorboard, wandb or mlflow, got 'wandb'",
    ),
    (
        "two keys that exclude each other",
        {"model": {"family": "blip2", "augment": {}}},
        "model: augment changes the pictures in every epoch while features caches",
    ),
    (
        "regions for a family that learns none",
        {"data": {"name": "slake", "regions": True}, "model": {"family": "vilt"}},
        "data.regions: the family vilt learns nothing from regions; set it to false",
    ),
    (
        "very long value",
        {"training": {"device": ["x" * 100]}},
        "training.device: expected text, got ['" + "x" * 58 + "...",
    ),
]
"""What is wrong, the changed sections, and how the message begins after the recipe's path."""
JARGON = re.compile(r"input|valid|instance|pydantic|type=|discriminator|\btag\b|parse|ValidationError|NoneType|<class")


@pytest.mark.parametrize(("changes", "message"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_mistake_is_one_sentence_that_says_what_was_expected_and_received(changes, message):
    text = refusal(**changes)
    assert text.startswith(f"recipe.yaml: {message}")
    assert "\n" not in text
    assert not JARGON.search(text.replace("invalid", "").replace("validation", ""))


def test_all_mistakes_of_a_recipe_are_reported_together_in_the_order_of_its_sections():
    text = refusal(
        decoding={"beams": 1}, training={"epochs": 0, "epocs": 3}, model={"family": "compct"}, data={"nam": "slake"}
    )
    assert text.splitlines() == [
        "recipe.yaml: 6 mistakes",
        "  missing key 'data.name'; add it (text)",
        "  unknown key 'data.nam'; did you mean 'name'?",
        "  model.family: unknown model family 'compct'; did you mean 'compact'?",
        "  training.epochs: expected a whole number of at least 1, got 0",
        "  unknown key 'training.epocs'; did you mean 'epochs'?",
        "  decoding.beams: expected a whole number from 2 to 64, got 1",
    ]


def test_a_recipe_without_anything_names_every_key_that_is_missing():
    with pytest.raises(ConfigError) as error:
        parse_recipe({}, origin="recipe.yaml")
    assert str(error.value).splitlines() == [
        "recipe.yaml: 3 mistakes",
        "  missing key 'name'; add it (letters, digits, dots, dashes and underscores, a letter or digit first)",
        "  missing key 'data'; add it (keys such as name, root, where)",
        "  missing key 'model'; add it (keys such as family)",
    ]


@pytest.mark.parametrize("content", [None, [], "slake-compact", 3])
def test_what_is_no_mapping_is_no_recipe(content):
    with pytest.raises(ConfigError, match=r"^recipe.yaml: expected keys such as name, data, model, got "):
        parse_recipe(content, origin="recipe.yaml")


def test_a_recipe_made_in_python_reports_as_a_file_does():
    with pytest.raises(ConfigError) as error:
        Recipe(name="run", data={"name": "slake"}, model={"family": "compact", "width": 9}, training={"epochs": 0})
    assert str(error.value).splitlines() == [
        "the recipe: 2 mistakes",
        "  model.width: expected a whole number of at least 8 and a multiple of 2, got 9",
        "  training.epochs: expected a whole number of at least 1, got 0",
    ]


def test_a_section_that_is_built_alone_reports_its_mistakes_in_words():
    with pytest.raises(ConfigError) as error:
        TrainingRecipe(epochs=0, epoch=3)
    assert str(error.value).splitlines() == [
        "TrainingRecipe: 2 mistakes",
        "  epochs: expected a whole number of at least 1, got 0",
        "  unknown key 'epoch'; did you mean 'epochs'?",
    ]


def test_a_section_that_is_built_alone_reports_the_mistakes_inside_it_as_its_own():
    with pytest.raises(ConfigError, match=r"^CompactOptions: picture\.side: expected a whole number "):
        CompactOptions(family="compact", picture={"side": 0})


def test_a_recipe_takes_sections_as_objects():
    options = CompactOptions(family="compact", width=64)
    recipe = Recipe(name="run", data=DataRecipe(name="slake"), model=options)
    assert recipe.model is options
    assert recipe == parse_recipe(recipe.model_dump(), origin="copy")
    assert Recipe.model_validate(recipe) is recipe


def test_options_of_another_family_are_refused():
    with pytest.raises(ConfigError, match="model: expected ViltOptions for the family vilt, got CompactOptions"):
        Recipe(name="run", data={"name": "slake"}, model=CompactOptions(family="vilt"))


class Scale(Enum):
    SMALL, LARGE = "small", "large"


class OtherOptions(ModelOptions):
    """Types that options of another package may have and ours have not."""

    window: tuple[float, float] = (40, 400)
    scale: Scale = Scale.SMALL
    tags: list[str] = Field(default_factory=list)
    layers: dict[str, int] = Field(default_factory=dict)
    code: Annotated[str, Field(min_length=2, max_length=3)] = "ab"
    since: date | None = None
    ratio: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"

    @field_validator("tags")
    @classmethod
    def _lower(cls, value: list[str]) -> list[str]:
        if any(tag != tag.lower() for tag in value):
            raise ValueError("expected lower case; write the tags so")
        return value


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"window": [1]}, "model.window: expected a list of 2 items, each a number; item 2 is missing"),
        ({"window": ["a", 2]}, "model.window: expected a list of 2 items, each a number; item 1 is 'a'"),
        ({"scale": "huge"}, "model.scale: expected small or large, got 'huge'"),
        ({"tags": "ct"}, "model.tags: expected a list of items, each text, got 'ct'"),
        ({"tags": ["CT"]}, "model.tags: expected lower case; write the tags so"),
        ({"layers": {"a": "x"}}, "model.layers.a: expected a whole number, got 'x'"),
        ({"code": "a"}, "model.code: expected text of 2 to 3 characters, got 'a'"),
        ({"since": "soon"}, "model.since: expected a valid date or datetime, "),
        ({"ratio": 0}, "model.ratio: expected a number of more than 0 or auto, got 0"),
    ],
)
def test_options_of_other_packages_are_explained_as_well(options, text):
    with pytest.raises(ConfigError) as error:
        OtherOptions(family="other", **options)
    assert str(error.value).startswith(f"OtherOptions: {text.removeprefix('model.')}")


def test_an_override_changes_a_section_that_is_an_object():
    content = {"name": "run", "data": DataRecipe(name="slake"), "model": CompactOptions(family="compact")}
    recipe = parse_recipe(content, origin="recipe.yaml", overrides={"data.regions": "true", "model.width": "64"})
    assert (recipe.data.regions, recipe.model.width) == (True, 64)


VALUES = [
    None, True, -1, 10**30, 0.5, float("nan"), "", "x", "auto", "0.5", [], [None], [["a"]], {}, {"a": 1}, {1: 2},
    {None: 3}, {"family": "vilt"}, {1}, b"x", object(),
]  # fmt: skip


@pytest.mark.parametrize("family", registry.names("models"))
def test_no_value_of_any_field_gives_anything_but_a_recipe_or_plain_sentences(family):
    sections = {
        "data": DataRecipe.model_fields,
        "training": TrainingRecipe.model_fields,
        "decoding": Decoding.model_fields,
        "model": registry.find("models", family).Options.model_fields,
    }
    fields = [(section, field) for section, known in sections.items() for field in known]
    for section, field in [*fields, ("name", None), *((section, None) for section in sections)]:
        for value in VALUES:
            content = {"name": "run", "data": {"name": "slake"}, "model": {"family": family}}
            content[section] = value if field is None else {**content.get(section, {}), field: value}
            try:
                parse_recipe(content, origin="recipe.yaml")
            except ConfigError as error:
                text = re.sub(r"(?:got|item \d+ is) .*", "", str(error)).replace("validation", "")
                assert not JARGON.search(text), text


def test_a_recipe_is_validated_without_torch():
    code = """if True:
        import sys
        from medical_vqa.config import find_recipe, load_recipe
        from pathlib import Path
        for name in ("slake-compact", "slake-vilt", "slake-blip2-lora", "slake-chat-lora"):
            load_recipe(find_recipe(Path(name)))
        assert not {"torch", "transformers", "onnxruntime"} & set(sys.modules)"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_test_split_can_choose_nothing():
    assert "data.validation: expected train" in refusal(data={"name": "slake", "validation": "test"})
    assert "data.train: expected train" in refusal(data={"name": "slake", "train": "test"})


@pytest.fixture
def write(tmp_path):
    """A recipe file with this content; by default the smallest one."""

    def write(content: str = "name: run\ndata: {name: slake}\nmodel: {family: compact}\n") -> Path:
        path = tmp_path / "r.yaml"
        path.write_text(content, encoding="utf-8")
        return path

    return write


def test_overrides_are_yaml_values_under_dotted_keys(write):
    recipe = load_recipe(write(), {"training.epochs": "7", "model.augment": "null"})
    assert recipe.training.epochs == 7
    assert recipe.model.augment is None


def test_an_override_makes_the_sections_that_are_absent_or_null(write):
    path = write("name: run\ndata: {name: slake}\nmodel: {family: compact, augment: null}\n")
    recipe = load_recipe(path, {"model.augment.rotate": "5", "decoding.beams": "8"})
    assert recipe.model.augment.rotate == 5
    assert recipe.decoding.beams == 8


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("name.first", "x", "name.first: 'name' is a value, not a group of keys; see `recipe.yaml` of any run"),
        ("training.epochs", "many", "training.epochs: expected a whole number of at least 1, got 'many'"),
        ("training.epocs", "3", "unknown key 'training.epocs'; did you mean 'epochs'?"),
        ("model.family", "compct", "model.family: unknown model family 'compct'; did you mean 'compact'?"),
        ("training.trackers", "[wandb", "training.trackers: expected a YAML value, got '[wandb'; put special"),
        ("training", "{epochs: 1, epochs: 2}", "training: the key 'epochs' is set twice; keep one of them"),
        ("", "3", "unknown key ''; the keys there are data, decoding, model, name, training"),
    ],
)
def test_a_mistake_in_an_override_is_attributed_to_it(write, key, value, message):
    with pytest.raises(ConfigError) as error:
        load_recipe(write(), {key: value})
    assert str(error.value).startswith(f"--set: {message}")


def test_mistakes_of_the_file_and_of_overrides_are_told_apart(write):
    path = write("name: run\ndata: {name: slake}\nmodel: {family: compact, width: 9}\n")
    with pytest.raises(ConfigError) as error:
        load_recipe(path, {"training.epochs": "0"})
    assert str(error.value).splitlines() == [
        f"{path}: 2 mistakes",
        "  model.width: expected a whole number of at least 8 and a multiple of 2, got 9",
        "  --set training.epochs: expected a whole number of at least 1, got 0",
    ]


@pytest.mark.parametrize("value", ["{question}", " {question} ", '"{question}"'])
def test_a_prompt_of_the_question_alone_is_text_and_no_mapping(value):
    model = {"family": "chat", "checkpoint": "a/b"}
    recipe = parse_recipe(SMALLEST | {"model": model}, origin="recipe.yaml", overrides={"model.prompt": value})
    assert recipe.model.prompt == "{question}"


def test_mappings_on_the_command_line_stay_mappings():
    overrides = {"data.where": "{}", "model.augment": "{rotate: 0}", "decoding": "{max_tokens: 3}"}
    model = {"family": "chat", "checkpoint": "a/b", "features": False}
    recipe = parse_recipe(SMALLEST | {"model": model}, origin="recipe.yaml", overrides=overrides)
    assert (recipe.data.where, recipe.model.augment.rotate, recipe.decoding.max_tokens) == ({}, 0, 3)


def test_a_key_that_is_set_twice_is_refused_with_both_lines(write):
    path = write("name: run\ndata: {name: slake}\nmodel: {family: compact}\ntraining:\n  epochs: 1\n  epochs: 2\n")
    with pytest.raises(ConfigError) as error:
        load_recipe(path)
    assert str(error.value) == f"{path}: line 6: the key 'epochs' is set twice, first in line 5; keep one of them"


def test_a_key_that_is_set_twice_is_reported_with_the_other_mistakes(write):
    path = write("name: run\nname: run\ndata: {name: 5}\nmodel: {family: compact}\n")
    with pytest.raises(ConfigError) as error:
        load_recipe(path)
    assert str(error.value).splitlines() == [
        f"{path}: 2 mistakes",
        "  line 2: the key 'name' is set twice, first in line 1; keep one of them",
        "  data.name: expected text, got 5; put it in quotes",
    ]


def test_merged_keys_may_be_set_again(write):
    path = write("name: run\ndata: &rows {name: slake, regions: true}\nmodel: {family: compact}\n")
    path.write_text(path.read_text().replace("data: &rows {", "data: {<<: {regions: false}, "), encoding="utf-8")
    assert load_recipe(path).data.regions is True


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a list", "expected keys such as name, data, model and training, got ['a list']"),
        ("", "expected keys such as name, data, model and training, got null"),
        ("a: [broken", "line 1: a bracket is not closed"),
        ("name: run\ntraining:\n\tepochs: 3\n", "line 3: a tab is used for indentation; use spaces"),
        ("name: run\n  data: {name: slake}\n", "line 2: a key is indented under one that already has a value"),
        ("training:\n    epochs: 3\n  seed: 1\n", "line 3: the indentation does not match the lines above"),
        ("name: run\ndata\nmodel: {}\n", "line 3: expected KEY: VALUE with a space after the colon"),
        ('name: "run\n', "line 2: a quote is not closed; close it"),
        ("name: !!python/object:os.system {}\n", "line 1: "),
        ("name: *run\n", "line 1: "),
        ("name: \x07\n", "unacceptable character"),
    ],
)
def test_what_is_no_recipe_is_one_sentence_with_the_line(write, content, message):
    path = write(content)
    with pytest.raises(ConfigError) as error:
        load_recipe(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_not_text_is_no_recipe(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"r\.yaml cannot be read .*; expected a YAML file"):
        load_recipe(path)


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
