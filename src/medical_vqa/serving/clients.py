"""Who sends a request: the client of a key, or an address where no key is needed.

A client belongs to a tenant, and sees that tenant's images alone. Without keys there is one tenant. The client of a
request is a context variable, like the request's id in the log: every task of the request inherits it.
"""

from __future__ import annotations

import hashlib
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["ask", "upload", "admin"]
ROLES: frozenset[Role] = frozenset(get_args(Role))
"""ask: questions; upload: upload and delete images; admin: metrics, and the models of the server."""


@dataclass(frozen=True, slots=True)
class Client:
    """The sender of a request."""

    name: str = ""
    """Of its key, or its address: for the log and for rates."""
    tenant: str = ""
    """Whose images it sees; empty: those of a server without keys."""
    roles: frozenset[Role] = ROLES
    """What it may do."""
    weight: float = 1.0
    """Its tenant's part of the model's time, while others wait: one of weight 2 is served twice as much."""
    rate_limit: str | None = None
    """Questions and other requests, such as ``60/minute``; None: the server's rate."""
    max_images: int | None = None
    """Most images that its tenant stores at once; None: no bound of its own."""
    max_bytes: int | None = None
    """Most bytes that they take; None: no bound of its own."""

    @property
    def owner(self) -> str:
        """The tenant in the keys of stores and caches; empty without tenants."""
        return hashlib.sha256(self.tenant.encode()).hexdigest()[:16] if self.tenant else ""

    @property
    def queue(self) -> str:
        """Whose turn its work takes in a fair queue: all keys of a tenant wait together."""
        return self.tenant or self.name


_CURRENT: ContextVar[Client] = ContextVar("medical_vqa_client", default=Client())  # noqa: B039 - it is frozen


def current_client() -> Client:
    """The client of the running request; one without name and tenant outside of requests."""
    return _CURRENT.get()


def set_current_client(client: Client) -> None:
    """Set the client of the running request; never unset: the server gives every request a context of its own."""
    _CURRENT.set(client)


def picture_key(owner: str, digest: str) -> str:
    """The name of a picture in caches and ids: equal for equal pictures of one owner, and of one owner alone.

    Args:
        owner: Of the picture; empty without tenants.
        digest: SHA-256 of its pixels.
    """
    return hashlib.sha256(f"{owner}/{digest}".encode()).hexdigest() if owner else digest
