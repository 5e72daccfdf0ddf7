"""Reads, checks and writes an adapter with the checkpoint that it was trained on, and the two merged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medical_vqa.errors import BundleError, MedicalVqaError, ModelError
from medical_vqa.models.fsdp import unsharded_state
from medical_vqa.models.hf.checkpoint import Checkpoint, find_base
from medical_vqa.models.hf.families import LANGUAGE_FILE
from medical_vqa.models.hf.loading import Dtype, explain_errors, fp16_problem, read_config
from medical_vqa.models.hf.lora import hide_peft_warnings, load_lora, separate_adapted_weights
from medical_vqa.models.memory import is_within
from medical_vqa.runtime.devices import choose_precision, without_fp16

if TYPE_CHECKING:
    LoadNetwork = Callable[[Checkpoint, Dtype, Mapping[str, Any]], Any]

_COPIED_SUFFIXES = (".json", ".jinja", ".model", ".txt")
"""Files of a base that are not weights."""


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
        checkpoint = find_base(settings["checkpoint"], settings["revision"])
        if checkpoint.digest() != settings["digest"]:
            raise BundleError(
                f"the base {checkpoint.name} is not the checkpoint that {folder} was trained on; fetch that one again"
            )
        dtype = without_fp16(choice, fp16_problem(read_config(checkpoint))).precision
        network = load_network(checkpoint, dtype, settings)
        load_language(network, folder)
        return AdaptedBundle(settings, checkpoint, load_lora(network, folder, trainable=False), dtype)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"the bundle {folder} is damaged ({error}); train or copy it again") from error
    except BundleError:
        raise
    except MedicalVqaError as error:
        raise BundleError(f"the bundle {folder} cannot be loaded: {error}") from error


def check_initial(folder: Path, checkpoint: Checkpoint, settings_name: str) -> None:
    """Raise `ModelError` when the adapter of a folder was trained on another checkpoint.

    Args:
        folder: A bundle, or an adapter as PEFT saves it.
        checkpoint: The checkpoint of the recipe.
        settings_name: Name of the family's settings file in a bundle.
    """
    settings = folder / settings_name
    with explain_errors(f"the adapter {folder}"):
        if settings.is_file():
            stored = json.loads(settings.read_text(encoding="utf-8"))
            trained_on, same = stored["checkpoint"], stored["digest"] == checkpoint.digest()
        else:
            config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
            trained_on = config.get("base_model_name_or_path")
            same = checkpoint.revision is None or trained_on in (None, checkpoint.name)  # a folder has no known id
    if not same:
        raise ModelError(
            f"the adapter {folder} was trained on {trained_on} and not on {checkpoint.name}; name the former in "
            "model.checkpoint, or another adapter in model.initial"
        )


def check_initial_parts(
    network: Any, lora: Mapping[str, Any], initial: Path, *, tower: Sequence[str], projector: Sequence[str]
) -> None:
    """Raise `ModelError` where a recipe asks for parts to train that the adapter to start from does not contain.

    Args:
        network: The network with that adapter.
        lora: Adapters as the recipe describes them.
        initial: The folder of the adapter, for the message.
        tower: Names of the modules of the vision encoder.
        projector: Names of the modules of the projector behind it.
    """
    learning = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    requested = {"projector": (lora.get("projector", False), projector)}
    requested["vision"] = (lora.get("vision", "none") != "none", tower)
    for key, (is_requested, part) in requested.items():
        if is_requested and not any(is_within(name, part) for name in learning):
            raise ModelError(
                f"model.lora.{key} is {str(lora[key]).lower()}, and the adapter that training starts from, "
                f"{initial}, has nothing there; leave the key out, or start from one that was trained with it"
            )


def load_language(network: Any, folder: Path) -> None:
    """Replace the weights of a language model that trained wholly, where a folder has such.

    Raises `ModelError` where they are damaged or of another network.
    """
    from safetensors.torch import load_file  # noqa: PLC0415 - an extra, which this module's callers have

    path = folder / LANGUAGE_FILE
    if not path.is_file():
        return
    with explain_errors(f"the language model {path}"):
        trained, own = load_file(path), dict(network.named_parameters())
        if unknown := sorted(trained.keys() - own.keys()):
            raise ValueError(f"the network has no {unknown[0]}")
        with torch.no_grad():
            for name, value in trained.items():
                own[name].copy_(value)


def _save_language(state: Mapping[str, Any], peft_model: Any, names: Sequence[str], folder: Path) -> None:
    from safetensors.torch import save_file  # noqa: PLC0415 - an extra, which this module's callers have

    network = peft_model.get_base_model()
    trained = [name for name, p in network.named_parameters() if p.requires_grad and is_within(name, names)]
    if trained and not any(".lora_" in name for name in trained):  # a tied head is there once
        weights = {name: state[f"base_model.model.{name}"].detach().cpu().contiguous() for name in trained}
        save_file(weights, folder / LANGUAGE_FILE, metadata={"format": "pt"})


def save_adapter(peft_model: Any, folder: Path, checkpoint: Checkpoint, language: Sequence[str]) -> None:
    """Write the adapter in PEFT's own format, with the checkpoint it belongs to, and a wholly trained language model.

    Args:
        peft_model: The network.
        folder: Where to write.
        checkpoint: The published checkpoint.
        language: Names of the modules of the language model.
    """
    state = unsharded_state(peft_model)
    peft_model.peft_config["default"].base_model_name_or_path = checkpoint.location
    peft_model.peft_config["default"].revision = checkpoint.revision
    # the embeddings are those of the checkpoint, unchanged
    peft_model.save_pretrained(folder, save_embedding_layers=False, state_dict=state)
    (folder / "README.md").unlink(missing_ok=True)  # an empty form of PEFT's; the bundle's card has the facts
    _save_language(state, peft_model, language, folder)


def save_merged(bundle: Path, folder: Path, settings_name: str, load_network: LoadNetwork) -> None:
    """Write the network of a bundle with its adapter merged, in 32 bits, in the layout of its base.

    Processor, tokenizer and chat template are exactly those of the base.

    Args:
        bundle: The bundle.
        folder: Where to write.
        settings_name: Name of the family's settings file.
        load_network: Loads the network of the checkpoint.
    """
    adapted = load_adapted(bundle, settings_name, load_network, torch.device("cpu"))
    for path in sorted(adapted.checkpoint.folder.iterdir()):
        if path.name == "params.json" or path.name.endswith(".index.json"):  # of weights in another form
            continue
        if path.suffix in _COPIED_SUFFIXES:
            shutil.copyfile(path, folder / path.name)
    separate_adapted_weights(adapted.peft_model)
    with hide_peft_warnings():
        adapted.peft_model.merge_and_unload().save_pretrained(folder)
