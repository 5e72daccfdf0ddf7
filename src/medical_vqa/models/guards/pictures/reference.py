"""What a bundle keeps of its training rows for the guards: pictures to compare with, and what questions are about.

``guards.npz`` holds the features of all training pictures and a few of the pictures themselves for every image type;
``guards.json`` holds the names: modalities, question types, findings. Both are made by `medical-vqa calibrate`.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medical_vqa.errors import BundleError
from medical_vqa.models.guards.pictures.picture import ReferenceFeatures
from medical_vqa.models.questions.bank import FORM_WORDS
from medical_vqa.models.questions.disease_knowledge import disease_question
from medical_vqa.models.questions.findings import concerns_finding
from medical_vqa.models.questions.presence import presence_wording
from medical_vqa.text import squad_normalize

ARRAYS_FILE, NAMES_FILE = "guards.npz", "guards.json"
PICTURES_PER_TYPE = 6
"""Reference pictures of each image type; a type with fewer training pictures has none."""
FINDING_TYPES = frozenset(("abnormality", "abn", "pres"))
"""Question types, lower case, that ask whether something is abnormal: SLAKE's and VQA-RAD's names."""
KNOWLEDGE_TYPES = frozenset(("kg",))
"""Question types that ask for general knowledge, and not about the image."""
_NEAREST_QUESTION = 0.6
"""Fraction of common words from which a question is of the type of a training question."""

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class ReferenceSet:
    """Training pictures and questions that a new picture and question are compared with."""

    features: ReferenceFeatures | None
    """Features of the training pictures; None for a family that makes none."""
    point_types: NDArray[np.int16]
    """(N,) index into `image_types` of each training picture in `features`."""
    image_types: tuple[str, ...]
    """Names of image types: ``X-Ray, Lung``."""
    pictures: Mapping[str, tuple[Picture, ...]]
    """Image type -> prepared reference pictures (height, width, channels)."""
    modalities: tuple[str, ...]
    """Modalities of the training pictures, as their rows call them."""
    question_types: Mapping[str, str]
    """Training question, normalized -> its type: ``Abnormality``, ``Organ`` ..."""
    findings: tuple[str, ...]
    """Names of findings that training rows or masks name, lower case."""

    def image_type(self, feature: NDArray[np.float32], modality: str = "") -> str:
        """The type of most of the nearest training pictures; empty where pictures have no features.

        Args:
            feature: Features of the picture (D,).
            modality: Modality of the picture, whose training pictures alone count; empty, or one that no training
                picture has: all of them count.
        """
        if self.features is None:
            return ""
        same = [modality_of(name).lower() == modality.lower() for name in self.image_types]
        among = np.array(same)[self.point_types] if any(same) else np.ones(len(self.point_types), bool)
        nearest = self.features.nearest(feature[None], among)[0]
        votes = self.point_types[nearest[among[nearest]]]  # a modality may have fewer pictures than are asked for
        return self.image_types[int(np.bincount(votes).argmax())]

    def question_type(self, question: str) -> str:
        """The type of the training question with the most words in common, one of them a word of content.

        Empty where none has enough of them.
        """
        question_type: str = self._type_of(squad_normalize(question))
        return question_type

    def finding(self, question: str) -> str:
        """The finding that a question names, the longest name first; empty for none."""
        padded = f" {squad_normalize(question)} "
        return next((name for name in self._longest_first if f" {name} " in padded or f" {name}s " in padded), "")

    def asks_for_finding(self, question: str) -> bool:
        """Whether a question asks if something is abnormal, or for a finding, in whatever words."""
        if presence_wording(question) is not None:
            return False
        if concerns_finding(question) or self.question_type(question).lower() in FINDING_TYPES:
            return True
        return bool(self.finding(question))

    def depends_on_finding(self, question: str) -> bool:
        """Whether an answer turns on a finding: it is asked for, or the treatment or cause of what is shown."""
        return self.asks_for_finding(question) or disease_question(question) is not None

    def finding_type(self, question: str) -> str:
        """The type of a question that depends on a finding: its own, or else that of such questions."""
        question_type = self.question_type(question)
        if question_type.lower() in FINDING_TYPES or not self.depends_on_finding(question):
            return question_type
        types = Counter(name for name in self.question_types.values() if name.lower() in FINDING_TYPES)
        return types.most_common(1)[0][0] if types else question_type

    @cached_property
    def _longest_first(self) -> Sequence[str]:
        return sorted(self.findings, key=lambda name: (-len(name), name))

    @cached_property
    def _typed_questions(self) -> Sequence[tuple[frozenset[str], str]]:
        """Words and type of each training question."""
        return [(frozenset(question.split()), name) for question, name in self.question_types.items()]

    @cached_property
    def _places_of_word(self) -> Mapping[str, Sequence[int]]:
        """Word of content -> places of the training questions that contain it."""
        places: dict[str, list[int]] = {}
        for place, (words, _) in enumerate(self._typed_questions):
            for word in _content_words(words):
                places.setdefault(word, []).append(place)
        return places

    @cached_property
    def _type_of(self) -> Any:
        return lru_cache(maxsize=1 << 10)(self._uncached_type_of)

    def _uncached_type_of(self, normalized: str) -> str:
        if (known := self.question_types.get(normalized)) is not None:
            return known
        words = frozenset(normalized.split())
        best, most = "", 0.0
        for place in sorted({place for word in _content_words(words) for place in self._places_of_word.get(word, ())}):
            others, question_type = self._typed_questions[place]
            common = len(words & others) / len(words | others)
            if common > most:
                best, most = question_type, common
        return best if most >= _NEAREST_QUESTION else ""

    def save(self, folder: Path) -> None:
        """Write ``guards.npz`` and ``guards.json`` into an existing folder."""
        arrays: dict[str, NDArray[np.generic]] = {"point_types": self.point_types}
        if self.features is not None:
            arrays |= self.features.arrays()
        for number, image_type in enumerate(self.image_types):
            for place, picture in enumerate(self.pictures.get(image_type, ())):
                arrays[f"picture.{number}.{place}"] = np.frombuffer(_jpeg(picture), np.uint8)
        np.savez_compressed(folder / ARRAYS_FILE, allow_pickle=False, **arrays)
        names = {
            "image_types": list(self.image_types),
            "modalities": list(self.modalities),
            "question_types": dict(self.question_types),
            "findings": list(self.findings),
        }
        text = json.dumps(names, ensure_ascii=False, separators=(",", ":"))
        (folder / NAMES_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read what `save` wrote; None for a bundle without it. Raises `BundleError` when a file is damaged."""
        if not (folder / NAMES_FILE).is_file():
            return None
        try:
            names = json.loads((folder / NAMES_FILE).read_text(encoding="utf-8"))
            with np.load(io.BytesIO((folder / ARRAYS_FILE).read_bytes()), allow_pickle=False) as arrays:
                pictures: dict[str, list[Picture]] = {}
                for key in (key for key in arrays.files if key.startswith("picture.")):
                    image_type = names["image_types"][int(key.split(".")[1])]
                    pictures.setdefault(image_type, []).append(_pixels(arrays[key].tobytes()))
                return cls(
                    features=ReferenceFeatures.from_arrays(arrays) if "points" in arrays.files else None,
                    point_types=arrays["point_types"],
                    image_types=tuple(names["image_types"]),
                    pictures={name: tuple(images) for name, images in pictures.items()},
                    modalities=tuple(names["modalities"]),
                    question_types=dict(names["question_types"]),
                    findings=tuple(names["findings"]),
                )
        except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise BundleError(
                f"the reference set of {folder} is damaged ({error}); copy the bundle again, or calibrate it"
            ) from error


def _content_words(words: frozenset[str]) -> frozenset[str]:
    """The words that say what a question is about, or all of them where none does."""
    return words - FORM_WORDS or words


def modality_of(image_type: str) -> str:
    """The modality of an image type: ``X-Ray, Lung`` -> ``X-Ray``."""
    return image_type.partition(", ")[0]


def reference_pictures(pictures: Sequence[Picture], seed: int = 0) -> tuple[Picture, ...]:
    """The reference pictures of one image type, drawn at random; none where the type has too few pictures."""
    if len(pictures) < PICTURES_PER_TYPE:
        return ()
    numbers = np.random.default_rng(seed).choice(len(pictures), PICTURES_PER_TYPE, replace=False)
    return tuple(pictures[number] for number in sorted(numbers))


def _jpeg(picture: Picture) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(file, "JPEG", quality=92)
    return file.getvalue()


def _pixels(data: bytes) -> Picture:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
