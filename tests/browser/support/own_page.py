"""The page of the server in a browser: what its tests share."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, expect

AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
TIMEOUT = 60_000  # milliseconds; the machine may be busy


@contextmanager
def opened(browser: Browser, url: str, *, width: int = 1440, height: int = 900, **context: Any) -> Iterator[Page]:
    """A page; at the end it must have logged no error and sent no request to another host."""
    errors: list[str] = []
    foreign: list[str] = []
    around = browser.new_context(
        viewport={"width": width, "height": height}, reduced_motion="reduce", **{"locale": "en-GB", **context}
    )
    around.set_default_timeout(TIMEOUT)
    around.on("weberror", lambda error: errors.append(str(error.error)))
    around.on("request", lambda request: foreign.append(request.url) if not is_local(request.url) else None)
    try:
        page = around.new_page()
        page.goto(f"{url}/page")
        page.wait_for_selector(".safety")
        yield page
    finally:
        around.close()
    assert errors == []
    assert foreign == []


def is_local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "data:", "blob:"))


def add(page: Page, data: bytes, name: str = "scan.png") -> None:
    """Choose one file, and wait until it is shown."""
    before = page.locator(".cases li.current .name")
    shown = before.inner_text() if before.count() else None
    page.set_input_files("input[data-testid=files]", {"name": name, "mimeType": "", "buffer": data})
    if shown != name:
        expect(page.locator(".cases li.current .name")).to_have_text(name)
    page.wait_for_selector(".stage[data-shown]")


def ask(page: Page, question: str) -> None:
    """Type and press Enter."""
    field = page.locator("#question")
    field.fill(question)
    field.press("Enter")


def answers(page: Page) -> Any:
    return page.locator(".turn .answer:not(.unfinished)")


def wait(page: Page, condition: Callable[[], bool]) -> None:
    """Wait until a condition outside the browser holds."""
    while not condition():
        page.wait_for_timeout(20)


def png(side: int = 64, gray: int = 100) -> bytes:
    """A picture with a light quarter."""
    out = io.BytesIO()
    picture = Image.new("L", (side, side), gray)
    picture.paste(200, (0, 0, side // 2, side // 2))
    picture.save(out, "PNG")
    return out.getvalue()


def serious(page: Page) -> list[str]:
    """Serious and critical violations that axe reports."""
    page.evaluate(AXE)
    report = page.evaluate("axe.run()")
    return [
        f"{violation['id']}: {violation['nodes'][0]['html']}"
        for violation in report["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
