"""Uploads as the server keeps them: prepared picture and features beside a lossless copy, under an id nobody can guess.

The id is the head of the pixels' SHA-256 and 128 random bits. One blob (safetensors) holds everything of an image:

    metadata   about (JSON), digest, fingerprint of the encoder, expires (Unix time)
    png        the normalized picture         uint8 (bytes,)
    picture    as the model sees it           uint8 (height, width, channels)
    features/  what the model made of it

A server whose model has another fingerprint makes its own picture and features from the png.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image
from safetensors.numpy import load as numpy_load
from safetensors.numpy import save as numpy_save

from medical_vqa.serving.api.schema import IMAGE_ID
from medical_vqa.serving.decoding import Decoded, prepared
from medical_vqa.serving.engine import Engine
from medical_vqa.serving.errors import unknown_image
from medical_vqa.serving.image_store.backends import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

T = TypeVar("T")

RECHECK = 10.0
"""Seconds after which a shared store is asked again whether an image is still there: how late a deletion on another
server is noticed."""
_ID = re.compile(IMAGE_ID)


@dataclass(frozen=True, slots=True)
class Kept:
    """An image that questions may be asked about."""

    id: str
    """Names it."""
    digest: str
    """SHA-256 of its pixels: equal for equal pictures."""
    visual: NDArray[np.uint8] | Mapping[str, Tensor]
    """What the model is given: features, or the picture where it has none."""
    expires: float | None = None
    """Unix time; None: never."""

    @property
    def bytes(self) -> int:
        """Memory it takes."""
        if isinstance(self.visual, np.ndarray):
            return self.visual.nbytes
        return sum(tensor.nbytes for tensor in self.visual.values())


class Images:
    """The uploads of a server: encoded when they come, in its store, the recently used ones also in memory."""

    def __init__(self, store: Store, engine: Engine, *, ttl: float | None, hot: int, keep_originals: bool) -> None:
        self.store, self._engine, self._ttl, self._keep_originals = store, engine, ttl, keep_originals
        self._hot = _Hot(hot)
        self._loading: dict[str, asyncio.Task[Kept]] = {}
        self._threads = ThreadPoolExecutor(16, "store")

    async def visual(self, decoded: Decoded) -> Kept:
        """A picture that is asked about once and not kept."""
        features = await self._engine.encode(decoded.digest, decoded.picture)
        return Kept("", decoded.digest, decoded.picture if features is None else features)

    async def add(self, decoded: Decoded, original: bytes) -> Kept:
        """Encode a picture and keep it, for every server on the store; raises `RefusedError`."""
        once = await self.visual(decoded)
        id_ = f"{decoded.digest[:24]}-{secrets.token_urlsafe(16)}"
        expires = None if self._ttl is None else time.time() + self._ttl
        kept = Kept(id_, decoded.digest, once.visual, expires)
        blob = pack(kept, decoded, self._engine.fingerprint, original if self._keep_originals else None)
        await self._reach(lambda: self.store.put(id_, blob))
        self._hot.put(kept)
        return kept

    async def get(self, id_: str) -> Kept:
        """An image that was added here or elsewhere; raises `RefusedError` (404)."""
        if not _ID.match(id_):
            raise unknown_image()
        kept = self._hot.get(id_)
        fresh = kept is not None and (self._hot.age(id_) < RECHECK if self.store.waits else self.store.has(id_))
        self._engine.meters.hot.labels("hit" if fresh else "miss").inc()
        if kept is None or not fresh:
            kept = await self._load_once(id_)
        if kept.expires is not None and time.time() > kept.expires:
            await self.delete(id_)
            raise unknown_image()
        return kept

    async def png(self, id_: str) -> bytes:
        """The picture of an image as it was normalized, before it was prepared for the model; `RefusedError` (404)."""
        await self.get(id_)
        blob = await self._reach(lambda: self.store.get(id_))
        if blob is None:
            raise unknown_image()
        return packed_png(blob)

    async def delete(self, id_: str) -> None:
        """Forget an image; raises `RefusedError` (404)."""
        if not _ID.match(id_):
            raise unknown_image()
        self._hot.drop(id_)
        if not await self._reach(lambda: self.store.delete(id_)):
            raise unknown_image()

    async def sweep(self) -> None:
        """Let the store forget what is too old or too much."""
        await self._reach(self.store.sweep)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    async def _load_once(self, id_: str) -> Kept:
        """Load an image for all who ask for it at this moment."""
        if id_ not in self._loading:
            task = asyncio.create_task(self._load(id_))
            self._loading[id_] = task
            task.add_done_callback(lambda _: self._loading.pop(id_, None))
        return await asyncio.shield(self._loading[id_])

    async def _load(self, id_: str) -> Kept:
        hot = self._hot.get(id_)
        if hot is not None and await self._reach(lambda: self.store.has(id_)):
            self._hot.put(hot)
            return hot
        self._hot.drop(id_)
        blob = await self._reach(lambda: self.store.get(id_))
        if blob is None:
            raise unknown_image()
        kept, picture = await self._reach(lambda: unpack(id_, blob, self._engine), always=True)
        if picture is not None:  # written by a server with another model
            features = await self._engine.encode(kept.digest, picture)
            kept = Kept(id_, kept.digest, picture if features is None else features, kept.expires)
        self._hot.put(kept)
        return kept

    async def _reach(self, call: Callable[[], T], *, always: bool = False) -> T:
        if not (self.store.waits or always):
            return call()
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


class _Hot:
    """The images used last, bounded by bytes; used from the event loop alone."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._kept: OrderedDict[str, tuple[Kept, float]] = OrderedDict()

    def get(self, id_: str) -> Kept | None:
        if id_ not in self._kept:
            return None
        self._kept.move_to_end(id_)
        return self._kept[id_][0]

    def age(self, id_: str) -> float:
        return time.monotonic() - self._kept[id_][1]

    def put(self, kept: Kept) -> None:
        self.drop(kept.id)
        self._kept[kept.id] = (kept, time.monotonic())
        self._bytes += kept.bytes
        while self._bytes > self._limit and len(self._kept) > 1:
            self.drop(next(iter(self._kept)))

    def drop(self, id_: str) -> None:
        entry = self._kept.pop(id_, None)
        self._bytes -= entry[0].bytes if entry else 0


def pack(kept: Kept, decoded: Decoded, fingerprint: str, original: bytes | None) -> bytes:
    """The blob of an image: safetensors, written with numpy unless the model's features are torch's."""
    tensors: dict[str, Any] = {
        "png": np.frombuffer(decoded.png, np.uint8),
        "picture": np.ascontiguousarray(decoded.picture),
    }
    if original is not None:
        tensors["original"] = np.frombuffer(original, np.uint8)
    features = {} if isinstance(kept.visual, np.ndarray) else kept.visual
    torch_made = not all(isinstance(tensor, np.ndarray) for tensor in features.values())
    about = {
        "about": json.dumps(dict(decoded.about)),
        "digest": kept.digest,
        "fingerprint": fingerprint,
        "expires": json.dumps(kept.expires),
        "by": "torch" if torch_made else "numpy",
    }
    named: dict[str, Any] = {f"features/{name}": tensor for name, tensor in features.items()}
    if not torch_made:
        return numpy_save({**tensors, **named}, metadata=about)
    import torch  # noqa: PLC0415 - a model that runs without it is served without it
    from safetensors.torch import save  # noqa: PLC0415

    ours: dict[str, Any] = {name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()}
    return save({**ours, **{name: tensor.contiguous() for name, tensor in named.items()}}, metadata=about)


def packed_png(blob: bytes) -> bytes:
    """The PNG in a blob, cut out where the header says it lies."""
    start = 8 + int.from_bytes(blob[:8], "little")
    begin, end = json.loads(blob[8:start])["png"]["data_offsets"]
    return blob[start + begin : start + end]


def unpack(id_: str, blob: bytes, engine: Engine) -> tuple[Kept, NDArray[np.uint8] | None]:
    """The image in a blob, and its picture prepared anew where another model wrote the blob."""
    start = 8 + int.from_bytes(blob[:8], "little")
    header: dict[str, Any] = json.loads(blob[8:start])
    about = header["__metadata__"]
    expires = json.loads(about["expires"])
    if about["fingerprint"] != engine.fingerprint:
        begin, end = header["png"]["data_offsets"]
        with Image.open(io.BytesIO(blob[start + begin : start + end]), formats=["PNG"]) as image:
            picture = prepared(image, engine.model.picture)
        return Kept(id_, about["digest"], picture, expires), picture
    tensors = _tensors(blob, about["by"])
    features = {name.removeprefix("features/"): t for name, t in tensors.items() if name.startswith("features/")}
    return Kept(id_, about["digest"], features or np.asarray(tensors["picture"]), expires), None


def _tensors(blob: bytes, by: str) -> dict[str, Any]:
    if by == "numpy":
        return dict(numpy_load(blob))
    from safetensors.torch import load  # noqa: PLC0415

    return dict(load(blob))
