"""Write a trained model for use elsewhere: package, hub, folder, ONNX."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medical_vqa import registry
from medical_vqa.data.imaging.pictures import PictureSpec, open_image, prepare_picture
from medical_vqa.errors import ConfigError, ModelError
from medical_vqa.pipelines.bundles import find_bundle, load_model

if TYPE_CHECKING:
    from medical_vqa.models.base import Query


def ship(bundle: Path, to: Path) -> Path:
    """Export a compact bundle for the package: 16 bits a weight, and no path of this machine in its card."""
    import torch

    from medical_vqa.models.bundle import load_bundle, write_bundle

    model: Any
    model, card = load_bundle(find_bundle(bundle), device=torch.device("cpu"))
    if card.data is not None:
        selection = card.data.selection.model_copy(update={"root": None})
        card = card.model_copy(update={"data": card.data.model_copy(update={"selection": selection})})
    with tempfile.TemporaryDirectory() as place:
        half = Path(place) / "bundle"
        write_bundle(half, card, lambda folder: model.save(folder, half=True))
        return export_onnx(half, to)[0]


def export(bundle: Path, *, to: str, repository: str | None = None, public: bool = False) -> str:
    """Write a bundle with a model card into a folder, or push it to the hub; returns where it is.

    Raises `BundleError` when a file of the bundle is damaged, `OfflineError` without a network.
    """
    from medical_vqa.deploying.hub import push, write_export
    from medical_vqa.models.bundle import check_files
    from medical_vqa.schema.bundle_card import read_bundle_card

    folder = find_bundle(bundle)
    card = read_bundle_card(folder)
    check_files(folder, card)
    if to != "hub":
        return str(write_export(folder, card, Path(to)))
    if repository is None:
        raise ConfigError("the hub needs a repository: medical-vqa export BUNDLE --to hub USER/NAME")
    return push(folder, card, repository, private=not public)


def export_onnx(bundle: Path, out: Path | None = None) -> tuple[Path, float]:
    """Write a compact bundle as one that runs without torch; returns it, and by how much its logits differ.

    Before it appears, it is asked about the shipped sample. Raises `ModelError` when it does not answer as the model
    does, when the family is another one, or when `out` holds something else.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # the exporter warns of shapes that `check` tries
    from medical_vqa.models.bundle import write_bundle
    from medical_vqa.models.compact.onnx_model import CompactOnnx
    from medical_vqa.models.compact.settings import WEIGHTS_FILE
    from medical_vqa.schema.bundle_card import ExportedFrom, read_bundle_card

    folder = find_bundle(bundle)
    card = read_bundle_card(folder)
    exported_family = registry.find("models", card.family).exported_family
    if exported_family is None:
        raise ModelError(f"{folder} is a {card.family} bundle, a family that has no ONNX export; serve it with torch")
    target = out or folder.with_name(f"{folder.name}-onnx")
    is_export = (target / "card.json").is_file() and read_bundle_card(target).family == exported_family
    if target.exists() and not is_export:
        raise ModelError(f"{target} is there already and is no ONNX bundle; export into a new folder")
    from medical_vqa.models.compact.onnx_export import OPSET, check, write_graphs

    model: Any = load_model(folder, "cpu")[0]
    found: list[float] = []

    def save(fresh: Path) -> None:
        write_graphs(model, folder / WEIGHTS_FILE, fresh)
        found.append(check(model, CompactOnnx.load(fresh), sample_queries(model.picture)))

    original = ExportedFrom(family=card.family, files=card.files, opset=OPSET)
    facts = card.facts.model_copy(update={"exported_from": original})
    write_bundle(target, card.model_copy(update={"family": exported_family, "facts": facts}), save)
    return target, found[0]


def sample_queries(spec: PictureSpec, images: int = 8) -> list[Query]:
    """The validation questions about the first images of the shipped sample, as a model with this picture sees them."""
    from medical_vqa.models.base import Query

    sample = registry.create("datasets", "slake-mini")
    published = sample.read(sample.bundled())
    rows = published.examples["validation"]
    chosen = sorted({row.image_id for row in rows})[:images]
    pictures = {i: prepare_picture(open_image(published.read_image(i), i), spec) for i in chosen}
    return [Query(r.id, r.question, r.image_id, pictures[r.image_id]) for r in rows if r.image_id in pictures]
