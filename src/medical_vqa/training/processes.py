"""Several processes of one training run: their number, their time-out, and what they exchange."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import InitProcessGroupKwargs, gather_object

T = TypeVar("T")
TIMEOUT = timedelta(hours=6)
"""How long processes wait for each other. torch's 10 minutes end a run while one process fills a cache or validates."""


def process_group_timeout() -> InitProcessGroupKwargs:
    """The time-out, as accelerate takes it."""
    return InitProcessGroupKwargs(timeout=TIMEOUT)


def process_part() -> tuple[int, int]:
    """Number of this process and of all processes: (0, 1) for a single one."""
    state: Any = PartialState()
    return int(state.process_index), int(state.num_processes)


def gather_parts(own: Sequence[T]) -> list[T]:
    """What all processes have, together; every process must call it."""
    gathered: list[T] = gather_object(list(own))
    return gathered
