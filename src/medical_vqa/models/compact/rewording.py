"""Rephrases training questions by rules, so that a small model does not depend on the templates of its rows.

``Does the picture contain liver?`` may come out as ``can you see a liver in this scan``. Rules rewrite English
questions about contents, organs, places, numbers and the type of picture; any other question only has some words
replaced by synonyms. The meaning stays: left, right, numbers, organs and findings are never changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

Pick = Callable[[int], int]
"""Returns a random number below n."""

_IMAGE = ("image", "picture", "scan", "photo")
_THIS = r"(?: (?:in|on|of|about|from) (?:this|the) (?:image|picture|patient))?"
_RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        r"are there abnormalities in this image",
        ("are there any abnormalities", "is anything abnormal", "do you see any abnormality",
         "is something wrong here"),
    ),
    (
        r"(?:does the picture contain|is there an?|is there|are/is there|are there) (?P<x>[a-z ]+?)"
        r"(?: in (?:this|the) (?:image|picture))?",
        (
            "is there a {x} in this image", "is {x} visible", "can you see the {x}", "do you see any {x} here",
            "does this image show the {x}", "is the {x} shown in the picture", "does the picture contain a {x}",
            "is a {x} present", "{x} visible", "is there {x} to be seen",
        ),
    ),
    (
        r"(?:does|do) the (?P<x>[a-z ]+?) (?:appear|exist) in (?:this|the) (?:image|picture)",
        ("is the {x} visible", "can you see the {x} in this image", "is there a {x} in the picture",
         "does it show {x}"),
    ),
    (
        r"can (?P<x>[a-z ]+?) be (?:observed|seen) (?P<where>on the [a-z ]+ )?in (?:this|the) (?:image|picture)",
        ("is there {x} {where}", "do you see {x} {where}", "does the image show {x} {where}", "any {x} {where}"),
    ),
    (r"does the patient have (?P<x>[a-z ]+)", ("is there {x}", "does this image show {x}", "do you see signs of {x}")),
    (
        r"(?:is|does) (?:the|this) (?P<x>[a-z]+) (?:look |appear )?healthy",
        ("is the {x} healthy", "does the {x} look healthy", "does the {x} appear healthy", "is this a healthy {x}"),
    ),
    (
        r"(?:is|does) (?:the|this) (?P<x>[a-z]+) (?:look |appear )?normal(?: appearing)?",
        ("is the {x} normal", "does the {x} look normal", "does the {x} appear normal", "is this {x} normal"),
    ),
    (
        r"(?:is|does) (?:the|this) (?P<x>[a-z]+) (?:look |appear )?abnormal",
        ("is the {x} abnormal", "does the {x} look abnormal", "does the {x} appear abnormal", "is this {x} abnormal"),
    ),
    (
        r"where (?:is|are|is/are) (?:the )?(?P<x>[a-z -]+?)(?: located| existing)?" + _THIS,
        (
            "where is the {x}", "where is the {x} located", "where do you see the {x}", "where in the image is the {x}",
            "in which part of the picture is the {x}", "what is the location of the {x}", "where can i find the {x}",
        ),
    ),
    (
        r"(?:which part of the body does this image belong to|where does the (?:picture show|"
        r"image represent in the body)|"
        r"where does the picture show)",
        (
            "which part of the body is this", "what body part is shown", "what part of the body is imaged",
            "which region of the body does this picture show", "what part of the body is this image of",
            "which body part do we see here",
        ),
    ),
    (
        r"(?:what modality is (?:used to take|shown in) this image|what imaging modality was used|"
        r"how was this image taken|"
        r"what type of medical image is this)",
        (
            "what modality is this image", "what is the imaging modality", "how was this picture taken",
            "what kind of scan is this", "what type of scan is this", "which modality was used",
            "with what was this image taken", "what imaging technique was used",
        ),
    ),
    (
        r"(?:what is the scanning plane of this image|in what plane is this image scanned|"
        r"what scanning plane does this image belong to)",
        ("what plane is this", "which plane is shown", "in which plane was this taken",
         "what is the plane of this scan"),
    ),
    (
        r"(?:what is the mr weighting in this image|what type of mri is shown in this image)",
        ("what is the weighting", "which mr weighting is this", "what kind of mri is this",
         "what mri sequence is this"),
    ),
    (
        r"what is the (?:largest|biggest) organ in the picture",
        ("which organ is the largest", "what is the biggest organ here", "which is the biggest organ in this image"),
    ),
    (
        r"what is the main organ in the image",
        ("which organ is mainly shown", "what is the main organ here", "which is the main organ in this picture"),
    ),
    (
        r"what diseases are included in the picture",
        (
            "what disease is shown", "which diseases can be seen", "what is wrong in this image",
            "what is the diagnosis",
            "what illness does the patient have", "what diseases do you see", "which disease does this picture show",
        ),
    ),
    (
        r"how many (?:existing )?(?P<x>[a-z]+)(?: are shown| have existed| are there)?" + _THIS,
        (
            "how many {x} are there", "how many {x} do you see", "number of {x}",
            "what is the number of {x} in the image",
            "how many {x} are visible", "count the {x}",
        ),
    ),
    (
        r"is this a study of the (?P<x>[a-z ]+)",
        ("does this image show the {x}", "is this the {x}", "is this a scan of the {x}", "is the {x} imaged"),
    ),
    (
        r"is this (?:image taken via |an? )?(?P<x>ct|mri|x-ray)(?: scan| image)?",
        ("is this a {x}", "is this image a {x}", "is it a {x} scan", "was this taken by {x}", "is the modality {x}"),
    ),
    (
        r"is this (?:a )?(?P<x>transverse|coronal|sagittal) (?:plane|section)",
        ("is the plane {x}", "is this image {x}", "was it taken in the {x} plane", "is this a {x} slice"),
    ),
    (
        r"which organ is abnormal, (?P<x>[a-z]+) or (?P<y>[a-z]+)",
        ("is the {x} or the {y} abnormal", "{x} or {y}, which one is abnormal",
         "which is abnormal, the {x} or the {y}"),
    ),
    (
        r"which is bigger in this image, ?(?P<x>[a-z]+) or (?P<y>[a-z]+)",
        ("is the {x} or the {y} bigger", "which is larger, {x} or {y}", "{x} or {y}, which is bigger"),
    ),
    (
        r"which organ system is imaged|what organ system is (?:pictured|primarily present in this image)|"
        r"what is the organ system visualized",
        ("which organ system is shown", "what organ system do we see", "what body system is imaged"),
    ),
    (
        r"what colou?r (?:does|is) the (?P<x>[a-z ]+?)(?: show)?(?: in (?:this|the) (?:picture|image))?",
        ("what color is the {x}", "which color does the {x} have", "what is the color of the {x}"),
    ),
    (
        r"how to treat (?P<x>the [a-z ]+?)" + _THIS,
        ("how is {x} treated", "what is the treatment of {x}", "how can {x} be treated"),
    ),
    (
        r"how to prevent (?:the occurrence of )?(?P<x>the [a-z ]+?)" + _THIS,
        ("how can {x} be prevented", "how to avoid {x}", "what prevents {x}"),
    ),
    (
        r"what is the main cause of (?P<x>the [a-z ]+?)" + _THIS,
        ("what causes {x}", "what is the cause of {x}", "why does one get {x}"),
    ),
    (
        r"what is the (?:function|effect) of (?P<x>the [a-z ]+?)" + _THIS,
        ("what does {x} do", "what is {x} for", "what is the role of {x}", "what is the purpose of {x}"),
    ),
)  # fmt: skip
_SYNONYMS = {
    "image": _IMAGE, "picture": _IMAGE, "contain": ("contain", "show",
    "include"), "abnormalities": ("abnormalities", "anomalies"),
    "located": ("located", "situated"), "biggest": ("biggest", "largest"), "largest": ("largest", "biggest"),
    "which": ("which", "what"), "bigger": ("bigger", "larger"), "brian": ("brain",), "observed": ("observed", "seen"),
    "is/are": ("is", "are"), "organs/organ": ("organs", "organ"), "function": ("function", "role", "effect"),
}  # fmt: skip
_OPENINGS = ("please tell me, ", "can you tell me ", "tell me ", "doctor, ", "hi, ", "i want to know: ")
_COMPILED = tuple((re.compile(pattern), phrases) for pattern, phrases in _RULES)
_TOKEN = re.compile(r"[a-z/]+")


def reword(question: str, pick: Pick) -> str:
    """A question rephrased where a rule matches, some words replaced by synonyms; lower case, often without its "?"."""
    text = " ".join(question.lower().rstrip(" ?.").split())
    for pattern, phrases in _COMPILED:
        if pick(4) and (match := pattern.fullmatch(text)):
            groups = {name: (value or "").strip() for name, value in match.groupdict().items()}
            text = " ".join(phrases[pick(len(phrases))].format(**groups).split())
            break
    text = _TOKEN.sub(lambda word: _synonym(word.group(), pick), text)
    opening = _OPENINGS[pick(len(_OPENINGS))] if pick(8) == 0 else ""
    return opening + text + ("?" if pick(3) else "")


def _synonym(word: str, pick: Pick) -> str:
    synonyms = _SYNONYMS.get(word)
    return synonyms[pick(len(synonyms))] if synonyms and pick(2) else word


def rule_phrases() -> Iterator[str]:
    """Every phrase that the rules can write, without its placeholders, for the word vocabulary."""
    placeholder = re.compile(r"\{[a-z]+\}")
    for _, templates in _RULES:
        yield from (placeholder.sub("", template) for template in templates)
    yield from _OPENINGS
    yield from (synonym for synonyms in _SYNONYMS.values() for synonym in synonyms)
