"""Reading recipes: the file by its path or name, YAML in which no key is set twice, and overrides by ``--set``."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from medical_vqa.config.recipe import Recipe
from medical_vqa.errors import ConfigError
from medical_vqa.schema.mistakes import Mistake, shown
from medical_vqa.schema.records import Split

_SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "validate", "valid", "val", "dev"),
    "test": ("test",),
}


def find_recipe(path: Path) -> Path:
    """The recipe file itself, or one that ships with the package, by its name: ``slake-compact``."""
    if path.is_file():
        return path
    package = Path(__file__).parents[1]
    for folder in (package / "recipes", package.parents[1] / "recipes"):
        shipped = folder / f"{path.stem}.yaml"
        if path.parent in (Path(), Path("recipes")) and shipped.is_file():
            return shipped
    return path


def load_recipe(path: Path, overrides: Mapping[str, str] | None = None) -> Recipe:
    """Read a recipe; `overrides` maps dotted keys to YAML values: ``{"training.epochs": "5"}``.

    Raises `ConfigError` with every mistake: a missing file, bad YAML, unknown keys, values out of bounds.
    """
    try:
        content, repeated = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no recipe at {path}; the recipes that come with the project are in recipes/") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not a YAML recipe: {_yaml_mistake(error)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({' '.join(str(error).split())}); expected a YAML file") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys such as name, data, model and training, got {shown(content)}")
    mistakes = [
        Mistake("", f"line {line}: the key {key!r} is set twice, first in line {first}; keep one of them")
        for key, first, line in repeated
    ]
    return _validate(content, str(path), mistakes, overrides or {})


def override_recipe(recipe: Recipe, overrides: Mapping[str, str]) -> Recipe:
    """A recipe with some keys changed, as `load_recipe` changes them; raises `ConfigError` with every mistake."""
    if not overrides:
        return recipe
    return parse_recipe(recipe.model_dump(mode="json"), origin=f"recipe {recipe.name}", overrides=overrides)


def parse_recipe(content: Mapping[str, Any], *, origin: str, overrides: Mapping[str, str] | None = None) -> Recipe:
    """Validate a recipe's content.

    Args:
        content: Sections as mappings or as objects; it is not changed.
        origin: Begins every message.
        overrides: As in `load_recipe`.

    Raises:
        ConfigError: Lists every mistake.
    """
    return _validate(copy.deepcopy(content), origin, [], overrides or {})


def where_split(name: str) -> Split:
    """A split by the name a person typed; raises `ConfigError`."""
    for split, names in _SPLIT_NAMES.items():
        if name.lower() in names:
            return split
    raise ConfigError(f"unknown split {name!r}; use train, validation or test")


def _validate(content: Any, origin: str, mistakes: list[Mistake], overrides: Mapping[str, str]) -> Recipe:
    for key, value in overrides.items() if isinstance(content, dict) else ():
        _override(content, key, value, mistakes)
    context = {"origin": origin, "mistakes": mistakes, "overrides": overrides}
    return Recipe.model_validate(content, context=context)


class _Loader(yaml.SafeLoader):
    """Safe YAML that records keys which are set twice; YAML itself forbids them and PyYAML takes the last."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repeated: list[tuple[str, int, int]] = []
        """Each such key with the line of its first value and that of another one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As PyYAML does, after comparing the keys as they stand in the file."""
        first_lines: dict[str, int] = {}
        for key_node, _ in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if isinstance(key_node, yaml.ScalarNode) and key in first_lines:
                self.repeated.append((key, first_lines[key], line))
            first_lines.setdefault(key, line)
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> tuple[Any, list[tuple[str, int, int]]]:
    """The content of safe YAML, and each key that is set twice, with the lines of its first value and another one."""
    loader = _Loader(text)
    try:
        return loader.get_single_data(), loader.repeated
    finally:
        loader.dispose()


def _yaml_mistake(error: yaml.YAMLError) -> str:
    """The line, and what is wrong with it, without the terms of a YAML parser where they are known."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    problem = error.problem or ""
    advice = next((words for part, words in _YAML_ADVICE.items() if part in problem), problem)
    mark = error.problem_mark or error.context_mark
    return f"line {mark.line + 1}: {advice}" if mark is not None else advice


_YAML_ADVICE = {
    "'\\t'": "a tab is used for indentation; use spaces",
    "mapping values are not allowed": (
        "a key is indented under one that already has a value, or text contains ': '; correct the indentation, or put "
        "the text in quotes"
    ),
    "expected <block end>": "the indentation does not match the lines above; align keys of one section",
    "could not find expected ':'": "expected KEY: VALUE with a space after the colon",
    "expected ',' or": "a bracket is not closed, or a comma is missing between its items; correct it",
    "unexpected end of stream": "a quote is not closed; close it",
}


def _override(content: dict[str, Any], key: str, value: str, mistakes: list[Mistake]) -> None:
    """Set a dotted key in the content; sections that are absent or null are made."""
    *parents, last = key.split(".")
    section = content
    for parent in parents:
        if section.get(parent) is None:
            section[parent] = {}
        elif isinstance(section[parent], BaseModel):
            section[parent] = section[parent].model_dump()
        section = section[parent]
        if not isinstance(section, dict):
            mistakes.append(Mistake(key, f"{parent!r} is a value, not a group of keys; see `recipe.yaml` of any run"))
            return
    try:
        parsed, repeated = read_yaml(value)
        # YAML reads {question} as a key without a value
        is_placeholder = isinstance(parsed, dict) and parsed and ":" not in value
        section[last] = value.strip() if is_placeholder else parsed
        mistakes += [Mistake(key, f"the key {name!r} is set twice; keep one of them") for name, *_ in repeated]
    except yaml.YAMLError:
        mistakes.append(Mistake(key, f"expected a YAML value, got {value!r}; put special characters in quotes"))
