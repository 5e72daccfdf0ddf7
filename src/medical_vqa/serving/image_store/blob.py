"""The blob of one image: a checksum, then safetensors with its picture, what the model made of it, and a lossless copy.

    metadata   digest, fingerprint of the encoder, expires_at (Unix time, JSON), tensors ("numpy" or "torch"), context,
               facts (JSON), and only where a setting says so: sources (JSON), which a DICOM report must repeat
    png        the normalized picture     uint8 (bytes,)
    picture    as the model sees it       uint8 (height, width, channels)
    original   the file as uploaded       uint8 (bytes,), only where a setting says so
    features/  what the model made of it

A server whose model has another fingerprint makes its own picture and features from the png. The checksum covers the
blob's name too, so that a blob under another image's name is recognized like any other damage.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from safetensors.numpy import load as numpy_load
from safetensors.numpy import save as numpy_save

from medical_vqa.data.imaging.picture_statistics import NO_CONTEXT, PictureContext
from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.serving.decoding.decoded_image import DecodedImage
from medical_vqa.serving.decoding.pictures import prepare_for_model
from medical_vqa.serving.schema.images import ImageFacts

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_FORMAT = b"mvqa-1\r\n"  # the line end shows where a transfer has changed it
_CHECKSUM_BYTES = 32
_FEATURE = "features/"
_HEADER_LENGTH_BYTES = 8  # little endian, at the start of a safetensors file


class DamagedBlobError(Exception):
    """A blob whose checksum does not fit its content; never leaves the repository."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image that questions may be asked about."""

    id: str
    """Identifies the image in requests; empty for one that is not stored."""
    digest: str
    """Key of its picture: equal for equal pictures of one owner; without tenants the SHA-256 of its pixels."""
    visual: NDArray[np.uint8] | Mapping[str, Tensor]
    """The model's input: features, or the picture for a model that has none."""
    expires_at: float | None = None
    """Unix time; None: never."""
    context: PictureContext = NO_CONTEXT
    """What the guards check before any answer."""
    facts: ImageFacts | None = None
    """What can be shown of it; None for one that is not stored."""

    @property
    def bytes(self) -> int:
        """Size of `visual`."""
        if isinstance(self.visual, np.ndarray):
            return self.visual.nbytes
        return sum(tensor.nbytes for tensor in self.visual.values())


def write_blob(
    image: StoredImage, decoded: DecodedImage, *, name: str, fingerprint: str, original: bytes | None
) -> bytes:
    """The blob of an image.

    Args:
        image: With the features, if the model has any.
        decoded: The copy and the picture.
        name: Of the blob in the store.
        fingerprint: Of the encoder that made the features.
        original: The uploaded file, to be stored too; None: it is not.
    """
    arrays = {"png": np.frombuffer(decoded.png, np.uint8), "picture": np.ascontiguousarray(decoded.picture)}
    if original is not None:
        arrays["original"] = np.frombuffer(original, np.uint8)
    features: Mapping[str, Any] = {} if isinstance(image.visual, np.ndarray) else image.visual
    needs_torch = not all(isinstance(tensor, np.ndarray) for tensor in features.values())
    metadata = {
        "digest": image.digest,
        "fingerprint": fingerprint,
        "expires_at": json.dumps(image.expires_at),
        "context": decoded.context.to_json(),
        "facts": "" if image.facts is None else image.facts.model_dump_json(),
        "tensors": "torch" if needs_torch else "numpy",
    }
    if decoded.sources:
        metadata["sources"] = decoded.sources
    named = {f"{_FEATURE}{name}": tensor for name, tensor in features.items()}
    if not needs_torch:
        return seal(name, numpy_save({**arrays, **named}, metadata=metadata))
    import torch  # noqa: PLC0415 - a model that runs without it is served without it
    from safetensors.torch import save  # noqa: PLC0415

    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    features = {name: tensor.contiguous() for name, tensor in named.items()}
    return seal(name, save({**tensors, **features}, metadata=metadata))


def read_blob(
    image_id: str, blob: bytes, *, name: str, fingerprint: str, spec: PictureSpec | None
) -> tuple[StoredImage, NDArray[np.uint8] | None]:
    """The image in a blob, and its picture where the features must be computed again.

    Args:
        image_id: The image's id.
        blob: As `write_blob` returned it, perhaps on another server.
        name: Of the blob in the store.
        fingerprint: Of this server's encoder; features of another one are not used.
        spec: How this server's model needs its picture; None for one that uses no image.

    Returns:
        The image; and None, or the picture prepared for this server's model, which is then also the `visual`.

    Raises:
        DamagedBlobError: The checksum does not fit.
    """
    content = unseal(name, blob)
    header, _ = content_header(content)
    metadata = header["__metadata__"]
    digest, expires_at = metadata["digest"], json.loads(metadata["expires_at"])
    context = PictureContext.from_json(metadata["context"])
    facts = ImageFacts.model_validate_json(metadata["facts"]) if metadata.get("facts") else None
    if metadata["fingerprint"] != fingerprint:
        with Image.open(io.BytesIO(_png_in(content)), formats=["PNG"]) as png:
            picture = prepare_for_model(png, spec)
        return StoredImage(image_id, digest, picture, expires_at, context, facts), picture
    tensors = _load(content, metadata["tensors"])
    features = {name.removeprefix(_FEATURE): t for name, t in tensors.items() if name.startswith(_FEATURE)}
    visual = features or np.asarray(tensors["picture"])
    return StoredImage(image_id, digest, visual, expires_at, context, facts), None


def read_png(name: str, blob: bytes) -> bytes:
    """The PNG in a blob of the store, without reading its other tensors; raises `DamagedBlobError`."""
    return _png_in(unseal(name, blob))


def read_sources(name: str, blob: bytes) -> str:
    """What a DICOM report must repeat, as `StoredSources.from_json` reads it; empty where it is not stored.

    Raises `DamagedBlobError`.
    """
    header, _ = content_header(unseal(name, blob))
    return str(header["__metadata__"].get("sources", ""))


def seal(name: str, content: bytes) -> bytes:
    """A blob of this content."""
    return _FORMAT + _checksum(name, content) + content


def unseal(name: str, blob: bytes) -> memoryview:
    """The content of a blob; raises `DamagedBlobError` where the checksum does not fit."""
    content = memoryview(blob)[len(_FORMAT) + _CHECKSUM_BYTES :]
    if blob[: len(blob) - len(content)] != _FORMAT + _checksum(name, content):
        raise DamagedBlobError
    return content


def _checksum(name: str, content: bytes | memoryview) -> bytes:
    checksum = hashlib.sha256(name.encode())
    checksum.update(content)
    return checksum.digest()


def _png_in(content: memoryview) -> bytes:
    header, data_start = content_header(content)
    begin, end = header["png"]["data_offsets"]
    return bytes(content[data_start + begin : data_start + end])


def content_header(content: memoryview) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where the tensors begin."""
    data_start = _HEADER_LENGTH_BYTES + int.from_bytes(content[:_HEADER_LENGTH_BYTES], "little")
    return json.loads(bytes(content[_HEADER_LENGTH_BYTES:data_start])), data_start


def _load(content: memoryview, library: str) -> dict[str, Any]:
    if library == "numpy":
        return dict(numpy_load(bytes(content)))
    from safetensors.torch import load  # noqa: PLC0415

    return dict(load(bytes(content)))
