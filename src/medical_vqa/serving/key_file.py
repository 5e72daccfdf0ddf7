"""A file of keys with their tenants, roles, rates and quotas, read again when it changes.

    - name: ward-3              # in the log
      sha256: 9f86d081…         # `medical-vqa serve --new-key` prints key and hash
      tenant: radiology         # whose images it sees; by default its name
      roles: [ask, upload]      # by default all: ask, upload, admin
      weight: 2                 # of its tenant's turns
      rate_limit: 600/minute
      max_images: 500           # stored at once by the tenant, on each server
      max_bytes: 1000000000

To replace a key without interruption, list the new one under the same tenant, and remove the old one later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from medical_vqa.config.reading import read_yaml
from medical_vqa.errors import ConfigError
from medical_vqa.serving.clients import ROLES, Client, Role

RATE = r"^[1-9]\d* ?/ ?([1-9]\d* ?)?(second|minute|hour|day)s?$"
"""Pattern of a rate, such as ``60/minute``."""


class KeyEntry(BaseModel):
    """One key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    tenant: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")] | None = None
    roles: frozenset[Role] = ROLES
    weight: float = Field(1.0, gt=0, le=1000)
    rate_limit: Annotated[str, Field(pattern=RATE)] | None = None
    max_images: int | None = Field(None, ge=0)
    max_bytes: int | None = Field(None, ge=0)

    @property
    def client(self) -> Client:
        """The client that the key belongs to."""
        return Client(
            name=self.name,
            tenant=self.tenant or self.name,
            roles=self.roles,
            weight=self.weight,
            rate_limit=self.rate_limit,
            max_images=self.max_images,
            max_bytes=self.max_bytes,
        )


def read_key_file(path: Path) -> dict[str, Client]:
    """The clients by the hashes of their keys; raises `ConfigError` where the file cannot be read."""
    try:
        content, repeated = read_yaml(path.read_text(encoding="utf-8"))
        if repeated:
            key, before, line = repeated[0]
            raise ConfigError(
                f"keys file {path} line {line}: the key {key!r} is set twice, first in line {before}; keep one of them"
            )
        entries = TypeAdapter(list[KeyEntry]).validate_python(content or [])
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"keys file {path}: expected YAML, got {type(error).__name__}; correct the file") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"keys file {path}: entry {place}: {first['msg'].lower()}; correct the file") from None
    return {entry.sha256: entry.client for entry in entries}
