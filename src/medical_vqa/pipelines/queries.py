"""The queries that a model receives for selected rows, with cached pictures or features."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from medical_vqa.errors import DataError
from medical_vqa.runtime import ProgressCallback
from medical_vqa.schema.records import Example

if TYPE_CHECKING:
    from medical_vqa.data.cache.features import FeatureStore
    from medical_vqa.data.cache.pictures import PictureCache
    from medical_vqa.data.cache.regions import RegionStore
    from medical_vqa.data.prepared.dataset import PreparedDataset
    from medical_vqa.data.prepared.selected import SelectedDataset
    from medical_vqa.models.base import Vision, VqaModel
    from medical_vqa.models.queries import PictureQueries


def learnable(rows: Sequence[Example]) -> list[Example]:
    """The rows that have an answer to learn; raises `DataError` when none has."""
    answered = [row for row in rows if row.answers]
    if not answered:
        raise DataError(f"none of the {len(rows)} training rows has an answer; choose another split or filter")
    return answered


def queries(
    data: SelectedDataset,
    rows: Sequence[Example],
    model: VqaModel,
    *,
    learn: bool = False,
    regions: RegionStore | None = None,
    progress: ProgressCallback | None = None,
    device: str | None = None,
) -> PictureQueries:
    """The queries of these rows: with prepared images, or with the features of a frozen vision encoder; both cached.

    Args:
        data: Dataset of the rows.
        rows: The rows.
        model: The model that the queries are for.
        learn: Whether queries carry the answer to learn.
        regions: Regions in the images to learn from.
        progress: Called with the number of images that were prepared or encoded.
        device: Device that encodes; None leaves the model where it is.
    """
    from medical_vqa.data.cache.pictures import PictureCache
    from medical_vqa.models.queries import PictureQueries

    prepared = data.dataset
    digest = prepared.images.digest
    digests = [digest(row.image_id) for row in rows]
    others = [tuple(map(digest, row.other_image_ids)) for row in rows] if model.reads_conversations else None
    if model.picture is None:
        return PictureQueries(rows, digests, None, learn=learn)
    cache = PictureCache(prepared.folder / "pictures", model.picture)
    image_ids = [i for row in rows for i in (row.images if model.reads_conversations else (row.image_id,))]
    if model.vision is not None and model.vision.frozen:
        store = feature_store(prepared, {digest(i): i for i in image_ids}, cache, model.vision, progress, device)
        return PictureQueries(rows, digests, store, learn=learn, other_digests=others)
    cache.ensure(prepared.images, image_ids, progress)
    return PictureQueries(rows, digests, cache, learn=learn, regions=regions, other_digests=others)


def feature_store(
    prepared: PreparedDataset,
    images: Mapping[str, str],
    cache: PictureCache,
    vision: Vision,
    progress: ProgressCallback | None,
    device: str | None,
) -> FeatureStore:
    """The cached features of images; those that are missing are encoded.

    Args:
        prepared: Dataset of the images.
        images: Digest -> id of each image.
        cache: Prepared images.
        vision: Encoder.
        progress: Called with the number of images that are encoded.
        device: Device that encodes; None leaves the encoder where it is.
    """
    import torch

    from medical_vqa.data.cache.features import FeatureStore

    with main_process_first():
        store = FeatureStore(prepared.folder / "features", vision.fingerprint)
        if missing := store.missing(list(images)):
            cache.ensure(prepared.images, [images[digest] for digest in missing])
            if device is not None:
                vision.to(torch.device(device))
            store.ensure(missing, cache.get, vision.encode, progress)
            if device is not None:
                vision.to(torch.device("cpu"))  # training needs the device's memory for the rest
    return store


def answer_coverage(model: Any, rows: Sequence[Example]) -> float | None:
    """Fraction of the answered rows whose answer is on a classifier's closed list; None for generative models."""
    if not model.has_closed_answers:
        return None
    return round(float(model.answers.coverage([row.answers[0] for row in rows if row.answers])), 4)


def main_process_first() -> AbstractContextManager[bool]:
    """Under `accelerate launch` the others wait for the main process; yields whether this is the main one."""
    from contextlib import contextmanager, nullcontext

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return nullcontext(True)
    import torch
    from accelerate import PartialState

    from medical_vqa.training.processes import TIMEOUT

    @contextmanager
    def in_turn() -> Any:
        # without `cpu` it counts one process where there is no GPU
        state = PartialState(cpu=not torch.cuda.is_available(), timeout=TIMEOUT)
        with state.main_process_first():
            yield state.is_main_process

    return in_turn()
