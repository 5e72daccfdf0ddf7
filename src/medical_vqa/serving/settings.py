"""The server's settings: ``MEDICAL_VQA_*`` variables and options, refused at the start when they make no sense.

``MEDICAL_VQA_STORE=s3://bucket/uploads`` sets `store`; lists are separated by commas. ``PORT`` is read where the
platform sets it. `medical-vqa serve --help` lists the options that most people need.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from medical_vqa import registry
from medical_vqa.errors import ConfigError
from medical_vqa.schema.mistakes import mistakes_in
from medical_vqa.serving.image_store.base import store_scheme
from medical_vqa.serving.key_file import RATE
from medical_vqa.text import nearest

PREFIX = "MEDICAL_VQA_"
MEBIBYTE = 1 << 20
_READ_ELSEWHERE = {  # variables of other parts of the package
    "HOME",
    "BACKEND",
    "COMPARE",
    "API_KEY",
    "DICOMWEB_TOKENS",
    "MODELS",
}
_KEY_HASH = re.compile(r"([\w.-]+:)?[0-9a-f]{64}")
_SERVICE = re.compile(r"dicomweb://([\w.-]+|\[[0-9a-fA-F:]+\])(:\d+)?(/[\w.~-]+)*/?")
_HOST = re.compile(r"([\w.-]+|\[[0-9a-fA-F:]+\])(:\d+)?")
_ORIGIN = re.compile(r"https?://[\w.-]+(:\d+)?")

_FURTHER_MODEL = re.compile(r"([A-Za-z0-9][\w.:-]{0,63})=([^@]+?)(?:@(\d*\.?\d+))?")

_LEAST_MEMORY = 512 * MEBIBYTE
_UNLIMITED = 1 << 60  # version 1 of control groups says 2^63 rounded to pages, version 2 says "max"
_DEFAULT_MEMORY = 4096 * MEBIBYTE
_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_DECODER_BYTES_PER_PIXEL = 16  # of the costliest pictures, 16-bit PNG and DICOM: benchmarks/serve_attacks.py


def container_memory() -> int:
    """The memory limit of this container, or 4 GiB where there is none."""
    for path in _CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            limit = int(Path(path).read_text(encoding="ascii"))
            if limit < _UNLIMITED:
                return max(limit, _LEAST_MEMORY)
    return _DEFAULT_MEMORY


def _part_of_memory(part: int, most: int | None = None) -> Callable[[dict[str, Any]], int]:
    """A default that is one of so many parts of the memory."""

    def part_of_memory(settings: dict[str, Any]) -> int:
        size = int(settings.get("memory_bytes", _DEFAULT_MEMORY)) // part
        return size if most is None else min(size, most)

    return part_of_memory


def _store_size(settings: dict[str, Any]) -> int:
    in_memory = store_scheme(str(settings.get("store", ""))) == "memory"
    return _part_of_memory(8)(settings) if in_memory else 512 * MEBIBYTE


def _decoder_memory(settings: dict[str, Any]) -> int:
    return 3 * _part_of_memory(8)(settings) // max(1, int(settings.get("decoder_processes", 1)))


def _series_size(settings: dict[str, Any]) -> int:
    bodies = int(settings.get("body_bytes", _DEFAULT_MEMORY))
    return min(_part_of_memory(16, 512 * MEBIBYTE)(settings), bodies)


def _pixels(settings: dict[str, Any]) -> int:
    memory = int(settings.get("decoder_memory_bytes", _DEFAULT_MEMORY))
    millions = memory // _DECODER_BYTES_PER_PIXEL // 1_000_000
    return 1_000_000 * min(max(1, millions), 64)


CommaSeparated = Annotated[tuple[str, ...], NoDecode]


def parse_further_model(entry: str) -> tuple[str, str, float]:
    """Name, model and fraction of NAME=MODEL or NAME=MODEL@FRACTION; raises `ValueError`."""
    match = _FURTHER_MODEL.fullmatch(entry)
    if match is None:
        raise ValueError(f"expected NAME=MODEL or NAME=MODEL@FRACTION, got {entry!r}")
    fraction = float(match[3] or 0)
    if not 0 <= fraction < 1:
        raise ValueError(f"expected a fraction in [0, 1), got {fraction:g}")
    return match[1], match[2], fraction


class Settings(BaseSettings):
    """All settings of the server."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True
    )

    model: str | Path | None = None
    """Name of a model, local or remote, as `ask` takes it; None: the shipped model."""
    base_url: str | None = None
    """Address of a remote model up to and with ``/v1``; None: that of its program on this machine."""
    api_key_env: str | None = None
    """Variable that holds the key of a remote model; None: ``OPENAI_API_KEY``, or what ``models.yaml`` says."""
    allow_http: bool = False
    """Whether that key may be sent to another machine without encryption."""
    further_models: CommaSeparated = ()
    """Models that requests may name, as NAME=MODEL; with @FRACTION also for a part of the images, as a canary."""
    remote_concurrency: int = Field(64, ge=1, le=4096)
    """Requests to a remote model that run at once."""
    remote_deadline: float = Field(120.0, gt=0)
    """Seconds in which a remote model answers or its question is refused; a stop waits as long."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``mps``, or the best available."""
    host: str = "127.0.0.1"
    """Address to listen on; ``0.0.0.0`` inside a container."""
    port: int = Field(8000, ge=0, le=65535, validation_alias=AliasChoices("port", PREFIX + "PORT", "PORT"))
    """Port to listen on; 0: any free one."""
    workers: int = Field(1, ge=1, le=64)
    """Processes of the server, which divide the memory among them; several need a store outside of memory."""

    memory_bytes: int = Field(default_factory=container_memory, ge=_LEAST_MEMORY)
    """Memory of server and decoders, of which the limits below are shares; None: the container's limit, else 4 GiB."""

    store: str = "memory://"
    """Where uploads live: ``memory://``, a folder or ``file://``, ``s3://``, ``gs://``, ``redis://``."""
    store_bytes: int = Field(default_factory=_store_size, ge=MEBIBYTE)
    """Bound of a store in memory (the least recently used go first) or in a folder (512 MiB; the oldest go first)."""
    store_ttl: float | None = Field(3600.0, gt=0)
    """Seconds that an upload is stored; None (``0`` or ``none``): until it is deleted or the store is full."""
    image_cache_bytes: int = Field(default_factory=_part_of_memory(32), ge=MEBIBYTE)
    """Features of recently used images that stay in memory."""
    keep_originals: bool = False
    """Whether the uploaded file, header and all, is stored next to the picture."""

    max_upload_bytes: int = Field(default_factory=_part_of_memory(32, 128 * MEBIBYTE), ge=1024)
    """Size of a body that carries an image; larger ones are refused before they are read, others beyond 64 KiB."""
    body_bytes: int = Field(default_factory=_part_of_memory(8), ge=1024)
    """Bytes of all bodies in flight; one client may hold a quarter of them, or one body."""
    max_series_bytes: int = Field(default_factory=_series_size, ge=1024)
    """Size of a body of POST /series: several files or an archive; larger ones are refused before they are read."""
    series_memory_bytes: int = Field(default_factory=_part_of_memory(4), ge=64 * MEBIBYTE)
    """Address space that the decoder of series may use; the values of one request's series take a fifth of it."""
    series_cache_bytes: int = Field(default_factory=_part_of_memory(16), ge=MEBIBYTE)
    """Values of recently shown series that stay in memory."""
    series_timeout: float = Field(60.0, gt=0)
    """Seconds within which a body of POST /series must arrive, and then again be decoded."""
    max_connections: int = Field(default_factory=_part_of_memory(512 * 1024, 8192), ge=1)
    """Connections at once; further ones are refused."""
    keep_alive: float = Field(30.0, gt=0, le=3600)
    """Seconds that an idle connection stays open; longer than that of a proxy in front, or it meets closed ones."""
    decoder_processes: int = Field(1, ge=0, le=64)
    """Processes that decode uploads; 0: a thread of the server, without a memory limit."""
    decoder_memory_bytes: int = Field(default_factory=_decoder_memory, ge=64 * MEBIBYTE)
    """Address space that one decoder may use beyond what it has at its start."""
    max_pixels: int = Field(default_factory=_pixels, ge=64)
    """Width times height (times frames) of an image, checked before it is decoded: what the decoder's memory allows."""
    upload_timeout: float = Field(20.0, gt=0)
    """Seconds within which a whole body must arrive."""
    decode_timeout: float = Field(5.0, gt=0)
    """Seconds for decoding one upload; the wait for a decoder and this count towards `deadline`."""

    batch_size: int | None = Field(None, ge=1, le=512)
    """Questions answered together; None: 8 on a CPU, 64 on a GPU."""
    batch_wait_ms: float = Field(3.0, ge=0, le=100)
    """How long a batch waits for more questions while several clients ask."""
    queue_size: int = Field(256, ge=1)
    """Questions and uploads that may wait for the model; beyond it 429."""
    deadline: float = Field(7.0, gt=0)
    """Seconds in which a question is answered or refused; below `drain_timeout`, so that a stop loses nothing."""
    drain_timeout: float = Field(8.0, gt=0, le=300)
    """Seconds that running requests get after SIGTERM."""
    answer_cache_size: int = Field(10_000, ge=0)
    """Answers that are cached; 0: none."""

    api_keys: CommaSeparated = ()
    """SHA-256 (hex) of the accepted keys, or NAME:HASH; empty: no key is needed. `serve --new-key` prints one."""
    keys_file: Path | None = None
    """A YAML file of keys with tenants, roles, rates and quotas, read again when it changes; None: no such keys."""
    rate_limit: str | None = None
    """Requests per key (or per address, without keys), each further question counted; None: no limit."""
    trusted_proxies: CommaSeparated = ()
    """Addresses whose X-Forwarded-For header is trusted."""
    cors_origins: CommaSeparated = ()
    """Origins whose pages may call this server from a browser; empty: none."""
    dicomweb_hosts: CommaSeparated = ()
    """HOST or HOST:PORT of the DICOMweb servers that POST /images/dicomweb may retrieve from; empty: none."""
    dicomweb_service: str | None = None
    """dicomweb://HOST/PATH of the service whose studies the page opens by /?study=UID; None: it opens none."""
    dicom_reports: bool = False
    """Whether UIDs and the patient's elements of DICOM images are stored, for answers as a DICOM report."""
    remote_images: bool = False
    """Whether chat requests may name http(s) images, which this server then fetches."""

    jobs: Path | None = None
    """A folder for jobs, which servers may share; None: POST /jobs is refused."""
    audit_log: Path | None = None
    """A folder for the audit log, which one server writes; None: none is written."""
    audit_text: bool = False
    """Whether questions are in the audit log in words, and not as salted digests."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged."""
    log_format: Literal["auto", "json", "text"] = "auto"
    """How a log line is written; auto: for people in a terminal, as JSON elsewhere."""
    log_content: bool = False
    """Whether questions and answers are logged; never images."""
    metrics: bool = True
    """Whether GET /metrics is served."""
    page: bool = False
    """Whether the web page is served (/page)."""
    feedback: Path | None = None
    """Folder for ratings of the page's users; None: it asks for none."""
    docs: bool = True
    """Whether the API's description is served (/docs, /openapi.json)."""
    otel: bool = False
    """Whether spans go to the OpenTelemetry collector that the OTEL_* variables name."""

    @field_validator("api_keys", "trusted_proxies", "cors_origins", "dicomweb_hosts", "further_models", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("store_ttl", mode="before")
    @classmethod
    def _parse_ttl(cls, value: Any) -> Any:
        return None if str(value).strip().lower() in ("0", "none", "") else value

    @field_validator("api_keys")
    @classmethod
    def _check_api_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(_KEY_HASH.fullmatch, value)):
            raise ValueError("expected SHA-256 hashes, not keys; print one with: medical-vqa serve --new-key")
        return value

    @field_validator("rate_limit")
    @classmethod
    def _check_rate_limit(cls, value: str | None) -> str | None:
        if value is not None and not re.match(RATE, value):
            raise ValueError("expected a number of at least 1 per second, minute, hour or day, such as 60/minute")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _check_trusted_proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in value:
            try:
                ipaddress.ip_network(proxy)
            except ValueError:
                raise ValueError(f"expected addresses or networks such as 10.0.0.0/8, got {proxy!r}") from None
        return value

    @field_validator("cors_origins")
    @classmethod
    def _check_cors_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"expected origins such as https://app.example.org, got {origin!r}")
        return value

    @field_validator("dicomweb_hosts")
    @classmethod
    def _check_dicomweb_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not _HOST.fullmatch(host):
                raise ValueError(f"expected hosts such as pacs.example.org or 127.0.0.1:8042, got {host!r}")
        return value

    @field_validator("dicomweb_service")
    @classmethod
    def _check_dicomweb_service(cls, value: str | None) -> str | None:
        if value is not None and not _SERVICE.fullmatch(value):
            raise ValueError("expected dicomweb://HOST/PATH, such as dicomweb://pacs.example.org/dicom-web")
        return value

    @field_validator("further_models")
    @classmethod
    def _check_further_models(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        fractions = [parse_further_model(entry)[2] for entry in value]
        if sum(fractions) >= 1:
            raise ValueError("expected fractions with a sum below 1, for the default model has the rest")
        return value

    @field_validator("store")
    @classmethod
    def _check_store(cls, value: str) -> str:
        known = registry.names("image_stores")
        if store_scheme(value) not in known:
            urls = ", ".join(f"{scheme}://" for scheme in known)
            scheme = store_scheme(value)  # the rest of the URL may hold a password
            raise ValueError(f"expected a folder or a URL of {urls}, got one of {scheme}://")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.deadline >= self.drain_timeout:
            raise ValueError(
                f"deadline ({self.deadline:g} s) must be below drain_timeout ({self.drain_timeout:g} s), or a stop "
                "interrupts answers"
            )
        if self.max_upload_bytes > self.store_bytes:
            raise ValueError("store_bytes must not be below max_upload_bytes")
        if self.max_upload_bytes > self.body_bytes:
            raise ValueError("body_bytes must not be below max_upload_bytes")
        if self.max_series_bytes > self.body_bytes:
            raise ValueError("body_bytes must not be below max_series_bytes")
        if self.workers > 1:
            self._check_workers()
        return self

    def _check_workers(self) -> None:
        """Refuse what one process would not know of another."""
        scheme = store_scheme(self.store)
        if scheme == "memory":
            raise ValueError("workers share no store in memory; set store to a folder, redis://, s3:// or gs://")
        if self.rate_limit is not None and not scheme.startswith("redis"):
            raise ValueError("workers count rates together in a redis:// store alone; set that, or one worker")
        for name in ("page", "audit_log"):
            if getattr(self, name):
                raise ValueError(f"{name} needs one process; set one worker, and start further servers for the rest")
        if self.memory_bytes // self.workers < _LEAST_MEMORY:
            raise ValueError(
                f"each worker needs {_LEAST_MEMORY // MEBIBYTE} MiB of memory_bytes, which allow "
                f"{self.memory_bytes // _LEAST_MEMORY}"
            )

    def for_one_worker(self) -> Self:
        """The settings of one of the processes: its part of the memory, and the limits that follow from it."""
        values = {name: getattr(self, name) for name in self.model_fields_set}
        one = type(self)(**{**values, "memory_bytes": self.memory_bytes // self.workers, "workers": 1})
        return one.model_copy(update={"workers": self.workers})


def read_settings(environ: Mapping[str, str] | None = None, **options: Any) -> Settings:
    """Settings from the environment, where options take precedence.

    Args:
        environ: In which unknown ``MEDICAL_VQA_*`` variables are looked for; None: the process's environment.
        options: By the name of the setting; None: not given.

    Raises:
        ConfigError: With one line on all settings that make no sense.
    """
    _refuse_unknown(os.environ if environ is None else environ)
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        errors = error.errors(include_url=False)
        for details in errors:  # the location is an alias where a setting has several names
            details["loc"] = tuple(str(part).upper().removeprefix(PREFIX).lower() for part in details["loc"][:1])
        problems = [
            f"{f'setting {mistake.key.upper()}' if mistake.key else 'settings'}: {mistake.text}"
            for mistake in mistakes_in(errors, Settings)
        ]
        raise ConfigError(f"{'; '.join(problems)}; correct the {PREFIX}* variable or the option") from None


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = {name.upper() for name in Settings.model_fields} | _READ_ELSEWHERE
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX)
        if variable.startswith(PREFIX) and name not in known:
            similar = nearest(name, known)
            hint = f"did you mean {PREFIX}{similar}?" if similar else "remove it"
            raise ConfigError(f"there is no setting {variable}; {hint}")
