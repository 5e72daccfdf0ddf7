"""The picture guard: whether a picture is one that a model can be asked about at all, decided before any answer.

Three checks, each with a reason code and arguments: nothing is visible (a constant picture), it is no radiology picture
(colors, a drawing or mask of few gray levels, or features far from those of every training picture), and its header
names a modality that the model was not trained on.

The distance is that of Mahalanobis to the nearest training pictures (Lee et al. 2018, arXiv:1807.03888, with neighbors
in place of class means), with the covariance shrunk toward the identity. The threshold comes from training pictures
that are held out: it is the largest distance of one to the others, by cross-validation, or where that is more, the
distance that 70 % of the pictures of a type keep to those of the other types of its modality: a radiology picture of a
body part that training lacks is one all the same. No picture of a score's rows chooses anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medical_vqa.data.imaging.picture_statistics import PictureStatistics
from medical_vqa.errors import DataError

if TYPE_CHECKING:
    from medical_vqa.models.base import Visual

Floats = NDArray[np.float32]

_SHRINKAGE = 0.1
"""Weight of the identity in the covariance of standardized features."""
_NEIGHBORS = 3
_FOLDS = 10
_UNSEEN_TYPES = 0.7
"""Fraction of the pictures of types that are held out as a whole which the threshold accepts."""
_COARSE, _LEVELS = 12, 16
"""Side of the coarse picture, and number of gray levels, of a family without features."""
FEWEST_PICTURES = 30
"""Fewer training pictures than this say too little about what is far from them."""

_LEAST_CONTRAST = 12.0
_MOST_SATURATION = 8.0
_LEAST_OUTSIDE_COMMON_LEVELS = 0.03
"""Limits on `PictureStatistics`, beyond those of all 546 SLAKE training and validation pictures (at least 0.05 outside
their common levels, saturation 0) and of VQA-RAD's 313 (at least 0.21; saturation at most 7.2, from colored marks)."""

GRAY_MODALITIES = frozenset(("ct", "mri", "x-ray", "mr", "radiograph", "mammography"))
"""Modalities whose pictures are gray, as radiology datasets call them, lower case."""
MODALITY_NAMES: Mapping[str, str] = {
    "CT": "ct",
    "MR": "mri",
    "CR": "x-ray",
    "DX": "x-ray",
    "RG": "x-ray",
    "XR": "x-ray",
}
"""DICOM Modality (PS3.3 C.7.3.1.1.1) -> the name that radiology datasets give it in answers, lower case."""


@dataclass(frozen=True, slots=True)
class PictureReason:
    """Why a picture cannot be asked about."""

    code: str
    """``constant_picture``, ``not_radiology_colors``, ``not_radiology_levels``, ``not_radiology_features``,
    ``modality_not_trained`` or ``modality_contradicts_header``."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    """Values that a sentence about the reason names."""


@dataclass(frozen=True, slots=True)
class ReferenceFeatures:
    """Features of a model's training pictures, and how far from them a picture may be."""

    mean: Floats
    """Mean of each feature (D,)."""
    scale: Floats
    """Standard deviation of each feature (D,)."""
    whitening: Floats
    """(D, D) matrix that turns standardized features into uncorrelated ones."""
    points: Floats
    """Whitened features of the training pictures (N, D)."""
    threshold: float
    """Largest distance of a picture that is taken for one like the training pictures."""

    @classmethod
    def fit(cls, features: Floats, *, unseen_types: Sequence[NDArray[np.int64]] = (), seed: int = 0) -> Self:
        """Learn from the features of training pictures.

        Args:
            features: Features of the training pictures (N, D).
            unseen_types: Indices of the pictures of each image type whose modality has other types too. Held out as a
                whole, they are radiology pictures of a type that training lacks.
            seed: Seed of the folds.

        Raises:
            DataError: There are fewer than 30 pictures.
        """
        if len(features) < FEWEST_PICTURES:
            raise DataError(
                f"expected at least {FEWEST_PICTURES} training pictures to compare with, got {len(features)}; "
                "leave the picture guard's features out"
            )
        order = np.random.default_rng(seed).permutation(len(features))
        held_out = [_held_out_distances(features, fold) for fold in np.array_split(order, _FOLDS)]
        threshold = float(np.concatenate(held_out).max())
        held_out_types = [_held_out_distances(features, group) for group in unseen_types]
        if held_out_types:
            threshold = max(threshold, float(np.quantile(np.concatenate(held_out_types), _UNSEEN_TYPES)))
        fitted = _fitted(features)
        return cls(fitted.mean, fitted.scale, fitted.whitening, fitted.points, threshold)

    def distances(self, features: Floats) -> Floats:
        """Mean distance of each picture's features (N, D) to those of the nearest training pictures."""
        nearest: Floats = np.sqrt(np.partition(self._squares(features), _NEIGHBORS - 1, axis=1)[:, :_NEIGHBORS])
        distances: Floats = nearest.mean(axis=1)
        return distances

    def nearest(self, features: Floats, among: NDArray[np.bool_] | bool = True) -> NDArray[np.int64]:
        """(N, neighbors) indices of the training pictures nearest to each picture's features (N, D).

        `among`: which training pictures come first (pictures,); True: all are alike.
        """
        squares = np.where(among, self._squares(features), np.inf)
        order: NDArray[np.int64] = np.argsort(squares, axis=1)[:, :_NEIGHBORS]
        return order

    def _squares(self, features: Floats) -> Floats:
        whitened = ((features - self.mean) / self.scale) @ self.whitening
        squares: Floats = (whitened**2).sum(1)[:, None] + (self.points**2).sum(1)[None] - 2 * whitened @ self.points.T
        return squares.clip(0)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What a bundle keeps: points in 16 bits, which changes distances by less than a thousandth."""
        return {
            "mean": self.mean,
            "scale": self.scale,
            "whitening": self.whitening.astype(np.float32),
            "points": self.points.astype(np.float16),
            "threshold": np.array(self.threshold, np.float32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Read back what `arrays` gave; raises `KeyError` where one is missing."""
        mean, scale, whitening, points = (
            arrays[name].astype(np.float32) for name in ("mean", "scale", "whitening", "points")
        )
        return cls(mean, scale, whitening, points, float(arrays["threshold"].astype(np.float32)))


def picture_features(tokens: NDArray[np.floating]) -> Floats:
    """One vector (2 D,) of an image's tokens (T, D): mean and standard deviation over the image."""
    values = np.asarray(tokens, np.float32)
    return np.concatenate([values.mean(axis=0), values.std(axis=0)])


def visual_features(visual: Visual) -> Floats | None:
    """The vector that pictures are compared by, of whatever a family makes of a picture.

    Args:
        visual: Features from `Vision.encode`, of which mean and deviation of the tokens are used, or the tokens, or
            else the first array of two axes; or the prepared picture of a family without features.

    Returns:
        None for features without such an array, and for a picture of a single value.
    """
    if isinstance(visual, np.ndarray):
        return _pixel_features(visual) if visual.size > visual.shape[-1] else None
    if "token_mean" in visual and "token_deviation" in visual:
        return np.concatenate([_as_array(visual["token_mean"]), _as_array(visual["token_deviation"])])
    tokens = [visual["tokens"]] if "tokens" in visual else [v for v in visual.values() if getattr(v, "ndim", 0) == 2]
    return picture_features(_as_array(tokens[0])) if tokens else None


def _as_array(tensor: Any) -> Floats:
    """A tensor of torch, on any device and of any precision, or of numpy."""
    return np.asarray(tensor.detach().float().cpu() if hasattr(tensor, "detach") else tensor, np.float32)


def _pixel_features(picture: NDArray[np.uint8]) -> Floats:
    """Coarse picture, gray levels and edges of a prepared picture (height, width, channels), in [0, 1]."""
    gray = picture.mean(axis=2)
    coarse = Image.fromarray(gray.round().astype(np.uint8)).resize((_COARSE, _COARSE), Image.Resampling.BOX)
    levels = np.histogram(gray, bins=_LEVELS, range=(0, 256))[0] / gray.size
    edges = [float(np.abs(np.diff(gray, axis=axis)).mean()) / 255 if gray.shape[axis] > 1 else 0.0 for axis in (0, 1)]
    return np.concatenate([np.asarray(coarse).ravel() / 255, levels, edges]).astype(np.float32)


def statistics_reason(statistics: PictureStatistics, *, gray_only: bool = True) -> PictureReason | None:
    """Why a picture with these statistics is none to ask about; None where nothing speaks against it.

    `gray_only`: whether the model was trained on gray modalities alone, so that colors and flat values count too.
    """
    if statistics.contrast < _LEAST_CONTRAST:
        return PictureReason("constant_picture")
    if not gray_only:
        return None
    if statistics.saturation > _MOST_SATURATION:
        return PictureReason("not_radiology_colors")
    if statistics.outside_common_levels < _LEAST_OUTSIDE_COMMON_LEVELS:
        return PictureReason("not_radiology_levels")
    return None


def header_reason(facts: Mapping[str, str], trained_modalities: Sequence[str]) -> PictureReason | None:
    """Why the header's modality is none that the model was trained on; None where it is one, or none is named.

    Args:
        facts: Header facts; ``Modality`` is a DICOM code such as ``CT``.
        trained_modalities: Names of modalities as the training rows call them; empty where that is not known.
    """
    code = facts.get("Modality", "").strip().upper()
    if not code or not trained_modalities:
        return None
    trained = {name.lower() for name in trained_modalities}
    if MODALITY_NAMES.get(code) in trained or code.lower() in trained:
        return None
    return PictureReason("modality_not_trained", {"modality": code, "trained": ", ".join(sorted(trained_modalities))})


def _held_out_distances(features: Floats, group: NDArray[np.int64]) -> Floats:
    """Distances of a group of pictures (n, D) to all others, of which alone mean and covariance are taken."""
    others = np.setdiff1d(np.arange(len(features)), group)
    return _fitted(features[others]).distances(features[group])


def _fitted(features: Floats) -> ReferenceFeatures:
    mean = features.mean(axis=0)
    scale = features.std(axis=0) + 1e-6
    standardized = (features - mean) / scale
    covariance = standardized.T @ standardized / len(features)
    shrunk = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * np.eye(len(covariance))
    whitening = np.linalg.cholesky(np.linalg.inv(shrunk.astype(np.float64))).astype(np.float32)
    return ReferenceFeatures(mean, scale, whitening, standardized @ whitening, threshold=np.inf)
