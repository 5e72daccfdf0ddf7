"""Answers the questions of conversations: the text while it is written, then the answer, and that about a region."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Sequence

import structlog
from PIL import Image

from medical_vqa.serving.clients import current_client
from medical_vqa.serving.conversations.open_conversation import OpenConversation
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.schema.answers import Answer
from medical_vqa.serving.schema.conversations import ConversationTurn, Region
from medical_vqa.serving.series.views import Selection
from medical_vqa.serving.service.inputs import QuestionContext, Upload
from medical_vqa.serving.service.service import Service

_LOG = structlog.get_logger("medical_vqa.serving")
_TEXT_INTERVAL = 0.2  # seconds between two versions with unfinished text
_LEAST_REGION = 8  # pixels


class Answering:
    """Answers questions in tasks of their own, whoever has asked them stays or not."""

    def __init__(
        self, choose: Callable[[str | None], Service], save: Callable[[OpenConversation], Awaitable[None]]
    ) -> None:
        """Set what answers.

        Args:
            choose: Returns what answers with a model; None: the default one.
            save: Writes a conversation to the store.
        """
        self._choose = choose
        self._save = save

    def start(self, entry: OpenConversation, image_id: str, turn: ConversationTurn) -> None:
        """Begin to answer a question about an image of a conversation."""
        task = asyncio.create_task(self._answer(entry, image_id, turn))
        entry.answering[turn.key] = task
        task.add_done_callback(lambda _: entry.answering.pop(turn.key, None))

    async def _answer(self, entry: OpenConversation, image_id: str, turn: ConversationTurn) -> None:
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
        entry.change_turn(image_id, turn.key, changes)
        await self._save(entry)

    def _earlier_turns(
        self, service: Service, entry: OpenConversation, image_id: str, turn: ConversationTurn
    ) -> Sequence[tuple[str, str]]:
        """The answered questions before this one, of a model that reads them."""
        most = service.engine.model.max_turns
        before = [
            other for other in entry.case(image_id).turns if other.asked_at < turn.asked_at and other.answer is not None
        ]
        return [(other.question, other.answer.answer) for other in before if other.answer][-most:] if most else []

    def _show_text(self, entry: OpenConversation, image_id: str, key: str) -> Callable[[str], None]:
        """A function that shows unfinished text to the conversation's readers, from any thread."""
        loop = asyncio.get_running_loop()
        latest = ""
        next_show: asyncio.TimerHandle | None = None

        def show_latest() -> None:
            nonlocal next_show
            next_show = None
            turns = (turn for case in entry.conversation.cases for turn in case.turns)
            if any(turn.key == key and turn.status == "pending" for turn in turns):
                entry.change_turn(image_id, key, {"text": latest})

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
