"""Questions about images with their answers: cached, about one picture, about slices of a series, several at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog

from medical_vqa.serving.engine.answers import EngineAnswer, ModelAnswer
from medical_vqa.serving.engine.local import Engine
from medical_vqa.serving.engine.remote import RemoteEngine
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.image_store.blob import StoredImage
from medical_vqa.serving.image_store.repository import ImageRepository
from medical_vqa.serving.schema.answers import Answer, Answers, ModelRef
from medical_vqa.serving.schema.questions import AskRequest
from medical_vqa.serving.series.answers import SliceAnswers
from medical_vqa.serving.series.views import Selection, facts_of, frame_of
from medical_vqa.serving.service.audit import Audit
from medical_vqa.serving.service.decoders import Decoders
from medical_vqa.serving.service.inputs import AskedQuestion, QuestionContext, Upload
from medical_vqa.serving.service.rendering import around_timings, timings_of, wire_answer
from medical_vqa.serving.settings import Settings

_LOG = structlog.get_logger("medical_vqa.serving")
_TRIED, _SUGGESTED = 12, 6  # common questions that are tried about an image, and suggested at most
_RENDERED = 4  # answers as JSON that are kept for one of the model: of several ids of one picture


class Questions:
    """Answers the questions of clients with one model."""

    def __init__(
        self,
        engine: Engine | RemoteEngine,
        model: ModelRef,
        images: ImageRepository,
        decoders: Decoders,
        audit: Audit,
        settings: Settings,
    ) -> None:
        """Set what answers.

        Args:
            engine: Answers the questions.
            model: As the answers name it.
            images: The stored images.
            decoders: Decode images that are sent with their question.
            audit: Receives every answer.
            settings: Whether questions and answers are logged.
        """
        self._engine = engine
        self._model = model
        self._images = images
        self._decoders = decoders
        self._audit = audit
        self._log_content = settings.log_content
        self._slice_answers = SliceAnswers(images, engine)

    async def ask(
        self,
        image_id: str,
        question: str,
        *,
        attention_map: bool = False,
        received: float | None = None,
        context: QuestionContext | None = None,
        selection: Selection | None = None,
    ) -> Answer:
        """Answer a question about an uploaded image.

        Args:
            image_id: Of the image.
            question: In words.
            attention_map: Whether to add the attention map.
            received: When the request arrived (`time.monotonic`); None: now.
            context: Further images, earlier turns, and where unfinished text goes.
            selection: The slice, plane and window to ask about; None: the stored picture, or several of a series.

        Raises:
            ApiError: The image is unknown, or the question cannot be answered (in time).
        """
        start = time.monotonic() if received is None else received
        context = context or QuestionContext()
        image = await self._images.get(image_id)
        others = [await self._images.get(other) for other in context.other_image_ids]
        query = AskedQuestion(question.strip(), attention_map, start, context, others)
        return await self._answer_selection(image, query, selection)

    def cached_answer(self, request: AskRequest, received: float) -> bytes | None:
        """The answer to a question that was answered before, without waiting for anything.

        Args:
            request: What is asked.
            received: When it arrived (`time.monotonic`).

        Returns:
            The JSON of an `Answer`, of which only the times are written anew; None where `ask` must be called:
            something must be loaded, computed or written.

        Raises:
            ApiError: The image's id is none (404).
        """
        if self._audit.enabled or request.other_image_ids or request.turns or request.check_image:
            return None
        if request.frame is not None or request.plane is not None or request.window is not None:
            return None
        image = self._images.get_cached(request.image_id)
        if image is None or facts_of(image).series:
            return None
        question = request.question.strip()
        cached = self._engine.cached(image.digest, question, image.context, attention_map=request.attention_map)
        if cached is None:
            return None
        self._engine.metrics.image_cache_hits.inc()
        self._count(cached, question)
        key = (image.id, question, request.attention_map)
        parts: tuple[bytes, bytes] | None = cached.rendered.get(key)
        if parts is None:
            query = AskedQuestion(question, request.attention_map, received)
            parts = around_timings(wire_answer(image, query, EngineAnswer(cached), self._model))
            if len(cached.rendered) >= _RENDERED:
                cached.rendered.clear()
            cached.rendered[key] = parts
        return timings_of(EngineAnswer(cached), received).model_dump_json().encode().join(parts)

    async def ask_many(
        self,
        image_id: str,
        questions: Sequence[str],
        *,
        attention_map: bool = False,
        selection: Selection | None = None,
    ) -> Answers:
        """Answer several questions about an uploaded image together.

        Args:
            image_id: Of the image.
            questions: In words.
            attention_map: Whether to add attention maps.
            selection: The slice, plane and window to ask about; None: the stored picture, or several of a series.

        Raises:
            ApiError: One of the questions fails.
        """
        start = time.monotonic()
        image = await self._images.get(image_id)
        queries = [AskedQuestion(question.strip(), attention_map, start) for question in questions]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._answer_selection(image, one, selection)) for one in queries]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return Answers(image_id=image_id, answers=[task.result() for task in tasks])

    async def suggested(self, image_id: str, questions: Sequence[str], *, chinese: bool) -> list[str]:
        """Questions that the model answers about an uploaded image without abstaining; none for a refused picture.

        Args:
            image_id: Of the image.
            questions: Questions to begin with, in the language.
            chinese: Whether the model's own common questions in Chinese follow, or those in English.

        Raises:
            ApiError: There is no such image, too much is queued, or the deadline has passed.
        """
        start = time.monotonic()
        image = await self._images.get(image_id)
        bank = self._engine.model.question_bank
        common = bank.commonest(_TRIED, chinese=chinese) if bank is not None else []
        candidates = list(dict.fromkeys([*questions, *common]))
        if not candidates:
            return []
        answerable = await self._engine.answerable(
            image.digest, image.visual, candidates, context=image.context, received=start
        )
        return answerable[:_SUGGESTED]

    async def ask_once(
        self,
        uploads: Sequence[Upload],
        question: str,
        *,
        attention_map: bool = False,
        context: QuestionContext | None = None,
        client: str = "",
    ) -> Answer:
        """Answer a client's question about images that are not stored.

        Args:
            uploads: The image, and further ones that the question is about.
            question: In words.
            attention_map: Whether to add the attention map.
            context: Earlier turns, and where unfinished text goes.
            client: Who asks.

        Raises:
            ApiError: An image or the question cannot be used, or there is no answer in time.
        """
        start = time.monotonic()
        self.require_pictures(len(uploads))
        spec = self._engine.model.picture
        image, *others = [
            await self._images.encode(await self._decoders.decode(upload, spec, client, start)) for upload in uploads
        ]
        return await self._answer(
            image, AskedQuestion(question.strip(), attention_map, start, context or QuestionContext(), others)
        )

    def require_pictures(self, pictures: int) -> None:
        """Raise `ApiError` (422) when the model takes fewer pictures in one question."""
        most = self._engine.model.max_pictures
        if pictures > most:
            takes = "one picture" if most == 1 else f"at most {most} pictures"
            name = self._model.name
            raise ApiError(422, "invalid", f"{name} takes {takes} in one question, got {pictures}; send fewer")

    async def _answer_selection(
        self, image: StoredImage, question: AskedQuestion, selection: Selection | None
    ) -> Answer:
        """The answer about a part of a stored image: one slice, several slices of a series, or the stored picture."""
        part = selection or Selection()
        facts = facts_of(image)
        if not facts.series or part.frame is not None:
            if part.empty:
                return await self._answer(image, question)
            answer = await self._answer(await self._slice_answers.one_slice(image, part), question)
            return answer.model_copy(update={"frame": frame_of(facts, part), "plane": part.plane or facts.plane})
        if question.others:
            raise ApiError(
                422, "invalid", "a series and other images are asked about apart; name a frame of the series"
            )
        series = await self._slice_answers.ask(
            image,
            question.text,
            part,
            attention_map=question.attention_map,
            received=question.received,
            turns=question.context.turns,
            check_image=question.context.check_image,
            on_text=question.context.on_text,
        )
        answer = await self._finished(image, question, series.result)
        return answer.model_copy(update={"frame": series.frame, "plane": series.plane, "slices": list(series.slices)})

    async def _answer(self, image: StoredImage, question: AskedQuestion) -> Answer:
        self.require_pictures(1 + len(question.others))
        result = await self._engine.ask(
            image.digest,
            image.visual,
            question.text,
            attention_map=question.attention_map,
            received=question.received,
            context=image.context,
            others=[(other.digest, other.visual, other.context) for other in question.others],
            turns=question.context.turns,
            system=question.context.system,
            places=question.context.places,
            on_text=question.context.on_text,
            check_image=question.context.check_image,
        )
        return await self._finished(image, question, result)

    async def _finished(self, image: StoredImage, question: AskedQuestion, result: EngineAnswer) -> Answer:
        """An answer, counted and written into the audit log, as the client receives it."""
        prediction, abstention = result.answer.prediction, result.answer.abstention
        self._count(result.answer, question.text)
        await self._audit.write(
            "answer",
            image.digest,
            question=question.text,
            answer=prediction.answer,
            abstained=abstention.abstained,
            reason_code=abstention.code,
            model=self._model.name,
            model_id=self._model.id,
        )
        turns_read = self._engine.turns_read(question.context.turns)
        return wire_answer(image, question, result, self._model, turns_read=turns_read)

    def _count(self, answer: ModelAnswer, question: str) -> None:
        if answer.abstention.abstained:
            self._engine.metrics.abstained.inc()
        if self._log_content:
            _LOG.info("answered", question=question, answer=answer.prediction.answer)
