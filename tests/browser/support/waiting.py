"""Reads of a page's state that wait: what is redrawn between two reads is read again, until it is as expected."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from playwright.sync_api import Locator, Page, expect

TIMEOUT = 60_000  # milliseconds; the machine may be busy
_AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
_RECTANGLES = """([first, second]) => {
    const last = selector => {
        const shadows = [...document.querySelectorAll("*")].map(host => host.shadowRoot).filter(Boolean);
        return [document, ...shadows].flatMap(root => [...root.querySelectorAll(selector)]).at(-1);
    };
    const [a, b] = [last(first), last(second)].map(element => element?.getBoundingClientRect());
    return Boolean(a && b && a.width && b.width && (CONDITION));
}"""
expect.set_options(timeout=TIMEOUT)


def until(page: Page, condition: Callable[[], bool]) -> None:
    """Wait until a condition outside the browser holds."""
    end = time.monotonic() + TIMEOUT / 1000
    while not condition():
        assert time.monotonic() < end, "the condition did not come to hold"
        page.wait_for_timeout(20)


def wait_for_rectangles(page: Page, first: str, second: str, condition: str) -> None:
    """Wait until the rectangles ``a`` and ``b`` of two elements, read at once, fulfill a condition in JavaScript.

    Args:
        page: The page.
        first: Selector of the first element, of its last match; shadow trees are searched too.
        second: Selector of the second element.
        condition: Such as ``a.right <= b.left``.
    """
    page.wait_for_function(_RECTANGLES.replace("CONDITION", condition), arg=[first, second], timeout=TIMEOUT)


def wait_until_nothing_overflows(page: Page) -> None:
    """Wait until the page is no wider than its window."""
    page.wait_for_function("document.scrollingElement.scrollWidth <= document.documentElement.clientWidth")


def drag(page: Page, element: Locator, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Press the mouse at one position of an element and release it at another; both in pixels from its upper left."""
    element.hover(position={"x": start[0], "y": start[1]})
    page.mouse.down()
    element.hover(position={"x": (start[0] + end[0]) / 2, "y": (start[1] + end[1]) / 2})
    element.hover(position={"x": end[0], "y": end[1]})
    page.mouse.up()


def expect_accessible(page: Page) -> None:
    """Wait until axe reports no serious or critical violation; a page that is being redrawn may have one."""
    end = time.monotonic() + TIMEOUT / 1000
    while violations := _violations(page):
        assert time.monotonic() < end, violations
        page.wait_for_timeout(200)


def _violations(page: Page) -> list[str]:
    page.evaluate(_AXE)
    report: Any = page.evaluate("axe.run()")
    return [
        f"{violation['id']}: {violation['nodes'][0]['html']}"
        for violation in report["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
