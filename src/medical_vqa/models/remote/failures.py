"""What went wrong at an endpoint, in one sentence that says what to do.

The patterns come from the messages of vLLM, SGLang, Ollama, LM Studio, llama.cpp's server, `transformers serve` and
OpenAI, which agree on the status codes less than on the words.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from medical_vqa.errors import ContextLengthError, EndpointDownError, EndpointError, ModelError
from medical_vqa.text import did_you_mean

if TYPE_CHECKING:
    from medical_vqa.models.remote.endpoint import Endpoint

TEMPORARY = frozenset({408, 409, 429})
_MODEL = re.compile(
    r"model\b.{0,120}\b(?:not found|does not exist|doesn't exist|not exist|no such|unknown|not loaded|invalid)"
    r"|pinned to|no models? loaded|invalid model",
    re.IGNORECASE | re.DOTALL,
)
_CONTEXT = re.compile(
    r"context (?:length|window|size)|maximum context|max_model_len|too many tokens|prompt is too long"
    r"|exceeds? the (?:available|model|maximum)|longer than the (?:maximum|model)",
    re.IGNORECASE,
)
_FILTER = re.compile(r"content[ _](?:filter|management|policy)|responsible ?ai|safety system", re.IGNORECASE)
_NO_VISION = re.compile(
    r"not a multimodal|not multimodal|at most 0 image|image input is not supported|mmproj|missing data required for "
    r"image|does ?n[o']t support (?:image|vision|multimodal)|not support(?:ed)? (?:image|vision)|"
    r"invalid (?:content type|message content).{0,40}image|no (?:vision|image) (?:support|processor)",
    re.IGNORECASE,
)
_PICTURES = re.compile(r"at most (\d+) image", re.IGNORECASE)
_OPTIONAL = ("top_logprobs", "logprobs", "stream_options", "temperature", "max_tokens", "n")


class Refusal:
    """A reply with an HTTP status of 300 or more."""

    def __init__(self, status: int, text: str, location: str = "") -> None:
        """Read what was received.

        Args:
            status: HTTP status.
            text: The reply's body, in whatever format.
            location: Address that a redirection names.
        """
        self.status = status
        self.location = location
        self._text = text

    @cached_property
    def _error(self) -> Any:
        try:
            body = json.loads(self._text)
        except ValueError:
            return self._text
        return body.get("error", body) if isinstance(body, dict) else body

    @cached_property
    def words(self) -> str:
        """The words of the refusal, on one line, at most 300 characters."""
        error = self._error
        if isinstance(error, dict):
            error = error.get("message") or error.get("detail") or self._text
        return " ".join(str(error).split())[:300]

    @property
    def code(self) -> str | None:
        """The endpoint's name of the refusal, such as ``content_filter``."""
        return self._error.get("code") if isinstance(self._error, dict) else None


class BrokenOffError(ModelError):
    """A stream that ended before the answer was complete."""


def check_event(event: Any) -> None:
    """Raise `BrokenOffError` for the event by which a stream reports an error."""
    error = event.get("error") if isinstance(event, dict) else None
    if error:
        raise BrokenOffError(str(error.get("message", error) if isinstance(error, dict) else error))


def connection_problem(error: Exception, timeout: float) -> str:
    """What happened to a connection, in a few words."""
    import aiohttp  # noqa: PLC0415

    if isinstance(error, TimeoutError):
        return f"nothing came within {timeout:g} s"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        code = error.errno or 0
        reason = os.strerror(code) if code > 0 else error.strerror
        return f"no connection: {reason or error.os_error}"
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError | aiohttp.ClientOSError):
        return "it closed the connection"
    return " ".join(f"{type(error).__name__}: {error}".split())


def unsupported_option(refusal: Refusal, options: Sequence[str]) -> str | None:
    """The optional parameter of a request that an endpoint does not take; None where it objects to something else."""
    if refusal.status not in (400, 422, 501):
        return None
    words = refusal.words
    return next((name for name in _OPTIONAL if name in options and re.search(rf"\b{name}\b", words)), None)


def is_unknown_model(refusal: Refusal) -> bool:
    """Whether the endpoint does not have the model."""
    return refusal.status in (400, 404, 422) and _MODEL.search(refusal.words) is not None


def has_no_vision(refusal: Refusal) -> bool:
    """Whether the model takes no pictures."""
    return _NO_VISION.search(refusal.words) is not None


def lacks_credit(refusal: Refusal) -> bool:
    """Whether the account of the key is used up; OpenAI says so with the status of too many requests."""
    return refusal.status == 402 or refusal.code == "insufficient_quota"


def is_temporary(refusal: Refusal) -> bool:
    """Whether the same request may succeed later."""
    if has_no_vision(refusal):  # llama.cpp's server says so with 500
        return False
    if lacks_credit(refusal):
        return False
    return refusal.status in TEMPORARY or refusal.status >= 500


def is_filtered(refusal: Refusal) -> bool:
    """Whether a content filter refused the question."""
    return refusal.status in (400, 403, 451) and (
        refusal.code == "content_filter" or _FILTER.search(refusal.words) is not None
    )


def refused(refusal: Refusal, endpoint: Endpoint) -> ModelError:
    """The sentence for a refusal that repeating does not help."""
    words, address = refusal.words, endpoint.base_url
    if refusal.status < 400:
        target = refusal.location.removesuffix("/chat/completions") or "another address"
        return EndpointError(f"{address} redirects to {target}; write --base-url {target} if you trust it")
    if refusal.status in (401, 403) or lacks_credit(refusal):
        reason = f"(HTTP {refusal.status}: {words})"
        problem = f"refused the key {reason}; set"
        if lacks_credit(refusal):
            problem = f"has no credit left for this key {reason}; add credit at its provider, set"
        return EndpointError(
            f"{address} {problem} the variable {endpoint.api_key_env}, or name another one with --api-key-env"
        )
    if has_no_vision(refusal):
        return no_vision(endpoint)
    if _CONTEXT.search(words):
        return ContextLengthError(
            f"question and picture are longer than {endpoint.model} can read ({words}); use a smaller picture side, "
            "fewer turns, fewer max_tokens, or serve the model with a longer context"
        )
    if (most := _PICTURES.search(words)) is not None:
        return ModelError(
            f"{endpoint.model} takes at most {most.group(1)} pictures in one question at {address}; send fewer, or "
            "raise the engine's limit (vLLM: --limit-mm-per-prompt)"
        )
    return ModelError(
        f"{address} refused the question (HTTP {refusal.status}: {words}); try --no-logprobs, a smaller side, or "
        "see what the endpoint takes"
    )


def unknown_model(endpoint: Endpoint, models: Sequence[str]) -> EndpointError:
    """The model is not at the endpoint; `models` are those that are."""
    if not models:
        return EndpointError(
            f"{endpoint.base_url} has no model {endpoint.model} and lists none; check the name with the program that "
            "serves it"
        )
    listed = ", ".join(models[:8]) + (f" and {len(models) - 8} more" if len(models) > 8 else "")
    hint = did_you_mean(endpoint.model, models, otherwise="correct the name")
    return EndpointError(f"{endpoint.base_url} has no model {endpoint.model}; it has {listed}; {hint}")


def no_vision(endpoint: Endpoint) -> EndpointError:
    """The model does not see pictures."""
    return EndpointError(
        f"{endpoint.model} at {endpoint.base_url} takes no pictures (a probe picture changed nothing, or was refused); "
        "serve a vision-language model, with its projector (mmproj) where the engine keeps it in a file of its own"
    )


def not_compatible(endpoint: Endpoint, reply: str) -> EndpointError:
    """What answers does not speak the protocol."""
    words = " ".join(reply.split())[:200]
    return EndpointError(
        f"{endpoint.base_url} answered without choices[0].message.content, so it is no OpenAI-compatible endpoint "
        f"({words}); check --base-url, which ends in /v1 for most programs"
    )


def down(endpoint: Endpoint, problem: str, *, tries: int) -> EndpointDownError:
    """The endpoint does not answer, after a number of tries."""
    return EndpointDownError(
        f"{endpoint.base_url} did not answer in {'1 try' if tries == 1 else f'{tries} tries'} ({problem}); start the "
        "engine, or try again when it is available: what was saved is not asked again"
    )
