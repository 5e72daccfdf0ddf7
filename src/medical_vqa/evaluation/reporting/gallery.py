"""Which answers a report shows with their pictures, and the small pictures themselves."""

from __future__ import annotations

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from medical_vqa.data.formats.base import ImageSource
from medical_vqa.errors import DataError
from medical_vqa.evaluation.answers import Answered

WRONG, RIGHT = 60, 30
THUMBNAIL = 224  # pixels, the longer side
_QUALITY = 80
Key = tuple[float, str]


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture, embedded once however many questions show it."""

    key: str
    """Its element id in the page: ``p3``."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    uri: str
    """The JPEG as a data URI."""


def choose(answered: Sequence[Answered], *, wrong: int = WRONG, right: int = RIGHT) -> list[Answered]:
    """Errors, the surest first, then right answers in an order that depends on their id alone.

    Both are spread over images: a second question of an image comes only after one of every other image.
    """
    errors = _spread((a for a in answered if not a.right), _surest_first)[:wrong]
    hits = _spread((a for a in answered if a.right), _by_chance)[:right]
    return sorted(errors, key=_surest_first) + hits


def thumbnails(shown: Iterable[Answered], images: ImageSource) -> dict[str, Thumbnail]:
    """Image id -> thumbnail; an image that cannot be read has none."""
    return pictures((answer.example.image_id for answer in shown), images)


def pictures(image_ids: Iterable[str], images: ImageSource) -> dict[str, Thumbnail]:
    """Image id -> thumbnail, each once; an image that cannot be read has none."""
    made: dict[str, Thumbnail] = {}
    for image_id in dict.fromkeys(image_ids):
        try:
            picture = images.load(image_id)
        except DataError:
            continue
        made[image_id] = _thumbnail(f"p{len(made)}", picture)
    return made


def _spread(answered: Iterable[Answered], key: Callable[[Answered], Key]) -> list[Answered]:
    seen: Counter[str] = Counter()
    turns: list[tuple[int, Key, Answered]] = []
    for answer in sorted(answered, key=key):
        turns.append((seen[answer.example.image_id], key(answer), answer))
        seen[answer.example.image_id] += 1
    return [answer for *_, answer in sorted(turns, key=lambda turn: turn[:2])]


def _surest_first(answer: Answered) -> Key:
    return 1.0 if answer.confidence is None else -answer.confidence, answer.example.id


def _by_chance(answer: Answered) -> Key:
    return 0.0, hashlib.sha256(answer.example.id.encode()).hexdigest()


def _thumbnail(key: str, picture: Image.Image) -> Thumbnail:
    small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=_QUALITY, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
    return Thumbnail(key, small.width, small.height, uri)
