"""Finds a published checkpoint: your own folder, or a repository of the Hugging Face hub in the local cache.

A folder in the hub's layout and a hub id take the same path, so the tests on small folders cover the large checkpoints.
The hub's environment variables ``HF_HUB_OFFLINE`` and ``HF_HOME`` apply.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

from medical_vqa.errors import ModelError, OfflineError
from medical_vqa.io import sha256_file

_SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
"""Configuration, tokenizer and templates."""
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint and its files on this machine."""

    name: str
    """Hub id or folder, as the recipe names it."""
    revision: str | None
    """Commit on the hub; None for a folder."""
    folder: Path
    """Folder of the files."""

    def digest(self) -> str:
        """SHA-256 that identifies the checkpoint: of id and commit, or of the files of a folder."""
        if self.revision is not None:
            return hashlib.sha256(f"{self.name}@{self.revision}".encode()).hexdigest()
        digest = hashlib.sha256()
        for path in sorted(self.folder.iterdir()):
            if path.suffix in (".safetensors", ".bin") or path.name == "config.json":
                digest.update(f"{path.name}:{sha256_file(path)}".encode())
        return digest.hexdigest()


def find_checkpoint(name: str, revision: str | None = None, *, weights: bool = True) -> Checkpoint:
    """The checkpoint of that name, downloaded where it is not in the local cache.

    Args:
        name: A folder or a hub id.
        revision: Branch, tag or commit on the hub.
        weights: Whether the weights are needed in addition to configuration and tokenizer.

    Raises:
        ModelError: It does not exist.
        OfflineError: It would have to be downloaded and cannot be.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{folder} is not a checkpoint: expected config.json and weights in it; point model.checkpoint at the "
                "folder that holds them, or at a hub id such as Salesforce/blip2-flan-t5-xl"
            )
        return Checkpoint(name, None, folder)
    if not _REPOSITORY.fullmatch(name):
        raise ModelError(
            f"no checkpoint at {name}: expected a folder with config.json, or a hub id such as "
            "Salesforce/blip2-flan-t5-xl; correct model.checkpoint"
        )
    snapshot = _download(name, revision, weights)
    return Checkpoint(name, snapshot.name, snapshot)


def _download(name: str, revision: str | None, weights: bool) -> Path:
    try:
        patterns = [*_SMALL_FILES, *(_weight_files(name, revision) if weights else ())]
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except HFValidationError as error:
        raise ModelError(f"{name!r} is not a hub id ({error}); correct model.checkpoint") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        if isinstance(error, HfHubHTTPError):
            raise ModelError(
                f"the hub has no checkpoint {name} (revision {revision or 'main'}), or it asks for a license to be "
                f"accepted first; open https://huggingface.co/{name}, then run: hf auth login"
            ) from error
        raise OfflineError(
            f"the checkpoint {name} is not in the hub's local cache and cannot be downloaded from here; where there "
            f"is a network run: hf download {name} --local-dir DIR, then set model.checkpoint to DIR"
        ) from error


def _weight_files(name: str, revision: str | None) -> tuple[str, ...]:
    """safetensors where the repository has them, PyTorch's own format otherwise; both when the hub is unreachable."""
    try:
        files = [entry.rfilename for entry in HfApi().model_info(name, revision=revision).siblings or ()]
    except (OfflineModeIsEnabled, LocalEntryNotFoundError):
        return ("*.safetensors", "pytorch_model*.bin")
    except OSError as error:
        if isinstance(error, HfHubHTTPError):
            raise
        return ("*.safetensors", "pytorch_model*.bin")
    return ("*.safetensors",) if any(f.endswith(".safetensors") for f in files) else ("pytorch_model*.bin",)
