"""A validation split where none was published."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medical_vqa.errors import ConfigError, DataError

if TYPE_CHECKING:
    from medical_vqa.schema.records import Example


def split_by_group(examples: Sequence[Example], fraction: float, seed: int = 0) -> tuple[list[Example], list[Example]]:
    """Split examples into train and validation so that no group is in both.

    The hash of its name and the seed assigns a group: the order of the rows does not matter, and adding rows or groups
    changes no other assignment. The validation split is therefore only about as large as requested.

    Args:
        examples: The rows.
        fraction: Fraction of the groups for validation, above 0 and below 1.
        seed: Seed of the assignment.

    Returns:
        Train and validation, each in the order of `examples`.

    Raises:
        ConfigError: `fraction` is out of bounds.
        DataError: One of the splits would be empty.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"the validation fraction is {fraction}; give a number above 0 and below 1")
    groups = {example.group for example in examples}
    # A number in [0, 1) for each group, the same on every machine.
    positions = {
        group: int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:6], "big") / 2**48
        for group in groups
    }
    held_out = {group for group, position in positions.items() if position < fraction}
    train = [example for example in examples if example.group not in held_out]
    validation = [example for example in examples if example.group in held_out]
    if not train or not validation:
        raise DataError(
            f"{len(groups)} groups of images cannot be split with fraction {fraction} and seed {seed}: one split is "
            "empty; choose another fraction or seed, or mark the splits yourself"
        )
    return train, validation
