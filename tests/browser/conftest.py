"""The page in a real browser: Chromium, the page as a process of its own, and a backend of the tests' own."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "app" / "support"))
from fake_backend import FakeBackend
from page_process import PageProcess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 60_000  # milliseconds; the machine may be busy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.allow_hosts(["127.0.0.1"]))
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="needs chromium: apt-get install chromium"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for each file, and gone with it: while Playwright is on, its event loop runs in this very thread, and tests
    elsewhere that run one of their own fail."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


@pytest.fixture(scope="session")
def fakes() -> Iterator[tuple[FakeBackend, FakeBackend]]:
    """Two backends, the second for comparing."""
    both = FakeBackend(), FakeBackend("other-model")
    yield both
    for backend in both:
        backend.stop()


@pytest.fixture(scope="session")
def votes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where feedback goes."""
    return tmp_path_factory.mktemp("page") / "votes"


@pytest.fixture(scope="session")
def address(fakes: tuple[FakeBackend, FakeBackend], votes: Path) -> Iterator[str]:
    """A page in front of them."""
    options = ["--backend", fakes[0].address, "--compare", fakes[1].address, "--feedback", str(votes)]
    with PageProcess(options, votes.parent) as url:
        yield url


@pytest.fixture
def fake(fakes: tuple[FakeBackend, FakeBackend]) -> FakeBackend:
    """The first backend, in a good mood."""
    fakes[0].asleep, fakes[0].fails = False, 0
    return fakes[0]


class Watched:
    """What the pages of a context did that they should not have done."""

    def __init__(self, context: BrowserContext) -> None:
        self.errors: list[str] = []
        self.outside: list[str] = []
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("console", lambda message: self._console(message.type, message.text))
        context.on("request", lambda request: self._request(request.url))

    def check(self) -> None:
        """No error in the console, and nobody asked outside this machine."""
        errors, outside = list(self.errors), list(self.outside)
        self.errors.clear()
        self.outside.clear()
        assert errors == []
        assert outside == []

    def _console(self, kind: str, text: str) -> None:
        if kind == "error":
            self.errors.append(text)

    def _request(self, url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")):
            self.outside.append(url)


@pytest.fixture(scope="module")
def contexts(browser: Browser) -> Iterator[dict[str, tuple[BrowserContext, Watched]]]:
    """One per kind of window, so that the page's scripts are fetched once for each."""
    kinds: dict[str, tuple[BrowserContext, Watched]] = {}
    yield kinds
    for context, _ in kinds.values():
        context.close()


@pytest.fixture
def open_page(browser: Browser, contexts: dict[str, tuple[BrowserContext, Watched]]) -> Iterator[Callable[..., Page]]:
    """Opens a page; at the end it must have logged no error and asked nobody outside."""
    opened: list[tuple[Page, Watched]] = []

    def open_(url: str, *, width: int = 1400, height: int = 900, locale: str = "en-GB", **options: bool) -> Page:
        kind = f"{locale} {options}"
        if kind not in contexts:
            context = browser.new_context(locale=locale, reduced_motion="reduce", **options)
            contexts[kind] = context, Watched(context)
        context, watched = contexts[kind]
        page = context.new_page()
        opened.append((page, watched))
        page.set_viewport_size({"width": width, "height": height})
        page.set_default_timeout(PATIENCE)
        page.goto(url)
        page.wait_for_selector(".mv-notice")
        return page

    yield open_
    for page, watched in opened:
        page.close()
        watched.check()


@pytest.fixture
def page(open_page: Callable[..., Page], fake: FakeBackend, address: str) -> Page:
    """The page in front of the first backend."""
    return open_page(address)
