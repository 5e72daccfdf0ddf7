"""The family of remote models, and the bundle that records one: a card and ``endpoint.json``, without weights.

`medical-vqa calibrate` writes it, so that a temperature and a threshold stay with the model that they were fitted for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medical_vqa.errors import BundleError
from medical_vqa.models.base import ModelFamily
from medical_vqa.models.remote.endpoint import Endpoint

_FILE = "endpoint.json"


class RemoteFamily(ModelFamily):
    """A model behind an endpoint."""

    family = "openai"
    implementation = "medical_vqa.models.remote.model:RemoteModel"
    extras = ("remote",)
    reads_conversations = True


def write_endpoint(folder: Path, endpoint: Endpoint) -> None:
    """Write an endpoint into a bundle; its key stays in the variable that it names."""
    (folder / _FILE).write_text(json.dumps(endpoint.to_json(), indent=2) + "\n", encoding="utf-8")


def read_endpoint(folder: Path) -> Endpoint:
    """The endpoint of a bundle; raises `BundleError` where it is damaged."""
    try:
        return endpoint_of(json.loads((folder / _FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise BundleError(f"{folder / _FILE} cannot be read ({error}); calibrate the remote model again") from error


def endpoint_of(content: Mapping[str, Any]) -> Endpoint:
    """The endpoint that `Endpoint.to_json` described, also after JSON."""
    windows = tuple((float(center), float(width)) for center, width in content.get("windows", ()))
    return Endpoint(**{**content, "windows": windows})
