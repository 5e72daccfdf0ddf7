"""Looking at an image: the viewer, frame and window, where it goes and when it is deleted."""

from __future__ import annotations

from urllib.parse import urlsplit

import streamlit as st

from medical_vqa.app import cases
from medical_vqa.app.cases import Case, Reply, View
from medical_vqa.app.client import Backend, BackendError
from medical_vqa.app.components import cards, overlay
from medical_vqa.app.components.viewer import Shown, show
from medical_vqa.app.i18n import Words
from medical_vqa.app.session import Session
from medical_vqa.serving.api.schema import Answer
from medical_vqa.text import per_cent

_HERE = {"127.0.0.1", "localhost", "::1"}


def picture(session: Session, case: Case, words: Words) -> None:
    """The picture, and over it the heat of the answer that is looked at."""
    turn = session.turn_looked_at()
    reply = turn.replies[0] if turn else None
    heat, caption = None, ""
    same = turn is not None and turn.picture == case.picture
    if turn is not None and same and isinstance(reply, Answer) and reply.attention_map is not None:
        heat = overlay.data_uri(
            overlay.heat(reply.attention_map, width=case.uploaded.width, height=case.uploaded.height)
        )
        caption = words("look_for", question=turn.question)
    show(
        Shown(
            picture=overlay.for_view(case.picture),
            width=case.uploaded.width,
            height=case.uploaded.height,
            alt=words("picture_alt", name=case.name),
            heat=heat,
            caption=caption,
            announcement=_announcement(case.turns[-1].replies[0], words) if case.turns else "",
        ),
        words,
        key="picture",
    )


def controls(case: Case, backend: Backend, words: Words) -> None:
    """Frame and window, where the file has several or any."""
    with st.container(key="controls"):
        if case.header_window and case.uploaded.facts.get("Modality") == "CT":
            _presets(case, case.header_window, words)
        with st.container(horizontal=True, key="sliders"):
            frame = _frame(case, words)
            window = _window(case, words) if case.header_window else None
    wanted = View(frame, window)
    if wanted == case.view:
        return
    try:
        with st.spinner(words("opening")):
            cases.change_view(backend, case, wanted)
    except BackendError as error:
        st.html(cards.failure(words, error))
        return
    st.rerun()


def facts(case: Case, words: Words) -> None:
    """Name, format and what the header says."""
    facts = case.uploaded.facts
    shown = [facts[key] for key in ("Modality", "BodyPartExamined", "ViewPosition") if facts.get(key)]
    size = f"{case.uploaded.width} × {case.uploaded.height}"
    st.html(cards.facts([case.name, case.uploaded.format, size, *shown]))
    if case.uploaded.burned_in:
        st.warning(words("burned_in"), icon=":material/visibility:")


def privacy(session: Session, case: Case, backend: Backend, words: Words) -> None:
    """Where the picture goes, when it is deleted, and a button for now."""
    host = urlsplit(backend.address).hostname or ""
    where = words("privacy_here") if host in _HERE else words("privacy_there", host=host)
    seconds = case.uploaded.expires_in_seconds
    until = words("deleted_never") if seconds is None else words("deleted_after", time=words.duration(seconds))
    blank = "" if words.language == "zh" else " "
    dropped = f" {words('dropped', what=', '.join(case.uploaded.dropped))}" if case.uploaded.dropped else ""
    with st.container(horizontal=True, vertical_alignment="center", key="privacy"):
        st.html(cards.small(f"{where}{blank}{until}{dropped}"))
        st.button(
            words("delete_now"), key="delete", type="tertiary", icon=":material/delete:", on_click=_delete,
            args=(session, case, backend),
        )  # fmt: skip


def _announcement(reply: Reply, words: Words) -> str:
    if isinstance(reply, BackendError):
        return words.problem(reply.kind)
    if reply.abstained:
        return words("announce_unsure", reason=reply.reason or "")
    share = per_cent(reply.confidence) if reply.confidence is not None else "–"
    said = words("announce", answer=reply.answer, confidence=share)
    if reply.attention_map is None:
        return said
    row, column = overlay.place(reply.attention_map)
    return f"{said} {words('look_place', place=words(f'place_{row}{column}'))}"


def _frame(case: Case, words: Words) -> int | None:
    frames = case.uploaded.frames
    if frames < 2:
        return case.view.frame
    first = case.view.frame if case.view.frame is not None else _first_frame(case)
    chosen = st.slider(words("frame"), 1, frames, first + 1, key=f"frame-{case.id}") - 1
    return case.view.frame if chosen == first else chosen


def _first_frame(case: Case) -> int:
    """Of a NIfTI volume the backend takes the middle slice, of anything else the first frame."""
    return case.uploaded.frames // 2 if case.uploaded.format == "NIFTI" else 0


def _window(case: Case, words: Words) -> cases.Window | None:
    """Center and width; a preset sets both."""
    header = _whole(case.header_window or (0.0, 1.0))
    centers, widths = cases.window_bounds(case)
    keys = _window_keys(case)
    for key, value in zip(keys, header, strict=True):
        st.session_state.setdefault(key, value)
    center = st.slider(words("center"), *centers, key=keys[0])
    width = st.slider(words("width"), *widths, key=keys[1])
    return None if (center, width) == header else (float(center), float(width))


def _window_keys(case: Case) -> tuple[str, str]:
    return f"center-{case.id}", f"width-{case.id}"


def _whole(window: cases.Window) -> tuple[int, int]:
    return round(window[0]), max(1, round(window[1]))


def _presets(case: Case, header: cases.Window, words: Words) -> None:
    def apply(window: cases.Window) -> None:
        for key, value in zip(_window_keys(case), _whole(window), strict=True):
            st.session_state[key] = value

    with st.container(horizontal=True, gap="small", key="presets"):
        for name, window in {"header": header, **cases.PRESETS}.items():
            label = words(f"preset_{name}")
            st.button(label, key=f"preset-{name}-{case.id}", on_click=apply, args=(window,), type="tertiary")


def _delete(session: Session, case: Case, backend: Backend) -> None:
    """Off the server and off the session, conversation and all."""
    for image_id in case.ids.values():
        backend.forget_later(image_id)
    session.cases.remove(case)
    session.open_id = None
