"""What a person thinks of an answer: thumbs, a correction, and whether the picture may be kept."""

from __future__ import annotations

import streamlit as st

from medical_vqa.app import feedback
from medical_vqa.app.cases import Turn
from medical_vqa.app.components import cards
from medical_vqa.app.i18n import Words
from medical_vqa.app.session import Session
from medical_vqa.app.settings import AppSettings
from medical_vqa.errors import DataError
from medical_vqa.serving.api.schema import MAX_QUESTION, Answer


def thumbs(session: Session, turn: Turn, reply: Answer, key: str, settings: AppSettings, words: Words) -> None:
    """Two buttons; the vote is written down at once."""

    def press(good: bool) -> None:
        session.thumbs[key] = good
        _vote(session, turn, reply, key, settings)

    given = session.thumbs.get(key)
    for good, word in ((True, "good"), (False, "bad")):
        st.button(
            words(word), key=f"{word}-{key}", on_click=press, args=(good,),
            icon=f":material/thumb_{'up' if good else 'down'}:", type="secondary" if given is good else "tertiary",
        )  # fmt: skip


def details(session: Session, turn: Turn, reply: Answer, key: str, settings: AppSettings, words: Words) -> None:
    """What was right, and whether the picture may be kept; both by choice."""
    if key in session.thanks and session.thanks[key] != "asked":
        st.html(cards.small(words(session.thanks[key])))
        return
    with st.form(f"form-{key}", border=False):
        right = "" if session.thumbs[key] else st.text_input(
            words("correction"), key=f"correction-{key}", placeholder=words("correction_hint"), max_chars=MAX_QUESTION
        )  # fmt: skip
        keep = st.checkbox(words("keep_picture"), key=f"keep-{key}")
        if st.form_submit_button(words("send")):
            _vote(session, turn, reply, key, settings, right=right, keep=keep, done=True)
            st.rerun()


def _vote(
    session: Session,
    turn: Turn,
    reply: Answer,
    key: str,
    settings: AppSettings,
    *,
    right: str = "",
    keep: bool = False,
    done: bool = False,
) -> None:
    if settings.feedback is None:
        return
    picture = turn.picture if keep else None
    vote = feedback.Vote(key, turn.question, reply.answer, session.thumbs[key], reply.model.name, right, picture)
    try:
        taught = feedback.record(settings.feedback, vote)
    except DataError:
        session.thanks[key] = "feedback_failed"
        return
    session.thanks[key] = ("thanks_taught" if taught else "thanks") if done else "asked"
