"""Making a validation split where none was published."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medical_vqa.errors import ConfigError, DataError

if TYPE_CHECKING:
    from medical_vqa.schema.records import Example


def split_by_group(examples: Sequence[Example], fraction: float, seed: int = 0) -> tuple[list[Example], list[Example]]:
    """Part examples into train and validation so that no group is in both.

    A group goes where the hash of its name and the seed sends it: the order of the rows does not matter, and adding
    rows or groups moves none of the others. The validation part is therefore only about as large as asked for.

    Args:
        examples: What to part.
        fraction: Share of the groups that validation is to get, above 0 and below 1.
        seed: Another number sends other groups to validation.

    Returns:
        Train and validation, each in the order of `examples`.

    Raises:
        ConfigError: `fraction` is out of bounds.
        DataError: One of the parts would be empty.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"the validation fraction is {fraction}; give a number above 0 and below 1")
    chosen = {group for group in {e.group for e in examples} if _place(group, seed) < fraction}
    train = [example for example in examples if example.group not in chosen]
    validation = [example for example in examples if example.group in chosen]
    if not train or not validation:
        raise DataError(
            f"{len({e.group for e in examples})} groups of images cannot be parted with fraction {fraction} and "
            f"seed {seed}: one part is empty; choose another fraction or seed, or mark the splits yourself"
        )
    return train, validation


def _place(group: str, seed: int) -> float:
    """A number in [0, 1), the same for the same group and seed on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:6], "big") / 2**48
