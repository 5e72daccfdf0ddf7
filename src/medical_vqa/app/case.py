"""One image and the conversation about it; what the page does with the backend, independent of Streamlit."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from medical_vqa.app.asking import Asking, OnText, Reply, Worker
from medical_vqa.app.client import Backend, BackendError
from medical_vqa.serving.schema.answers import Answer
from medical_vqa.serving.schema.images import UploadedImage
from medical_vqa.serving.schema.models import ModelInfo

Window = tuple[float, float]
"""Center and width of the intensity window."""

CT_WINDOWS: Mapping[str, Window] = {
    "soft_tissue": (40, 400), "lung": (-600, 1500), "bone": (300, 1500), "brain": (40, 80),
}  # fmt: skip
"""Customary windows of CT, in Hounsfield units."""


@dataclass(frozen=True, slots=True)
class View:
    """Frame and window of a file that are displayed."""

    frame: int | None = None
    """Index from 0; None: the backend's choice."""
    window: Window | None = None
    """Intensity window; None: the window of the file's header."""


@dataclass(slots=True)
class Turn:
    """A question and its replies."""

    question: str
    """The question, on one line."""
    replies: list[Reply]
    """One per model, the page's main model first."""
    picture: bytes
    """PNG of the view that the question was about."""
    view: View
    """Frame and window of `picture`."""
    other_names: tuple[str, ...] = ()
    """Names of further files that the question was about."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Random identifier."""

    @property
    def failed(self) -> bool:
        """Whether a model gave no answer, so that repeating the question makes sense."""
        return any(isinstance(reply, BackendError) for reply in self.replies)


@dataclass(slots=True)
class Case:
    """One image file, the displayed view, and its conversation."""

    name: str
    """File name, for display only."""
    data: bytes
    """Bytes of the file, while the page is open: another frame, or a backend that lost it, needs them again."""
    uploaded: UploadedImage
    """What the backend read from the file."""
    picture: bytes
    """PNG of the displayed view, as the model receives it."""
    suggestions: list[str]
    """Suggested questions in English."""
    translated: dict[str, list[str]] = field(default_factory=dict)
    """Language → suggested questions in it, as far as they were needed."""
    view: View = View()
    """Displayed frame and window."""
    image_ids: dict[str, str] = field(default_factory=dict)
    """Backend address → id of the displayed view there."""
    turns: list[Turn] = field(default_factory=list)
    """Oldest first."""
    pending: str | None = None
    """Question that is asked next."""
    asking: Asking | None = None
    """Question that waits for its answer."""
    others: list[Case] = field(default_factory=list)
    """Further cases whose pictures are sent with every question, for a model that takes several."""
    header_window: Window | None = None
    """Window that the backend chose for the file; None where windows do not apply."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Random identifier."""


def open_case(backend: Backend, name: str, data: bytes, *, suggestions: Sequence[str] = ()) -> Case:
    """Upload a file and fetch its picture.

    Args:
        backend: Where to upload it.
        name: File name, for display.
        data: Bytes of the file.
        suggestions: Suggested questions; without any the backend is asked for some.

    Returns:
        A case without turns.

    Raises:
        BackendError: The file was refused or the backend did not respond.
    """
    uploaded = backend.upload(data, name)
    picture = backend.picture(uploaded.image_id)
    questions = list(suggestions)
    if not questions:
        try:
            questions = backend.suggested_questions(uploaded.image_id)
        except BackendError:  # the page works without suggestions
            questions = []
    case = Case(name, data, uploaded, picture, questions, header_window=window_of(uploaded))
    case.image_ids[backend.address] = uploaded.image_id
    return case


def suggestions_in(backend: Backend, case: Case, language: str) -> list[str]:
    """Suggested questions in a language, in English where the backend has none in it."""
    if language == "en":
        return case.suggestions
    image_id = case.image_ids.get(backend.address)
    if language not in case.translated and image_id is not None:
        try:
            case.translated[language] = backend.suggested_questions(image_id, language)
        except BackendError:  # the page works without them
            return case.suggestions
    return case.translated.get(language) or case.suggestions


def change_view(backends: Sequence[Backend], case: Case, view: View) -> None:
    """Display another frame or window and delete the former picture.

    Args:
        backends: All backends that may have the former picture; the first receives the new one.
        case: The case, changed in place.
        view: The new frame and window.

    Raises:
        BackendError: The first backend refused the view or did not respond; the case is unchanged.
    """
    uploaded = backends[0].upload(case.data, case.name, frame=view.frame, window=view.window)
    picture = backends[0].picture(uploaded.image_id)
    former_ids = case.image_ids
    case.view = view
    case.uploaded = uploaded
    case.picture = picture
    case.image_ids = {backends[0].address: uploaded.image_id}
    for backend in backends:
        former_id = former_ids.get(backend.address)
        if former_id is not None and former_id != case.image_ids.get(backend.address):
            backend.delete_image_in_background(former_id)


def ask(backends: Sequence[Backend], case: Case, question: str, *, attention_map: bool) -> Turn:
    """Ask every backend in parallel, wait, and append the turn to the case.

    Args:
        backends: The page's main backend first.
        case: The case, changed in place.
        question: One line of text.
        attention_map: Whether to request attention maps.

    Returns:
        The turn; a backend that failed contributes its error as the reply.
    """
    asking = start_asking(backends, case, question, models=[None] * len(backends), attention_map=attention_map)
    asking.wait()
    return finish_asking(case, asking)


def start_asking(
    backends: Sequence[Backend], case: Case, question: str, *, models: Sequence[ModelInfo | None], attention_map: bool
) -> Asking:
    """Ask every backend in the background.

    Args:
        backends: The page's main backend first.
        case: The case; a view that a backend does not have yet is uploaded there.
        question: One line of text.
        models: What is known of the model of each backend: whether it remembers and streams.
        attention_map: Whether to request attention maps.
    """

    def worker(number: int, backend: Backend, model: ModelInfo | None) -> Worker:
        turns = remembered_turns(case, number, model.max_turns if model is not None else 0)
        others = case.others[: model.max_pictures - 1] if model is not None else []

        def ask_one(on_text: OnText, canceled: threading.Event) -> Reply:
            def send(image_id: str) -> Answer:
                if model is None or not model.streams:
                    return backend.ask(image_id, question, attention_map=attention_map)
                return backend.ask_streaming(
                    image_id,
                    question,
                    turns=turns,
                    other_image_ids=[_image_id(backend, other) for other in others],
                    on_text=on_text,
                    canceled=canceled,
                )

            return _reply(backend, case, send)

        return ask_one

    asking = Asking(question)
    asking.start([worker(n, backend, model) for n, (backend, model) in enumerate(zip(backends, models, strict=True))])
    return asking


def finish_asking(case: Case, asking: Asking) -> Turn:
    """Append the turn of a question that was answered or canceled."""
    names = tuple(other.name for other in case.others)
    turn = Turn(asking.question, asking.replies, case.picture, case.view, names)
    case.turns.append(turn)
    case.asking = None
    return turn


def remembered_turns(case: Case, number: int, limit: int) -> list[tuple[str, str]]:
    """The last turns that the backend with this number has answered, at most `limit`."""
    if not limit:
        return []
    turns = []
    for turn in case.turns:
        reply = turn.replies[number] if number < len(turn.replies) else None
        if isinstance(reply, Answer) and reply.answer:
            turns.append((turn.question, reply.answer))
    return turns[-limit:]


def normalize_question(text: str) -> str:
    """The text on one line: line ends and control characters, which backends refuse, become spaces."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def retry_last_turn(case: Case) -> None:
    """Remove the last turn, which failed, and make its question pending again."""
    case.pending = case.turns.pop().question


def delete_images(backends: Sequence[Backend], case: Case) -> None:
    """Delete the case's picture from every backend that has it, without waiting."""
    for backend in backends:
        image_id = case.image_ids.pop(backend.address, None)
        if image_id is not None:
            backend.delete_image_in_background(image_id)


def window_of(uploaded: UploadedImage) -> Window | None:
    """Window that the backend applied; None where it names none."""
    try:
        center = float(uploaded.header_fields["WindowCenter"])
        width = float(uploaded.header_fields["WindowWidth"])
    except (KeyError, ValueError):
        return None
    return (center, width) if width > 0 else None


def window_ranges(case: Case) -> tuple[tuple[int, int], tuple[int, int]]:
    """Ranges of the sliders for center and width: Hounsfield units for CT, else relative to the header's window."""
    center, width = case.header_window or (0.0, 1.0)
    if case.uploaded.header_fields.get("Modality") == "CT":
        return (min(-1000, round(center)), max(1000, round(center))), (1, max(2500, round(width)))
    return (round(center - width), round(center + width)), (1, max(2, round(2 * width)))


def _image_id(backend: Backend, case: Case) -> str:
    """Id of the case's displayed view at a backend, where it is uploaded if it is not there yet."""
    if backend.address not in case.image_ids:
        uploaded = backend.upload(case.data, case.name, frame=case.view.frame, window=case.view.window)
        case.image_ids[backend.address] = uploaded.image_id
    return case.image_ids[backend.address]


def _reply(backend: Backend, case: Case, send: Callable[[str], Answer]) -> Reply:
    """Upload the view first where the backend does not have it (yet, or any longer)."""
    try:
        if backend.address in case.image_ids:
            try:
                return send(case.image_ids[backend.address])
            except BackendError as error:
                if error.code != "unknown_image":
                    raise
        uploaded = backend.upload(case.data, case.name, frame=case.view.frame, window=case.view.window)
        case.image_ids[backend.address] = uploaded.image_id
        return send(uploaded.image_id)
    except BackendError as error:
        return error
