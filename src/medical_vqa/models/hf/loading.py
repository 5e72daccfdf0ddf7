"""Loading parts of a checkpoint with transformers, its errors told in one sentence and its chatter turned off."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from medical_vqa.errors import MissingDependencyError, ModelError

if TYPE_CHECKING:
    from torch import Tensor

try:
    import transformers
except ImportError as error:
    raise MissingDependencyError(
        "ViLT, BLIP-2 and chat models need transformers and peft, which are not installed; "
        "run: pip install 'medical-vqa[train,hub]'"
    ) from error

# What a person must know, this package says itself.
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

Dtype = Literal["fp32", "fp16", "bf16"]
DTYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn what transformers raises on files that do not fit into a `ModelError`; `what` begins the message."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{what} cannot be loaded ({reason}); check that its files are whole and of that kind"
        ) from error


def load_network(kind: Any, folder: Path, name: str, *, fresh: str | None = None, **settings: Any) -> Any:
    """A network of a transformers class with a checkpoint's weights, on the CPU.

    `fresh` begins the names of parameters that may be new. Raises `ModelError` when others have no weights: another
    kind of model would otherwise be filled up with random numbers.
    """
    wanted = getattr(getattr(kind, "config_class", None), "model_type", None)
    with reading(f"the checkpoint {name}"):
        own = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if wanted is not None and own != wanted:
        raise ModelError(
            f"the checkpoint {name} is a {own!r} and a {wanted!r} is needed; name another in model.checkpoint"
        )
    with reading(f"the checkpoint {name}"):
        network, found = kind.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=fresh is not None, **settings
        )
    lacking = [key for key in found["missing_keys"] if fresh is None or not key.startswith(fresh)]
    lacking += [key for key, *_ in found["mismatched_keys"] if fresh is None or not key.startswith(fresh)]
    if lacking:
        raise ModelError(
            f"the checkpoint {name} is no {kind.__name__}: it has no weights for {len(lacking)} parameters, such as "
            f"{min(lacking)}; name a checkpoint of that kind"
        )
    return network


def load_tokenizer(folder: Path, name: str) -> Any:
    """The tokenizer of a checkpoint; raises `ModelError`."""
    with reading(f"the tokenizer of {name}"):
        return transformers.AutoTokenizer.from_pretrained(folder)


def load_image_processor(folder: Path, name: str) -> Any:
    """The image processor of a checkpoint, always the one that resizes with Pillow; raises `ModelError`.

    The torchvision one resizes a little differently, and which of the two a machine has would change the features.
    """
    with reading(f"the image processor of {name}"):
        return transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")


def to_pixels(processor: Any, pictures: Sequence[NDArray[np.uint8]]) -> dict[str, Tensor]:
    """What an image processor makes of prepared RGB pictures (H, W, 3), as tensors."""
    found = processor(images=list(pictures), return_tensors="pt", input_data_format="channels_last")
    return {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}
