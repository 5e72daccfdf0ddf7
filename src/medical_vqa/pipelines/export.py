"""Write a trained model for use elsewhere: package, hub, folder, ONNX."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medical_vqa import registry
from medical_vqa.data.imaging.preprocessing import PictureSpec, prepare_picture
from medical_vqa.data.imaging.raster import open_image
from medical_vqa.errors import ConfigError, ModelError
from medical_vqa.io import describe_disk_errors, use_default_modes
from medical_vqa.pipelines.bundles import find_bundle, load_model

if TYPE_CHECKING:
    from medical_vqa.models.base import Query


def ship(bundle: Path, to: Path) -> Path:
    """Export a compact bundle for the package: 8 bits a weight, and no local path in its card."""
    import torch

    from medical_vqa.models.bundle import load_bundle, write_bundle

    model: Any
    model, card = load_bundle(find_bundle(bundle), device=torch.device("cpu"))
    if card.data is not None:
        selection = card.data.selection.model_copy(update={"root": None})
        card = card.model_copy(update={"data": card.data.model_copy(update={"selection": selection})})
    with tempfile.TemporaryDirectory() as temporary:
        small = Path(temporary) / "bundle"
        write_bundle(small, card, lambda folder: model.save(folder, quantize=True))
        return export_onnx(small, to)[0]


def export(bundle: Path, *, to: str, repository: str | None = None, public: bool = False) -> str:
    """Write a bundle with a model card into a folder, or push it to the hub.

    Args:
        bundle: A bundle or a run folder.
        to: ``hub``, or a new folder.
        repository: ``USER/NAME`` on the hub.
        public: Whether everybody may see the repository.

    Returns:
        The folder, or the address of the repository.

    Raises:
        BundleError: A file of the bundle is damaged.
        OfflineError: The hub cannot be reached.
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
    """Write a bundle as an ONNX bundle, which runs without torch; returns it, and the largest difference of its logits.

    The export is compared with the model on the bundled sample before it appears. Raises `ModelError` when they differ,
    when the family cannot be exported, or when `out` contains anything but such an export.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # the exporter warns about shapes that `check` tries
    from medical_vqa.models.bundle import write_bundle
    from medical_vqa.schema.bundle_card import ExportedFrom, read_bundle_card

    folder = find_bundle(bundle)
    card = read_bundle_card(folder)
    family = registry.find("models", card.family)
    if card.facts.exported_from is not None:
        raise ModelError(f"{folder} is an ONNX bundle already; it answers without torch as it is")
    if family.exported_family is None:
        raise ModelError(f"{folder} is a {card.family} bundle, a family that has no ONNX export; serve it with torch")
    target = out or folder.with_name(f"{folder.name}-onnx")
    is_export = (target / "card.json").is_file() and read_bundle_card(target).family == family.exported_family
    if target.exists() and not is_export:
        raise ModelError(f"{target} exists and is not an ONNX bundle; export into a new folder")
    export_model = registry.import_object(family.exporter, card.family)
    model = load_model(folder, "cpu")[0]
    queries = sample_queries(model.picture or PictureSpec())
    with tempfile.TemporaryDirectory() as place:
        exported = Path(place)
        difference, opset = export_model(model, folder, exported, queries)
        facts = card.facts.model_copy(
            update={"exported_from": ExportedFrom(family=card.family, files=card.files, opset=opset)}
        )
        exported_card = card.model_copy(update={"family": family.exported_family, "facts": facts})

        def save(fresh: Path) -> None:
            shutil.copytree(exported, fresh, dirs_exist_ok=True)

        write_bundle(target, exported_card, save)
    return target, difference


def export_merged(bundle: Path, out: Path) -> Path:
    """Write a fine-tuned model with its adapter merged, in the hub's layout, for any engine; the folder must be new.

    Raises `ModelError` when the family has no adapter or `out` exists.
    """
    from medical_vqa.models.bundle import check_files
    from medical_vqa.schema.bundle_card import read_bundle_card

    folder = find_bundle(bundle)
    card = read_bundle_card(folder)
    check_files(folder, card)
    require_new(out)
    if not registry.find("models", card.family).merges:
        raise ModelError(
            f"{folder} is a {card.family} bundle, which has no adapter to merge; serve it with this package"
        )
    model_class = registry.find("models", card.family).model_class()
    with describe_disk_errors(out.parent, 0):
        out.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=out.parent))
    try:
        merged = place / out.name
        merged.mkdir()
        model_class.write_merged(folder, merged)
        use_default_modes(merged)
        merged.rename(out)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return out


def export_vllm(bundle: Path, out: Path) -> tuple[Path, str]:
    """Write the adapter of a bundle for vLLM; returns its folder and the command. Raises as `write_vllm` does."""
    from medical_vqa.deploying.engine_export import write_vllm
    from medical_vqa.models.bundle import check_files
    from medical_vqa.schema.bundle_card import read_bundle_card

    folder = find_bundle(bundle)
    card = read_bundle_card(folder)
    check_files(folder, card)
    require_new(out)
    return out, write_vllm(folder, card.name, out)


def export_gguf(bundle: Path, out: Path) -> Path:
    """Write a fine-tuned model as GGUF for llama.cpp, Ollama and LM Studio; raises as `write_gguf` does."""
    from medical_vqa.deploying.engine_export import write_gguf

    require_new(out)
    with tempfile.TemporaryDirectory() as place:
        write_gguf(export_merged(bundle, Path(place) / "merged"), out)
    return out


def require_new(out: Path) -> None:
    """Raise `ModelError` when there is something at `out` already."""
    if out.exists():
        raise ModelError(f"{out} exists; export into a new folder")


def sample_queries(spec: PictureSpec, images: int = 8) -> list[Query]:
    """The validation questions about the first images of the bundled sample, prepared for a model."""
    from medical_vqa.models.base import Query

    sample = registry.create("datasets", "slake-mini")
    published = sample.read(sample.bundled())
    rows = published.examples["validation"]
    pictures = {
        image_id: prepare_picture(open_image(published.read_image(image_id), image_id), spec)
        for image_id in sorted({row.image_id for row in rows})[:images]
    }
    return [
        Query(row.id, row.question, row.image_id, pictures[row.image_id]) for row in rows if row.image_id in pictures
    ]
