"""What a power failure would leave of a folder: computed from the system calls of the process that writes it.

`strace` records what a running server does. A file's content counts as far as an fsync has confirmed it, and a name as
soon as an fsync of its folder has; of everything later each write and each name is there or not, by chance. POSIX
promises no more. What the server has acknowledged by then is read from the same recording, out of its responses.

Needs strace, and the right to trace (`available`).
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "open,openat,creat,write,pwrite64,writev,sendto,sendmsg,fsync,fdatasync,ftruncate,rename,renameat,renameat2,"
    "mkdir,mkdirat,unlink,unlinkat,rmdir"
)
_LINE = re.compile(r"(\d+) +(<\.\.\. )?(\w+)(?: resumed>|\()(.*)", re.DOTALL)
_UNFINISHED = " <unfinished ...>"
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_DESCRIPTOR = re.compile(r"\d+<([^>]*)>")
_RESPONSE = re.compile(r'"HTTP/1\.1 (\d+) ')


def available() -> bool:
    """Whether processes can be traced here."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0


class Recording:
    """The system calls of a process from now on, until it ends."""

    def __init__(self, process_id: int, out: Path) -> None:
        self._out = out
        options = ["-f", "-y", "-s", "1500", "-e", f"trace={CALLS}", "-o", str(out), "-p", str(process_id)]
        self._strace = subprocess.Popen(["strace", *options], stderr=subprocess.PIPE, text=True)
        assert self._strace.stderr is not None
        attached = self._strace.stderr.readline()
        assert "attached" in attached, attached

    def lines(self) -> list[str]:
        """The recording, once the process has ended."""
        self._strace.communicate()
        return self._out.read_text(encoding="ascii", errors="replace").splitlines()


@dataclass(frozen=True)
class Call:
    """A system call that succeeded."""

    name: str
    arguments: str
    result: str
    began: int
    """Number of the line at which it began: an fsync confirms what had ended by then."""
    ended: int
    """Number of the line at which it ended."""

    def paths(self) -> list[str]:
        """The paths that it names."""
        return [str(Path(folder, name)) for folder, name in _PATH.findall(self.arguments)]


def calls(lines: Sequence[str]) -> list[Call]:
    """The calls that succeeded, in the order in which they ended."""
    begun: dict[str, tuple[str, int]] = {}
    succeeded = []
    for number, line in enumerate(lines):
        match = _LINE.match(line)
        if match is None:  # a signal, or an exit
            continue
        thread, resumed, name, rest = match.groups()
        if rest.endswith(_UNFINISHED):
            begun[thread] = rest.removesuffix(_UNFINISHED), number
            continue
        start, began = begun.pop(thread, ("", number)) if resumed else ("", number)
        arguments, _, result = (start + rest).rpartition(" = ")
        if result[:1].isdigit():
            succeeded.append(Call(name, arguments, result.split("<")[0].split(" ")[0], began, number))
    return succeeded


def responses(lines: Sequence[str]) -> list[tuple[int, int, str]]:
    """What the server has written to sockets: line, status, and the response as strace shows it."""
    return [
        (call.ended, int(match[1]), call.arguments)
        for call in calls(lines)
        if call.name in ("write", "writev", "sendto", "sendmsg") and (match := _RESPONSE.search(call.arguments))
    ]


@dataclass
class Node:
    """A file or a folder, as the system shows it and as the disk has it."""

    is_folder: bool
    origin: str = ""
    """A file's newest path."""
    names: dict[str, Node] = field(default_factory=dict)
    """What a folder contains."""
    size: int = 0
    """Bytes of a file."""
    durable_names: dict[str, Node] = field(default_factory=dict)
    durable_size: int = 0


class Disk:
    """A folder with all below it, as far as the calls so far have made it."""

    def __init__(self, root: Path) -> None:
        """Begin with what is there, which counts as confirmed."""
        self._root = root
        self._tree = Node(is_folder=True)
        self._begun: dict[int, tuple[Node, int, dict[str, Node]]] = {}
        for path in sorted(root.rglob("*")):
            node = Node(path.is_dir(), str(path))
            node.size = node.durable_size = 0 if node.is_folder else path.stat().st_size
            parent = self._node(str(path.parent))
            assert parent is not None
            parent.names[path.name] = parent.durable_names[path.name] = node

    def replay(self, lines: Sequence[str], moments: Sequence[int]) -> Iterator[int]:
        """Apply a recording; yields each of the moments (numbers of lines) when the disk is as it was then."""
        ended = calls(lines)
        syncs = [call for call in ended if call.name in ("fsync", "fdatasync")]
        events = [(call.began, False, call) for call in syncs] + [(call.ended, True, call) for call in ended]
        remaining = sorted(moments)
        for line, at_end, call in sorted(events, key=lambda event: event[:2]):
            while remaining and remaining[0] < line:
                yield remaining.pop(0)
            if at_end:
                self._end(call)
            elif (node := self._described(call)) is not None:
                self._begun[call.ended] = node, node.size, dict(node.names)
        yield from remaining

    def leave(self, target: Path, contents: Path, chance: random.Random) -> None:
        """Write to a new folder what a power failure at this moment could leave.

        Args:
            target: The new folder.
            contents: Has the content of every file that ever was below the root, by the same relative path.
            chance: Decides about what was not confirmed.
        """
        self._leave(self._tree, target, contents, chance)

    def _leave(self, node: Node, target: Path, contents: Path, chance: random.Random) -> None:
        target.mkdir()
        for name in {**node.durable_names, **node.names}:
            new, old = node.names.get(name), node.durable_names.get(name)
            child = new if new is old or chance.random() < 0.5 else old
            if child is None:
                continue
            if child.is_folder:
                self._leave(child, target / name, contents, chance)
                continue
            size = chance.randint(min(child.durable_size, child.size), child.size)
            origin = contents / Path(child.origin).relative_to(self._root)
            content = origin.read_bytes() if origin.exists() else bytes(child.size)
            (target / name).write_bytes(content[:size])

    def _node(self, path: str) -> Node | None:
        if not Path(path).is_relative_to(self._root):
            return None
        node: Node | None = self._tree
        for part in Path(path).relative_to(self._root).parts:
            node = None if node is None else node.names.get(part)
        return node

    def _described(self, call: Call) -> Node | None:
        """The file or folder of the descriptor that a call names first."""
        match = _DESCRIPTOR.match(call.arguments)
        return None if match is None else self._node(match[1])

    def _end(self, call: Call) -> None:
        match call.name:
            case "fsync" | "fdatasync" if call.ended in self._begun:
                node, size, names = self._begun.pop(call.ended)
                node.durable_size, node.durable_names = max(node.durable_size, size), names
            case "write" | "pwrite64" | "writev" if (node := self._described(call)) is not None:
                node.size += int(call.result)
            case "ftruncate" if (node := self._described(call)) is not None:
                node.size = node.durable_size = int(re.findall(r", (\d+)\)", call.arguments)[0])
            case "open" | "openat" | "creat" if call.name == "creat" or "O_CREAT" in call.arguments:
                self._add(call.paths()[0], Node(is_folder=False), truncate="O_TRUNC" in call.arguments)
            case "mkdir" | "mkdirat":
                self._add(call.paths()[0], Node(is_folder=True))
            case "unlink" | "unlinkat" | "rmdir":
                self._remove(call.paths()[0])
            case "rename" | "renameat" | "renameat2":
                source, target = call.paths()
                if (node := self._remove(source)) is not None:
                    self._remove(target)
                    self._add(target, node)

    def _add(self, path: str, new: Node, *, truncate: bool = False) -> None:
        parent = self._node(str(Path(path).parent))
        if parent is None or path == str(self._root):
            return
        node = parent.names.setdefault(Path(path).name, new)
        node.origin = path
        if truncate:
            node.size = node.durable_size = 0

    def _remove(self, path: str) -> Node | None:
        parent = self._node(str(Path(path).parent))
        return None if parent is None else parent.names.pop(Path(path).name, None)
