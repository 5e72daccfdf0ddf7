"""Starts the page and, unless an address is given, the backend; stops both together."""

from __future__ import annotations

import importlib.util
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from medical_vqa.app import settings
from medical_vqa.errors import ConfigError, MissingDependencyError

PAGE = Path(__file__).with_name("main.py")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
STREAMLIT_OPTIONS = {
    "browser.gatherUsageStats": "false",  # no telemetry
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",  # visitors see no traceback
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
"""Fixed settings of Streamlit; ``STREAMLIT_*`` variables set others."""
_PACKAGES = ("streamlit", "httpx2")
_STOP_SECONDS = 10.0  # until a process that does not stop is killed
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Process:
    """A process to start."""

    command: list[str]
    """Program and arguments."""
    environ: dict[str, str]
    """Environment variables."""


def plan(
    *,
    model: str | None,
    backend: str | None,
    compare: str | None,
    feedback: Path | None,
    host: str,
    port: int,
    environ: Mapping[str, str],
    serve_options: Sequence[str] = (),
) -> list[Process]:
    """The processes of the page; nothing is started yet.

    Args:
        model: What the backend serves, as `serve --model` takes it; None: the model that ships.
        backend: Address of a running backend; None: the variable's, else a backend on a free port of this machine.
        compare: Address of a second backend to compare with, or a model for which one is started.
        feedback: Folder for ratings; by default ``feedback`` for a page that only this machine can open.
        host: Address that the page listens on.
        port: Port that the page listens on.
        environ: Environment variables for all processes.
        serve_options: Further options of `serve`, from `remote_options`.

    Returns:
        The backend, where one is to be started, then the page.

    Raises:
        ConfigError: Both a model and a running backend were given.
        MissingDependencyError: A package of the extra ``app`` is not installed; the message names ``serve`` too, which
            a backend on this machine needs.
    """
    address = backend or environ.get(settings.BACKEND)
    extras = "app" if address else "serve,app"
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"the page needs {package}, which is not installed; run: pip install 'medical-vqa[{extras}]'"
            )
    if address and model is not None:
        raise ConfigError(f"expected a model or a backend, got both; the backend at {address} has its own model")
    processes = []
    if not address:
        backend_port = free_port()
        address = f"http://127.0.0.1:{backend_port}"
        # The backend refuses variables that it does not know.
        backend_environ = {name: value for name, value in environ.items() if name not in settings.VARIABLES}
        processes.append(Process(serve_command(model, backend_port, serve_options), backend_environ))
        if feedback is None and settings.FEEDBACK not in environ and host in LOOPBACK:
            feedback = Path("feedback")
    page_environ = {**environ, settings.BACKEND: address}
    if compare is not None and not compare.startswith(("http://", "https://")):
        compare_port = free_port()
        compare_environ = {name: value for name, value in environ.items() if name not in settings.VARIABLES}
        processes.append(Process(serve_command(compare, compare_port), compare_environ))
        compare = f"http://127.0.0.1:{compare_port}"
    if compare is not None:
        page_environ[settings.COMPARE] = compare
    if feedback is not None:
        page_environ[settings.FEEDBACK] = str(feedback)
    processes.append(Process(page_command(host, port), page_environ))
    return processes


def page_command(host: str, port: int) -> list[str]:
    """Command line that starts the page."""
    options = {"server.address": host, "server.port": str(port), **STREAMLIT_OPTIONS}
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    return [sys.executable, "-m", "streamlit", "run", str(PAGE), *flags]


def serve_command(model: str | None, port: int, options: Sequence[str] = ()) -> list[str]:
    """Command line that starts a backend; `options` are further ones of `serve`."""
    model_option = [] if model is None else ["--model", model]
    command = [sys.executable, "-m", "medical_vqa", "serve", *model_option, *options]
    return [*command, "--host", "127.0.0.1", "--port", str(port)]


def remote_options(base_url: str | None, api_key_env: str | None, *, allow_http: bool) -> list[str]:
    """The options of `serve` for a remote model.

    Args:
        base_url: Address of its endpoint.
        api_key_env: Variable with its key.
        allow_http: Whether the key may be sent without encryption.
    """
    values = {"--base-url": base_url, "--api-key-env": api_key_env}
    options = [part for name, value in values.items() if value is not None for part in (name, value)]
    return [*options, "--allow-http"] if allow_http else options


def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_free_port(host: str, port: int) -> None:
    """Raise `ConfigError` where something listens on the page's port already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({str(error.strerror or error).partition(' (')[0]}); choose another --port"
        ) from error


class _TerminatedError(Exception):
    """SIGTERM was received."""


def run(processes: Sequence[Process]) -> int:
    """Run until one process ends or this one is terminated, then stop the others.

    Returns:
        The exit status of the process that ended; 0 after Ctrl-C or SIGTERM.
    """
    children: list[subprocess.Popen[bytes]] = []
    former_handler = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        for process in processes:
            children.append(subprocess.Popen(process.command, env=process.environ))
        while True:
            for child in children:
                status = child.poll()
                if status is not None:
                    return status
            time.sleep(_POLL_SECONDS)
    except (KeyboardInterrupt, _TerminatedError):
        return 0
    finally:
        _stop(children)
        signal.signal(signal.SIGTERM, former_handler)


def _stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            child.terminate()
    for child in children:
        try:
            child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _raise_terminated(_number: int, _frame: FrameType | None) -> None:
    raise _TerminatedError
