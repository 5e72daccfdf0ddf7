"""Loads parts of a checkpoint with transformers, explains its errors in one sentence, silences progress bars."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from medical_vqa.errors import ConfigError, MissingDependencyError, ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from medical_vqa.models.hf.checkpoint import Checkpoint

try:
    import transformers
except ImportError as error:
    raise MissingDependencyError(
        "ViLT, BLIP-2 and chat models need transformers and peft, which are not installed; "
        "run: pip install 'medical-vqa[train,hub]'"
    ) from error

# this package reports progress and problems itself
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

Dtype = Literal["fp32", "fp16", "bf16"]
DTYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


LOADING_FAILED = "cannot be loaded ({reason}); check that its files are complete and of that kind"


NOT_LANGUAGE = r"(?!.*(language_model|text_model)\.).*"
"""Pattern of every layer outside the language model; these are never quantized, because features pass through them."""


@contextmanager
def explain_errors(what: str, problem: str = LOADING_FAILED) -> Iterator[None]:
    """Turn the errors that transformers raises into a `ModelError` of one sentence.

    Args:
        what: Subject of the sentence.
        problem: The rest of it, with a place for the ``reason``.
    """
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{what} {problem.replace('{reason}', reason)}") from error


_TOKENIZER_FILES = ("tokenizer.json", "*.model", "vocab.json", "vocab.txt")
"""Of which every tokenizer that transformers reads has one."""
_BEYOND_FP16 = ("gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "glm4")
"""Model types whose activations exceed fp16's range; vLLM refuses fp16 for these as well."""


def read_config(checkpoint: Checkpoint) -> Any:
    """The transformers configuration of a checkpoint; raises `ModelError`."""
    with explain_errors(f"the configuration of {checkpoint.name}"):
        return transformers.AutoConfig.from_pretrained(checkpoint.folder)


def fp16_problem(config: Any) -> str | None:
    """Why a network of this configuration cannot be computed in fp16, in words; None where it can."""
    model_type = config.get_text_config().model_type
    return f"activations of {model_type} exceed the range of fp16" if model_type in _BEYOND_FP16 else None


def load_network(
    network_class: Any, folder: Path, name: str, *, new_parameters: str | None = None, **arguments: Any
) -> Any:
    """A network of a transformers class with a checkpoint's weights, on the CPU.

    Args:
        network_class: The transformers class.
        folder: The checkpoint's files.
        name: What error messages call it.
        new_parameters: Beginning of the names of parameters that the checkpoint may lack.
        arguments: Passed to ``from_pretrained``.

    Raises:
        ModelError: The checkpoint is of another kind, or lacks weights: transformers would fill them with random ones.
    """
    expected = getattr(getattr(network_class, "config_class", None), "model_type", None)
    with explain_errors(f"the checkpoint {name}"):
        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if expected is not None and model_type != expected:
        raise ModelError(
            f"the checkpoint {name} is a {model_type!r} and a {expected!r} is needed; name another in model.checkpoint"
        )
    with explain_errors(f"the checkpoint {name}"):
        network, report = network_class.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=new_parameters is not None, **arguments
        )
    absent = [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]
    absent = [key for key in absent if new_parameters is None or not key.startswith(new_parameters)]
    if absent:
        raise ModelError(
            f"the checkpoint {name} is no {network_class.__name__}: it has no weights for {len(absent)} parameters, "
            f"such as {min(absent)}; name a checkpoint of that kind"
        )
    keep_out_of_half_autocast(network)
    return network


def keep_out_of_half_autocast(network: Any) -> None:
    """Compute in fp32 what transformers keeps in fp32, under fp16 autocast as well.

    transformers loads the modules that `_keep_in_fp32_modules` names (T5's ``wo``, BLIP-2's Q-Former) in fp32 because
    their results exceed fp16's range, and autocast would cast them back: flan-t5 then gives NaN.
    """
    names = set(getattr(network, "_keep_in_fp32_modules", None) or ())
    for name, module in network.named_modules():
        if name.rpartition(".")[2] in names:
            module.forward = functools.partial(_outside_half_autocast, module, module.forward)


def _outside_half_autocast(module: torch.nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
    weight = next(module.parameters())
    device = weight.device.type
    if not torch.is_autocast_enabled(device) or torch.get_autocast_dtype(device) != torch.float16:
        return forward(*args, **kwargs)

    def full(value: Any) -> Any:
        return value.to(weight.dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    with torch.autocast(device, enabled=False):
        return forward(*map(full, args), **{name: full(value) for name, value in kwargs.items()})


def loading_arguments(dtype: Dtype, options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``from_pretrained``: precision, attention, and 4 bits (NF4, Dettmers et al. 2023) with ``four_bit``.

    Raises `MissingDependencyError` without bitsandbytes, and `ConfigError` without an NVIDIA GPU.
    """
    arguments: dict[str, Any] = {"dtype": DTYPES[dtype]}
    if options.get("attention", "auto") != "auto":
        arguments["attn_implementation"] = options["attention"]
    if options.get("four_bit"):
        arguments["quantization_config"] = _four_bit(DTYPES[dtype])
    return arguments


def _four_bit(dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig  # noqa: PLC0415 - slow to import

    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError(
            "4-bit weights need bitsandbytes, which is not installed; run: pip install 'medical-vqa[train,hub,qlora]'"
        )
    if not torch.cuda.is_available():
        raise ConfigError(
            "model.four_bit needs an NVIDIA GPU and none is visible; set model.four_bit: false, or train where there "
            "is one"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=[NOT_LANGUAGE],
    )


def count_language_weights(network: torch.nn.Module) -> int:
    """Number of weights in the frozen matrices of the language model, those that 4-bit loading quantizes."""
    return sum(
        layer.weight.numel()
        for name, layer in network.named_modules()
        if isinstance(layer, torch.nn.Linear) and "lora_" not in name and not re.fullmatch(NOT_LANGUAGE, name)
    )


def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide what a checkpoint computes, for the card."""
    return {name: importlib.metadata.version(name) for name in ("transformers", "peft", "torch")}


def load_tokenizer(folder: Path, name: str) -> Any:
    """The tokenizer of a checkpoint; raises `ModelError`, also where transformers would make an empty one."""
    if not any(path for pattern in _TOKENIZER_FILES for path in folder.glob(pattern)):
        received = "tekken.json alone, Mistral AI's own form" if (folder / "tekken.json").is_file() else "none"
        raise ModelError(
            f"{name} has no tokenizer in the hub's form: expected tokenizer.json, received {received}; put "
            "tokenizer.json and tokenizer_config.json of the same model, or of a release with the same tokenizer, next "
            "to its weights"
        )
    with explain_errors(f"the tokenizer of {name}"):
        return transformers.AutoTokenizer.from_pretrained(folder)


def load_image_processor(folder: Path, name: str) -> Any:
    """The image processor of a checkpoint, always the one that resizes with Pillow; raises `ModelError`.

    The torchvision one resizes a little differently, and which of the two a machine has would change the features.
    """
    with explain_errors(f"the image processor of {name}"):
        return transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")


def to_pixels(processor: Any, pictures: Sequence[NDArray[np.uint8]]) -> dict[str, Tensor]:
    """Tensors that an image processor returns for prepared RGB pictures (H, W, 3)."""
    output = processor(images=list(pictures), return_tensors="pt", input_data_format="channels_last")
    return {key: value for key, value in output.items() if isinstance(value, torch.Tensor)}
