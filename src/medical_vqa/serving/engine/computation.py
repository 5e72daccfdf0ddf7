"""What a model of this process computes for a batch: guarded answers to questions, and features of pictures."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medical_vqa.data.imaging.picture_statistics import PictureContext
from medical_vqa.errors import ModelError
from medical_vqa.models.base import Query, VqaModel
from medical_vqa.models.guards.guard import Guards
from medical_vqa.models.guards.steps import Steps
from medical_vqa.serving.engine.answer_cache import AnswerCache, Key
from medical_vqa.serving.engine.answers import ModelAnswer
from medical_vqa.serving.engine.work import Task, Work
from medical_vqa.serving.errors import internal_error, refused_by_model

Features = Mapping[str, Any]
"""Named tensors: torch's, or numpy's from a model that runs without torch."""
_LOG = logging.getLogger("medical_vqa.serving")


class Computation:
    """A model with its guards, and the cache that receives its answers."""

    def __init__(self, model: VqaModel, guards: Guards, cache: AnswerCache, steps: Steps) -> None:
        """Set what computes.

        Args:
            model: Answers the questions.
            guards: Withhold answers that the picture does not support.
            cache: Receives the answers.
            steps: Divide the pictures to encode, so that other clients' work may go between two of the parts.
        """
        self._model = model
        self._guards = guards
        self._cache = cache
        self._encoding = steps

    def compute(self, batch: Sequence[Work]) -> Sequence[Any]:
        """One result or exception per piece of work; where a batch fails, its parts are computed one by one."""
        first = batch[0].task
        try:
            if first.call is not None:
                return [first.call()]
            return self._answer(batch) if first.query is not None else self._encode([work.task for work in batch])
        except Exception as error:
            if len(batch) > 1:
                return [self.compute([work])[0] for work in batch]
            if isinstance(error, ModelError):
                return [refused_by_model(error)]
            batch[0].context.run(_LOG.exception, "the model failed")
            return [internal_error()]

    def _encode(self, tasks: Sequence[Task]) -> list[Features]:
        pictures = {task.image: task.visual for task in tasks}
        vision = self._model.vision
        encoded = self._encoding.run(vision.encode, list(pictures.values())) if vision is not None else []
        features = {
            image: {
                name: tensor if isinstance(tensor, np.ndarray) else tensor.detach().cpu()
                for name, tensor in tensors.items()
            }
            for image, tensors in zip(pictures, encoded, strict=True)
        }
        return [features[task.image] for task in tasks]

    def _answer(self, batch: Sequence[Work]) -> list[ModelAnswer]:
        """Answers in the order of the batch; equal questions are computed once."""
        distinct: dict[Key, Task] = {}
        with_map: set[Key] = set()
        for work in batch:
            distinct.setdefault(work.task.key, work.task)
            if work.task.attention_map:
                with_map.add(work.task.key)
        queries = [
            dataclasses.replace(task.query, id=str(number))
            for number, task in enumerate(distinct.values())
            if task.query is not None
        ]
        contexts = {name: context for task in distinct.values() for name, context in task.contexts.items()}
        answers = dict(zip(distinct, self.ask(queries, [key in with_map for key in distinct], contexts), strict=True))
        self._cache.update(answers, lambda key: any(not work.cacheable for work in batch if work.task.key == key))
        return [answers[work.task.key] for work in batch]

    def ask(
        self,
        queries: Sequence[Query],
        attention_map: Sequence[bool],
        contexts: Mapping[str, PictureContext] | None = None,
    ) -> list[ModelAnswer]:
        """One answer per query.

        Args:
            queries: The questions.
            attention_map: Which of the answers need their attention map.
            contexts: What is known of the pictures, by the queries' ``image``; None: nothing.
        """
        guarded = self._guards.answer(queries, contexts)
        with_map = [query for query, requested in zip(queries, attention_map, strict=True) if requested]
        maps = iter(self._model.attention_maps(with_map) if with_map and self._model.has_attention_maps else ())
        return [
            ModelAnswer(
                answer.prediction,
                answer.abstention,
                answer.dependence.score if answer.dependence else None,
                answer.source,
                answer.side,
                answer.evidence,
                next(maps, None) if requested else None,
            )
            for answer, requested in zip(guarded, attention_map, strict=True)
        ]
