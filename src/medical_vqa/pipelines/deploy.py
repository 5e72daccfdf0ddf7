"""Write everything that puts a model online."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa import registry
from medical_vqa.errors import ConfigError
from medical_vqa.pipelines.bundles import find_bundle
from medical_vqa.pipelines.export import export_onnx

if TYPE_CHECKING:
    pass


def deploy(
    target: str, bundle: Path, out: Path, *, values: Mapping[str, str], wheel: Path | None = None, force: bool = False
) -> list[Path]:
    """Write everything that puts a model online on `target` into `out`; returns the rendered files.

    A compact model goes there as ONNX, so that the container needs no torch. Raises `ConfigError` when `out` holds
    something and `force` is not set, or for an unknown target or value.
    """
    from medical_vqa.deploying import packages
    from medical_vqa.deploying.render import render, values_for
    from medical_vqa.io import atomic_write
    from medical_vqa.schema.bundle_card import read_bundle_card

    filled = values_for(target, values)
    if out.is_dir() and any(out.iterdir()) and not force:
        raise ConfigError(f"{out} is not empty; deploy into a new folder, or with --force to write over what is there")
    with tempfile.TemporaryDirectory() as place:
        model = deployable(find_bundle(bundle), Path(place) / "model")
        texts = render(target, read_bundle_card(model), values=filled, wheel=None)  # refuses before anything is written
        name = packages.fill(out / "packages", wheel)
        texts = render(target, read_bundle_card(model), values=filled, wheel=name)
        shutil.rmtree(out / "model", ignore_errors=True)
        if not filled.get("backend"):
            shutil.copytree(model, out / "model", copy_function=shutil.copyfile)
    for path, text in texts.items():
        atomic_write(out / path, text)
    return [out / path for path in texts]


def deployable(bundle: Path, fresh: Path) -> Path:
    """The bundle as it goes into a container: a compact one becomes ONNX in `fresh`, others are as they are."""
    from medical_vqa.models.bundle import check_files
    from medical_vqa.schema.bundle_card import read_bundle_card

    card = read_bundle_card(bundle)
    check_files(bundle, card)
    return export_onnx(bundle, fresh)[0] if registry.find("models", card.family).exported_family else bundle
