"""Templates and a bundle's card in, a folder out that a container is built from and put online with.

DIR/
  Dockerfile  README.md ...   what differs from target to target: `TARGETS`
  model/                      the bundle, filled in by `delivery.deploy`
  packages/                   this project's wheel, and the pins of constraints.txt
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jinja2

from medical_vqa import registry
from medical_vqa.errors import ConfigError
from medical_vqa.runtime.environment import package_version
from medical_vqa.text import did_you_mean

if TYPE_CHECKING:
    from medical_vqa.schema.bundle_card import BundleCard

PYTHON_IMAGE = "python:3.11.14-slim-bookworm"
PROXY_IMAGE = "caddy:2.10.2-alpine"
"""Families that run without torch, and so without a GPU."""


@dataclass(frozen=True, slots=True)
class Target:
    """One place to deploy to."""

    files: Mapping[str, str]
    """File to write -> its template."""
    values: Mapping[str, str] = field(default_factory=dict)
    """What `--set` may change, with its default; upper-case ones stand for names that only the user knows."""
    heavy: bool = True
    """Whether models that need torch can go there."""


TARGETS: Mapping[str, Target] = {
    "cloud-run": Target(
        {"Dockerfile": "Dockerfile", "service.yaml": "cloud-run.yaml", "README.md": "cloud-run.md"},
        {
            "service": "medical-vqa",
            "project": "PROJECT",
            "region": "europe-west1",
            "bucket": "PROJECT-medical-vqa-images",
            "weights": "PROJECT-medical-vqa-weights",
            "secret": "medical-vqa-api-keys",
            "min": "0",
            "max": "4",
        },
    ),
    "space": Target(
        {"Dockerfile": "Dockerfile", "README.md": "space.md"},
        {"title": "Medical VQA", "emoji": "🩻", "backend": ""},
        heavy=False,
    ),
    "compose": Target(
        {
            "Dockerfile": "Dockerfile",
            "Dockerfile.app": "Dockerfile",
            "compose.yaml": "compose.yaml",
            "Caddyfile": "Caddyfile",
            "README.md": "compose.md",
        },
        {"subnet": "172.31.77.0/24", "proxy_address": "172.31.77.10"},
    ),
    "kubernetes": Target(
        {
            "Dockerfile": "Dockerfile",
            "Dockerfile.app": "Dockerfile",
            "medical-vqa.yaml": "kubernetes.yaml",
            "README.md": "kubernetes.md",
        },
        {
            "namespace": "medical-vqa",
            "registry": "REGISTRY",
            "host": "vqa.example.org",
            "storage_class": "",
            "min": "2",
            "max": "6",
        },
    ),
}


def values_for(target: str, given: Mapping[str, str]) -> dict[str, str]:
    """A target's values, the given ones first; raises `ConfigError` for an unknown target or value."""
    if target not in TARGETS:
        raise ConfigError(f"no deployment target {target!r}; known are {', '.join(TARGETS)}")
    known = TARGETS[target].values
    for name in given:
        if name not in known:
            raise ConfigError(f"--set {name}: {target} has no such value; {did_you_mean(name, known)}")
    filled = {**known, **given}
    project = filled.get("project", "PROJECT")
    return {name: value.replace("PROJECT", project) for name, value in filled.items()}


def render(target: str, card: BundleCard, *, values: Mapping[str, str], wheel: str | None) -> dict[str, str]:
    """The text of each file of a target, by its path in the folder.

    Args:
        target: One of `TARGETS`.
        card: Of the bundle that will lie in ``model/``.
        values: From `values_for`.
        wheel: File name of this project's wheel in ``packages/``; None: it is installed from the package index.

    Raises:
        ConfigError: The target has no room for a model that needs torch, or the model's family is of another package,
            which the containers do not install.
    """
    family = registry.find("models", card.family)
    gpu = family.needs_torch
    if (package := registry.package_of("models", card.family)) and not values.get("backend"):
        raise ConfigError(
            f"the containers install medical-vqa alone and {card.family} is a family of {package}; serve it where that "
            "package is installed, and deploy the page for it: space --set backend=URL"
        )
    if gpu and not TARGETS[target].heavy and not values.get("backend"):
        raise ConfigError(
            f"a {target} runs on a CPU and {card.name} is a {card.family} model; choose a compact one, or a backend "
            "that runs elsewhere: --set backend=URL"
        )
    facts = {
        **values,
        "target": target,
        "gpu": gpu,
        "model": card,
        "checkpoint": card.facts.checkpoint or "",
        "revision": card.facts.revision or "main",
        "version": package_version(),
        "python_image": PYTHON_IMAGE,
        "proxy_image": PROXY_IMAGE,
    }
    return {
        path: _render(template, {**facts, **_contents(part_of(path, target, values), family.extras, wheel)})
        for path, template in {".dockerignore": "dockerignore", **TARGETS[target].files}.items()
    }


def part_of(path: str, target: str, values: Mapping[str, str]) -> str:
    """What a container holds: the ``backend``, the ``app``, or ``both``."""
    if target == "space":
        return "app" if values["backend"] else "both"
    return "app" if path.endswith(".app") else "backend"


def _contents(part: str, model_extras: Sequence[str], wheel: str | None) -> dict[str, str]:
    """What a container installs; `model_extras` are those that the model needs to answer."""
    backend = ["serve", *model_extras]
    extras = {"backend": backend, "app": ["app"], "both": ["app", *backend]}[part]
    wanted = ",".join(extras)
    requirement = f"./{wheel}[{wanted}]" if wheel else f"medical-vqa[{wanted}]=={package_version()}"
    return {"part": part, "requirement": requirement}


def _render(template: str, facts: Mapping[str, Any]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("medical_vqa.deploying"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template(f"{template}.j2").render(facts)
