"""A model behind an OpenAI-compatible endpoint (vLLM, SGLang, Ollama, LM Studio, a hosted one) as a `VqaModel`.

Every question is one chat completion with its pictures and, in a conversation, the turns before it.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.errors import ModelError
from medical_vqa.models.base import Query, Vision, check_question
from medical_vqa.models.remote import failures
from medical_vqa.models.remote.answer_text import answer_text, recorded
from medical_vqa.models.remote.client import EndpointClient, OnText, Reply
from medical_vqa.models.remote.confidence import Confidence, agreement, token_confidence
from medical_vqa.models.remote.endpoint import Endpoint
from medical_vqa.models.remote.family import RemoteFamily, read_endpoint, write_endpoint
from medical_vqa.models.remote.usage import Usage
from medical_vqa.models.remote.wire import DataUrl
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Prediction

_CACHED_PICTURES = 64
_PROBE_SIDE = 224
_PROBE_QUESTION = "What is shown?"


class RemoteModel(RemoteFamily):
    """A model behind an endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        api_key: str = "",
        concurrency: int = 8,
        probe: bool = True,
    ) -> None:
        """Create the client; nothing is sent yet.

        Args:
            endpoint: Address and request settings.
            api_key: Key of the endpoint; empty where it needs none.
            concurrency: Requests that run at once.
            probe: Whether one probe picture decides, before the first question, if the model sees pictures.

        Raises:
            ConfigError: `concurrency` is less than one, the key cannot be sent, or would be without encryption.
            MissingDependencyError: The package `aiohttp` is not installed.
        """
        self._client = EndpointClient(endpoint, api_key=api_key, concurrency=concurrency)
        weakref.finalize(self, self._client.close)  # a model that is forgotten, or not closed when the process ends
        self._urls = _PictureUrls()
        self._probed = not probe
        self._probing: asyncio.Lock | None = None

    @classmethod
    def load(cls, folder: Path, *, device: Any = None) -> Self:  # noqa: ARG003 - the signature of every family
        """The model that a bundle describes; its key is in the variable that the bundle names."""
        endpoint = read_endpoint(folder)
        return cls(endpoint, api_key=os.environ.get(endpoint.api_key_env, ""))

    def save(self, folder: Path) -> None:
        """Write address and settings, never the key."""
        write_endpoint(folder, self.endpoint)

    @property
    def endpoint(self) -> Endpoint:
        """Address and request settings."""
        return self._client.endpoint

    @property
    def usage(self) -> Usage:
        """Requests and tokens so far."""
        return self._client.usage

    @property
    def notes(self) -> Sequence[str]:
        """What was changed to suit the endpoint, and how many answers it cut off, one sentence each."""
        cut_off = self.usage.cut_off
        if not cut_off:
            return tuple(self._client.notes)
        answers = "1 answer was" if cut_off == 1 else f"{cut_off:,} answers were"
        limit = f"cut off after {self.endpoint.max_tokens} tokens; raise max_tokens in models.yaml"
        return (*self._client.notes, f"{answers} {limit}")

    @property
    def picture(self) -> PictureSpec | None:
        """Color, aspect kept, never enlarged."""
        return PictureSpec(side=self.endpoint.side, mode="RGB", fit="inside", windows=self.endpoint.windows)

    @property
    def vision(self) -> Vision | None:
        """None: the endpoint encodes the pictures."""
        return None

    @property
    def max_pictures(self) -> int:
        """Most pictures in one question."""
        return self.endpoint.max_pictures

    @property
    def max_turns(self) -> int:
        """Most earlier turns of a conversation that are read."""
        return self.endpoint.turns

    @property
    def reads_system(self) -> bool:
        """Whether a system message is sent: it is."""
        return True

    @property
    def slices_together(self) -> int:
        """Most slices of a series in one question: as many as pictures."""
        return self.max_pictures

    def describe(self) -> dict[str, Any]:
        """The endpoint's address and request settings, without those that change no answer."""
        return {name: value for name, value in self.endpoint.to_json().items() if name not in ("timeout", "tries")}

    def answer(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:  # noqa: ARG002 - always greedy
        """One prediction per query, in order; raises `ModelError` when the endpoint does not answer."""
        futures = [self.submit(query) for query in _sharing_visuals(queries)]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def answer_batches(
        self,
        batches: Iterable[Sequence[Query]],
        decoding: Decoding,  # noqa: ARG002 - always greedy
    ) -> Iterator[Prediction]:
        """A prediction as soon as it is there; the next batch is read while the last answers are awaited."""
        waiting: set[Future[Prediction]] = set()
        try:
            for batch in batches:
                waiting |= {self.submit(query) for query in _sharing_visuals(batch)}
                while len(waiting) >= 2 * self._client.concurrency:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from [future.result() for future in done]
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from [future.result() for future in done]
        finally:
            for future in waiting:
                future.cancel()

    def submit(self, query: Query, on_text: OnText | None = None) -> Future[Prediction]:
        """Ask one question without waiting; canceling the future closes the request.

        Args:
            query: The question.
            on_text: Receives what of the answer may be shown while it is written, in the client's thread.
        """
        return self._client.submit(self.ask(query, on_text))

    async def ask(self, query: Query, on_text: OnText | None = None) -> Prediction:
        """Ask one question in the running loop; canceling the task closes the request.

        Args:
            query: The question.
            on_text: Receives what of the answer may be shown while it is written.
        """
        messages = await self._messages(query)
        await self._probe_once()
        reply = await self._client.complete(messages, on_text=on_text)
        answer = "" if reply.refused else answer_text(reply.text)
        certainty = token_confidence(query.question, answer, reply.text, reply.tokens)
        if certainty.value is None and self.endpoint.samples and answer:
            certainty = await self._agreement(messages, answer)
        return Prediction(
            query.id,
            answer,
            recorded(reply.text),
            certainty.value,
            certainty.alternatives,
            confidence_basis=certainty.basis,
            cut_off=reply.finish_reason == "length",
        )

    def check(self) -> None:
        """Ask about a probe picture; raises `ModelError` when the endpoint is down or the model sees no pictures."""
        self._client.submit(self._probe()).result()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    async def _agreement(self, messages: Sequence[Any], answer: str) -> Confidence:
        requests = [self._client.complete(messages, sample=True) for _ in range(self.endpoint.samples)]
        return agreement(answer, [answer_text(reply.text) for reply in await asyncio.gather(*requests)])

    async def _messages(self, query: Query) -> list[dict[str, Any]]:
        visuals = [query.visual, *query.other_visuals]
        if len(visuals) > self.max_pictures:
            raise ModelError(
                f"{self.endpoint.model} takes at most {self.max_pictures} pictures in a question, got {len(visuals)}; "
                "send fewer, or raise max_pictures in models.yaml"
            )
        pictures = [{"type": "image_url", "image_url": {"url": await self._url(visual)}} for visual in visuals]
        query = query.with_newest_turns(self.max_turns)
        places = query.image_places or ((0, 0),) * len(visuals)
        questions = [*query.questions[:-1], check_question(query.question)]
        messages: list[dict[str, Any]] = [{"role": "system", "content": query.system}] if query.system else []
        for number, question in enumerate(questions):
            prompt = self.endpoint.prompt.replace("{question}", question)
            begin = self.endpoint.prompt.find("{question}")
            content: list[dict[str, Any]] = []
            position = 0
            for (turn, character), picture in zip(places, pictures, strict=True):
                if turn == number:
                    place = begin + min(character, len(question)) if character else 0
                    content += [*_text_parts(prompt[position:place]), picture]
                    position = place
            rest = prompt[position:]
            if query.note and not number:
                rest = f"{query.note}\n{rest}"
            messages.append({"role": "user", "content": [*content, *_text_parts(rest)]})
            if number < len(query.turns):
                messages.append({"role": "assistant", "content": query.turns[number][1]})
        return messages

    async def _url(self, visual: Any) -> DataUrl:
        if not isinstance(visual, np.ndarray):
            raise ModelError("a remote model takes pictures, not features; ask it without a feature cache")
        url = self._urls.known(visual)
        return await asyncio.to_thread(self._urls.encode, visual) if url is None else url

    async def _probe_once(self) -> None:
        if not self._probed:
            await asyncio.wrap_future(self._client.submit(self._locked_probe()))

    async def _locked_probe(self) -> None:
        if self._probing is None:
            self._probing = asyncio.Lock()
        async with self._probing:
            if not self._probed:
                await self._probe()

    async def _probe(self) -> None:
        """Compare a question with and without a picture: one that adds no token was not seen."""
        picture = np.zeros((_PROBE_SIDE, _PROBE_SIDE, 3), np.uint8)
        picture[:, _PROBE_SIDE // 2 :] = (200, 30, 30)
        text = {"type": "text", "text": _PROBE_QUESTION}
        url = {"type": "image_url", "image_url": {"url": await self._url(picture)}}
        with_picture, without = await asyncio.gather(
            *(self._client.complete([{"role": "user", "content": c}], brief=True) for c in ([url, text], [text]))
        )
        if not _sees(with_picture, without):
            raise failures.no_vision(self.endpoint)
        self._probed = True


def _text_parts(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}] if text else []


def _sees(with_picture: Reply, without: Reply) -> bool:
    """Whether the picture was read, as far as the counts of tokens show."""
    if not with_picture.prompt_tokens or not without.prompt_tokens:
        return True
    return with_picture.prompt_tokens > without.prompt_tokens


def _sharing_visuals(queries: Sequence[Query]) -> list[Query]:
    """The queries, where those about one image have the same array, so that it is encoded once."""
    visuals: dict[str, Any] = {}
    return [dataclasses.replace(query, visual=visuals.setdefault(query.image, query.visual)) for query in queries]


class _PictureUrls:
    """Data URLs of recently sent pictures, by the identity of their arrays: questions about a picture share it."""

    def __init__(self) -> None:
        self._urls: OrderedDict[int, tuple[weakref.ref[NDArray[np.uint8]], DataUrl]] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, picture: NDArray[np.uint8]) -> DataUrl | None:
        """The URL of a picture that was encoded before."""
        with self._lock:
            entry = self._urls.get(id(picture))
        return entry[1] if entry is not None and entry[0]() is picture else None

    def encode(self, picture: NDArray[np.uint8]) -> DataUrl:
        """The picture as PNG in a data URL; one without color as gray, which is a third as long."""
        out = io.BytesIO()
        is_gray = all(np.array_equal(picture[..., 0], picture[..., band]) for band in range(1, picture.shape[-1]))
        image = Image.fromarray(picture[..., 0] if is_gray else picture)
        image.save(out, "PNG", compress_level=1)
        url = DataUrl(b"data:image/png;base64," + base64.b64encode(out.getvalue()))
        with self._lock:
            self._urls[id(picture)] = (weakref.ref(picture), url)
            while len(self._urls) > _CACHED_PICTURES:
                self._urls.popitem(last=False)
        return url
