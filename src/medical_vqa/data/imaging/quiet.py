"""Silence for libraries that quote a file's header in warnings and logs."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside: dict[str, tuple[int, warnings.catch_warnings[None]]] = {}


@contextmanager
def quiet(package: str) -> Iterator[None]:
    """Inside, the package's logger and all warnings are silent.

    `warnings.catch_warnings` alone is not for threads: whoever leaves first restores what another has saved, and the
    silence may stay for ever. Here the first to enter saves and the last to leave restores.
    """
    with _lock:
        depth, caught = _inside.get(package, (0, warnings.catch_warnings()))
        if depth == 0:
            caught.__enter__()
            warnings.simplefilter("ignore")
            logging.getLogger(package).disabled = True
        _inside[package] = depth + 1, caught
    try:
        yield
    finally:
        with _lock:
            depth, caught = _inside.pop(package)
            if depth > 1:
                _inside[package] = depth - 1, caught
            else:
                logging.getLogger(package).disabled = False
                caught.__exit__(None, None, None)
