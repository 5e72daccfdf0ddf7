"""The one client of OpenAI-compatible endpoints: a pool of connections for every loop that asks.

Callers without a loop submit questions to the client's own loop, in a thread, and wait, or cancel, which closes the
request and lets the engine stop. A server awaits them in its own loop, because two threads would wait for each other.
Requests that fail for a temporary reason are repeated, with increasing waits and as ``Retry-After`` says. What an
endpoint does not take (``logprobs``, ``max_tokens`` …) is left out from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from medical_vqa.errors import ConfigError, MissingDependencyError, ModelError
from medical_vqa.models.remote import failures
from medical_vqa.models.remote.answer_text import UnfinishedAnswer
from medical_vqa.models.remote.endpoint import Endpoint
from medical_vqa.models.remote.failures import Refusal
from medical_vqa.models.remote.retries import seconds_before_retry
from medical_vqa.models.remote.usage import Usage, prompt_tokens
from medical_vqa.models.remote.wire import BodyParts, events, is_refusal, message_text, reply_object, request_body

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

OnText = Callable[[str], None]
"""Receives what of the answer may be shown so far, without its chain of thought."""

_TOP_LOGPROBS = 5  # yes and no are among them where the question is closed; LM Studio and others refuse more
_SAMPLE_TEMPERATURE = 0.7
_LIST_SECONDS = 10.0
_CLOSE_SECONDS = 5.0  # for connections to close, and for the thread to end: a callback may keep it
_PROBE_TRIES = 2  # to reach an endpoint at all, before the first question
_LONGEST_TEXT = 1 << 20  # characters of an answer, chain of thought included
_LONGEST_LINE = 1 << 18  # bytes of a stream's line, of which aiohttp reads twice as many


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
    refused: bool = False
    """Whether the text is a refusal, in the protocol's field for it."""


@dataclass(frozen=True, slots=True)
class _Pool:
    """Connections of one loop, which another cannot use."""

    session: ClientSession
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
            ConfigError: `concurrency` is less than one, the key cannot be sent, or would be without encryption.
            MissingDependencyError: The package `aiohttp` is not installed.
        """
        if not isinstance(concurrency, int) or concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency!r}; at least one request must run")
        if not isinstance(api_key, str):
            raise ConfigError(f"api_key: expected the key as text, got {type(api_key).__name__}; pass the text")
        api_key = api_key.strip()
        endpoint.check_key(api_key)
        try:
            import aiohttp  # noqa: F401, PLC0415
        except ImportError as error:
            raise MissingDependencyError(
                "a model behind an endpoint needs the package aiohttp, which is not installed; "
                "run: pip install 'medical-vqa[remote]'"
            ) from error
        self.endpoint = endpoint
        self.usage = Usage()
        self.notes: list[str] = []
        self.concurrency = concurrency
        self._headers = {"Content-Type": "application/json", "User-Agent": "medical-vqa"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = weakref.WeakKeyDictionary()
        self._omitted: set[str] = set() if endpoint.logprobs else {"logprobs", "top_logprobs"}
        self._renamed: dict[str, str] = {}
        self._closed = False
        self._lock = threading.Lock()  # nothing is submitted after it was closed, or it would be awaited without end
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Run work in the client's loop; canceling the future closes its requests.

        Raises `ModelError` once the client is closed.
        """
        with self._lock:
            if not self._closed:
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        raise ModelError(f"the connection to {self.endpoint.model} was closed; load the model again")

    def close(self) -> None:
        """Close the connections and end the thread; its work is canceled.

        This may run in any thread, also in the loop of a caller and while the interpreter exits, and waits for a loop
        that somebody blocks no longer than a few seconds.
        """
        if threading.current_thread() is self._thread:
            return
        with self._lock:
            if self._closed or not self._thread.is_alive():  # in a process that was forked it is not
                return
            self._closed = True
        pools = [(loop, pool) for loop, pool in self._pools.items() if loop is not self._loop and loop.is_running()]
        waiting = [asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop)]
        for loop, pool in pools:
            closing = asyncio.run_coroutine_threadsafe(pool.session.close(), loop)
            if loop is not _running_loop():  # which continues after this
                waiting.append(closing)
        wait(waiting, _CLOSE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    async def _shut_down(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._pool().session.close()

    def _pool(self) -> _Pool:
        """The connections of the running loop."""
        import aiohttp  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        if loop not in self._pools:
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # the slots are the limit
                headers=self._headers,
                read_bufsize=_LONGEST_LINE,
                proxy=self.endpoint.proxy,
            )
            self._pools[loop] = _Pool(session, asyncio.Semaphore(self.concurrency))
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
        import aiohttp  # noqa: PLC0415

        limit = aiohttp.ClientTimeout(total=_LIST_SECONDS)
        try:
            async with self._pool().session.get(f"{_root(self.endpoint)}/models", timeout=limit) as response:
                page = reply_object(json.loads(await response.read()))
            return [str(model.id) for model in page.data]
        except (aiohttp.ClientError, TimeoutError, AttributeError, TypeError, ValueError):
            return []

    async def _attempt(
        self, messages: Sequence[Any], options: dict[str, Any], on_text: OnText | None, *, answers: int
    ) -> Reply:
        """One answer to one wording of the request, which is repeated while it fails for a temporary reason."""
        import aiohttp  # noqa: PLC0415

        endpoint = self.endpoint
        body = request_body({"model": endpoint.model, "messages": messages, **options})
        for retries in range(endpoint.tries):
            is_last = retries + 1 == endpoint.tries
            try:
                async with self._post(body, stream=on_text is not None) as response:
                    if response.status < 300:
                        return await self._read(response, on_text, answers, retries, endpoint.base_url)
                    location = response.headers.get("location", "")
                    refusal = Refusal(response.status, await response.text(errors="replace"), location)
                    delay = seconds_before_retry(retries, response.headers)
            except failures.BrokenOffError as error:
                raise failures.down(endpoint, f"the answer broke off: {error}", tries=retries + 1) from error
            except (aiohttp.ClientError, TimeoutError) as error:
                is_unreachable = isinstance(error, aiohttp.ClientConnectorError)
                if is_last or (is_unreachable and not answers and retries + 1 >= _PROBE_TRIES):
                    self.usage.add_retries(retries)
                    problem = failures.connection_problem(error, endpoint.timeout)
                    raise failures.down(endpoint, problem, tries=retries + 1) from error
                delay = seconds_before_retry(retries)
            else:
                if is_last or not failures.is_temporary(refusal):
                    return await self._failed(refusal, list(options), endpoint.base_url, retries)
            await asyncio.sleep(delay)
        raise AssertionError("an endpoint has at least one try")

    def _post(self, body: BodyParts, *, stream: bool) -> Any:
        """Send a request; a whole answer has `Endpoint.timeout` seconds, and so has each piece of a stream."""
        import aiohttp  # noqa: PLC0415

        seconds = self.endpoint.timeout
        limit = aiohttp.ClientTimeout(total=None if stream else seconds, sock_connect=seconds, sock_read=seconds)
        return self._pool().session.post(
            f"{_root(self.endpoint)}/chat/completions",
            data=body.pieces(),
            headers={"Content-Length": str(body.length)},
            timeout=limit,
            allow_redirects=False,  # the key goes to no other address
        )

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

    async def _read(
        self, response: ClientResponse, on_text: OnText | None, answers: int, retries: int, address: str
    ) -> Reply:
        """The answer in a response: a stream, or a whole where that was requested or the endpoint does not stream."""
        if on_text is not None and response.content_type == "text/event-stream":
            return await self._read_stream(response, on_text, retries)
        content = await response.read()
        try:
            completion = reply_object(json.loads(content))
            choice = completion.choices[0]
            text = message_text(choice.message)
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            if self._use_version(address):
                raise _AdaptedError from None
            raise failures.not_compatible(self.endpoint, content.decode(errors="replace")) from error
        finish_reason = getattr(choice, "finish_reason", None)
        usage = getattr(completion, "usage", None)
        self.usage.add(usage, answers=answers, retries=retries, finish_reason=finish_reason)
        counted, refused = prompt_tokens(usage), is_refusal(choice.message)
        return Reply(text[:_LONGEST_TEXT], _tokens(choice), finish_reason, counted, refused)

    async def _read_stream(self, response: ClientResponse, on_text: OnText, retries: int) -> Reply:
        import aiohttp  # noqa: PLC0415

        reply, usage, unfinished, pieces, length = Reply(), None, UnfinishedAnswer(), list[str](), 0
        try:
            async for event in events(response.content):
                failures.check_event(event)
                chunk = reply_object(event)
                usage = getattr(chunk, "usage", None) or usage
                if not (choices := getattr(chunk, "choices", None)):
                    continue
                choice = choices[0]
                reply.finish_reason = getattr(choice, "finish_reason", None) or reply.finish_reason
                reply.tokens.extend(_tokens(choice))
                delta = getattr(choice, "delta", None)
                reply.refused |= is_refusal(delta)
                text = message_text(delta)
                if text and length < _LONGEST_TEXT:
                    pieces.append(text)
                    length += len(text)
                    if (now := unfinished.add(text)) is not None:
                        on_text(now)
        except (aiohttp.ClientError, TimeoutError, TypeError, ValueError) as error:
            raise failures.BrokenOffError(failures.connection_problem(error, self.endpoint.timeout)) from error
        self.usage.add(usage, retries=retries, finish_reason=reply.finish_reason)
        reply.text = "".join(pieces)
        reply.prompt_tokens = prompt_tokens(usage)
        return reply

    async def _failed(self, refusal: Refusal, options: Sequence[str], address: str, retries: int) -> Reply:
        """The empty answer of a content filter; otherwise raises what the refusal means."""
        if failures.is_filtered(refusal):
            self.usage.add(None, retries=retries, finish_reason="content_filter")
            return Reply(finish_reason="content_filter")
        self.usage.add_retries(retries)
        if (option := failures.unsupported_option(refusal, options)) is not None:
            self._adapt(option)
            raise _AdaptedError
        if failures.has_no_vision(refusal):
            raise failures.no_vision(self.endpoint)
        if failures.is_unknown_model(refusal):
            raise failures.unknown_model(self.endpoint, await self.models())
        if refusal.status in (404, 405):
            if self._use_version(address):
                raise _AdaptedError
            models = await self.models()
            if models and self.endpoint.model not in models:
                raise failures.unknown_model(self.endpoint, models)
            raise failures.not_compatible(self.endpoint, refusal.words)
        if failures.is_temporary(refusal):
            words = f": {refusal.words}" if refusal.words else ""
            raise failures.down(self.endpoint, f"HTTP {refusal.status}{words}", tries=retries + 1)
        raise failures.refused(refusal, self.endpoint)

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
        self.notes.append(f"{address} answers at {self.endpoint.base_url}; write --base-url with /v1")
        return True


def _tokens(choice: Any) -> list[Any]:
    return list(getattr(getattr(choice, "logprobs", None), "content", None) or ())


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread."""
    with contextlib.suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None


def _root(endpoint: Endpoint) -> str:
    return endpoint.base_url.rstrip("/")


class _AdaptedError(ModelError):
    """The request was changed; it is to be sent again."""
