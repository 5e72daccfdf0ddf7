"""One image and what was asked about it; everything the page does with the backend, without the page."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from medical_vqa.app.client import Backend, BackendError
from medical_vqa.serving.api.schema import Answer, UploadedImage

Reply = Answer | BackendError
Window = tuple[float, float]
"""Center and width."""

PRESETS: Mapping[str, Window] = {
    "soft_tissue": (40, 400), "lung": (-600, 1500), "bone": (300, 1500), "brain": (40, 80),
}  # fmt: skip
"""Customary windows of CT, in Hounsfield units."""


@dataclass(frozen=True, slots=True)
class View:
    """Which picture of a file is looked at, and how."""

    frame: int | None = None
    """From 0; None: the one the backend takes."""
    window: Window | None = None
    """None: what the file says."""


@dataclass(slots=True)
class Turn:
    """A question and what came back."""

    question: str
    """As it was asked."""
    replies: list[Reply]
    """One per model asked, this page's own first."""
    picture: bytes
    """PNG of the picture that it was asked about."""
    view: View
    """The frame and window of that picture."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Names the turn."""

    @property
    def failed(self) -> bool:
        """Whether a model gave no answer, so that asking again makes sense."""
        return any(isinstance(reply, BackendError) for reply in self.replies)


@dataclass(slots=True)
class Case:
    """One file, the picture it shows, and its conversation."""

    name: str
    """Of the file, for the person only."""
    data: bytes
    """The file, kept for as long as the page is open: another frame, or a backend that forgot it, needs it again."""
    uploaded: UploadedImage
    """What the backend said of it."""
    picture: bytes
    """PNG as the model is shown it."""
    suggestions: list[str]
    """Questions to try."""
    view: View = View()
    """What is looked at now."""
    ids: dict[str, str] = field(default_factory=dict)
    """Backend's address -> its id of the picture."""
    turns: list[Turn] = field(default_factory=list)
    """Oldest first."""
    pending: str | None = None
    """A question that is being asked."""
    header_window: Window | None = None
    """The window the backend chose for the file itself; None where windows mean nothing."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Names the case."""


def open_case(backend: Backend, name: str, data: bytes, *, suggestions: Sequence[str] = ()) -> Case:
    """Upload a file and look at it; raises `BackendError`."""
    uploaded = backend.upload(data, name)
    picture = backend.picture(uploaded.image_id)
    found = list(suggestions) or _suggested(backend, uploaded.image_id)
    case = Case(name, data, uploaded, picture, found, header_window=window_of(uploaded))
    case.ids[backend.address] = uploaded.image_id
    return case


def change_view(backend: Backend, case: Case, view: View, *, others: Sequence[Backend] = ()) -> None:
    """Look at another frame or through another window; the former picture is deleted. Raises `BackendError`."""
    uploaded = backend.upload(case.data, case.name, frame=view.frame, window=view.window)
    picture = backend.picture(uploaded.image_id)
    former = dict(case.ids)
    case.view, case.uploaded, case.picture = view, uploaded, picture
    case.ids = {backend.address: uploaded.image_id}
    for place in (backend, *others):
        if (old := former.get(place.address)) and old != case.ids.get(place.address):
            place.forget_later(old)


def ask(backends: Sequence[Backend], case: Case, question: str, *, attention_map: bool) -> Turn:
    """Ask every backend, at the same time; failures are replies too. The turn joins the case."""
    with ThreadPoolExecutor(len(backends)) as pool:
        replies = list(pool.map(lambda backend: _reply(backend, case, question, attention_map), backends))
    turn = Turn(question, replies, case.picture, case.view)
    case.turns.append(turn)
    return turn


def tidy(question: str) -> str:
    """A question as one line: line ends and control characters, which backends refuse, become blanks."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in question).split())


def again(case: Case) -> None:
    """Take the last turn, which failed, back and ask its question anew."""
    case.pending = case.turns.pop().question


def forget(backends: Sequence[Backend], case: Case) -> None:
    """Delete the case's pictures everywhere; raises `BackendError`."""
    for backend in backends:
        if (image_id := case.ids.pop(backend.address, None)) is not None:
            backend.forget(image_id)


def window_of(uploaded: UploadedImage) -> Window | None:
    """Center and width that the backend used; None where it names none."""
    try:
        center, width = (float(uploaded.facts[name]) for name in ("WindowCenter", "WindowWidth"))
    except (KeyError, ValueError):
        return None
    return (center, width) if width > 0 else None


def window_bounds(case: Case) -> tuple[tuple[int, int], tuple[int, int]]:
    """Ends of the sliders for center and width: Hounsfield units for CT, else around what the header says."""
    center, width = case.header_window or (0.0, 1.0)
    if case.uploaded.facts.get("Modality") == "CT":
        return (min(-1000, round(center)), max(1000, round(center))), (1, max(2500, round(width)))
    return (round(center - width), round(center + width)), (1, max(2, round(2 * width)))


def _reply(backend: Backend, case: Case, question: str, attention_map: bool) -> Reply:
    try:
        if backend.address in case.ids:
            try:
                return backend.ask(case.ids[backend.address], question, attention_map=attention_map)
            except BackendError as error:
                if error.kind != "unknown_image":
                    raise
        view = case.view
        case.ids[backend.address] = backend.upload(case.data, case.name, frame=view.frame, window=view.window).image_id
        return backend.ask(case.ids[backend.address], question, attention_map=attention_map)
    except BackendError as error:
        return error


def _suggested(backend: Backend, image_id: str) -> list[str]:
    """Suggestions are a help, not a need: without them the page goes on."""
    try:
        return backend.questions(image_id)
    except BackendError:
        return []
