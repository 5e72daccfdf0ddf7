"""Starts the page, and where none is named the backend too; what it started, it stops."""

from __future__ import annotations

import importlib.util
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from medical_vqa.app import settings
from medical_vqa.errors import ConfigError, MissingDependencyError

PAGE = Path(__file__).with_name("main.py")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPTIONS = {
    "browser.gatherUsageStats": "false",  # nothing is told to anyone
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",  # a visitor is shown no traceback
    "client.showErrorLinks": "false",
    "logger.hideWelcomeMessage": "true",
    "server.fileWatcherType": "none",
    "server.headless": "true",
    "server.showEmailPrompt": "false",
    "theme.base": "light",
    "theme.primaryColor": "#0b6e83",
    "theme.backgroundColor": "#f5f7f8",
    "theme.secondaryBackgroundColor": "#e9eef0",
    "theme.textColor": "#14212b",
    "theme.borderColor": "#d5dde1",
    "theme.baseRadius": "10px",
    "theme.font": "'Source Sans', 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', sans-serif",
}
"""Streamlit's settings; ``STREAMLIT_*`` variables can set others."""
_STOPPING = 10.0  # seconds that a child is given
_LOOK = 0.2  # seconds between two looks at the children


def run(
    *,
    model: Path | None,
    backend: str | None,
    compare: str | None,
    feedback: Path | None,
    host: str,
    port: int,
    environ: Mapping[str, str],
) -> int:
    """Run until one part ends or the process is told to stop; returns an exit status.

    Without `backend` (or its variable) the backend is started on a free port of this machine, with `model`.

    Raises:
        ConfigError: A model was named for a backend that runs elsewhere.
        MissingDependencyError: Streamlit is not installed.
    """
    if importlib.util.find_spec("streamlit") is None:
        raise MissingDependencyError(
            "the page needs streamlit, which is not installed; run: pip install 'medical-vqa[app]'"
        )
    address = backend or environ.get(settings.BACKEND)
    if address and model is not None:
        raise ConfigError(f"the backend at {address} has a model of its own; leave out either the model or the backend")
    commands = []
    if not address:
        free = free_port()
        address = f"http://127.0.0.1:{free}"
        commands.append((serve_command(model, free), without_own(environ)))
        if feedback is None and settings.FEEDBACK not in environ and host in LOOPBACK:
            feedback = Path("feedback")
    wanted = {settings.BACKEND: address, settings.COMPARE: compare, settings.FEEDBACK: feedback}
    own = {name: str(value) for name, value in wanted.items() if value is not None}
    commands.append((page_command(host, port), {**environ, **own}))
    return _together(commands)


def page_command(host: str, port: int) -> list[str]:
    """How Streamlit is started."""
    given = {"server.address": host, "server.port": str(port), **OPTIONS}
    flags = [part for name, value in given.items() for part in (f"--{name}", value)]
    return [sys.executable, "-m", "streamlit", "run", str(PAGE), *flags]


def serve_command(model: Path | None, port: int) -> list[str]:
    """How the backend is started."""
    chosen = [] if model is None else ["--model", str(model)]
    return [sys.executable, "-m", "medical_vqa", "serve", *chosen, "--host", "127.0.0.1", "--port", str(port)]


def without_own(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for the backend, which refuses variables that it does not know."""
    return {name: value for name, value in environ.items() if name not in settings.NAMES}


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Stop(Exception):  # noqa: N818 - not an error
    """SIGTERM came."""


def _together(commands: Sequence[tuple[Sequence[str], Mapping[str, str]]]) -> int:
    children: list[subprocess.Popen[bytes]] = []
    former = signal.signal(signal.SIGTERM, _raise_stop)
    try:
        for command, environ in commands:
            children.append(subprocess.Popen(command, env=dict(environ)))
        while all(child.poll() is None for child in children):
            time.sleep(_LOOK)
        return next(code for child in children if (code := child.poll()) is not None)
    except (KeyboardInterrupt, _Stop):
        return 0
    finally:
        _end(children)
        signal.signal(signal.SIGTERM, former)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            child.terminate()
    for child in children:
        try:
            child.wait(_STOPPING)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _raise_stop(_number: int, _frame: FrameType | None) -> None:
    raise _Stop
