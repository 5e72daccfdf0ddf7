"""The wire types of the server, and nothing else: the JSON that clients send and receive.

A client needs this module alone (it imports pydantic, the type of evidence and nothing heavy). Routes:

    POST   /upload_image           multipart image_file [frame, window_center, window_width] -> UploadedImage
    POST   /ask_question           form or JSON AskRequest                                   -> Answer
    POST   /ask_question/stream    JSON AskRequest                                           -> events, then an Answer
    POST   /ask_questions          JSON AskManyRequest: one image, several questions         -> Answers
    POST   /ask                    multipart image_file, question, [attention_map]           -> Answer
    GET    /images/{id}/questions                                                            -> Suggestions
    GET    /images/{id}/picture                                                              -> PNG bytes, as decoded
    GET    /images/{id}                                                                      -> ImageItem
    GET    /images/{id}/view       frame, plane, window, invert                              -> PNG bytes of a slice
    GET    /images/{id}/values     frame, plane                                              -> the slice's values
    POST   /images/dicomweb        JSON RetrieveRequest                                      -> SeriesUpload
    POST   /series                 multipart files (repeated), or one archive                -> SeriesUpload
    DELETE /images/{id}                                                                      -> 204
    POST   /conversations                                                                    -> Conversation
    GET    /conversations/{id}            [after]                                            -> Conversation
    POST   /conversations/{id}/images     multipart image_file, name                         -> ConversationImage
    POST   /conversations/{id}/questions  JSON ConversationQuestion                          -> ConversationTurn
    GET    /model                                                                            -> ModelInfo
    POST   /jobs                   JSON lines of JobQuestion                                 -> JobInfo
    GET    /jobs                                                                             -> JobList
    GET    /jobs/{id}                                                                        -> JobInfo
    GET    /jobs/{id}/output                                                                 -> JSON lines
    DELETE /jobs/{id}                                                                        -> 204
    GET    /models                                                                           -> ServedModels
    PUT    /models/{name}          LoadModelRequest (role admin)                             -> ServedModelInfo
    POST   /models/{name}/fraction FractionRequest (role admin)                              -> ServedModelInfo
    DELETE /models/{name}          (role admin)                                              -> 204
    GET    /examples                                                                         -> Examples
    GET    /examples/{id}/image                                                              -> JPEG bytes
    GET    /healthz /readyz /metrics

Every error is a `Problem`: ``{"detail": {"code": "unknown_image", "message": "..."}}``. `message` is a sentence for
people, `code` is for programs (`ErrorCode`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, WithJsonSchema

from medical_vqa.schema.evidence import Evidence, array_of_numbers

MAX_QUESTION = 1_000
"""Characters of a question; more is answered with 422."""
MAX_QUESTIONS = 32
"""Questions in one request; more are answered with 422."""
MAX_PICTURES = 100
"""Pictures in one question; more are answered with 422. The model may take fewer."""
MAX_TURNS = 64
"""Earlier turns in one request; more are answered with 422. The model may read fewer."""
MAX_ANSWER = 4_000
"""Characters of an answer in an earlier turn."""
QUESTION = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
"""Pattern of a question: no control characters, and not only spaces."""
IMAGE_ID = r"^[0-9a-f]{24}-[A-Za-z0-9_-]{22}$"
"""Pattern of an image id: a content hash and a random part that cannot be guessed."""

ErrorCode = Literal[
    "not_an_image",  # 400
    "unauthorized",  # 401
    "forbidden",  # 403: the key lacks the role that the route needs
    "unknown_image",  # 404
    "unknown_conversation",  # 404
    "not_found",  # 404
    "no_values",  # 404: of the image only the picture in 8 bits is stored
    "method_not_allowed",  # 405
    "timeout",  # 408: the body arrived too slowly
    "too_large",  # 413
    "unsupported_media_type",  # 415
    "invalid",  # 422: a field is missing, too long or of the wrong type
    "source_failed",  # 422: the DICOMweb server does not answer, or has nothing there
    "rate_limited",  # 429: too many requests with this key
    "quota_exceeded",  # 429: the tenant stores as many images as it may
    "overloaded",  # 429: the queue is full; the header Retry-After says when to come back
    "deadline",  # 429: no answer within the deadline
    "internal",  # 500: a bug of the server
    "not_ready",  # 503
    "engine_unavailable",  # 503: the remote model behind this server does not answer
    "engine_refused",  # 503: it answers, but refuses the key, lacks the model, or sees no pictures
]

QUESTION_EXAMPLE = "What modality is used to take this image?"
IMAGE_ID_EXAMPLE = "0f343b0931126a20f133d67c-2nZrYw8q5bYvQm1sT0uXhA"


PlaneName = Literal["axial", "coronal", "sagittal"]
"""A plane through the patient; of pictures whose place in the patient is not known, ``axial`` is the stored one."""
WINDOW = r"^([a-z_]{1,20}|-?[0-9]{1,7}(\.[0-9]{1,4})?,[0-9]{1,7}(\.[0-9]{1,4})?)$"
"""Pattern of a window: a name, or center and width with a comma between them."""
MAX_FRAME = 1_000_000
UID = r"^[0-2](\.(0|[1-9][0-9]*))+$"
"""Pattern of a UID of DICOM."""
CT_IMAGE_CLASS = "1.2.840.10008.5.1.4.1.1.2"


class Wire(BaseModel):
    """Common to all wire types: unknown fields of a request are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Question = Annotated[str, Field(min_length=1, max_length=MAX_QUESTION, pattern=QUESTION)]
"""A question in words."""


ModelName = Annotated[str, Field(min_length=1, max_length=200)]
"""Name of a model on a server."""
CHOSEN_MODEL = "Which model answers, as GET /models lists it; null: the default one, or a canary."


# --- requests ---------------------------------------------------------------------------------------------------------


_FRAME = "The slice or frame to ask about, from 0; null: of a series several slices, else the stored picture."
_PLANE = "Plane of the slices; null: that of the stored ones."
_WINDOW = "Values to show, as CENTER,WIDTH or the name of a window of GET /images/ID; null: the default window."


class Turn(Wire):
    """An earlier question with its answer."""

    question: Question = Field(description="The question.", examples=[QUESTION_EXAMPLE])
    answer: str = Field(description="The answer that was given.", max_length=MAX_ANSWER, examples=["MRI"])


class AskRequest(Wire):
    """One question about an uploaded image."""

    image_id: str = Field(description="As POST /upload_image returned it.", max_length=64, examples=[IMAGE_ID_EXAMPLE])
    question: Question = Field(description="In words; no control characters.", examples=[QUESTION_EXAMPLE])
    attention_map: bool = Field(
        False, description="Whether to add the attention map: where in the image the answer comes from."
    )

    other_image_ids: list[Annotated[str, Field(max_length=64)]] = Field(
        default_factory=list,
        max_length=MAX_PICTURES - 1,
        description="Further uploaded images of the question, such as the prior examination; in JSON only.",
    )
    turns: list[Turn] = Field(
        default_factory=list,
        max_length=MAX_TURNS,
        description="The conversation so far, oldest first; in JSON only. A model that does not remember ignores it.",
    )
    check_image: bool = Field(
        False,
        description="Whether to measure how much the picture moves the answer; a remote model is then asked twice.",
    )
    frame: int | None = Field(None, ge=0, le=MAX_FRAME, description=_FRAME)
    plane: PlaneName | None = Field(None, description=_PLANE)
    window: str | None = Field(None, pattern=WINDOW, description=_WINDOW)
    model: ModelName | None = Field(None, description=CHOSEN_MODEL)


class AskManyRequest(Wire):
    """Several questions about one uploaded image, answered together."""

    image_id: str = Field(description="As POST /upload_image returned it.", max_length=64, examples=[IMAGE_ID_EXAMPLE])
    questions: Annotated[list[Question], FailFast()] = Field(
        description="Answered in this order.",
        min_length=1,
        max_length=MAX_QUESTIONS,
        examples=[[QUESTION_EXAMPLE, "Is the liver healthy?"]],
    )
    attention_map: bool = Field(
        False, description="Whether to add attention maps: where in the image the answers come from."
    )
    frame: int | None = Field(None, ge=0, le=MAX_FRAME, description=_FRAME)
    plane: PlaneName | None = Field(None, description=_PLANE)
    window: str | None = Field(None, pattern=WINDOW, description=_WINDOW)
    model: ModelName | None = Field(None, description=CHOSEN_MODEL)


class RetrieveRequest(Wire):
    """Images of a DICOMweb server: an address, or a study of the service that the settings name."""

    address: str | None = Field(
        None,
        description="A study, a series or one instance of a server that this one may retrieve from.",
        max_length=500,
        examples=["dicomweb://pacs.example.org/dicom-web/studies/1.2.3/series/1.2.3.4"],
    )
    study: str | None = Field(
        None,
        description="StudyInstanceUID, in place of the address, of the one service that the settings name.",
        pattern=UID,
        max_length=64,
        examples=["1.2.3"],
    )
    series: str | None = Field(
        None, description="SeriesInstanceUID, with study; null: all its series.", pattern=UID, max_length=64
    )


class DicomInstance(Wire):
    """A DICOM image."""

    sop_class_uid: str = Field(description="SOPClassUID.", pattern=UID, max_length=64, examples=[CT_IMAGE_CLASS])
    sop_instance_uid: str = Field(description="SOPInstanceUID.", pattern=UID, max_length=64, examples=["1.2.3.4.5"])


class DicomReportSource(Wire):
    """The images that a DICOM report is about, and what it must repeat of them."""

    study_uid: str = Field(description="StudyInstanceUID.", pattern=UID, max_length=64, examples=["1.2.3"])
    series_uid: str = Field(description="SeriesInstanceUID.", pattern=UID, max_length=64, examples=["1.2.3.4"])
    instances: list[DicomInstance] = Field(description="The images.", min_length=1, max_length=4096)
    patient_id: str = Field("", description="PatientID: by it an archive knows the patient.", max_length=64)
    patient_name: str = Field("", description="PatientName.", max_length=64)
    patient_birth_date: str = Field("", description="PatientBirthDate, YYYYMMDD.", pattern="^([0-9]{8})?$")
    patient_sex: Literal["", "M", "F", "O"] = Field("", description="PatientSex.")


class DicomReportOptions(Wire):
    """UIDs of a DICOM report."""

    source: DicomReportSource | None = Field(
        None, description="The images; null: what was stored with the image (MEDICAL_VQA_DICOM_REPORTS)."
    )
    series_uid: str | None = Field(
        None, description="SeriesInstanceUID of the report; null: a new one.", pattern=UID, max_length=64
    )
    instance_uid: str | None = Field(
        None, description="SOPInstanceUID of the report, with series_uid; null: a new one.", pattern=UID, max_length=64
    )


class DicomReportRequest(DicomReportOptions):
    """Questions whose answers are written as a DICOM report."""

    questions: list[Question] = Field(description="In words.", min_length=1, max_length=MAX_QUESTIONS)
    frame: int | None = Field(None, ge=0, le=MAX_FRAME, description=_FRAME)
    plane: PlaneName | None = Field(None, description=_PLANE)
    window: str | None = Field(None, pattern=WINDOW, description=_WINDOW)
    model: ModelName | None = Field(None, description=CHOSEN_MODEL)


class JobQuestion(Wire):
    """One line of a job's input."""

    id: str | int | None = Field(None, description="Repeated in the answer's line.", examples=[1])
    image_id: str = Field(description="As POST /upload_image returned it.", max_length=64, examples=[IMAGE_ID_EXAMPLE])
    question: Question = Field(description="In words; no control characters.", examples=[QUESTION_EXAMPLE])
    model: ModelName | None = Field(None, description=CHOSEN_MODEL)


class LoadModelRequest(Wire):
    """A model to load."""

    model: str = Field(
        description="What `serve --model` may name: a run folder, a bundle, hub:USER/NAME ...",
        min_length=1,
        max_length=500,
        examples=["runs/next"],
    )
    fraction: float = Field(
        0.0, ge=0, lt=1, description="Part of the images that it answers where a request names no model."
    )


class FractionRequest(Wire):
    """A canary's part."""

    fraction: float = Field(
        ge=0, le=1, description="Part of the images; 1 makes it the default model.", examples=[0.05]
    )


_DICOM_REPORT = (
    "Whether UIDs are stored with the image, so that answers can be exported as a DICOM report without more."
)


# --- answers ----------------------------------------------------------------------------------------------------------


class UploadedImage(Wire):
    """An uploaded image, ready for questions."""

    image_id: str = Field(description="Identifies the image in later requests.", examples=[IMAGE_ID_EXAMPLE])
    width: int = Field(description="Pixels, in upright orientation.", examples=[512])
    height: int = Field(description="Pixels, in upright orientation.", examples=[512])
    format: str = Field(description="File format: JPEG, PNG, BMP, TIFF, WEBP, DICOM or NIFTI.", examples=["JPEG"])
    frames: int = Field(1, description="Frames or slices in the file, of which one was decoded.")
    frame: int = Field(0, description="The frame that was decoded, from 0; by default the middle one.")
    window_source: Literal["option", "header", "header LUT", "percentiles"] | None = Field(
        None, description="Where the window came from; null: the pixels are unchanged."
    )
    plane: str | None = Field(
        None, description="Plane nearest to the picture: axial, coronal or sagittal; null: the header does not say."
    )
    warnings: list[str] = Field(
        default_factory=list, description="What could not be used, or what to be careful about, in sentences."
    )
    removed_metadata: list[str] = Field(
        default_factory=list,
        description="Parts of the file that were not stored.",
        examples=[["EXIF", "ICC profile"]],
    )
    header_fields: dict[str, str] = Field(
        default_factory=dict,
        description="DICOM header fields on the allow-list (modality, body part, window).",
        examples=[{"Modality": "CT", "WindowCenter": "40", "WindowWidth": "400"}],
    )
    burned_in_annotation: bool | None = Field(
        None, description="Whether the header declares text burned into the pixels; null: it does not say."
    )
    spacing: Annotated[tuple[float, float], WithJsonSchema(array_of_numbers(2))] | None = Field(
        None,
        description="Distance of rows and of columns in millimeters, from the header; null: it does not say.",
        examples=[[0.7, 0.7]],
    )
    expires_in_seconds: float | None = Field(
        None, description="How long the image is stored; null: until it is deleted.", examples=[3600.0]
    )
    dicom_report: bool = Field(False, description=_DICOM_REPORT)


class NamedWindow(Wire):
    """A window: the values that are shown from black to white."""

    name: str = Field(description="Name, as a request may give it.", examples=["lung"])
    center: float = Field(description="Value that is shown half gray.", examples=[-600.0])
    width: float = Field(description="Range of values.", examples=[1500.0])


class ValueRange(Wire):
    """The values of a stored image."""

    low: float = Field(description="The smallest.", examples=[-1024.0])
    high: float = Field(description="The largest.", examples=[3071.0])
    unit: str | None = Field(None, description="HU for CT; null: not known.", examples=["HU"])


class ImageFacts(Wire):
    """What can be shown of a stored image or series."""

    series: bool = Field(False, description="Whether questions without a frame are asked about several slices.")
    modality: str | None = Field(None, description="DICOM modality, where it is a defined term.", examples=["CT"])
    body_part: str | None = Field(None, description="Body part, where it is a defined term.", examples=["CHEST"])
    planes: dict[PlaneName, int] = Field(description="Planes that can be shown, with their number of slices.")
    plane: PlaneName = Field("axial", description="The plane of the stored slices.")
    frame: int = Field(0, description="The slice that is shown by default, from 0.")
    spacing_mm: Annotated[tuple[float, float, float], WithJsonSchema(array_of_numbers(3))] | None = Field(
        None, description="Distance of rows, columns and slices of the stored plane in millimeters; null: not known."
    )
    windows: list[NamedWindow] = Field(default_factory=list, description="Windows to choose from.")
    window: NamedWindow | None = Field(None, description="The default window; null: the pixels are unchanged.")
    values: ValueRange | None = Field(
        None, description="Of the values that are stored; null: only a picture in 8 bits is."
    )
    inverted: bool = Field(False, description="Whether small values are bright.")
    orientation: dict[PlaneName, list[str]] = Field(
        default_factory=dict,
        description="What of the patient is at the left, right, top and bottom of a picture in each plane: R, L, A, P, "
        "S or I; no entry where the files do not say.",
    )
    dicom_report: bool = Field(False, description=_DICOM_REPORT)
    notes: list[str] = Field(default_factory=list, description="Codes of what was left out or is missing.")
    warnings: list[str] = Field(default_factory=list, description="The same and more in sentences.")


class ImageItem(ImageFacts):
    """A stored image or series."""

    image_id: str = Field(description="Identifies the image in later requests.", examples=[IMAGE_ID_EXAMPLE])
    expires_at: datetime | None = Field(None, description="When it is removed; null: not before it is deleted.")


class LeftOutFile(Wire):
    """A file that is in no series."""

    file: int = Field(description="Number of the file in the request or archive, from 0.", examples=[3])
    reason: str = Field(description="Why, in one sentence.", examples=["the file is a localizer of the series"])


class SeriesUpload(Wire):
    """What several files, or one of many slices, hold."""

    series: list[ImageItem] = Field(description="Each series or picture, those of many slices first.")
    left_out: list[LeftOutFile] = Field(default_factory=list, description="Files that are in none of them.")


class SliceAnswer(Wire):
    """The answer about one slice of a series."""

    frame: int = Field(description="The slice, from 0.", examples=[150])
    plane: PlaneName = Field(description="Its plane.")
    answer: str = Field(description="The best answer about it.", examples=["CT"])
    confidence: float | None = Field(None, description="In [0, 1]; null: none.", examples=[0.9])
    abstained: bool = Field(False, description="Whether the model abstains about this slice.")
    reason_code: str | None = Field(None, description="Why it abstains.")
    presence: float | None = Field(
        None,
        description="Probability that the slice shows what the question names; null where slices were spread evenly.",
    )


class Alternative(Wire):
    """One of the next best answers."""

    answer: str = Field(description="The answer.", examples=["CT"])
    confidence: float = Field(description="In [0, 1].", examples=[0.08])


class AttentionMap(Wire):
    """Where in the image an answer comes from: non-negative weights over a grid, summing to 1."""

    rows: int = Field(description="Rows of the grid, from the top of the image.", examples=[2])
    columns: int = Field(description="Columns of the grid, from the left of the image.", examples=[2])
    values: list[list[float]] = Field(
        description="One list of weights per row, over the whole image.", examples=[[[0.1, 0.2], [0.3, 0.4]]]
    )


class Timings(Wire):
    """Where the time went, in milliseconds."""

    queue_ms: float = Field(description="Waiting for the model.", examples=[2.1])
    model_ms: float = Field(description="In the model, together with the other questions of the batch.", examples=[6.3])
    total_ms: float = Field(description="From the request's arrival to its answer.", examples=[9.0])
    batch_size: int = Field(description="Questions that were answered together; 0: a cached answer.", examples=[4])


class ModelRef(Wire):
    """Which model answered."""

    name: str = Field(description="Name of the recipe.", examples=["slake-compact"])
    family: str = Field(description="The model family.", examples=["compact"])
    id: str = Field(description="SHA-256 over the bundle's files, shortened: equal ids give equal answers.")


class Answer(Wire):
    """An answer to one question."""

    image_id: str | None = Field(None, description="The image; null when it was sent with the question.")
    question: str = Field(description="The question that was answered.", examples=[QUESTION_EXAMPLE])
    answer: str = Field(description="The best answer, also where the model abstains.", examples=["MRI"])
    confidence: float | None = Field(
        None, description="In [0, 1], calibrated where the bundle has a temperature; null: none.", examples=[0.91]
    )
    confidence_basis: Literal["probability", "agreement"] | None = Field(
        None,
        description="For a remote model, what the confidence was computed from: the probabilities of its tokens, or "
        "the agreement of several answers.",
    )
    alternatives: list[Alternative] = Field(default_factory=list, description="The next best answers, best first.")
    abstained: bool = Field(False, description="Whether the model abstains: the answer should not be relied on.")
    reason: str | None = Field(None, description="One sentence, why the model abstains; null when it answers.")
    suggestions: list[str] = Field(
        default_factory=list,
        description="Where the model abstains: questions near in meaning that it answers about this image, at most 3.",
        examples=[[QUESTION_EXAMPLE]],
    )
    reason_code: str | None = Field(
        None, description="The reason for programs, such as `picture_does_not_matter`; null when it answers."
    )
    reason_arguments: dict[str, str] = Field({}, description="Values that the reason names.")
    image_dependence: float | None = Field(
        None,
        ge=0,
        le=1,
        description="How much this picture moves the answer, compared with other pictures of its type; null where that "
        "was not measured.",
    )
    source: Literal["picture", "usual", "knowledge"] | None = Field(
        None,
        description="Where the answer comes from: this picture, what is usual for pictures of its type, or general "
        "knowledge; null where that was not measured.",
    )
    side: Literal["patient", "picture", "both"] | None = Field(
        None,
        description="Whose left or right the answer names: the patient's, the picture's, or of an organ the patient's "
        "and of a position the picture's; null where it names neither.",
    )
    evidence: list[Evidence] = Field(
        default_factory=list,
        description="Where the model localizes what the question or the answer names, in pixels of the uploaded image "
        "(`width` and `height` of POST /upload_image), the most certain first; empty where it abstains.",
    )
    turns_read: int = Field(0, description="Earlier turns of the conversation that the model read.", examples=[2])
    attention_map: AttentionMap | None = Field(
        None, description="Where the answer comes from; null unless requested, or where the model has no attention map."
    )
    frame: int | None = Field(
        None, description="Of a stored series or frame, the slice that evidence and attention map belong to."
    )
    plane: PlaneName | None = Field(None, description="Plane of that slice.")
    slices: list[SliceAnswer] = Field(
        default_factory=list,
        description="Of a question about a series, the slices that the model received with the answers about them; of "
        "a model that takes several pictures in one question, each has the one answer.",
    )
    model: ModelRef = Field(description="Which model answered.")
    timings: Timings = Field(description="Where the time went.")
    disclaimer: str = Field(
        "Research software: not a medical device and not for diagnosis.", description="To be shown next to the answer."
    )


class Answers(Wire):
    """Answers to several questions about one image, in their order."""

    image_id: str = Field(description="The image.")
    answers: list[Answer] = Field(description="One per question.")


class Region(Wire):
    """A part of a picture, in its pixels, from the upper left corner."""

    shape: Literal["box", "circle"] = Field(description="What was drawn; a circle is given by the square around it.")
    left: float = Field(ge=0, le=1e6, description="Column where it begins.")
    top: float = Field(ge=0, le=1e6, description="Row where it begins.")
    right: float = Field(gt=0, le=1e6, description="Column where it ends.")
    bottom: float = Field(gt=0, le=1e6, description="Row where it ends.")


class TurnRating(Wire):
    """What a user says about an answer."""

    correct: bool = Field(description="Whether it is right.")
    correction: str = Field("", description="The right answer, where it is wrong.")


class ConversationTurn(Wire):
    """A question of a conversation with its answer."""

    key: str = Field(description="Chosen by the client; a key is asked once.")
    question: str = Field(description="In words.", examples=[QUESTION_EXAMPLE])
    status: Literal["pending", "answered", "failed"] = Field(description="How far it is.")
    answer: Answer | None = Field(None, description="The answer, once there is one.")
    failure: str | None = Field(None, description="The error code, where it failed.")
    failure_message: str | None = Field(None, description="What the server says about the failure, in English.")
    asked_at: int = Field(description="When it was asked, in milliseconds since 1970-01-01 UTC.")
    text: str | None = Field(None, description="The answer while it is written; null before and afterwards.")
    region: Region | None = Field(None, description="The part of the picture that the question is about.")
    region_answer: Answer | None = Field(None, description="The answer about that part alone.")
    frame: int | None = Field(None, description="The slice that was asked about, from 0; null: the stored picture.")
    plane: PlaneName | None = Field(None, description="Its plane.")
    window: str | None = Field(None, description="The window that it was shown in.")
    model: str | None = Field(None, description="Which model was asked; null: the default one.")
    other_image_ids: list[str] = Field(default_factory=list, description="Further images of the question.")
    rating: TurnRating | None = Field(None, description="What the user says about the answer.")


class ConversationImage(Wire):
    """An image of a conversation."""

    image: UploadedImage = Field(description="The image.")
    name: str = Field(description="What the user calls it.")
    turns: list[ConversationTurn] = Field(description="Questions, oldest first.")
    draft: str = Field("", description="A question that was typed and not sent.")
    expires_at: int | None = Field(
        None, description="When the image is deleted, in milliseconds since 1970-01-01 UTC; null: never by itself."
    )


class Conversation(Wire):
    """Images with their questions and answers."""

    id: str = Field(description="Identifies the conversation; it cannot be guessed.")
    version: int = Field(description="Grows with each change.")
    cases: list[ConversationImage] = Field(description="Images, oldest first.")
    expires_in_seconds: float | None = Field(None, description="How long it is stored after its last change.")


class ConversationQuestion(Wire):
    """A question for a conversation."""

    image_id: str = Field(description="One of its images.", max_length=64, examples=[IMAGE_ID_EXAMPLE])
    key: str = Field(description="Chosen by the client; a key is asked once.", min_length=8, max_length=64)
    question: Question = Field(description="In words; no control characters.", examples=[QUESTION_EXAMPLE])
    region: Region | None = Field(None, description="A part of the picture, about which the same is asked too.")
    frame: int | None = Field(None, ge=0, le=MAX_FRAME, description=_FRAME)
    plane: PlaneName | None = Field(None, description=_PLANE)
    window: str | None = Field(None, pattern=WINDOW, description=_WINDOW)
    model: ModelName | None = Field(None, description=CHOSEN_MODEL)
    other_image_ids: list[Annotated[str, Field(max_length=64)]] = Field(
        default_factory=list,
        max_length=MAX_PICTURES - 1,
        description="Further images of the conversation, for models that take several.",
    )


class StoredImageName(Wire):
    """An image that is stored already, such as a series, for a conversation."""

    image_id: str = Field(description="As the server returned it.", max_length=64, examples=[IMAGE_ID_EXAMPLE])
    name: str = Field("", description="What the user calls it.", max_length=200)


class RatingRequest(Wire):
    """A rating of an answer of a conversation."""

    image_id: str = Field(description="One of its images.", max_length=64, examples=[IMAGE_ID_EXAMPLE])
    key: str = Field(description="Of the question.", min_length=8, max_length=64)
    correct: bool = Field(description="Whether the answer is right.")
    correction: str = Field("", description="The right answer, where it is wrong.", max_length=MAX_QUESTION)
    keep_picture: bool = Field(False, description="Whether the user agrees that the picture is kept for training.")


class Draft(Wire):
    """A question that was typed and not sent."""

    image_id: str = Field(description="One of the conversation's images.", max_length=64)
    draft: str = Field(description="The text.", max_length=MAX_QUESTION)


class Suggestions(Wire):
    """Suggested questions about an image."""

    questions: list[str] = Field(description="Best first.", examples=[[QUESTION_EXAMPLE]])


class ExampleImage(Wire):
    """An image that ships with the server, with questions."""

    id: str = Field(description="Identifies the example.", examples=["xmlab112"])
    image_path: str = Field(description="Path of the image on this server.", examples=["/examples/xmlab112/image"])
    caption: str = Field(description="Modality and organ, in the dataset's words.", examples=["CT, abdomen"])
    questions: list[str] = Field(description="Questions to try.", examples=[[QUESTION_EXAMPLE]])
    answers: list[str] = Field(description="The dataset's answers to these questions, in their order.")


class Examples(Wire):
    """The examples and their source."""

    examples: list[ExampleImage] = Field(description="Several modalities and organs.")
    questions: list[str] = Field(description="Questions that suit most images.")
    source: str = Field(description="The dataset and its license.")


class Limits(Wire):
    """The limits of the server."""

    max_upload_bytes: int = Field(description="Size of a request's body.")
    max_series_bytes: int = Field(0, description="Size of a body of POST /series.")
    max_pixels: int = Field(description="Width times height times frames of an image.")
    max_question_characters: int = Field(description="Length of one question.")
    max_questions: int = Field(description="Questions in one request.")
    formats: list[str] = Field(description="Supported file formats.", examples=[["JPEG", "PNG", "DICOM"]])
    image_ttl_seconds: float | None = Field(None, description="How long an upload is stored; null: until deleted.")
    deadline_seconds: float = Field(description="A question is answered within this time or refused.")


class ModelInfo(Wire):
    """The card of the model that answers, and the limits of the server."""

    name: str = Field(description="Name of the recipe.")
    family: str = Field(description="The model family.")
    id: str = Field(description="SHA-256 over the bundle's files, shortened.")
    data: dict[str, Any] = Field(description="Dataset, filter, rows, license and citation of the data.")
    checkpoint_selection: dict[str, Any] = Field(
        description="The metric and split that selected the checkpoint, with its scores there."
    )
    facts: dict[str, Any] = Field(description="Parameter counts and sizes.")
    decoding: dict[str, Any] = Field(description="How answers are chosen.")
    calibration: dict[str, Any] = Field(description="Temperature and abstention threshold, with the data of their fit.")
    prompt: str | None = Field(None, description="Template of the question, where the family uses one.")
    license: str = Field(description="License of the weights.")
    intended_use: str = Field(description="What the model is for, and what it is not for.")
    created: str = Field(description="When the bundle was written: UTC, ISO 8601.")
    version: str = Field(description="Version of the package that trained the model.")
    has_attention_map: bool = Field(description="Whether answers can carry an attention map.")
    max_pictures: int = Field(1, description="Most pictures in one question.")
    max_turns: int = Field(0, description="Earlier turns that the model reads; 0: it does not remember.")
    streams: bool = Field(False, description="Whether an answer arrives while it is written.")
    reliability: list[dict[str, Any]] = Field(
        default_factory=list, description="Accuracy by type of question, next to a baseline that never sees the image."
    )
    localization: dict[str, Any] = Field(
        default_factory=dict, description="How well the evidence was measured to lie on masks and boxes, by entity."
    )
    collects_ratings: bool = Field(False, description="Whether ratings of answers are kept for training.")
    limits: Limits = Field(description="The limits of the server.")


class ServedModelInfo(Wire):
    """One model of the server."""

    name: str = Field(description="By which requests choose it.", examples=["next"])
    family: str = Field(description="The model family.", examples=["compact"])
    id: str = Field(description="SHA-256 over the bundle's files, shortened, as in every answer.")
    version: str = Field(description="Version of the package that trained the model.")
    is_default: bool = Field(description="Whether it answers requests that name no model.")
    fraction: float = Field(description="Part of the images that it answers for such requests.", examples=[0.05])
    ready: bool = Field(description="Whether it answers now.")
    queue: int = Field(description="Questions and pictures that wait for it.")
    memory_bytes: int | None = Field(
        None, description="Memory by which the process grew when it was loaded; null: not measured."
    )
    loaded_at: float = Field(description="Unix time.")


class ServedModels(Wire):
    """The models of the server."""

    models: list[ServedModelInfo] = Field(description="The one that the server was started with comes first.")


JobState = Literal["waiting", "running", "complete"]


class JobInfo(Wire):
    """A job."""

    id: str = Field(description="Identifies the job.")
    state: JobState = Field(description="running: on this server; waiting: on another one, or on none yet.")
    total: int = Field(description="Questions.", examples=[20000])
    done: int = Field(description="Lines of the output.", examples=[512])
    created_at: float = Field(description="Unix time.")


class JobList(Wire):
    """Jobs."""

    jobs: list[JobInfo] = Field(description="The newest first.")


class Health(Wire):
    """Whether the server is alive, or ready for requests."""

    status: Literal["ok", "ready"] = Field(description="ok: it is alive; ready: it answers questions.")


# --- errors -----------------------------------------------------------------------------------------------------------


class ProblemDetail(Wire):
    """One error."""

    code: ErrorCode = Field(description="For programs.", examples=["unknown_image"])
    message: str = Field(
        description="One sentence for people: what was expected, and what to do.",
        examples=["no image has this id; upload it again"],
    )


class Problem(Wire):
    """The body of every error."""

    detail: ProblemDetail = Field(description="The error.")
