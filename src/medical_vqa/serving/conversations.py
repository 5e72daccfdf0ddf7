"""Conversations of the page: images with their questions and answers, kept on the server for the retention time.

A question belongs to the conversation and not to the connection that sent it: who reloads the page, or loses the
network, finds the answer there, and a question that is sent twice under one key is asked once. A conversation lives in
the image store, so that it survives a restart and other servers find it; the last writer wins where two write at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
from PIL import Image
from pydantic import ValidationError

from medical_vqa.data.feedback import Rating, record
from medical_vqa.errors import DataError
from medical_vqa.serving.clients import current_client
from medical_vqa.serving.dicom_reports import dicom_report
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.image_store.base import ImageStore
from medical_vqa.serving.image_store.repository import stored_name
from medical_vqa.serving.schema.answers import Answer
from medical_vqa.serving.schema.common import IMAGE_ID
from medical_vqa.serving.schema.conversations import (
    Conversation,
    ConversationImage,
    ConversationQuestion,
    ConversationTurn,
    RatingRequest,
    Region,
    TurnRating,
)
from medical_vqa.serving.schema.dicom_reports import DicomReportOptions
from medical_vqa.serving.schema.images import UploadedImage
from medical_vqa.serving.series.views import Selection, facts_of
from medical_vqa.serving.service.inputs import QuestionContext, Upload
from medical_vqa.serving.service.service import Service

MAX_CASES = 100
"""Images of a conversation."""
MAX_TURNS = 300
"""Questions about each of them."""
MAX_ALL_TURNS = 2_000
"""Questions of a conversation."""
_OPEN_CONVERSATIONS = 1_000  # in memory; others are read from the store again
_OPEN_TURNS = 10_000  # of all of them, some kilobytes each
_ID = re.compile(IMAGE_ID)
_LOG = structlog.get_logger("medical_vqa.serving")
_LONGEST_WAIT = 20.0  # seconds that a reader waits for a change; proxies end a request after 30 or 60
_TEXT_INTERVAL = 0.2  # seconds between two versions with unfinished text
_LEAST_REGION = 8  # pixels


@dataclass
class _Open:
    """A conversation in memory."""

    name: str
    """In the store; it has the owner in it, so that the id of another tenant's conversation names nothing."""
    conversation: Conversation
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, with each version."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    answering: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """The questions that are being answered, by key."""
    rendered: dict[tuple[str, str], tuple[ConversationTurn, bytes]] = field(default_factory=dict)
    """The JSON of each question as it is now, by image and key."""

    @property
    def turns(self) -> int:
        """How many questions it has."""
        return sum(len(case.turns) for case in self.conversation.cases)

    def to_json(self) -> bytes:
        """The conversation as JSON; what has not changed since the last time is not rendered again."""
        rendered: dict[tuple[str, str], tuple[ConversationTurn, bytes]] = {}
        cases = []
        for case in self.conversation.cases:
            turns = []
            for turn in case.turns:
                key = (case.image.image_id, turn.key)
                known = self.rendered.get(key)
                if known is None or known[0] is not turn:
                    known = (turn, turn.model_dump_json().encode())
                rendered[key] = known
                turns.append(known[1])
            cases.append(_with_list(case.model_copy(update={"turns": []}).model_dump_json(), "turns", turns))
        self.rendered = rendered
        return _with_list(self.conversation.model_copy(update={"cases": []}).model_dump_json(), "cases", cases)


class Conversations:
    """Conversations by id; used from the event loop alone."""

    def __init__(self, choose: Callable[[str | None], Service], store: ImageStore) -> None:
        """Keep conversations in a store; `choose` returns what answers with a model, None the default one."""
        self._choose = choose
        self._store = store
        self._open: dict[str, _Open] = {}  # the least recently used first
        self._stopping = False

    @property
    def _service(self) -> Service:
        return self._choose(None)

    async def create(self) -> Conversation:
        """An empty conversation under an id that cannot be guessed."""
        conversation_id = f"{secrets.token_hex(12)}-{secrets.token_urlsafe(16)}"
        conversation = Conversation(
            id=conversation_id, version=0, cases=[], expires_in_seconds=self._service.settings.store_ttl
        )
        name = stored_name(conversation_id, current_client().owner)
        entry = self._open[name] = _Open(name, conversation)
        self._make_room()
        await self._write(entry)
        return conversation

    async def read(self, conversation_id: str, *, after: int = -1) -> bytes:
        """The JSON of the conversation: once its version is above `after`, or after some seconds or at a stop as it is.

        Raises:
            ApiError: 404.
        """
        entry = await self._get(conversation_id)
        if entry.conversation.version <= after and not self._stopping:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(entry.changed.wait(), _LONGEST_WAIT)
        return entry.to_json()

    def stop_waiting(self) -> None:
        """Answer every reader that waits for a change, and those who come: the server is about to stop."""
        self._stopping = True
        for entry in self._open.values():
            entry.changed.set()

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
        entry = await self._get(conversation_id)
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
        entry = await self._get(conversation_id)
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

    def _require_room(self, entry: _Open) -> None:
        if len(entry.conversation.cases) >= MAX_CASES:
            raise ApiError(422, "invalid", f"the conversation has {MAX_CASES} images; delete one, or begin another")

    async def _add(self, entry: _Open, image: UploadedImage, name: str) -> ConversationImage:
        lifetime = image.expires_in_seconds
        expires_at = None if lifetime is None else round(1000 * (time.time() + lifetime))
        case = ConversationImage(image=image, name=name, turns=[], draft="", expires_at=expires_at)
        await self._change(entry, [*entry.conversation.cases, case])
        return case

    async def ask(self, conversation_id: str, question: ConversationQuestion) -> ConversationTurn:
        """Ask a question; the answer arrives with a later version. The same key asks once.

        Raises:
            ApiError: The conversation or image is unknown, or it has too many questions.
        """
        entry = await self._get(conversation_id)
        case = _case(entry.conversation, question.image_id)
        for turn in case.turns:
            if turn.key == question.key:
                return turn
        service = self._choose(question.model)  # an unknown one is refused at once
        for other in question.other_image_ids:
            _case(entry.conversation, other)
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
        asking: dict[str, object] = {"turns": [*case.turns, turn], "draft": ""}
        self._replace(entry, _with_case(entry.conversation, question.image_id, asking))
        self._start(entry, question.image_id, turn)  # before the disk: whoever asked has no confirmation yet
        self._make_room()
        await self._save(entry)
        return turn

    async def cancel(self, conversation_id: str, image_id: str, key: str) -> None:
        """Stop answering a question; raises `ApiError` where the conversation or the image is unknown."""
        entry = await self._get(conversation_id)
        _case(entry.conversation, image_id)
        task = entry.answering.get(key)
        if task is not None:
            task.cancel()
            await self._change_turn(entry, image_id, key, {"status": "failed", "failure": "canceled", "text": None})

    async def draft(self, conversation_id: str, image_id: str, draft: str) -> None:
        """Keep what the user has typed and not sent; readers are not woken for it."""
        entry = await self._get(conversation_id)
        _case(entry.conversation, image_id)
        await self._change_case(entry, image_id, {"draft": draft}, wake=False)

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
        entry = await self._get(conversation_id)
        case = _case(entry.conversation, rating.image_id)
        turn = next((turn for turn in case.turns if turn.key == rating.key), None)
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
        await self._change_turn(entry, rating.image_id, turn.key, {"rating": rating_of_turn})

    async def dicom_report(self, conversation_id: str, image_id: str, options: DicomReportOptions) -> bytes:
        """The answers about an image of a conversation as a DICOM SR, as a file.

        Args:
            conversation_id: Of the conversation.
            image_id: Of the image.
            options: UIDs of the report, and of the image where they were not stored.

        Raises:
            ApiError: The conversation or the image is unknown, nothing was answered, or no UIDs are known.
        """
        entry = await self._get(conversation_id)
        answers = [turn.answer for turn in _case(entry.conversation, image_id).turns if turn.answer is not None]
        if not answers:
            raise ApiError(422, "invalid", "no question about this image has an answer yet; ask one first")
        return await dicom_report(self._service, image_id, answers, options)

    async def delete_image(self, conversation_id: str, image_id: str) -> None:
        """Delete an image with its questions and answers; raises `ApiError` where it is unknown."""
        entry = await self._get(conversation_id)
        case = _case(entry.conversation, image_id)
        for turn in case.turns:
            if task := entry.answering.pop(turn.key, None):
                task.cancel()
        try:
            await self._service.delete(image_id)
        except ApiError as error:
            if error.code != "unknown_image":  # its time was over, or it was deleted elsewhere: it is gone
                raise
        await self._change(entry, [c for c in entry.conversation.cases if c.image.image_id != image_id])

    def _start(self, entry: _Open, image_id: str, turn: ConversationTurn) -> None:
        task = asyncio.create_task(self._answer(entry, image_id, turn))
        entry.answering[turn.key] = task
        task.add_done_callback(lambda _: entry.answering.pop(turn.key, None))

    async def _answer(self, entry: _Open, image_id: str, turn: ConversationTurn) -> None:
        changes: dict[str, object] = {"text": None}
        try:
            service = self._choose(turn.model)
            surroundings = QuestionContext(
                other_image_ids=turn.other_image_ids,
                turns=self._earlier_turns(service, entry, image_id, turn),
                on_text=self._show_text(entry, image_id, turn.key),
            )
            selection = Selection(turn.frame, turn.plane, turn.window)
            answer = await service.questions.ask(
                image_id, turn.question, attention_map=True, context=surroundings, selection=selection
            )
            changes |= {"status": "answered", "answer": answer}
            if turn.region is not None:
                changes["region_answer"] = await self._ask_about_region(service, image_id, turn, turn.region)
        except ApiError as error:
            changes |= {"status": "failed", "failure": error.code, "failure_message": error.message}
        except Exception:
            _LOG.exception("a question of a conversation failed")
            changes |= {"status": "failed", "failure": "internal"}
        await self._change_turn(entry, image_id, turn.key, changes)

    def _earlier_turns(
        self, service: Service, entry: _Open, image_id: str, turn: ConversationTurn
    ) -> Sequence[tuple[str, str]]:
        """The answered questions before this one, of a model that reads them."""
        most = service.engine.model.max_turns
        case = _case(entry.conversation, image_id)
        before = [other for other in case.turns if other.asked_at < turn.asked_at and other.answer is not None]
        return [(other.question, other.answer.answer) for other in before if other.answer][-most:] if most else []

    def _show_text(self, entry: _Open, image_id: str, key: str) -> Callable[[str], None]:
        """A function that shows unfinished text to the conversation's readers, from any thread."""
        loop = asyncio.get_running_loop()
        latest = ""
        next_show: asyncio.TimerHandle | None = None

        def show_latest() -> None:
            nonlocal next_show
            next_show = None
            turns = (turn for case in entry.conversation.cases for turn in case.turns)
            if any(turn.key == key and turn.status == "pending" for turn in turns):
                self._replace(entry, _with_turn(entry.conversation, image_id, key, {"text": latest}))

        def show(text: str) -> None:
            nonlocal latest, next_show
            latest = text
            if next_show is None:  # what comes within the interval is shown at its end
                next_show = loop.call_later(_TEXT_INTERVAL, show_latest)

        def show_soon(text: str) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(show, text)

        return show_soon

    async def _ask_about_region(
        self, service: Service, image_id: str, turn: ConversationTurn, region: Region
    ) -> Answer:
        """Ask the same about the part of the picture: for a model that takes no boxes."""
        selection = Selection(turn.frame, turn.plane, turn.window)
        if selection.empty:
            png = await service.images.png(image_id)
        else:
            png = await service.views.png(image_id, selection, invert=False)
        part = await asyncio.to_thread(_crop, png, region)
        return await service.questions.ask_once([Upload(part)], turn.question, client=current_client().queue)

    async def _get(self, conversation_id: str) -> _Open:
        """The client's conversation, without the images whose time is over; raises `ApiError` (404)."""
        if not _ID.match(conversation_id):
            raise unknown_conversation()
        name = stored_name(conversation_id, current_client().owner)
        entry = self._open.pop(name, None)
        if entry is not None:
            self._open[name] = entry
        if entry is not None and not await asyncio.to_thread(self._store.contains, name):
            self._open.pop(name, None)  # its time is over, or it was deleted elsewhere
            raise unknown_conversation()
        if entry is None:
            entry = await self._load(name)
        now = 1000 * time.time()
        cases = [case for case in entry.conversation.cases if case.expires_at is None or case.expires_at > now]
        if len(cases) < len(entry.conversation.cases):
            await self._change(entry, cases)
        return entry

    async def _load(self, name: str) -> _Open:
        blob = await asyncio.to_thread(self._store.get, name)
        if blob is None:
            raise unknown_conversation()
        try:
            conversation = Conversation.model_validate_json(blob)
        except ValidationError:
            raise unknown_conversation() from None
        entry = self._open.setdefault(name, _Open(name, conversation))
        self._make_room()
        for case in conversation.cases:
            for turn in case.turns:
                if turn.status == "pending" and turn.key not in entry.answering:  # the server that answered it stopped
                    self._start(entry, case.image.image_id, turn)
        return entry

    def _make_room(self) -> None:
        """Leave conversations to the store that were not used for long and have no question that is being answered."""
        turns = sum(entry.turns for entry in self._open.values())
        for name, entry in [*self._open.items()][:-1]:
            if len(self._open) <= _OPEN_CONVERSATIONS and turns <= _OPEN_TURNS:
                return
            if not entry.answering and not entry.writing.locked():
                turns -= entry.turns
                del self._open[name]
                entry.changed.set()  # who waits for a change finds it in the store

    async def _change_turn(self, entry: _Open, image_id: str, key: str, update: dict[str, object]) -> None:
        await self._change(entry, _with_turn(entry.conversation, image_id, key, update))

    async def _change_case(self, entry: _Open, image_id: str, update: dict[str, object], *, wake: bool = True) -> None:
        await self._change(entry, _with_case(entry.conversation, image_id, update), wake=wake)

    async def _change(self, entry: _Open, cases: list[ConversationImage], *, wake: bool = True) -> None:
        """Replace the images of a conversation, wake its readers, and write it to the store."""
        self._replace(entry, cases, wake=wake)
        await self._save(entry)

    async def _save(self, entry: _Open) -> None:
        async with entry.writing:  # in order: an older version must not overwrite a newer one
            await self._write(entry)

    def _replace(self, entry: _Open, cases: list[ConversationImage], *, wake: bool = True) -> None:
        version = entry.conversation.version + wake
        entry.conversation = entry.conversation.model_copy(update={"cases": cases, "version": version})
        if wake:
            entry.changed.set()
            entry.changed = asyncio.Event()

    async def _write(self, entry: _Open) -> None:
        await asyncio.to_thread(self._store.put, entry.name, entry.to_json())


def _with_list(text: str, name: str, items: Sequence[bytes]) -> bytes:
    """JSON with an empty list filled; in texts quotation marks are escaped."""
    before, empty, behind = text.encode().partition(f'"{name}":[]'.encode())
    return b"".join([before, empty[:-1], b",".join(items), b"]", behind])


def _with_case(conversation: Conversation, image_id: str, update: dict[str, object]) -> list[ConversationImage]:
    """The images of a conversation with one of them changed."""
    return [case.model_copy(update=update) if case.image.image_id == image_id else case for case in conversation.cases]


def _with_turn(
    conversation: Conversation, image_id: str, key: str, update: dict[str, object]
) -> list[ConversationImage]:
    """The images of a conversation with one turn changed; a turn that was deleted stays so."""

    def changed(case: ConversationImage) -> ConversationImage:
        turns = [turn.model_copy(update=update) if turn.key == key else turn for turn in case.turns]
        return case.model_copy(update={"turns": turns})

    return [changed(case) if case.image.image_id == image_id else case for case in conversation.cases]


def _crop(png: bytes, region: Region) -> bytes:
    """The part of a picture, of at least a few pixels, as a PNG; of a circle its square."""
    with Image.open(io.BytesIO(png)) as picture:
        left = min(max(0, int(region.left)), picture.width - _LEAST_REGION)
        top = min(max(0, int(region.top)), picture.height - _LEAST_REGION)
        right = min(max(left + _LEAST_REGION, round(region.right)), picture.width)
        bottom = min(max(top + _LEAST_REGION, round(region.bottom)), picture.height)
        out = io.BytesIO()
        picture.crop((max(0, left), max(0, top), right, bottom)).save(out, "PNG")
    return out.getvalue()


def _case(conversation: Conversation, image_id: str) -> ConversationImage:
    for case in conversation.cases:
        if case.image.image_id == image_id:
            return case
    raise ApiError(404, "unknown_image", "the conversation has no such image (any more); upload it again")


def unknown_conversation() -> ApiError:
    """404: there was no such conversation, or it was deleted, or its time is over."""
    return ApiError(404, "unknown_conversation", "this conversation has ended; begin a new one")
