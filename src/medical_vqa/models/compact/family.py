"""The compact family as recipes and bundles know it: options and capabilities, without torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from medical_vqa.config.recipe import Count, Fraction, ModelOptions
from medical_vqa.models.base import ModelFamily
from medical_vqa.models.compact.settings import CompactSettings, damaged_bundle
from medical_vqa.models.options import AugmentOptions, PictureOptions


class CompactOptions(ModelOptions):
    """The compact network: sizes and regularization."""

    picture: PictureOptions = PictureOptions()
    """Grayscale and square."""
    augment: AugmentOptions | None = AugmentOptions()
    """Random changes to training pictures; None leaves them as they are."""
    mirror: Fraction = 0.0
    """Fraction of training pictures that are mirrored, with left and right swapped in questions, answers and regions.
    """
    reword: Fraction = 0.0
    """Fraction of training questions that are reworded by rules."""
    region_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Weight of the loss on regions (``data.regions``), relative to that on answers."""
    presence_weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of a loss on which of the regions each picture shows; above 0, the network says so and looks at it."""
    foreground: Annotated[int, Field(ge=16, le=2048)] | None = None
    """Side, in pixels, of the square around the foreground that the network sees; None: the full picture."""
    initial: str | None = None
    """The bundle of a compact model to start from, or ``shipped`` for the one in the package. Its picture, foreground,
    local contrast, trunk and sizes are taken where the recipe says nothing of them."""
    local_contrast: bool = True
    """The network also sees each pixel relative to its surroundings: faint findings, at any exposure."""
    trunk: Literal["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"] | None = None
    """Network pretrained on ImageNet that replaces the residual blocks and is fine-tuned; None trains from scratch."""
    trunk_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.3
    """Learning rate of a pretrained trunk, relative to ``training.learning_rate``."""
    drop_connect: Fraction = 0.1
    """Fraction of the pictures for which the last block of a pretrained trunk is left out in training."""
    channels: Annotated[tuple[Count, ...], Field(min_length=2, max_length=6)] = (32, 64, 128, 192)
    """Output channels of the stem and each residual block; every one halves the picture's side."""
    width: Annotated[int, Field(ge=8, multiple_of=2)] = 192
    """Width D of words and image tokens."""
    heads: Count = 4
    """Attention heads; must divide `width`."""
    layers: Count = 2
    """Layers in which words attend to each other and to the image."""
    dropout: Fraction = 0.15
    """Dropout of words, attention, layers and head."""
    label_smoothing: Fraction = 0.1
    """Fraction of the target spread over all answers."""
    question_words: Count = 32
    """Longer questions are cut after this many words."""


class CompactFamily(ModelFamily):
    """The small network that is trained from scratch on a CPU: a classifier over the training answers."""

    family = "compact"
    implementation = "medical_vqa.models.compact.model:Compact"
    Options = CompactOptions
    trainable = True
    needs_torch = True
    learns_regions = True
    starts_from_bundle = True
    has_closed_answers = True
    has_attention_maps = True
    exported_family = "compact-onnx"
    exporter = "medical_vqa.models.compact.onnx_export:export"
    extras = ("train",)

    @classmethod
    def options_of(cls, bundle: Path) -> dict[str, Any]:
        """Picture, foreground, local contrast, trunk and sizes of the bundle's network.

        Raises `BundleError` when ``compact.json`` is damaged.
        """
        try:
            settings = CompactSettings.read(bundle)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise damaged_bundle(bundle, error) from error
        return {
            "picture": settings.picture.to_json(),
            "foreground": settings.foreground,
            "local_contrast": settings.local_contrast,
            "trunk": settings.trunk,
            **dataclasses.asdict(settings.sizes),
        }
