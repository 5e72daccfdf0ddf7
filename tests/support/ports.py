"""Ports for servers that a test starts as processes of their own."""

from __future__ import annotations

import itertools
import random
import socket

_FIRST, _LAST = 20_000, 32_000
"""Below those that a system gives to outgoing connections and to whoever asks for any port: none of them takes one
between its choice and the start of the server."""
_candidates = itertools.cycle(random.SystemRandom().sample(range(_FIRST, _LAST), _LAST - _FIRST))


def free_port() -> int:
    """A port of this machine on which nothing listens, another one with each call."""
    for port in _candidates:
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise AssertionError("the iterator never ends")
