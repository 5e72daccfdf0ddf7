"""What clients do with conversations: add images, ask, read, cancel, rate, export and delete."""

from __future__ import annotations

import asyncio
import io
import time
from collections import Counter
from collections.abc import Callable
from typing import Literal

from PIL import Image

from medical_vqa.data.feedback import Rating, record
from medical_vqa.errors import DataError
from medical_vqa.serving.clients import current_client
from medical_vqa.serving.conversations.answering import Answering
from medical_vqa.serving.conversations.open_conversation import OpenConversation
from medical_vqa.serving.conversations.open_conversations import OpenConversations
from medical_vqa.serving.dicom_reports import dicom_report
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.image_store.calls import StoreCalls
from medical_vqa.serving.schema.conversations import (
    Conversation,
    ConversationImage,
    ConversationQuestion,
    ConversationTurn,
    RatingRequest,
    TurnRating,
)
from medical_vqa.serving.schema.dicom_reports import DicomReportOptions
from medical_vqa.serving.schema.images import UploadedImage
from medical_vqa.serving.series.views import facts_of
from medical_vqa.serving.service.inputs import Upload
from medical_vqa.serving.service.service import Service

MAX_CASES = 100
"""Images of a conversation."""
MAX_TURNS = 300
"""Questions about each of them."""
MAX_ALL_TURNS = 2_000
"""Questions of a conversation."""
_PART_OF_CONNECTIONS = 4  # the part of a server's connections whose clients may wait for a change
_LONGEST_WAIT = 20.0  # seconds that a reader waits for a change; proxies end a request after 30 or 60


class Conversations:
    """Conversations by id; used from the event loop alone."""

    def __init__(self, choose: Callable[[str | None], Service], calls: StoreCalls) -> None:
        """Keep conversations in a store; `choose` returns what answers with a model, None the default one."""
        self._choose = choose
        self._conversations = OpenConversations(calls, self._resume)
        self._answering = Answering(choose, self._conversations.save)
        self._stopping = False
        self._readers: dict[asyncio.Future[Literal[True]], str] = {}  # that wait for a change, the oldest first

    def _resume(self, entry: OpenConversation, image_id: str, turn: ConversationTurn) -> None:
        self._answering.start(entry, image_id, turn)

    @property
    def _service(self) -> Service:
        return self._choose(None)

    async def create(self) -> Conversation:
        """An empty conversation under an id that cannot be guessed."""
        return await self._conversations.create(self._service.settings.store_ttl)

    async def read(self, conversation_id: str, *, after: int = -1) -> bytes:
        """The JSON of the conversation: once its version is above `after`, or after some seconds or at a stop as it is.

        Raises:
            ApiError: 404.
        """
        entry = await self._conversations.get(conversation_id)
        if entry.conversation.version <= after and not self._stopping:
            await self._wait_for_change(entry)
        return entry.to_json()

    async def _wait_for_change(self, entry: OpenConversation) -> None:
        """Wait some seconds; one reader too many ends the wait of the oldest of the client that has most of them.

        Each holds a connection, and whoever holds all of them keeps everybody else out.
        """
        client = current_client().name
        if len(self._readers) >= max(1, self._service.settings.max_connections // _PART_OF_CONNECTIONS):
            most, _ = Counter([*self._readers.values(), client]).most_common(1)[0]
            oldest = next(reader for reader, name in self._readers.items() if name == most)
            del self._readers[oldest]
            oldest.cancel()
        reader = asyncio.ensure_future(entry.changed.wait())
        self._readers[reader] = client
        try:
            await asyncio.wait({reader}, timeout=_LONGEST_WAIT)
        finally:
            reader.cancel()
            self._readers.pop(reader, None)

    def stop_waiting(self) -> None:
        """Answer every reader that waits for a change, and those who come: the server is about to stop."""
        self._stopping = True
        self._conversations.wake_all()

    async def add_image(self, conversation_id: str, upload: Upload, name: str, *, client: str) -> ConversationImage:
        """Upload an image into the conversation; its name is what the user calls it.

        Args:
            conversation_id: Of the conversation.
            upload: The file.
            name: Shown in the list of images.
            client: Who sends it.

        Raises:
            ApiError: The conversation is unknown or full, or the image cannot be read.
        """
        entry = await self._conversations.get(conversation_id)
        self._require_room(entry)
        image = await self._service.upload(upload, client=client)
        return await self._add(entry, image, name)

    async def attach(self, conversation_id: str, image_id: str, name: str) -> ConversationImage:
        """Take an image that is stored already, such as a series, into the conversation.

        Args:
            conversation_id: Of the conversation.
            image_id: Of the image.
            name: Shown in the list of images.

        Raises:
            ApiError: The conversation or the image is unknown, or the conversation is full.
        """
        entry = await self._conversations.get(conversation_id)
        for case in entry.conversation.cases:
            if case.image.image_id == image_id:
                return case
        self._require_room(entry)
        stored = await self._service.images.get(image_id)
        png = await self._service.images.png(image_id)
        with Image.open(io.BytesIO(png)) as picture:
            width, height = picture.size
        lifetime = None if stored.expires_at is None else max(0.0, stored.expires_at - time.time())
        image = UploadedImage(
            image_id=image_id,
            width=width,
            height=height,
            format="DICOM",
            expires_in_seconds=lifetime,
            dicom_report=facts_of(stored).dicom_report,
        )
        return await self._add(entry, image, name)

    def _require_room(self, entry: OpenConversation) -> None:
        if len(entry.conversation.cases) >= MAX_CASES:
            raise ApiError(422, "invalid", f"the conversation has {MAX_CASES} images; delete one, or begin another")

    async def _add(self, entry: OpenConversation, image: UploadedImage, name: str) -> ConversationImage:
        lifetime = image.expires_in_seconds
        expires_at = None if lifetime is None else round(1000 * (time.time() + lifetime))
        case = ConversationImage(image=image, name=name, turns=[], draft="", expires_at=expires_at)
        entry.replace([*entry.conversation.cases, case])
        await self._conversations.save(entry)
        return case

    async def ask(self, conversation_id: str, question: ConversationQuestion) -> ConversationTurn:
        """Ask a question; the answer arrives with a later version. The same key asks once.

        Raises:
            ApiError: The conversation or image is unknown, or it has too many questions.
        """
        entry = await self._conversations.get(conversation_id)
        case = entry.case(question.image_id)
        for turn in case.turns:
            if turn.key == question.key:
                return turn
        service = self._choose(question.model)  # an unknown one is refused at once
        for other in question.other_image_ids:
            entry.case(other)
        service.questions.require_pictures(1 + len(question.other_image_ids))
        if len(case.turns) >= MAX_TURNS:
            raise ApiError(422, "invalid", f"this image has {MAX_TURNS} questions; upload it again")
        if entry.turns >= MAX_ALL_TURNS:
            raise ApiError(422, "invalid", f"this conversation has {MAX_ALL_TURNS:,} questions; begin another")
        turn = ConversationTurn(
            key=question.key,
            question=question.question.strip(),
            status="pending",
            asked_at=round(1000 * time.time()),
            region=question.region,
            frame=question.frame,
            plane=question.plane,
            window=question.window,
            model=question.model,
            other_image_ids=question.other_image_ids,
        )
        entry.change_case(question.image_id, {"turns": [*case.turns, turn], "draft": ""})
        self._answering.start(entry, question.image_id, turn)  # before the disk: whoever asked has no confirmation yet
        self._conversations.make_room()
        await self._conversations.save(entry)
        return turn

    async def cancel(self, conversation_id: str, image_id: str, key: str) -> None:
        """Stop answering a question; raises `ApiError` where the conversation or the image is unknown."""
        entry = await self._conversations.get(conversation_id)
        entry.case(image_id)
        task = entry.answering.get(key)
        if task is not None:
            task.cancel()
            entry.change_turn(image_id, key, {"status": "failed", "failure": "canceled", "text": None})
            await self._conversations.save(entry)

    async def draft(self, conversation_id: str, image_id: str, draft: str) -> None:
        """Keep what the user has typed and not sent; readers are not woken for it."""
        entry = await self._conversations.get(conversation_id)
        entry.case(image_id)
        entry.change_case(image_id, {"draft": draft}, wake=False)
        await self._conversations.save(entry)

    async def rate(self, conversation_id: str, rating: RatingRequest) -> None:
        """Record what a user says about an answer, in the folder that the server's settings name.

        Raises:
            ApiError: The server keeps no ratings, or there is no such answer.
        """
        folder = self._service.settings.feedback
        if folder is None:
            raise ApiError(
                404, "not_found", "this server keeps no ratings; its setting FEEDBACK names a folder for them"
            )
        entry = await self._conversations.get(conversation_id)
        turn = next((turn for turn in entry.case(rating.image_id).turns if turn.key == rating.key), None)
        if turn is None or turn.answer is None:
            raise ApiError(404, "not_found", "this question has no answer to rate")
        line = Rating(
            id=f"{conversation_id[:24]}-{turn.key}",
            question=turn.question,
            answer=turn.answer.answer,
            correct=rating.correct,
            model=turn.answer.model.name,
            correction=rating.correction,
            picture=await self._service.images.png(rating.image_id) if rating.keep_picture else None,
        )
        try:
            await asyncio.to_thread(record, folder, line)
        except DataError as error:
            raise ApiError(503, "not_ready", "the rating cannot be written now; try again later") from error
        rating_of_turn = TurnRating(correct=rating.correct, correction=rating.correction)
        entry.change_turn(rating.image_id, turn.key, {"rating": rating_of_turn})
        await self._conversations.save(entry)

    async def dicom_report(self, conversation_id: str, image_id: str, options: DicomReportOptions) -> bytes:
        """The answers about an image of a conversation as a DICOM SR, as a file.

        Args:
            conversation_id: Of the conversation.
            image_id: Of the image.
            options: UIDs of the report, and of the image where they were not stored.

        Raises:
            ApiError: The conversation or the image is unknown, nothing was answered, or no UIDs are known.
        """
        entry = await self._conversations.get(conversation_id)
        answers = [turn.answer for turn in entry.case(image_id).turns if turn.answer is not None]
        if not answers:
            raise ApiError(422, "invalid", "no question about this image has an answer yet; ask one first")
        return await dicom_report(self._service, image_id, answers, options)

    async def delete_image(self, conversation_id: str, image_id: str) -> None:
        """Delete an image with its questions and answers; raises `ApiError` where it is unknown."""
        entry = await self._conversations.get(conversation_id)
        entry.case(image_id)
        try:
            await self._service.delete(image_id)
        except ApiError as error:
            if error.code != "unknown_image":  # its time was over, or it was deleted elsewhere: it is gone
                raise
        for turn in entry.case(image_id).turns:
            if task := entry.answering.pop(turn.key, None):
                task.cancel()
        entry.replace([case for case in entry.conversation.cases if case.image.image_id != image_id])
        await self._conversations.save(entry)
