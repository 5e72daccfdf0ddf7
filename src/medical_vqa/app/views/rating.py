"""Rating of an answer: right or wrong, a correction, and whether the picture may be kept."""

from __future__ import annotations

import streamlit as st

from medical_vqa.app.case import Turn
from medical_vqa.app.components import cards
from medical_vqa.app.context import PageContext
from medical_vqa.app.session import RatingState
from medical_vqa.data import feedback
from medical_vqa.errors import DataError
from medical_vqa.serving.schema.answers import Answer
from medical_vqa.serving.schema.common import MAX_QUESTION


def rating_buttons(context: PageContext, turn: Turn, answer: Answer, answer_id: str) -> None:
    """Two buttons; a click is stored at once.

    Args:
        context: The page.
        turn: The turn of the answer.
        answer: The answer to rate.
        answer_id: Identifier of the answer within the session.
    """

    def rate(correct: bool) -> None:
        message = _store(context, turn, answer, answer_id, correct=correct)
        context.session.ratings[answer_id] = RatingState(correct, message if message == "rating_failed" else None)

    state = context.session.ratings.get(answer_id)
    for correct, name, icon in ((True, "rate_right", "thumb_up"), (False, "rate_wrong", "thumb_down")):
        pressed = state is not None and state.correct is correct
        st.button(
            context.texts(name),
            key=f"{name}-{answer_id}",
            on_click=rate,
            args=(correct,),
            icon=f":material/{icon}:",
            type="secondary" if pressed else "tertiary",
        )


def rating_details(context: PageContext, turn: Turn, answer: Answer, answer_id: str) -> None:
    """A form for the correction and the consent to keep the picture, both optional; afterwards the confirmation.

    Args:
        context: The page.
        turn: The turn of the answer.
        answer: The answer, which was rated.
        answer_id: Identifier of the answer within the session.
    """
    texts = context.texts
    state = context.session.ratings[answer_id]
    if state.message is not None:
        st.html(cards.small(texts(state.message)))
        return
    with st.form(f"rating-form-{answer_id}", border=False):
        correction = ""
        if not state.correct:
            correction = st.text_input(
                texts("correction"),
                key=f"correction-{answer_id}",
                placeholder=texts("correction_hint"),
                max_chars=MAX_QUESTION,
            )
        keep_picture = st.checkbox(texts("keep_picture"), key=f"keep-picture-{answer_id}")
        if st.form_submit_button(texts("save")):
            state.message = _store(
                context,
                turn,
                answer,
                answer_id,
                correct=state.correct,
                correction=correction,
                picture=turn.picture if keep_picture else None,
            )
            st.rerun()


def _store(
    context: PageContext,
    turn: Turn,
    answer: Answer,
    answer_id: str,
    *,
    correct: bool,
    correction: str = "",
    picture: bytes | None = None,
) -> str:
    """Key of the text that reports the result."""
    folder = context.settings.feedback
    if folder is None:  # then the page shows no rating buttons
        return "rating_failed"
    rating = feedback.Rating(
        id=answer_id,
        question=turn.question,
        answer=answer.answer,
        correct=correct,
        model=answer.model.name,
        correction=correction,
        picture=picture,
    )
    try:
        trainable = feedback.record(folder, rating)
    except DataError:
        return "rating_failed"
    return "rating_saved_for_training" if trainable else "rating_saved"
