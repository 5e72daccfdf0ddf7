"""What speaks against an answer: its premise, a contradiction, an unreliable type, independence of the picture."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from medical_vqa.models.base import Query, VqaModel
from medical_vqa.models.guards.abstention import AbstentionDecision, abstain, calibrated
from medical_vqa.models.guards.contradiction import disagreement, related_questions
from medical_vqa.models.guards.pictures.comparison import PictureComparison
from medical_vqa.models.guards.pictures.image_dependence import ImageDependence
from medical_vqa.models.guards.pictures.reference import KNOWLEDGE_TYPES, ReferenceSet, modality_of
from medical_vqa.models.guards.pictures.reference_answers import ReferenceAnswers
from medical_vqa.models.guards.related_answers import (
    body_part_questions,
    confirming_questions,
    decisive_questions,
    disagrees,
    free_wording_questions,
    leaves_no_answer,
    stated_body_part,
    unconfirmed,
)
from medical_vqa.models.questions.anatomy import anatomy
from medical_vqa.models.questions.claims import is_no, presupposes_finding
from medical_vqa.models.questions.disease_knowledge import is_knowledge
from medical_vqa.models.questions.findings import concerns_finding
from medical_vqa.models.questions.image_kind import kind_claims, presupposed_kind
from medical_vqa.models.questions.premises import (
    impossible_structure,
    lacks_presence,
    needed_structures,
    not_shown_with,
    presence_questions,
)
from medical_vqa.models.questions.presence import (
    largest_organ_question,
    names_as_largest,
    presence_claims,
    presence_wording,
)
from medical_vqa.models.questions.terms import canonical_terms
from medical_vqa.models.questions.value_claims import value_claims
from medical_vqa.models.vocabulary import words
from medical_vqa.schema.bundle_card import BundleCard, TypeReliability
from medical_vqa.schema.records import Prediction

_CACHED_QUESTIONS = 4096
"""Questions of which the related ones are kept."""


class AnswerChecks:
    """Checks of an answer by what a bundle knows of its training rows."""

    def __init__(
        self,
        model: VqaModel,
        card: BundleCard,
        reference: ReferenceSet | None,
        pictures: PictureComparison,
        reference_answers: ReferenceAnswers,
        *,
        asks_body_part: bool,
    ) -> None:
        """Set what is known.

        Args:
            model: Gave the answers.
            card: Card of its bundle.
            reference: Types of training questions; None for a bundle without them.
            pictures: Knows the body part of a picture.
            reference_answers: Knows of which image types there are reference pictures.
            asks_body_part: Whether the model may be asked for the body part of a picture of no known type.
        """
        self._model = model
        self._card = card
        self._reference = reference
        self._pictures = pictures
        self._reference_answers = reference_answers
        self._asks_body_part = asks_body_part
        self.related_questions = lru_cache(maxsize=_CACHED_QUESTIONS)(self._related_questions)
        """Questions whose answers must agree with that of a question."""

    def _related_questions(self, question: str) -> tuple[str, ...]:
        """Related questions in words that the model knows: the question's own, and those of its training questions."""
        if self._model.usage is not None:  # every question to a remote model costs
            return ()
        texts, bank = related_questions(question), self._model.question_bank
        # whether it sees an organ is worth something only where training asked just that
        presence = tuple(text for text in presence_questions(question) if bank is None or text in bank)
        values = tuple(claim.open_question for claim in value_claims(question))  # of organs that training may not name
        free = free_wording_questions(question) if bank is None or question not in bank else ()
        confirming = confirming_questions(question)
        others = (*decisive_questions(question), *presupposed_kind(question), *free, *confirming)
        decisive = tuple(text for text in others if bank is not None and (text in bank or text in values))
        texts = tuple(dict.fromkeys((*texts, *presence, *decisive)))
        texts = tuple(text for text in texts if text != question or text in confirming)
        if bank is None:
            return texts
        known = bank.words | set(words(question))
        return tuple(text for text in texts if known.issuperset(words(canonical_terms(text, known).text)))

    def asks_for_finding(self, question: str) -> bool:
        """Whether a question asks for a finding, or for a state such as health."""
        if self._reference is None:
            return concerns_finding(question)
        return self._reference.asks_for_finding(question)

    def is_about_image(self, question: str) -> bool:
        """Whether a question is not about general knowledge."""
        question_type = self._reference.question_type(question) if self._reference else ""
        return question_type.lower() not in KNOWLEDGE_TYPES

    def must_depend_on_image(self, question: str) -> bool:
        """Whether an answer is withheld that every reference picture gets."""
        return self.asks_for_finding(question) or (presupposes_finding(question) and not is_knowledge(question))

    def withholds(self, question: str, image_type: str) -> bool:
        """Whether questions of this type are withheld about every picture of an image type."""
        return self._unreliable(question, image_type) is not None

    def decision(
        self,
        query: Query,
        answer: Prediction,
        dependence: ImageDependence | None,
        related: Mapping[str, Prediction],
        image_type: str,
    ) -> AbstentionDecision | None:
        """Why to withhold an answer; None where nothing speaks against it.

        Args:
            query: The question and its picture.
            answer: The answer.
            dependence: How much the picture moves it; None where that was not measured.
            related: Answers to the `related_questions`.
            image_type: Of the picture; empty where it is not known.
        """
        if (decision := self._impossible(query, answer.answer, image_type)) is not None:
            return decision
        if (decision := related_decision(query.question, answer.answer, related)) is not None:
            return decision
        if (against := self._unconfirmed(query.question, answer, related)) is not None:
            text, other_answer = against
            return abstain("other_answer_excludes", {"opposite": text, "other_answer": other_answer})
        if (row := self._unreliable(query.question, image_type)) is not None:
            return _unreliable_decision(row)
        if dependence is None or dependence.changes_answer or not self.must_depend_on_image(query.question):
            return None
        compared = self._reference_answers.has_pictures(image_type)
        return abstain("picture_does_not_matter" if compared else "same_answer_without_picture", {})

    def _impossible(self, query: Query, answer: str, image_type: str) -> AbstentionDecision | None:
        """Abstain where a question, or its answer, is about what the picture cannot show, by its type or the model."""
        in_answer = bool(image_type) and bool(anatomy().structures_in(answer))  # worth no further question
        if not in_answer and not anatomy().structures_in(query.question):
            return None
        may_ask = self._model.usage is None or self._asks_body_part
        description = image_type or (self._pictures.body_part(query) if may_ask else "")
        return premise_decision(query.question, answer, description) or self._excluded_by_body_part(query, answer)

    def _excluded_by_body_part(self, query: Query, answer: str) -> AbstentionDecision | None:
        """Abstain where the model itself says that the picture is of a body part without what an answer is about.

        Of a picture unlike those of training, the type of the nearest ones says little.
        """
        bank = self._model.question_bank
        if bank is None or self._card.calibration is None or self._model.usage is not None:
            return None
        needed = needed_structures(query.question, answer)
        if not needed:
            return None
        answers = self._pictures.body_part_answers(query, body_part_questions(bank))
        stated = stated_body_part({text: calibrated(other, self._card) for text, other in answers.items()})
        if stated is None or not_shown_with(needed, [stated.value]) is None:
            return None
        return abstain("other_answer_excludes", {"opposite": stated.question, "other_answer": stated.answer})

    def _unconfirmed(
        self, question: str, answer: Prediction, related: Mapping[str, Prediction]
    ) -> tuple[str, str] | None:
        """What speaks against the kind of picture that an answer is about, where the model is not sure of it."""
        if self._card.calibration is None:
            return None
        return unconfirmed(question, answer, {text: calibrated(other, self._card) for text, other in related.items()})

    def _unreliable(self, question: str, image_type: str) -> TypeReliability | None:
        """The row of the question's finding or type on this modality that is not above its baseline.

        None for a question that depends on no finding.
        """
        if self._reference is None or not self._reference.depends_on_finding(question):
            return None
        modality = modality_of(image_type)
        names = {
            "finding": f"{modality}, {self._reference.finding(question)}",
            "question type": f"{modality}, {self._reference.finding_type(question)}",
        }
        rows = [row for row in self._card.reliability if names.get(row.kind) == row.name]
        return next((row for row in rows if not row.above_baseline), None)


def related_decision(question: str, answer: str, related: Mapping[str, Prediction]) -> AbstentionDecision | None:
    """Abstain where the answers to related questions exclude an answer.

    Args:
        question: In words.
        answer: In words.
        related: Answers to its related questions.
    """
    presence, decisive = presence_questions(question), decisive_questions(question)
    presupposed, free = presupposed_kind(question), free_wording_questions(question)
    confirming = frozenset(confirming_questions(question)) - frozenset(decisive)
    for text, other in related.items():
        arguments = {"opposite": text, "answer": answer, "other_answer": other.answer}
        if leaves_no_answer(question, text, other.answer):
            return abstain("other_answer_excludes", {"opposite": text, "other_answer": other.answer})
        if text in presence:
            if lacks_presence(question, answer, other.answer):
                return abstain("organ_not_seen", {"opposite": text, "other_answer": other.answer})
        elif text in free:
            if text == largest_organ_question(question) and is_no(answer) and names_as_largest(question, other.answer):
                return abstain("other_answer_excludes", {"opposite": text, "other_answer": other.answer})
        elif text in presupposed or text in confirming:
            continue
        elif text in decisive:  # the answer follows from it, or is surer
            follows_from_kind = text == presence_wording(question) and bool(kind_claims(question)) and is_no(answer)
            of_several = bool(presence_claims(question))  # one may be absent
            if disagrees(answer, other.answer) and not of_several and not follows_from_kind:
                return abstain("paraphrase_disagrees", arguments)
        elif code := disagreement(question, answer, text, other.answer):
            return abstain(code, arguments)
    return None


def premise_decision(question: str, answer: str, description: str) -> AbstentionDecision | None:
    """Abstain where a question, or its answer, is about what pictures of a body part cannot show.

    Args:
        question: In words.
        answer: In words.
        description: Type or body part of the picture, in words; empty where it is not known.
    """
    impossible = impossible_structure(question, answer, description)
    if impossible is None:
        return None
    code = "finding_not_in_image_type" if impossible.kind == "finding" else "organ_not_in_image_type"
    return abstain(code, {"entity": impossible.name})


def _unreliable_decision(row: TypeReliability) -> AbstentionDecision:
    """Abstain by a type's reliability, for the reason that failed: the AUC where accuracy is above the baseline."""
    arguments = {
        "type": row.name,
        "questions": str(row.questions),
        "auc": "" if row.auc is None else f", AUC {row.auc:.2f}",
    }
    if row.difference_low > 0:
        return abstain("type_at_chance", arguments)
    accuracies = {
        "accuracy": f"{row.accuracy:.0%}",
        "baseline": f"{row.baseline_accuracy:.0%}",
        "difference": f"{100 * row.difference_low:.0f} to {100 * row.difference_high:.0f}",
    }
    return abstain("type_not_reliable", arguments | accuracies)
