"""Suppression of the warnings and logs of libraries that quote a file's header, which may name a patient."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_active: dict[str, tuple[int, warnings.catch_warnings[None]]] = {}


@contextmanager
def suppress_warnings(package: str) -> Iterator[None]:
    """Disable the package's logger and all warnings in the block, also while several threads are in one.

    `warnings.catch_warnings` alone is not safe for threads: the first to leave restores what another saved, and
    warnings may stay disabled. Here the first to enter saves and the last to leave restores.
    """
    with _lock:
        depth, caught = _active.get(package, (0, warnings.catch_warnings()))
        if depth == 0:
            caught.__enter__()
            warnings.simplefilter("ignore")
            logging.getLogger(package).disabled = True
        _active[package] = depth + 1, caught
    try:
        yield
    finally:
        with _lock:
            depth, caught = _active.pop(package)
            if depth > 1:
                _active[package] = depth - 1, caught
            else:
                logging.getLogger(package).disabled = False
                caught.__exit__(None, None, None)
