"""``medical-vqa app openai:MODEL`` in front of a real engine: upload, ask, stream, follow-up, cancel, failures."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from ct_file import dicom
from page_process import PageProcess
from playwright.sync_api import expect

sys.path.insert(0, str(Path(__file__).parents[1] / "remote"))
sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
import tiny_hub
from fake_endpoint import FakeEndpoint
from real_engine import Engine

TIMEOUT = 60_000  # milliseconds


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    engine = Engine(tiny_hub.chat(folder / "llava", "llava"), folder / "log")
    engine.start()
    yield engine
    if engine.process is not None:
        engine.kill()


@pytest.fixture(scope="module")
def address(engine, browser, tmp_path_factory):
    options = [f"openai:{engine.model}", "--base-url", engine.url]
    with PageProcess(options, tmp_path_factory.mktemp("page")) as url:
        yield url


@pytest.fixture
def picture(page_of, tmp_path):
    """Saves a screenshot, in the folder that a variable names."""
    folder = Path(os.environ.get("TEST_SCREENSHOTS", tmp_path))
    return lambda page, name: page.screenshot(path=folder / f"remote-{name}.png")


@pytest.fixture
def page_of(open_page):
    def open_with_file(address):
        page = open_page(address)
        page.set_input_files("input[type=file]", {"name": "chest", "mimeType": "", "buffer": dicom()})
        expect(page.locator(".mv-facts")).to_contain_text("ABDOMEN")
        return page

    return open_with_file


def ask(page, question: str) -> None:
    field = page.get_by_role("textbox").last
    field.fill(question)
    field.press("Enter")


def test_a_dicom_file_is_asked_about_and_followed_up_and_the_engine_dies_and_returns(page_of, address, engine, picture):
    page = page_of(address)
    ask(page, "What is shown in this scan?")
    expect(page.locator(".mv-footer")).to_have_count(1, timeout=TIMEOUT)
    expect(page.get_by_text("remembers the last 8 questions")).to_be_visible()
    expect(page.get_by_text("no map of where it looked")).to_be_visible()
    expect(page.locator(".mv-card", has_text="gives no confidence").or_(page.locator(".mv-abstained"))).to_have_count(1)
    ask(page, "And on the left?")
    expect(page.locator(".mv-footer")).to_have_count(2, timeout=TIMEOUT)
    picture(page, "conversation")
    engine.kill()
    ask(page, "Is anything else visible?")
    expect(page.locator(".mv-failed")).to_contain_text("engine gives no answer", timeout=TIMEOUT)
    picture(page, "engine-down")
    engine.start()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".mv-failed")).to_have_count(0)
    expect(page.locator(".mv-footer")).to_have_count(3, timeout=TIMEOUT)


def slow_endpoint(name: str, **models) -> FakeEndpoint:
    fake = FakeEndpoint()
    fake.models = [name]

    def answer(body):
        content = body["messages"][0]["content"]
        pictures = sum(part["type"] == "image_url" for part in content)
        return 200, fake.reply | {"usage": {"prompt_tokens": 10 + 256 * pictures, "completion_tokens": 1}}

    fake.answer = answer
    return fake


def test_a_slow_answer_is_shown_while_it_is_written_and_canceled(page_of, picture, tmp_path):
    fake = slow_endpoint("m")
    with PageProcess(["openai:m", "--base-url", fake.url], tmp_path) as address:
        page = page_of(address)
        fake.stream("The left ", "lung is ", endless=True)
        ask(page, "What is shown in this scan?")
        expect(page.locator(".mv-unfinished")).to_contain_text("The left lung is")
        expect(page.get_by_text(re.compile(r"^\d+ s$"))).to_be_visible()
        expect(page.locator("img.picture")).to_be_visible()
        picture(page, "streaming")
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator(".mv-failed")).to_contain_text("You canceled this question")
        assert fake.left.wait(60)
        picture(page, "canceled")
        page.close()
    fake.close()


@pytest.mark.parametrize(
    ("status", "words", "sentence"),
    [
        (401, "invalid api key", "refused the key"),
        (404, "The model `m` does not exist", "has no model m; it has renamed"),
    ],
)
def test_a_missing_key_and_a_renamed_model_are_one_sentence(page_of, picture, tmp_path, status, words, sentence):
    fake = slow_endpoint("renamed")
    with PageProcess(["openai:m", "--base-url", fake.url], tmp_path) as address:
        page = page_of(address)
        fake.answer = lambda _: (status, {"error": {"message": words}})
        ask(page, "What is shown in this scan?")
        expect(page.locator(".mv-failed")).to_contain_text(sentence)
        picture(page, f"status-{status}")
        page.close()
    fake.close()
