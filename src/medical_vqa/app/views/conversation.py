"""The conversation about an image: questions, answers, suggestions, and the download."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from medical_vqa.app import transcript
from medical_vqa.app.asking import Asking, Reply
from medical_vqa.app.case import Case, Turn, finish_asking, retry_last_turn, start_asking, suggestions_in
from medical_vqa.app.client import Backend, BackendError
from medical_vqa.app.components import cards
from medical_vqa.app.context import PageContext
from medical_vqa.app.i18n.texts import Texts
from medical_vqa.app.views import image_view, rating
from medical_vqa.serving.schema.answers import Answer
from medical_vqa.serving.schema.models import ModelInfo
from medical_vqa.text import is_chinese

_MAX_SUGGESTIONS = 5
_FAST_SECONDS = 0.4  # a model that answers within this time needs no progress
_POLL_SECONDS = 0.4


def conversation(context: PageContext, case: Case) -> None:
    """Every turn, the question that waits for its answer, and what can follow."""
    backends = [context.backend, *_compared_backends(context)]
    for turn in case.turns:
        _show_turn(context, case, turn)
    if case.pending is not None and case.asking is None:
        case.asking = _start(context, backends, case, case.pending)
        case.pending = None
    if case.asking is not None:
        _await_answer(context, case, case.asking)
        return
    _note_about_memory(context, case)
    _choose_other_images(context, case)
    if not case.turns:
        _show_suggestions(context, case)
        return
    # A small gap, because the last answer must stay in view.
    with st.container(horizontal=True, gap="small", key="conversation-footer"):
        _show_suggestions(context, case)
        _show_download(case, context.texts)


def _start(context: PageContext, backends: list[Backend], case: Case, question: str) -> Asking:
    model = context.session.model
    models = [model, *[_model_info(backend.address, backend) for backend in backends[1:]]]
    attention_map = model is not None and model.has_attention_map
    return start_asking(backends, case, question, models=models, attention_map=attention_map)


def _await_answer(context: PageContext, case: Case, asking: Asking) -> None:
    """The question, what is written so far, the time, and a button to cancel; ends with a run of the whole page."""
    texts = context.texts

    def finish() -> None:
        finish_asking(case, asking)
        context.session.attention_turn_id = None
        st.rerun()

    st.html(cards.question(texts, asking.question))
    if asking.wait(_FAST_SECONDS):
        finish()

    @st.fragment(run_every=_POLL_SECONDS)
    def show() -> None:
        if asking.wait(0):
            finish()
        columns = st.columns(len(asking.texts)) if len(asking.texts) > 1 else [st.container()]
        for column, text in zip(columns, asking.texts, strict=True):
            column.html(cards.unfinished(texts, text))
        with st.container(horizontal=True, gap="small", vertical_alignment="center", key="answering"):
            st.html(cards.small(texts("answering_seconds", seconds=f"{asking.seconds:.0f}")))
            st.button(texts("cancel"), key="cancel", icon=":material/stop_circle:", on_click=asking.cancel)

    show()


def _choose_other_images(context: PageContext, case: Case) -> None:
    """Earlier images that are sent with the next question, for a model that takes several."""
    model, earlier = context.session.model, context.session.earlier_cases
    if model is None or model.max_pictures < 2 or not earlier:
        case.others = []
        return
    names = {other.id: other.name for other in earlier}
    selected = st.multiselect(
        context.texts("other_images"),
        list(names),
        default=[other.id for other in case.others if other.id in names],
        format_func=lambda other_id: names[other_id],
        max_selections=model.max_pictures - 1,
        key=f"others-{case.id}",
    )
    case.others = [other for other in earlier if other.id in selected]


def _note_about_memory(context: PageContext, case: Case) -> None:
    model = context.session.model
    if model is not None and case.turns:
        name = "remembers" if model.max_turns else "forgets"
        st.html(cards.small(context.texts(name, turns=model.max_turns)))
        if not model.has_attention_map:
            st.html(cards.small(context.texts("no_attention_map")))


def _compared_backends(context: PageContext) -> list[Backend]:
    """The backends for comparison that respond and are switched on."""
    switched_on = []
    for backend in context.backends[1:]:
        try:
            model_name = _model_info(backend.address, backend).name
        except BackendError:
            continue
        if st.toggle(context.texts("compare", model=model_name), key="compare"):
            switched_on.append(backend)
    return switched_on


@st.cache_data(ttl=60, max_entries=8, show_spinner=False)
def _model_info(address: str, _backend: Backend) -> ModelInfo:  # noqa: ARG001 - the key
    return _backend.model()


def _show_turn(context: PageContext, case: Case, turn: Turn) -> None:
    texts = context.texts
    with st.container(key=f"turn-{turn.id}", gap="small"):
        note = "" if turn.view == case.view and not turn.other_names else _describe_view(case, turn, texts)
        st.html(cards.question(texts, turn.question, note))
        columns = st.columns(len(turn.replies)) if len(turn.replies) > 1 else [st.container()]
        for number, (column, reply) in enumerate(zip(columns, turn.replies, strict=True)):
            with column:
                _show_reply(context, case, turn, reply, f"{turn.id}-{number}")
        if turn.failed and turn is case.turns[-1]:
            icon = ":material/refresh:"
            st.button(texts("retry"), key="retry", on_click=retry_last_turn, args=(case,), icon=icon)


def _describe_view(case: Case, turn: Turn, texts: Texts) -> str:
    """Frame and window of a turn."""
    parts = []
    if case.uploaded.frames > 1:
        parts.append(texts("frame_of", number=(turn.view.frame or 0) + 1, frames=case.uploaded.frames))
    window = turn.view.window or case.header_window
    if window:
        parts.append(f"{texts('window')} {window[0]:g} / {window[1]:g}")
    if turn.other_names:
        parts.append(texts("with_images", names=", ".join(turn.other_names)))
    return ", ".join(parts)


def _show_reply(context: PageContext, case: Case, turn: Turn, reply: Reply, answer_id: str) -> None:
    """A reply, and below an answer its rating and the button that displays its attention map."""
    texts = context.texts
    if isinstance(reply, BackendError):
        st.html(cards.failure(texts, reply))
        return

    def show_attention_map() -> None:
        context.session.attention_turn_id = turn.id

    st.html(cards.answer(texts, reply))
    if reply.abstained and reply.suggestions and turn is case.turns[-1]:
        _show_suggestions_instead(context, case, reply, answer_id)
    with st.container(horizontal=True, gap="small", key=f"actions-{answer_id}"):
        if context.settings.feedback is not None:
            rating.rating_buttons(context, turn, reply, answer_id)
        if reply is turn.replies[0] and _attention_map_is_available(context, case, turn):
            st.button(
                texts("attention_show"),
                key=f"attention-{turn.id}",
                type="tertiary",
                icon=":material/center_focus_weak:",
                on_click=show_attention_map,
            )
    if context.settings.feedback is not None and answer_id in context.session.ratings:
        rating.rating_details(context, turn, reply, answer_id)


def _show_suggestions_instead(context: PageContext, case: Case, reply: Answer, answer_id: str) -> None:
    """Buttons that ask a question near in meaning, which the model answers, in the page's language.

    The backend's are in the language of the question that was asked; where that is not the page's, the suggestions for
    this image take their place.
    """
    questions = list(reply.suggestions)
    if context.texts.language == "zh" and not any(map(is_chinese, questions)):
        asked_before = {turn.question for turn in case.turns}
        questions = [q for q in suggestions_in(context.backend, case, "zh") if q not in asked_before][: len(questions)]

    def select(question: str) -> None:
        case.pending = question

    with st.container(horizontal=True, gap="small", key=f"instead-{answer_id}"):
        st.html(cards.small(context.texts("ask_instead")))
        for number, question in enumerate(questions):
            st.button(question, key=f"instead-{answer_id}-{number}", on_click=select, args=(question,))


def _attention_map_is_available(context: PageContext, case: Case, turn: Turn) -> bool:
    """Whether the turn has an attention map of the displayed view that is not displayed already."""
    reply = turn.replies[0]
    if not isinstance(reply, Answer) or not (reply.evidence or image_view.has_heatmap(reply)):
        return False
    return turn is not context.session.attention_turn and turn.picture == case.picture


def _show_suggestions(context: PageContext, case: Case) -> None:
    texts = context.texts
    asked_before = {turn.question for turn in case.turns}
    questions = [q for q in suggestions_in(context.backend, case, texts.language) if q not in asked_before][
        :_MAX_SUGGESTIONS
    ]
    if not questions:
        return

    def select(question: str) -> None:
        case.pending = question

    with st.container(key="suggestions", gap="small", width="content" if case.turns else "stretch"):
        if case.turns:
            key = f"suggestions-{len(case.turns)}"  # a new key after each answer closes the popover
            label = texts("suggestions")
            container: DeltaGenerator = st.popover(label, icon=":material/lightbulb:", type="tertiary", key=key)
        else:
            st.html(cards.title(texts("suggestions")))
            container = st.container(horizontal=True, gap="small")
        for number, question in enumerate(questions):
            container.button(question, key=f"suggestion-{number}-{case.id}", on_click=select, args=(question,))


def _show_download(case: Case, texts: Texts) -> None:
    with (
        st.container(key="download", width="content"),
        st.popover(texts("download"), icon=":material/download:", type="tertiary"),
    ):
        markdown = transcript.as_markdown(case, texts)
        st.download_button(texts("download_markdown"), markdown, "conversation.md", "text/markdown", key="as-markdown")
        content = transcript.as_json(case)
        st.download_button(texts("download_json"), content, "conversation.json", "application/json", key="as-json")
