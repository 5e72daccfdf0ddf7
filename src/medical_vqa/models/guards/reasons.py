"""Reasons for abstaining: a code that a program can test, arguments, and a sentence in English.

The page words the same codes in its own languages (`app.i18n`).
"""

from __future__ import annotations

from collections.abc import Mapping

from medical_vqa.models.questions.reasons import SCOPE_SENTENCES

SENTENCES: Mapping[str, str] = {
    **SCOPE_SENTENCES,
    "low_confidence": (
        "The model is not sure: it is {confidence} sure, and more than {risk} of its answers are wrong where it is "
        "less than {threshold} sure."
    ),
    "never_sure_enough": (
        "The model is {confidence} sure, and on questions about findings no confidence is high enough: for none is it "
        "shown that at most {risk} of its answers are wrong."
    ),
    "constant_picture": "This picture shows nothing: nearly all of it has one value. Check the frame and the window.",
    "not_radiology_colors": (
        "This does not look like a radiology picture, because it has colors. The model was trained on {trained} only."
    ),
    "not_radiology_levels": (
        "This does not look like a radiology picture: it has a few flat values, as a drawing or a mask has."
    ),
    "not_radiology_features": (
        "This picture is unlike every picture that the model was trained on, so an answer would mean nothing."
    ),
    "modality_not_trained": "The file says that it is of modality {modality}; the model was trained on {trained} only.",
    "modality_contradicts_header": (
        "The file names the modality {modality}, and it looks like {answer} to the model: it cannot rely on what it "
        "sees."
    ),
    "contradiction": (
        "The model answers {answer} to this question and {other_answer} to its opposite (“{opposite}”), so neither "
        "answer means anything."
    ),
    "paraphrase_disagrees": (
        "The model answers {answer} to this question and {other_answer} to the same in other words (“{opposite}”), so "
        "neither answer means anything."
    ),
    "organ_not_seen": "The model answers {other_answer} to “{opposite}”, so an answer about it would mean nothing.",
    "other_answer_excludes": (
        "The model answers {other_answer} to “{opposite}”, which excludes this question or its answer."
    ),
    "picture_does_not_matter": (
        "The picture does not change the answer to this question: other pictures of this type get the same answer."
    ),
    "same_answer_without_picture": (
        "The model gives the same answer about a black picture and about this one with its parts out of order, so it "
        "does not come from this picture."
    ),
    "type_not_reliable": (
        "On questions of this type ({type}) it is not shown that the picture helps the model: {accuracy} right with "
        "it and {baseline} without it, 95 % interval of the difference {difference} points, n={questions}{auc}."
    ),
    "type_at_chance": (
        "It is not shown that the model's yes or no to questions of this type ({type}) is better than chance, "
        "n={questions} validation questions of the type{auc}."
    ),
}


LOW_CONFIDENCE_CODES = frozenset(("low_confidence", "never_sure_enough"))
"""Reasons of the confidence: the question and the picture are suitable."""

PICTURE_CODES = frozenset(
    (
        "constant_picture",
        "not_radiology_colors",
        "not_radiology_levels",
        "not_radiology_features",
        "modality_not_trained",
        "modality_contradicts_header",
    )
)
"""Reasons of the picture: no other question about it would be answered."""


def sentence(code: str, arguments: Mapping[str, str]) -> str:
    """The reason in English."""
    return SENTENCES[code].format(**arguments)
