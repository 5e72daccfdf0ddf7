"""Choosing an image: upload, example, or an earlier image."""

from __future__ import annotations

import streamlit as st

from medical_vqa.app.client import PERMANENT, Backend, BackendError
from medical_vqa.app.components import cards, overlay
from medical_vqa.app.context import PageContext
from medical_vqa.serving.schema.examples import ExampleImage, Examples

_TILE_SIDE = 224  # pixels


def start_page(context: PageContext) -> None:
    """The page without an image: its purpose, an upload field, earlier images, examples."""
    with st.container(key="image-picker"):
        st.html(cards.intro(context.texts))
        _refused_file(context)
        image_picker(context)


def image_picker(context: PageContext) -> None:
    """An upload field, earlier images and examples."""
    _upload_field(context)
    _earlier_images(context)
    _example_tiles(context)


def _upload_field(context: PageContext) -> None:
    session = context.session
    max_bytes = session.model.limits.max_upload_bytes if session.model else 1
    megabytes = max(1, max_bytes // 2**20)
    with st.container(key="upload"):
        # No list of file endings: DICOM files often have none, and the backend inspects the content.
        label = context.texts("upload")
        file = st.file_uploader(label, key=f"upload-{session.uploads}", max_upload_size=megabytes)
        st.html(cards.small(context.texts("upload_hint", megabytes=megabytes)))
    if file is not None:
        with st.spinner(context.texts("opening")):
            session.open_file(context.backend, file.name, file.getvalue())
        st.rerun()


def _refused_file(context: PageContext) -> None:
    refused = context.session.refused
    if refused is None:
        return
    st.html(cards.refused_file(context.texts, refused.name, refused.error))
    if refused.error.code in PERMANENT:
        return
    if st.button(context.texts("retry"), key="retry-upload", icon=":material/refresh:"):
        with st.spinner(context.texts("opening")):
            context.session.open_file(context.backend, refused.name, refused.data, refused.suggestions)
        st.rerun()


def _earlier_images(context: PageContext) -> None:
    for case in context.session.earlier_cases:
        label = context.texts("back_to", name=case.name)
        if st.button(label, key=f"back-{case.id}", icon=":material/undo:", type="tertiary"):
            context.session.close_case()
            context.session.open_id = case.id
            st.rerun()


def _example_tiles(context: PageContext) -> None:
    """Buttons with the example's picture as their background."""
    model = context.session.model
    try:
        examples, thumbnails = _load_examples(context.backend.address, model.id if model else "", context.backend)
    except BackendError:
        return
    if not examples.examples:
        return
    rules = [
        f".st-key-example-tiles .st-key-example-{example.id} button {{background-image:url({overlay.data_uri(png)})}}"
        for example, png in zip(examples.examples, thumbnails, strict=True)
        if example.id.replace("-", "").replace("_", "").isalnum()
    ]
    st.html(f"<style>{''.join(rules)}</style>")
    st.html(cards.title(context.texts("examples")))
    with st.container(horizontal=True, key="example-tiles"):
        for example in examples.examples:
            if st.button(_caption(example), key=f"example-{example.id}"):
                with st.spinner(context.texts("opening")):
                    try:
                        data = context.backend.example_file(example)
                    except BackendError:
                        data = b""  # the upload that follows reports the failure
                    context.session.open_file(context.backend, _caption(example), data, tuple(example.questions))
                st.rerun()
    st.html(cards.small(context.texts("examples_source", source=examples.source)))


@st.cache_data(ttl=3600, max_entries=8, show_spinner=False)
def _load_examples(address: str, model_id: str, _backend: Backend) -> tuple[Examples, list[bytes]]:  # noqa: ARG001 - the key
    examples = _backend.examples()
    thumbnails = [overlay.thumbnail(_backend.example_file(example), side=_TILE_SIDE) for example in examples.examples]
    return examples, thumbnails


def _caption(example: ExampleImage) -> str:
    return (example.caption or example.id).replace("_", " ")
