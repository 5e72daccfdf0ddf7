"""How many images, and bytes of them, each tenant has stored on this server."""

from __future__ import annotations

import time

from medical_vqa.serving.clients import Client
from medical_vqa.serving.errors import quota_exceeded


class Quotas:
    """What each owner has stored, until it expires or is deleted; used from the event loop alone."""

    def __init__(self, ttl: float | None) -> None:
        """`ttl`: seconds that an image counts; None: until it is deleted."""
        self._ttl = ttl
        self._images: dict[str, dict[str, tuple[int, float]]] = {}  # owner -> image -> (bytes, time of its end)

    def take(self, client: Client, image_id: str, size: int) -> None:
        """Count an image; raises `ApiError` (429) where the client's tenant has no room for it."""
        if client.max_images is None and client.max_bytes is None:
            return
        now = time.monotonic()
        stored = {key: entry for key, entry in self._images.get(client.owner, {}).items() if entry[1] > now}
        self._images[client.owner] = stored
        total = sum(entry[0] for entry in stored.values())
        too_many = client.max_images is not None and len(stored) >= client.max_images
        if too_many or (client.max_bytes is not None and total + size > client.max_bytes):
            first_end = min((end for _, end in stored.values()), default=now)
            raise quota_exceeded(first_end - now)
        stored[image_id] = (size, float("inf") if self._ttl is None else now + self._ttl)

    def release(self, owner: str, image_id: str) -> None:
        """An image is gone."""
        self._images.get(owner, {}).pop(image_id, None)
