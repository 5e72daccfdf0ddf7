"""Where a remote model is, and how it is asked: address, prompt, pictures, limits, price."""

from __future__ import annotations

import ipaddress
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from medical_vqa.errors import ConfigError

PROMPT = (
    "Answer the question about this medical image with one word or a short phrase, without explanation.\n"
    "Question: {question}"
)
PROVIDERS = {
    "openai": "",
    "vllm": "http://localhost:8000/v1",
    "sglang": "http://localhost:30000/v1",
    "ollama": "http://localhost:11434/v1",
    "lmstudio": "http://localhost:1234/v1",
}
"""Prefix of a model's name -> the address that its program listens on by default; empty: it must be named."""

Window = tuple[float, float]
"""Center and width of an intensity window."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address and request settings of a remote model."""

    model: str
    """Name of the model at the endpoint."""
    base_url: str
    """Address up to and with the version, such as ``http://localhost:8000/v1``."""
    prompt: str = PROMPT
    """Template of the question; contains ``{question}``."""
    side: int = 768
    """Longer side of the pictures that are sent, pixels."""
    windows: tuple[Window, ...] = ()
    """Three intensity windows of CT (center, width in Hounsfield units) that become red, green and blue; empty: one
    window, in gray."""
    max_pictures: int = 4
    """Most pictures in one question."""
    turns: int = 8
    """Most earlier turns of a conversation that are sent."""
    logprobs: bool = True
    """Whether to request token log-probabilities, from which the confidence is computed."""
    samples: int = 0
    """Further answers, drawn at random, whose agreement is the confidence where there are no log-probabilities; 0:
    none."""
    max_tokens: int = 64
    """Longest answer, in tokens."""
    timeout: float = 120.0
    """Seconds for one request."""
    tries: int = 6
    """Attempts per question, the first included."""
    allow_http: bool = False
    """Whether the key may be sent to another machine without encryption."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key."""

    def __post_init__(self) -> None:
        _check_address(self.base_url)
        if "{question}" not in self.prompt:
            raise ConfigError(
                f"the prompt {self.prompt!r} does not say where the question goes; put {{question}} in it"
            )
        if not self.model or self.tries < 1:
            raise ConfigError(f"a remote model needs a name and at least one try, got {self.model!r} and {self.tries}")
        if len(self.windows) not in (0, 3):
            raise ConfigError(f"expected three windows, for red, green and blue, or none; got {len(self.windows)}")

    @property
    def is_local(self) -> bool:
        """Whether the endpoint is on this machine."""
        host = urlsplit(self.base_url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    @property
    def proxy(self) -> str | None:
        """Address of the proxy that the environment names for this endpoint; None on this machine, or without one."""
        parts = urlsplit(self.base_url)
        if self.is_local or proxy_bypass(parts.netloc):
            return None
        return getproxies().get(parts.scheme)

    def check_key(self, api_key: str) -> None:
        """Raise `ConfigError` when a key cannot be sent, or would be to another machine without encryption."""
        if not (api_key.isascii() and api_key.isprintable()):
            raise ConfigError(
                f"the key in {self.api_key_env} has characters that no HTTP header can carry; set the variable to the "
                "key alone, on one line"
            )
        if api_key and self.base_url.startswith("http://") and not self.is_local and not self.allow_http:
            raise ConfigError(
                f"{self.base_url} is not encrypted, and the key would be readable on the way; use https://, or allow "
                "it with --allow-http (allow_http: true in models.yaml) inside a network that you trust"
            )

    def to_json(self) -> dict[str, Any]:
        """The settings above; an answer depends on nothing else of this side."""
        return asdict(self)


def _check_address(address: str) -> None:
    """Raise `ConfigError` unless it is an address to which a path can be added, and that may be shown."""
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
    except (ValueError, AttributeError):  # a port that is no number, half of a bracket, or no text
        is_address = False
    if not is_address or any(letter.isspace() for letter in address):
        raise ConfigError(f"--base-url {address!r}: expected http://HOST or https://HOST, up to and with /v1")
    if "@" in parts.netloc:
        host = parts.netloc.rpartition("@")[2]
        raise ConfigError(
            f"the --base-url of {host} holds a user or a password, which messages would show; leave them out, and set "
            "the key in its variable"
        )
    if parts.query or parts.fragment:
        raise ConfigError(f"--base-url {address!r}: expected an address without ? and #, up to and with /v1")


def split_name(name: str) -> tuple[str, str] | None:
    """Provider and model of a name such as ``vllm:google/medgemma-4b-it``; None for any other name."""
    provider, colon, model = name.partition(":")
    return (provider, model) if colon and provider in PROVIDERS else None
