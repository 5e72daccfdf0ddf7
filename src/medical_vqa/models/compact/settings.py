"""What a compact model consists of in addition to its weights: ``compact.json``, read and written without torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.errors import BundleError
from medical_vqa.models.compact.question_understanding import ImageTypes
from medical_vqa.models.questions.bank import QuestionBank
from medical_vqa.models.vocabulary import AnswerVocabulary, WordVocabulary

SETTINGS_FILE = "compact.json"
WEIGHTS_FILE = "weights.safetensors"
_NO_IMAGE_TYPES = ImageTypes()


def damaged_bundle(bundle: Path, error: Exception, made_by: str = "train") -> BundleError:
    """The error to raise where a file of a bundle cannot be read.

    Args:
        bundle: Its folder.
        error: What its reading raised.
        made_by: The command that makes such a bundle.
    """
    reason = " ".join(str(error).split())[:200]
    return BundleError(f"the bundle {bundle} is damaged ({reason}); {made_by} or copy it again")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the network's layers."""

    channels: tuple[int, ...]
    """Output channels of the stem and of each residual block."""
    width: int
    """Width of words and image tokens."""
    heads: int
    """Attention heads."""
    layers: int
    """Layers of attention."""
    dropout: float
    """Fraction of activations dropped in training."""
    question_words: int
    """Words of a question that are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactSettings:
    """Vocabularies, sizes and input of a compact model."""

    picture: PictureSpec
    """How pictures are prepared."""
    sizes: Sizes
    """Sizes of the layers."""
    words: WordVocabulary
    """Words of the training questions."""
    answers: AnswerVocabulary
    """Answers that the model chooses from."""
    regions: tuple[str, ...] = ()
    """Regions that it localizes, such as ``mask: Liver``."""
    local_contrast: bool = False
    """Whether it sees each pixel relative to its surroundings, in addition to the picture itself."""
    foreground: int | None = None
    """Side, in pixels, of the square around the foreground that it sees; None: the whole picture."""
    trunk: str | None = None
    """Pretrained trunk that replaces the residual blocks, such as ``efficientnet-lite0``."""
    region_stride: int = 8
    """Pixels per cell of the regions on a pretrained trunk, 8 or 16."""
    presence: bool = False
    """Whether it says of the whole picture which regions it shows, in addition to where they are."""
    image_types: ImageTypes = _NO_IMAGE_TYPES
    """Which entities the training rows mention in which type of image."""
    question_bank: QuestionBank | None = None
    """The training questions with their answers; None in a bundle that was written without them."""

    def to_json(self) -> dict[str, Any]:
        """The content of ``compact.json``."""
        return {
            "picture": self.picture.to_json(),
            "sizes": dataclasses.asdict(self.sizes),
            "words": list(self.words.known),
            "answers": list(self.answers.answers),
            "regions": list(self.regions),
            "local_contrast": self.local_contrast,
            "foreground": self.foreground,
            "trunk": self.trunk,
            "region_stride": self.region_stride,
            "presence": self.presence,
            "image_types": dataclasses.asdict(self.image_types),
            "questions": self.question_bank.to_json() if self.question_bank is not None else [],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned; raises `KeyError` or `TypeError` where it is incomplete."""
        sizes = content["sizes"]
        return cls(
            picture=PictureSpec.from_json(content["picture"]),
            sizes=Sizes(**{**sizes, "channels": tuple(sizes["channels"])}),
            words=WordVocabulary(tuple(content["words"])),
            answers=AnswerVocabulary(tuple(content["answers"])),
            regions=tuple(content.get("regions", ())),
            local_contrast=content.get("local_contrast", False),
            foreground=content.get("foreground"),
            trunk=content.get("trunk"),
            region_stride=content.get("region_stride", 16),
            presence=content.get("presence", False),
            image_types=ImageTypes(**content.get("image_types", {})),
            question_bank=QuestionBank.from_json(content["questions"]) if content.get("questions") else None,
        )

    def write(self, folder: Path) -> None:
        """Write ``compact.json``."""
        text = json.dumps(self.to_json(), ensure_ascii=False, separators=(",", ":"))
        (folder / SETTINGS_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read ``compact.json``; raises `OSError`, `ValueError`, `KeyError` or `TypeError` where it is damaged."""
        return cls.from_json(json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8")))
