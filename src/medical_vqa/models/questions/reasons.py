"""Reasons why a model cannot take a question: a code that a program can test, arguments, and a sentence in English."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

SCOPE_SENTENCES: Mapping[str, str] = {
    "foreign_language": "I read {languages} only; ask again in that.",
    "asks_why": (
        "I cannot say why: I choose among the answers of my training rows and give no reasons; "
        "ask about the picture itself."
    ),
    "asks_description": (
        "I write no descriptions and no reports: I choose one answer to one question; ask about one thing, such as the "
        "modality or an organ."
    ),
    "negated_question": ("A yes to a question with a negation can be read both ways; ask without {negation}."),
    "question_too_long": "Your question has {number} words; I read {limit} of them at most: ask a shorter one.",
    "several_questions": "These are {number} questions; ask one at a time.",
    "incomplete_question": "I do not know what you want to know about {topic}; ask a whole question.",
    "unknown_word": "I do not know the word {words}; ask again without it.",
    "unknown_words": "I do not know the words {words}; ask again without them.",
    "untrained_term": "None of my training questions is about {terms}; ask again without it.",
    "untrained_terms": "None of my training questions is about {terms}; ask again without them.",
    "unknown_words_and_terms": (
        "I do not know {words}, and none of my training questions is about {terms}; ask again without them."
    ),
    "organ_not_in_image_type": ("I cannot tell from this kind of image: nobody showed me the {entity} in one like it."),
    "empty_answer": "The model gave no answer: it was filtered, or its thinking used up the tokens of the answer.",
    "model_declined": "The model declined the question instead of answering it.",
    "finding_not_in_image_type": "I cannot tell from this kind of image: nobody showed me {entity} in one like it.",
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
