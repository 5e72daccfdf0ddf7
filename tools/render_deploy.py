"""Write `deploy/` again: what `medical-vqa deploy` renders for the shipped model, without model, wheel and pins.

    python tools/render_deploy.py

Those three are large or change often; `medical-vqa deploy TARGET --out deploy/TARGET --force` adds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medical_vqa.config import load_recipe
from medical_vqa.deploying.render import complete_values, render
from medical_vqa.pipelines.bundles import shipped_bundle
from medical_vqa.runtime.environment import package_version
from medical_vqa.schema.bundle_card import BundleCard, read_bundle_card

ROOT = Path(__file__).parents[1]


def shipped() -> BundleCard:
    """The card of the shipped model as ONNX."""
    return read_bundle_card(shipped_bundle())


def fine_tuned() -> BundleCard:
    """A card as BLIP-2's recipe makes one."""
    recipe = load_recipe(ROOT / "recipes" / "slake-blip2-lora.yaml")
    return BundleCard(family="blip2", name=recipe.name, facts={"checkpoint": recipe.model.checkpoint})


def folders() -> Iterator[tuple[str, str, BundleCard, dict[str, str]]]:
    """Folder, target, model and values."""
    for target in ("cloud-run", "space", "compose", "kubernetes"):
        yield target, target, shipped(), {}
    yield "cloud-run-gpu", "cloud-run", fine_tuned(), {}
    yield "space-app", "space", shipped(), {"backend": "https://BACKEND"}


def files() -> dict[Path, str]:
    """The text of every file, by its path under ``deploy/``."""
    wheel = f"medical_vqa-{package_version()}-py3-none-any.whl"
    return {
        Path(folder) / path: text
        for folder, target, card, values in folders()
        for path, text in render(target, card, values=complete_values(target, values), wheel=wheel).items()
    }


if __name__ == "__main__":
    for path, text in files().items():
        (ROOT / "deploy" / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / "deploy" / path).write_text(text, encoding="utf-8")
