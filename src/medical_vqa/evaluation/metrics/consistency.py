"""Answers about one image that contradict each other, and paraphrases of one question with different answers.

What an answer claims is derived from the few patterns in which SLAKE and VQA-RAD ask; two claims about the same entity
of the same image contradict each other if they differ. The reference answers go through the same rules: contradictions
among *them* are the error of the rules, and are reported too.

``What diseases are included in the picture? Lung Cancer`` claims that the image is not healthy;
``Is the lung healthy? Yes`` claims that the lung is; a disease named after the lung claims that it is not.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from medical_vqa.evaluation.metrics.lists import list_items
from medical_vqa.schema.records import Example
from medical_vqa.schema.results import ConflictingAnswers, Consistency
from medical_vqa.text import squad_normalize

Claim = tuple[str, str, str]
"""What is claimed (``healthy``), of which entity (``lung``), and the value (``yes``)."""
_MAX_LISTED = 20
_ORGANS = frozenset({
    "lung", "liver", "heart", "kidney", "spleen", "brain", "bladder", "stomach", "esophagus", "trachea", "colon",
    "rectum", "larynx", "duodenum", "pancreas",
})  # fmt: skip
_NOTHING = frozenset({"none", "no", "nothing", "0", "normal", "no abnormality", "no disease", "not seen"})
_MODALITIES = {"ct": "ct", "mri": "mri", "mr": "mri", "xray": "xray", "x ray": "xray"}
_OPPOSITE = {"yes": "no", "no": "yes"}

# Questions after SQuAD normalization, some with the typing errors of the datasets.
_IS_HEALTHY = re.compile(r"^(?:is|does|are|do) (?P<entity>.+?) (?:look )?(?:healthy|normal)\b")
_IS_ABNORMAL = re.compile(r"^(?:is|does|are|do) (?P<entity>.+?) (?:look )?(?:abnormal|unhealthy|diseased)\b")
_PICTURE = r"(?:this )?(?:picture|image)"
_ANY_ABNORMALITY = re.compile(r"^(?:is|are) there (?:any )?(?:abnormality|abnormalities|diseases?) in (?:this|image)")
_WHICH_DISEASE = re.compile(rf"^what diseases? (?:isare|are|is)? ?(?:included|shown|contained) in {_PICTURE}")
_IS_THERE = re.compile(
    rf"^(?:does {_PICTURE} contain|(?:is|are|areis) there(?: any)?) (?P<entity>\w+)(?: in (?:this )?\w+)?$"
)
_WHERE_IS = re.compile(rf"^where (?:is|are|isare) (?P<entity>\w+)(?: located)?(?: in {_PICTURE})?$")
_WHICH_ORGANS = re.compile(r"^wh(?:at|ich) (?:organs|organsorgan) (?:are|is|does).*(?:picture|image)")
_WHICH_MODALITY = re.compile(r"modality")
_IS_MODALITY = re.compile(
    r"^(?:is|was) this (?:image )?(?:taken (?:via|by) |an? )?(?P<entity>ct|mri|mr|xray)(?: scan| image)?$"
)

_PATTERNS = (
    _IS_HEALTHY,
    _IS_ABNORMAL,
    _ANY_ABNORMALITY,
    _WHICH_DISEASE,
    _IS_THERE,
    _WHERE_IS,
    _WHICH_ORGANS,
    _WHICH_MODALITY,
    _IS_MODALITY,
)


def consistency(examples: Sequence[Example], answers: Mapping[str, str]) -> Consistency:
    """Compare the answers about each image with one another.

    Args:
        examples: The rows; those without an answer are left out.
        answers: Example id -> the model's answer.
    """
    rows = [example for example in examples if example.id in answers and example.answers]
    references = {row.id: row.answers[0] for row in rows}
    comparable = contradictory = reference_contradictory = 0
    contradictions: list[ConflictingAnswers] = []
    claiming = [row for row in rows if claims(row.question, answers[row.id])]
    for pair in _pairs_by(claiming, lambda row: row.image_id):
        contradicts = _contradict(pair, answers)
        if contradicts is None:
            continue
        reference_contradicts = bool(_contradict(pair, references))
        comparable += 1
        contradictory += contradicts
        reference_contradictory += reference_contradicts
        if contradicts and not reference_contradicts:
            contradictions.append(_conflict(pair, answers))
    paraphrases = list(_paraphrases(rows))
    disagreeing = [pair for pair in paraphrases if _differ(pair, answers)]
    reference_disagreeing = [pair for pair in paraphrases if _differ(pair, references)]
    disagreements = [_conflict(pair, answers) for pair in disagreeing if not _differ(pair, references)]
    return Consistency(
        comparable=comparable,
        contradictory=contradictory,
        reference_contradictory=reference_contradictory,
        contradictions=tuple(contradictions[:_MAX_LISTED]),
        paraphrased=len(paraphrases),
        paraphrases_disagreeing=len(disagreeing),
        reference_paraphrases_disagreeing=len(reference_disagreeing),
        paraphrase_disagreements=tuple(disagreements[:_MAX_LISTED]),
    )


@lru_cache(maxsize=1 << 16)
def _has_pattern(question: str) -> bool:
    """Whether a question is one of those whose answer claims something; most questions of most datasets are not."""
    return any(pattern.search(squad_normalize(question)) for pattern in _PATTERNS)


@lru_cache(maxsize=1 << 16)
def claims(question: str, answer: str) -> frozenset[Claim]:
    """What a question and its answer claim about the image; empty if no pattern fits."""
    if not _has_pattern(question):
        return frozenset()
    normalized = squad_normalize(question), squad_normalize(answer)
    return frozenset(
        itertools.chain(
            _health_claims(*normalized),
            _presence_claims(*normalized, list_items(answer)),
            _modality_claims(*normalized),
        )
    )


def _health_claims(question: str, answer: str) -> Iterator[Claim]:
    if answer in _OPPOSITE and (match := _IS_HEALTHY.search(question)):
        yield from _health(_entity(match["entity"]), answer)
    if answer in _OPPOSITE and (match := _IS_ABNORMAL.search(question)):
        yield from _health(_entity(match["entity"]), _OPPOSITE[answer])
    elif answer in _OPPOSITE and _ANY_ABNORMALITY.search(question):
        yield from _health("image", _OPPOSITE[answer])
    if _WHICH_DISEASE.search(question):
        yield "healthy", "image", "yes" if answer in _NOTHING else "no"
        yield from (("healthy", organ, "no") for organ in _ORGANS if organ in answer.split())


def _health(entity: str, healthy: str) -> Iterator[Claim]:
    """An organ that is ill makes the image one of illness."""
    yield "healthy", entity, healthy
    if healthy == "no":
        yield "healthy", "image", "no"


def _presence_claims(question: str, answer: str, items: Iterable[str]) -> Iterator[Claim]:
    if answer in _OPPOSITE and (match := _IS_THERE.search(question)) and _entity(match["entity"]) in _ORGANS:
        yield "present", _entity(match["entity"]), answer
    if (match := _WHERE_IS.search(question)) and _entity(match["entity"]) in _ORGANS:
        yield "present", _entity(match["entity"]), "no" if answer in _NOTHING else "yes"
    if _WHICH_ORGANS.search(question):
        yield from (("present", _entity(item), "yes") for item in items if _entity(item) in _ORGANS)


def _modality_claims(question: str, answer: str) -> Iterator[Claim]:
    if _WHICH_MODALITY.search(question) and answer in _MODALITIES:
        for name in set(_MODALITIES.values()):
            yield "modality", name, "yes" if name == _MODALITIES[answer] else "no"
    elif answer in _OPPOSITE and (match := _IS_MODALITY.search(question)):
        yield "modality", _MODALITIES[match["entity"]], answer


def _entity(name: str) -> str:
    """An organ in the singular, or ``image``."""
    words = [word for word in name.split() if word not in ("this", "organ", "organs", "both")]
    singular = " ".join(words)
    return {"kidneys": "kidney", "lungs": "lung", "picture": "image", "": "image"}.get(singular, singular)


Pair = tuple[Example, Example]


def _contradict(pair: Pair, answers: Mapping[str, str]) -> bool | None:
    """Whether two answers contradict each other; None if they claim nothing about the same entity."""
    first, second = (
        {(about, entity): value for about, entity, value in claims(row.question, answers[row.id])} for row in pair
    )
    shared = first.keys() & second.keys()
    return any(first[key] != second[key] for key in shared) if shared else None


def _paraphrases(rows: Sequence[Example]) -> Iterator[Pair]:
    """Pairs that the dataset links, unless it says that they do not ask the same."""
    linked = [row for row in rows if row.facts.get("pair")]
    for first, second in _pairs_by(linked, lambda row: row.facts["pair"]):
        relation = first.facts.get("relation") or second.facts.get("relation", "")
        same_words = squad_normalize(first.question) == squad_normalize(second.question)
        if first.image_id == second.image_id and relation == "strict agreement" and not same_words:
            yield first, second


def _differ(pair: Pair, answers: Mapping[str, str]) -> bool:
    first, second = (squad_normalize(answers[row.id]) for row in pair)
    return first != second


def _pairs_by(rows: Sequence[Example], key: Callable[[Example], str]) -> Iterator[Pair]:
    groups: defaultdict[str, list[Example]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    for group in groups.values():
        yield from itertools.combinations(group, 2)


def _conflict(pair: Pair, answers: Mapping[str, str]) -> ConflictingAnswers:
    first, second = pair
    return ConflictingAnswers(
        image_id=first.image_id,
        first=f"{first.question} {answers[first.id]}",
        second=f"{second.question} {answers[second.id]}",
        ids=(first.id, second.id),
    )
