"""The session: a question never goes to the former image by mistake."""

from fake_backend import png

from medical_vqa.app import session as session_module
from medical_vqa.app.case import ask


def test_a_second_upload_replaces_the_first(session, backend):
    session.open_file(backend, "first.png", png(96))
    ask([backend], session.case, "How wide?", attention_map=False)
    session.open_file(backend, "second.png", png(48))
    assert session.case.turns == []
    assert ask([backend], session.case, "How wide?", attention_map=False).replies[0].answer == "48 pixels"


def test_a_second_upload_that_fails_also_closes_the_first(session, backend):
    session.open_file(backend, "first.png", png())
    session.open_file(backend, "notes.txt", b"text")
    assert session.case is None
    assert (session.refused.name, session.refused.error.code) == ("notes.txt", "not_an_image")
    assert [case.name for case in session.earlier_cases] == ["first.png"]


def test_the_same_file_again_brings_its_conversation_back(session, backend):
    session.open_file(backend, "first.png", png(96))
    ask([backend], session.case, "How wide?", attention_map=False)
    session.open_file(backend, "second.png", png(48))
    session.open_file(backend, "first.png", png(96))
    assert [turn.question for turn in session.case.turns] == ["How wide?"]


def test_only_the_newest_files_stay(session, backend):
    for side in range(20, 32):
        session.open_file(backend, f"{side}.png", png(side))
    assert len(session.cases) == 8
    assert session.case.name == "31.png"


def test_large_files_are_removed_earlier(session, backend, monkeypatch):
    monkeypatch.setattr(session_module, "MAX_BYTES", 2 * len(png(64)) + 20)
    for shade in range(10, 14):
        session.open_file(backend, f"{shade}.png", png(64, shade))
    assert [case.name for case in session.cases] == ["12.png", "13.png"]
    monkeypatch.setattr(session_module, "MAX_BYTES", 1)
    session.open_file(backend, "large.png", png(64, 99))
    assert [case.name for case in session.cases] == ["large.png"]


def test_the_attention_map_of_the_last_turn_is_displayed_unless_another_is_selected(session, backend):
    assert session.attention_turn is None
    session.open_file(backend, "scan.png", png(96))
    first = ask([backend], session.case, "First?", attention_map=True)
    second = ask([backend], session.case, "Second?", attention_map=True)
    assert session.attention_turn is second
    session.attention_turn_id = first.id
    assert session.attention_turn is first
    session.open_file(backend, "other.png", png(48))
    assert session.attention_turn is None


def test_a_removed_case_cannot_be_opened_again(session, backend):
    session.open_file(backend, "scan.png", png(96))
    session.remove_case(session.case)
    assert session.case is None
    assert session.earlier_cases == []
