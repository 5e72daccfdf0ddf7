"""The base of the wire types, and the fields, bounds and patterns that several of them share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_QUESTION = 1_000
"""Characters of a question; more is answered with 422."""
MAX_QUESTIONS = 32
"""Questions in one request; more are answered with 422."""
MAX_PICTURES = 100
"""Pictures in one question; more are answered with 422. The model may take fewer."""
QUESTION = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
"""Pattern of a question: no control characters, and not only spaces."""
IMAGE_ID = r"^[0-9a-f]{24}-[A-Za-z0-9_-]{22}$"
"""Pattern of an image id: a content hash and a random part that cannot be guessed."""
QUESTION_EXAMPLE = "What modality is used to take this image?"
IMAGE_ID_EXAMPLE = "0f343b0931126a20f133d67c-2nZrYw8q5bYvQm1sT0uXhA"
PlaneName = Literal["axial", "coronal", "sagittal"]
"""A plane through the patient; of pictures whose place in the patient is not known, ``axial`` is the stored one."""
WINDOW = r"^([a-z_]{1,20}|-?[0-9]{1,7}(\.[0-9]{1,4})?,[0-9]{1,7}(\.[0-9]{1,4})?)$"
"""Pattern of a window: a name, or center and width with a comma between them."""
MAX_FRAME = 1_000_000
UID = r"^[0-2](\.(0|[1-9][0-9]*))+$"
"""Pattern of a UID of DICOM."""
BIRTH_DATE = "^([0-9]{8})?$"
"""Pattern of a date of DICOM, or of none."""
MODEL_NAME = r"^[A-Za-z0-9][\w.:-]{0,63}$"
"""Pattern of the name of a model on a server."""


class Wire(BaseModel):
    """Common to all wire types: unknown fields of a request are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Question = Annotated[str, Field(min_length=1, max_length=MAX_QUESTION, pattern=QUESTION)]
"""A question in words."""
ModelName = Annotated[str, Field(min_length=1, max_length=200)]
"""Name of a model on a server."""
CHOSEN_MODEL = "Which model answers, as GET /models lists it; null: the default one, or a canary."
ChosenModel = Annotated[ModelName | None, Field(description=CHOSEN_MODEL)]
AskedFrame = Annotated[
    int | None,
    Field(
        ge=0,
        le=MAX_FRAME,
        description="The slice or frame to ask about, from 0; null: of a series several slices, else the stored "
        "picture.",
    ),
]
AskedPlane = Annotated[PlaneName | None, Field(description="Plane of the slices; null: that of the stored ones.")]
AskedWindow = Annotated[
    str | None,
    Field(
        pattern=WINDOW,
        description="Values to show, as CENTER,WIDTH or the name of a window of GET /images/ID; null: the default "
        "window.",
    ),
]
