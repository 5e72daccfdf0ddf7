"""Whether the server is alive, or ready for requests."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medical_vqa.serving.schema.common import Wire


class Health(Wire):
    """Whether the server is alive, or ready for requests."""

    status: Literal["ok", "ready"] = Field(description="ok: it is alive; ready: it answers questions.")
