"""Uploading a bundle to the Hugging Face hub, with a model card for readers and for the hub's search."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from medical_vqa import registry
from medical_vqa.errors import ModelError, OfflineError
from medical_vqa.io import sha256_file, use_default_modes
from medical_vqa.models.hf.families import LANGUAGE_FILE

if TYPE_CHECKING:
    from medical_vqa.schema.bundle_card import BundleCard

_LICENSES = {"CC BY 4.0": "cc-by-4.0", "CC0": "cc0-1.0"}


def push(bundle: Path, card: BundleCard, repository: str, *, private: bool = True) -> str:
    """Upload a bundle with its model card.

    Args:
        bundle: Folder of the bundle.
        card: Its card.
        repository: ``USER/NAME``; created where it does not exist.
        private: Whether a new repository is private.

    Returns:
        The address of the repository.

    Raises:
        ModelError: The hub refuses the name or the upload.
        OfflineError: The hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HfHubHTTPError,
        HFValidationError,
        HTTPError,  # of httpx or of httpx2, as the hub's version has it
        OfflineModeIsEnabled,
    )

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "bundle"
        write_export(bundle, card, folder)
        _name_local_base(folder)
        try:
            api = HfApi()
            address = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"Add {card.name}")
            return str(address)
        except HFValidationError as error:
            raise ModelError(f"{repository!r} is not a hub repository name ({error}); write it as USER/NAME") from error
        except HfHubHTTPError as error:
            raise ModelError(
                f"the hub refused {repository} ({str(error).splitlines()[0]}); log in with a token that may "
                "write there: hf auth login"
            ) from error
        except (OfflineModeIsEnabled, OSError, HTTPError) as error:
            raise OfflineError(
                f"the hub cannot be reached, so {repository} was not written; try again with a network connection, or "
                f"export to a folder: medical-vqa export {bundle} --to DIR"
            ) from error


def write_export(bundle: Path, card: BundleCard, folder: Path) -> Path:
    """Copy a bundle, with its model card as README.md, into a new folder; returns the folder.

    Args:
        bundle: Folder of the bundle.
        card: Its card.
        folder: The new folder, which ``from_pretrained`` of other libraries reads.

    Raises:
        ModelError: The folder exists.
    """
    if folder.exists():
        raise ModelError(f"{folder} exists; export into a new folder")
    shutil.copytree(bundle, folder)
    use_default_modes(folder)
    full_language_model = (bundle / LANGUAGE_FILE).is_file()
    (folder / "README.md").write_text(model_card(card, full_language_model=full_language_model), encoding="utf-8")
    return folder


def _name_local_base(folder: Path) -> None:
    """Replace the path of a base that is a local folder by the folder's name, in all JSON files of a bundle."""
    card_file = folder / "card.json"
    others = [path for path in folder.glob("*.json") if path != card_file]
    for path in (*others, card_file):
        content = json.loads(path.read_text(encoding="utf-8"))
        if path == card_file:
            content["files"] = {name: sha256_file(folder / name) for name in content["files"]}
        if (named := _with_base_name(content)) != content or path == card_file:
            path.write_text(json.dumps(named, ensure_ascii=False, indent=2), encoding="utf-8")


def _with_base_name(content: Any) -> Any:
    """A JSON value in which ``checkpoint`` and ``base_model_name_or_path`` name no folder by its path."""
    if isinstance(content, list):
        return [_with_base_name(item) for item in content]
    if not isinstance(content, dict):
        return content
    return {
        key: Path(value).name
        if key in ("checkpoint", "base_model_name_or_path") and isinstance(value, str) and _is_folder(value)
        else _with_base_name(value)
        for key, value in content.items()
    }


_FULL_USAGE = (
    "medical-vqa export bundle DIR --to merged, then AutoModelForImageTextToText.from_pretrained(DIR); PEFT alone does "
    "not read the trained language model"
)


def model_card(card: BundleCard, *, full_language_model: bool = False) -> str:
    """The hub's model card in Markdown: metadata, then data, scores, limits and use.

    Args:
        card: The bundle's card.
        full_language_model: Whether the bundle holds a language model all of whose weights were trained.
    """
    head = yaml.safe_dump(_metadata(card, full_language_model=full_language_model), sort_keys=False, allow_unicode=True)
    measured = card.refit_of.scores if card.refit_of else _validation_scores(card)
    scores = "\n".join(f"| {name.upper()} | {100 * value:.1f} |" for name, value in measured.items())
    commands = ["hf download THIS_REPOSITORY --local-dir bundle", 'medical-vqa ask IMAGE "QUESTION" --model bundle']
    if library_usage := _FULL_USAGE if full_language_model else registry.find("models", card.family).library_usage:
        commands.append("# elsewhere: " + library_usage.replace("{checkpoint}", _base_name(card)))
    usage = "\n".join(commands)
    sections = [
        f"# {card.name}",
        f"A {card.family} model that answers questions about medical images. {card.intended_use}",
        "## Data",
        *_data(card),
        "## Scores",
        f"| metric | value |\n|---|---|\n{scores}" if scores else "None were recorded.",
        _protocol(card),
        "## Limits",
        "Trained on one dataset of radiographs, CT and MRI slices; answers are short phrases like the dataset's. "
        "Answers can be wrong with high confidence, and many questions can be answered without the image: compare with "
        "the question-only baseline. Not a medical device and not for diagnosis.",
        "## Use",
        f"```\n{usage}\n```",
    ]
    return f"---\n{head}---\n\n" + "\n\n".join(sections) + "\n"


def _base_name(card: BundleCard) -> str:
    """The base model for readers elsewhere: its id on the hub, or a folder's name, because its path means nothing."""
    checkpoint = str(card.facts.checkpoint)
    if not _is_folder(checkpoint):
        return checkpoint
    return f"the checkpoint that was the local folder {Path(checkpoint).name!r} (model.checkpoint)"


def _is_folder(checkpoint: str) -> bool:
    return Path(checkpoint).expanduser().is_absolute() or checkpoint.startswith(".") or Path(checkpoint).is_dir()


def _protocol(card: BundleCard) -> str:
    """What the scores are scores of."""
    if (measured := card.refit_of) is None:
        return "On the validation split that selected this checkpoint, which makes them optimistic; SQuAD v2 rules."
    return (
        f"Of the model of the same recipe that was trained on {measured.rows} questions about {measured.images} "
        f"images, on the {measured.split} split, which it did not learn from; SQuAD v2 rules. This model learned from "
        "both, and has no score of its own."
    )


def _data(card: BundleCard) -> list[str]:
    """Paragraphs on the training data, and on that of the model that training started from."""
    data = card.data
    if data is None:
        return ["Unknown."]
    size = f"{data.rows} questions on {data.images} images"
    paragraphs = [f"{data.title}: {size}. License: {data.license}\n\n{data.citation}"]
    for one in data.mixture:
        size = f"{one.rows} questions on {one.images} images"
        paragraphs.append(f"{one.title}: {size}. License: {one.license}\n\n{one.citation}")
    if start := data.started_from:
        size = f"{start.rows} questions on {start.images} images of {start.title}"
        paragraphs.append(f"Training started from {start.name}, which was trained on {size}.")
    return paragraphs


def _metadata(card: BundleCard, *, full_language_model: bool) -> dict[str, Any]:
    license = next((key for name, key in _LICENSES.items() if card.license.startswith(name)), "other")
    base = card.facts.checkpoint
    metrics = [{"type": name, "value": round(value, 4)} for name, value in _validation_scores(card).items()]
    result = {
        "task": {"type": "visual-question-answering"},
        "dataset": {
            "name": card.data.title if card.data else "unknown",
            "type": card.data.selection.dataset if card.data else None,
        },
        "metrics": metrics,
    }
    return {
        "license": license,
        "library_name": "medical-vqa" if full_language_model else registry.find("models", card.family).library,
        "pipeline_tag": "visual-question-answering",
        "tags": ["medical", "visual-question-answering", "medical-vqa", card.family],
        **({"base_model": base} if base and not _is_folder(base) else {}),
        "model-index": [{"name": card.name, "results": [result]}],
    }


def _validation_scores(card: BundleCard) -> dict[str, float]:
    return dict(card.checkpoint_selection.scores) if card.checkpoint_selection else {}
