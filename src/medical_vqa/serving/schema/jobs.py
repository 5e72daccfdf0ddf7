"""Jobs: many questions that are answered in the background."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medical_vqa.serving.schema.common import (
    IMAGE_ID_EXAMPLE,
    QUESTION_EXAMPLE,
    ChosenModel,
    Question,
    Wire,
)


class JobQuestion(Wire):
    """One line of a job's input."""

    id: str | int | None = Field(None, description="Repeated in the answer's line.", examples=[1])
    image_id: str = Field(description="As POST /upload_image returned it.", max_length=64, examples=[IMAGE_ID_EXAMPLE])
    question: Question = Field(description="In words; no control characters.", examples=[QUESTION_EXAMPLE])
    model: ChosenModel = None


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
