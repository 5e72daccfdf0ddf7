"""Which answers a report shows with their images, and the thumbnails themselves."""

from __future__ import annotations

import base64
import hashlib
import heapq
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from medical_vqa.data.cache.pictures import ImageSource
from medical_vqa.errors import DataError
from medical_vqa.evaluation.statistics.correctness import JudgedAnswer

MAX_WRONG, MAX_RIGHT = 60, 30
THUMBNAIL_SIDE = 224  # pixels, the longer side
_JPEG_QUALITY = 80
SortKey = tuple[float, str]


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small image, embedded once however many questions show it."""

    key: str
    """Element id in the page: ``p3``."""
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    uri: str
    """The JPEG as a data URI."""


def select_answers(
    answers: Sequence[JudgedAnswer], *, max_wrong: int = MAX_WRONG, max_right: int = MAX_RIGHT
) -> list[JudgedAnswer]:
    """Wrong answers, the most confident first, then right answers in an order that depends on their id alone.

    Both are spread over images: a second question of an image comes only after one of every other image.

    Args:
        answers: Judged answers.
        max_wrong: The largest number of wrong answers.
        max_right: The largest number of right answers.
    """
    wrong = _spread_over_images((answer for answer in answers if not answer.correct), _by_confidence, max_wrong)
    right = _spread_over_images(
        (answer for answer in answers if answer.correct),
        lambda answer: (0.0, hashlib.sha256(answer.example.id.encode()).hexdigest()),
        max_right,
    )
    return sorted(wrong, key=_by_confidence) + right


def thumbnails(image_ids: Iterable[str], images: ImageSource) -> dict[str, Thumbnail]:
    """Image id -> thumbnail, each once; an image that cannot be read has none."""
    readable: dict[str, Thumbnail] = {}
    for image_id in dict.fromkeys(image_ids):
        try:
            image = images.load(image_id)
        except DataError:
            continue
        readable[image_id] = _thumbnail(f"p{len(readable)}", image)
    return readable


def _spread_over_images(
    answers: Iterable[JudgedAnswer], key: Callable[[JudgedAnswer], SortKey], number: int
) -> list[JudgedAnswer]:
    """The first answers in the order of their key, of each image one before any has a second one."""
    earlier: Counter[str] = Counter()
    ranked: list[tuple[int, SortKey, JudgedAnswer]] = []
    for sort_key, answer in sorted(((key(answer), answer) for answer in answers), key=lambda entry: entry[0]):
        ranked.append((earlier[answer.example.image_id], sort_key, answer))
        earlier[answer.example.image_id] += 1
    return [answer for *_, answer in heapq.nsmallest(number, ranked, key=lambda entry: entry[:2])]


def _by_confidence(answer: JudgedAnswer) -> SortKey:
    return 1.0 if answer.confidence is None else -answer.confidence, answer.example.id


def _thumbnail(key: str, image: Image.Image) -> Thumbnail:
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()
    return Thumbnail(key, small.width, small.height, uri)
