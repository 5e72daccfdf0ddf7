"""Cases: every question is about the displayed view, and a backend that lost the image receives it again."""

import pytest
from fake_backend import FRAMES, png

from medical_vqa.app.case import (
    CT_WINDOWS,
    View,
    ask,
    change_view,
    delete_images,
    normalize_question,
    open_case,
    retry_last_turn,
    suggestions_in,
    window_ranges,
)  # fmt: skip
from medical_vqa.app.client import Backend, BackendError

DICOM = bytes(128) + b"DICM"


@pytest.fixture
def scan(backend):
    return open_case(backend, "scan.png", png(96))


@pytest.fixture
def chest(backend):
    return open_case(backend, "chest", DICOM)


def test_a_backend_that_lost_the_image_receives_it_again(scan, backend, fake):
    fake.images.clear()
    assert ask([backend], scan, "How wide?", attention_map=False).replies[0].answer == "96 pixels"
    assert len(fake.images) == 1


def test_a_question_that_failed_can_be_repeated(scan, backend, fake):
    fake.stop()
    turn = ask([backend], scan, "How wide?", attention_map=False)
    assert turn.failed
    assert isinstance(turn.replies[0], BackendError)
    fake.start()
    retry_last_turn(scan)
    assert (scan.turns, scan.pending) == ([], "How wide?")
    assert ask([backend], scan, scan.pending, attention_map=False).replies[0].answer == "96 pixels"


def test_another_frame_and_window_replace_the_picture_and_delete_the_former(chest, backend, fake):
    former_id = chest.image_ids[backend.address]
    assert chest.uploaded.frames == FRAMES
    change_view([backend], chest, View(frame=4, window=(-600, 1500)))
    assert chest.uploaded.width == 68
    fake.wait_until_deleted(former_id)
    assert ask([backend], chest, "How wide?", attention_map=False).replies[0].answer == "68 pixels"


def test_a_changed_view_and_a_deletion_reach_the_compared_backend_too(chest, backend, fake, other):
    backends = [backend, Backend(other.address)]
    ask(backends, chest, "How wide?", attention_map=False)
    (former_id,) = other.images
    change_view(backends, chest, View(frame=4))
    other.wait_until_deleted(former_id)
    ask(backends, chest, "How wide?", attention_map=False)
    delete_images(backends, chest)
    fake.wait_until_deleted()
    other.wait_until_deleted()
    assert chest.image_ids == {}


def test_window_presets_exist_where_the_file_has_a_window(scan, chest):
    assert scan.header_window is None
    assert chest.header_window == (40, 400)
    (lowest, highest), (_, widest) = window_ranges(chest)
    for center, width in CT_WINDOWS.values():
        assert lowest <= center <= highest
        assert width <= widest


def test_the_ranges_of_the_sliders_follow_the_header_where_units_are_unknown(chest):
    chest.uploaded = chest.uploaded.model_copy(update={"header_fields": {"Modality": "MR"}})
    chest.header_window = (900.0, 300.0)
    assert window_ranges(chest) == ((600, 1200), (1, 600))


def test_two_models_answer_side_by_side_and_one_may_fail(scan, backend):
    absent = Backend("http://127.0.0.1:9", attempts=1)
    turn = ask([backend, absent], scan, "How wide?", attention_map=False)
    assert turn.replies[0].answer == "96 pixels"
    assert turn.replies[1].code == "unreachable"
    assert turn.failed


def test_a_question_of_several_lines_becomes_one():
    assert normalize_question(" Is the\nliver\t healthy?\x00 ") == "Is the liver healthy?"
    assert normalize_question("肝脏 健康吗？") == "肝脏 健康吗？"
    assert normalize_question("\n") == ""


def test_suggestions_are_in_the_language_of_the_page_and_asked_for_once(backend, monkeypatch):
    case = open_case(backend, "scan.png", png(), suggestions=["Which organ is this?"])
    assert suggestions_in(backend, case, "en") == ["Which organ is this?"]
    assert suggestions_in(backend, case, "zh") == ["图中是哪个器官？", "肝脏健康吗？"]
    monkeypatch.setattr(backend, "suggested_questions", lambda *_: pytest.fail("asked again"))
    assert suggestions_in(backend, case, "zh") == ["图中是哪个器官？", "肝脏健康吗？"]


def test_where_the_model_reads_no_chinese_suggestions_stay_english(backend, monkeypatch):
    case = open_case(backend, "scan.png", png())
    monkeypatch.setattr(backend, "suggested_questions", lambda *_: [])
    assert suggestions_in(backend, case, "zh") == case.suggestions


def test_a_case_opens_without_suggestions(backend, monkeypatch):
    def fail(_):
        raise BackendError("response_timeout", "late")

    monkeypatch.setattr(backend, "suggested_questions", fail)
    assert open_case(backend, "scan.png", png()).suggestions == []
