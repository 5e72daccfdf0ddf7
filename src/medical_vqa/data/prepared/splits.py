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
    changes no other assignment. The validation split is therefore only about as large as requested; of two groups or
    more, each part has one at least.

    Args:
        examples: The rows.
        fraction: Fraction of the groups for validation, above 0 and below 1.
        seed: Seed of the assignment.

    Returns:
        Train and validation, each in the order of `examples`.

    Raises:
        ConfigError: `fraction` is out of bounds.
        DataError: There are fewer than two groups.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"the validation fraction is {fraction}; give a number above 0 and below 1")
    groups = {example.group for example in examples}
    if len(groups) < 2:
        raise DataError(
            f"{len(groups)} groups of images cannot be split into train and validation; add images, or mark the splits "
            "yourself"
        )
    # A number in [0, 1) for each group, the same on every machine.
    positions = {
        group: int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:6], "big") / 2**48
        for group in groups
    }
    first, *others = sorted(groups, key=lambda group: (positions[group], group))
    held_out = {first, *(group for group in others[:-1] if positions[group] < fraction)}  # the last is for training
    train = [example for example in examples if example.group not in held_out]
    validation = [example for example in examples if example.group in held_out]
    return train, validation
