"""``medical-vqa app openai:MODEL`` in front of a real engine: upload, ask, stream, follow-up, cancel, failures."""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pytest
from ct_file import dicom
from live import PATIENCE, Instance
from own_page import add, answers, ask, opened
from playwright.sync_api import expect

sys.path.insert(0, str(Path(__file__).parents[1] / "remote"))
sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
import tiny_hub
from fake_endpoint import FakeEndpoint
from real_engine import Engine


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    engine = Engine(tiny_hub.chat(folder / "llava", "llava"), folder / "log")
    engine.start()
    yield engine
    if engine.process is not None:
        engine.kill()


@contextmanager
def page_of(model, address, **environ):
    """The page in front of a remote model, as the command line starts it."""
    options = ["--base-url", address]
    with Instance(Path(model), command="app", options=options, remote_deadline=PATIENCE, **environ) as instance:
        yield instance.url


def add_ct(page):
    """A DICOM file of three slices, which the page names by its header."""
    page.set_input_files("input[data-testid=files]", {"name": "ct.dcm", "mimeType": "", "buffer": dicom()})
    expect(page.locator(".cases li.current .name")).to_have_text("CT, ABDOMEN")
    page.wait_for_selector(".stage[data-shown]")


@pytest.fixture
def picture(tmp_path):
    """Saves a screenshot, in the folder that a variable names."""
    folder = Path(os.environ.get("TEST_SCREENSHOTS", tmp_path))
    return lambda page, name: page.screenshot(path=folder / f"remote-{name}.png")


def test_a_dicom_file_is_asked_about_and_followed_up_and_the_engine_dies_and_returns(browser, engine):
    with page_of(f"openai:{engine.model}", engine.url) as url, opened(browser, url) as page:
        add_ct(page)
        expect(page.get_by_text("remembers the last 8 questions")).to_be_visible()
        expect(page.get_by_text("does not mark where in the picture")).to_be_visible()
        ask(page, "What is shown in this scan?")
        expect(page.locator(".turn .card footer")).to_have_count(1)
        expect(page.get_by_text("No confidence is known").or_(page.locator(".abstained"))).to_have_count(1)
        ask(page, "And on the left?")
        expect(page.locator(".turn .card footer")).to_have_count(2)
        engine.kill()
        ask(page, "Is anything else visible?")
        expect(page.locator(".failed")).to_contain_text("engine gives no answer")
        engine.start()
        page.get_by_role("button", name="Ask again", exact=True).click()
        expect(page.locator(".turn .card footer")).to_have_count(3)


def test_an_answer_of_the_real_engine_is_shown_while_it_is_written_and_canceled(browser, engine, tmp_path, monkeypatch):
    named = f"models: {{tiny: {{model: {engine.model!r}, base_url: {engine.url!r}, max_tokens: 30000}}}}"
    (tmp_path / "models.yaml").write_text(named)
    monkeypatch.setenv("MEDICAL_VQA_MODELS", str(tmp_path / "models.yaml"))
    with (
        Instance(Path("tiny"), command="app", remote_deadline=PATIENCE) as instance,
        opened(browser, instance.url) as page,
    ):
        add_ct(page)
        ask(page, "What is shown in this scan?")
        expect(page.locator(".unfinished")).not_to_be_empty()
        expect(page.locator(".thinking")).to_contain_text(re.compile(r"… \d+ s"))
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator(".failed")).to_contain_text("You canceled this question")


# --- what only an engine that is told what to answer can show ---------------------------------------------------------


@contextmanager
def scripted_engine(name):
    """An engine that answers as it is told, in English; it sees pictures."""
    fake = FakeEndpoint()
    fake.models = [name]

    def answer(body):
        content = body["messages"][0]["content"]
        pictures = sum(part["type"] == "image_url" for part in content)
        return 200, fake.reply | {"usage": {"prompt_tokens": 10 + 256 * pictures, "completion_tokens": 1}}

    fake.answer = answer
    try:
        yield fake
    finally:
        fake.close()


def chest(name: str = "xmlab166") -> bytes:
    """A radiograph of the shipped sample."""
    return (files("medical_vqa") / f"assets/slake-mini/imgs/{name}/source.jpg").read_bytes()


def test_a_conversation_an_unfinished_answer_a_canceled_one_and_two_pictures(browser, picture):
    with (
        scripted_engine("medgemma-4b-it") as fake,
        page_of("openai:medgemma-4b-it", fake.url) as url,
        opened(browser, url) as page,
    ):
        add(page, chest(), "chest.jpg")
        fake.stream("The picture is ", "a radiograph of the chest.")
        ask(page, "What is shown?")
        expect(answers(page)).to_have_text(["The picture is a radiograph of the chest."])
        fake.stream("No ", "effusion on the left.")
        ask(page, "And is there an effusion on the left?")
        expect(answers(page)).to_have_count(2)
        assert [message["role"] for message in fake.asked[-1]["messages"]] == ["user", "assistant", "user"]
        picture(page, "conversation")
        fake.stream("The heart is of ", "normal size, and", endless=True)
        ask(page, "Describe the heart.")
        expect(page.locator(".unfinished")).to_contain_text("The heart is of normal size, and")
        expect(page.locator(".stage")).to_be_visible()
        expect(page.get_by_role("button", name="Cancel")).to_be_visible()
        picture(page, "streaming")
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator(".failed")).to_contain_text("You canceled this question")
        assert fake.left.wait(PATIENCE)
        fake.endless.clear()
        fake.stream("The effusion is new.")
        add(page, chest("xmlab195"), "current.jpg")
        page.locator(".together").get_by_label("chest.jpg").check()
        ask(page, "What changed since the earlier picture?")
        expect(answers(page)).to_have_text(["The effusion is new."])
        expect(page.locator(".turn .part")).to_have_text("Together with chest.jpg")
        assert [part["type"] for part in fake.asked[-1]["messages"][0]["content"]] == ["image_url", "image_url", "text"]
        picture(page, "together")


def test_a_confidence_that_is_the_agreement_of_several_answers_is_marked_so(browser, tmp_path, monkeypatch):
    with scripted_engine("m") as fake:
        settings = f"{{model: m, base_url: {fake.url!r}, logprobs: false, samples: 4}}"
        (tmp_path / "models.yaml").write_text(f"models: {{m: {settings}}}")
        monkeypatch.setenv("MEDICAL_VQA_MODELS", str(tmp_path / "models.yaml"))
        fake.say("Left lung")
        with Instance(Path("m"), command="app") as instance, opened(browser, instance.url) as page:
            add(page, chest(), "chest.jpg")
            ask(page, "Which lung is affected?")
            expect(answers(page)).to_have_text(["Left lung"])
            expect(page.locator(".facts")).to_contain_text("100 % of further answers say the same")


@pytest.mark.parametrize(
    ("name", "status", "words", "sentence"),
    [
        ("key", 401, "invalid api key", "refused the key (HTTP 401: invalid api key); set the variable OPENAI_API_KEY"),
        ("renamed", 404, "The model `m` does not exist", "has no model m; it has renamed"),
        ("context", 400, "This model's maximum context length is 2048 tokens.", "longer than m can read"),
    ],
)
def test_what_the_engine_refuses_is_one_sentence(browser, picture, name, status, words, sentence):
    with scripted_engine("renamed") as fake, page_of("openai:m", fake.url) as url, opened(browser, url) as page:
        add(page, chest(), "chest.jpg")
        fake.answer = lambda _: (status, {"error": {"message": words}})
        ask(page, "What is shown in this scan?")
        expect(page.locator(".failed")).to_contain_text(sentence)
        picture(page, name)
