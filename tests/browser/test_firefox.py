"""The page in Firefox: what differs among browsers. TEST_BROWSER=firefox runs all of test_own_page.py in it.

Of those, a few need what Playwright cannot do with Debian's Firefox: downloads, folders, a theme of the system, print,
held requests.
"""

from __future__ import annotations

import firefox
import pytest
from echo_model import make_engine
from live import serving, settings
from own_page import add, answers, ask, is_local, opened, png
from playwright.sync_api import expect, sync_playwright
from waiting import TIMEOUT, drag, expect_accessible, until

pytestmark = pytest.mark.skipif(firefox.FIREFOX is None, reason="needs Firefox: apt-get install firefox-esr")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with sync_playwright() as playwright:
        started = firefox.launch(playwright, tmp_path_factory.mktemp("firefox"))
        yield started
        started.close()


@pytest.fixture(scope="module")
def url():
    with serving(make_engine(), settings(page=True)) as address:
        yield address


def test_a_picture_is_asked_about_windowed_and_kept_through_a_reload(browser, url):
    with opened(browser, url) as page:
        add(page, png())
        ask(page, "Which organ?")
        expect(answers(page)).to_have_count(1)
        expect(page.locator(".status")).to_contain_text("Window 150 / 100")
        drag(page, page.locator(".stage"), (100, 100), (160, 130))
        expect(page.locator(".status")).not_to_contain_text("Window 150 / 100")
        page.reload()
        expect(answers(page)).to_have_count(1)


@pytest.mark.parametrize("width", [1440, 390])
def test_axe_reports_nothing_serious_in_both_themes(browser, url, width):
    with opened(browser, url, width=width) as page:
        add(page, png())
        ask(page, "Which organ?")
        expect(answers(page)).to_have_count(1)
        for theme, ground in (("light", "rgb(245, 247, 248)"), ("dark", "rgb(13, 18, 21)")):
            page.get_by_label("Theme").select_option(theme)
            expect(page.locator("body")).to_have_css("background-color", ground)
            expect_accessible(page)


def test_the_description_of_the_api_is_shown_from_this_machine_alone(browser, url):
    page = browser.new_page()
    page.set_default_timeout(TIMEOUT)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"{url}/docs")
    expect(page.get_by_text("/ask_question", exact=True)).to_be_visible()
    until(page, lambda: len(requests) >= 4)
    assert all(map(is_local, requests))
    page.close()
