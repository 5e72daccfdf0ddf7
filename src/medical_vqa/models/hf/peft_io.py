"""Reads and writes an adapter with the checkpoint that it was trained on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medical_vqa.errors import BundleError, MedicalVqaError
from medical_vqa.models.fsdp import unsharded_state
from medical_vqa.models.hf.checkpoint import Checkpoint, find_checkpoint
from medical_vqa.models.hf.loading import Dtype, fp16_problem, read_config
from medical_vqa.models.hf.lora import load_lora
from medical_vqa.runtime.devices import choose_precision, without_fp16

if TYPE_CHECKING:
    import torch

    LoadNetwork = Callable[[Checkpoint, Dtype, Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class AdaptedBundle:
    """The content of a bundle with an adapter."""

    settings: Mapping[str, Any]
    """Content of the family's settings file."""
    checkpoint: Checkpoint
    """The checkpoint that the adapter was trained on."""
    peft_model: Any
    """The network of the checkpoint with the adapter."""
    dtype: Dtype
    """Precision of the frozen weights."""


def load_adapted(folder: Path, settings_name: str, load_network: LoadNetwork, device: torch.device) -> AdaptedBundle:
    """Read a bundle with an adapter, and the checkpoint it belongs to.

    Args:
        folder: The bundle.
        settings_name: Name of the family's settings file.
        load_network: Loads the network of the checkpoint.
        device: Where the model will run; decides the precision of the frozen weights.

    Raises:
        BundleError: A file is damaged, or the checkpoint is not the one that the adapter was trained on.
    """
    choice = choose_precision("auto", device)
    try:
        settings = json.loads((folder / settings_name).read_text(encoding="utf-8"))
        checkpoint = find_checkpoint(settings["checkpoint"], settings["revision"])
        if checkpoint.digest() != settings["digest"]:
            raise BundleError(
                f"the base {checkpoint.name} is not the checkpoint that {folder} was trained on; fetch that one again"
            )
        dtype = without_fp16(choice, fp16_problem(read_config(checkpoint))).precision
        network = load_network(checkpoint, dtype, settings)
        return AdaptedBundle(settings, checkpoint, load_lora(network, folder, trainable=False), dtype)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"the bundle {folder} is damaged ({error}); train or copy it again") from error
    except BundleError:
        raise
    except MedicalVqaError as error:
        raise BundleError(f"the bundle {folder} cannot be loaded: {error}") from error


def save_adapter(peft_model: Any, folder: Path, checkpoint: Checkpoint) -> None:
    """Write the adapter in PEFT's own format, with the checkpoint it belongs to."""
    peft_model.peft_config["default"].base_model_name_or_path = checkpoint.name
    peft_model.peft_config["default"].revision = checkpoint.revision
    # the embeddings are those of the checkpoint, unchanged
    peft_model.save_pretrained(folder, save_embedding_layers=False, state_dict=unsharded_state(peft_model))
    (folder / "README.md").unlink(missing_ok=True)  # an empty form of PEFT's; the bundle's card has the facts
