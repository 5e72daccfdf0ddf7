"""Who may call, and how often: API keys stored as hashes, rates per key or address.

Runs before a body is read, so that an upload without a valid key costs nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.rate_limit import RateLimiter

PUBLIC_PATHS = frozenset({"/healthz", "/readyz"})
"""Paths that a platform's probes request, without a key and without a rate."""
_PATHS_WITHOUT_KEY = frozenset({"/", "/docs", "/openapi.json"})


def new_key() -> tuple[str, str]:
    """A new key for a client, and its hash for MEDICAL_VQA_API_KEYS."""
    key = f"mvqa-{secrets.token_urlsafe(32)}"
    return key, hash_key(key)


def hash_key(key: str) -> str:
    """SHA-256 in hex: a key has 256 random bits, so a slow hash would protect nothing more."""
    return hashlib.sha256(key.encode()).hexdigest()


class ApiKeys:
    """The hashes of the keys that are accepted."""

    def __init__(self, entries: Sequence[str]) -> None:
        """`entries` are HASH or NAME:HASH; a key without a name is called by the first 8 digits of its hash."""
        self._names: dict[str, str] = {}
        for entry in entries:
            name, _, digest = entry.rpartition(":")
            self._names[digest] = name or digest[:8]

    @property
    def required(self) -> bool:
        """Whether a key is needed at all."""
        return bool(self._names)

    def name(self, key: str) -> str | None:
        """The name of a key, or None when it is unknown; compares with every hash in constant time."""
        digest = hash_key(key)
        matches = [name for accepted, name in self._names.items() if hmac.compare_digest(accepted, digest)]
        return matches[0] if matches else None


class AccessMiddleware:
    """401 without an accepted key, 429 beyond the rate; sets ``scope["client_name"]``."""

    def __init__(self, app: ASGIApp, *, keys: ApiKeys, rate_limiter: RateLimiter | None) -> None:
        """`keys` are the keys that are accepted; `rate_limiter` counts the requests of each client, None: no limit."""
        self._app = app
        self._keys = keys
        self._rate_limiter = rate_limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and scope["path"] not in PUBLIC_PATHS:
            scope["client_name"] = self._identify(scope)
            if self._rate_limiter is not None:
                await self._rate_limiter.count(scope["client_name"])
        await self._app(scope, receive, send)

    def _identify(self, scope: Scope) -> str:
        """The name of the client's key, or its address where no key is needed; raises `ApiError` (401)."""
        if not self._keys.required or scope["path"] in _PATHS_WITHOUT_KEY:
            return str((scope.get("client") or ("unknown",))[0])
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        name = self._keys.name(key.strip()) if scheme.lower() == "bearer" else None
        if name is None:
            message = "this server needs an API key; send it in the header Authorization: Bearer KEY"
            raise ApiError(401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})
        return name
