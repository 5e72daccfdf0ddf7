"""A model behind an OpenAI-compatible endpoint (vLLM, SGLang, Ollama, LM Studio, a hosted one) as a `VqaModel`.

``openai:MODEL`` with a base URL: every question is one chat completion with the picture in it. Several requests run at
once. The `openai` client repeats requests that fail for a temporary reason, with increasing waits. Tokens are counted.
"""

from __future__ import annotations

import base64
import io
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.errors import ConfigError, MissingDependencyError, ModelError
from medical_vqa.models.base import ModelFamily, Query, Vision, check_question
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Prediction

if TYPE_CHECKING:
    from openai import APIStatusError
    from openai.types import CompletionUsage
    from openai.types.chat.chat_completion import Choice

PREFIX = "openai:"
"""How a command line or `load` names a remote model: ``openai:MODEL``."""
PROMPT = (
    "Answer the question about this medical image with one word or a short phrase, without explanation.\n"
    "Question: {question}"
)
_RETRIED = frozenset({408, 409, 429})
_ADVICE = {
    401: "set the key in the environment variable named by --api-key-env",
    404: "check --base-url, which ends in /v1, and the model's name",
}


@dataclass(slots=True)
class Usage:
    """Requests and tokens; shared by the threads that send requests."""

    requests: int = 0
    """Answers received."""
    retries: int = 0
    """Requests that were repeated."""
    prompt_tokens: int = 0
    """Tokens of questions and pictures, as the endpoint counts them."""
    completion_tokens: int = 0
    """Tokens of answers, as the endpoint counts them."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, tokens: CompletionUsage | None, *, retries: int) -> None:
        """Count one answer."""
        with self._lock:
            self.requests += 1
            self.retries += retries
            if tokens is not None:
                self.prompt_tokens += tokens.prompt_tokens or 0
                self.completion_tokens += tokens.completion_tokens or 0

    def add_retries(self, count: int) -> None:
        """Count the repetitions of a request that got no answer."""
        with self._lock:
            self.retries += count

    def to_json(self) -> dict[str, int]:
        """The four counts."""
        return {name: getattr(self, name) for name in ("requests", "retries", "prompt_tokens", "completion_tokens")}

    def cost(self, *, per_million_in: float, per_million_out: float) -> float:
        """Cost in the currency of the prices, which are per million tokens."""
        return (self.prompt_tokens * per_million_in + self.completion_tokens * per_million_out) / 1e6


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
    logprobs: bool = True
    """Whether to request token log-probabilities, from which the confidence is computed."""
    max_tokens: int = 64
    """Longest answer, in tokens."""
    timeout: float = 120.0
    """Seconds for one request."""
    tries: int = 6
    """Attempts per question, the first included."""

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"--base-url {self.base_url!r}: expected http://… or https://…, up to and with /v1")
        if "{question}" not in self.prompt:
            raise ConfigError(
                f"the prompt {self.prompt!r} does not say where the question goes; put {{question}} in it"
            )
        if not self.model or self.tries < 1:
            raise ConfigError(f"a remote model needs a name and at least one try, got {self.model!r} and {self.tries}")


class RemoteModel(ModelFamily):
    """A model behind an endpoint."""

    family = "openai"

    def __init__(self, endpoint: Endpoint, *, api_key: str = "", concurrency: int = 8) -> None:
        """Create the client; nothing is sent yet.

        Args:
            endpoint: Address and request settings.
            api_key: Key of the endpoint; empty where it needs none.
            concurrency: Requests that run at once.

        Raises:
            ConfigError: `concurrency` is less than one.
            MissingDependencyError: The package `openai` is not installed.
        """
        if concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency}; at least one request must run")
        try:
            from openai import OpenAI  # noqa: PLC0415
        except ImportError as error:
            raise MissingDependencyError(
                "a model behind an endpoint needs the package openai, which is not installed; "
                "run: pip install 'medical-vqa[remote]'"
            ) from error
        self.endpoint = endpoint
        self.usage = Usage()
        self._concurrency = concurrency
        self._client = OpenAI(
            base_url=endpoint.base_url,
            api_key=api_key or "none",
            timeout=endpoint.timeout,
            max_retries=endpoint.tries - 1,
        )

    @property
    def picture(self) -> PictureSpec | None:
        """Color, aspect kept, never enlarged."""
        return PictureSpec(side=self.endpoint.side, mode="RGB", fit="inside")

    @property
    def vision(self) -> Vision | None:
        """None: the endpoint encodes the pictures."""
        return None

    def describe(self) -> dict[str, Any]:
        """The endpoint's address and request settings."""
        return asdict(self.endpoint)

    def answer(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:  # noqa: ARG002 - always greedy
        """One prediction per query, in order; raises `ModelError` when the endpoint does not answer."""
        with ThreadPoolExecutor(self._concurrency) as pool:
            return list(pool.map(self._answer, queries))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _answer(self, query: Query) -> Prediction:
        choice = self._request(self._message(query))
        text = choice.message.content or ""
        return Prediction(query.id, text.strip(), text, confidence(choice))

    def _message(self, query: Query) -> dict[str, Any]:
        if isinstance(query.visual, Mapping):
            raise ModelError("a remote model takes pictures, not features; ask it without a feature cache")
        question = self.endpoint.prompt.replace("{question}", check_question(query.question))
        picture = {"url": _data_uri(query.visual.tobytes(), query.visual.shape)}
        content = [{"type": "text", "text": question}, {"type": "image_url", "image_url": picture}]
        return {"role": "user", "content": content}

    def _request(self, message: Any) -> Choice:
        import openai  # noqa: PLC0415

        endpoint = self.endpoint
        try:
            response = self._client.chat.completions.with_raw_response.create(
                model=endpoint.model,
                messages=[message],
                temperature=0,
                max_tokens=endpoint.max_tokens,
                logprobs=True if endpoint.logprobs else openai.omit,
            )
        except openai.APIStatusError as error:
            raise self._refused(error) from error
        except openai.APIConnectionError as error:
            raise self._unavailable(f"{type(error.__cause__ or error).__name__}: {error.__cause__ or error}") from error
        try:
            completion = response.parse()
            choice = completion.choices[0]
            _ = choice.message.content
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            reply = " ".join(response.text[:300].split())
            raise ModelError(f"{endpoint.base_url} answered without choices[0].message.content: {reply}") from error
        self.usage.add(completion.usage, retries=response.retries_taken)
        return choice

    def _refused(self, error: APIStatusError) -> ModelError:
        status = error.status_code
        if status in _RETRIED or status >= 500:
            return self._unavailable(f"HTTP {status}")
        reply = " ".join(error.response.text[:300].split())
        advice = _ADVICE.get(status, "try --no-logprobs, a smaller --side, or see what the endpoint takes")
        return ModelError(f"{self.endpoint.base_url} refused the question (HTTP {status}: {reply}); {advice}")

    def _unavailable(self, problem: str) -> ModelError:
        self.usage.add_retries(self.endpoint.tries - 1)
        return ModelError(
            f"{self.endpoint.base_url} did not answer in {self.endpoint.tries} tries ({problem}); answers so far are "
            "saved: run the same command again when it is available"
        )


def confidence(choice: Choice) -> float | None:
    """exp(mean log-probability of the tokens) of a choice, in [0, 1]; None where the endpoint gives none."""
    tokens: Iterable[Any] = (choice.logprobs.content if choice.logprobs else None) or ()
    values = [token.logprob for token in tokens if isinstance(token.logprob, int | float)]
    finite = [float(value) for value in values if math.isfinite(value)]
    return min(1.0, math.exp(sum(finite) / len(finite))) if finite else None


@lru_cache(maxsize=64)  # the questions about one image follow each other
def _data_uri(pixels: bytes, shape: tuple[int, ...]) -> str:
    picture = np.frombuffer(pixels, dtype=np.uint8).reshape(shape)
    out = io.BytesIO()
    Image.fromarray(picture.squeeze(-1) if shape[-1] == 1 else picture).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
