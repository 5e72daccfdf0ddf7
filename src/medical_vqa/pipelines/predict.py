"""Answer every question of a split with a local or a remote model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medical_vqa.data.prepared.selection import Selection
from medical_vqa.errors import DataError
from medical_vqa.pipelines.bundles import find_bundle, load_model
from medical_vqa.pipelines.queries import answer_coverage, queries
from medical_vqa.runtime import ProgressCallback
from medical_vqa.schema.records import Split

if TYPE_CHECKING:
    from medical_vqa.data.prepared.selection import Selection
    from medical_vqa.models.bundle import BundleCard
    from medical_vqa.models.remote.openai import Endpoint, Usage


ANSWER_BATCH = 64  # questions answered at once: large enough to be fast, small enough for any memory


def predict(
    bundle: Path,
    *,
    split: Split,
    out: Path | None = None,
    selection: Selection | None = None,
    device: str = "auto",
    shuffle_images: bool = False,
    progress: ProgressCallback | None = None,
) -> Path:
    """Answer a split of the bundle's own dataset, or of another `selection`; returns where the predictions lie.

    `bundle` may also be a run folder. Cut short, it goes on where it stopped. `shuffle_images` asks every question of
    another row's image: what is right then owes nothing to the image, and is a baseline of this very model.
    """
    from medical_vqa.evaluation import predicting as stage

    folder = find_bundle(bundle)
    model, card = load_model(folder, device)
    chosen = selection or Selection.from_json(card.data["selection"])
    path = out or folder.parent / f"{'shuffled' if shuffle_images else 'predictions'}-{split}.jsonl"
    rows = chosen.rows(split)
    covered = answer_coverage(model, rows)
    about = {
        "model": excerpt(card, folder),
        "selection": chosen.to_json(),
        "split": split,
        "manifest": chosen.open().manifest.digest,
        **({"answer_coverage": covered} if covered is not None else {}),
        **({"shuffled_images": True} if shuffle_images else {}),
        **({"calibration": dict(card.calibration)} if card.calibration else {}),
    }
    asked = queries(chosen, rows, model)
    if shuffle_images:
        asked.images = other_images(asked.images)
    stage.predict(
        model,
        asked,
        decoding=card.decoding,
        path=path,
        card=about,
        batch_size=ANSWER_BATCH,
        progress=progress,
    )
    return path


def other_images(images: Sequence[str], seed: int = 0) -> list[str]:
    """Every image replaced by another one, the same for all its questions; raises `DataError` for a single image."""
    import random

    distinct = sorted(set(images))
    if len(distinct) < 2:
        raise DataError("every question is about one image, so there is no other to ask about; choose more rows")
    shuffled = distinct[:]
    random.Random(seed).shuffle(shuffled)
    following = dict(zip(shuffled, [*shuffled[1:], shuffled[0]], strict=True))
    return [following[image] for image in images]


def excerpt(card: BundleCard, folder: Path) -> dict[str, Any]:
    """What predictions and results say about the model."""
    kept = {
        key: getattr(card, key) for key in ("name", "family", "model", "selection", "license", "created", "version")
    }
    return {**kept, "bundle": str(folder), "trained_on": card.data, "files": dict(card.files)}


def predict_served(
    endpoint: Endpoint,
    selection: Selection,
    split: Split,
    *,
    out: Path,
    api_key: str = "",
    concurrency: int = 8,
    shuffle_images: bool = False,
    progress: ProgressCallback | None = None,
) -> tuple[Path, Usage]:
    """Let a served model answer a split; returns the predictions' path and what was spent, earlier tries included.

    Cut short, it goes on where it stopped. What was spent is kept in ``….usage.json`` beside the predictions.
    `shuffle_images` asks every question of another row's image, as `predict` does.
    """
    from medical_vqa.evaluation import predicting as stage
    from medical_vqa.models.base import Decoding
    from medical_vqa.models.remote.openai import Served

    model = Served(endpoint, api_key=api_key, concurrency=concurrency)
    about = {
        "model": {"name": endpoint.model, "family": model.family, "model": model.describe()},
        "selection": selection.to_json(),
        "split": split,
        "manifest": selection.open().manifest.digest,
        **({"shuffled_images": True} if shuffle_images else {}),
    }
    spent = out.with_name(out.name.removesuffix(".jsonl") + ".usage.json")
    asked = queries(selection, selection.rows(split), model)
    if shuffle_images:
        asked.images = other_images(asked.images)
    try:
        stage.predict(
            model, asked, decoding=Decoding(), path=out, card=about, batch_size=4 * concurrency, progress=progress
        )
    finally:
        model.close()
        add_usage(spent, model.usage)
    return out, model.usage


def add_usage(path: Path, usage: Usage) -> None:
    """Add what was spent to what stands in the file."""
    import json

    from medical_vqa.io import atomic_write

    before: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name, n in before.items():
        setattr(usage, name, getattr(usage, name) + n)
    atomic_write(path, json.dumps(usage.to_json(), indent=2) + "\n")
