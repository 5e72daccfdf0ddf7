"""What the compact network and its exported graphs share: everything from a question to tensors and back, in NumPy."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.models.base import MAX_QUESTION_CHARACTERS, Localization, Query, Vision
from medical_vqa.models.compact.localization import exact_regions, localization_maps, picture_maps
from medical_vqa.models.compact.postprocess import (
    absent_entity_reason,
    encode_questions,
    question_reason,
    rank_answers,
    with_features,
)
from medical_vqa.models.compact.question_understanding import QuestionParser, entity_names
from medical_vqa.models.compact.settings import CompactSettings
from medical_vqa.models.questions.aspects import asks_meaning, asks_where_taken, existence_noun, names_no_subject
from medical_vqa.models.questions.bank import QuestionBank
from medical_vqa.models.questions.premises import counted_topic, organ_of_system, patient_side
from medical_vqa.models.questions.reasons import Reason
from medical_vqa.models.vocabulary import AnswerVocabulary
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Prediction

if TYPE_CHECKING:
    from medical_vqa.models.base import Features, Visual

_CACHED_PICTURES = 1024
"""Pictures whose image type is kept."""


class CompactAnswering(ABC):
    """Answers, abstention and attention maps of a compact model, however its network is run."""

    def __init__(self, settings: CompactSettings) -> None:
        self.settings = settings
        self.parser = QuestionParser(settings.words, entity_names(settings.regions, settings.answers.answers))
        self._image_types: LRUCache[bytes, str] = LRUCache(_CACHED_PICTURES)
        self._image_types_lock = threading.Lock()

    @property
    def picture(self) -> PictureSpec:
        """How a picture is prepared."""
        return self.settings.picture

    @property
    def answers(self) -> AnswerVocabulary:
        """The answers to choose from."""
        return self.settings.answers

    @property
    def question_bank(self) -> QuestionBank | None:
        """The training questions."""
        return self.settings.question_bank

    @property
    @abstractmethod
    def vision(self) -> Vision:
        """The image encoder."""

    @abstractmethod
    def probabilities(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Probability of each answer (N, answers)."""

    @abstractmethod
    def attention_weights(self, queries: Sequence[Query]) -> NDArray[np.float32]:
        """Attention of each question to each image token in the last layer (N, T); rows sum to 1."""

    @staticmethod
    @abstractmethod
    def to_numpy(feature: Any) -> NDArray[Any]:
        """One tensor of `Vision.encode` as an array."""

    def answer(self, queries: Sequence[Query], decoding: Decoding) -> list[Prediction]:
        """The most probable training answer to each question; every image among the queries is encoded once."""
        if not queries:
            return []
        canonical = self.parser.canonical_queries(queries)
        probabilities = self.probabilities(queries)
        return rank_answers(canonical, probabilities, self.answers, decoding.alternatives, self.question_bank)

    def entity_in(self, text: str) -> str | None:
        """The organ or finding that an English text names."""
        return self.parser.entity_in(self.parser.canonical(text))

    def question_as_read(self, question: str) -> str:
        """The question with typing errors corrected."""
        return self.parser.spelled(question)

    def question_reason(self, question: str) -> str | None:
        """Why a question is not understood: its length, or a language, form or words that training never used."""
        limit = self.settings.sizes.question_words
        if (number := len(self.parser.encode(question, limit=MAX_QUESTION_CHARACTERS))) > limit:
            return Reason("question_too_long", number=str(number), limit=str(limit))
        if (reason := question_reason(question, self.parser)) is not None:
            return reason
        if self.parser.says_nothing(question):
            return Reason("missing_subject")
        bank = self.question_bank
        if bank is None or question in bank:
            return None
        return self._untrained_reason(self.parser.spelled(question), bank)

    def _untrained_reason(self, question: str, bank: QuestionBank) -> Reason | None:
        """Why a question in words that are known is like none of the training questions."""
        topic = counted_topic(self.parser.canonical(question))
        side, belongs, noun = patient_side(question), organ_of_system(question), existence_noun(question)
        untrained = (
            ("where a picture was taken", asks_where_taken(question)),
            ("the meaning of a word", asks_meaning(question)),
            (f"the number of {topic!r}", topic is not None and topic not in bank.counted_topics),
            (repr(noun), noun is not None and noun not in bank.existence_nouns),
            (repr(side), side is not None and not bank.names_patient_side),
            (f"{belongs!r} together", belongs is not None and not bank.names_organ_of_system),
        )
        terms = next((terms for terms, is_untrained in untrained if is_untrained), None)
        if terms is not None:
            return Reason("untrained_term", terms=terms)
        return Reason("missing_subject") if names_no_subject(question) else None

    def abstention_reason(self, query: Query, prediction: Prediction) -> str | None:
        """Why the answer means nothing: the question is not understood, or about an entity that is absent."""
        if (reason := self.question_reason(query.question)) is not None:
            return reason
        return absent_entity_reason(query, prediction, self.parser, self.settings.image_types, self._image_type)

    def _image_type(self, query: Query) -> str:
        """What the model answers to the question for the type of a query's picture, computed once per picture."""
        (encoded,) = with_features([query], self.features_of)
        features: Mapping[str, Any] = encoded.visual  # type: ignore[assignment]
        key = hashlib.sha256(query.image.encode())
        for name in ("token_mean", "token_deviation") if "token_deviation" in features else sorted(features):
            key.update(self.to_numpy(features[name]).tobytes())
        digest = key.digest()
        with self._image_types_lock:
            image_type = self._image_types.get(digest)
        if image_type is None:
            probe = dataclasses.replace(encoded, question=self.settings.image_types.question)
            image_type = self.answer([probe], Decoding(alternatives=0))[0].answer
            with self._image_types_lock:
                self._image_types[digest] = image_type
        return image_type

    def attention_maps(self, queries: Sequence[Query]) -> list[NDArray[np.float32]]:
        """Where in the picture each answer comes from, one map (rows, columns) each that sums to 1.

        Where the question or its answer names an entity that the network localizes, the map is its localization;
        otherwise it is the attention of the question's words to the image.
        """
        if not queries:
            return []
        encoded = with_features(queries, self.features_of)
        answers = self.answer(encoded, Decoding(alternatives=0))
        entity_in = self.parser.entity_in_any_language
        entities = [entity_in(q.question) or entity_in(a.answer) for q, a in zip(encoded, answers, strict=True)]
        regions = self._feature_of_each(encoded, "regions")
        return localization_maps(entities, self.attention(encoded), regions, self.settings.regions)

    def localizations(self, query: Query, prediction: Prediction) -> list[Localization]:
        """Where the network places what the question and its answer name: regions with outlines first, then boxes."""
        (encoded,) = with_features([query], self.features_of)
        (regions,) = self._feature_of_each([encoded], "regions")
        if regions is None:
            return []
        entities = self.parser.affirmed_entities(self.parser.canonical(query.question), prediction.answer)
        names = self.settings.regions
        indices = dict.fromkeys(index for entity in entities for index in exact_regions(entity, names))
        by_mask_first = sorted(indices, key=lambda index: not names[index].startswith("mask"))
        return [
            Localization(name=name, learned_from="mask" if kind == "mask" else "box", probability=regions[index])
            for index in by_mask_first
            for kind, _, name in [names[index].partition(": ")]
        ]

    def attention(self, queries: Sequence[Query]) -> list[NDArray[np.float32]]:
        """Attention of each question's words to each cell of the picture (rows, columns); each map sums to 1."""
        if not queries:
            return []
        encoded = with_features(queries, self.features_of)
        return picture_maps(self.attention_weights(encoded), self._feature_of_each(encoded, "frame"))

    def encode_words(self, questions: Sequence[str]) -> NDArray[np.int64]:
        """Word indices (N, L), padded with 0."""
        return encode_questions(questions, self.parser, self.settings.sizes.question_words)

    def features_of(self, visuals: Sequence[Visual]) -> list[Features]:
        """Features of each visual; pictures among them are encoded."""
        encoded = iter(self.vision.encode([v for v in visuals if isinstance(v, np.ndarray)]))
        return [next(encoded) if isinstance(v, np.ndarray) else v for v in visuals]

    def _feature_of_each(self, queries: Sequence[Query], name: str) -> list[NDArray[Any] | None]:
        """A feature of each query's image, None where the image has no such feature."""
        features: list[Mapping[str, Any]] = [query.visual for query in queries]  # type: ignore[misc]
        return [self.to_numpy(feature[name]) if name in feature else None for feature in features]
