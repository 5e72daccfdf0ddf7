"""Answers about one image that contradict each other, and rewordings of one question that get different answers.

What an answer claims is read off the few patterns in which SLAKE and VQA-RAD ask; two claims about the same thing of
the same image contradict each other when they differ. The reference answers are put through the same rules: what *they*
contradict is the error of the rules, and stands beside.

``What diseases are included in the picture? Lung Cancer`` claims that the image is not healthy;
``Is the lung healthy? Yes`` claims that the lung is; a disease named after the lung claims that it is not.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from medical_vqa.evaluation.metrics.lists import list_items
from medical_vqa.schema.records import Example
from medical_vqa.text import squad_normalize

Claim = tuple[str, str, str]
"""What is claimed (``healthy``), of what (``lung``), and the value (``yes``)."""
_SHOWN = 20
_ORGANS = frozenset({
    "lung", "liver", "heart", "kidney", "spleen", "brain", "bladder", "stomach", "esophagus", "trachea", "colon",
    "rectum", "larynx", "duodenum", "pancreas",
})  # fmt: skip
_NOTHING = frozenset({"none", "no", "nothing", "0", "normal", "no abnormality", "no disease", "not seen"})
_MODALITIES = {"ct": "ct", "mri": "mri", "mr": "mri", "xray": "xray", "x ray": "xray"}
_OPPOSITE = {"yes": "no", "no": "yes"}


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two answers that cannot both be true, or that should be one."""

    image_id: str
    """Of which image."""
    first: str
    """Question and answer."""
    second: str
    """Question and answer."""
    ids: tuple[str, str]
    """The rows."""


@dataclass(frozen=True, slots=True)
class Consistency:
    """How far a model agrees with itself."""

    comparable: int
    """Pairs of answers about one image that make claims about the same thing."""
    contradictory: int
    """Those that contradict each other."""
    reference: int
    """Those of the same pairs whose reference answers do: the error of the rules."""
    reworded: int
    """Pairs that ask the same in other words, as the dataset says."""
    reworded_differently: int
    """Those that got different answers."""
    examples: tuple[Contradiction, ...]
    """Contradictions of the model where the references have none: the first twenty."""
    reworded_reference: int = 0
    """Those whose reference answers differ: what the dataset itself does not keep to."""
    rewordings: tuple[Contradiction, ...] = ()
    """Rewordings that got different answers where the references agree: the first twenty."""


def consistency(examples: Sequence[Example], answers: Mapping[str, str]) -> Consistency:
    """Compare the answers about each image with one another.

    Args:
        examples: The rows; those without an answer are left out.
        answers: Example id -> the model's answer.
    """
    rows = [example for example in examples if example.id in answers and example.answers]
    claiming = [row for row in rows if claims(row.question, answers[row.id])]
    found: list[Contradiction] = []
    comparable = contradictory = reference = 0
    for first, second in _pairs_by(claiming, lambda row: row.image_id):
        about = _clash(first, second, answers)
        if about is None:
            continue
        gold = _clash(first, second, {row.id: row.answers[0] for row in (first, second)})
        comparable += 1
        contradictory += about
        reference += bool(gold)
        if about and not gold:
            found.append(_contradiction(first, second, answers))
    pairs = list(_rewordings(rows))
    differ = [pair for pair in pairs if _differ(*(answers[row.id] for row in pair))]
    doubtful = [pair for pair in pairs if _differ(*(row.answers[0] for row in pair))]
    return Consistency(
        comparable=comparable,
        contradictory=contradictory,
        reference=reference,
        reworded=len(pairs),
        reworded_differently=len(differ),
        examples=tuple(found[:_SHOWN]),
        reworded_reference=len(doubtful),
        rewordings=tuple(_contradiction(*pair, answers) for pair in differ if pair not in doubtful)[:_SHOWN],
    )


@lru_cache(maxsize=1 << 16)
def claims(question: str, answer: str) -> frozenset[Claim]:
    """What a question and its answer claim about the image; empty where no pattern fits."""
    asked, said = squad_normalize(question), squad_normalize(answer)
    return frozenset(claim for rule in _RULES for claim in rule(asked, said, answer))


def _healthy(asked: str, said: str, _: str) -> Iterator[Claim]:
    if said in _OPPOSITE and (found := _IS_HEALTHY.search(asked)):
        yield from _health(_organ(found["what"]), said)
    if said in _OPPOSITE and (found := _IS_ILL.search(asked) or _ANY_ILLNESS.search(asked)):
        yield from _health(_organ(found.groupdict().get("what") or "image"), _OPPOSITE[said])


def _health(organ: str, healthy: str) -> Iterator[Claim]:
    """An organ that is ill makes the image one of illness."""
    yield "healthy", organ, healthy
    if healthy == "no":
        yield "healthy", "image", "no"


def _diseases(asked: str, said: str, _: str) -> Iterator[Claim]:
    if _WHICH_DISEASE.search(asked):
        yield "healthy", "image", "yes" if said in _NOTHING else "no"
        yield from (("healthy", organ, "no") for organ in _ORGANS if organ in said.split())


def _contains(asked: str, said: str, answer: str) -> Iterator[Claim]:
    if said in _OPPOSITE and (found := _IS_THERE.search(asked)) and _organ(found["what"]) in _ORGANS:
        yield "shown", _organ(found["what"]), said
    if (found := _WHERE_IS.search(asked)) and _organ(found["what"]) in _ORGANS:
        yield "shown", _organ(found["what"]), "no" if said in _NOTHING else "yes"
    if _WHICH_ORGANS.search(asked):
        yield from (("shown", _organ(item), "yes") for item in list_items(answer) if _organ(item) in _ORGANS)


def _modality(asked: str, said: str, _: str) -> Iterator[Claim]:
    if _WHICH_MODALITY.search(asked) and said in _MODALITIES:
        for name in set(_MODALITIES.values()):
            yield "modality", name, "yes" if name == _MODALITIES[said] else "no"
    elif said in _OPPOSITE and (found := _IS_MODALITY.search(asked)):
        yield "modality", _MODALITIES[found["what"]], said


_RULES: tuple[Callable[[str, str, str], Iterator[Claim]], ...] = (_healthy, _diseases, _contains, _modality)
_IS_HEALTHY = re.compile(r"^(?:is|does|are|do) (?P<what>.+?) (?:look )?(?:healthy|normal)\b")
_IS_ILL = re.compile(r"^(?:is|does|are|do) (?P<what>.+?) (?:look )?(?:abnormal|unhealthy|diseased)\b")
_PICTURE = r"(?:this )?(?:picture|image)"
_ANY_ILLNESS = re.compile(r"^(?:is|are) there (?:any )?(?:abnormality|abnormalities|diseases?) in (?:this|image)")
_WHICH_DISEASE = re.compile(rf"^what diseases? (?:isare|are|is)? ?(?:included|shown|contained) in {_PICTURE}")
_IS_THERE = re.compile(
    rf"^(?:does {_PICTURE} contain|(?:is|are|areis) there(?: any)?) (?P<what>\w+)(?: in (?:this )?\w+)?$"
)
_WHERE_IS = re.compile(rf"^where (?:is|are|isare) (?P<what>\w+)(?: located)?(?: in {_PICTURE})?$")
_WHICH_ORGANS = re.compile(r"^wh(?:at|ich) (?:organs|organsorgan) (?:are|is|does).*(?:picture|image)")
_WHICH_MODALITY = re.compile(r"modality")
_IS_MODALITY = re.compile(
    r"^(?:is|was) this (?:image )?(?:taken (?:via|by) |an? )?(?P<what>ct|mri|mr|xray)(?: scan| image)?$"
)


def _organ(name: str) -> str:
    words = [word for word in name.split() if word not in ("this", "organ", "organs", "both")]
    single = " ".join(words)
    return {"kidneys": "kidney", "lungs": "lung", "picture": "image", "": "image"}.get(single, single)


def _clash(first: Example, second: Example, answers: Mapping[str, str]) -> bool | None:
    """Whether two answers contradict each other; None where they claim nothing about the same thing."""
    mine, other = claims(first.question, answers[first.id]), claims(second.question, answers[second.id])
    if not mine or not other:
        return None
    ours = {(about, what): value for about, what, value in mine}
    theirs = {(about, what): value for about, what, value in other}
    both = ours.keys() & theirs.keys()
    return any(ours[thing] != theirs[thing] for thing in both) if both else None


def _rewordings(rows: Sequence[Example]) -> Iterator[tuple[Example, Example]]:
    """Pairs that the dataset links, unless it says that they do not ask the same."""
    linked = [row for row in rows if row.facts.get("pair")]
    for first, second in _pairs_by(linked, lambda row: row.facts["pair"]):
        relation = first.facts.get("relation") or second.facts.get("relation", "")
        same_words = squad_normalize(first.question) == squad_normalize(second.question)
        if first.image_id == second.image_id and relation == "strict agreement" and not same_words:
            yield first, second


def _differ(first: str, second: str) -> bool:
    return squad_normalize(first) != squad_normalize(second)


def _pairs_by(rows: Sequence[Example], key: Callable[[Example], str]) -> Iterator[tuple[Example, Example]]:
    groups: defaultdict[str, list[Example]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    for group in groups.values():
        yield from itertools.combinations(group, 2)


def _contradiction(first: Example, second: Example, answers: Mapping[str, str]) -> Contradiction:
    one, other = (f"{row.question} {answers[row.id]}" for row in (first, second))
    return Contradiction(first.image_id, one, other, (first.id, second.id))
