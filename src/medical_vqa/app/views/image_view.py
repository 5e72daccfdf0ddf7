"""The open image: viewer, frame and window, facts, and where the image is stored."""

from __future__ import annotations

from urllib.parse import urlsplit

import streamlit as st

from medical_vqa.app.asking import Reply
from medical_vqa.app.case import CT_WINDOWS, Case, View, Window, change_view, delete_images, window_ranges
from medical_vqa.app.client import BackendError
from medical_vqa.app.components import cards, overlay
from medical_vqa.app.components.viewer import Outline, ViewerContent, show_viewer
from medical_vqa.app.context import PageContext
from medical_vqa.app.i18n.texts import Texts
from medical_vqa.serving.schema.answers import Answer
from medical_vqa.text import per_cent

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_LATERAL = {"LL", "RL", "LLD", "RLD", "LATERAL", "LAT"}
"""View positions of DICOM that show the patient from a side."""
_PICTURE_REASONS = ("constant_picture", "not_radiology_", "modality_")
"""Beginnings of the codes of reasons that lie in the picture."""
_FACTS = ("Modality", "BodyPartExamined", "ViewPosition")


def image_viewer(context: PageContext, case: Case) -> None:
    """The image with the attention map of the selected answer over it."""
    texts = context.texts
    heatmap = None
    caption = ""
    outlines: tuple[Outline, ...] = ()
    turn = context.session.attention_turn
    if turn is not None and turn.picture == case.picture:
        reply = turn.replies[0]
        if isinstance(reply, Answer) and has_heatmap(reply) and reply.attention_map is not None:
            png = overlay.heatmap(reply.attention_map, width=case.uploaded.width, height=case.uploaded.height)
            heatmap = overlay.data_uri(png)
            caption = texts("attention_caption", question=turn.question)
        if isinstance(reply, Answer) and reply.evidence:
            caption = texts("attention_caption", question=turn.question)
            outlines = tuple(
                Outline(texts.name(item.name), overlay.outline_path(item), *item.box[:2]) for item in reply.evidence
            )
    content = ViewerContent(
        picture=overlay.screen_uri(case.picture),
        width=case.uploaded.width,
        height=case.uploaded.height,
        alt=texts("image_alt", name=case.name),
        heatmap=heatmap,
        caption=caption,
        outlines=outlines,
        markers=_shows_both_sides(case),
        announcement=_announcement(case.turns[-1].replies[0], texts) if case.turns else "",
    )
    show_viewer(content, texts, key="viewer")


def _shows_both_sides(case: Case) -> bool:
    """Whether the patient's right and left are at the sides of the picture: not in lateral and sagittal views."""
    if any(isinstance(reply, Answer) and _is_about_picture(reply) for turn in case.turns for reply in turn.replies):
        return False  # no radiology picture, or of a modality that is not shown so
    lateral = case.uploaded.header_fields.get("ViewPosition", "") in _LATERAL
    return not lateral and getattr(case.uploaded, "plane", None) != "sagittal"


def has_heatmap(reply: Answer) -> bool:
    """Whether the attention map of a reply is shown: an outline says it better, and of an answer that is withheld it
    would suggest that the model saw something."""
    return reply.attention_map is not None and not reply.abstained and not reply.evidence


def _is_about_picture(reply: Answer) -> bool:
    """Whether the model abstains because of the picture, whatever is asked."""
    return reply.abstained and (reply.reason_code or "").startswith(_PICTURE_REASONS)


def view_controls(context: PageContext, case: Case) -> None:
    """Controls for frame and window, where the file has several frames or a window; a change uploads the new view."""
    with st.container(key="view-controls"):
        if case.header_window is not None and case.uploaded.header_fields.get("Modality") == "CT":
            _window_presets(case, case.header_window, context.texts)
        with st.container(horizontal=True, key="sliders"):
            frame = _frame_slider(case, context.texts)
            window = _window_sliders(case, case.header_window, context.texts) if case.header_window else None
    view = View(frame, window)
    if view == case.view:
        return
    try:
        with st.spinner(context.texts("opening")):
            change_view(context.backends, case, view)
    except BackendError as error:
        st.html(cards.failure(context.texts, error))
        return
    st.rerun()


def image_facts(context: PageContext, case: Case) -> None:
    """Name, format, size and facts from the file's header."""
    facts = case.uploaded.header_fields
    size = f"{case.uploaded.width} × {case.uploaded.height}"
    st.html(cards.facts([case.name, case.uploaded.format, size, *(facts.get(name, "") for name in _FACTS)]))
    if case.uploaded.burned_in_annotation:
        st.warning(context.texts("burned_in"), icon=":material/visibility:")


def privacy_note(context: PageContext, case: Case) -> None:
    """Where the image is stored, when it is deleted, and a button that deletes it at once."""
    texts = context.texts
    host = urlsplit(context.backend.address).hostname or ""
    location = texts("stored_locally") if host in _LOOPBACK else texts("sent_to_host", host=host)
    seconds = case.uploaded.expires_in_seconds
    expiry = texts("deleted_never") if seconds is None else texts("deleted_after", time=texts.duration(seconds))
    note = location + ("" if texts.language == "zh" else " ") + expiry
    if case.uploaded.removed_metadata:
        note += " " + texts("not_stored", parts=", ".join(case.uploaded.removed_metadata))

    def delete() -> None:
        delete_images(context.backends, case)
        context.session.remove_case(case)

    with st.container(horizontal=True, vertical_alignment="center", key="privacy"):
        st.html(cards.small(note))
        st.button(texts("delete_now"), key="delete", type="tertiary", icon=":material/delete:", on_click=delete)


def _announcement(reply: Reply, texts: Texts) -> str:
    """The last reply as a sentence for screen readers."""
    if isinstance(reply, BackendError):
        return texts.failure(reply.code)
    if reply.abstained:
        reason = texts.reason(reply.reason_code, reply.reason_arguments, reply.reason)
        return texts("announce_abstained", title=texts.abstained(reply.reason_code), reason=reason)
    confidence = "–" if reply.confidence is None else per_cent(reply.confidence)
    sentence = texts("announce_answer", answer=reply.answer, confidence=confidence)
    if reply.attention_map is None:
        return sentence
    row, column = overlay.strongest_region(reply.attention_map)
    return f"{sentence} {texts('attention_region', region=texts(f'region_{row}{column}'))}"


def _frame_slider(case: Case, texts: Texts) -> int | None:
    frames = case.uploaded.frames
    if frames < 2:
        return case.view.frame
    displayed = case.view.frame
    if displayed is None:  # the backend's choice: the middle slice of a NIfTI volume, else the first frame
        displayed = frames // 2 if case.uploaded.format == "NIFTI" else 0
    frame = st.slider(texts("frame"), 1, frames, displayed + 1, key=f"frame-{case.id}") - 1
    return case.view.frame if frame == displayed else frame


def _window_sliders(case: Case, header_window: Window, texts: Texts) -> Window | None:
    header = _rounded(header_window)
    keys = _window_keys(case)
    for key, value in zip(keys, header, strict=True):
        st.session_state.setdefault(key, value)
    center_range, width_range = window_ranges(case)
    center = st.slider(texts("window_center"), *center_range, key=keys[0])
    width = st.slider(texts("window_width"), *width_range, key=keys[1])
    return None if (center, width) == header else (float(center), float(width))


def _window_presets(case: Case, header_window: Window, texts: Texts) -> None:
    def apply(window: Window) -> None:
        for key, value in zip(_window_keys(case), _rounded(window), strict=True):
            st.session_state[key] = value

    with st.container(horizontal=True, gap="small", key="presets"):
        for name, window in {"header": header_window, **CT_WINDOWS}.items():
            label = texts(f"preset_{name}")
            st.button(label, key=f"preset-{name}-{case.id}", on_click=apply, args=(window,), type="tertiary")


def _window_keys(case: Case) -> tuple[str, str]:
    """Keys of the sliders for center and width."""
    return f"window-center-{case.id}", f"window-width-{case.id}"


def _rounded(window: Window) -> tuple[int, int]:
    """Center and width as the sliders' integers."""
    return round(window[0]), max(1, round(window[1]))
