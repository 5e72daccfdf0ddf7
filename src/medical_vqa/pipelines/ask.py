"""Ask a loaded model about one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from medical_vqa.data.imaging.decode import LOCAL_LIMITS, decode_image, decode_image_file
from medical_vqa.data.imaging.picture_statistics import PictureContext
from medical_vqa.data.imaging.preprocessing import prepare_picture
from medical_vqa.data.imaging.windowed_channels import windowed_image
from medical_vqa.errors import ModelError
from medical_vqa.models.base import Query, check_question
from medical_vqa.models.guards.pictures.image_dependence import Source
from medical_vqa.models.guards.sides import Side
from medical_vqa.models.queries import NO_PICTURE
from medical_vqa.models.questions.form import completed_follow_up
from medical_vqa.schema.evidence import Evidence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medical_vqa.data.imaging.decoded_frame import DecodedFrame, WindowSource
    from medical_vqa.models.base import VqaModel
    from medical_vqa.pipelines.load import LoadedModel


ImageFile = Path | bytes
"""An image file by its path, or its bytes."""
NO_FILE = Path("image")
"""`ImageView.file` of an image that came as bytes."""
_IMAGE = "image"


@dataclass(frozen=True, slots=True)
class ImageView:
    """The part of an image file that a model looked at."""

    file: Path
    """The image file; ``image`` for bytes and Pillow images."""
    format: str
    """Format of the file, recognized by its content: ``JPEG``, ``PNG``, ``DICOM``, ``NIFTI`` ..."""
    size: tuple[int, int]
    """Width and height of the frame, in pixels."""
    frame: int
    """Frame, slice or page, from 0."""
    frames: int
    """Number of frames that the file has."""
    window: tuple[float, float] | None
    """Center and width of the values that were shown; None where the pixels were used unchanged."""
    facts: Mapping[str, str] = field(hash=False)
    """Facts from a DICOM or NIfTI header: Modality, BodyPartExamined ...; never about the patient."""
    spacing: tuple[float, float] | None = None
    """Distance of rows and of columns in millimeters; None where the file does not say."""
    window_source: WindowSource | None = None
    """Where the window came from: ``option``, ``header``, ``header LUT`` or ``percentiles``."""
    plane: str | None = None
    """Plane nearest to the picture: ``axial``, ``coronal`` or ``sagittal``; None where the header does not say."""
    removed: tuple[str, ...] = ()
    """Parts of the file that the model did not receive: ``DICOM header``, ``other frames``, ``EXIF`` ..."""
    burned_in_annotation: bool | None = None
    """Whether the header declares text burned into the pixels; None where it does not say."""
    warnings: tuple[str, ...] = ()
    """Sentences on what could not be used, or what to be careful about."""

    @classmethod
    def of(cls, image: ImageFile, decoded: DecodedFrame) -> Self:
        """The view of a decoded image."""
        return cls(
            image if isinstance(image, Path) else NO_FILE,
            decoded.format,
            (decoded.width, decoded.height),
            decoded.frame,
            decoded.frames,
            decoded.window,
            decoded.header_fields,
            decoded.spacing,
            decoded.window_source,
            decoded.plane,
            decoded.removed_metadata,
            decoded.burned_in_annotation,
            decoded.warnings,
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields above as JSON values."""
        return {**asdict(self), "file": str(self.file), "facts": dict(self.facts)}


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer to one question about one image, with the decision whether to rely on it.

    ``str(answer)`` is what may be shown to a person: the text, or the reason for abstaining in its place.
    """

    question: str
    """The question, without surrounding white space."""
    text: str
    """What the model answered; not to be relied on when `abstained`."""
    confidence: float | None
    """Probability of the answer in [0, 1], calibrated where the bundle is; None where the model gives none."""
    alternatives: tuple[tuple[str, float], ...]
    """The next best answers of the type that the question asks for, with their probabilities, best first."""
    abstained: bool
    """Whether the model abstains: the question is outside what it has learned, or its confidence is too low."""
    reason: str | None
    """Why it abstains, in one sentence; None when it answers."""
    seen: ImageView
    """The part of the image file that the model received."""
    model: str
    """Name of the model."""
    raw: str = ""
    """The model's text before trimming."""
    suggestions: tuple[str, ...] = ()
    """Where it abstains: at most three questions near in meaning that it answers about this picture."""
    reason_code: str | None = None
    """The reason for programs, such as ``picture_does_not_matter``; None when it answers."""
    reason_arguments: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Values that the reason names."""
    image_dependence: float | None = None
    """How much this picture moves the answer, compared with other pictures of its type, in [0, 1]: mean total
    variation between the answers. None where the bundle has no reference pictures."""
    source: Source | None = None
    """Where the answer comes from: ``picture``, ``usual`` (for pictures of its type) or ``knowledge``."""
    side: Side | None = None
    """Whose left or right the answer names: the ``patient``'s, the ``picture``'s, or ``both``: of an organ the
    patient's and of a position the picture's. None where it names neither."""
    evidence: tuple[Evidence, ...] = ()
    """Where the model localizes what the question or the answer names, in pixels of the frame (`seen.size`): name, box,
    polygon, area, side and score, the most certain first. Empty where it abstains, and for models that localize
    nothing."""

    confidence_basis: str | None = None
    """What the confidence of a remote model was computed from: ``probability`` or ``agreement``; None for others."""
    cut_off: bool = False
    """Whether the text ended at the limit of tokens (``decoding.max_tokens`` of the recipe, ``max_tokens`` in
    ``models.yaml``) and not by itself, so that it may lack its end."""
    others_seen: tuple[ImageView, ...] = ()
    """The same as `seen` of the further pictures of the question, in order."""

    def __str__(self) -> str:
        return self.reason or "" if self.abstained else self.text

    def to_dict(self) -> dict[str, Any]:
        """A JSON object, as ``medical-vqa ask --json`` prints it; `text` has the key ``answer``, as in predictions."""
        return {
            "image": str(self.seen.file),
            "question": self.question,
            "answer": self.text,
            "raw": self.raw,
            "confidence": None if self.confidence is None else round(self.confidence, 6),
            "alternatives": [[text, round(probability, 6)] for text, probability in self.alternatives],
            "abstained": self.abstained,
            "reason": self.reason,
            "suggestions": list(self.suggestions),
            "reason_code": self.reason_code,
            "reason_arguments": dict(self.reason_arguments),
            "image_dependence": None if self.image_dependence is None else round(self.image_dependence, 4),
            "source": self.source,
            "side": self.side,
            "evidence": [item.model_dump(mode="json") for item in self.evidence],
            "confidence_basis": self.confidence_basis,
            "cut_off": self.cut_off,
            "seen": self.seen.to_dict(),
            "others_seen": [view.to_dict() for view in self.others_seen],
            "model": self.model,
        }


@dataclass(frozen=True, slots=True, eq=False)
class AttentionMap:
    """Where in the picture an answer comes from."""

    question: str
    """The question."""
    weights: NDArray[np.float32]
    """(rows, columns), non-negative, summing to 1, over the picture as the model receives it; the first row is its
    top. The shipped model receives the whole image, stretched to a square."""
    seen: ImageView
    """The part of the image file that the model received."""


def ask(
    loaded: LoadedModel,
    image: ImageFile,
    questions: Sequence[str],
    *,
    frame: int | None = None,
    window: tuple[float, float] | None = None,
    others: Sequence[ImageFile] = (),
    turns: Sequence[tuple[str, str]] = (),
) -> list[Answer]:
    """Answer questions about one image file, which is decoded and encoded once.

    Args:
        loaded: The model.
        image: A JPEG, PNG, BMP, TIFF, WebP, GIF, DICOM or NIfTI file, or its bytes.
        questions: The questions. A follow-up without a verb (``and the spleen?``) repeats the question before it.
        frame: Frame of a DICOM file, slice of a NIfTI volume or page of a TIFF, from 0; by default the middle one.
        window: Center and width of the values to show, of gray values of more than 8 bits.
        others: Further images of every question, such as the prior examination.
        turns: Earlier questions of the conversation with their answers; only for a model that remembers.

    Returns:
        One answer per question, in order.

    Raises:
        ImageError: The file is missing, not an image that can be read, or has no such frame.
        ModelError: A question is empty or too long.
    """
    require_pictures(loaded.model, loaded.card.name, 1 + len(others))
    queries, view, context = _queries(loaded, image, questions, frame, window)
    further = [(other, *_visual(loaded, other, frame=None, window=None)) for other in others]
    visuals = tuple(visual for _, visual, _ in further)
    others_seen = tuple(ImageView.of(other, decoded) for other, _, decoded in further)
    remembered = tuple(turns) if loaded.model.max_turns or loaded.model.reads_conversations else ()
    names = tuple(f"{_IMAGE} {number}" for number, _ in enumerate(further, 2))
    contexts = {
        _IMAGE: context,
        **{name: PictureContext.of(decoded) for name, (*_, decoded) in zip(names, further, strict=True)},
    }
    queries = [replace(query, other_visuals=visuals, other_images=names, turns=remembered) for query in queries]
    card, answers = loaded.card, []
    for start in range(0, len(queries), loaded.batch_size):
        batch = queries[start : start + loaded.batch_size]
        for query, guarded in zip(batch, loaded.guards.answer(batch, contexts), strict=True):
            answers.append(
                Answer(
                    query.question,
                    guarded.prediction.answer,
                    guarded.prediction.confidence,
                    guarded.prediction.alternatives,
                    guarded.abstention.abstained,
                    guarded.abstention.reason,
                    view,
                    card.name,
                    raw=guarded.prediction.raw,
                    reason_code=guarded.abstention.code,
                    reason_arguments=guarded.abstention.arguments,
                    image_dependence=guarded.dependence.score if guarded.dependence else None,
                    source=guarded.source,
                    side=guarded.side,
                    suggestions=guarded.abstention.suggestions,
                    evidence=guarded.evidence,
                    confidence_basis=guarded.prediction.confidence_basis,
                    cut_off=guarded.prediction.cut_off,
                    others_seen=others_seen,
                )
            )
    return answers


def attention_map(
    loaded: LoadedModel,
    image: ImageFile,
    question: str,
    *,
    frame: int | None = None,
    window: tuple[float, float] | None = None,
) -> AttentionMap:
    """Where in the picture the answer to a question comes from; takes and raises what `ask` does.

    Raises `ModelError` also for a model that has no attention maps.
    """
    if not loaded.model.has_attention_maps:
        raise ModelError(f"{loaded.card.family} models have no attention maps; ask one that has them, such as compact")
    queries, view, _ = _queries(loaded, image, [question], frame, window)
    return AttentionMap(queries[0].question, loaded.model.attention_maps(queries)[0], view)


def _queries(
    loaded: LoadedModel,
    image: ImageFile,
    questions: Sequence[str],
    frame: int | None,
    window: tuple[float, float] | None,
) -> tuple[list[Query], ImageView, PictureContext]:
    """The queries for a model, all about the same picture, what that picture shows, and what the guards check."""
    checked: list[str] = []
    for question in map(check_question, questions):
        checked.append(completed_follow_up(question, checked[-1], loaded.model.entity_in) if checked else question)
    visual, decoded = _visual(loaded, image, frame=frame, window=window)
    queries = [Query(str(number), question, _IMAGE, visual) for number, question in enumerate(checked)]
    return queries, ImageView.of(image, decoded), PictureContext.of(decoded)


def _visual(
    loaded: LoadedModel, image: ImageFile, *, frame: int | None, window: tuple[float, float] | None
) -> tuple[NDArray[np.uint8], DecodedFrame]:
    """The picture for the model, and the decoded frame as a person sees it."""
    spec = loaded.model.picture
    decoded = _decoded(image, frame, window)
    if spec is None:
        return NO_PICTURE, decoded
    if window is not None:
        return prepare_picture(decoded.image, spec), decoded

    def decode(own: tuple[float, float] | None) -> DecodedFrame:
        return decoded if own is None else _decoded(image, frame, own)

    return prepare_picture(windowed_image(decode, spec).image, spec), decoded


def _decoded(image: ImageFile, frame: int | None, window: tuple[float, float] | None) -> DecodedFrame:
    if isinstance(image, bytes):
        return decode_image(image, limits=LOCAL_LIMITS, frame=frame, window=window)
    return decode_image_file(image, frame=frame, window=window)


def require_pictures(model: VqaModel, name: str, pictures: int) -> None:
    """Raise `ModelError` when a model takes fewer pictures in one question."""
    unlimited = model.reads_conversations and model.usage is None  # a local one; a remote one is sent so many at most
    if pictures > model.max_pictures and not unlimited:
        most = "one picture" if model.max_pictures == 1 else f"at most {model.max_pictures} pictures"
        raise ModelError(f"{name} takes {most} in one question, got {pictures}; ask about fewer, or another model")
