"""Any model behind an OpenAI-compatible endpoint (vLLM, SGLang, a hosted one), asked as our own are.

``openai:MODEL`` with a base URL: every question is one request to ``/chat/completions`` with the picture in it. Several
run at once; what fails for a passing reason is tried again, later each time. What was spent is counted.
"""

from __future__ import annotations

import base64
import io
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import httpx2
import numpy as np
from PIL import Image

from medical_vqa.data.imaging.pictures import PictureSpec
from medical_vqa.errors import ConfigError, ModelError
from medical_vqa.io import TemporaryFailure, retry
from medical_vqa.models.base import Decoding, Query, Vision, check_question
from medical_vqa.schema.records import Prediction

PREFIX = "openai:"
PROMPT = (
    "Answer the question about this medical image with one word or a short phrase, without explanation.\n"
    "Question: {question}"
)
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_FIRST_WAIT = 1.0  # seconds before the second try
_LONGEST_WAIT = 60.0  # seconds between two tries
_MOST_TOKENS = 64


@dataclass(slots=True)
class Usage:
    """What was spent; shared by the threads that spend it."""

    requests: int = 0
    """Answers received."""
    retries: int = 0
    """Tries that failed for a passing reason."""
    prompt_tokens: int = 0
    """As the endpoint counts them, pictures included."""
    completion_tokens: int = 0
    """Likewise."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, reply: Mapping[str, Any]) -> None:
        """Count one reply."""
        spent = reply.get("usage") or {}
        with self._lock:
            self.requests += 1
            self.prompt_tokens += int(spent.get("prompt_tokens") or 0)
            self.completion_tokens += int(spent.get("completion_tokens") or 0)

    def again(self) -> None:
        """Count one retry."""
        with self._lock:
            self.retries += 1

    def to_json(self) -> dict[str, int]:
        """The four counts."""
        return {name: getattr(self, name) for name in ("requests", "retries", "prompt_tokens", "completion_tokens")}

    def cost(self, *, per_million_in: float, per_million_out: float) -> float:
        """In the currency of the prices, which are per million tokens."""
        return (self.prompt_tokens * per_million_in + self.completion_tokens * per_million_out) / 1e6


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a served model is, and how it is asked."""

    model: str
    """The name the endpoint knows it by."""
    base_url: str
    """Such as ``http://localhost:8000/v1``."""
    prompt: str = PROMPT
    """Holds ``{question}``."""
    side: int = 768
    """Pixels of the longer side of the pictures that are sent."""
    logprobs: bool = True
    """Whether to ask for token probabilities, from which the confidence comes."""
    max_tokens: int = _MOST_TOKENS
    """Of an answer."""
    timeout: float = 120.0
    """Seconds for one try."""
    tries: int = 6
    """Of one request before it is given up."""

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"--base-url {self.base_url!r}: expected http://… or https://…, up to and with /v1")
        if "{question}" not in self.prompt:
            raise ConfigError(
                f"the prompt {self.prompt!r} does not say where the question goes; put {{question}} in it"
            )
        if not self.model or self.tries < 1:
            raise ConfigError(f"a served model needs a name and at least one try, got {self.model!r} and {self.tries}")


class Served:
    """A model behind an endpoint; a `VqaModel`."""

    family = "openai"

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        api_key: str = "",
        concurrency: int = 8,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency}; at least one request must run")
        self.endpoint, self.usage = endpoint, Usage()
        self._concurrency, self._sleep = concurrency, sleep
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        limits = httpx2.Limits(max_connections=concurrency)
        self._client = httpx2.Client(headers=headers, timeout=endpoint.timeout, limits=limits)

    @property
    def picture(self) -> PictureSpec | None:
        """Color, aspect kept, never enlarged."""
        return PictureSpec(side=self.endpoint.side, mode="RGB", fit="inside")

    @property
    def vision(self) -> Vision | None:
        """None: nothing is encoded here."""
        return None

    def describe(self) -> dict[str, Any]:
        """How it is asked; what tells two runs apart."""
        return asdict(self.endpoint)

    def answer(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:  # noqa: ARG002 - greedy it is
        """One prediction per query, in order; raises `ModelError` when the endpoint cannot be had."""
        with ThreadPoolExecutor(self._concurrency) as pool:
            return list(pool.map(self._answer, queries))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _answer(self, query: Query) -> Prediction:
        reply = self._ask(self._request(query))
        self.usage.add(reply)
        try:
            choice = reply["choices"][0]
            text = choice["message"]["content"] or ""
        except (KeyError, IndexError, TypeError) as error:
            raise ModelError(
                f"{self.endpoint.base_url} answered without choices[0].message.content: {reply}"
            ) from error
        return Prediction(query.id, text.strip(), text, confidence(choice))

    def _request(self, query: Query) -> dict[str, Any]:
        if isinstance(query.visual, Mapping):
            raise ModelError("a served model takes pictures, not features; ask it without a feature cache")
        question = self.endpoint.prompt.replace("{question}", check_question(query.question))
        content = [
            {"type": "text", "text": question},
            {"type": "image_url", "image_url": {"url": _data_uri(query.visual.tobytes(), query.visual.shape)}},
        ]
        asked: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self.endpoint.max_tokens,
        }
        return asked | ({"logprobs": True} if self.endpoint.logprobs else {})

    def _ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return retry(
            lambda: self._once(body),
            attempts=self.endpoint.tries,
            first_wait=_FIRST_WAIT,
            longest_wait=_LONGEST_WAIT,
            sleep=self._wait,
        )

    def _wait(self, seconds: float) -> None:
        self._sleep(seconds)
        self.usage.again()

    def _once(self, body: Mapping[str, Any]) -> dict[str, Any]:
        url = f"{self.endpoint.base_url.rstrip('/')}/chat/completions"
        try:
            response = self._client.post(url, json=body)
        except httpx2.TransportError as error:
            raise TemporaryFailure(self._unavailable(url, f"{type(error).__name__}: {error}")) from error
        if response.status_code in _PASSING:
            problem = self._unavailable(url, f"HTTP {response.status_code}")
            raise TemporaryFailure(problem, response.headers.get("retry-after"))
        return self._reply(response)

    def _unavailable(self, url: str, problem: str) -> ModelError:
        return ModelError(
            f"{url} could not be had in {self.endpoint.tries} tries ({problem}); answers so far are kept: "
            "run the same command again when it is back"
        )

    def _reply(self, response: httpx2.Response) -> dict[str, Any]:
        try:
            content = response.json()
        except ValueError:
            content = None
        if response.is_success and isinstance(content, dict):
            return content
        said = " ".join(response.text[:300].split())
        advice = {
            401: "set the key in the environment variable named by --api-key-env",
            404: "check --base-url, which ends in /v1, and the model's name",
        }.get(response.status_code, "try --no-logprobs, a smaller --side, or see what the endpoint takes")
        where = f"{self.endpoint.base_url} refused the question (HTTP {response.status_code}: {said})"
        raise ModelError(f"{where}; {advice}")


def confidence(choice: Mapping[str, Any]) -> float | None:
    """exp(mean token log-probability) of a choice; None where the endpoint gives none that can be used."""
    tokens = (choice.get("logprobs") or {}).get("content") or []
    values = [token.get("logprob") for token in tokens if isinstance(token, Mapping)]
    numbers = [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]
    return min(1.0, math.exp(sum(numbers) / len(numbers))) if numbers else None


@lru_cache(maxsize=64)  # the questions about one image stand together
def _data_uri(pixels: bytes, shape: tuple[int, ...]) -> str:
    picture = np.frombuffer(pixels, dtype=np.uint8).reshape(shape)
    out = io.BytesIO()
    Image.fromarray(picture.squeeze(-1) if shape[-1] == 1 else picture).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
