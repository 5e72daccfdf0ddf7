"""Checking a dataset and writing it in one layout for every later stage, the same for all formats.

A prepared folder holds::

    manifest.json        counts, hashes, license; written last, so that an interrupted preparation is recognized
    train.jsonl          one `Example` per line, a file per split
    images/ab/ab12….jpg  the published bytes under their SHA-256; identical images share one file
    regions.npz          regions in the images, where the source has masks or boxes
    LICENSE.txt          license and citation
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from medical_vqa.data.cache.regions import REGIONS_NAME, write_regions
from medical_vqa.data.formats.rows import require_unique
from medical_vqa.data.imaging.raster import image_size, open_image
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
from medical_vqa.runtime.threads import in_threads
from medical_vqa.schema.records import SPLITS, Example, Split, write_jsonl

if TYPE_CHECKING:
    from medical_vqa.data.formats.base import DatasetCard, Published, VqaDataset

_MAX_LISTED = 100  # images that cannot be read, in one message


@dataclass(frozen=True, slots=True)
class _Preparation:
    """The input of one call of `prepare`."""

    name: str
    card: DatasetCard
    published: Published
    folder: Path
    partial: bool
    skip_unreadable: bool
    progress: StageCallback


def prepare(
    dataset: VqaDataset,
    source: Path,
    root: Path,
    *,
    partial: bool = False,
    skip_unreadable: bool = False,
    name: str | None = None,
    progress: StageCallback | None = None,
) -> Manifest:
    """Check a published dataset and write it under ``root / name``.

    Called again with an unchanged source it verifies the existing files and rewrites nothing (the last stage reported
    is then ``already prepared``); after an interruption it resumes.

    Args:
        dataset: Reader of the published format.
        source: Folder of the published files.
        root: Folder of prepared datasets.
        partial: Prepare although rows, images or files of the official dataset are missing. Every row still needs its
            image: a wrong image folder must not silently make a dataset smaller.
        skip_unreadable: Leave out the rows whose image cannot be read; the manifest has their number.
        name: Name to prepare it under; by default that of the dataset.
        progress: Called with the stage and the number of its items that are done.

    Returns:
        The manifest of the prepared dataset.

    Raises:
        IncompleteError: Part of the official dataset is missing and `partial` is false.
        DataError: A row or an image is not as expected, or the disk is full.
    """
    if source.is_file():
        raise DataError(
            f"{source}: is a file, expected the folder of {dataset.card.name}; name the folder that holds it and its "
            f"images, {source.parent}"
        )
    if not source.is_dir():
        raise DataError(f"{source}: expected the folder of {dataset.card.name}, but it is not there; check --source")
    name = name or dataset.card.name
    published = dataset.read(source)
    _check_rows(published)
    _check_complete(dataset.card, published, source, partial)
    report = progress or (lambda *_: None)
    task = _Preparation(name, dataset.card, published, root / name, partial, skip_unreadable, report)
    digests, unreadable = _hash_images(task)
    if unreadable:
        published = _without_unreadable(task, unreadable)
        task = replace(task, published=published)
    source_digest = _source_digest(published, digests)
    already = _already_prepared(task, source_digest)
    if already is None or not (task.folder / REGIONS_NAME).is_file():
        _store_regions(task, digests)
    return already or _write(task, digests, source_digest)


# --- checks -----------------------------------------------------------------------------------------------------------


def _check_rows(published: Published) -> None:
    places: dict[str, str] = {}
    for split, rows in _ordered(published).items():
        for number, example in enumerate(rows, 1):
            place = f"{split} row {number}"
            require_unique(places, example.id, place, "id")
            _require_text(example, place)
            for image_id in example.images:
                if image_id not in published.image_names:
                    raise DataError(f"{place}: image {image_id!r} is unknown; name an image of the dataset")
    if not places:
        raise DataError("the dataset has no rows; use a source with at least one question")


def _require_text(example: Example, place: str) -> None:
    """Raise `DataError` for half of a character (a surrogate alone), which JSON can state and no file can hold."""
    try:
        json.dumps(example.to_json(), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise DataError(
            f"{place}: holds {half}, which is half of a character; correct it, or take the row out"
        ) from error


def _ordered(published: Published) -> dict[Split, Sequence[Example]]:
    """The rows by split, in the usual order of splits."""
    return {split: published.examples[split] for split in SPLITS if split in published.examples}


def _check_complete(card: DatasetCard, published: Published, source: Path, partial: bool) -> None:
    missing = _missing_parts(card, published)
    if missing and not partial:
        raise IncompleteError(
            f"{source} holds only part of {card.title}: {'; '.join(missing)}; "
            f"get the rest from {card.homepage} or prepare it without them with --partial"
        )
    for split, rows in published.examples.items():
        if card.rows and len(rows) > card.rows.get(split, 0):
            raise DataError(
                f"{source}: {split} has {len(rows):,} rows, more than the {card.rows.get(split, 0):,} published; "
                f"get the published files, or prepare your own with the folder format"
            )


def _missing_parts(card: DatasetCard, published: Published) -> list[str]:
    """Short phrases on the parts of the official dataset that the source lacks."""
    missing = [f"{phrase} is missing" for phrase in published.missing]
    for split, official in card.rows.items():
        rows = len(published.examples.get(split, ()))
        if split in published.examples and rows < official:
            missing.append(f"{split} has {rows:,} of {official:,} rows")
        elif split not in published.examples and not published.missing:
            missing.append(f"{split} is missing")
    images = len(published.image_names)
    if card.images is not None and images < card.images:
        missing.append(f"{card.images - images:,} of {card.images:,} images are missing")
    return missing


# --- digests ----------------------------------------------------------------------------------------------------------


def _hash_images(task: _Preparation) -> tuple[dict[str, str], dict[str, str]]:
    """Image id -> SHA-256 of its bytes, and image id -> why it cannot be read, for those that cannot."""

    def check(image_id: str) -> str | ImageError:
        name = names[image_id]
        try:
            data = task.published.read_image(image_id)
            digest = sha256(data)
            copied = task.folder / _image_file(digest, name, data)
            if not copied.is_file():  # else it was decoded before
                open_image(data, name)
        except ImageError as error:
            return error
        return digest

    names = task.published.image_names
    digests: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    for done, (image_id, result) in enumerate(zip(names, in_threads(check, names), strict=True), 1):
        if isinstance(result, ImageError):
            unreadable[image_id] = str(result)
        else:
            digests[image_id] = result
        task.progress("check images", done, len(names))
    return digests, unreadable


def _without_unreadable(task: _Preparation, unreadable: Mapping[str, str]) -> Published:
    """The dataset without the rows whose image cannot be read; raises `ImageError` that lists them all."""
    published = task.published
    skipped = [
        row for rows in _ordered(published).values() for row in rows if not unreadable.keys().isdisjoint(row.images)
    ]
    first = {image_id: row.id for row in reversed(skipped) for image_id in row.images}
    if not task.skip_unreadable:
        listed = [f"{first.get(image_id, image_id)} needs an image that cannot be read: {reason}"
                  for image_id, reason in unreadable.items()]  # fmt: skip
        if len(listed) == 1:
            raise ImageError(listed[0])
        if len(listed) > _MAX_LISTED:
            listed = [*listed[:_MAX_LISTED], f"and {len(listed) - _MAX_LISTED:,} more"]
        lines = "\n  ".join(listed)
        raise ImageError(
            f"{len(unreadable):,} images cannot be read; get them again, or leave their {len(skipped):,} rows out with "
            f"--skip-unreadable:\n  {lines}"
        )
    examples = {
        split: [row for row in rows if unreadable.keys().isdisjoint(row.images)]
        for split, rows in published.examples.items()
    }
    if not any(examples.values()):
        raise ImageError(f"none of the {len(unreadable):,} images can be read; check --source")
    note = (
        f"images that cannot be read: {len(unreadable):,}, left out with {len(skipped):,} rows: "
        f"{', '.join(row.id for row in skipped)}"
    )
    return replace(
        published,
        examples={split: rows for split, rows in examples.items() if rows},
        image_names={key: name for key, name in published.image_names.items() if key not in unreadable},
        notes=(*published.notes, note),
    )


def _source_digest(published: Published, digests: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for split, rows in _ordered(published).items():
        digest.update(f"{split}\n".encode())
        for example in rows:
            digest.update(json.dumps(example.to_json(), sort_keys=True).encode() + b"\n")
    digest.update(json.dumps(digests, sort_keys=True).encode())
    return digest.hexdigest()


def _already_prepared(task: _Preparation, source_digest: str) -> Manifest | None:
    """The manifest of an earlier preparation of the same source and options whose files are undamaged."""
    if not (task.folder / MANIFEST_NAME).is_file():
        return None
    with contextlib.suppress(DataError):  # damaged or of another format: prepared again
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


# --- writing ----------------------------------------------------------------------------------------------------------


def _store_regions(task: _Preparation, digests: Mapping[str, str]) -> None:
    """Store the regions that the source has; rows and images are complete without them."""
    if task.published.read_regions is None:
        return
    regions = {}
    for done, (image_id, digest) in enumerate(digests.items(), 1):
        regions[digest] = task.published.read_regions(image_id)
        task.progress("read regions", done, len(digests))
    write_regions(task.folder, regions)


def _write(task: _Preparation, digests: Mapping[str, str], source_digest: str) -> Manifest:
    # Without its manifest the folder counts as unprepared until everything below is written.
    (task.folder / MANIFEST_NAME).unlink(missing_ok=True)
    images = {}
    stored = in_threads(lambda item: _store_image(task, *item), digests.items())
    for done, (image_id, file) in enumerate(zip(digests, stored, strict=True), 1):
        images[image_id] = file
        task.progress("copy images", done, len(digests))
    splits = {}
    for split, rows in _ordered(task.published).items():
        path = task.folder / f"{split}.jsonl"
        with describe_disk_errors(task.folder, sum(len(row.question) + 400 * (1 + len(row.turns)) for row in rows)):
            write_jsonl(path, rows)
        splits[split] = SplitFile(file=path.name, rows=len(rows), sha256=sha256_file(path))
    for split in set(SPLITS) - set(splits):
        (task.folder / f"{split}.jsonl").unlink(missing_ok=True)
    card = task.card
    license_text = f"{card.title}\n{card.homepage}\nLicense: {card.license}\nCite: {card.citation}\n"
    atomic_write(task.folder / "LICENSE.txt", license_text)
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
        missing=tuple(_missing_parts(card, task.published)),
        notes=tuple(note.encode("utf-8", "replace").decode() for note in task.published.notes),
        source_digest=source_digest,
    )
    write_manifest(task.folder, manifest)
    return manifest


def _store_image(task: _Preparation, image_id: str, digest: str) -> ImageFile:
    name = task.published.image_names[image_id]
    data = task.published.read_image(image_id)
    if sha256(data) != digest:
        raise DataError(f"{name}: changed during preparation; leave the source unchanged and run it again")
    file = _image_file(digest, name, data)
    target = task.folder / file
    width, height = image_size(data, name)  # it was decoded before
    if not (target.is_file() and target.stat().st_size == len(data) and sha256_file(target) == digest):
        atomic_write(target, data)
    return ImageFile(file=file, sha256=digest, width=width, height=height, bytes=len(data))


def _image_file(digest: str, name: str, data: bytes) -> str:
    """Path of an image in the prepared folder; a picture that was converted to PNG is named so."""
    suffix = ".png" if data.startswith(b"\x89PNG") else PurePosixPath(name).suffix.lower()
    return f"images/{digest[:2]}/{digest}{suffix}"
