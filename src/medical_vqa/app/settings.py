"""What the page is started with: variables of the environment, or the page's secrets under the same names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BACKEND = "MEDICAL_VQA_BACKEND"
COMPARE = "MEDICAL_VQA_COMPARE"
API_KEY = "MEDICAL_VQA_API_KEY"
FEEDBACK = "MEDICAL_VQA_FEEDBACK"
NAMES = (BACKEND, COMPARE, API_KEY, FEEDBACK)
HERE = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class AppSettings:
    """Where the page's answers come from and where feedback goes."""

    backend: str = HERE
    """Address of the backend."""
    compare: str | None = None
    """Address of a second backend, whose answers can be shown beside; set by who runs the page, never by a visitor."""
    api_key: str = ""
    """Sent to both as a bearer token."""
    feedback: Path | None = None
    """Folder for thumbs and corrections; None: the page does not ask for any."""


def read_app_settings(environ: Mapping[str, str], secrets: Mapping[str, object]) -> AppSettings:
    """Settings from the environment first, then from the secrets; an empty value is none."""

    def value(name: str) -> str:
        return (environ.get(name) or str(secrets.get(name) or "")).strip()

    return AppSettings(
        backend=value(BACKEND) or HERE,
        compare=value(COMPARE) or None,
        api_key=value(API_KEY),
        feedback=Path(value(FEEDBACK)).expanduser() if value(FEEDBACK) else None,
    )
