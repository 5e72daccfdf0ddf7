"""Running the app: uvicorn on a socket of our own, JSON logs, and a stop that answers what was accepted."""

from __future__ import annotations

import signal
import socket
import sys

import structlog
import uvicorn
from fastapi import FastAPI

from medical_vqa.errors import ConfigError
from medical_vqa.serving.api import create_app
from medical_vqa.serving.engine import Engine
from medical_vqa.serving.logs import configure
from medical_vqa.serving.settings import Settings

_KEEP_ALIVE = 30  # seconds that an idle connection stays open
_BACKLOG = 2048


def run(engine: Engine, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests that have begun by then are answered within `settings.drain` seconds.

    Raises `ConfigError` when the address is taken or the store cannot be reached.
    """
    configure(settings.log_level)
    app = create_app(engine, settings)
    app.state.service.store.check()
    listening = _listen(settings.host, settings.port)
    host, port = listening.getsockname()[:2]
    structlog.get_logger("medical_vqa.serving").info(
        "serving", url=f"http://{host}:{port}", model=engine.card.name, model_id=engine.id, batch=engine.batch
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again once all is answered
    uvicorn.Server(config(app, settings)).run(sockets=[listening])


def config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn runs the app."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies) or None,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=int(settings.drain),
        h11_max_incomplete_event_size=64 * 1024,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror or error}); choose another --port"
        ) from error
