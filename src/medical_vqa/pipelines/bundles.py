"""Find and load bundles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa import registry
from medical_vqa.errors import ConfigError

if TYPE_CHECKING:
    from medical_vqa.models.base import VqaModel
    from medical_vqa.schema.bundle_card import BundleCard


def shipped_bundle() -> Path:
    """The compact model that comes with the package."""
    return Path(__file__).parents[1] / "assets" / "compact"


def find_bundle(folder: Path) -> Path:
    """The bundle that a path means: itself, or the one in a run folder."""
    inside = folder / "bundle"
    return inside if not (folder / "card.json").is_file() and inside.is_dir() else folder


def load_model(folder: Path, device: str) -> tuple[VqaModel, BundleCard]:
    """The model in a bundle, on the device; a baseline and an ONNX bundle need no torch."""
    from medical_vqa.models.bundle import load_bundle
    from medical_vqa.schema.bundle_card import read_bundle_card

    name = read_bundle_card(folder).family
    if not registry.find("models", name).needs_torch:
        if device not in ("auto", "cpu"):
            raise ConfigError(f"{name} models run on the CPU and not on {device}; leave --device out")
        return load_bundle(folder)
    from medical_vqa.runtime.devices import choose_device, use_all_cores

    torch_device = choose_device(device)
    use_all_cores()
    return load_bundle(folder, device=torch_device)
