"""The backend as the page sees it: a method per route, time-outs and retries, every failure one `BackendError`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from medical_vqa.errors import ConfigError, MedicalVqaError
from medical_vqa.io import TemporaryFailure, retry
from medical_vqa.serving.api import schema

Kind = Literal[schema.ErrorCode, "unreachable", "slow", "garbled"]
"""What went wrong: a code of the backend, or that it was not there, took too long, or said something else."""

PASSING = frozenset({"unreachable", "slow", "not_ready", "overloaded", "deadline", "timeout"})
"""Kinds that are likely to go away by themselves."""
LASTING = frozenset({"not_an_image", "unsupported_media_type", "too_large", "invalid"})
"""Kinds that come again with the same file."""
_ASLEEP = frozenset({502, 503, 504})
_CONNECT = 5.0  # seconds
_ANSWER = 60.0  # seconds: a platform that starts an instance holds the request meanwhile
_READY = 4.0  # seconds
_FIRST_WAIT = 0.5  # seconds before the second try
_LONGEST_WAIT = 5.0  # seconds between two tries; a person is looking at the page

Wire = TypeVar("Wire", bound=BaseModel)


class BackendError(MedicalVqaError):
    """The backend did not do what it was asked."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message

    @property
    def passing(self) -> bool:
        """Whether trying again later is likely to help."""
        return self.kind in PASSING


class Backend:
    """A backend at an address; may be used from several threads."""

    def __init__(
        self, address: str, *, api_key: str = "", tries: int = 3, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        if not address.startswith(("http://", "https://")):
            raise ConfigError(f"backend address {address!r}: expected http://… or https://…")
        self.address = address.rstrip("/")
        self._tries, self._sleep = tries, sleep
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx2.Timeout(_ANSWER, connect=_CONNECT)
        self._client = httpx2.Client(base_url=self.address, headers=headers, timeout=timeout, follow_redirects=True)

    def ready(self) -> bool:
        """Whether it answers questions now; one quick try."""
        try:
            return self._client.get("/readyz", timeout=_READY).is_success
        except httpx2.HTTPError:
            return False

    def model(self) -> schema.ModelInfo:
        """The card of its model, and what it takes."""
        return _parsed(schema.ModelInfo, self._ask("GET", "/model"))

    def examples(self) -> schema.Examples:
        """Images to try."""
        return _parsed(schema.Examples, self._ask("GET", "/examples"))

    def example_file(self, example: schema.ExampleImage) -> bytes:
        """The bytes of an example's image."""
        return self._ask("GET", example.image).content

    def upload(
        self, data: bytes, name: str, *, frame: int | None = None, window: tuple[float, float] | None = None
    ) -> schema.UploadedImage:
        """Hand over a file; `window` is center and width."""
        form = {} if frame is None else {"frame": str(frame)}
        form |= {} if window is None else {"window_center": f"{window[0]:g}", "window_width": f"{window[1]:g}"}
        files = {"image_file": (name, data)}
        return _parsed(schema.UploadedImage, self._ask("POST", "/upload_image", files=files, data=form))

    def picture(self, image_id: str) -> bytes:
        """PNG of an uploaded image as the model is shown it."""
        return self._ask("GET", f"/images/{image_id}/picture").content

    def questions(self, image_id: str) -> list[str]:
        """Questions that suit an uploaded image and the model."""
        return _parsed(schema.Suggestions, self._ask("GET", f"/images/{image_id}/questions")).questions

    def ask(self, image_id: str, question: str, *, attention_map: bool) -> schema.Answer:
        """Ask about an uploaded image."""
        body = schema.AskRequest.model_construct(image_id=image_id, question=question, attention_map=attention_map)
        return _parsed(schema.Answer, self._ask("POST", "/ask_question", json=body.model_dump()))

    def forget(self, image_id: str) -> None:
        """Delete an uploaded image; one that is not there any more is no error."""
        try:
            self._ask("DELETE", f"/images/{image_id}")
        except BackendError as error:
            if error.kind != "unknown_image":
                raise

    def forget_later(self, image_id: str) -> None:
        """`forget` without waiting for it; what fails expires by itself."""

        def quietly() -> None:
            try:
                self.forget(image_id)
            except BackendError:
                return

        threading.Thread(target=quietly, daemon=True).start()

    def _ask(self, method: str, path: str, **content: Any) -> httpx2.Response:
        """Send a request, again after passing failures; all routes may be repeated without harm."""
        return retry(
            lambda: self._once(method, path, **content),
            attempts=self._tries,
            first_wait=_FIRST_WAIT,
            longest_wait=_LONGEST_WAIT,
            sleep=self._sleep,
        )

    def _once(self, method: str, path: str, **content: Any) -> httpx2.Response:
        try:
            response = self._client.request(method, path, **content)
        except httpx2.TimeoutException as error:
            kind: Kind = "unreachable" if isinstance(error, httpx2.ConnectTimeout) else "slow"
            raise TemporaryFailure(BackendError(kind, f"{self.address} did not answer in time")) from error
        except httpx2.HTTPError as error:
            problem = BackendError("unreachable", f"{self.address} cannot be reached ({type(error).__name__})")
            raise TemporaryFailure(problem) from error
        if response.is_success:
            return response
        problem = _problem(response)
        if problem.passing:
            raise TemporaryFailure(problem, response.headers.get("retry-after"))
        raise problem


def _parsed(kind: type[Wire], response: httpx2.Response) -> Wire:
    """Fields that this version does not know are left out, so that a newer backend can be used."""
    try:
        return kind.model_validate_json(response.content, extra="ignore")
    except ValidationError as error:
        raise BackendError("garbled", f"expected {kind.__name__}, got something else") from error


def _problem(response: httpx2.Response) -> BackendError:
    try:
        detail = schema.Problem.model_validate_json(response.content, extra="ignore").detail
    except ValidationError:
        if response.status_code in _ASLEEP:
            return BackendError("not_ready", f"HTTP {response.status_code}")
        return BackendError("garbled", f"HTTP {response.status_code}")
    return BackendError(detail.code, detail.message)
