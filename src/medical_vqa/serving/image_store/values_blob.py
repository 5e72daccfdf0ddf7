"""The blob of an image's values: a checksum, then safetensors with the values and what their headers say of them.

metadata   volume: spacing, plane, window, facts ... as JSON
values     as stored, 16 bits or 8   (axial slices, rows, columns)
curve      brightness of values from that of the metadata, uint8 (entries,), where the header has a table of it
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from medical_vqa.data.imaging.volume import Volume
from medical_vqa.data.imaging.windowing import Curve
from medical_vqa.serving.image_store.blob import content_header, seal, unseal

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DTYPES = {"I16": "<i2", "U16": "<u2", "U8": "|u1"}  # names of safetensors


def write_values(volume: Volume, *, name: str) -> bytes:
    """The blob of a storable volume.

    Args:
        volume: From `stack.storable`.
        name: Of the blob in the store.
    """
    described = {field.name: getattr(volume, field.name) for field in dataclasses.fields(volume)}
    del described["values"], described["files"], described["curve"]
    described["facts"] = dict(volume.facts)
    tensors = {"values": volume.values.transpose(2, 1, 0)}
    if volume.curve is not None:
        tensors["curve"] = volume.curve.entries
        described["curve"] = volume.curve.first
    content = save(tensors, metadata={"volume": json.dumps(described)})
    return seal(name, content)


def read_values(blob: bytes, *, name: str) -> Volume:
    """The volume in a blob, whose values are not copied.

    Args:
        blob: As `write_values` returned it.
        name: Of the blob in the store.

    Raises:
        DamagedBlobError: The checksum does not fit.
    """
    content = unseal(name, blob)
    header, data_start = content_header(content)

    def tensor(name: str) -> NDArray[Any]:
        begin, end = header[name]["data_offsets"]
        data = content[data_start + begin : data_start + end]
        return np.frombuffer(data, _DTYPES[header[name]["dtype"]]).reshape(header[name]["shape"])

    described = json.loads(header["__metadata__"]["volume"])
    for field in ("spacing", "window", "warnings", "notes"):
        described[field] = None if described[field] is None else tuple(described[field])
    if "curve" in header:
        described["curve"] = Curve(described["curve"], tensor("curve"))
    return Volume(tensor("values").transpose(2, 1, 0), **described)
