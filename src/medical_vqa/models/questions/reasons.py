"""Reasons why a model cannot take a question: a code that a program can test, arguments, and a sentence in English."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

SCOPE_SENTENCES: Mapping[str, str] = {
    "foreign_language": "The model does not read this language; ask again in one that it reads: {languages}.",
    "asks_why": (
        "The model cannot say why: it chooses among the answers of its training rows and gives no reasons. Ask about "
        "the picture itself."
    ),
    "asks_description": (
        "The model writes no descriptions and no reports: it chooses one answer to one question. Ask about one thing, "
        "such as the modality or an organ."
    ),
    "negated_question": "A yes to a question with a negation can be read both ways; ask without {negation}.",
    "question_too_long": "The question has {number} words, of which the model reads {limit}; ask a shorter one.",
    "several_questions": "These are {number} questions; ask one at a time.",
    "incomplete_question": "It is not clear what you want to know about {topic}; ask a whole question.",
    "missing_subject": (
        "The question does not say what it is about; name an organ or a finding, or ask for the modality or the plane."
    ),
    "unknown_word": "The model does not know the word {words}; ask again without it.",
    "unknown_words": "The model does not know the words {words}; ask again without them.",
    "untrained_term": "None of the model's training questions is about {terms}; ask again without it.",
    "untrained_terms": "None of the model's training questions is about {terms}; ask again without them.",
    "unknown_words_and_terms": (
        "The model does not know {words}, and none of its training questions is about {terms}; ask again without them."
    ),
    "organ_not_in_image_type": (
        "The model cannot tell from this kind of image: no training picture like it shows the {entity}."
    ),
    "empty_answer": "The model gave no answer: it was filtered, or its thinking used up the tokens of the answer.",
    "model_declined": "The model declined the question instead of answering it.",
    "finding_not_in_image_type": (
        "The model cannot tell from this kind of image: no training picture like it shows {entity}."
    ),
}
"""Code -> sentence, with its arguments as placeholders."""


class Reason(str):
    """A reason's sentence, with its code and arguments for programs and for other languages.

    `ModelFamily.abstention_reason` may return one in place of a plain sentence.
    """

    code: str
    """One of `SCOPE_SENTENCES`, or a code of the family's own."""
    arguments: Mapping[str, str]
    """Values that the sentence names."""

    def __new__(cls, code: str, /, **arguments: str) -> Self:
        """Word a code of `SCOPE_SENTENCES` with its arguments."""
        reason = super().__new__(cls, SCOPE_SENTENCES[code].format(**arguments))
        reason.code = code
        reason.arguments = arguments
        return reason
