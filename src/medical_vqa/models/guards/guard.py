"""The guards together: every answer of every family passes through `Guards.answer` before it is shown.

In this order: the picture (where the bundle has a reference set to compare it with), the question's scope (the family's
own), contradictions, the reliability of the question's type, image dependence, and the confidence threshold. What a
bundle lacks (reference set, reliability rows) is skipped.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from medical_vqa.data.imaging.picture_statistics import PictureContext
from medical_vqa.errors import BundleError
from medical_vqa.models.base import Query, VqaModel
from medical_vqa.models.guards.abstention import abstain, abstention_decision, calibrated
from medical_vqa.models.guards.alternatives import listed_alternatives, of_asked_form
from medical_vqa.models.guards.answer_checks import AnswerChecks
from medical_vqa.models.guards.evidence import evidence_of
from medical_vqa.models.guards.guarded_answer import GuardedAnswer
from medical_vqa.models.guards.pictures.comparison import PictureComparison
from medical_vqa.models.guards.pictures.image_dependence import answer_source, image_dependence
from medical_vqa.models.guards.pictures.picture import PictureReason
from medical_vqa.models.guards.pictures.reference import ARRAYS_FILE, NAMES_FILE, ReferenceSet
from medical_vqa.models.guards.pictures.reference_answers import Key, ReferenceAnswers
from medical_vqa.models.guards.reasons import LOW_CONFIDENCE_CODES, PICTURE_CODES
from medical_vqa.models.guards.related_answers import following_related
from medical_vqa.models.guards.sides import meant_side
from medical_vqa.models.guards.steps import Steps
from medical_vqa.models.guards.suggestions import Offers, suggested_questions
from medical_vqa.models.questions.claims import presupposes_finding
from medical_vqa.schema.bundle_card import BundleCard
from medical_vqa.schema.records import Prediction

_LOG = logging.getLogger(__name__)
_ALTERNATIVES = 20
"""Alternatives that a distribution over answers is read from."""


class Guards:
    """Answers questions with a model, and withholds what the picture does not support."""

    def __init__(
        self,
        model: VqaModel,
        card: BundleCard,
        reference: ReferenceSet | None = None,
        *,
        image_dependence: bool | None = None,
    ) -> None:
        """Combine a model with what its bundle knows of its training rows.

        Args:
            model: Answers queries.
            card: Card of its bundle.
            reference: Training pictures and questions to compare with; None for a bundle without them.
            image_dependence: Whether to measure how much the picture moves an answer, which costs further answers: to
                the question about the reference pictures, or where there are none about a black picture and this one
                with its parts out of order. By default where the model chooses from a closed list and has reference
                pictures, because only then it is cheap.
        """
        measured = reference is not None and model.has_closed_answers if image_dependence is None else image_dependence
        self.model = model
        self.card = card
        self.reference = reference
        self.measures_dependence = measured and model.picture is not None
        self._pictures = PictureComparison(model, card, reference)
        self._reference_answers = ReferenceAnswers(model, reference, measured=self.measures_dependence)
        self._checks = AnswerChecks(
            model,
            card,
            reference,
            self._pictures,
            self._reference_answers,
            asks_body_part=self.measures_dependence,
        )
        self._offers = Offers(model.question_bank)

    @property
    def steps(self) -> Steps:
        """Divides what the model is asked, so that other work may go between two parts."""
        return self._pictures.steps

    @steps.setter
    def steps(self, steps: Steps) -> None:
        self._pictures.steps = steps

    @classmethod
    def load(
        cls, model: VqaModel, card: BundleCard, bundle: Path | None, *, image_dependence: bool | None = None
    ) -> Self:
        """The guards of a bundle.

        Args:
            model: Answers queries.
            card: Card of the bundle.
            bundle: Its folder; None for a model without one.
            image_dependence: As in the constructor.

        Raises:
            BundleError: The reference set is damaged, or is not that of this bundle.
        """
        reference = ReferenceSet.load(bundle) if bundle is not None else None
        if reference is not None and NAMES_FILE not in card.files:
            raise BundleError(
                f"{bundle} holds {NAMES_FILE}, which its card does not name, so that it is of another model; run "
                f"`medical-vqa calibrate` for this one, or remove {NAMES_FILE} and {ARRAYS_FILE}"
            )
        if reference is not None and not card.reliability:
            _LOG.warning(
                "%s has no reliability table: findings are not withheld by type; run `medical-vqa calibrate`", card.name
            )
        return cls(model, card, reference, image_dependence=image_dependence)

    def answer(
        self,
        queries: Sequence[Query],
        contexts: Mapping[str, PictureContext] | None = None,
        *,
        suggest: bool = True,
    ) -> list[GuardedAnswer]:
        """Answer queries.

        Args:
            queries: The queries.
            contexts: A query's ``image`` -> what is known of that picture.
            suggest: Whether an abstention carries questions near in meaning that are answered, and an answer its
                evidence.

        Returns:
            One per query, in order. How much the picture moves an answer is not measured where the question is not
            understood.
        """
        guarded = self._decided(queries, contexts, lambda query: self.model.question_reason(query.question) is None)
        if not suggest:
            return [answer for _, answer in guarded]
        return [
            self._with_suggestions(query, self._with_evidence(query, answer, contexts), contexts)
            for query, answer in guarded
        ]

    def _decided(
        self,
        queries: Sequence[Query],
        contexts: Mapping[str, PictureContext] | None,
        measured: Callable[[Query], bool],
    ) -> list[tuple[Query, GuardedAnswer]]:
        """Each query with its picture encoded, and its answer.

        Args:
            queries: The queries.
            contexts: A query's ``image`` -> what is known of that picture.
            measured: Whether to measure how much the picture moves the answer to a query.
        """
        pictures = {q.image: q.visual for q in queries if isinstance(q.visual, np.ndarray)}
        queries = self._encoded(queries)
        images = {query.image: query.visual for query in queries}
        types = {image: self._pictures.image_type(visual) for image, visual in images.items()}
        related = {
            (query.image, query.surroundings, text): dataclasses.replace(query, question=text)
            for query in queries
            for text in self._checks.related_questions(self.model.question_as_read(query.question))
        }
        names = {image: self._reference_answers.name(types[image], pictures.get(image)) for image in images}
        keys = [(names[query.image], query.question, query.surroundings) for query in queries]
        # held here, for other questions may be answered between two steps, and the cache forgets
        reference: dict[Key, list[Prediction]] = {}
        fresh: dict[Key, list[Query]] = {}
        for key, query in zip(keys, queries, strict=True):
            if key in self._reference_answers:
                reference[key] = self._reference_answers[key]
            elif key not in fresh and measured(query):
                fresh[key] = self._reference_answers.queries(query, types[query.image], pictures.get(query.image))
        batch = [*queries, *related.values(), *(q for group in fresh.values() for q in group)]
        decoding = self.card.decoding.model_copy(update={"alternatives": _ALTERNATIVES})
        answers = iter(self.steps.run(lambda part: self.model.answer(part, decoding), batch))
        own = [next(answers) for _ in queries]
        related_answers = {key: next(answers) for key in related}
        for key, group in fresh.items():
            reference[key] = self._reference_answers[key] = [next(answers) for _ in group]
        reasons = {
            name: self._pictures.reason(visual, (contexts or {}).get(name, PictureContext()))
            for name, visual in dict(picture for query in queries for picture in query.pictures).items()
        }
        guarded = []
        for key, query, prediction in zip(keys, queries, own, strict=True):
            self.steps.pause()
            opposites = {
                text: related_answers[query.image, query.surroundings, text]
                for text in self._checks.related_questions(self.model.question_as_read(query.question))
            }
            reason = next((reasons[name] for name, _ in query.pictures if reasons[name] is not None), None)
            image_type = types[query.image]
            answer = self._guarded(query, prediction, reference.get(key, []), opposites, reason, image_type)
            guarded.append((query, answer))
        return guarded

    def _with_evidence(
        self, query: Query, answer: GuardedAnswer, contexts: Mapping[str, PictureContext] | None
    ) -> GuardedAnswer:
        """An answer with its evidence; knowledge needs none, and without the picture's size there is none."""
        geometry, spec = (contexts or {}).get(query.image, PictureContext()).geometry, self.model.picture
        if answer.abstention.abstained or answer.source == "knowledge" or geometry is None or spec is None:
            return answer
        localizations = self.model.localizations(query, answer.prediction)
        return dataclasses.replace(answer, evidence=evidence_of(localizations, geometry, spec))

    def _with_suggestions(
        self, query: Query, answer: GuardedAnswer, contexts: Mapping[str, PictureContext] | None
    ) -> GuardedAnswer:
        """An abstention with questions to offer, unless the picture itself is the reason."""
        if not answer.abstention.abstained or answer.abstention.code in PICTURE_CODES:
            return answer
        image_type = self._pictures.image_type(query.visual)
        names_finding = presupposes_finding(self.model.question_as_read(query.question))

        def may_be_answered(question: str) -> bool:
            return (names_finding or not presupposes_finding(question)) and not self._checks.withholds(
                question, image_type
            )

        suggestions = suggested_questions(
            self.model.question_bank, query, lambda others: self.can_be_offered(others, contexts), may_be_answered
        )
        abstention = dataclasses.replace(answer.abstention, suggestions=suggestions)
        return dataclasses.replace(answer, abstention=abstention)

    def are_answered(
        self, queries: Sequence[Query], contexts: Mapping[str, PictureContext] | None = None
    ) -> list[bool]:
        """Whether each query gets an answer without abstaining.

        Args:
            queries: The queries.
            contexts: A query's ``image`` -> what is known of that picture.
        """
        decided = self._decided(
            queries,
            contexts,
            lambda query: self._checks.must_depend_on_image(self.model.question_as_read(query.question)),
        )
        return [not answer.abstention.abstained for _, answer in decided]

    def can_be_offered(
        self, queries: Sequence[Query], contexts: Mapping[str, PictureContext] | None = None
    ) -> list[bool]:
        """`are_answered`, which asks a training question about a picture once.

        Args:
            queries: The questions that might be offered.
            contexts: A query's ``image`` -> what is known of that picture.
        """
        return self._offers.are_answered(queries, contexts, lambda missing: self.are_answered(missing, contexts))

    def forget(self, image: str) -> None:
        """Remove what is kept of pictures whose key begins so."""
        self._offers.forget(image)

    def _guarded(
        self,
        query: Query,
        prediction: Prediction,
        reference_answers: Sequence[Prediction],
        related: Mapping[str, Prediction],
        picture_reason: PictureReason | None,
        image_type: str,
    ) -> GuardedAnswer:
        read = dataclasses.replace(query, question=self.model.question_as_read(query.question))
        answer = following_related(read.question, prediction, related)
        if self.model.has_closed_answers:
            answer = of_asked_form(read.question, answer, self.model.question_bank)
        answer = calibrated(answer, self.card)
        answer = listed_alternatives(read.question, answer, self.model.question_bank)
        answer = dataclasses.replace(answer, alternatives=answer.alternatives[: self.card.decoding.alternatives])
        dependence = image_dependence(prediction, reference_answers)
        source = answer_source(
            dependence,
            about_image=self._checks.is_about_image(read.question),
            names_image_type=answer.answer.lower() in image_type.lower().split(", "),
        )
        finding = self._checks.asks_for_finding(read.question)
        decision = abstention_decision(self.model, self.card, query, answer, finding=finding)
        low_confidence = decision.code in LOW_CONFIDENCE_CODES
        if picture_reason is not None:
            decision = abstain(picture_reason.code, picture_reason.arguments)
        elif not decision.abstained or low_confidence:
            decision = self._checks.decision(read, answer, dependence, related, image_type) or decision
        return GuardedAnswer(answer, decision, dependence, source, meant_side(answer.answer), raw=prediction)

    def _encoded(self, queries: Sequence[Query]) -> list[Query]:
        """The queries with features in place of pictures, where the model encodes an image once for all questions."""
        if self.model.vision is None:
            return list(queries)
        named = (picture for query in queries for picture in query.pictures)
        pictures = {name: visual for name, visual in named if isinstance(visual, np.ndarray)}
        features = dict(zip(pictures, self.model.vision.encode(list(pictures.values())), strict=True))
        return [
            dataclasses.replace(
                query,
                visual=features.get(query.image, query.visual),
                other_visuals=tuple(features.get(name, visual) for name, visual in query.pictures[1:]),
                other_images=tuple(name for name, _ in query.pictures[1:]),
            )
            for query in queries
        ]
