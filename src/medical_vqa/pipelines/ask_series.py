"""Ask a loaded model about a series or a volume: several slices, and one answer that names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medical_vqa.data.imaging.decode import check_window
from medical_vqa.data.imaging.picture_statistics import PictureContext
from medical_vqa.data.imaging.preprocessing import prepare_picture
from medical_vqa.data.imaging.series.reading import read_series
from medical_vqa.data.imaging.windowed_channels import windowed_image
from medical_vqa.errors import ConfigError
from medical_vqa.models.base import Query, check_question
from medical_vqa.models.queries import NO_PICTURE
from medical_vqa.models.slices import (
    CANDIDATES,
    DEFAULT_SLICES,
    MAX_SLICES,
    combined,
    presence_in,
    showing_slices,
    slices_note,
    spread,
)
from medical_vqa.pipelines.ask import ImageView

if TYPE_CHECKING:
    from medical_vqa.data.imaging.decoded_frame import DecodedFrame
    from medical_vqa.data.imaging.planes import Plane
    from medical_vqa.data.imaging.volume import Volume
    from medical_vqa.models.guards.guarded_answer import GuardedAnswer
    from medical_vqa.pipelines.load import LoadedModel


@dataclass(frozen=True, slots=True)
class SliceAnswer:
    """The answer about one slice."""

    slice: int
    """Number of the slice in its plane, from 0."""
    text: str
    """What the model answered."""
    confidence: float | None
    """Probability of the answer; None where the model gives none."""
    abstained: bool
    """Whether the model abstains about this slice."""
    reason: str | None
    """Why it abstains, in one sentence."""
    presence: float | None
    """Probability that the slice shows the organ or finding of the question, by the model's localization; None where
    the slices were spread evenly."""


@dataclass(frozen=True, slots=True)
class SeriesAnswer:
    """One answer about a series, combined from those about some of its slices.

    ``str(answer)`` is what may be shown to a person: the text, or the reason for abstaining in its place.
    """

    question: str
    """The question, without surrounding white space."""
    text: str
    """The answer with the largest mean probability over the slices about which the model does not abstain."""
    confidence: float | None
    """That mean; None where the model gives no probabilities."""
    abstained: bool
    """Whether the model abstains about more than half of the slices."""
    reason: str | None
    """Its commonest reason, in one sentence; None when it answers."""
    slices: tuple[SliceAnswer, ...]
    """Per-slice answers, in the order of the slices; one where the model took all slices in one question."""
    selection: Literal["localized", "even"]
    """How the slices were chosen: those that the model's localization says show what the question names, or evenly."""
    slice_numbers: tuple[int, ...]
    """Numbers of the slices that the model received, from 0."""
    view: ImageView
    """The series; frame and window are those of the slice in the middle of the chosen ones."""
    model: str
    """Name of the model."""
    files: tuple[tuple[int, int], ...] = ()
    """Number of the file and of the frame in it of each slice that the model received, from 0; empty: not known."""
    cut_off: bool = False
    """Whether the text ended at the limit of tokens and not by itself, as in `Answer`."""

    def __str__(self) -> str:
        return self.reason or "" if self.abstained else self.text

    def to_dict(self) -> dict[str, Any]:
        """A JSON object, as ``medical-vqa ask SERIES --json`` prints it."""
        return {
            "series": str(self.view.file),
            "question": self.question,
            "answer": self.text,
            "confidence": None if self.confidence is None else round(self.confidence, 6),
            "abstained": self.abstained,
            "reason": self.reason,
            "cut_off": self.cut_off,
            "selection": self.selection,
            "slice_numbers": list(self.slice_numbers),
            "slices": [asdict(one) for one in self.slices],
            "seen": self.view.to_dict(),
            "model": self.model,
        }


def ask_series(
    loaded: LoadedModel,
    source: Path,
    questions: Sequence[str],
    *,
    slices: int = DEFAULT_SLICES,
    plane: Plane | None = None,
    window: tuple[float, float] | None = None,
) -> list[SeriesAnswer]:
    """Answer questions about a series, a volume or an enhanced object, which is read once.

    Args:
        loaded: The model.
        source: A folder, a zip archive, a DICOMDIR, or a file of many slices.
        questions: The questions.
        slices: How many slices the model receives.
        plane: Plane of the slices; by default that of the stored ones.
        window: Center and width of the values to show; by default those of the header, else one for all slices.

    Returns:
        One answer per question, in order.

    Raises:
        ImageError: There is no series, or a file of it is damaged.
        ModelError: A question is empty or too long.
        ConfigError: `slices` is not from 1 to `MAX_SLICES`.
    """
    if not 1 <= slices <= MAX_SLICES:
        raise ConfigError(f"slices: expected a number from 1 to {MAX_SLICES}, got {slices}; correct it")
    check_window(window)
    texts = [check_question(question) for question in questions]
    pictures = _Pictures(loaded, read_series(source), plane, window)
    return [_answer(pictures, source, text, slices) for text in texts]


class _Pictures:
    """The slices of a volume as a model receives them, each prepared once."""

    def __init__(
        self, loaded: LoadedModel, volume: Volume, plane: Plane | None, window: tuple[float, float] | None
    ) -> None:
        self.loaded = loaded
        self.plane = plane or volume.acquired
        self.count = volume.slices[self.plane]
        self._volume = volume
        self._window = window
        self._prepared: dict[int, tuple[DecodedFrame, Any]] = {}

    def frame(self, index: int) -> DecodedFrame:
        """One slice as a person sees it."""
        return self._get(index)[0]

    def files(self, indices: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Where slices are stored; empty in planes that were resampled."""
        known = self._volume.files if self.plane == self._volume.acquired else ()
        return tuple(known[index] for index in indices) if known else ()

    def query(self, index: int, question: str) -> Query:
        """A question about one slice."""
        return Query(str(index), question, str(index), self._get(index)[1])

    def _get(self, index: int) -> tuple[DecodedFrame, Any]:
        if index not in self._prepared:
            decoded = self._view(index, self._window)
            self._prepared[index] = decoded, self._visual(index, decoded)
        return self._prepared[index]

    def _view(self, index: int, window: tuple[float, float] | None) -> DecodedFrame:
        return self._volume.view(index, plane=self.plane, window=window)

    def _visual(self, index: int, decoded: DecodedFrame) -> Any:
        spec = self.loaded.model.picture
        if spec is None:
            return NO_PICTURE
        if self._window is None:
            decoded = windowed_image(lambda own: decoded if own is None else self._view(index, own), spec)
        return prepare_picture(decoded.image, spec)


def _answer(pictures: _Pictures, source: Path, question: str, number: int) -> SeriesAnswer:
    loaded = pictures.loaded
    presence = _presence(pictures, question)
    showing = showing_slices(presence, number)
    indices = showing or spread(pictures.count, number)
    together = min(number, loaded.model.slices_together, len(indices))
    if together > 1:
        indices = [indices[int((part + 0.5) * len(indices) / together)] for part in range(together)]
        first, *further = (pictures.query(index, question) for index in indices)
        note = slices_note(len(indices), pictures.count, pictures.plane)
        queries = [replace(first, other_visuals=tuple(query.visual for query in further), note=note)]
    else:
        queries = [pictures.query(index, question) for index in indices]
    contexts = {query.image: PictureContext.of(pictures.frame(int(query.image))) for query in queries}
    guarded: list[GuardedAnswer] = []
    for start in range(0, len(queries), loaded.batch_size):
        guarded += loaded.guards.answer(queries[start : start + loaded.batch_size], contexts, suggest=False)
    answers = [
        SliceAnswer(
            int(query.image),
            one.prediction.answer,
            one.prediction.confidence,
            one.abstention.abstained,
            one.abstention.reason,
            presence.get(int(query.image)) if showing else None,
        )
        for query, one in zip(queries, guarded, strict=True)
    ]
    withheld = [one for one in answers if one.abstained]
    abstained = 2 * len(withheld) > len(answers)
    reasons = [one.reason for one in withheld if one.reason]
    text, confidence = combined([one.prediction for one in guarded if abstained or not one.abstention.abstained])
    return SeriesAnswer(
        question,
        text,
        confidence,
        abstained,
        max(reasons, key=reasons.count) if abstained and reasons else None,
        tuple(answers),
        "localized" if showing else "even",
        tuple(indices),
        ImageView.of(source, pictures.frame(indices[len(indices) // 2])),
        loaded.card.name,
        pictures.files(indices),
        any(one.prediction.cut_off for one in guarded if one.prediction.answer == text),
    )


def _presence(pictures: _Pictures, question: str) -> dict[int, float]:
    """Slice -> probability that it shows what the question names; empty where the model localizes nothing of it."""
    model = pictures.loaded.model
    if model.entity_in(question) is None:
        return {}
    values = {
        index: presence_in(model, pictures.query(index, question)) for index in spread(pictures.count, CANDIDATES)
    }
    return {index: value for index, value in values.items() if value is not None}
