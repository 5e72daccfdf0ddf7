"""The deployments that the tests look at: every target, with a light model and with one that needs a GPU."""

from __future__ import annotations

from medical_vqa.deploying.render import TARGETS, render, values_for
from medical_vqa.models.bundle import BundleCard
from medical_vqa.runtime import package_version

WHEEL = f"medical_vqa-{package_version()}-py3-none-any.whl"
CARDS = {
    "light": BundleCard("compact-onnx", "slake-compact", data={"title": "SLAKE 1.0"}, license="CC BY 4.0"),
    "gpu": BundleCard("blip2", "slake-blip2", model={"checkpoint": "Salesforce/blip2-flan-t5-xl"}),
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
