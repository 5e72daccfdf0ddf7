"""The deployments that the tests look at: every target, with a light model and with one that needs a GPU."""

from __future__ import annotations

from medical_vqa.deploying.render import TARGETS, render, values_for
from medical_vqa.runtime.environment import package_version
from medical_vqa.schema.bundle_card import BundleCard

WHEEL = f"medical_vqa-{package_version()}-py3-none-any.whl"
DATA = {
    "selection": {"dataset": "slake"},
    "title": "SLAKE 1.0",
    "manifest": "0" * 64,
    "license": "CC BY 4.0",
    "citation": "B. Liu et al. 2021",
    "rows": 10,
    "images": 2,
}
CARDS = {
    "light": BundleCard(family="compact-onnx", name="slake-compact", data=DATA, license="CC BY 4.0"),
    "gpu": BundleCard(family="blip2", name="slake-blip2", facts={"checkpoint": "Salesforce/blip2-flan-t5-xl"}),
}
KINDS = {
    **{f"{target}": (target, "light", {}) for target in TARGETS},
    "space-app": ("space", "light", {"backend": "https://vqa.example.org"}),
    **{f"{target}-gpu": (target, "gpu", {}) for target, about in TARGETS.items() if about.heavy},
}


def rendered(kind: str, wheel: str | None = WHEEL, **values: str) -> dict[str, str]:
    """One of `KINDS`; keywords replace values."""
    target, card, given = KINDS[kind]
    return render(target, CARDS[card], values=values_for(target, {**given, **values}), wheel=wheel)
