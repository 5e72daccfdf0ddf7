"""Remote models by name: a provider's prefix (``vllm:MODEL``), or an entry of ``models.yaml``.

    models:
      medgemma:
        provider: vllm
        model: google/medgemma-4b-it
        api_key_env: VLLM_KEY
        picture: {side: 896, windows: [[0, 2048], [40, 350], [40, 80]], max_pictures: 85}
        price: {input: 0.1, output: 0.4}

The windows are those that Google's notebook for MedGemma 1.5 shows CT through: -1024 to 1024, -135 to 215, 0 to 80 HU.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from medical_vqa.config.reading import read_yaml
from medical_vqa.errors import ConfigError
from medical_vqa.models.remote.endpoint import PROMPT, PROVIDERS, Endpoint, split_name
from medical_vqa.runtime.environment import home
from medical_vqa.schema.document import SchemaModel
from medical_vqa.schema.mistakes import Mistake, mistakes_in, report

VARIABLE = "MEDICAL_VQA_MODELS"
"""Environment variable with the path of a file of named models; by default ``models.yaml`` in the working folder, then
in ``$MEDICAL_VQA_HOME``."""
FILE_NAME = "models.yaml"

Positive = Annotated[float, Field(gt=0)]


class Price(SchemaModel):
    """Cost per million tokens, in any currency."""

    input: Annotated[float, Field(ge=0)]
    """Of question and pictures."""
    output: Annotated[float, Field(ge=0)]
    """Of answers."""


class RemotePicture(SchemaModel):
    """The pictures that the model was trained to see."""

    side: Annotated[int, Field(ge=16, le=4096)] = 768
    """Longer side, pixels; larger pictures are scaled down."""
    windows: tuple[tuple[float, Positive], ...] = ()
    """Three windows of CT, center and width in Hounsfield units, as red, green and blue; empty: one window, in gray."""
    max_pictures: Annotated[int, Field(ge=1, le=100)] = 4
    """Most pictures in one question."""


class NamedModel(SchemaModel):
    """One remote model."""

    model: str = Field(min_length=1)
    """Name at the endpoint."""
    provider: Literal["openai", "vllm", "sglang", "ollama", "lmstudio"] = "openai"
    """Program whose default address is used where `base_url` names none."""
    base_url: str | None = None
    """Address up to and with ``/v1``."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key."""
    allow_http: bool = False
    """Whether the key may be sent to another machine without encryption."""
    prompt: str = PROMPT
    """Template of the question; contains ``{question}``."""
    picture: RemotePicture = RemotePicture()
    """The pictures that the model was trained to see."""
    turns: Annotated[int, Field(ge=0, le=64)] = 8
    """Most earlier turns of a conversation that are sent."""
    logprobs: bool = True
    """Whether to request token log-probabilities."""
    samples: Annotated[int, Field(ge=0, le=32)] = 0
    """Answers drawn at random, whose agreement is the confidence where there are no log-probabilities."""
    max_tokens: Annotated[int, Field(ge=1, le=32_768)] = 64
    """Longest answer, in tokens; a model that thinks aloud needs more."""
    timeout: Positive = 120.0
    """Seconds for one request."""
    tries: Annotated[int, Field(ge=1, le=20)] = 6
    """Attempts per question, the first included."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 8
    """Requests that run at once."""
    price: Price | None = None
    """Cost per million tokens."""

    @model_validator(mode="after")
    def _check_address(self) -> Self:
        if not (self.base_url or PROVIDERS[self.provider]):
            raise ValueError("the provider openai has no default address; add base_url, or name another provider")
        try:
            self.endpoint()
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    def endpoint(self) -> Endpoint:
        """Address and request settings."""
        own = ("model", "prompt", "turns", "logprobs", "samples", "max_tokens", "timeout", "tries", "allow_http")
        return Endpoint(
            base_url=self.base_url or PROVIDERS[self.provider],
            api_key_env=self.api_key_env,
            side=self.picture.side,
            windows=self.picture.windows,
            max_pictures=self.picture.max_pictures,
            **{name: getattr(self, name) for name in own},
        )


@dataclass(frozen=True, slots=True)
class RemoteName:
    """What a name of a remote model stands for."""

    endpoint: Endpoint
    """Address and request settings."""
    concurrency: int | None = None
    """Requests that run at once; None: the caller's choice."""
    price: tuple[float, float] | None = None
    """Cost per million tokens in and out; None where it is not known."""


def resolve(name: str, changes: Mapping[str, Any]) -> RemoteName | None:
    """The remote model that a name stands for; None for a local one.

    Args:
        name: ``PROVIDER:MODEL``, or a name in ``models.yaml`` that no file or folder has.
        changes: Fields of `Endpoint` that differ from the defaults or from ``models.yaml``.

    Raises:
        ConfigError: The address is missing or makes no sense, or ``models.yaml`` has mistakes; all of them are named.
    """
    if (parts := split_name(name)) is not None:
        provider, model = parts
        base_url = changes.get("base_url") or PROVIDERS[provider]
        if not base_url:
            raise ConfigError(f"{name} needs --base-url (base_url=), such as http://localhost:8000/v1; add it")
        return RemoteName(Endpoint(**{**changes, "model": model, "base_url": base_url}))
    if Path(name).exists() or (path := models_file()) is None:
        return None
    named = read_models(path).get(name)
    if named is None:
        return None
    endpoint = Endpoint(**{**named.endpoint().to_json(), **changes})
    return RemoteName(endpoint, named.concurrency, (named.price.input, named.price.output) if named.price else None)


def models_file() -> Path | None:
    """The file of named models; None where there is none. Raises `ConfigError` where the variable names no file."""
    if variable := os.environ.get(VARIABLE):
        if not Path(variable).is_file():
            raise ConfigError(f"{VARIABLE} names {variable}, which is no file; correct or unset it")
        return Path(variable)
    places = (Path(FILE_NAME), home() / FILE_NAME)
    return next((path for path in places if path.is_file()), None)


def read_models(path: Path) -> Mapping[str, NamedModel]:
    """The models of a file; raises `ConfigError` that names all its mistakes."""
    try:
        content, repeated = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML ({' '.join(str(error).split())}); correct it") from error
    if repeated:
        key, first, line = repeated[0]
        raise ConfigError(f"{path} line {line}: the key {key!r} is set twice, first in line {first}; keep one of them")
    entries = content.get("models") if isinstance(content, dict) and len(content) == 1 else None
    if not isinstance(entries, dict) or not entries:
        raise ConfigError(
            f"{path}: expected one key, models, with a name for each model; see docs/how-to/remote-models.md"
        )
    models, mistakes = {}, list[Mistake]()
    for name, entry in entries.items():
        try:
            models[str(name)] = NamedModel.model_validate(entry)
        except ValidationError as error:
            details = error.errors(include_url=False)
            mistakes += mistakes_in(details, NamedModel, prefix=("models", str(name)))
    if mistakes:
        raise ConfigError(report(mistakes, origin=str(path)))
    return models
