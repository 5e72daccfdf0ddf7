"""The bundle: the folder a trained model is, loaded by `predict`, `ask` and the server without its recipe.

bundle/
  card.json              what it is: family, data, split, selection, scores, license, decoding, hashes of the files
  weights.safetensors    and whatever else the family writes (`Trainable.save`)
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medical_vqa.errors import BundleError
from medical_vqa.io import atomic_write, sha256_file
from medical_vqa.models.base import Decoding, VqaModel
from medical_vqa.registry import find
from medical_vqa.runtime import package_version

if TYPE_CHECKING:
    import torch

FORMAT = 1
_CARD = "card.json"
INTENDED_USE = "Research on visual question answering. Not a medical device and not for diagnosis."


@dataclass(frozen=True, slots=True)
class BundleCard:
    """What a bundle says about itself."""

    family: str
    """The model family that loads it."""
    name: str
    """The recipe's name."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Dataset, filter, splits, rows and images, license, citation, manifest hash."""
    selection: Mapping[str, Any] = field(default_factory=dict)
    """What chose the checkpoint, on which split, and its scores there."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Parameter counts and sizes."""
    decoding: Decoding = field(default_factory=Decoding)
    """How answers are chosen, at training's validation and ever after."""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """Temperature of the confidence and the threshold below which to abstain, with what they were fitted on."""
    prompt: str | None = None
    """Template of the question, for families that use one."""
    license: str = ""
    """Of the weights: what the data's license asks for."""
    intended_use: str = INTENDED_USE
    """And what it is not for."""
    created: str = ""
    """UTC, ISO 8601."""
    version: str = ""
    """Of this package."""
    format: int = FORMAT
    """Of this folder."""
    files: Mapping[str, str] = field(default_factory=dict)
    """File name -> SHA-256."""


def write_bundle(folder: Path, card: BundleCard, save: Callable[[Path], None]) -> None:
    """Write a bundle whole: the old one, if any, stays until the new one is complete.

    `save` writes the model's files into the folder it is given.
    """
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        save(fresh)
        files = {path.name: sha256_file(path) for path in sorted(fresh.iterdir())}
        complete = dataclasses.replace(
            card,
            files=files,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            version=package_version(),
        )
        _write_card(fresh, complete)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True) if folder.exists() else None


def read_card(folder: Path) -> BundleCard:
    """The card of a bundle; raises `BundleError` when there is none or it is of another version."""
    try:
        content = json.loads((folder / _CARD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(
            f"no bundle at {folder}: expected a folder with {_CARD}, as `medical-vqa train` writes it"
        ) from None
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{folder / _CARD} is not a readable card ({error}); copy or train the bundle again"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise BundleError(
            f"the bundle {folder} has format {found!r} and this medical-vqa {package_version()} reads format {FORMAT}; "
            "train it again, or install the version that wrote it"
        )
    known = {f.name for f in dataclasses.fields(BundleCard)}
    if unknown := sorted(set(content) - known):
        raise BundleError(f"{folder / _CARD} has an unknown field {unknown[0]!r}; copy or train the bundle again")
    try:
        return BundleCard(**{**content, "decoding": Decoding(**content.get("decoding", {}))})
    except TypeError as error:
        raise BundleError(f"{folder / _CARD} is incomplete ({error}); copy or train the bundle again") from error


def load_bundle(folder: Path, *, device: torch.device | None = None) -> tuple[VqaModel, BundleCard]:
    """The model in a bundle, ready to answer; checks every file's hash first.

    Raises `BundleError` when a file is missing or changed, and `ConfigError` when the family is unknown.
    """
    card = read_card(folder)
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


def update_card(folder: Path, card: BundleCard) -> None:
    """Rewrite the card of an existing bundle, its files left as they are."""
    _write_card(folder, card)


def _write_card(folder: Path, card: BundleCard) -> None:
    atomic_write(folder / _CARD, json.dumps(dataclasses.asdict(card), ensure_ascii=False, indent=2) + "\n")
