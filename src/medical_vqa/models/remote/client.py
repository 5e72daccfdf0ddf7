"""The one client of OpenAI-compatible endpoints: a pool of connections for every loop that asks.

Callers without a loop submit questions to the client's own loop, in a thread, and wait, or cancel, which closes the
request and lets the engine stop. A server awaits them in its own loop, because two threads would wait for each other.
The `openai` library repeats requests that fail for a temporary reason, with increasing waits and ``Retry-After``. What
an endpoint does not take (``logprobs``, ``max_tokens`` …) is left out from then on.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from medical_vqa.errors import ConfigError, MissingDependencyError, ModelError
from medical_vqa.models.remote import failures
from medical_vqa.models.remote.answer_text import LONGEST_RAW, visible
from medical_vqa.models.remote.endpoint import Endpoint
from medical_vqa.models.remote.usage import Usage, prompt_tokens
from medical_vqa.models.remote.wire import content_text, reply_object, request_body

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI, AsyncStream

OnText = Callable[[str], None]
"""Receives what of the answer may be shown so far, without its chain of thought."""

_TOP_LOGPROBS = 5  # yes and no are among them where the question is closed; LM Studio and others refuse more
_SAMPLE_TEMPERATURE = 0.7
_LIST_SECONDS = 10.0
_PATH = "/chat/completions"


@dataclass(slots=True)
class Reply:
    """What the endpoint answered to one request."""

    text: str = ""
    """The model's text, chain of thought included."""
    tokens: list[Any] = field(default_factory=list)
    """Token log-probabilities; empty where the endpoint gives none."""
    finish_reason: str | None = None
    """Why it ended: ``stop``, ``length``, ``content_filter`` …"""
    prompt_tokens: int | None = None
    """Tokens of question and pictures; None where the endpoint does not count."""


@dataclass(frozen=True, slots=True)
class _Pool:
    """Connections of one loop, which another cannot use."""

    openai: AsyncOpenAI
    slots: asyncio.Semaphore


class EndpointClient:
    """Requests to one endpoint."""

    def __init__(self, endpoint: Endpoint, *, api_key: str, concurrency: int) -> None:
        """Start the loop; nothing is sent yet.

        Args:
            endpoint: Address and request settings.
            api_key: Key of the endpoint; empty where it needs none.
            concurrency: Requests that run at once in one loop.

        Raises:
            ConfigError: `concurrency` is less than one, or the key would be sent without encryption.
            MissingDependencyError: The package `openai` is not installed.
        """
        if concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency}; at least one request must run")
        endpoint.check_key(api_key)
        try:
            from openai import AsyncOpenAI  # noqa: PLC0415
        except ImportError as error:
            raise MissingDependencyError(
                "a model behind an endpoint needs the package openai, which is not installed; "
                "run: pip install 'medical-vqa[remote]'"
            ) from error
        self.endpoint = endpoint
        self.usage = Usage()
        self.notes: list[str] = []
        self.concurrency = concurrency
        self._create = functools.partial(
            AsyncOpenAI, api_key=api_key or "none", timeout=endpoint.timeout, max_retries=endpoint.tries - 1
        )
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = weakref.WeakKeyDictionary()
        self._omitted: set[str] = set() if endpoint.logprobs else {"logprobs", "top_logprobs"}
        self._renamed: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Run work in the client's loop; canceling the future closes its requests."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Close the connections and end the thread."""
        if self._loop.is_closed() or threading.current_thread() is self._thread:
            return
        for loop in list(self._pools):
            if loop is not self._loop and loop.is_running():
                asyncio.run_coroutine_threadsafe(self._pools[loop].openai.close(), loop).result()
        self.submit(self._shut_down()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _shut_down(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._pool().openai.close()

    def _pool(self) -> _Pool:
        """The connections of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._pools:
            self._pools[loop] = _Pool(
                self._create(base_url=self.endpoint.base_url), asyncio.Semaphore(self.concurrency)
            )
        return self._pools[loop]

    async def complete(
        self, messages: Sequence[Any], *, on_text: OnText | None = None, sample: bool = False, brief: bool = False
    ) -> Reply:
        """One answer.

        Args:
            messages: The conversation, in the protocol's format.
            on_text: Receives the answer while it is written; None: it is requested as a whole.
            sample: Whether it is drawn at random.
            brief: Whether one token is enough, because only the counts are wanted.

        Raises:
            EndpointDownError: No answer after all tries.
            ModelError: The endpoint refuses the request, lacks the model, or does not speak the protocol.
        """
        async with self._pool().slots:
            while True:
                options = self._options(stream=on_text is not None, sample=sample, brief=brief)
                try:
                    return await self._attempt(messages, options, on_text, answers=0 if brief else 1)
                except _AdaptedError:  # the request was changed to what the endpoint takes
                    continue

    async def models(self) -> list[str]:
        """The models that the endpoint lists; empty where it lists none."""
        import openai  # noqa: PLC0415

        try:
            page = await self._pool().openai.with_options(max_retries=0, timeout=_LIST_SECONDS).models.list()
            return [str(model.id) for model in page.data]
        except (openai.OpenAIError, AttributeError, TypeError, ValueError):
            return []

    async def _attempt(
        self, messages: Sequence[Any], options: dict[str, Any], on_text: OnText | None, *, answers: int
    ) -> Reply:
        import httpx2  # noqa: PLC0415
        import openai  # noqa: PLC0415

        address = self.endpoint.base_url
        client = self._pool().openai
        content = request_body({"model": self.endpoint.model, "messages": messages, **options})
        try:
            if on_text is None:
                reply = await client.post(_PATH, cast_to=httpx2.Response, content=content)
                return self._read(reply, answers, address)
            stream = await client.post(
                _PATH, cast_to=object, content=content, stream=True, stream_cls=openai.AsyncStream[object]
            )
            if "event-stream" in stream.response.headers.get("content-type", ""):
                return await self._read_stream(stream, on_text)
            await stream.response.aread()  # it does not stream, and answers as a whole
            return self._read(stream.response, answers, address)
        except openai.APIStatusError as error:
            return await self._failed(error, list(options), address)
        except openai.APIConnectionError as error:
            self.usage.add_retries(self.endpoint.tries - 1)
            cause = error.__cause__ or error
            raise failures.down(self.endpoint, f"{type(cause).__name__}: {cause}") from error
        except openai.APIError as error:  # an error within a stream
            raise failures.down(self.endpoint, f"the answer broke off: {error.message}") from error
        except httpx2.HTTPError as error:
            raise failures.down(self.endpoint, f"the answer broke off: {type(error).__name__}") from error

    def _options(self, *, stream: bool, sample: bool, brief: bool) -> dict[str, Any]:
        options: dict[str, Any] = {
            "temperature": _SAMPLE_TEMPERATURE if sample else 0,
            "max_tokens": 1 if brief else self.endpoint.max_tokens,
        }
        if not sample and not brief:
            options |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
        if stream:
            options |= {"stream": True, "stream_options": {"include_usage": True}}
        supported = {name: value for name, value in options.items() if name not in self._omitted}
        return {self._renamed.get(name, name): value for name, value in supported.items()}

    def _read(self, response: httpx2.Response, answers: int, address: str) -> Reply:
        try:
            completion = reply_object(response.json())
            choice = completion.choices[0]
            text = content_text(choice.message.content)
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            if self._use_version(address):
                raise _AdaptedError from None
            raise failures.not_compatible(self.endpoint, response.text) from error
        finish_reason = getattr(choice, "finish_reason", None)
        usage = getattr(completion, "usage", None)
        filtered = finish_reason == "content_filter"
        self.usage.add(usage, answers=answers, retries=_retries(response), filtered=filtered)
        return Reply(text[:LONGEST_RAW], _tokens(choice), finish_reason, prompt_tokens(usage))

    async def _read_stream(self, stream: AsyncStream[object], on_text: OnText) -> Reply:
        reply, usage, last_text = Reply(), None, ""
        async for event in stream:
            chunk = reply_object(event)
            usage = getattr(chunk, "usage", None) or usage
            if not (choices := getattr(chunk, "choices", None)):
                continue
            choice = choices[0]
            reply.finish_reason = getattr(choice, "finish_reason", None) or reply.finish_reason
            reply.tokens.extend(_tokens(choice))
            text = content_text(getattr(getattr(choice, "delta", None), "content", None))
            if text and len(reply.text) < LONGEST_RAW:
                reply.text += text
                now = visible(reply.text)
                if now != last_text:
                    last_text = now
                    on_text(now)
        self.usage.add(usage, retries=_retries(stream.response), filtered=reply.finish_reason == "content_filter")
        reply.prompt_tokens = prompt_tokens(usage)
        return reply

    async def _failed(self, error: Any, options: Sequence[str], address: str) -> Reply:
        """The empty answer of a content filter; otherwise raises what the failure means."""
        if failures.is_filtered(error):
            self.usage.add(None, filtered=True)
            return Reply(finish_reason="content_filter")
        if (option := failures.unsupported_option(error, options)) is not None:
            self._adapt(option)
            raise _AdaptedError from error
        if failures.has_no_vision(error):
            raise failures.no_vision(self.endpoint) from error
        if failures.is_unknown_model(error):
            raise failures.unknown_model(self.endpoint, await self.models()) from error
        if error.status_code in (404, 405):
            if self._use_version(address):
                raise _AdaptedError from error
            models = await self.models()
            if models and self.endpoint.model not in models:
                raise failures.unknown_model(self.endpoint, models) from error
            raise failures.not_compatible(self.endpoint, failures.reply_text(error)) from error
        if failures.is_temporary(error):
            self.usage.add_retries(self.endpoint.tries - 1)
            words = failures.reply_text(error)
            raise failures.down(self.endpoint, f"HTTP {error.status_code}{f': {words}' if words else ''}") from error
        raise failures.refusal(error, self.endpoint) from error

    def _adapt(self, option: str) -> None:
        """Leave an option out from now on; ``max_tokens`` has a newer name."""
        if option in self._omitted or option in self._renamed:  # another request met it first
            return
        if option == "max_tokens":
            self._renamed["max_tokens"] = "max_completion_tokens"
            return
        self._omitted |= {"logprobs", "top_logprobs"} if option == "logprobs" else {option}
        self.notes.append(f"{self.endpoint.base_url} does not take {option}; it is left out")

    def _use_version(self, base_url: str) -> bool:
        """Whether the address that a request was sent to lacks its version, so that ``/v1`` is now tried."""
        if self.endpoint.base_url != base_url:  # another request met it first
            return True
        address = base_url.rstrip("/")
        if address.rpartition("/")[2].lstrip("v").isdigit():
            return False
        self.endpoint = replace(self.endpoint, base_url=f"{address}/v1")
        for pool in list(self._pools.values()):
            pool.openai.base_url = self.endpoint.base_url
        self.notes.append(f"{address} answers at {self.endpoint.base_url}; write --base-url with /v1")
        return True


def _tokens(choice: Any) -> list[Any]:
    return list(getattr(getattr(choice, "logprobs", None), "content", None) or ())


def _retries(response: httpx2.Response) -> int:
    """How often the request of a response had been sent before."""
    return int(response.request.headers.get("x-stainless-retry-count", "0"))


class _AdaptedError(ModelError):
    """The request was changed; it is to be sent again."""
