"""The page in a real browser: Chromium or Firefox, the page as a separate process, and a fake backend."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "app" / "support"))
sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))
sys.path.insert(0, str(Path(__file__).parent / "support"))
import firefox
from fake_backend import FakeBackend
from page_process import PageProcess
from waiting import TIMEOUT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
ENGINE = os.environ.get("TEST_BROWSER", "chromium")
"""In which browser the tests of this folder run: TEST_BROWSER=firefox pytest tests/browser/test_own_page.py."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.allow_hosts(["127.0.0.1"]))
            if CHROMIUM is None and ENGINE == "chromium":
                item.add_marker(pytest.mark.skip(reason="needs chromium: apt-get install chromium"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One per file: while Playwright runs, its event loop occupies this thread, and tests with their own fail."""
    with sync_playwright() as playwright:
        if ENGINE == "firefox":
            chosen = firefox.launch(playwright, tmp_path_factory.mktemp("firefox"))
        else:
            chosen = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=3 * TIMEOUT)
        yield chosen
        chosen.close()
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


@pytest.fixture(scope="session")
def fakes() -> Iterator[tuple[FakeBackend, FakeBackend]]:
    """Two backends, the second for comparing."""
    backends = FakeBackend(), FakeBackend("other-model")
    yield backends
    for backend in backends:
        backend.stop()


@pytest.fixture(scope="session")
def feedback(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The feedback folder of the page."""
    return tmp_path_factory.mktemp("page") / "feedback"


@pytest.fixture(scope="session")
def address(fakes: tuple[FakeBackend, FakeBackend], feedback: Path) -> Iterator[str]:
    """A page in front of them."""
    options = ["--backend", fakes[0].address, "--compare", fakes[1].address, "--feedback", str(feedback)]
    with PageProcess(options, feedback.parent) as url:
        yield url


@pytest.fixture
def fake(fakes: tuple[FakeBackend, FakeBackend]) -> FakeBackend:
    """The first backend, in its normal state."""
    fakes[0].starting = False
    fakes[0].overloaded = 0
    return fakes[0]


class Monitor:
    """Console errors and requests to other hosts by the pages of a context."""

    def __init__(self, context: BrowserContext) -> None:
        self.errors: list[str] = []
        self.foreign_requests: list[str] = []
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("console", lambda message: self._console(message.type, message.text))
        context.on("request", lambda request: self._request(request.url))

    def check(self) -> None:
        """No error in the console, and no request to another host."""
        errors = list(self.errors)
        foreign_requests = list(self.foreign_requests)
        self.errors.clear()
        self.foreign_requests.clear()
        assert errors == []
        assert foreign_requests == []

    def _console(self, level: str, text: str) -> None:
        if level == "error":
            self.errors.append(text)

    def _request(self, url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")):
            self.foreign_requests.append(url)


@pytest.fixture(scope="module")
def contexts(browser: Browser) -> Iterator[dict[str, tuple[BrowserContext, Monitor]]]:
    """One per type of window, so that the page's scripts are loaded once for each."""
    by_window: dict[str, tuple[BrowserContext, Monitor]] = {}
    yield by_window
    for context, _ in by_window.values():
        context.close()


@pytest.fixture
def open_page(browser: Browser, contexts: dict[str, tuple[BrowserContext, Monitor]]) -> Iterator[Callable[..., Page]]:
    """Opens a page; at the end it must have logged no error and sent no request to another host."""
    opened: list[tuple[Page, Monitor]] = []

    def open_(url: str, *, width: int = 1400, height: int = 900, locale: str = "en-GB", **options: bool) -> Page:
        window = f"{locale} {options}"
        if window not in contexts:
            context = browser.new_context(locale=locale, reduced_motion="reduce", **options)
            contexts[window] = context, Monitor(context)
        context, monitor = contexts[window]
        page = context.new_page()
        opened.append((page, monitor))
        page.set_viewport_size({"width": width, "height": height})
        page.set_default_timeout(TIMEOUT)
        page.goto(url, timeout=2 * TIMEOUT)
        page.wait_for_selector(".mv-disclaimer")
        return page

    yield open_
    for page, monitor in opened:
        page.close()
        monitor.check()


@pytest.fixture
def page(open_page: Callable[..., Page], fake: FakeBackend, address: str) -> Page:
    """The page in front of the first backend."""
    return open_page(address)
