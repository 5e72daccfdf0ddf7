"""Settings of the page: environment variables, or the page's secrets under the same names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BACKEND = "MEDICAL_VQA_BACKEND"
COMPARE = "MEDICAL_VQA_COMPARE"
API_KEY = "MEDICAL_VQA_API_KEY"
FEEDBACK = "MEDICAL_VQA_FEEDBACK"
VARIABLES = (BACKEND, COMPARE, API_KEY, FEEDBACK)
DEFAULT_BACKEND = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class AppSettings:
    """Backends that answer, and where feedback is stored."""

    backend: str = DEFAULT_BACKEND
    """Address of the backend."""
    compare: str | None = None
    """Address of a second backend to compare with; set by the operator of the page, never by a visitor."""
    api_key: str = ""
    """Bearer token for both backends."""
    feedback: Path | None = None
    """Folder for ratings and corrections; None: the page does not ask for any."""


def read_app_settings(environ: Mapping[str, str], secrets: Mapping[str, object]) -> AppSettings:
    """Settings from the environment first, then from the secrets; an empty value counts as missing."""

    def value(name: str) -> str:
        return (environ.get(name) or str(secrets.get(name) or "")).strip()

    return AppSettings(
        backend=value(BACKEND) or DEFAULT_BACKEND,
        compare=value(COMPARE) or None,
        api_key=value(API_KEY),
        feedback=Path(value(FEEDBACK)).expanduser() if value(FEEDBACK) else None,
    )
