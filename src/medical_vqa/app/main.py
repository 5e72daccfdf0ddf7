"""The page, run by Streamlit: choose an image, look at it, ask; ``medical-vqa app`` starts it."""

from __future__ import annotations

import json
import os

import streamlit as st
from PIL import Image, ImageDraw
from streamlit.errors import StreamlitSecretNotFoundError

from medical_vqa.app import cases
from medical_vqa.app.cases import Case
from medical_vqa.app.client import Backend, BackendError
from medical_vqa.app.components import cards
from medical_vqa.app.components.viewer import asset
from medical_vqa.app.i18n import LANGUAGES, Language, Words, language_of
from medical_vqa.app.session import Session
from medical_vqa.app.settings import AppSettings, read_app_settings
from medical_vqa.app.views import conversation, image_picker, image_view
from medical_vqa.serving.api.schema import MAX_QUESTION

_POLL = 2.0  # seconds between two looks at a sleeping backend
_LONG = 30  # looks after which the page says that something may be wrong


def page() -> None:
    """One run of the script."""
    st.set_page_config(page_title="Medical-VQA", page_icon=_icon(), layout="wide")
    st.html(f"<style>{asset('style.css')}</style>")
    settings = _settings()
    backend = _backend(settings.backend, settings.api_key)
    session: Session = st.session_state.setdefault("session", Session())
    words = _top(session, backend)
    if session.info is None:
        _asleep(backend, words)
    elif session.case is None:
        image_picker.choose(session, backend, words)
    else:
        _work(session, session.case, backend, settings, words)


def _work(session: Session, case: Case, backend: Backend, settings: AppSettings, words: Words) -> None:
    asked = st.chat_input(words("ask_hint"), key="ask", max_chars=MAX_QUESTION)
    if asked and (question := cases.tidy(asked)):
        case.pending = question
    with st.container(key="work"):
        left, right = st.columns([1.15, 1], gap="large")
    with left, st.container(key="image-column"):
        picture = st.container(key="viewer")
        image_view.controls(case, backend, words)
        image_view.facts(case, words)
        image_view.privacy(session, case, backend, words)
    with right, st.container(key="talk"):
        others = _compared(settings, words)
        conversation.conversation(session, case, [backend, *others], settings, words)
    with picture:
        image_view.picture(session, case, words)


def _settings() -> AppSettings:
    try:
        secrets = st.secrets.to_dict()
    except StreamlitSecretNotFoundError:
        secrets = {}
    return read_app_settings(os.environ, secrets)


@st.cache_resource(show_spinner=False)
def _icon() -> Image.Image:
    """Drawn here: Streamlit fetches the icons that it has names for from another host."""
    image = Image.new("RGBA", (64, 64))
    draw = ImageDraw.Draw(image)
    for radius, color in ((30, "#bfe0e6"), (22, "#0b6e83"), (10, "#f5f7f8")):
        draw.ellipse((32 - radius, 32 - radius, 32 + radius, 32 + radius), fill=color)
    return image


@st.cache_resource(show_spinner=False)
def _backend(address: str, api_key: str) -> Backend:
    return Backend(address, api_key=api_key)


def _top(session: Session, backend: Backend) -> Words:
    """Name, model, another image, language; learns the model's card where it is not known yet."""
    if session.info is None and backend.ready():
        try:
            session.info = backend.model()
        except BackendError:
            session.info = None
    with st.container(horizontal=True, vertical_alignment="center", key="top"):
        with st.container(width="stretch", key="brand"):
            st.html(cards.header(session.info.name if session.info else None))
        note = st.container(width="content", key="note")
        place = st.container(width="content", key="another")
        words = Words(_language())
    note.html(cards.notice(words))
    st.html(f"<style>{_texts_in_style(words)}</style>")
    if session.info is not None and session.case is not None:
        # A new key for each file: a popover that keeps its key stays open over the picture that was chosen in it.
        key = f"another-{session.uploads}-{session.open_id}"
        with place, st.popover(words("new_image"), icon=":material/add_photo_alternate:", key=key):
            image_picker.another(session, backend, words)
    return words


def _language() -> Language:
    if "language" not in st.session_state:
        asked = st.query_params.get("lang")
        st.session_state["language"] = asked if asked in LANGUAGES else language_of(st.context.locale)
    label = Words(st.session_state["language"] or "en")("language")
    chosen = st.segmented_control(
        label,
        list(LANGUAGES),
        format_func=lambda code: LANGUAGES[code],
        key="language",
        label_visibility="collapsed",
        required=True,
        width="content",
    )
    return chosen or "en"


def _texts_in_style(words: Words) -> str:
    """Streamlit's upload field speaks English only; the style sheet puts these in the place of its words."""
    texts = {"browse": words("browse"), "drop": words("drop")}
    return (
        ":root{" + "".join(f"--mv-{name}:{json.dumps(text, ensure_ascii=False)};" for name, text in texts.items()) + "}"
    )


def _asleep(backend: Backend, words: Words) -> None:
    """Look again every few seconds, and go on by itself."""

    @st.fragment(run_every=_POLL)
    def wait() -> None:
        if backend.ready():
            st.session_state.pop("status-checks", None)
            st.rerun()
        checks = st.session_state["status-checks"] = st.session_state.get("status-checks", 0) + 1
        st.html(cards.asleep(words, backend.address, long=checks > _LONG))

    wait()


def _compared(settings: AppSettings, words: Words) -> list[Backend]:
    """The second backend, where there is one and it is wanted."""
    if settings.compare is None:
        return []
    other = _backend(settings.compare, settings.api_key)
    try:
        name = _name(other.address, other)
    except BackendError:
        return []
    return [other] if st.toggle(words("compare", model=name), key="compare") else []


@st.cache_data(ttl=60, max_entries=8, show_spinner=False)
def _name(address: str, _backend: Backend) -> str:  # noqa: ARG001 - the key
    return _backend.model().name


if __name__ == "__main__":
    page()
