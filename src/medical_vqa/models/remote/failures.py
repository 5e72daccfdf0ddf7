"""What went wrong at an endpoint, in one sentence that says what to do.

The patterns come from the messages of vLLM, SGLang, Ollama, LM Studio, llama.cpp's server, `transformers serve` and
OpenAI, which agree on the status codes less than on the words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medical_vqa.errors import EndpointDownError, EndpointError, ModelError
from medical_vqa.text import did_you_mean

if TYPE_CHECKING:
    from openai import APIStatusError

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


def reply_text(error: APIStatusError) -> str:
    """The words of an endpoint's refusal, on one line, at most 300 characters."""
    body = error.body
    if isinstance(body, str):
        return " ".join(body.split())[:300]
    if isinstance(body, dict):
        inner = body.get("error", body)
        words = inner.get("message") or inner.get("detail") if isinstance(inner, dict) else inner
        if words:
            return " ".join(str(words).split())[:300]
    return " ".join(error.response.text.split())[:300]


def unsupported_option(error: APIStatusError, options: Sequence[str]) -> str | None:
    """The optional parameter of a request that an endpoint does not take; None where it objects to something else."""
    if error.status_code not in (400, 422, 501):
        return None
    words = reply_text(error)
    return next((name for name in _OPTIONAL if name in options and re.search(rf"\b{name}\b", words)), None)


def is_unknown_model(error: APIStatusError) -> bool:
    """Whether the endpoint does not have the model."""
    return error.status_code in (400, 404, 422) and _MODEL.search(reply_text(error)) is not None


def has_no_vision(error: APIStatusError) -> bool:
    """Whether the model takes no pictures."""
    return _NO_VISION.search(reply_text(error)) is not None


def is_temporary(error: APIStatusError) -> bool:
    """Whether the same request may succeed later."""
    return error.status_code in TEMPORARY or error.status_code >= 500


def is_filtered(error: APIStatusError) -> bool:
    """Whether a content filter refused the question."""
    return error.status_code in (400, 403, 451) and (
        error.code == "content_filter" or _FILTER.search(reply_text(error)) is not None
    )


def refusal(error: APIStatusError, endpoint: Endpoint) -> ModelError:
    """The sentence for a refusal that repeating does not help."""
    words, address = reply_text(error), endpoint.base_url
    if error.status_code in (401, 403):
        return EndpointError(
            f"{address} refused the key (HTTP {error.status_code}: {words}); set the variable {endpoint.api_key_env}, "
            "or name another one with --api-key-env"
        )
    if has_no_vision(error):
        return no_vision(endpoint)
    if _CONTEXT.search(words):
        return ModelError(
            f"question and picture are longer than {endpoint.model} can read ({words}); use a smaller picture side, "
            "fewer turns, or serve the model with a longer context"
        )
    if (most := _PICTURES.search(words)) is not None:
        return ModelError(
            f"{endpoint.model} takes at most {most.group(1)} pictures in one question at {address}; send fewer, or "
            "raise the engine's limit (vLLM: --limit-mm-per-prompt)"
        )
    return ModelError(
        f"{address} refused the question (HTTP {error.status_code}: {words}); try --no-logprobs, a smaller side, or "
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


def down(endpoint: Endpoint, problem: str) -> EndpointDownError:
    """The endpoint does not answer, after all tries."""
    tries = "1 try" if endpoint.tries == 1 else f"{endpoint.tries} tries"
    return EndpointDownError(
        f"{endpoint.base_url} did not answer in {tries} ({problem}); answers so far are saved: start the engine, or "
        "run the same command again when it is available"
    )
