"""Audit of a dataset: images, near-duplicates, questions and answers that its splits and languages share.

A model that was trained on a test image is tested on what it may remember. Splits that were made separately for two
languages, or by question where several questions share an image, leak in this way. The audit counts and names the
leaks, and with them which rows of each held-out part are clean. Slices of one patient in two parts are a leak as well.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from medical_vqa.data.audit.fingerprint_store import FingerprintStore
from medical_vqa.data.audit.near_duplicates import Fingerprint, fingerprint, near_duplicates
from medical_vqa.data.cache.pictures import ImageSource
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.errors import ImageError
from medical_vqa.runtime import StageCallback
from medical_vqa.runtime.threads import in_threads
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
from medical_vqa.schema.records import Example, Split
from medical_vqa.text import squad_normalize

_STORED_TOGETHER = 1000  # fingerprints in one file of an interrupted audit
MAX_IDS = 200
"""Ids that the result names for each finding."""


@dataclass(frozen=True, slots=True)
class DatasetPart:
    """The rows of one split in one language."""

    name: str
    """``train zh``; without the language where there is only one."""
    split: Split
    """Split of the rows."""
    language: str
    """Language of the rows; empty where the dataset has only one."""
    rows: Sequence[Example]
    """The rows, in published order."""
    digests: Sequence[tuple[str, ...]]
    """SHA-256 of all images of each row."""

    @property
    def images(self) -> set[str]:
        """SHA-256 of all images of the part."""
        return {digest for digests in self.digests for digest in digests}

    @property
    def is_training(self) -> bool:
        """Whether models learn from these rows."""
        return self.split == "train"


def audit(dataset: PreparedDataset, *, compare_images: bool = True, progress: StageCallback | None = None) -> Audit:
    """Compare every split and language of a prepared dataset with every other.

    Args:
        dataset: The dataset.
        compare_images: Whether to decode images to find near-duplicates; otherwise only their content hashes count.
        progress: Called with "reading images" and "comparing images", and how many images were.
    """
    parts = dataset_parts(dataset)
    training = [part for part in parts if part.is_training]
    held_out = [part for part in parts if not part.is_training]
    store = FingerprintStore(dataset.folder)
    pairs, unreadable = _near_duplicates(parts, dataset.images, store, progress) if compare_images else ([], 0)
    across = [pair for pair in pairs if set(pair.first_parts) != set(pair.second_parts)]
    repeated = [question for part in parts for question in _repeated_questions(part)]
    duplicates = [question for question in repeated if len(question.answers) == 1]
    contradictions = [question for question in repeated if len(question.answers) > 1]
    shared = [_shared_images(first, second) for first, second in itertools.combinations(parts, 2)]
    return Audit(
        dataset=dataset.manifest.name,
        title=dataset.manifest.title,
        manifest=dataset.manifest.digest,
        missing=list(dataset.manifest.missing),
        parts=[AuditedPart(name=part.name, rows=len(part.rows), images=len(part.images)) for part in parts],
        shared_images=[pair for pair in shared if pair.images],
        near_duplicates=sorted(across, key=lambda pair: -pair.similarity),
        near_duplicates_within_parts=len(pairs) - len(across),
        near_duplicates_of_one_part=tuple(p for p in pairs if set(p.first_parts) == set(p.second_parts)),
        images_compared=compare_images,
        unreadable_images=unreadable,
        shared_questions=[_shared_questions(a, b) for a, b in _of_one_language(itertools.combinations(parts, 2))],
        unseen_answers=[_unseen_answers(a, b) for a, b in _of_one_language(itertools.product(training, held_out))],
        duplicates=duplicates[:MAX_IDS],
        duplicate_count=len(duplicates),
        contradictions=contradictions[:MAX_IDS],
        contradiction_count=len(contradictions),
        leaks=[_leak(part, training, pairs) for part in held_out],
    )


def dataset_parts(dataset: PreparedDataset) -> list[DatasetPart]:
    """The parts by split, and by language where there are several: ``train en``, ``train zh``, ``validation en`` ..."""
    rows = {split: dataset.examples(split) for split in dataset.splits}
    several = len({row.facts.get("language") for examples in rows.values() for row in examples}) > 1
    groups: defaultdict[tuple[Split, str], list[Example]] = defaultdict(list)
    for split, examples in rows.items():
        for example in examples:
            groups[split, example.facts.get("language", "") if several else ""].append(example)
    return [
        DatasetPart(
            name=f"{split} {language}".strip(),
            split=split,
            language=language,
            rows=examples,
            digests=[tuple(map(dataset.images.digest, row.images)) for row in examples],
        )
        for (split, language), examples in groups.items()
    ]


def _of_one_language(pairs: Iterable[tuple[DatasetPart, DatasetPart]]) -> list[tuple[DatasetPart, DatasetPart]]:
    return [(first, second) for first, second in pairs if first.language == second.language]


def _shared_images(first: DatasetPart, second: DatasetPart) -> SharedImages:
    shared = first.images & second.images
    rows = [(row, own) for row, own in zip(second.rows, second.digests, strict=True) if not shared.isdisjoint(own)]
    return SharedImages(
        first=first.name,
        second=second.name,
        images=len(shared),
        of_images=len(second.images),
        rows=len(rows),
        of_rows=len(second.rows),
        image_ids=sorted({i for row, own in rows for i, d in zip(row.images, own, strict=True) if d in shared})[
            :MAX_IDS
        ],
    )


def _shared_questions(first: DatasetPart, second: DatasetPart) -> SharedQuestions:
    questions = {squad_normalize(row.question) for row in first.rows}
    about_images = {_asked(row, own) for row, own in zip(first.rows, first.digests, strict=True)}
    ids = [row.id for row, own in zip(second.rows, second.digests, strict=True) if _asked(row, own) in about_images]
    return SharedQuestions(
        first=first.name,
        second=second.name,
        same_question=sum(squad_normalize(row.question) in questions for row in second.rows),
        same_image=len(ids),
        ids=ids[:MAX_IDS],
    )


def _asked(row: Example, digests: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """What is asked about which images, earlier turns included."""
    return (digests, tuple(map(squad_normalize, row.questions)))


def _unseen_answers(training: DatasetPart, held_out: DatasetPart) -> UnseenAnswers:
    known = {squad_normalize(answer) for row in training.rows for answer in row.answers}
    answered = [row for row in held_out.rows if row.answers]
    unseen = [row for row in answered if not any(squad_normalize(answer) in known for answer in row.answers)]
    return UnseenAnswers(
        part=held_out.name,
        train=training.name,
        rows=len(unseen),
        of_rows=len(answered),
        answers=sorted({row.answers[0] for row in unseen})[:MAX_IDS],
    )


def _repeated_questions(part: DatasetPart) -> list[RepeatedQuestion]:
    groups: defaultdict[tuple[tuple[str, ...], ...], list[Example]] = defaultdict(list)
    for row, own in zip(part.rows, part.digests, strict=True):
        groups[_asked(row, own)].append(row)
    questions = []
    for rows in groups.values():
        if len(rows) > 1:
            answers = {squad_normalize(row.answers[0]): row.answers[0] for row in rows if row.answers}
            questions.append(
                RepeatedQuestion(
                    part=part.name,
                    ids=[row.id for row in rows],
                    question=rows[0].question,
                    answers=list(answers.values()),
                )
            )
    return questions


def _near_duplicates(
    parts: Sequence[DatasetPart], images: ImageSource, store: FingerprintStore, progress: StageCallback | None
) -> tuple[list[NearDuplicate], int]:
    """Near-duplicates among the distinct images, and the number of images that cannot be decoded."""
    used_in: defaultdict[str, set[str]] = defaultdict(set)
    ids: dict[str, str] = {}
    for part in parts:
        for row, own in zip(part.rows, part.digests, strict=True):
            for image_id, digest in zip(row.images, own, strict=True):
                used_in[digest].add(part.name)
                ids.setdefault(digest, image_id)
    prints = _fingerprints(ids, images, store, progress)
    digests = list(prints)
    count = progress and partial(progress, "comparing images")
    pairs = [
        NearDuplicate(
            first=ids[digests[pair.first]],
            second=ids[digests[pair.second]],
            first_parts=sorted(used_in[digests[pair.first]]),
            second_parts=sorted(used_in[digests[pair.second]]),
            similarity=round(pair.similarity, 4),
            box=pair.box,
            change=pair.change,
        )
        for pair in near_duplicates(list(prints.values()), progress=count)
    ]
    return pairs, len(ids) - len(prints)


def _fingerprints(
    ids: Mapping[str, str], images: ImageSource, store: FingerprintStore, progress: StageCallback | None
) -> dict[str, Fingerprint]:
    """Digest -> fingerprint of the images that can be decoded, in order, by all cores, a few images in memory at once.

    They are stored on the way, so that after an interruption only the rest is decoded.
    """

    def one(image_id: str) -> Fingerprint | None:
        try:
            return fingerprint(images.load(image_id))
        except ImageError:
            return None

    known = store.read()
    rest = [digest for digest in ids if digest not in known]
    new: dict[str, Fingerprint] = {}
    for number, (digest, result) in enumerate(zip(rest, in_threads(one, map(ids.__getitem__, rest)), strict=True), 1):
        if result is not None:
            new[digest] = result
        if len(new) >= _STORED_TOGETHER:
            store.add(new)
            known |= new
            new = {}
        if progress is not None:
            progress("reading images", len(ids) - len(rest) + number, len(ids))
    known |= new
    return {digest: known[digest] for digest in ids if digest in known}


def _leak(part: DatasetPart, training: Sequence[DatasetPart], pairs: Sequence[NearDuplicate]) -> Leak:
    trained = {digest for other in training for digest in other.images}
    names = {other.name for other in training}
    similar = {pair.second for pair in pairs if names & set(pair.first_parts)}
    similar |= {pair.first for pair in pairs if names & set(pair.second_parts)}
    # An image may have several ids, and a pair names one of them: compare contents.
    pictures = (
        (i, d) for row, own in zip(part.rows, part.digests, strict=True) for i, d in zip(row.images, own, strict=True)
    )
    near = {digest for image_id, digest in pictures if image_id in similar} - trained
    groups = {row.group for other in training for row in other.rows}
    exact = [row.id for row, own in zip(part.rows, part.digests, strict=True) if not trained.isdisjoint(own)]
    near_rows = [
        row.id
        for row, own in zip(part.rows, part.digests, strict=True)
        if trained.isdisjoint(own) and not near.isdisjoint(own)
    ]
    leaking = {*exact, *near_rows}
    return Leak(
        part=part.name,
        exact=exact,
        near=near_rows,
        same_group=tuple(row.id for row in part.rows if row.group in groups and row.id not in leaking),
    )
