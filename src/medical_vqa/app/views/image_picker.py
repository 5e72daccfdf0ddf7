"""Choosing an image: upload, an example, or one from before."""

from __future__ import annotations

import streamlit as st

from medical_vqa.app.client import LASTING, Backend, BackendError
from medical_vqa.app.components import cards, overlay
from medical_vqa.app.i18n import Words
from medical_vqa.app.session import Session
from medical_vqa.serving.api.schema import ExampleImage, Examples

_TILE = 224  # pixels of an example's picture


def choose(session: Session, backend: Backend, words: Words) -> None:
    """The page without an image: what it is for, an upload field, examples."""
    with st.container(key="choose"):
        st.html(cards.hero(words))
        _refused(session, backend, words)
        _upload(session, backend, words)
        _earlier(session, words)
        _tiles(session, backend, words)


def another(session: Session, backend: Backend, words: Words) -> None:
    """The same for the page with an image, in small."""
    _upload(session, backend, words)
    _earlier(session, words)
    _tiles(session, backend, words)


def _upload(session: Session, backend: Backend, words: Words) -> None:
    most = max(1, (session.info.limits.max_upload_bytes if session.info else 1) // 2**20)
    with st.container(key="upload"):
        # No list of endings: DICOM files often have none. The backend looks at the content.
        file = st.file_uploader(words("upload"), key=f"upload-{session.uploads}", max_upload_size=most)
        st.html(cards.small(words("upload_hint", megabytes=most)))
    if file is not None:
        with st.spinner(words("opening")):
            session.take(backend, file.name, file.getvalue())
        st.rerun()


def _refused(session: Session, backend: Backend, words: Words) -> None:
    refused = session.refused
    if refused is None:
        return
    st.html(cards.refused(words, refused.name, refused.error))
    if refused.error.kind in LASTING:
        return
    if st.button(words("retry"), key="retry-upload", icon=":material/refresh:"):
        with st.spinner(words("opening")):
            session.take(backend, refused.name, refused.data, refused.suggestions)
        st.rerun()


def _earlier(session: Session, words: Words) -> None:
    for case in session.earlier:
        label = words("back_to", name=case.name)
        if st.button(label, key=f"back-{case.id}", icon=":material/undo:", type="tertiary"):
            session.open_id, session.refused, session.look_at = case.id, None, None
            st.rerun()


def _tiles(session: Session, backend: Backend, words: Words) -> None:
    """Each example is one button with its picture as background."""
    try:
        found, pictures = _examples(backend.address, session.info.id if session.info else "", backend)
    except BackendError:
        return
    if not found.examples:
        return
    st.html(_tile_style(found, pictures))
    st.html(cards.title(words("examples")))
    with st.container(horizontal=True, key="tiles"):
        for example in found.examples:
            if st.button(_caption(example), key=f"example-{example.id}"):
                with st.spinner(words("opening")):
                    _take_example(session, backend, found, example.id)
                st.rerun()
    st.html(cards.small(words("source", source=found.source)))


@st.cache_data(ttl=3600, max_entries=8, show_spinner=False)
def _examples(address: str, model: str, _backend: Backend) -> tuple[Examples, list[bytes]]:  # noqa: ARG001 - the key
    found = _backend.examples()
    return found, [overlay.thumbnail(_backend.example_file(example), side=_TILE) for example in found.examples]


def _take_example(session: Session, backend: Backend, found: Examples, example_id: str) -> None:
    example = next(example for example in found.examples if example.id == example_id)
    try:
        data = backend.example_file(example)
    except BackendError:
        data = b""  # the upload that follows says what is the matter
    session.take(backend, _caption(example), data, tuple(example.questions))


def _caption(example: ExampleImage) -> str:
    return (example.caption or example.id).replace("_", " ")


def _tile_style(found: Examples, pictures: list[bytes]) -> str:
    rules = [
        f".st-key-tiles .st-key-example-{example.id} button {{background-image:url({overlay.data_uri(picture)})}}"
        for example, picture in zip(found.examples, pictures, strict=True)
        if example.id.replace("-", "").replace("_", "").isalnum()
    ]
    return f"<style>{''.join(rules)}</style>"
