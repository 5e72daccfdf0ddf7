"""Who may ask, and how often: API keys kept as hashes, rates per key or address.

Runs before a body is read, so that a stranger's upload costs nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.storage import storage_from_string
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from medical_vqa.serving.api.problems import respond
from medical_vqa.serving.errors import RefusedError, rate_limited

OPEN = frozenset({"/healthz", "/readyz"})
"""What a platform's probes ask, without a key."""
_DESCRIBED = frozenset({"/", "/docs", "/openapi.json"})


def new_key() -> tuple[str, str]:
    """A key for a client, and the hash to put into MEDICAL_VQA_API_KEYS."""
    key = f"mvqa-{secrets.token_urlsafe(32)}"
    return key, hash_key(key)


def hash_key(key: str) -> str:
    """SHA-256, hex: keys have 256 random bits, so a slow hash would protect nothing more."""
    return hashlib.sha256(key.encode()).hexdigest()


class Keys:
    """The hashes of the keys that are let in."""

    def __init__(self, entries: Sequence[str]) -> None:
        """`entries` are HASH or NAME:HASH; a key without a name is called by the head of its hash."""
        parted = [entry.rpartition(":") for entry in entries]
        self._hashes = [(name or digest[:8], digest) for name, _, digest in parted]

    @property
    def required(self) -> bool:
        """Whether anybody is kept out."""
        return bool(self._hashes)

    def name(self, key: str) -> str | None:
        """Whose key this is; compares with every hash in constant time."""
        digest = hash_key(key)
        names = [name for name, known in self._hashes if hmac.compare_digest(known, digest)]
        return names[0] if names else None


class Access:
    """ASGI middleware: 401 without a known key, 429 beyond the rate; ``scope["client_name"]`` says who it is."""

    def __init__(self, app: ASGIApp, *, keys: Keys, rate: str | None, store: str, origins: Sequence[str] = ()) -> None:
        self._app, self._keys, self._origins = app, keys, frozenset(origins)
        self._rate: RateLimitItem | None = parse(rate) if rate else None
        self._limiter = MovingWindowRateLimiter(_storage(store)) if rate else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http" or scope["path"] in OPEN or _preflight(scope, self._origins):
            await self._app(scope, receive, send)
            return
        try:
            scope["client_name"] = self._identify(scope)
            await self._count(scope["client_name"])
        except RefusedError as refused:
            await respond(refused, scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _identify(self, scope: Scope) -> str:
        if not self._keys.required or scope["path"] in _DESCRIBED:
            return str((scope.get("client") or ("unknown",))[0])
        kind, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        name = self._keys.name(key.strip()) if kind.lower() == "bearer" else None
        if name is None:
            raise RefusedError(
                401,
                "unauthorized",
                "this server needs a key; send it in the header Authorization: Bearer KEY",
                {"WWW-Authenticate": "Bearer"},
            )
        return name

    async def _count(self, client: str) -> None:
        if self._limiter is None or self._rate is None:
            return
        if not await self._limiter.hit(self._rate, client):
            window = await self._limiter.get_window_stats(self._rate, client)
            raise rate_limited(window.reset_time - time.time())


def _preflight(scope: Scope, origins: frozenset[str]) -> bool:
    """Browsers ask before they send a key."""
    return bool(origins) and scope["method"] == "OPTIONS" and Headers(scope=scope).get("origin", "") in origins


def _storage(store: str) -> Storage:
    """Counts are shared where uploads are in a Redis; otherwise each server counts for itself."""
    if not store.startswith(("redis://", "rediss://")):
        return MemoryStorage()
    # its declared type covers both kinds, sync and async
    return storage_from_string(f"async+{store}", implementation="redispy")  # type: ignore[return-value]
