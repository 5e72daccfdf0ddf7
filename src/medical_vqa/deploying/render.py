"""Deployment files, rendered from templates and a bundle's card.

DIR/
  Dockerfile  README.md ...   rendered here, depending on the target: `TARGETS`
  model/                      the bundle, copied by `pipelines.deploy`
  packages/                   this project's wheel, and the pinned versions of constraints.txt
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jinja2

from medical_vqa import registry
from medical_vqa.errors import ConfigError
from medical_vqa.runtime.environment import package_version
from medical_vqa.text import did_you_mean

if TYPE_CHECKING:
    from medical_vqa.deploying.engines import Engine
    from medical_vqa.schema.bundle_card import BundleCard

PYTHON_IMAGE = "python:3.11.14-slim-bookworm"
BACKEND_GIBIBYTES = {"cpu": 1, "gpu": 32}
"""Memory of a backend's container, from which its server derives its limits."""
PROXY_IMAGE = "caddy:2.10.2-alpine"


@dataclass(frozen=True, slots=True)
class Target:
    """One place to deploy to."""

    files: Mapping[str, str]
    """Name of the file -> name of its template."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Values that `--set` may change -> their defaults; upper-case ones stand for names that only the user knows."""
    supports_torch: bool = True
    """Whether models that need torch, and so a GPU, can run there."""
    runs_engines: bool = False
    """Whether an inference engine can run there as a service of its own."""


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
        supports_torch=False,
    ),
    "compose": Target(
        {
            "Dockerfile": "Dockerfile",
            "Dockerfile.app": "Dockerfile",
            "compose.yaml": "compose.yaml",
            "Caddyfile": "Caddyfile",
            "README.md": "compose.md",
        },
        {"subnet": "172.31.77.0/24", "proxy_address": "172.31.77.10", "gpus": "1"},
        runs_engines=True,
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
            "gpus": "1",
            "engine_max": "4",
            "cache_size": "100Gi",
        },
        runs_engines=True,
    ),
}


def complete_values(target: str, overrides: Mapping[str, str]) -> dict[str, str]:
    """A target's values, defaults replaced by `overrides`; raises `ConfigError` for an unknown target or value."""
    if target not in TARGETS:
        raise ConfigError(f"unknown deployment target {target!r}; {did_you_mean(target, TARGETS)}")
    defaults = TARGETS[target].values
    for name in overrides:
        if name not in defaults:
            raise ConfigError(f"--set {name}: {target} has no such value; {did_you_mean(name, defaults)}")
    values = {**defaults, **overrides}
    project = values.get("project", "PROJECT")
    return {name: value.replace("PROJECT", project) for name, value in values.items()}


def render(
    target: str, card: BundleCard, *, values: Mapping[str, str], wheel: str | None, engine: Engine | None = None
) -> dict[str, str]:
    """The text of each file of a target, by its path in the folder.

    Args:
        target: One of `TARGETS`.
        card: Card of the bundle in ``model/``.
        values: From `complete_values`.
        wheel: File name of this project's wheel in ``packages/``; None: it is installed from the package index.
        engine: Serves the model that the card names, in place of a bundle; None: the bundle runs in the backend.

    Raises:
        ConfigError: The target cannot run a model that needs torch, or the model's family comes from another package,
            which the containers do not install.
    """
    if engine is not None and not TARGETS[target].runs_engines:
        able = ", ".join(name for name, one in TARGETS.items() if one.runs_engines)
        raise ConfigError(f"{target} runs no engine of its own; choose one of {able}, or deploy without --engine")
    family = registry.find("models", card.family)
    if (package := registry.package_of("models", card.family)) and not values.get("backend"):
        raise ConfigError(
            f"the containers install medical-vqa alone and {card.family} is a family of {package}; serve it where that "
            "package is installed, and deploy the page for it: space --set backend=URL"
        )
    if family.needs_torch and not TARGETS[target].supports_torch and not values.get("backend"):
        raise ConfigError(
            f"a {target} runs on a CPU and {card.name} is a {card.family} model; choose a compact one, or a backend "
            "that runs elsewhere: --set backend=URL"
        )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("medical_vqa.deploying"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    variables = {
        **values,
        "target": target,
        "gpu": family.needs_torch,
        "memory_gib": BACKEND_GIBIBYTES["gpu" if family.needs_torch else "cpu"],
        "model": card,
        "engine": engine,
        "engine_arguments": engine.arguments(card.name) if engine else [],
        "checkpoint": card.facts.checkpoint or "",
        "revision": card.facts.revision or "main",
        "version": package_version(),
        "python_image": PYTHON_IMAGE,
        "proxy_image": PROXY_IMAGE,
    }
    texts = {}
    for path, template in {".dockerignore": "dockerignore", **TARGETS[target].files}.items():
        part = container_part(path, target, values)
        requirement = _requirement(part, family.extras, wheel)
        texts[path] = environment.get_template(f"{template}.j2").render(**variables, part=part, requirement=requirement)
    return texts


def container_part(path: str, target: str, values: Mapping[str, str]) -> str:
    """What the container of a file runs: the ``backend``, the ``app``, or ``both``."""
    if target == "space":
        return "app" if values["backend"] else "both"
    return "app" if path.endswith(".app") else "backend"


def _requirement(part: str, model_extras: Sequence[str], wheel: str | None) -> str:
    """What pip installs into a container: this project with the extras of its part and of its model."""
    extras = {"backend": ["serve", *model_extras], "app": ["app"], "both": ["app", "serve", *model_extras]}[part]
    listed = ",".join(extras)
    return f"./{wheel}[{listed}]" if wheel else f"medical-vqa[{listed}]=={package_version()}"
