"""The page of the server in a browser: what its tests share."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, expect
from waiting import TIMEOUT


@contextmanager
def opened(
    browser: Browser, url: str, *, width: int = 1440, height: int = 900, path: str = "/page", **context: Any
) -> Iterator[Page]:
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
        page.goto(f"{url}{path}")
        page.wait_for_selector(".safety")
        yield page
    finally:
        around.close()
    assert errors == []
    assert foreign == []


def is_local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "data:", "blob:"))


def add(page: Page, data: bytes, name: str = "scan.png") -> None:
    """Choose one file that has another name than the current one, and wait until it is shown."""
    page.set_input_files("input[data-testid=files]", {"name": name, "mimeType": "", "buffer": data})
    expect(page.locator(".cases li.current .name")).to_have_text(name)
    page.wait_for_selector(".stage[data-shown]")


def ask(page: Page, question: str) -> None:
    """Type and press Enter."""
    field = page.locator("#question")
    field.fill(question)
    field.press("Enter")


def answers(page: Page) -> Any:
    return page.locator(".turn .answer:not(.unfinished)")


def png(side: int = 64, gray: int = 100) -> bytes:
    """A picture with a light quarter."""
    out = io.BytesIO()
    picture = Image.new("L", (side, side), gray)
    picture.paste(200, (0, 0, side // 2, side // 2))
    picture.save(out, "PNG")
    return out.getvalue()
