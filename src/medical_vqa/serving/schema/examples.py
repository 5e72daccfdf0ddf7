"""Images that ship with the server, with questions to try."""

from __future__ import annotations

from pydantic import Field

from medical_vqa.serving.schema.common import QUESTION_EXAMPLE, Wire


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
