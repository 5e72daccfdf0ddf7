"""Who may call, for what, and how often: API keys stored as hashes, roles, rates per key or address.

Runs before a body is read, so that an upload without a valid key costs nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from medical_vqa.errors import ConfigError
from medical_vqa.serving.clients import Client, Role, set_current_client
from medical_vqa.serving.errors import ApiError, forbidden
from medical_vqa.serving.key_file import read_key_file
from medical_vqa.serving.page_files import DOCS_PATHS, PAGE_PATHS
from medical_vqa.serving.rate_limit import RateLimiter

PUBLIC_PATHS = frozenset({"/healthz", "/readyz"})
"""Paths that a platform's probes request, without a key and without a rate."""
_LOG = structlog.get_logger("medical_vqa.serving")
_RECHECK_SECONDS = 1.0  # between two looks at the keys file
_PATHS_WITHOUT_KEY = frozenset({"/", "/openapi.json", *DOCS_PATHS, *PAGE_PATHS})


_SLICE_PATH = re.compile(r"/images/[^/]+/(view|values)")  # a wheel through a series asks for dozens in a second


def new_key() -> tuple[str, str]:
    """A new key for a client, and its hash for MEDICAL_VQA_API_KEYS."""
    key = f"mvqa-{secrets.token_urlsafe(32)}"
    return key, hash_key(key)


def hash_key(key: str) -> str:
    """SHA-256 in hex: a key has 256 random bits, so a slow hash would protect nothing more."""
    return hashlib.sha256(key.encode()).hexdigest()


class ApiKeys:
    """The clients of the keys that are accepted, by the keys' hashes."""

    def __init__(self, entries: Sequence[str] = (), file: Path | None = None) -> None:
        """Read the keys.

        Args:
            entries: HASH or NAME:HASH; the name is the tenant's too, and a key without one is called by the first 8
                digits of its hash.
            file: Further keys, read again when the file changes; None: no further ones.

        Raises:
            ConfigError: The file cannot be read.
        """
        self._listed: dict[str, Client] = {}
        for entry in entries:
            name, _, digest = entry.rpartition(":")
            self._listed[digest] = Client(name=name or digest[:8], tenant=name or digest[:8])
        self._file = file
        self._file_state = self._state()
        self._in_file = read_key_file(file) if file is not None else {}
        self._checked_at = time.monotonic()

    @property
    def required(self) -> bool:
        """Whether a key is needed at all."""
        return bool(self._listed) or self._file is not None

    def client(self, key: str) -> Client | None:
        """The client of a key, or None when it is unknown; compares with every hash in constant time."""
        self._read_again_if_changed()
        digest = hash_key(key)
        accepted = {**self._listed, **self._in_file}
        matches = [client for known, client in accepted.items() if hmac.compare_digest(known, digest)]
        return matches[0] if matches else None

    def _read_again_if_changed(self) -> None:
        """Look at the file at most once a second; a file that cannot be read leaves the keys as they were."""
        if self._file is None or time.monotonic() - self._checked_at < _RECHECK_SECONDS:
            return
        self._checked_at = time.monotonic()
        state = self._state()
        if state == self._file_state:
            return
        self._file_state = state
        try:
            self._in_file = read_key_file(self._file)
        except ConfigError as error:
            _LOG.error("keys not read again", reason=str(error))

    def _state(self) -> tuple[int, int] | None:
        """What changes when the file is written."""
        try:
            status = self._file.stat() if self._file is not None else None
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_ino) if status is not None else None


def required_role(method: str, path: str) -> Role | None:
    """The role that a route needs; None: any key will do."""
    if path == "/metrics" or (path.startswith("/models/") and method != "GET"):
        return "admin"
    if path.endswith("/dicom_report") or path.startswith(("/ask", "/jobs", "/v1/chat", "/v1/responses")):
        return "ask"
    if path.startswith("/conversations") and not re.fullmatch(r"/conversations/[^/]+/(images(/[^/]+)?|stored)", path):
        return "ask"
    return "upload" if method in ("POST", "DELETE") else None


class AccessMiddleware:
    """401 without an accepted key, 403 without its role, 429 beyond the rate; sets the request's client."""

    def __init__(self, app: ASGIApp, *, keys: ApiKeys, rate_limiter: RateLimiter) -> None:
        """`keys` are the keys that are accepted; `rate_limiter` counts the requests of each client."""
        self._app = app
        self._keys = keys
        self._rate_limiter = rate_limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and scope["path"] not in PUBLIC_PATHS:
            client = self._identify(scope)
            scope["client_name"] = client.name
            set_current_client(client)
            role = required_role(scope["method"], scope["path"])
            if role is not None and role not in client.roles:
                raise forbidden(role)
            if not _SLICE_PATH.fullmatch(scope["path"]):
                await self._rate_limiter.count(client)
        await self._app(scope, receive, send)

    def _identify(self, scope: Scope) -> Client:
        """The client of the request's key, or of its address where no key is needed; raises `ApiError` (401)."""
        if not self._keys.required or scope["path"] in _PATHS_WITHOUT_KEY:
            return Client(name=str((scope.get("client") or ("unknown",))[0]))
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        client = self._keys.client(key.strip()) if scheme.lower() == "bearer" else None
        if client is None:
            message = "this server needs an API key; send it in the header Authorization: Bearer KEY"
            raise ApiError(401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})
        return client
