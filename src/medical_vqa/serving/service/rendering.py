"""Answers and images of the server as the wire types that a client receives."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from medical_vqa.serving.engine.answers import EngineAnswer
from medical_vqa.serving.image_store.blob import StoredImage
from medical_vqa.serving.schema.answers import Alternative, Answer, AttentionMap, ModelRef, Timings
from medical_vqa.serving.schema.images import ImageItem
from medical_vqa.serving.series.views import facts_of
from medical_vqa.serving.service.inputs import AskedQuestion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def wire_answer(
    image: StoredImage, question: AskedQuestion, result: EngineAnswer, model: ModelRef, *, turns_read: int = 0
) -> Answer:
    """An answer as the client receives it, not validated again: every part of it was made by the server.

    Args:
        image: Which was asked about.
        question: Which was asked.
        result: Of the engine.
        model: Which model answered.
        turns_read: Earlier turns that it read.
    """
    answer = result.answer
    prediction, abstention = answer.prediction, answer.abstention
    return Answer.model_construct(
        image_id=image.id or None,
        question=question.text,
        answer=prediction.answer,
        confidence=prediction.confidence,
        confidence_basis=prediction.confidence_basis,
        cut_off=prediction.cut_off,
        turns_read=turns_read,
        alternatives=[
            Alternative.model_construct(answer=other, confidence=confidence)
            for other, confidence in prediction.alternatives
        ],
        abstained=abstention.abstained,
        reason=abstention.reason,
        suggestions=list(abstention.suggestions),
        reason_code=abstention.code,
        reason_arguments=dict(abstention.arguments),
        image_dependence=answer.image_dependence,
        source=answer.source,
        side=answer.side,
        evidence=list(answer.evidence),
        slices=[],  # a default that is made by a call costs more than all else here
        attention_map=_attention_map(answer.attention_map) if question.attention_map else None,
        model=model,
        timings=timings_of(result, question.received),
    )


def image_item(image: StoredImage) -> ImageItem:
    """What can be shown of a stored image."""
    expires_at = None if image.expires_at is None else datetime.fromtimestamp(image.expires_at, UTC)
    return ImageItem(**facts_of(image).model_dump(), image_id=image.id, expires_at=expires_at)


def _attention_map(weights: NDArray[np.float32] | None) -> AttentionMap | None:
    if weights is None:
        return None
    rows, columns = weights.shape
    values = [[round(float(weight), 6) for weight in row] for row in weights]
    return AttentionMap(rows=rows, columns=columns, values=values)


def timings_of(result: EngineAnswer, start: float) -> Timings:
    """Where the time since `start` (`time.monotonic`) went."""
    return Timings.model_construct(
        queue_ms=_milliseconds(result.queue_seconds),
        model_ms=_milliseconds(result.model_seconds),
        total_ms=_milliseconds(time.monotonic() - start),
        batch_size=result.batch_size,
    )


def around_timings(answer: Answer) -> tuple[bytes, bytes]:
    """The JSON of an answer before and behind its times; in texts quotation marks are escaped."""
    times = answer.timings.model_dump_json().encode()
    before, _, behind = answer.model_dump_json().encode().rpartition(b'"timings":' + times)
    return before + b'"timings":', behind


def _milliseconds(seconds: float) -> float:
    return round(1000 * max(0.0, seconds), 2)
