"""The page's script, run without a browser."""

import pytest
from fake_backend import png
from streamlit.testing.v1 import AppTest

from medical_vqa.app import launch, settings
from medical_vqa.app.client import Backend
from medical_vqa.app.components import cards
from medical_vqa.app.i18n import Words


@pytest.fixture
def page(fake, monkeypatch, tmp_path):
    monkeypatch.setenv(settings.BACKEND, fake.address)
    monkeypatch.setenv(settings.FEEDBACK, str(tmp_path / "votes"))
    test = AppTest.from_file(str(launch.PAGE), default_timeout=120)
    test.query_params["lang"] = "en"
    return test.run()


def shown(page):
    return "".join(element.proto.body for element in page.get("html"))


def press(page, label):
    return next(button for button in page.button if button.label == label).click().run()


def test_it_starts_with_the_note_and_the_examples(page):
    assert not page.exception
    assert "not for diagnosis" in shown(page)
    assert [button.label for button in page.button] == ["CT, abdomen"]


def test_an_example_is_opened_asked_about_and_answered(page):
    press(page, "CT, abdomen")
    assert not page.exception
    press(page, "Which organ is this?")
    assert not page.exception
    assert '<p class="mv-answer">80 pixels</p>' in shown(page)
    page.chat_input[0].set_value("How is the weather?").run()
    assert "mv-unsure" in shown(page)


def test_a_vote_is_written_down(page, tmp_path):
    press(page, "CT, abdomen")
    press(page, "Which organ is this?")
    press(page, "Wrong")
    page.text_input[0].set_value("Liver")
    page.checkbox[0].check()
    press(page, "Save")
    assert not page.exception
    assert '"answer": "Liver"' in (tmp_path / "votes" / "questions.jsonl").read_text()
    assert Words("en")("thanks_taught") in shown(page)


def test_chinese_is_one_click_away(page):
    page.button_group[0].set_value("zh").run()
    assert not page.exception
    assert Words("zh")("start") in shown(page)


def test_while_the_backend_sleeps_the_page_says_so(fake, monkeypatch):
    fake.asleep = True
    monkeypatch.setenv(settings.BACKEND, fake.address)
    test = AppTest.from_file(str(launch.PAGE), default_timeout=120)
    test.query_params["lang"] = "en"
    assert Words("en")("asleep") in shown(test.run())


def test_deleting_takes_the_picture_off_the_server(page, fake):
    press(page, "CT, abdomen")
    press(page, "Delete now")
    assert not page.exception
    assert [button.label for button in page.button] == ["CT, abdomen"]


def test_nothing_from_outside_becomes_part_of_the_page(fake):
    backend = Backend(fake.address)
    answer = backend.ask(backend.upload(png(), "x").image_id, "How wide?", attention_map=False)
    assert "&lt;b&gt;X-Ray&lt;/b&gt;" in cards.answer(Words("en"), answer)
    assert "<script>" not in cards.question(Words("en"), "<script>alert(1)</script>")
