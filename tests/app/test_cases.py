"""Cases and the desk: a new picture is never mistaken for the old one, and a forgetful backend is no harm."""

import json
import time

import pytest
from fake_backend import FRAMES, png

from medical_vqa.app import cases, session, transcript
from medical_vqa.app.cases import View
from medical_vqa.app.client import Backend, BackendError
from medical_vqa.app.i18n import Words
from medical_vqa.app.session import Desk

DICOM = bytes(128) + b"DICM"


@pytest.fixture
def backend(fake):
    return Backend(fake.address, sleep=lambda _: None)


@pytest.fixture
def desk():
    return Desk()


def test_a_second_upload_replaces_the_first(desk, backend):
    desk.take(backend, "first.png", png(96))
    cases.ask([backend], desk.case, "How wide?", look=False)
    desk.take(backend, "second.png", png(48))
    assert desk.case.turns == []
    assert cases.ask([backend], desk.case, "How wide?", look=False).replies[0].answer == "48 pixels"


def test_a_bad_second_upload_also_puts_the_first_away(desk, backend):
    desk.take(backend, "first.png", png())
    desk.take(backend, "notes.txt", b"text")
    assert desk.case is None
    assert (desk.refused.name, desk.refused.error.kind) == ("notes.txt", "not_an_image")
    assert [case.name for case in desk.earlier] == ["first.png"]


def test_the_same_file_again_brings_its_conversation_back(desk, backend):
    desk.take(backend, "first.png", png(96))
    cases.ask([backend], desk.case, "How wide?", look=False)
    desk.take(backend, "second.png", png(48))
    desk.take(backend, "first.png", png(96))
    assert [turn.question for turn in desk.case.turns] == ["How wide?"]


def test_only_the_last_few_files_are_kept(desk, backend):
    for side in range(20, 32):
        desk.take(backend, f"{side}.png", png(side))
    assert len(desk.cases) == 8
    assert desk.case.name == "31.png"


def test_large_files_are_let_go_earlier(desk, backend, monkeypatch):
    monkeypatch.setattr(session, "MOST_BYTES", 2 * len(png(64)) + 20)
    for shade in range(10, 14):
        desk.take(backend, f"{shade}.png", png(64, shade))
    assert [case.name for case in desk.cases] == ["12.png", "13.png"]
    monkeypatch.setattr(session, "MOST_BYTES", 1)
    desk.take(backend, "large.png", png(64, 99))
    assert [case.name for case in desk.cases] == ["large.png"]


def test_a_backend_that_forgot_the_picture_gets_it_again(desk, backend, fake):
    desk.take(backend, "first.png", png(96))
    fake.images.clear()
    assert cases.ask([backend], desk.case, "How wide?", look=False).replies[0].answer == "96 pixels"
    assert len(fake.images) == 1


def test_a_question_that_failed_can_be_asked_again(desk, backend, fake):
    desk.take(backend, "first.png", png(96))
    fake.stop()
    turn = cases.ask([backend], desk.case, "How wide?", look=False)
    assert turn.failed
    assert isinstance(turn.replies[0], BackendError)
    fake.start()
    cases.again(desk.case)
    assert (desk.case.turns, desk.case.pending) == ([], "How wide?")
    assert cases.ask([backend], desk.case, desk.case.pending, look=False).replies[0].answer == "96 pixels"


def test_another_frame_and_window_replace_the_picture_and_delete_the_former(desk, backend, fake):
    desk.take(backend, "chest", DICOM)
    former = desk.case.ids[backend.address]
    assert desk.case.uploaded.frames == FRAMES
    cases.change_view(backend, desk.case, View(frame=4, window=(-600, 1500)))
    assert desk.case.uploaded.width == 68
    for _ in range(200):
        if former not in fake.images:
            break
        time.sleep(0.01)
    assert former not in fake.images
    assert cases.ask([backend], desk.case, "How wide?", look=False).replies[0].answer == "68 pixels"


def test_windows_are_offered_where_the_file_has_one(desk, backend):
    desk.take(backend, "scan.png", png())
    assert desk.case.header_window is None
    desk.take(backend, "chest", DICOM)
    assert desk.case.header_window == (40, 400)
    (lowest, highest), (_, widest) = cases.window_bounds(desk.case)
    for centre, width in cases.PRESETS.values():
        assert lowest <= centre <= highest
        assert width <= widest


def test_the_ends_of_the_sliders_follow_the_header_where_units_are_unknown(desk, backend):
    desk.take(backend, "chest", DICOM)
    desk.case.uploaded = desk.case.uploaded.model_copy(update={"facts": {"Modality": "MR"}})
    desk.case.header_window = (900.0, 300.0)
    assert cases.window_bounds(desk.case) == ((600, 1200), (1, 600))


def test_two_models_answer_side_by_side_and_one_may_fail(desk, backend, fake):
    desk.take(backend, "scan.png", png(96))
    absent = Backend("http://127.0.0.1:9", tries=1)
    turn = cases.ask([backend, absent], desk.case, "How wide?", look=False)
    assert turn.replies[0].answer == "96 pixels"
    assert turn.replies[1].kind == "unreachable"
    assert turn.failed


def test_a_question_of_several_lines_becomes_one():
    assert cases.tidy(" Is the\nliver\t healthy?\x00 ") == "Is the liver healthy?"
    assert cases.tidy("肝脏 健康吗？") == "肝脏 健康吗？"
    assert cases.tidy("\n") == ""


def test_suggestions_are_a_help_and_no_need(desk, backend, monkeypatch):
    monkeypatch.setattr(backend, "questions", lambda _: (_ for _ in ()).throw(BackendError("slow", "late")))
    desk.take(backend, "scan.png", png())
    assert desk.case.suggestions == []


def test_a_conversation_is_kept_as_text_and_as_data(desk, backend):
    desk.take(backend, "scan.png", png(96))
    for question in ("How wide?", "How is the weather?"):
        cases.ask([backend], desk.case, question, look=True)
    text = transcript.as_markdown(desk.case, Words("en"))
    assert "not for diagnosis" in text
    assert "**How wide?**\n\n- 96 pixels (Confidence 91%), fake-model\n" in text
    assert "- Not sure. This is not a question" in text
    data = json.loads(transcript.as_json(desk.case))
    assert [turn["answers"][0]["abstained"] for turn in data["turns"]] == [False, True]
    assert "look" not in data["turns"][0]["answers"][0]
