"""The page, run by Streamlit: choose an image, look at it, ask; ``medical-vqa app`` starts it."""

from __future__ import annotations

import json
import os
from urllib.parse import urlsplit

import streamlit as st
from PIL import Image, ImageDraw
from streamlit.errors import StreamlitSecretNotFoundError

from medical_vqa.app import cards, cases, feedback, overlay, transcript
from medical_vqa.app.cases import Case, Reply, Turn, View
from medical_vqa.app.client import Backend, BackendError
from medical_vqa.app.desk import Desk
from medical_vqa.app.settings import AppSettings, read_app_settings
from medical_vqa.app.viewer import Shown, asset, show
from medical_vqa.app.words import LANGUAGES, Language, Words, language_of
from medical_vqa.errors import DataError
from medical_vqa.serving.schema import MAX_QUESTION, Answer, ExampleImage, Examples
from medical_vqa.text import per_cent

_TILE = 224  # pixels of an example's picture
_MOST_SUGGESTIONS = 5
_POLL = 2.0  # seconds between two looks at a sleeping backend
_LONG = 30  # looks after which the page says that something may be wrong
_HERE = {"127.0.0.1", "localhost", "::1"}


def page() -> None:
    """One run of the script."""
    st.set_page_config(page_title="Medical-VQA", page_icon=_icon(), layout="wide")
    st.html(f"<style>{asset('style.css')}</style>")
    settings = _settings()
    backend = _backend(settings.backend, settings.api_key)
    desk: Desk = st.session_state.setdefault("desk", Desk())
    words = _top(desk, backend)
    if desk.info is None:
        _asleep(backend, words)
    elif desk.case is None:
        _choose(desk, backend, words)
    else:
        _work(desk, desk.case, backend, settings, words)


# --- what the page stands on ------------------------------------------------------------------------------------------


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
    for radius, colour in ((30, "#bfe0e6"), (22, "#0b6e83"), (10, "#f5f7f8")):
        draw.ellipse((32 - radius, 32 - radius, 32 + radius, 32 + radius), fill=colour)
    return image


@st.cache_resource(show_spinner=False)
def _backend(address: str, api_key: str) -> Backend:
    return Backend(address, api_key=api_key)


@st.cache_data(ttl=3600, max_entries=8, show_spinner=False)
def _examples(address: str, model: str, _backend: Backend) -> tuple[Examples, list[bytes]]:  # noqa: ARG001 - the key
    found = _backend.examples()
    return found, [overlay.thumbnail(_backend.example_file(example), side=_TILE) for example in found.examples]


def _top(desk: Desk, backend: Backend) -> Words:
    """Name, model, another image, language; learns the model's card where it is not known yet."""
    if desk.info is None and backend.ready():
        try:
            desk.info = backend.model()
        except BackendError:
            desk.info = None
    with st.container(horizontal=True, vertical_alignment="center", key="top"):
        with st.container(width="stretch", key="brand"):
            st.html(cards.header(desk.info.name if desk.info else None))
        note = st.container(width="content", key="note")
        place = st.container(width="content", key="another")
        words = Words(_language())
    note.html(cards.notice(words))
    st.html(f"<style>{_texts_in_style(words)}</style>")
    if desk.info is not None and desk.case is not None:
        # A new key for each file: a popover that keeps its key stays open over the picture that was chosen in it.
        key = f"another-{desk.uploads}-{desk.open_id}"
        with place, st.popover(words("new_image"), icon=":material/add_photo_alternate:", key=key):
            _another(desk, backend, words)
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
            st.session_state.pop("looks", None)
            st.rerun()
        looks = st.session_state["looks"] = st.session_state.get("looks", 0) + 1
        st.html(cards.asleep(words, backend.address, long=looks > _LONG))

    wait()


# --- choosing an image ------------------------------------------------------------------------------------------------


def _choose(desk: Desk, backend: Backend, words: Words) -> None:
    with st.container(key="choose"):
        st.html(cards.hero(words))
        _refused(desk, backend, words)
        _upload(desk, backend, words)
        _earlier(desk, words)
        _tiles(desk, backend, words)


def _another(desk: Desk, backend: Backend, words: Words) -> None:
    _upload(desk, backend, words)
    _earlier(desk, words)
    _tiles(desk, backend, words)


def _upload(desk: Desk, backend: Backend, words: Words) -> None:
    most = max(1, (desk.info.limits.max_upload_bytes if desk.info else 1) // 2**20)
    with st.container(key="upload"):
        # No list of endings: DICOM files often have none. The backend looks at the content.
        file = st.file_uploader(words("upload"), key=f"upload-{desk.uploads}", max_upload_size=most)
        st.html(cards.small(words("upload_hint", megabytes=most)))
    if file is not None:
        with st.spinner(words("opening")):
            desk.take(backend, file.name, file.getvalue())
        st.rerun()


def _refused(desk: Desk, backend: Backend, words: Words) -> None:
    refused = desk.refused
    if refused is None:
        return
    st.html(cards.refused(words, refused.name, refused.error))
    if st.button(words("retry"), key="retry-upload", icon=":material/refresh:"):
        with st.spinner(words("opening")):
            desk.take(backend, refused.name, refused.data, refused.suggestions)
        st.rerun()


def _earlier(desk: Desk, words: Words) -> None:
    for case in desk.earlier:
        label = words("back_to", name=case.name)
        if st.button(label, key=f"back-{case.id}", icon=":material/undo:", type="tertiary"):
            desk.open_id, desk.refused, desk.look_at = case.id, None, None
            st.rerun()


def _tiles(desk: Desk, backend: Backend, words: Words) -> None:
    """Each example is one button with its picture as background."""
    try:
        found, pictures = _examples(backend.address, desk.info.id if desk.info else "", backend)
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
                    _take_example(desk, backend, found, example.id)
                st.rerun()
    st.html(cards.small(words("source", source=found.source)))


def _take_example(desk: Desk, backend: Backend, found: Examples, example_id: str) -> None:
    example = next(example for example in found.examples if example.id == example_id)
    try:
        data = backend.example_file(example)
    except BackendError:
        data = b""  # the upload that follows says what is the matter
    desk.take(backend, _caption(example), data, tuple(example.questions))


def _caption(example: ExampleImage) -> str:
    return (example.caption or example.id).replace("_", " ")


def _tile_style(found: Examples, pictures: list[bytes]) -> str:
    rules = [
        f".st-key-tiles .st-key-example-{example.id} button {{background-image:url({overlay.data_uri(picture)})}}"
        for example, picture in zip(found.examples, pictures, strict=True)
        if example.id.replace("-", "").replace("_", "").isalnum()
    ]
    return f"<style>{''.join(rules)}</style>"


# --- looking and asking -----------------------------------------------------------------------------------------------


def _work(desk: Desk, case: Case, backend: Backend, settings: AppSettings, words: Words) -> None:
    asked = st.chat_input(words("ask_hint"), key="ask", max_chars=MAX_QUESTION)
    if asked and asked.strip():
        case.pending = asked.strip()
    with st.container(key="work"):
        left, right = st.columns([1.15, 1], gap="large")
    with left, st.container(key="look"):
        picture = st.container(key="viewer")
        _controls(case, backend, words)
        _facts(case, words)
        _privacy(desk, case, backend, words)
    with right, st.container(key="talk"):
        others = _compared(settings, words)
        _conversation(desk, case, [backend, *others], settings, words)
    with picture:
        _picture(desk, case, words)


def _picture(desk: Desk, case: Case, words: Words) -> None:
    turn = desk.turn_looked_at()
    reply = turn.replies[0] if turn else None
    heat, caption = None, ""
    same = turn is not None and turn.picture == case.picture
    if turn is not None and same and isinstance(reply, Answer) and reply.look is not None:
        heat = overlay.data_uri(overlay.heat(reply.look, width=case.uploaded.width, height=case.uploaded.height))
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


def _announcement(reply: Reply, words: Words) -> str:
    if isinstance(reply, BackendError):
        return words.problem(reply.kind)
    if reply.abstained:
        return words("announce_unsure", reason=reply.reason or "")
    share = per_cent(reply.confidence) if reply.confidence is not None else "–"
    said = words("announce", answer=reply.answer, confidence=share)
    if reply.look is None:
        return said
    row, column = overlay.place(reply.look)
    return f"{said} {words('look_place', place=words(f'place_{row}{column}'))}"


def _controls(case: Case, backend: Backend, words: Words) -> None:
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
    """Centre and width; a preset sets both."""
    header = _whole(case.header_window or (0.0, 1.0))
    centres, widths = cases.window_bounds(case)
    keys = _window_keys(case)
    for key, value in zip(keys, header, strict=True):
        st.session_state.setdefault(key, value)
    centre = st.slider(words("centre"), *centres, key=keys[0])
    width = st.slider(words("width"), *widths, key=keys[1])
    return None if (centre, width) == header else (float(centre), float(width))


def _window_keys(case: Case) -> tuple[str, str]:
    return f"centre-{case.id}", f"width-{case.id}"


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


def _facts(case: Case, words: Words) -> None:
    facts = case.uploaded.facts
    shown = [facts[key] for key in ("Modality", "BodyPartExamined", "ViewPosition") if facts.get(key)]
    size = f"{case.uploaded.width} × {case.uploaded.height}"
    st.html(cards.facts([case.name, case.uploaded.format, size, *shown]))
    if case.uploaded.burned_in:
        st.warning(words("burned_in"), icon=":material/visibility:")


def _privacy(desk: Desk, case: Case, backend: Backend, words: Words) -> None:
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
            args=(desk, case, backend),
        )  # fmt: skip


def _delete(desk: Desk, case: Case, backend: Backend) -> None:
    """Off the server and off the desk, conversation and all."""
    for image_id in case.ids.values():
        backend.forget_later(image_id)
    desk.cases.remove(case)
    desk.open_id = None


# --- the conversation -------------------------------------------------------------------------------------------------


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


def _conversation(desk: Desk, case: Case, backends: list[Backend], settings: AppSettings, words: Words) -> None:
    for number, turn in enumerate(case.turns):
        _turn(desk, case, turn, settings, words, last=number + 1 == len(case.turns))
    if case.pending is not None:
        question = case.pending
        st.html(cards.question(words, question))
        with st.spinner(words("thinking")):
            cases.ask(backends, case, question, look=desk.info is not None and desk.info.can_look)
        case.pending, desk.look_at = None, None
        st.rerun()
    _suggest(case, words)
    if case.turns:
        _download(case, words)


def _turn(desk: Desk, case: Case, turn: Turn, settings: AppSettings, words: Words, *, last: bool) -> None:
    with st.container(key=f"turn-{turn.id}", gap="small"):
        st.html(cards.question(words, turn.question, _view_note(case, turn, words)))
        for number, (column, reply) in enumerate(zip(_side_by_side(turn), turn.replies, strict=True)):
            with column:
                _reply(desk, case, turn, reply, f"{turn.id}-{number}", settings, words)
        if turn.failed and last:
            st.button(words("retry"), key="retry", on_click=cases.again, args=(case,), icon=":material/refresh:")


def _actions(desk: Desk, case: Case, turn: Turn, reply: Answer, key: str, settings: AppSettings, words: Words) -> None:
    """Below an answer: thumbs, and where the model looked."""
    with st.container(horizontal=True, gap="small", key=f"actions-{key}"):
        if settings.feedback is not None:
            _thumbs(desk, turn, reply, key, settings, words)
        if reply is turn.replies[0] and _can_show(desk, case, turn):
            st.button(
                words("show_look"), key=f"look-{turn.id}", type="tertiary", icon=":material/center_focus_weak:",
                on_click=_look_at, args=(desk, turn),
            )  # fmt: skip


def _side_by_side(turn: Turn) -> list[st.delta_generator.DeltaGenerator]:
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


def _can_show(desk: Desk, case: Case, turn: Turn) -> bool:
    first = turn.replies[0]
    has_look = isinstance(first, Answer) and first.look is not None
    return has_look and turn is not desk.turn_looked_at() and turn.picture == case.picture


def _look_at(desk: Desk, turn: Turn) -> None:
    desk.look_at = turn.id


def _reply(desk: Desk, case: Case, turn: Turn, reply: Reply, key: str, settings: AppSettings, words: Words) -> None:
    if isinstance(reply, BackendError):
        st.html(cards.failure(words, reply))
        return
    st.html(cards.answer(words, reply))
    _actions(desk, case, turn, reply, key, settings, words)
    if settings.feedback is not None and key in desk.thumbs:
        _details(desk, turn, reply, key, settings, words)


def _suggest(case: Case, words: Words) -> None:
    asked = {turn.question for turn in case.turns}
    left = [question for question in case.suggestions if question not in asked][:_MOST_SUGGESTIONS]
    if not left:
        return

    def choose(question: str) -> None:
        case.pending = question

    with st.container(key="suggest", gap="small"):
        st.html(cards.title(words("suggested")))
        with st.container(horizontal=True, gap="small"):
            for number, question in enumerate(left):
                st.button(question, key=f"suggest-{number}-{case.id}", on_click=choose, args=(question,))


def _download(case: Case, words: Words) -> None:
    with st.container(key="download"), st.popover(words("download"), icon=":material/download:", type="tertiary"):
        text, data = transcript.as_markdown(case, words), transcript.as_json(case)
        st.download_button(words("download_text"), text, "conversation.md", "text/markdown", key="as-text")
        st.download_button(words("download_data"), data, "conversation.json", "application/json", key="as-data")


# --- feedback ---------------------------------------------------------------------------------------------------------


def _thumbs(desk: Desk, turn: Turn, reply: Answer, key: str, settings: AppSettings, words: Words) -> None:
    def press(good: bool) -> None:
        desk.thumbs[key] = good
        _vote(desk, turn, reply, key, settings)

    given = desk.thumbs.get(key)
    for good, word in ((True, "good"), (False, "bad")):
        st.button(
            words(word), key=f"{word}-{key}", on_click=press, args=(good,),
            icon=f":material/thumb_{'up' if good else 'down'}:", type="secondary" if given is good else "tertiary",
        )  # fmt: skip


def _details(desk: Desk, turn: Turn, reply: Answer, key: str, settings: AppSettings, words: Words) -> None:
    """What was right, and whether the picture may be kept; both by choice."""
    if key in desk.thanks and desk.thanks[key] != "asked":
        st.html(cards.small(words(desk.thanks[key])))
        return
    with st.form(f"form-{key}", border=False):
        right = "" if desk.thumbs[key] else st.text_input(
            words("correction"), key=f"correction-{key}", placeholder=words("correction_hint"), max_chars=MAX_QUESTION
        )  # fmt: skip
        keep = st.checkbox(words("keep_picture"), key=f"keep-{key}")
        if st.form_submit_button(words("send")):
            _vote(desk, turn, reply, key, settings, right=right, keep=keep, done=True)
            st.rerun()


def _vote(
    desk: Desk,
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
    vote = feedback.Vote(key, turn.question, reply.answer, desk.thumbs[key], reply.model.name, right, picture)
    try:
        taught = feedback.record(settings.feedback, vote)
    except DataError:
        desk.thanks[key] = "feedback_failed"
        return
    desk.thanks[key] = ("thanks_taught" if taught else "thanks") if done else "asked"


if __name__ == "__main__":
    page()
