"""Writes docs/reference from the code: command line, recipe keys, file formats and HTTP routes.

`make docs` runs it before it builds the site; the pages are not committed.
"""

from __future__ import annotations

import enum
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import click
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from medical_vqa import registry
from medical_vqa.cli import cli
from medical_vqa.config.recipe import DataRecipe, Recipe, TrainingRecipe
from medical_vqa.pipelines.bundles import load_model, shipped_bundle
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.serving.api.app import create_app
from medical_vqa.serving.engine.local import Engine
from medical_vqa.serving.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs/reference"
NOTICE = "<!-- Written by tools/make_reference.py. -->\n"
SCHEMA_FOLDERS = ("src/medical_vqa/schema/json", "src/medical_vqa/evaluation")


def cell(text: str) -> str:
    """Text as one cell of a Markdown table."""
    joined = " ".join(text.split())
    return re.sub(r"``([^`]*)``", r"`\1`", joined).replace("|", "\\|")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def value_text(value: object) -> str:
    """A default as one would write it in YAML."""
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, BaseModel):
        return "its own defaults"
    if isinstance(value, tuple | list | dict | set | frozenset) and not value:
        return "{}" if isinstance(value, dict) else "[]"
    return str(value)


def type_text(schema: Mapping[str, Any]) -> str:  # noqa: PLR0911 - one return for each form of a schema
    """A JSON Schema as a short type: ``integer >= 1``, ``string or null``."""
    if "enum" in schema:
        return ", ".join(f"`{value_text(value)}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(type_text(part) for part in schema.get("anyOf", schema.get("oneOf", ())))
    if "allOf" in schema and len(schema["allOf"]) == 1:
        return type_text(schema["allOf"][0])
    name = schema.get("type", "any")
    if isinstance(name, list):
        return " or ".join(name)
    if name == "array":
        items = schema.get("items")
        return f"list of {type_text(items)}" if items else "list"
    if name == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"mapping to {type_text(schema['additionalProperties'])}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return " ".join([name, *bounds])


def model_rows(model: type[BaseModel], skip: frozenset[str] = frozenset()) -> Iterator[list[str]]:
    """Key, type, default and meaning of each field of a pydantic model."""
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        if name in skip:
            continue
        schema = properties[field.alias or name]
        if field.is_required():
            default = "required"
        elif field.default is not PydanticUndefined:
            default = f"`{value_text(field.default)}`"
        else:
            default = f"`{value_text(field.get_default(call_default_factory=True))}`"
        yield [f"`{name}`", cell(type_text(schema)), cell(default), cell(field.description or "")]


def cli_page() -> Iterator[str]:
    """The page of the command line."""
    yield "# Command line\n"
    yield "Every command prints the same text with `--help`. Mistakes are one sentence and exit status 2.\n"
    for name, command in cli.commands.items():
        context = command.make_context(
            name, [], parent=click.Context(cli, info_name="medical-vqa"), resilient_parsing=True
        )
        yield f"## medical-vqa {name}\n"
        yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
        yield re.sub(r"``([^`]*)``", r"`\1`", inspect.cleandoc(command.help or "").replace("\b\n", "")) + "\n"
        rows = []
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                words, text = parameter.get_help_record(context) or ("", "")
                rows.append([f"`{cell(words)}`", cell(text)])
        if rows:
            yield from table(("option", "meaning"), rows)


def recipe_page() -> Iterator[str]:
    """The page of the recipe keys."""
    yield "# Recipe keys\n"
    yield (
        "A recipe is one YAML file that describes a training run. Unknown keys are refused with the nearest one; "
        "all mistakes of a file are reported together. `--set SECTION.KEY=VALUE` replaces a key on the command line.\n"
    )
    heads = ("key", "type", "default", "meaning")
    yield "## Top level\n"
    yield from table(heads, [*model_rows(Recipe)])
    for section, model in (("data", DataRecipe), ("training", TrainingRecipe), ("decoding", Decoding)):
        yield f"## {section}\n"
        yield f"{inspect.getdoc(model)}\n"
        yield from table(heads, [*model_rows(model)])
    yield "## model\n"
    yield (
        "`family` names the model family; each family adds its own keys. Families of other packages add theirs: see "
        "[Extend](../how-to/extend.md).\n"
    )
    for name in registry.GROUPS["models"].built_in:
        family: Any = registry.find("models", name)
        if not family.trainable:
            continue
        options = family.Options
        yield f"### family: {name}\n"
        yield f"{inspect.getdoc(options)}\n"
        rows = [*model_rows(options, frozenset({"family"}))]
        yield from table(heads, rows) if rows else ["No keys of its own.\n"]
        for nested in sections_of(options):
            yield f"`{name}` → `{nested.__name__}`: {inspect.getdoc(nested)}\n"
            yield from table(heads, [*model_rows(nested)])


def sections_of(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The models that fields of a model hold."""
    for field in model.model_fields.values():
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for candidate in candidates:
            if inspect.isclass(candidate) and issubclass(candidate, BaseModel):
                yield candidate


def schema_rows(schema: Mapping[str, Any]) -> list[list[str]]:
    """Key, type, presence and meaning of each property of a JSON Schema object."""
    required = set(schema.get("required", ()))
    return [
        [f"`{name}`", cell(type_text(part)), "yes" if name in required else "no", cell(part.get("description", ""))]
        for name, part in schema.get("properties", {}).items()
    ]


def formats_page() -> Iterator[str]:
    """The page of the file formats."""
    yield "# File formats\n"
    yield (
        "The stages exchange files. Each format has a JSON Schema in the package; a reader refuses a file of a later "
        "version and names the version that it knows.\n"
    )
    heads = ("key", "type", "required", "meaning")
    parts: dict[str, Any] = {}
    for path in sorted(path for folder in SCHEMA_FOLDERS for path in (ROOT / folder).glob("*.json")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        parts.update({name: part for name, part in schema.get("$defs", {}).items() if part.get("properties")})
        yield f"## {schema.get('title', path.stem)}\n"
        yield f"Schema: `{path.relative_to(ROOT / 'src').as_posix()}`\n"
        yield first_paragraph(schema)
        yield from table(heads, schema_rows(schema))
    yield "## Parts\n"
    for name, part in sorted(parts.items()):
        yield f"### {name}\n"
        yield first_paragraph(part)
        yield from table(heads, schema_rows(part))


def first_paragraph(schema: Mapping[str, Any]) -> str:
    """The first paragraph of a schema's description."""
    return cell(schema.get("description", "").split("\n\n")[0]) + "\n"


def http_page() -> Iterator[str]:
    """The page of the HTTP interface, from the OpenAPI description."""
    yield "# HTTP\n"
    yield (
        "The routes of `medical-vqa serve`, as its `/openapi.json` describes them; `/docs` of a server shows the "
        "same with a form for each route. [Serve](../how-to/serve.md) is the guide.\n"
    )
    model, card = load_model(shipped_bundle(), "cpu")
    description = create_app(Engine(model, card), Settings(decoder_processes=0)).openapi()
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield f"## {method.upper()} {path}\n"
            yield f"{operation.get('description') or operation.get('summary', '')}\n"
            rows = [
                [f"`{item['name']}`", item["in"], cell(type_text(item["schema"])), cell(item.get("description", ""))]
                for item in operation.get("parameters", ())
            ]
            content = operation.get("requestBody", {}).get("content", {})
            for media, body in content.items():
                schema = resolved(body.get("schema", {}), description)
                for name, _, required, meaning in schema_rows(schema):
                    part = schema["properties"][name.strip("`")]
                    rows.append(
                        [
                            name,
                            f"body, {media}" + ("" if required == "yes" else ", optional"),
                            cell(type_text(part)),
                            meaning,
                        ]
                    )
            if rows:
                yield from table(("name", "in", "type", "meaning"), rows)
            answers = [
                [status, cell(answer.get("description", ""))]
                for status, answer in operation.get("responses", {}).items()
            ]
            yield from table(("status", "meaning"), answers)
    yield "## Types\n"
    for name, schema in description["components"]["schemas"].items():
        if schema.get("properties") and not name.startswith("Body_"):
            yield f"### {name}\n"
            yield first_paragraph(schema)
            yield from table(("key", "type", "required", "meaning"), schema_rows(schema))


def resolved(schema: Mapping[str, Any], description: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema, or the component that it refers to."""
    if "$ref" not in schema:
        return schema
    return cast(Mapping[str, Any], description["components"]["schemas"][schema["$ref"].rpartition("/")[2]])


PAGES = {
    "cli.md": cli_page,
    "recipes.md": recipe_page,
    "file-formats.md": formats_page,
    "http.md": http_page,
}


def pages() -> dict[Path, str]:
    """Every generated page by its path."""
    return {REFERENCE / name: NOTICE + "\n".join(make()).rstrip() + "\n" for name, make in PAGES.items()}


def main() -> None:
    """Write the pages."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
