"""Commands in copies of a process that has imported its libraries already.

A command that fine-tunes a published family spends most of its time on importing torch and transformers. A `ForkServer`
imports them once; each command then runs in a copy with its own arguments, folder, environment and output, imports the
package itself, and ends as any process does. A test about imports or about the start needs a process of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ports import free_port

FAMILIES = (
    "torch._dynamo",
    "torch.distributed.tensor",
    "torch.distributed.fsdp",
    "accelerate",
    "peft",
    "transformers.models.blip_2.modeling_blip_2",
    "transformers.models.t5.modeling_t5",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "transformers.models.smolvlm.modeling_smolvlm",
    "transformers.models.vilt.modeling_vilt",
)
"""What the training of a published family imports."""
_SECONDS = 1800.0
_STAND_IN = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({path!r})
    socket.send_fds(connection, [b" "], [0, 1, 2])
    command = {{"words": [{script!r}, *sys.argv[1:]], "folder": os.getcwd(), "environment": dict(os.environ)}}
    connection.sendall(json.dumps(command).encode() + b"\\n")
    sys.exit(int(connection.makefile().readline()) % 256)
"""


class ForkServer:
    """A process that imports modules once, without the hub, and runs each command in copies of itself."""

    def __init__(self, modules: Iterable[str]) -> None:
        """Start the process; it imports `modules`."""
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "socket"
        self._log = self._path.with_name("log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, self._path, *modules],
                env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )

    def close(self) -> None:
        """End the process: it stops at the end of its input."""
        self._process.communicate()
        self._folder.cleanup()

    def run(self, words: Sequence[object], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``python WORDS`` in a folder: a script, or ``-m MODULE``, with arguments and more variables."""
        (ended,) = self._run(words, folder, [variables])
        return ended

    def launch(
        self, processes: int, words: Sequence[object], folder: Path, **variables: str
    ) -> list[subprocess.CompletedProcess[str]]:
        """Run a command in several processes with the variables that torchrun gives them; in the order of ranks."""
        count, port = str(processes), str(free_port())
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
        return self._run(words, folder, [variables | meeting | rank for rank in ranks])

    def _run(
        self, words: Sequence[object], folder: Path, variables: Iterable[dict[str, str]]
    ) -> list[subprocess.CompletedProcess[str]]:
        command = [str(word) for word in words]
        with contextlib.ExitStack() as stack:
            nothing = stack.enter_context(Path(os.devnull).open())
            begun = []
            for of_one in variables:
                connection = stack.enter_context(self._connect())
                out, err = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
                socket.send_fds(connection, [b" "], [nothing.fileno(), out.fileno(), err.fileno()])
                message = {"words": command, "folder": str(folder), "environment": os.environ | of_one}
                connection.sendall(json.dumps(message).encode() + b"\n")
                begun.append((connection, out, err))
            ended = []
            for connection, out, err in begun:
                connection.settimeout(_SECONDS)
                status = int(connection.makefile().readline())
                out.seek(0)
                err.seek(0)
                ended.append(subprocess.CompletedProcess(command, status, out.read(), err.read()))
        return ended

    def stand_in(self, program: Path, script: Path) -> None:
        """Write a program that runs ``python SCRIPT`` and its own arguments where and as it is called."""
        self._wait()
        text = _STAND_IN.format(python=sys.executable, path=str(self._path), script=str(script))
        program.write_text(text, encoding="utf-8")
        program.chmod(0o755)

    def _connect(self) -> socket.socket:
        self._wait()
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self._path))
        return connection

    def _wait(self) -> None:
        """Wait until the process has imported its modules."""
        end = time.monotonic() + _SECONDS
        while not self._path.exists():
            ended = self._process.poll() is not None or time.monotonic() > end
            assert not ended, self._log.read_text(encoding="utf-8")[-2000:]
            time.sleep(0.05)


def serve(path: str, modules: Iterable[str]) -> dict[str, Any]:
    """Wait for commands until the input ends; in a copy, return the command that it has to run."""
    for module in modules:
        importlib.import_module(module)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.new")
        listener.listen()
        Path(f"{path}.new").rename(path)  # whoever finds it can connect
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing waits for the copies
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return begin(connection)
            connection.close()
    raise SystemExit(0)


def begin(connection: socket.socket) -> dict[str, Any]:
    """Read a command and become its process; the one that was asked waits for it and reports its status."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    command: dict[str, Any] = json.loads(connection.makefile().readline())
    if child := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        connection.sendall(f"{status}\n".encode())
        os._exit(0)
    for number, opened in enumerate(streams):
        os.dup2(opened, number)
    return command


def main() -> None:
    """Serve, and in a copy become the command."""
    command = serve(sys.argv[1], sys.argv[2:])
    os.environ |= command["environment"]
    os.chdir(command["folder"])
    first, *others = command["words"]
    if first == "-m":
        sys.argv = others
        sys.path[0] = command["folder"]
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command["words"]
        sys.path[0] = str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    main()
