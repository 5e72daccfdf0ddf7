"""The conversation about an image: questions, answers, what to ask next, and a file of it to keep."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from medical_vqa.app import cases, transcript
from medical_vqa.app.cases import Case, Reply, Turn
from medical_vqa.app.client import Backend, BackendError
from medical_vqa.app.components import cards
from medical_vqa.app.i18n import Words
from medical_vqa.app.session import Session
from medical_vqa.app.settings import AppSettings
from medical_vqa.app.views import rating
from medical_vqa.serving.api.schema import Answer

_MOST_SUGGESTIONS = 5


def conversation(session: Session, case: Case, backends: list[Backend], settings: AppSettings, words: Words) -> None:
    """Every turn, the question that is being asked, and what to ask next."""
    for number, turn in enumerate(case.turns):
        _turn(session, case, turn, settings, words, last=number + 1 == len(case.turns))
    if case.pending is not None:
        question = case.pending
        st.html(cards.question(words, question))
        with st.spinner(words("thinking")):
            cases.ask(
                backends, case, question, attention_map=session.info is not None and session.info.has_attention_map
            )
        case.pending, session.look_at = None, None
        st.rerun()
    if not case.turns:
        _suggest(case, words)
        return
    with st.container(horizontal=True, gap="small", key="below"):  # small: the last answer must stay in view
        _suggest(case, words)
        _download(case, words)


def _turn(session: Session, case: Case, turn: Turn, settings: AppSettings, words: Words, *, last: bool) -> None:
    with st.container(key=f"turn-{turn.id}", gap="small"):
        st.html(cards.question(words, turn.question, _view_note(case, turn, words)))
        for number, (column, reply) in enumerate(zip(_side_by_side(turn), turn.replies, strict=True)):
            with column:
                _reply(session, case, turn, reply, f"{turn.id}-{number}", settings, words)
        if turn.failed and last:
            st.button(words("retry"), key="retry", on_click=cases.again, args=(case,), icon=":material/refresh:")


def _actions(
    session: Session, case: Case, turn: Turn, reply: Answer, key: str, settings: AppSettings, words: Words
) -> None:
    """Below an answer: thumbs, and where the model looked."""
    with st.container(horizontal=True, gap="small", key=f"actions-{key}"):
        if settings.feedback is not None:
            rating.thumbs(session, turn, reply, key, settings, words)
        if reply is turn.replies[0] and _can_show(session, case, turn):
            st.button(
                words("show_look"), key=f"look-{turn.id}", type="tertiary", icon=":material/center_focus_weak:",
                on_click=_look_at, args=(session, turn),
            )  # fmt: skip


def _side_by_side(turn: Turn) -> list[DeltaGenerator]:
    return list(st.columns(len(turn.replies))) if len(turn.replies) > 1 else [st.container()]


def _view_note(case: Case, turn: Turn, words: Words) -> str:
    """Which frame and window, where that is not what is looked at now."""
    if turn.view == case.view:
        return ""
    frame = (turn.view.frame or 0) + 1
    parts = [words("frame_of", number=frame, frames=case.uploaded.frames)] if case.uploaded.frames > 1 else []
    window = turn.view.window or case.header_window
    parts += [f"{words('window')} {window[0]:g} / {window[1]:g}"] if window else []
    return ", ".join(parts)


def _can_show(session: Session, case: Case, turn: Turn) -> bool:
    first = turn.replies[0]
    has_look = isinstance(first, Answer) and first.attention_map is not None
    return has_look and turn is not session.turn_looked_at() and turn.picture == case.picture


def _look_at(session: Session, turn: Turn) -> None:
    session.look_at = turn.id


def _reply(
    session: Session, case: Case, turn: Turn, reply: Reply, key: str, settings: AppSettings, words: Words
) -> None:
    if isinstance(reply, BackendError):
        st.html(cards.failure(words, reply))
        return
    st.html(cards.answer(words, reply))
    _actions(session, case, turn, reply, key, settings, words)
    if settings.feedback is not None and key in session.thumbs:
        rating.details(session, turn, reply, key, settings, words)


def _suggest(case: Case, words: Words) -> None:
    asked = {turn.question for turn in case.turns}
    left = [question for question in case.suggestions if question not in asked][:_MOST_SUGGESTIONS]
    if not left:
        return

    def choose(question: str) -> None:
        case.pending = question

    with st.container(key="suggest", gap="small", width="content" if case.turns else "stretch"):
        if case.turns:
            key = f"more-{len(case.turns)}"  # a new one for each answer, so that it closes
            place: DeltaGenerator = st.popover(
                words("suggested"), icon=":material/lightbulb:", type="tertiary", key=key
            )
        else:
            st.html(cards.title(words("suggested")))
            place = st.container(horizontal=True, gap="small")
        for number, question in enumerate(left):
            place.button(question, key=f"suggest-{number}-{case.id}", on_click=choose, args=(question,))


def _download(case: Case, words: Words) -> None:
    with (
        st.container(key="download", width="content"),
        st.popover(words("download"), icon=":material/download:", type="tertiary"),
    ):
        text, data = transcript.as_markdown(case, words), transcript.as_json(case)
        st.download_button(words("download_text"), text, "conversation.md", "text/markdown", key="as-text")
        st.download_button(words("download_data"), data, "conversation.json", "application/json", key="as-data")
