"""The guards together: every answer of every family passes through `Guards.answer` before it is shown.

In this order: the picture (where the bundle has a reference set to compare it with), the question's scope (the family's
own), contradictions, the reliability of the question's type, image dependence, and the confidence threshold. What a
bundle lacks (reference set, reliability rows) is skipped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from medical_vqa.data.imaging.picture_statistics import PictureContext
from medical_vqa.errors import BundleError
from medical_vqa.models.base import Query, VqaModel
from medical_vqa.models.guards.abstention import AbstentionDecision, abstention_decision, calibrated
from medical_vqa.models.guards.alternatives import listed_alternatives
from medical_vqa.models.guards.contradiction import disagreement, related_questions
from medical_vqa.models.guards.evidence import evidence_of
from medical_vqa.models.guards.image_dependence import (
    ImageDependence,
    Source,
    answer_source,
    image_dependence,
    without_content,
)
from medical_vqa.models.guards.picture import (
    GRAY_MODALITIES,
    MODALITY_NAMES,
    PictureReason,
    header_reason,
    statistics_reason,
    visual_features,
)
from medical_vqa.models.guards.reasons import LOW_CONFIDENCE_CODES, PICTURE_CODES, sentence
from medical_vqa.models.guards.reference import ARRAYS_FILE, KNOWLEDGE_TYPES, NAMES_FILE, ReferenceSet, modality_of
from medical_vqa.models.guards.sides import Side, meant_side
from medical_vqa.models.guards.steps import Steps
from medical_vqa.models.guards.suggestions import suggested_questions
from medical_vqa.models.questions.anatomy import anatomy
from medical_vqa.models.questions.claims import presupposes_finding
from medical_vqa.models.questions.findings import concerns_finding
from medical_vqa.models.questions.premises import (
    BODY_PART_QUESTION,
    impossible_structure,
    is_knowledge,
    lacks_presence,
    presence_questions,
)
from medical_vqa.models.questions.terms import canonical_terms
from medical_vqa.models.vocabulary import words
from medical_vqa.schema.bundle_card import BundleCard, TypeReliability
from medical_vqa.schema.evidence import Evidence
from medical_vqa.schema.records import Prediction

if TYPE_CHECKING:
    from medical_vqa.models.base import Visual

_LOG = logging.getLogger(__name__)
_ALTERNATIVES = 20
"""Alternatives that a distribution over answers is read from."""
_CACHED_QUESTIONS = 4096
"""Questions whose answers about the reference pictures are kept: other pictures of the type get them too."""
_CACHED_OFFERS = 8192
"""Training questions about a picture of which is kept whether they can be offered."""
_CACHED_PICTURES = 1024
"""Pictures whose image type and distance to the training pictures are kept."""
_MODALITY_QUESTION = "What modality is used to take this image?"


@dataclass(frozen=True, slots=True)
class GuardedAnswer:
    """An answer, whether to show it, and what it rests on."""

    prediction: Prediction
    """The answer, its confidence calibrated."""
    abstention: AbstentionDecision
    """Whether to show it."""
    dependence: ImageDependence | None = None
    """How much the picture moved it; None where that was not measured."""
    source: Source | None = None
    """Where it comes from; None where that was not measured."""
    side: Side | None = None
    """Whose left or right it names."""
    evidence: tuple[Evidence, ...] = ()
    """Where the model localizes what the question or the answer names; nothing where it abstains."""
    raw: Prediction | None = None
    """The model's own answer, with the confidence and alternatives that it gave."""


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
        self.model = model
        measured = reference is not None and model.has_closed_answers if image_dependence is None else image_dependence
        self.measures_dependence = measured and model.picture is not None
        self.card = card
        self.reference = reference
        self._reference_visuals: dict[str, list[Visual]] = {}
        self.steps = Steps()
        self._pictures: LRUCache[bytes, tuple[str, bool]] = LRUCache(_CACHED_PICTURES)
        self._body_parts: LRUCache[bytes, str] = LRUCache(_CACHED_PICTURES)
        self._reference_answers: LRUCache[tuple[str, str], list[Prediction]] = LRUCache(_CACHED_QUESTIONS)
        self._offered: LRUCache[tuple[str, bytes, str, str], bool] = LRUCache(_CACHED_OFFERS)
        self._offered_lock = threading.Lock()  # a server forgets pictures while it answers
        self._related_questions = lru_cache(maxsize=_CACHED_QUESTIONS)(self._uncached_related_questions)

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
        types = {image: self._compared(visual)[0] for image, visual in images.items()}
        related = {
            (query.image, text): dataclasses.replace(query, question=text)
            for query in queries
            for text in self._related_questions(query.question)
        }
        names = {image: self._reference_name(types[image], pictures.get(image)) for image in images}
        keys = [(names[query.image], query.question) for query in queries]
        # held here, for other questions may be answered between two steps, and the cache forgets
        reference: dict[tuple[str, str], list[Prediction]] = {}
        fresh: dict[tuple[str, str], list[Query]] = {}
        for key, query in zip(keys, queries, strict=True):
            if key in self._reference_answers:
                reference[key] = self._reference_answers[key]
            elif key not in fresh and measured(query):
                fresh[key] = self._reference_queries(query, types[query.image], pictures.get(query.image))
        batch = [*queries, *related.values(), *(q for group in fresh.values() for q in group)]
        decoding = self.card.decoding.model_copy(update={"alternatives": _ALTERNATIVES})
        answers = iter(self.steps.run(lambda part: self.model.answer(part, decoding), batch))
        own = [next(answers) for _ in queries]
        related_answers = {key: next(answers) for key in related}
        for key, group in fresh.items():
            reference[key] = self._reference_answers[key] = [next(answers) for _ in group]
        own_queries = {query.image: query for query in queries}
        reasons = {
            image: self._picture_reason(query.visual, (contexts or {}).get(image, PictureContext()), query)
            for image, query in own_queries.items()
        }
        guarded = []
        for key, query, prediction in zip(keys, queries, own, strict=True):
            self.steps.pause()
            opposites = {text: related_answers[query.image, text] for text in self._related_questions(query.question)}
            reason, image_type = reasons[query.image], types[query.image]
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

        image_type = self._compared(query.visual)[0]

        names_finding = presupposes_finding(query.question)

        def may_be_answered(question: str) -> bool:
            offered = dataclasses.replace(query, question=question)
            return (names_finding or not presupposes_finding(question)) and not self._withholds(offered, image_type)

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
        decided = self._decided(queries, contexts, lambda query: self._must_depend_on_image(query.question))
        return [not answer.abstention.abstained for _, answer in decided]

    def can_be_offered(
        self, queries: Sequence[Query], contexts: Mapping[str, PictureContext] | None = None
    ) -> list[bool]:
        """`are_answered`, which asks a training question about a picture once: many refusals offer the same ones.

        Args:
            queries: The questions that might be offered.
            contexts: A query's ``image`` -> what is known of that picture.
        """
        bank = self.model.question_bank
        keys = [self._offer_key(query, (contexts or {}).get(query.image)) for query in queries]
        with self._offered_lock:
            known = {key: self._offered[key] for key in keys if key in self._offered}
        missing = {key: query for key, query in zip(keys, queries, strict=True) if key not in known}
        answered = self.are_answered(list(missing.values()), contexts) if missing else []
        for (key, query), is_answered in zip(missing.items(), answered, strict=True):
            known[key] = is_answered
            if key[1] and bank is not None and query.question in bank:  # a person's own words are not kept
                with self._offered_lock:
                    self._offered[key] = is_answered
        return [known[key] for key in keys]

    def _offer_key(self, query: Query, context: PictureContext | None) -> tuple[str, bytes, str, str]:
        """The picture by name and by content, for a name may be used again; what is known of it; and the question."""
        visual = query.visual
        content = visual if isinstance(visual, np.ndarray) else visual_features(visual)
        digest = b"" if content is None else hashlib.sha256(content.tobytes()).digest()[:16]
        return query.image, digest, context.digest if context is not None else "", query.question

    def forget(self, image: str) -> None:
        """Remove what is kept of pictures whose key begins so."""
        with self._offered_lock:
            for key in [key for key in self._offered if key[0].startswith(image)]:
                del self._offered[key]

    def _withholds(self, query: Query, image_type: str) -> bool:
        """Whether questions of this type are withheld about every picture of an image type."""
        return self._asks_for_finding(query.question) and self._unreliable(query, image_type) is not None

    def _guarded(
        self,
        query: Query,
        prediction: Prediction,
        reference_answers: Sequence[Prediction],
        related: Mapping[str, Prediction],
        picture_reason: PictureReason | None,
        image_type: str,
    ) -> GuardedAnswer:
        answer = calibrated(prediction, self.card)
        answer = listed_alternatives(query.question, answer, self.model.question_bank)
        answer = dataclasses.replace(answer, alternatives=answer.alternatives[: self.card.decoding.alternatives])
        dependence = image_dependence(prediction, reference_answers)
        source = answer_source(
            dependence,
            about_image=self._question_type(query).lower() not in KNOWLEDGE_TYPES,
            names_image_type=answer.answer.lower() in image_type.lower().split(", "),
        )
        finding = self._asks_for_finding(query.question)
        decision = abstention_decision(self.model, self.card, query, answer, finding=finding)
        low_confidence = decision.code in LOW_CONFIDENCE_CODES
        if picture_reason is not None:
            decision = _abstain(picture_reason.code, picture_reason.arguments)
        elif not decision.abstained or low_confidence:
            decision = (
                self._premise_decision(query, answer, image_type)
                or self._finding_decision(query, answer, dependence, related, image_type)
                or decision
            )
        return GuardedAnswer(answer, decision, dependence, source, meant_side(answer.answer), raw=prediction)

    def _premise_decision(self, query: Query, answer: Prediction, image_type: str) -> AbstentionDecision | None:
        """Abstain where the question, or its answer, is about what pictures of this body part cannot show."""
        in_answer = bool(image_type) and bool(anatomy().structures_in(answer.answer))  # worth no further question
        if not in_answer and not anatomy().structures_in(query.question):
            return None
        description = image_type or self._body_part(query)
        impossible = impossible_structure(query.question, answer.answer, description)
        if impossible is None:
            return None
        code = "finding_not_in_image_type" if impossible.kind == "finding" else "organ_not_in_image_type"
        return _abstain(code, {"entity": impossible.name})

    def _body_part(self, query: Query) -> str:
        """What the model takes the picture for; empty where it sees none, or a question costs and is not requested."""
        if self.model.picture is None or (self.model.usage is not None and not self.measures_dependence):
            return ""
        if not isinstance(query.visual, np.ndarray) and visual_features(query.visual) is None:
            return ""
        key = _visual_key(query.visual)
        if key not in self._body_parts:
            probe = query.alone(BODY_PART_QUESTION)
            self._body_parts[key] = self.model.answer([probe], self.card.decoding)[0].answer
        return self._body_parts[key]

    def _finding_decision(
        self,
        query: Query,
        answer: Prediction,
        dependence: ImageDependence | None,
        related: Mapping[str, Prediction],
        image_type: str,
    ) -> AbstentionDecision | None:
        presence = presence_questions(query.question)
        for text, other in related.items():
            if text in presence:
                if lacks_presence(query.question, answer.answer, other.answer):
                    return _abstain("organ_not_seen", {"opposite": text, "other_answer": other.answer})
            elif code := disagreement(query.question, answer.answer, text, other.answer):
                return _abstain(code, {"opposite": text, "answer": answer.answer, "other_answer": other.answer})
        if self._asks_for_finding(query.question) and (row := self._unreliable(query, image_type)) is not None:
            return _abstain("type_not_reliable", _reliability_arguments(row))
        must_depend = self._must_depend_on_image(query.question)
        return self._dependence_decision(dependence, image_type) if must_depend else None

    def _must_depend_on_image(self, question: str) -> bool:
        """Whether an answer is withheld that every reference picture gets."""
        return self._asks_for_finding(question) or (presupposes_finding(question) and not is_knowledge(question))

    def _dependence_decision(self, dependence: ImageDependence | None, image_type: str) -> AbstentionDecision | None:
        """Abstain where every reference picture gets the same answer."""
        if dependence is None or dependence.changes_answer:
            return None
        no_reference = self.reference is None or not self._visuals_of(image_type)
        return _abstain("same_answer_without_picture" if no_reference else "picture_does_not_matter", {})

    def _unreliable(self, query: Query, image_type: str) -> TypeReliability | None:
        """The row of the question's finding or type on this modality that is not above its baseline."""
        if self.reference is None:
            return None
        modality = modality_of(image_type)
        names = {
            "finding": f"{modality}, {self.reference.finding(query.question)}",
            "question type": f"{modality}, {self.reference.finding_type(query.question)}",
        }
        rows = [row for row in self.card.reliability if names.get(row.kind) == row.name]
        return next((row for row in rows if not row.above_baseline), None)

    def _picture_reason(self, visual: Visual, context: PictureContext, query: Query) -> PictureReason | None:
        """Why the picture cannot be asked about; None where nothing speaks against it."""
        if self.model.picture is None or self.reference is None:
            return None
        trained = self.reference.modalities
        if context.statistics is not None:
            gray_only = {name.lower() for name in trained} <= GRAY_MODALITIES
            if (reason := statistics_reason(context.statistics, gray_only=gray_only)) is not None:
                return dataclasses.replace(reason, arguments={"trained": ", ".join(trained) or "other pictures"})
        if (reason := header_reason(context.facts, trained)) is not None:
            return reason
        if self._compared(visual)[1]:
            return PictureReason("not_radiology_features")
        return self._contradicts_header(context, query)

    def _contradicts_header(self, context: PictureContext, query: Query) -> PictureReason | None:
        modality = context.facts.get("Modality", "").strip().upper()
        named = MODALITY_NAMES.get(modality)
        if named is None or self.reference is None or len(self.reference.modalities) < 2:
            return None
        answer = self._modality(query.visual)
        known = {name.lower() for name in self.reference.modalities}
        if answer.lower() in known and answer.lower() != named:
            return PictureReason("modality_contradicts_header", {"modality": modality, "answer": answer})
        return None

    def _uncached_related_questions(self, question: str) -> tuple[str, ...]:
        """Related questions in words that the model knows: the question's own, and those of its training questions."""
        if self.model.usage is not None:  # every question to a remote model costs
            return ()
        texts, bank = related_questions(question), self.model.question_bank
        # whether it sees an organ is worth something only where training asked just that
        presence = tuple(text for text in presence_questions(question) if bank is None or text in bank)
        texts = tuple(dict.fromkeys((*texts, *presence)))
        if bank is None:
            return texts
        known = bank.words | set(words(question))
        return tuple(text for text in texts if known.issuperset(words(canonical_terms(text, known).text)))

    def _asks_for_finding(self, question: str) -> bool:
        if self.reference is None:
            return concerns_finding(question)
        return self.reference.asks_for_finding(question)

    def _question_type(self, query: Query) -> str:
        return self.reference.question_type(query.question) if self.reference else ""

    def _compared(self, visual: Visual) -> tuple[str, bool]:
        """Image type of a picture, and whether it is unlike all training pictures; empty and False without features."""
        if self.reference is None or self.reference.features is None:
            return "", False
        feature = visual_features(visual)
        if feature is None:
            return "", False
        if len(feature) != len(self.reference.features.mean):
            raise BundleError(
                f"the reference set of {self.card.name} compares {len(self.reference.features.mean)} features and the "
                f"model has {len(feature)}, so that it is of another model; run `medical-vqa calibrate` for this one"
            )
        key = feature.tobytes()
        if key not in self._pictures:
            features = self.reference.features
            unlike = bool(features.distances(feature[None])[0] > features.threshold)
            compared = self.reference.image_type(feature, self._modality(visual)), unlike
            self._pictures[key] = compared
            return compared
        return self._pictures[key]

    def _modality(self, visual: Visual) -> str:
        """What the model takes the picture's modality for; empty where it was trained on one, or a question costs."""
        if self.reference is None or len(self.reference.modalities) < 2 or self.model.usage is not None:
            return ""
        probe = Query("modality", _MODALITY_QUESTION, "modality", visual)
        (answer,) = self.steps.run(lambda part: self.model.answer(part, self.card.decoding), [probe])
        return answer.answer

    def _reference_name(self, image_type: str, picture: NDArray[np.uint8] | None) -> str:
        """What answers to compare with depend on: the image type, or the picture where its type has no pictures."""
        if picture is None or self._visuals_of(image_type):
            return image_type
        return hashlib.sha256(picture.tobytes()).hexdigest() if self.measures_dependence else ""

    def _reference_queries(self, query: Query, image_type: str, picture: NDArray[np.uint8] | None) -> list[Query]:
        """The question about the reference pictures of its image type, or where there are none without content."""
        if not self.measures_dependence:
            return []
        visuals: Sequence[Visual] = self._visuals_of(image_type)
        name = f"reference/{image_type}"
        if not visuals and picture is not None:
            visuals, name = without_content(picture), f"{query.image}/without content"
        return [
            dataclasses.replace(query, image=f"{name}/{number}", visual=visual) for number, visual in enumerate(visuals)
        ]

    def _visuals_of(self, image_type: str) -> list[Visual]:
        """The reference pictures of a type as the model receives them, encoded once."""
        if image_type not in self._reference_visuals:
            pictures = self.reference.pictures.get(image_type, ()) if self.reference else ()
            visuals: list[Visual] = list(pictures)
            if visuals and self.model.vision is not None:
                visuals = list(self.model.vision.encode(list(pictures)))
            self._reference_visuals[image_type] = visuals
        return self._reference_visuals[image_type]

    def _encoded(self, queries: Sequence[Query]) -> list[Query]:
        """The queries with features in place of pictures, where the model encodes an image once for all questions."""
        if self.model.vision is None:
            return list(queries)
        pictures = {q.image: q.visual for q in queries if isinstance(q.visual, np.ndarray)}
        features = dict(zip(pictures, self.model.vision.encode(list(pictures.values())), strict=True))
        return [dataclasses.replace(q, visual=features.get(q.image, q.visual)) for q in queries]


def _visual_key(visual: Visual) -> bytes:
    """Equal for equal pictures."""
    if isinstance(visual, np.ndarray):
        return hashlib.sha256(visual.tobytes()).digest()
    features = visual_features(visual)
    return b"" if features is None else features.tobytes()


def _abstain(code: str, arguments: Mapping[str, str]) -> AbstentionDecision:
    return AbstentionDecision(True, sentence(code, arguments), code, dict(arguments))


def _reliability_arguments(row: TypeReliability) -> dict[str, str]:
    return {
        "type": row.name,
        "accuracy": f"{row.accuracy:.0%}",
        "baseline": f"{row.baseline_accuracy:.0%}",
        "questions": str(row.questions),
        "difference": f"{100 * row.difference_low:.0f} to {100 * row.difference_high:.0f}",
        "auc": "" if row.auc is None else f", AUC {row.auc:.2f}",
    }
