"""The blob of an image's values: a checksum, then safetensors with the values and what their headers say of them.

metadata   volume: spacing, plane, window, facts ... as JSON
values     as stored, 16 bits or 8   (axial slices, rows, columns)
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
from safetensors.numpy import save

from medical_vqa.data.imaging.volume import Volume
from medical_vqa.serving.image_store.blob import content_header, seal, unseal

_DTYPES = {"I16": "<i2", "U16": "<u2", "U8": "|u1"}  # names of safetensors


def write_values(volume: Volume, *, name: str) -> bytes:
    """The blob of a storable volume.

    Args:
        volume: From `stack.storable`.
        name: Of the blob in the store.
    """
    described = {field.name: getattr(volume, field.name) for field in dataclasses.fields(volume)}
    del described["values"], described["files"]
    described["facts"] = dict(volume.facts)
    content = save({"values": volume.values.transpose(2, 1, 0)}, metadata={"volume": json.dumps(described)})
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
    tensor = header["values"]
    begin, end = tensor["data_offsets"]
    data = content[data_start + begin : data_start + end]
    values = np.frombuffer(data, _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
    described = json.loads(header["__metadata__"]["volume"])
    for field in ("spacing", "window", "warnings", "notes"):
        described[field] = None if described[field] is None else tuple(described[field])
    return Volume(values.transpose(2, 1, 0), **described)
