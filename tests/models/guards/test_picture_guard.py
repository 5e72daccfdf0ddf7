"""The picture guard: a picture that is no radiology picture, or unlike the training pictures, is named as such."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from medical_vqa.data.imaging.picture_statistics import PictureStatistics
from medical_vqa.errors import DataError
from medical_vqa.models.guards.pictures.picture import (
    ReferenceFeatures,
    header_reason,
    picture_features,
    statistics_reason,
    visual_features,
)


def code_for(picture):
    pixels = np.asarray(picture)
    reason = statistics_reason(PictureStatistics.of(pixels.reshape(*pixels.shape[:2], -1)))
    return reason and reason.code


def scan(seed=0, side=200):
    """A smooth body on a dark ground, with noise: gray values as a radiograph has them."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    body = np.clip(1 - x**2 - y**2, 0, 1) * 200
    noise = np.random.default_rng(seed).normal(0, 6, body.shape)
    return np.clip(body + noise, 0, 255).astype(np.uint8)


def cloud(rng, n, offset=0.0):
    """Features (n, 8) of pictures, the last ones with the widest spread."""
    return (rng.normal(size=(n, 8)) * np.arange(1, 9) + offset).astype(np.float32)


def test_a_scan_passes():
    assert code_for(scan()) is None


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_a_constant_picture_shows_nothing(value):
    assert code_for(np.full((50, 60), value, np.uint8)) == "constant_picture"


def test_a_nearly_constant_picture_shows_nothing():
    picture = 100 + np.random.default_rng(0).integers(0, 4, (50, 60), dtype=np.uint8)
    picture[25, 30] = 255  # one hot pixel
    assert code_for(picture) == "constant_picture"


def test_colors_are_not_radiology_but_a_colored_mark_is():
    rgb = np.repeat(scan()[..., None], 3, axis=2)
    marked = rgb.copy()
    marked[5:25, 5:40] = (255, 255, 0)
    assert code_for(marked) is None
    rgb[..., 2] //= 3
    assert code_for(rgb) == "not_radiology_colors"


def test_a_mask_has_too_few_levels():
    mask = Image.new("L", (256, 256), 0)
    ImageDraw.Draw(mask).ellipse([50, 50, 180, 200], fill=255)
    ImageDraw.Draw(mask).ellipse([90, 90, 120, 140], fill=128)
    assert code_for(mask) == "not_radiology_levels"


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 3)])
def test_statistics_of_tiny_pictures_are_zero_where_nothing_varies(size):
    assert PictureStatistics.of(np.zeros((*size, 1), np.uint8)) == PictureStatistics(0.0, 0.0, 0.0, 0.0)


def test_pictures_like_the_training_pictures_are_near_and_others_far():
    rng = np.random.default_rng(0)
    reference = ReferenceFeatures.fit(cloud(rng, 200))
    assert (reference.distances(cloud(rng, 100)) <= reference.threshold).mean() > 0.95
    assert (reference.distances(cloud(rng, 100, offset=40.0)) > reference.threshold).all()


def test_no_training_picture_is_beyond_the_threshold():
    features = cloud(np.random.default_rng(1), 60)
    reference = ReferenceFeatures.fit(features)
    assert (reference.distances(features) <= reference.threshold).all()


def test_pictures_of_a_type_that_training_lacks_are_accepted_where_types_are_held_out():
    rng = np.random.default_rng(0)
    features = np.concatenate([cloud(rng, 60, offset) for offset in (0.0, 3.0, 200.0)])
    groups = [np.arange(start, start + 60) for start in (0, 60, 120)]
    alone, with_types = ReferenceFeatures.fit(features), ReferenceFeatures.fit(features, unseen_types=groups)
    new_type = cloud(rng, 50, offset=400.0)
    assert with_types.threshold > alone.threshold
    accepted = [(fitted.distances(new_type) <= fitted.threshold).mean() for fitted in (alone, with_types)]
    assert accepted == [0.0, 1.0]
    assert (with_types.distances(cloud(rng, 50, offset=20000.0)) > with_types.threshold).all()


def test_features_that_never_vary_do_not_break_it():
    features = cloud(np.random.default_rng(2), 50)
    features[:, 3] = 1.0
    assert np.isfinite(ReferenceFeatures.fit(features).distances(features)).all()


def test_too_few_training_pictures_are_refused():
    with pytest.raises(DataError, match="at least 30 training pictures"):
        ReferenceFeatures.fit(cloud(np.random.default_rng(0), 29))


def test_it_is_read_back_from_its_arrays():
    rng = np.random.default_rng(0)
    reference = ReferenceFeatures.fit(cloud(rng, 80))
    again, others = ReferenceFeatures.from_arrays(reference.arrays()), cloud(rng, 20)
    assert again.threshold == pytest.approx(reference.threshold)
    assert again.distances(others) == pytest.approx(reference.distances(others), rel=1e-2)
    assert (again.nearest(others) == reference.nearest(others)).all()


def test_features_of_a_picture_are_the_mean_and_spread_of_its_tokens():
    tokens = np.array([[0.0, 1.0], [2.0, 1.0]])
    assert picture_features(tokens).tolist() == [1.0, 1.0, 1.0, 0.0]
    moments = {"keys": tokens, "token_mean": tokens.mean(0), "token_deviation": tokens.std(0)}
    assert visual_features(moments).tolist() == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("modality", ["SEG", "RTDOSE", "US", "NM", "PT", "SM", "OP", "ECG"])
def test_a_modality_that_was_never_trained_is_named(modality):
    reason = header_reason({"Modality": modality}, ["CT", "MRI", "X-Ray"])
    assert (reason.code, reason.arguments["modality"]) == ("modality_not_trained", modality)


@pytest.mark.parametrize("modality", ["CT", "MR", "CR", "DX", " ct ", ""])
def test_a_trained_or_unnamed_modality_passes(modality):
    assert header_reason({"Modality": modality}, ["CT", "MRI", "X-Ray"]) is None


def test_without_trained_modalities_any_header_passes():
    assert header_reason({"Modality": "US"}, []) is None
    assert header_reason({}, ["CT"]) is None
