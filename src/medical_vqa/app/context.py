"""What every part of the page needs during one run of its script."""

from __future__ import annotations

from dataclasses import dataclass

from medical_vqa.app.client import Backend
from medical_vqa.app.i18n.texts import Texts
from medical_vqa.app.session import Session
from medical_vqa.app.settings import AppSettings


@dataclass(frozen=True, slots=True)
class PageContext:
    """Session, backends, settings and texts of one run of the page's script."""

    session: Session
    """State of this visitor."""
    backends: tuple[Backend, ...]
    """The page's main backend, then the one for comparison, where one is configured."""
    settings: AppSettings
    """Settings of the page."""
    texts: Texts
    """Texts in the visitor's language."""

    @property
    def backend(self) -> Backend:
        """The page's main backend."""
        return self.backends[0]
