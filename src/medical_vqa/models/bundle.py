"""The bundle: the folder of a trained model, from which `predict`, `ask` and the server load it without its recipe.

bundle/
  card.json              family, training data, selection, scores, license, decoding, hashes of the files
  weights.safetensors    and further files of the family (`Trainable.save`)
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.errors import BundleError
from medical_vqa.io import sha256_file, use_default_modes
from medical_vqa.models.base import VqaModel
from medical_vqa.registry import find
from medical_vqa.runtime.environment import package_version
from medical_vqa.schema.bundle_card import BundleCard, read_bundle_card, write_bundle_card

if TYPE_CHECKING:
    import torch


def write_bundle(folder: Path, card: BundleCard, save: Callable[[Path], None]) -> None:
    """Write a bundle completely or not at all: an existing one stays until the new one is complete.

    Args:
        folder: The bundle's folder.
        card: The card; files, time and version are filled in.
        save: Writes the model's files into the folder that it receives.
    """
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        save(new)
        use_default_modes(new)
        files = {path.name: sha256_file(path) for path in sorted(new.iterdir())}
        created = datetime.now(UTC).isoformat(timespec="seconds")
        changes = {"files": files, "created": created, "version": package_version()}
        write_bundle_card(new, card.model_copy(update=changes))
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)


def load_bundle(folder: Path, *, device: torch.device | None = None) -> tuple[VqaModel, BundleCard]:
    """The model in a bundle, ready to answer; checks every file's hash first.

    Raises `BundleError` when a file is missing or changed, and `ConfigError` when the family is unknown.
    """
    card = read_bundle_card(folder)
    check_files(folder, card)
    model: VqaModel = find("models", card.family).model_class().load(folder, device=device)
    return model, card


def check_files(folder: Path, card: BundleCard) -> None:
    """Raise `BundleError` when a file of the bundle is missing or changed."""
    for name, digest in card.files.items():
        if not (folder / name).is_file():
            raise BundleError(f"the bundle {folder} lacks {name}; copy or train it again")
        if sha256_file(folder / name) != digest:
            raise BundleError(f"{folder / name} is not the file the bundle was written with; copy or train it again")
