"""Write everything that puts a model online."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from medical_vqa import registry
from medical_vqa.errors import ConfigError
from medical_vqa.pipelines.bundles import find_bundle
from medical_vqa.pipelines.export import export_onnx


def deploy(
    target: str, bundle: Path, out: Path, *, values: Mapping[str, str], wheel: Path | None = None, force: bool = False
) -> list[Path]:
    """Write the deployment files, the model and the packages into a folder.

    Args:
        target: One of `deploying.render.TARGETS`.
        bundle: A bundle or a run folder; a compact model is exported, so that its container needs no torch.
        out: The folder.
        values: Values of the target that differ from their defaults.
        wheel: This project's wheel; None: it is built, or comes from the package index.
        force: Whether `out` may contain files, which are then overwritten.

    Returns:
        The rendered files.

    Raises:
        ConfigError: `out` is not empty and `force` is not set, or the target or a value is unknown.
    """
    from medical_vqa.deploying.packages import copy_packages
    from medical_vqa.deploying.render import complete_values, render
    from medical_vqa.io import atomic_write
    from medical_vqa.schema.bundle_card import read_bundle_card

    complete = complete_values(target, values)
    if out.is_dir() and any(out.iterdir()) and not force:
        raise ConfigError(f"{out} is not empty; deploy into a new folder, or overwrite its files with --force")
    with tempfile.TemporaryDirectory() as temporary:
        model = deployable_bundle(find_bundle(bundle), Path(temporary) / "model")
        card = read_bundle_card(model)
        render(target, card, values=complete, wheel=None)  # raises before anything is written
        wheel_name = copy_packages(out / "packages", wheel)
        texts = render(target, card, values=complete, wheel=wheel_name)
        shutil.rmtree(out / "model", ignore_errors=True)
        if not complete.get("backend"):
            shutil.copytree(model, out / "model", copy_function=shutil.copyfile)
    for path, text in texts.items():
        atomic_write(out / path, text)
    return [out / path for path in texts]


def deploy_engine(
    target: str,
    engine_name: str,
    model_id: str,
    out: Path,
    *,
    values: Mapping[str, str],
    wheel: Path | None = None,
    force: bool = False,
) -> list[Path]:
    """Write the files that run page, server and an inference engine as services of their own; no model is copied.

    Args:
        target: A target that runs engines: ``compose`` or ``kubernetes``.
        engine_name: ``vllm``, ``sglang`` or ``ollama``.
        model_id: Id of the model at the engine's source, such as ``google/medgemma-4b-it``.
        out: The folder.
        values: Values of the target that differ from their defaults.
        wheel: This project's wheel; None: it is built, or comes from the package index.
        force: Whether `out` may contain files, which are then overwritten.

    Returns:
        The rendered files.

    Raises:
        ConfigError: `out` is not empty and `force` is not set, or the target, engine or a value is unknown.
    """
    from medical_vqa.deploying.engines import engine_card, find_engine
    from medical_vqa.deploying.packages import copy_packages
    from medical_vqa.deploying.render import complete_values, render
    from medical_vqa.io import atomic_write

    complete, engine, card = complete_values(target, values), find_engine(engine_name), engine_card(model_id)
    if out.is_dir() and any(out.iterdir()) and not force:
        raise ConfigError(f"{out} is not empty; deploy into a new folder, or overwrite its files with --force")
    render(target, card, values=complete, wheel=None, engine=engine)  # raises before anything is written
    wheel_name = copy_packages(out / "packages", wheel)
    texts = render(target, card, values=complete, wheel=wheel_name, engine=engine)
    for path, text in texts.items():
        atomic_write(out / path, text)
    return [out / path for path in texts]


def deployable_bundle(bundle: Path, export: Path) -> Path:
    """The bundle for a container: one that can be exported becomes ONNX in the folder `export`, others stay."""
    from medical_vqa.models.bundle import check_files
    from medical_vqa.schema.bundle_card import read_bundle_card

    card = read_bundle_card(bundle)
    check_files(bundle, card)
    return export_onnx(bundle, export)[0] if registry.find("models", card.family).exported_family else bundle
