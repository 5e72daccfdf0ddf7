"""Who shares an image, a near-duplicate, a question or an answer, across the splits and languages of a dataset.

A model that has seen a test image in training is tested on what it may remember. Splits that were drawn apart for two
languages, or by question where several questions share an image, leak so; this counts it, names it, and says which rows
of each held-out part are clean.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from medical_vqa.data.audit import near_duplicates
from medical_vqa.data.formats.base import ImageSource
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.errors import ImageError
from medical_vqa.runtime import ProgressCallback
from medical_vqa.schema.audit import (
    Audit,
    AuditedPart,
    Leak,
    NearDuplicate,
    RepeatedQuestion,
    SharedImages,
    SharedQuestions,
    UnseenAnswers,
)
from medical_vqa.schema.records import Example
from medical_vqa.text import squad_normalize

NAMED = 200  # ids that the result lists of each finding
Parts = Mapping[str, Sequence[Example]]


def audit(dataset: PreparedDataset, *, compare_images: bool = True, progress: ProgressCallback | None = None) -> Audit:
    """Compare every split and language of a prepared dataset with every other.

    Args:
        dataset: What to look into.
        look: Whether pictures are decoded to find near-duplicates; otherwise only content hashes are compared.
        progress: Told how many pictures were looked at, and of how many.
    """
    parts = dataset_parts(dataset)
    contents = {part: [dataset.images.digest(row.image_id) for row in rows] for part, rows in parts.items()}
    pairs, unreadable = _near(parts, dataset.images, progress) if compare_images else ([], 0)
    repeated = [found for part, rows in parts.items() for found in _repeated(part, rows, contents[part])]
    same = [one for one in repeated if len(one.answers) == 1]
    differ = [one for one in repeated if len(one.answers) > 1]
    across = [pair for pair in pairs if set(pair.first_parts) != set(pair.second_parts)]
    return Audit(
        dataset=dataset.manifest.name,
        title=dataset.manifest.title,
        manifest=dataset.manifest.digest,
        missing=list(dataset.manifest.missing),
        parts=[AuditedPart(name=p, rows=len(rows), images=len(set(contents[p]))) for p, rows in parts.items()],
        shared_images=[found for a, b in itertools.combinations(parts, 2) if (found := _shared(a, b, parts, contents))],
        near_duplicates=sorted(across, key=lambda pair: -pair.similarity),
        near_duplicates_within_parts=len(pairs) - len(across),
        images_compared=compare_images,
        unreadable_images=unreadable,
        shared_questions=[
            _twins(a, b, parts, contents) for a, b in itertools.combinations(parts, 2) if _one_language(a, b)
        ],
        unseen_answers=[
            _unseen(a, b, parts) for a, b in itertools.product(parts, parts) if _learned_and_held_out(a, b)
        ],
        duplicates=same[:NAMED],
        duplicate_count=len(same),
        contradictions=differ[:NAMED],
        contradiction_count=len(differ),
        leaks=[_leak(part, parts, contents, pairs) for part in parts if not part.startswith("train")],
    )


def dataset_parts(dataset: PreparedDataset) -> dict[str, list[Example]]:
    """The rows by split, and by language where there are several: ``train en``, ``train zh``, ``validation en`` ..."""
    rows = {split: dataset.examples(split) for split in dataset.splits}
    several = len({row.facts.get("language") for part in rows.values() for row in part}) > 1
    parts: defaultdict[str, list[Example]] = defaultdict(list)
    for split, examples in rows.items():
        for example in examples:
            parts[part_name(split, example.facts.get("language", "") if several else "")].append(example)
    return dict(parts)


def part_name(split: str, language: str = "") -> str:
    """``train zh``, or ``train``."""
    return f"{split} {language}".strip()


def _one_language(first: str, second: str) -> bool:
    return first.partition(" ")[2] == second.partition(" ")[2]


def _learned_and_held_out(first: str, second: str) -> bool:
    return first.startswith("train") and not second.startswith("train") and _one_language(first, second)


def _shared(a: str, b: str, parts: Parts, contents: Mapping[str, Sequence[str]]) -> SharedImages | None:
    both = set(contents[a]) & set(contents[b])
    if not both:
        return None
    rows = [row for row, digest in zip(parts[b], contents[b], strict=True) if digest in both]
    return SharedImages(
        first=a,
        second=b,
        images=len(both),
        of_images=len(set(contents[b])),
        rows=len(rows),
        of_rows=len(parts[b]),
        image_ids=sorted({row.image_id for row in rows})[:NAMED],
    )


def _twins(a: str, b: str, parts: Parts, contents: Mapping[str, Sequence[str]]) -> SharedQuestions:
    asked = {squad_normalize(row.question) for row in parts[a]}
    known = {(d, squad_normalize(row.question)) for row, d in zip(parts[a], contents[a], strict=True)}
    same = [
        row.id
        for row, digest in zip(parts[b], contents[b], strict=True)
        if (digest, squad_normalize(row.question)) in known
    ]
    often = sum(squad_normalize(row.question) in asked for row in parts[b])
    return SharedQuestions(first=a, second=b, same_question=often, same_image=len(same), ids=same[:NAMED])


def _unseen(a: str, b: str, parts: Parts) -> UnseenAnswers:
    known = {squad_normalize(answer) for row in parts[a] for answer in row.answers}
    rows = [row for row in parts[b] if row.answers]
    new = [row for row in rows if not any(squad_normalize(answer) in known for answer in row.answers)]
    answers = sorted({row.answers[0] for row in new})
    return UnseenAnswers(part=b, train=a, rows=len(new), of_rows=len(rows), answers=answers[:NAMED])


def _repeated(part: str, rows: Sequence[Example], contents: Sequence[str]) -> list[RepeatedQuestion]:
    asked: defaultdict[tuple[str, str], list[Example]] = defaultdict(list)
    for row, digest in zip(rows, contents, strict=True):
        asked[digest, squad_normalize(row.question)].append(row)
    found = []
    for same in asked.values():
        if len(same) > 1:
            answers = {squad_normalize(row.answers[0]): row.answers[0] for row in same if row.answers}
            ids, shown = [row.id for row in same], list(answers.values())
            found.append(RepeatedQuestion(part=part, ids=ids, question=same[0].question, answers=shown))
    return found


def _near(parts: Parts, images: ImageSource, progress: ProgressCallback | None) -> tuple[list[NearDuplicate], int]:
    """Near-duplicates among the distinct images, and how many of those could not be read."""
    where: defaultdict[str, set[str]] = defaultdict(set)
    names: dict[str, str] = {}
    for part, rows in parts.items():
        for image_id in dict.fromkeys(row.image_id for row in rows):
            digest = images.digest(image_id)
            where[digest].add(part)
            names.setdefault(digest, image_id)
    prints: dict[str, near_duplicates.Fingerprint] = {}
    for number, (digest, image_id) in enumerate(names.items(), 1):
        try:
            prints[digest] = near_duplicates.fingerprint(images.load(image_id))
        except ImageError:
            continue
        if progress is not None:
            progress(number, len(names))
    digests = list(prints)
    pairs = [
        NearDuplicate(
            first=names[digests[one.first]],
            second=names[digests[one.second]],
            first_parts=sorted(where[digests[one.first]]),
            second_parts=sorted(where[digests[one.second]]),
            similarity=round(one.similarity, 4),
            box=one.box,
        )
        for one in near_duplicates.near_duplicates(list(prints.values()))
    ]
    return pairs, len(names) - len(prints)


def _leak(part: str, parts: Parts, contents: Mapping[str, Sequence[str]], pairs: Sequence[NearDuplicate]) -> Leak:
    learned = {digest for name in parts if name.startswith("train") for digest in contents[name]}
    alike = Counter[str]()
    for pair in pairs:
        if any(name.startswith("train") for name in pair.first_parts):
            alike[pair.second] += 1
        if any(name.startswith("train") for name in pair.second_parts):
            alike[pair.first] += 1
    twins = {digest for row, digest in zip(parts[part], contents[part], strict=True) if row.image_id in alike}
    exact, nearly = [], []
    for row, digest in zip(parts[part], contents[part], strict=True):
        if digest in learned:
            exact.append(row.id)
        elif digest in twins:
            nearly.append(row.id)
    return Leak(part=part, exact=exact, near=nearly)
