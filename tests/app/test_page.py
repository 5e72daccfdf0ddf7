"""The page's script, run without a browser."""

import pytest
from fake_backend import png
from streamlit.testing.v1 import AppTest

from medical_vqa.app import launch, settings
from medical_vqa.app.client import Backend
from medical_vqa.app.components import cards
from medical_vqa.app.i18n.texts import Texts


@pytest.fixture
def page(fake, monkeypatch, tmp_path):
    monkeypatch.setenv(settings.BACKEND, fake.address)
    monkeypatch.setenv(settings.FEEDBACK, str(tmp_path / "ratings"))
    test = AppTest.from_file(str(launch.PAGE), default_timeout=120)
    test.query_params["lang"] = "en"
    return test.run()


def html(page):
    return "".join(element.proto.body for element in page.get("html"))


def press(page, label):
    return next(button for button in page.button if button.label == label).click().run()


def test_it_starts_with_the_disclaimer_and_the_examples(page):
    assert not page.exception
    assert "not for diagnosis" in html(page)
    assert [button.label for button in page.button] == ["CT, abdomen"]


def test_an_example_is_opened_and_a_question_answered(page):
    press(page, "CT, abdomen")
    assert not page.exception
    press(page, "Which organ is this?")
    assert not page.exception
    assert '<p class="mv-answer">80 pixels</p>' in html(page)
    page.chat_input[0].set_value("How is the weather?").run()
    assert "mv-abstained" in html(page)


def test_a_question_offered_in_place_of_one_that_is_not_answered_is_one_click_away(page):
    press(page, "CT, abdomen")
    page.chat_input[0].set_value("How is the weather?").run()
    assert Texts("en")("ask_instead") in html(page)
    press(page, "Which organ is shown here?")
    assert not page.exception
    assert "<h2>Which organ is shown here?</h2>" in html(page)
    assert Texts("en")("ask_instead") not in html(page)


def test_a_rating_is_stored(page, tmp_path):
    press(page, "CT, abdomen")
    press(page, "Which organ is this?")
    press(page, "Wrong")
    page.text_input[0].set_value("Liver")
    page.checkbox[0].check()
    press(page, "Save")
    assert not page.exception
    assert '"answer": "Liver"' in (tmp_path / "ratings" / "questions.jsonl").read_text()
    assert Texts("en")("rating_saved_for_training") in html(page)


def test_chinese_is_one_click_away(page):
    page.button_group[0].set_value("zh").run()
    assert not page.exception
    assert Texts("zh")("intro_title") in html(page)


def test_while_the_backend_starts_the_page_says_so(fake, monkeypatch):
    fake.starting = True
    monkeypatch.setenv(settings.BACKEND, fake.address)
    test = AppTest.from_file(str(launch.PAGE), default_timeout=120)
    test.query_params["lang"] = "en"
    assert Texts("en")("starting") in html(test.run())


def test_deleting_closes_the_image_and_removes_it_from_every_backend(fake, other, monkeypatch):
    monkeypatch.setenv(settings.BACKEND, fake.address)
    monkeypatch.setenv(settings.COMPARE, other.address)
    page = AppTest.from_file(str(launch.PAGE), default_timeout=120)
    page.query_params["lang"] = "en"
    press(page.run(), "CT, abdomen")
    page.toggle[0].set_value(True).run()
    press(page, "Which organ is this?")
    assert (len(fake.images), len(other.images)) == (1, 1)
    press(page, "Delete now")
    assert not page.exception
    assert [button.label for button in page.button] == ["CT, abdomen"]
    fake.wait_until_deleted()
    other.wait_until_deleted()


def test_text_from_outside_is_escaped(fake):
    backend = Backend(fake.address)
    answer = backend.ask(backend.upload(png(), "x").image_id, "How wide?", attention_map=False)
    assert "&lt;b&gt;X-Ray&lt;/b&gt;" in cards.answer(Texts("en"), answer)
    assert "<script>" not in cards.question(Texts("en"), "<script>alert(1)</script>")
