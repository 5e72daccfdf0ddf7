"""Running the application: uvicorn on a socket, JSON logs, and a stop that answers every accepted request."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

import structlog
import uvicorn
from fastapi import FastAPI

from medical_vqa.errors import ConfigError
from medical_vqa.serving.api.app import create_app
from medical_vqa.serving.engine.local import Engine
from medical_vqa.serving.engine.remote import RemoteEngine
from medical_vqa.serving.http_protocol import limited_protocol
from medical_vqa.serving.logs import configure_logging
from medical_vqa.serving.models import LoadModel
from medical_vqa.serving.service.decoders import Decoders
from medical_vqa.serving.settings import Settings

_LOG = structlog.get_logger("medical_vqa.serving")
_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")
_BACKLOG = 2048
_OTHER_FILES = 128  # open in addition to the connections: logs, stores, decoders, jobs
_CLOSING_SECONDS = 1.0  # after drain_timeout: platforms kill 10 s after the signal
_SWITCH_SECONDS = 0.001  # for which a thread in Python may keep the event loop waiting
_M_MMAP_THRESHOLD = -3  # of mallopt(3)


def run(
    engine: Engine | RemoteEngine,
    settings: Settings,
    announce: Callable[[str], None] | None = None,
    load_model: LoadModel | None = None,
    *,
    listener: socket.socket | None = None,
    decoders: Decoders | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; running requests are then answered within `settings.drain_timeout` seconds.

    Args:
        engine: Answers the questions.
        settings: Where to listen, and the limits.
        announce: Receives the server's address once it listens there.
        load_model: Loads further models; None: there will be none.
        listener: Where to accept connections; None: at the address of the settings.
        decoders: Decode the uploads, perhaps started already; None: new ones.

    Raises:
        ConfigError: The address is in use or the store is unavailable.
    """
    configure_logging(settings.log_level, style=settings.log_format)
    _return_freed_memory()
    sys.setswitchinterval(_SWITCH_SECONDS)
    app = create_app(engine, settings, load_model=load_model, decoders=decoders)
    app.state.service.store.check()
    listener = listener or listen(settings)
    if announce is not None:
        announce(address_of(listener))
    _LOG.info(
        "serving",
        url=address_of(listener),
        model=engine.card.name,
        model_id=engine.id,
        batch_size=engine.options.batch_size,
    )
    if settings.host not in _THIS_MACHINE and not settings.api_keys and settings.keys_file is None:
        _LOG.warning("no API keys are set: whoever reaches this address may upload, ask and delete", host=settings.host)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again once every request is answered
    server = Server(uvicorn_config(app, settings))
    server.closing_seconds = _CLOSING_SECONDS
    gc.freeze()  # modules and the model, which every full search for garbage would pass over while all requests wait
    server.run(sockets=[listener])


class Server(uvicorn.Server):
    """A server that stops in two steps: it announces the stop and still answers, and then closes its socket.

    Closing at once would reset the connections that the kernel has accepted and the server has not.
    """

    drain_notice = 0.5
    """Seconds between the signal and the closed socket."""
    closing_seconds: float | None = None
    """Seconds after the running requests in which everything else ends, or the process does; None: it waits."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Announce the stop, then close the socket and wait for the running requests."""
        if self.closing_seconds is not None:
            draining = self.config.timeout_graceful_shutdown or 0
            _end_process_after(self.drain_notice + draining + self.closing_seconds)
        if isinstance(self.config.app, FastAPI):
            self.config.app.state.draining.active = True
            await asyncio.sleep(self.drain_notice)
            # They continue once the socket is closed, so that an open page does not ask again at once.
            self.config.app.state.conversations.stop_waiting()
        await super().shutdown(sockets)


def _end_process_after(seconds: float) -> None:
    """End this process some seconds later, unless it has ended by then.

    Its interpreter would wait for threads whose calls do not return, such as those of a disk that does not answer.
    """

    def end() -> None:
        _LOG.error("stopped without waiting for calls that do not return: a disk or a store does not answer")
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn runs the application."""
    return uvicorn.Config(
        app,
        http=limited_protocol(_allowed_connections(settings.max_connections)),
        ws="none",  # no route has one
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies) or None,
        timeout_keep_alive=max(1, round(settings.keep_alive)),
        timeout_graceful_shutdown=drain_seconds(app, settings),
    )


def drain_seconds(app: FastAPI, settings: Settings) -> int:
    """Seconds for the running requests at a stop: `settings.drain_timeout`, and more where a remote model needs it."""
    deadline: float = app.state.service.engine.options.deadline
    return max(1, round(settings.drain_timeout), math.ceil(deadline) + 1)


def listen(settings: Settings) -> socket.socket:
    """A socket at the address of the settings; raises `ConfigError` where it is in use."""
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({str(error.strerror or error).partition(' (')[0]}); choose another --port"
        ) from error


def address_of(listener: socket.socket) -> str:
    """The address under which this machine reaches a socket."""
    host, port = listener.getsockname()[:2]
    reachable = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def _allowed_connections(connections: int) -> int:
    """How many connections the system lets this process have, once its limit of open files is raised for them."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = connections + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= files:
        return connections
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    allowed = max(1, min(connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_FILES))
    if allowed < connections:
        _LOG.warning("fewer connections than set: the system's limit of open files is too low", allowed=allowed)
    return allowed


def _return_freed_memory() -> None:
    """Let glibc give large freed blocks back to the system, instead of keeping them for the next body.

    Its threshold otherwise grows with every large block that is freed, to 32 MiB.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, 256 * 1024)
