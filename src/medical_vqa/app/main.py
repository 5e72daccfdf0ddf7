"""The page, a Streamlit script started by ``medical-vqa app``."""

from __future__ import annotations

import json
import os

import streamlit as st
from PIL import Image, ImageDraw
from streamlit.errors import StreamlitSecretNotFoundError

from medical_vqa.app.case import Case, normalize_question
from medical_vqa.app.client import Backend, BackendError
from medical_vqa.app.components import cards
from medical_vqa.app.components.assets import read_asset
from medical_vqa.app.context import PageContext
from medical_vqa.app.i18n.texts import LANGUAGES, Language, Texts, language_of
from medical_vqa.app.session import Session
from medical_vqa.app.settings import AppSettings, read_app_settings
from medical_vqa.app.views import conversation, image_picker, image_view
from medical_vqa.serving.schema.common import MAX_QUESTION

_POLL_SECONDS = 2.0  # between two checks whether the backend is ready
_SLOW_CHECKS = 30  # checks after which the page says that something may be wrong


def page() -> None:
    """One run of the script."""
    st.set_page_config(page_title="Medical-VQA", page_icon=_icon(), layout="wide")
    st.html(f"<style>{read_asset('page.css')}</style>")
    try:
        secrets = st.secrets.to_dict()
    except StreamlitSecretNotFoundError:
        secrets = {}
    settings = read_app_settings(os.environ, secrets)
    addresses = [settings.backend, *([settings.compare] if settings.compare else [])]
    backends = tuple(_backend(address, settings.api_key) for address in addresses)
    session: Session = st.session_state.setdefault("session", Session())
    context = _header(session, backends, settings)
    if session.model is None:
        _wait_for_backend(context)
    elif session.case is None:
        image_picker.start_page(context)
    else:
        _workspace(context, session.case)


@st.cache_resource(show_spinner=False)
def _icon() -> Image.Image:
    """Drawn here, because Streamlit loads its named icons from another host."""
    image = Image.new("RGBA", (64, 64))
    draw = ImageDraw.Draw(image)
    for radius, color in ((30, "#bfe0e6"), (22, "#0b6e83"), (10, "#f5f7f8")):
        draw.ellipse((32 - radius, 32 - radius, 32 + radius, 32 + radius), fill=color)
    return image


@st.cache_resource(show_spinner=False)
def _backend(address: str, api_key: str) -> Backend:
    return Backend(address, api_key=api_key)


def _header(session: Session, backends: tuple[Backend, ...], settings: AppSettings) -> PageContext:
    """Brand, model, disclaimer, language, and with an open image the popover for another one.

    Requests the model's card where it is not known yet, and returns the context for the rest of the page.
    """
    if session.model is None and backends[0].ready():
        try:
            session.model = backends[0].model()
        except BackendError:
            session.model = None
    with st.container(horizontal=True, vertical_alignment="center", key="header"):
        with st.container(width="stretch", key="brand"):
            st.html(cards.brand(session.model.name if session.model else None))
        disclaimer = st.container(width="content", key="disclaimer")
        new_image = st.container(width="content", key="new-image")
        texts = Texts(_language_control())
    context = PageContext(session, backends, settings, texts)
    disclaimer.html(cards.disclaimer(texts))
    # CSS variables with which the style sheet replaces the English texts of Streamlit's upload field
    browse, drop = (json.dumps(texts(key), ensure_ascii=False) for key in ("upload_browse", "upload_drop"))
    st.html(f"<style>:root {{ --mv-upload-browse: {browse}; --mv-upload-drop: {drop}; }}</style>")
    if session.model is not None and session.case is not None:
        # A new key for each file: a popover that keeps its key stays open over the image that was chosen in it.
        key = f"new-image-{session.uploads}-{session.open_id}"
        with new_image, st.popover(texts("new_image"), icon=":material/add_photo_alternate:", key=key):
            image_picker.image_picker(context)
    return context


def _language_control() -> Language:
    if "language" not in st.session_state:
        requested = st.query_params.get("lang")
        st.session_state["language"] = requested if requested in LANGUAGES else language_of(st.context.locale)
    label = Texts(st.session_state["language"] or "en")("language")
    language = st.segmented_control(
        label,
        list(LANGUAGES),
        format_func=lambda code: LANGUAGES[code],
        key="language",
        label_visibility="collapsed",
        required=True,
        width="content",
    )
    return language or "en"


def _wait_for_backend(context: PageContext) -> None:
    """Check every few seconds and continue as soon as the backend is ready."""

    @st.fragment(run_every=_POLL_SECONDS)
    def check() -> None:
        if context.backend.ready():
            st.session_state.pop("readiness_checks", None)
            st.rerun()
        checks = st.session_state.get("readiness_checks", 0) + 1
        st.session_state["readiness_checks"] = checks
        st.html(cards.starting(context.texts, context.backend.address, slow=checks > _SLOW_CHECKS))

    check()


def _workspace(context: PageContext, case: Case) -> None:
    """The open image on the left, its conversation on the right."""
    question = normalize_question(st.chat_input(context.texts("ask_hint"), key="ask", max_chars=MAX_QUESTION) or "")
    if question:
        case.pending = question
    with st.container(key="workspace"):
        left, right = st.columns([1.15, 1], gap="large")
    with left, st.container(key="image-column"):
        viewer = st.container(key="viewer-frame")
        image_view.view_controls(context, case)
        image_view.image_facts(context, case)
        image_view.privacy_note(context, case)
    with right, st.container(key="conversation"):
        conversation.conversation(context, case)
    with viewer:
        image_view.image_viewer(context, case)


if __name__ == "__main__":
    page()
