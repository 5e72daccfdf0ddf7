"""The deployments that are tested: every target, with a model that runs on a CPU, one that needs a GPU, and engines."""

from __future__ import annotations

from medical_vqa.deploying.engines import ENGINES, engine_card
from medical_vqa.deploying.render import TARGETS, complete_values, render
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
    "cpu": BundleCard(family="compact-onnx", name="slake-compact", data=DATA, license="CC BY 4.0"),
    "gpu": BundleCard(family="blip2", name="slake-blip2", facts={"checkpoint": "Salesforce/blip2-flan-t5-xl"}),
}
CASES = {
    **{f"{target}": (target, "cpu", {}) for target in TARGETS},
    "space-app": ("space", "cpu", {"backend": "https://vqa.example.org"}),
    **{
        f"{target}-{engine}": (target, engine, {})
        for target, options in TARGETS.items()
        for engine in ENGINES
        if options.runs_engines
    },
    **{f"{target}-gpu": (target, "gpu", {}) for target, options in TARGETS.items() if options.supports_torch},
}


def rendered(case: str, wheel: str | None = WHEEL, **values: str) -> dict[str, str]:
    """One of `CASES`; keywords replace values."""
    target, card, overrides = CASES[case]
    complete = complete_values(target, {**overrides, **values})
    if card in ENGINES:
        return render(target, engine_card("google/medgemma-4b-it"), values=complete, wheel=wheel, engine=ENGINES[card])
    return render(target, CARDS[card], values=complete, wheel=wheel)
