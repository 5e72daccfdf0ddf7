"""Reading an adapter back onto the base it was trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medical_vqa.errors import BundleError, MedicalVqaError
from medical_vqa.models.fsdp import unsharded_state
from medical_vqa.models.hf.checkpoint import Checkpoint, find_checkpoint
from medical_vqa.models.hf.loading import Dtype, reading
from medical_vqa.models.hf.lora import no_peft_warnings
from medical_vqa.runtime.devices import choose_precision

if TYPE_CHECKING:
    import torch

    Load = Callable[[Checkpoint, Dtype, dict[str, Any]], Any]


def load_adapted(
    folder: Path, settings_name: str, load: Load, device: torch.device
) -> tuple[dict[str, Any], Checkpoint, Any, Dtype]:
    """What a bundle with an adapter needs: its settings, its base, the adapted network and its precision.

    `load` makes the network of the base. Raises `BundleError` when a file is damaged, or the base is not the one the
    adapter was trained on.
    """
    from peft import PeftModel  # noqa: PLC0415 - slow to import

    dtype = choose_precision("auto", device).precision
    try:
        settings = json.loads((folder / settings_name).read_text(encoding="utf-8"))
        base = find_checkpoint(settings["checkpoint"], settings["revision"])
        if base.digest() != settings["digest"]:
            raise BundleError(
                f"the base {base.name} is not the checkpoint that {folder} was trained on; fetch that one again"
            )
        model = load(base, dtype, settings)
        with reading("its adapter"), no_peft_warnings():
            return settings, base, PeftModel.from_pretrained(model, folder), dtype
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"the bundle {folder} is damaged ({error}); train or copy it again") from error
    except BundleError:
        raise
    except MedicalVqaError as error:
        raise BundleError(f"the bundle {folder} cannot be loaded: {error}") from error


def save_adapter(adapted: Any, folder: Path, base: Checkpoint) -> None:
    """Write the adapter in PEFT's own format, with the base it belongs to."""
    adapted.peft_config["default"].base_model_name_or_path = base.name
    adapted.peft_config["default"].revision = base.revision
    # the embeddings are the base's own, unchanged
    adapted.save_pretrained(folder, save_embedding_layers=False, state_dict=unsharded_state(adapted))
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty form; the card says what is known
