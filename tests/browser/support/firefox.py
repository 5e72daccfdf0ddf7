"""Debian's Firefox under Playwright, which speaks to it by WebDriver BiDi.

Playwright starts Firefox with a script of this module in between: it answers the one command that this Firefox does not
know yet (media features, such as the theme) as if it had been done, and passes everything else on.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import stat
import sys
from pathlib import Path

from playwright.sync_api import Browser, Playwright

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
_UNKNOWN = ("emulation.setMediaFeaturesOverride",)
_LISTENING = re.compile(rb"WebDriver BiDi listening on ws://([\d.:]+)")


def launch(playwright: Playwright, folder: Path) -> Browser:
    """Headless Firefox; its launcher is written to an empty folder."""
    path = folder / "firefox"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "$@"\n', encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return playwright.firefox.launch(executable_path=path, channel="moz-firefox", timeout=180_000)


async def main() -> int:
    """Run Firefox with the arguments of the command line, and stand between it and Playwright."""
    from websockets.asyncio.client import connect
    from websockets.asyncio.server import ServerConnection, serve

    assert FIREFOX is not None
    process = await asyncio.create_subprocess_exec(FIREFOX, *sys.argv[1:], stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    address = ""

    async def between(playwright: ServerConnection) -> None:
        assert playwright.request is not None
        async with connect(f"ws://{address}{playwright.request.path}", max_size=None) as firefox:

            async def to_firefox() -> None:
                async for message in playwright:
                    command = json.loads(message)
                    if command.get("method") in _UNKNOWN:
                        await playwright.send(json.dumps({"type": "success", "id": command["id"], "result": {}}))
                    else:
                        await firefox.send(message)
                await firefox.close()

            forward = asyncio.create_task(to_firefox())
            async for message in firefox:
                await playwright.send(message)
            await playwright.close()
            forward.cancel()

    async with serve(between, "127.0.0.1", 0, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        async for line in process.stderr:
            listening = _LISTENING.search(line)
            if listening is not None:
                address = listening[1].decode()
            shown = line if listening is None else f"WebDriver BiDi listening on ws://127.0.0.1:{port}\n".encode()
            sys.stderr.buffer.write(shown)
            sys.stderr.buffer.flush()
        return await process.wait()


if __name__ == "__main__":
    os.environ["MOZ_HEADLESS"] = "1"
    sys.exit(asyncio.run(main()))
