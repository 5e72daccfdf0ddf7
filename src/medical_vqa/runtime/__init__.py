"""The process: its devices and threads, the environment that it records, and the callbacks that report progress."""

from __future__ import annotations

from collections.abc import Callable

ProgressCallback = Callable[[int, int], None]
"""Called with the number of items that are done and the number of all."""
StageCallback = Callable[[str, int, int], None]
"""Called with the name of a stage, the number of its items that are done and the number of all."""
