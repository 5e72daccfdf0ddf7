"""What the use cases write into the audit log: who did what with which image, in which request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from medical_vqa.serving.audit_log import AuditLog
from medical_vqa.serving.clients import current_client
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.image_store.repository import ID_HEAD
from medical_vqa.serving.service.checks import PeriodicCheck
from medical_vqa.serving.settings import Settings


class Audit:
    """The audit log of a server, or none."""

    def __init__(self, settings: Settings) -> None:
        """Open the log that the settings name; raises `ConfigError` or `DataError` as `AuditLog` does."""
        self._log = AuditLog(settings.audit_log, with_text=settings.audit_text) if settings.audit_log else None
        self._check = PeriodicCheck(self._try_to_write, _unavailable)

    @property
    def enabled(self) -> bool:
        """Whether there is a log."""
        return self._log is not None

    async def check(self) -> None:
        """Raise `ApiError` (503) while the log, if there is one, cannot be written."""
        if self._log is not None:
            await self._check()

    async def _try_to_write(self) -> None:
        assert self._log is not None
        await asyncio.to_thread(self._log.check)

    async def write(self, event: str, picture: str, **fields: Any) -> None:
        """Write a line about one image, as `write_all` does."""
        await self.write_all(event, [picture], **fields)

    async def write_all(self, event: str, pictures: Sequence[str], **fields: Any) -> None:
        """Write a line about each image of one request, or about none; nothing where there is no log.

        Args:
            event: What was done, such as ``upload``.
            pictures: Key of each image, which is named by its head.
            fields: What else each line has; a question is written as the settings say.

        Raises:
            ApiError: They cannot be written (503): what is not recorded is not given out.
        """
        if self._log is None:
            return
        log, client = self._log, current_client()
        if "question" in fields:
            fields["question"] = log.question(fields["question"])
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        who = {"client": client.name, "tenant": client.tenant, "request_id": request_id}
        lines = [{**who, "image": log.digest(picture[:ID_HEAD]), **fields} for picture in pictures]
        try:
            await asyncio.to_thread(log.write_all, event, lines)
        except OSError as error:
            self._check.repeat()
            raise _unavailable() from error


def _unavailable() -> ApiError:
    message = "the audit log of this server cannot be written, and nothing is done without it; try again later"
    return ApiError(503, "not_ready", message, {"Retry-After": "5"})
