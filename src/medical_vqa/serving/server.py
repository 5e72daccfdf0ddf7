"""Running the app: uvicorn on a socket of our own, JSON logs, and a stop that answers what was accepted."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medical_vqa.errors import ConfigError
from medical_vqa.serving.api.problems import respond
from medical_vqa.serving.api.routes import create_app
from medical_vqa.serving.engine import Engine
from medical_vqa.serving.errors import stopping
from medical_vqa.serving.logs import configure
from medical_vqa.serving.settings import Settings

_KEEP_ALIVE = 30  # seconds that an idle connection stays open
_BACKLOG = 2048
_LEAVING = 0.5  # seconds between the signal and the closed door


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
    Server(config(app, settings)).run(sockets=[listening])


class Server(uvicorn.Server):
    """A server that leaves in two steps: it says so for `_LEAVING` seconds and still answers, and then it closes.

    Closing at once would reset the connections that the kernel has accepted and the server has not.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Leave, then close the socket and wait for the requests that have begun."""
        if isinstance(self.config.app, Leaving):
            self.config.app.leaving = True
            await asyncio.sleep(_LEAVING)
        await super().shutdown(sockets)


class Leaving:
    """ASGI middleware: once `leaving` is set every response closes its connection, and `/readyz` says no."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self.leaving = app, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http" or not self.leaving:
            await self._app(scope, receive, send)
        elif scope["path"] == "/readyz":
            await respond(stopping(), scope, receive, send)
        else:
            await self._app(scope, receive, _closing(send))


def _closing(send: Send) -> Send:
    async def close(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return close


def config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn runs the app."""
    return uvicorn.Config(
        Leaving(app),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies) or None,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(settings.drain)),
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
