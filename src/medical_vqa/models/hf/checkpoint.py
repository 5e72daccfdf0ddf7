"""Finds a published checkpoint: your own folder, or a repository of the Hugging Face hub in the local cache.

A folder in the hub's layout and a hub id take the same path, so the tests on small folders cover the large checkpoints.
The hub's environment variables ``HF_HUB_OFFLINE`` and ``HF_HOME`` apply.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of httpx or of httpx2, as the hub's version has it
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

from medical_vqa.errors import ModelError, OfflineError
from medical_vqa.io import sha256_file
from medical_vqa.runtime.environment import home

_SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
"""Configuration, tokenizer and templates."""
_NOT_PROCESSOR = ("config.json", "card.json", "adapter_config.json", "params.json")
"""Small files that describe weights, or a bundle, and neither tokenizer nor processor; from the last, Mistral AI's own,
vLLM concludes that weights in that form are there too."""
_OTHER_WEIGHTS = ("consolidated*", "*/*.safetensors", "*/*.bin")
"""The same weights once more, for other programs: in Mistral AI's own form, or in a folder."""
_SHIPPED = Path(__file__).parents[2] / "assets" / "checkpoints"
"""Configurations of the checkpoints that recipes name, for `train --plan` before anything is downloaded."""
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
    shipped: bool = False
    """Whether the files are the configuration that comes with this package, because the checkpoint is not here."""

    @property
    def location(self) -> str:
        """Hub id, or the whole path of a folder, so that a bundle finds it from any working folder."""
        return self.name if self.revision is not None else str(self.folder.resolve())

    def digest(self) -> str:
        """SHA-256 that identifies the checkpoint: of id and commit, or of the files of a folder."""
        if self.revision is not None:
            return hashlib.sha256(f"{self.name}@{self.revision}".encode()).hexdigest()
        digest = hashlib.sha256()
        for path in sorted(self.folder.iterdir()):
            if path.name == "config.json" or (
                path.suffix in (".safetensors", ".bin") and not path.name.startswith("consolidated")
            ):
                digest.update(f"{path.name}:{sha256_file(path)}".encode())
        return digest.hexdigest()

    def processor_files(self) -> list[Path]:
        """Everything that tokenizer, image processor and templates are read from, as published."""
        small = {path for pattern in _SMALL_FILES for path in self.folder.glob(pattern) if path.is_file()}
        return sorted(p for p in small if p.name not in _NOT_PROCESSOR and not p.name.endswith(".index.json"))

    def processor_digest(self) -> str:
        """SHA-256 over the names and contents of `processor_files`."""
        lines = "".join(f"{path.name}:{sha256_file(path)}\n" for path in self.processor_files())
        return hashlib.sha256(lines.encode()).hexdigest()


def find_checkpoint(name: str, revision: str | None = None, *, weights: bool = True) -> Checkpoint:
    """The checkpoint of that name, downloaded where it is not in the local cache.

    Args:
        name: A folder or a hub id.
        revision: Branch, tag or commit on the hub.
        weights: Whether the weights are needed in addition to configuration and tokenizer. Without them the
            configuration that this package ships may stand in for a checkpoint that is not here.

    Raises:
        ModelError: It does not exist, or its weights are quantized.
        OfflineError: It would have to be downloaded and cannot be.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if (folder / "adapter_config.json").is_file():
            raise ModelError(
                f"{folder} holds an adapter and not a checkpoint: expected the published weights it was trained on in "
                "model.checkpoint; to train it further, name it in model.initial"
            )
        if (folder / "card.json").is_file():
            raise ModelError(
                f"{folder} is a bundle of this package and not a checkpoint: name the published one in model.checkpoint"
            )
        if any(folder.glob("*.gguf")) and not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
            raise _is_gguf(name)
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{folder} is not a checkpoint: expected config.json and weights in it; point model.checkpoint at the "
                "folder that holds them, or at a hub id such as Salesforce/blip2-flan-t5-xl"
            )
        return _require_unquantized(Checkpoint(name, None, folder))
    if folder.suffix.lower() == ".gguf":
        raise _is_gguf(name)
    if not _REPOSITORY.fullmatch(name):
        raise ModelError(
            f"no checkpoint at {name}: expected a folder with config.json, or a hub id such as "
            "Salesforce/blip2-flan-t5-xl; correct model.checkpoint"
        )
    try:
        snapshot = _download(name, revision, weights)
    except OfflineError:
        shipped = _SHIPPED / name.replace("/", "--")
        if weights or revision is not None or not shipped.is_dir():
            raise
        return Checkpoint(name, None, shipped, shipped=True)
    return _require_unquantized(Checkpoint(name, snapshot.name, snapshot))


def find_base(name: str, revision: str | None) -> Checkpoint:
    """The checkpoint that a bundle was trained on; a folder that is elsewhere now is looked for under `checkpoints`.

    Args:
        name: The path that the folder had, or the hub id.
        revision: Commit on the hub; None for a folder.

    Raises:
        ModelError: It is not on this machine.
        OfflineError: It would have to be downloaded and cannot be.
    """
    if revision is not None or Path(name).expanduser().is_dir():
        return find_checkpoint(name, revision)
    expected = home() / "checkpoints" / PureWindowsPath(name).name  # divides at both kinds of slashes
    if expected.is_dir():
        return find_checkpoint(str(expected))
    raise ModelError(
        f"its base, the folder {name}, is not on this machine; put the same files, or a link to them, at {expected}"
    )


def _download(name: str, revision: str | None, weights: bool) -> Path:
    try:
        patterns = [*_SMALL_FILES, *(_weight_files(name, revision) if weights else ())]
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=list(_OTHER_WEIGHTS))
        )
    except HFValidationError as error:
        raise ModelError(f"{name!r} is not a hub id ({error}); correct model.checkpoint") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, OSError, HTTPError) as error:
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
    except (OSError, HTTPError) as error:
        if isinstance(error, HfHubHTTPError):
            raise
        return ("*.safetensors", "pytorch_model*.bin")
    endings = {Path(file).suffix for file in files}
    if ".gguf" in endings and not endings & {".safetensors", ".bin"}:
        raise _is_gguf(name)
    return ("*.safetensors",) if ".safetensors" in endings else ("pytorch_model*.bin",)


def _is_gguf(name: str) -> ModelError:
    return ModelError(
        f"{name} is GGUF, which cannot be trained: name the checkpoint that it was made from in model.checkpoint "
        "(model.four_bit: true makes 4-bit weights of it); to ask it, serve it, see docs/how-to/remote-models.md"
    )


def _require_unquantized(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint; raises `ModelError` for weights that are quantized already."""
    try:
        config = json.loads((checkpoint.folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return checkpoint  # whoever reads it as a configuration says what is wrong with it
    settings = config.get("quantization_config") if isinstance(config, dict) else None
    if settings is not None:
        method = settings.get("quant_method", "an unknown method") if isinstance(settings, dict) else settings
        raise ModelError(
            f"{checkpoint.name} is quantized already ({method}): name the checkpoint in 16 or 32 bits that it was made "
            "from in model.checkpoint; model.four_bit: true makes 4-bit weights of it, on an NVIDIA GPU"
        )
    return checkpoint
