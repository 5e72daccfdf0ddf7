"""What the server is started with: ``MEDICAL_VQA_*`` variables and options, refused when they make no sense.

``MEDICAL_VQA_STORE=s3://bucket/uploads`` sets `store`; lists are separated by commas. ``PORT`` is read where the
platform sets it. `medical-vqa serve --help` lists the options that most people need.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from medical_vqa import registry
from medical_vqa.errors import ConfigError
from medical_vqa.serving.image_store.backends import store_scheme
from medical_vqa.text import nearest

PREFIX = "MEDICAL_VQA_"
_OTHERS = {"HOME", "BACKEND", "COMPARE", "API_KEY", "FEEDBACK"}  # read elsewhere in the package
_RATE = re.compile(r"^\d+ ?/ ?(\d+ ?)?(second|minute|hour|day)s?$")
MEBIBYTE = 1 << 20

Names = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", populate_by_name=True)

    model: Path | None = None
    """A bundle or a run folder; None: the model that ships."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``mps``, or the best there is."""
    host: str = "127.0.0.1"
    """Address to listen on; ``0.0.0.0`` inside a container."""
    port: int = Field(8000, ge=0, le=65535, validation_alias=AliasChoices("port", PREFIX + "PORT", "PORT"))
    """0: any free one."""

    store: str = "memory://"
    """Where uploads live: ``memory://``, a folder or ``file://``, ``s3://``, ``gs://``, ``redis://``."""
    store_bytes: int = Field(512 * MEBIBYTE, ge=MEBIBYTE)
    """Bound of the memory or folder store; the least recently used go first."""
    store_ttl: float | None = Field(3600.0, gt=0)
    """Seconds that an upload is kept; None (``0`` or ``none``): until it is deleted or pushed out."""
    hot_bytes: int = Field(128 * MEBIBYTE, ge=MEBIBYTE)
    """Features of recently asked images that stay in this process."""
    keep_originals: bool = False
    """Whether the file as uploaded, header and all, is kept beside the picture."""

    max_upload_bytes: int = Field(32 * MEBIBYTE, ge=1024)
    """Of a request's body; larger ones are refused before they are read."""
    max_pixels: int = Field(64_000_000, ge=64)
    """Width times height (times frames) of a picture, looked at before it is decoded."""
    upload_timeout: float = Field(20.0, gt=0)
    """Seconds within which a whole body has to arrive."""
    decoders: int = Field(1, ge=0, le=64)
    """Processes that decode uploads; 0: threads of this process, without a memory limit."""
    decoder_bytes: int = Field(2048 * MEBIBYTE, ge=256 * MEBIBYTE)
    """Address space that one decoder may take beyond its own start."""
    decode_timeout: float = Field(15.0, gt=0)
    """Seconds for decoding one upload."""

    batch: int | None = Field(None, ge=1, le=512)
    """Questions answered at once; None: 8 on a CPU, 64 on a GPU."""
    batch_wait_ms: float = Field(3.0, ge=0, le=100)
    """How long a batch waits for others while several clients ask."""
    queue: int = Field(256, ge=1)
    """Questions and uploads waiting for the model; beyond it 429."""
    deadline: float = Field(7.0, gt=0)
    """Seconds in which a question is answered or refused; below `drain`, so that a stop loses nothing."""
    drain: float = Field(8.0, gt=0, le=300)
    """Seconds that running requests are given after SIGTERM."""
    cached_answers: int = Field(10_000, ge=0)
    """Answers that are remembered; 0: none."""

    api_keys: Names = ()
    """SHA-256 (hex) of the keys that are let in, or NAME:HASH; empty: everyone is. `serve --new-key` makes one."""
    rate: str | None = None
    """Requests of one key (or address, without keys), such as ``60/minute``; None: no limit."""
    trusted_proxies: Names = ()
    """Addresses whose X-Forwarded-For is believed."""
    cors_origins: Names = ()
    """Origins whose pages may call this server from a browser; empty: none."""
    remote_images: bool = False
    """Whether chat requests may name http(s) images, which this server then fetches."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged."""
    log_content: bool = False
    """Whether questions and answers are logged; never images."""
    metrics: bool = True
    """Whether GET /metrics is served."""
    docs: bool = True
    """Whether the API's description is served (/docs, /openapi.json)."""
    otel: bool = False
    """Whether spans go to the OpenTelemetry collector that the OTEL_* variables name."""

    @field_validator("api_keys", "trusted_proxies", "cors_origins", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("store_ttl", mode="before")
    @classmethod
    def _forever(cls, value: Any) -> Any:
        return None if str(value).strip().lower() in ("0", "none", "") else value

    @field_validator("api_keys")
    @classmethod
    def _hashed(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            if not re.fullmatch(r"([\w.-]+:)?[0-9a-f]{64}", entry):
                raise ValueError("expected SHA-256 hashes, not keys; make one with: medical-vqa serve --new-key")
        return value

    @field_validator("rate")
    @classmethod
    def _a_rate(cls, value: str | None) -> str | None:
        if value is not None and not _RATE.match(value):
            raise ValueError("expected a number per second, minute, hour or day, such as 60/minute")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not re.fullmatch(r"https?://[\w.-]+(:\d+)?", origin):
                raise ValueError(f"expected origins such as https://app.example.org, got {origin!r}")
        return value

    @field_validator("store")
    @classmethod
    def _known_store(cls, value: str) -> str:
        if store_scheme(value) not in (known := registry.names("image_stores")):
            raise ValueError(
                f"expected a folder or a URL of {', '.join(f'{name}://' for name in known)}, got {value!r}"
            )
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.deadline >= self.drain:
            raise ValueError(
                f"deadline ({self.deadline:g} s) must be below drain ({self.drain:g} s), or a stop cuts answers off"
            )
        if self.max_upload_bytes > self.store_bytes:
            raise ValueError("store_bytes must not be below max_upload_bytes")
        return self


def read_settings(environ: Mapping[str, str] | None = None, **options: Any) -> Settings:
    """Settings from the environment, options first; raises `ConfigError` with one sentence on what makes no sense."""
    _refuse_unknown(os.environ if environ is None else environ)
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        what = first["msg"].removeprefix("Value error, ")
        where = f"setting {name.upper().removeprefix(PREFIX)}: " if name else "settings: "
        raise ConfigError(
            f"{where}{what[:1].lower() + what[1:]}; correct the {PREFIX}* variable or the option"
        ) from None


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = {name.upper() for name in Settings.model_fields} | _OTHERS
    for name in sorted(environ):
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in known:
            similar = nearest(name.removeprefix(PREFIX), known)
            hint = f"did you mean {PREFIX}{similar}?" if similar else "remove it"
            raise ConfigError(f"there is no setting {name}; {hint}")
