"""Cases and the session: a new picture is never mistaken for the old one, and a forgetful backend is no harm."""

import json
import time

import pytest
from fake_backend import FRAMES, png

from medical_vqa.app import cases, transcript
from medical_vqa.app.cases import View
from medical_vqa.app.client import Backend, BackendError
from medical_vqa.app.i18n import Words
from medical_vqa.app.session import Session

DICOM = bytes(128) + b"DICM"


@pytest.fixture
def backend(fake):
    return Backend(fake.address, sleep=lambda _: None)


@pytest.fixture
def session():
    return Session()


def test_a_second_upload_replaces_the_first(session, backend):
    session.take(backend, "first.png", png(96))
    cases.ask([backend], session.case, "How wide?", attention_map=False)
    session.take(backend, "second.png", png(48))
    assert session.case.turns == []
    assert cases.ask([backend], session.case, "How wide?", attention_map=False).replies[0].answer == "48 pixels"


def test_a_bad_second_upload_also_puts_the_first_away(session, backend):
    session.take(backend, "first.png", png())
    session.take(backend, "notes.txt", b"text")
    assert session.case is None
    assert (session.refused.name, session.refused.error.kind) == ("notes.txt", "not_an_image")
    assert [case.name for case in session.earlier] == ["first.png"]


def test_the_same_file_again_brings_its_conversation_back(session, backend):
    session.take(backend, "first.png", png(96))
    cases.ask([backend], session.case, "How wide?", attention_map=False)
    session.take(backend, "second.png", png(48))
    session.take(backend, "first.png", png(96))
    assert [turn.question for turn in session.case.turns] == ["How wide?"]


def test_only_the_last_few_files_are_kept(session, backend):
    for side in range(20, 32):
        session.take(backend, f"{side}.png", png(side))
    assert len(session.cases) == 8
    assert session.case.name == "31.png"


def test_large_files_are_let_go_earlier(session, backend, monkeypatch):
    monkeypatch.setattr(session, "MOST_BYTES", 2 * len(png(64)) + 20)
    for shade in range(10, 14):
        session.take(backend, f"{shade}.png", png(64, shade))
    assert [case.name for case in session.cases] == ["12.png", "13.png"]
    monkeypatch.setattr(session, "MOST_BYTES", 1)
    session.take(backend, "large.png", png(64, 99))
    assert [case.name for case in session.cases] == ["large.png"]


def test_a_backend_that_forgot_the_picture_gets_it_again(session, backend, fake):
    session.take(backend, "first.png", png(96))
    fake.images.clear()
    assert cases.ask([backend], session.case, "How wide?", attention_map=False).replies[0].answer == "96 pixels"
    assert len(fake.images) == 1


def test_a_question_that_failed_can_be_asked_again(session, backend, fake):
    session.take(backend, "first.png", png(96))
    fake.stop()
    turn = cases.ask([backend], session.case, "How wide?", attention_map=False)
    assert turn.failed
    assert isinstance(turn.replies[0], BackendError)
    fake.start()
    cases.again(session.case)
    assert (session.case.turns, session.case.pending) == ([], "How wide?")
    assert (
        cases.ask([backend], session.case, session.case.pending, attention_map=False).replies[0].answer == "96 pixels"
    )


def test_another_frame_and_window_replace_the_picture_and_delete_the_former(session, backend, fake):
    session.take(backend, "chest", DICOM)
    former = session.case.ids[backend.address]
    assert session.case.uploaded.frames == FRAMES
    cases.change_view(backend, session.case, View(frame=4, window=(-600, 1500)))
    assert session.case.uploaded.width == 68
    for _ in range(200):
        if former not in fake.images:
            break
        time.sleep(0.01)
    assert former not in fake.images
    assert cases.ask([backend], session.case, "How wide?", attention_map=False).replies[0].answer == "68 pixels"


def test_windows_are_offered_where_the_file_has_one(session, backend):
    session.take(backend, "scan.png", png())
    assert session.case.header_window is None
    session.take(backend, "chest", DICOM)
    assert session.case.header_window == (40, 400)
    (lowest, highest), (_, widest) = cases.window_bounds(session.case)
    for center, width in cases.PRESETS.values():
        assert lowest <= center <= highest
        assert width <= widest


def test_the_ends_of_the_sliders_follow_the_header_where_units_are_unknown(session, backend):
    session.take(backend, "chest", DICOM)
    session.case.uploaded = session.case.uploaded.model_copy(update={"facts": {"Modality": "MR"}})
    session.case.header_window = (900.0, 300.0)
    assert cases.window_bounds(session.case) == ((600, 1200), (1, 600))


def test_two_models_answer_side_by_side_and_one_may_fail(session, backend, fake):
    session.take(backend, "scan.png", png(96))
    absent = Backend("http://127.0.0.1:9", tries=1)
    turn = cases.ask([backend, absent], session.case, "How wide?", attention_map=False)
    assert turn.replies[0].answer == "96 pixels"
    assert turn.replies[1].kind == "unreachable"
    assert turn.failed


def test_a_question_of_several_lines_becomes_one():
    assert cases.tidy(" Is the\nliver\t healthy?\x00 ") == "Is the liver healthy?"
    assert cases.tidy("肝脏 健康吗？") == "肝脏 健康吗？"
    assert cases.tidy("\n") == ""


def test_suggestions_are_a_help_and_no_need(session, backend, monkeypatch):
    monkeypatch.setattr(backend, "questions", lambda _: (_ for _ in ()).throw(BackendError("slow", "late")))
    session.take(backend, "scan.png", png())
    assert session.case.suggestions == []


def test_a_conversation_is_kept_as_text_and_as_data(session, backend):
    session.take(backend, "scan.png", png(96))
    for question in ("How wide?", "How is the weather?"):
        cases.ask([backend], session.case, question, attention_map=True)
    text = transcript.as_markdown(session.case, Words("en"))
    assert "not for diagnosis" in text
    assert "**How wide?**\n\n- 96 pixels (Confidence 91%), fake-model\n" in text
    assert "- Not sure. This is not a question" in text
    data = json.loads(transcript.as_json(session.case))
    assert [turn["answers"][0]["abstained"] for turn in data["turns"]] == [False, True]
    assert "attention_map" not in data["turns"][0]["answers"][0]
