"""Checking a dataset and laying it out for every later stage: the same for all formats.

A prepared folder holds::

    manifest.json        counts, hashes, license; written last, so a half-prepared folder is never taken for a whole
    train.jsonl          one `Example` per line, a file per split
    images/ab/ab12….jpg  the published bytes under their SHA-256; identical pictures are kept once
    LICENSE.txt          license and citation
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from medical_vqa.data.cache.regions import FILE as REGIONS
from medical_vqa.data.cache.regions import write_regions
from medical_vqa.data.formats.rows import refuse_twice
from medical_vqa.data.imaging.pictures import image_size, open_image
from medical_vqa.data.prepared.manifest import (
    MANIFEST_NAME,
    ImageFile,
    Manifest,
    SplitFile,
    read_manifest,
    write_manifest,
)
from medical_vqa.errors import DataError, ImageError, IncompleteError
from medical_vqa.io import atomic_write, describe_disk_errors, sha256, sha256_file
from medical_vqa.runtime import StageCallback
from medical_vqa.schema.records import SPLITS, Example, Split, write_jsonl

if TYPE_CHECKING:
    from medical_vqa.data.formats.base import DatasetCard, Published, VqaDataset


@dataclass(frozen=True, slots=True)
class _Task:
    """What one call of `prepare` works on."""

    name: str
    card: DatasetCard
    published: Published
    folder: Path
    partial: bool
    progress: StageCallback


def prepare(
    dataset: VqaDataset,
    source: Path,
    root: Path,
    *,
    partial: bool = False,
    name: str | None = None,
    progress: StageCallback | None = None,
) -> Manifest:
    """Check a published dataset and lay it out under ``root / name``.

    Called again with an unchanged source it verifies what is there and rewrites nothing (the last stage reported
    is then ``already prepared``); after an interruption it goes on where it was.

    Args:
        dataset: The published format.
        source: The folder it lies in.
        root: Where prepared datasets live.
        partial: Go on although rows, images or files of the whole dataset are missing. Every row that is there
            still needs its image: a wrong image folder must not shrink a dataset in silence.
        name: Name to prepare it under; the dataset's own by default.
        progress: Told how far it is.

    Raises:
        IncompleteError: Something of the official dataset is missing and `partial` is false.
        DataError: A row or an image is not what it should be, or the disk is full.
    """
    if not source.is_dir():
        raise DataError(f"{source}: expected the folder of {dataset.card.name}, but it is not there; check --source")
    name = name or dataset.card.name
    published = dataset.read(source)
    _check_rows(published)
    _check_complete(dataset.card, published, source, partial)
    task = _Task(name, dataset.card, published, root / name, partial, progress or _silent)
    digests = _hash_images(task)
    digest = _source_digest(published, digests)
    _store_regions(task, digests)
    if (done := _already_prepared(task, digest)) is not None:
        return done
    return _write(task, digests, digest)


def _store_regions(task: _Task, digests: Mapping[str, str]) -> None:
    """Keep what the source knows of where things lie, beside the manifest: rows and images are whole without it."""
    if task.published.read_regions is None or (task.folder / REGIONS).is_file():
        return
    found = {}
    for done, (image_id, digest) in enumerate(digests.items(), 1):
        found[digest] = task.published.read_regions(image_id)
        task.progress("read regions", done, len(digests))
    write_regions(task.folder, found)


def _silent(stage: str, done: int, total: int) -> None:
    pass


def _check_rows(published: Published) -> None:
    seen: dict[str, str] = {}
    total = 0
    for split in _ordered(published.examples):
        for number, example in enumerate(published.examples[split], 1):
            refuse_twice(seen, example.id, f"{split} row {number}", "id")
            if example.image_id not in published.image_names:
                raise DataError(f"{split} row {number}: image {example.image_id!r} is unknown; name one that is there")
        total += len(published.examples[split])
    if not total:
        raise DataError("the dataset has no rows; give a source with at least one question")


def _ordered(examples: Mapping[Split, Sequence[Example]]) -> list[Split]:
    return [split for split in SPLITS if split in examples]


def _check_complete(card: DatasetCard, published: Published, source: Path, partial: bool) -> None:
    lacking = _lacking(card, published)
    if lacking and not partial:
        raise IncompleteError(
            f"{source} holds only part of {card.title}: {'; '.join(lacking)}; "
            f"get the rest from {card.homepage} or go on without it with --partial"
        )
    for split, rows in published.examples.items():
        if card.rows and len(rows) > card.rows.get(split, 0):
            raise DataError(
                f"{source}: {split} has {len(rows):,} rows, more than the {card.rows.get(split, 0):,} published; "
                f"get the published files, or prepare your own with the folder format"
            )


def _lacking(card: DatasetCard, published: Published) -> list[str]:
    lacking = [f"{phrase} is missing" for phrase in published.missing]
    for split, official in card.rows.items():
        if split in published.examples and (found := len(published.examples[split])) < official:
            lacking.append(f"{split} has {found:,} of {official:,} rows")
        elif split not in published.examples and not published.missing:
            lacking.append(f"{split} is missing")
    images = len(published.image_names)
    if card.images is not None and images < card.images:
        lacking.append(f"{card.images - images:,} of {card.images:,} images are missing")
    return lacking


def _hash_images(task: _Task) -> dict[str, str]:
    """Image id -> SHA-256 of the published bytes; raises `DataError` for rows whose image is missing."""
    digests: dict[str, str] = {}
    for done, image_id in enumerate(task.published.image_names, 1):
        try:
            digests[image_id] = sha256(task.published.read_image(image_id))
        except ImageError as error:
            raise DataError(
                f"{_first_row(task.published, image_id)} needs an image that cannot be had: {error}"
            ) from error
        task.progress("hash images", done, len(task.published.image_names))
    return digests


def _first_row(published: Published, image_id: str) -> str:
    ids = (e.id for split in _ordered(published.examples) for e in published.examples[split] if e.image_id == image_id)
    return next(ids, image_id)


def _source_digest(published: Published, digests: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for split in _ordered(published.examples):
        digest.update(f"{split}\n".encode())
        for example in published.examples[split]:
            digest.update(json.dumps(example.to_json(), sort_keys=True).encode() + b"\n")
    digest.update(json.dumps(digests, sort_keys=True).encode())
    return digest.hexdigest()


def _already_prepared(task: _Task, source_digest: str) -> Manifest | None:
    """The manifest of an earlier run, where source and options are the same and its files are undamaged."""
    if not (task.folder / MANIFEST_NAME).is_file():
        return None
    with contextlib.suppress(DataError):  # another version or damaged: prepared anew
        manifest = read_manifest(task.folder)
        same = (manifest.source_digest, manifest.partial) == (source_digest, task.partial)
        if same and manifest.dataset == task.card.name and _undamaged(task.folder, manifest):
            task.progress("already prepared", 1, 1)
            return manifest
    return None


def _undamaged(folder: Path, manifest: Manifest) -> bool:
    files = [(folder / split.file, split.sha256) for split in manifest.splits.values()]
    files += {(folder / image.file, image.sha256) for image in manifest.images.values()}
    return all(path.is_file() and sha256_file(path) == digest for path, digest in files)


def _write(task: _Task, digests: Mapping[str, str], source_digest: str) -> Manifest:
    # Without its manifest the folder counts as unprepared until everything below is written.
    (task.folder / MANIFEST_NAME).unlink(missing_ok=True)
    images = _store_images(task, digests)
    splits = {split: _store_split(task, split) for split in _ordered(task.published.examples)}
    for split in set(SPLITS) - set(splits):
        (task.folder / f"{split}.jsonl").unlink(missing_ok=True)
    card = task.card
    license = f"{card.title}\n{card.homepage}\nLicense: {card.license}\nCite: {card.citation}\n"
    atomic_write(task.folder / "LICENSE.txt", license)
    manifest = Manifest(
        name=task.name,
        dataset=card.name,
        title=card.title,
        license=card.license,
        citation=card.citation,
        homepage=card.homepage,
        partial=task.partial,
        official_rows=dict(card.rows),
        official_images=card.images,
        default_where=dict(card.default_where),
        splits=splits,
        images=images,
        missing=tuple(_lacking(card, task.published)),
        notes=tuple(task.published.notes),
        source_digest=source_digest,
    )
    write_manifest(task.folder, manifest)
    return manifest


def _store_images(task: _Task, digests: Mapping[str, str]) -> dict[str, ImageFile]:
    images = {}
    for done, (image_id, digest) in enumerate(digests.items(), 1):
        images[image_id] = _store_image(task, image_id, digest)
        task.progress("check and copy images", done, len(digests))
    return images


def _store_image(task: _Task, image_id: str, digest: str) -> ImageFile:
    name = task.published.image_names[image_id]
    data = task.published.read_image(image_id)
    if sha256(data) != digest:
        raise DataError(f"{name}: changed while it was being prepared; leave the source alone and run it again")
    file = f"images/{digest[:2]}/{digest}{PurePosixPath(name).suffix.lower()}"
    target = task.folder / file
    if target.is_file() and target.stat().st_size == len(data) and sha256_file(target) == digest:
        width, height = image_size(data, name)  # it was decoded before it was copied
    else:
        width, height = open_image(data, name).size
        atomic_write(target, data)
    return ImageFile(file=file, sha256=digest, width=width, height=height, bytes=len(data))


def _store_split(task: _Task, split: Split) -> SplitFile:
    rows: Iterable[Example] = task.published.examples[split]
    path = task.folder / f"{split}.jsonl"
    with describe_disk_errors(task.folder, sum(len(row.question) + 400 for row in rows)):
        write_jsonl(path, rows)
    return SplitFile(file=path.name, rows=len(task.published.examples[split]), sha256=sha256_file(path))
