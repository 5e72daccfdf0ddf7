"""What the use cases receive: an uploaded file, and a question with what surrounds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medical_vqa.serving.image_store.blob import StoredImage


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded file, with the client's options."""

    data: bytes
    """The file."""
    frame: int | None = None
    """Which of several frames, from 0; None: the middle one."""
    window: tuple[float, float] | None = None
    """Center and width, for values of more than 8 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionContext:
    """What surrounds a question."""

    other_image_ids: Sequence[str] = ()
    """Further uploaded images of the question."""
    turns: Sequence[tuple[str, str]] = ()
    """Earlier questions with their answers, oldest first."""
    system: str = ""
    """System message of the conversation."""
    places: Sequence[tuple[int, int]] = ()
    """Where each image stands, as in `Query.image_places`; empty: before the first question."""
    check_image: bool = False
    """Whether to measure how much the picture moves the answer."""
    on_text: Callable[[str], None] | None = None
    """Receives what of the answer may be shown while it is written, from any thread."""


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """A question as it goes to the engine."""

    text: str
    """In words, without spaces around them."""
    attention_map: bool
    """Whether to add the attention map."""
    received: float
    """When the request arrived, in seconds of `time.monotonic`."""
    context: QuestionContext = QuestionContext()
    """What surrounds it."""
    others: Sequence[StoredImage] = ()
    """Further images of the question."""
