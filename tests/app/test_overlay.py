"""The heatmap over the image: its position, its opacity and its shape."""

import base64
import io

import numpy as np
import pytest
from fake_backend import png
from PIL import Image

from medical_vqa.app.components import overlay
from medical_vqa.serving.schema.answers import AttentionMap

CORNER = AttentionMap(rows=2, columns=2, values=[[0.7, 0.1], [0.1, 0.1]])


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def test_the_largest_weight_becomes_one_and_zeros_stay_zero():
    assert overlay.normalized_weights(CORNER).max() == 1
    empty = AttentionMap(rows=1, columns=2, values=[[0.0, 0.0]])
    assert not overlay.normalized_weights(empty).any()
    assert not pixels(overlay.heatmap(empty, width=8, height=8))[..., 3].any()


def test_the_heatmap_is_strongest_at_the_largest_weight():
    alpha = pixels(overlay.heatmap(CORNER, width=40, height=20))[..., 3].astype(float)
    assert alpha.shape == (20, 40)
    assert alpha[0, 0] == alpha.max() > 150
    assert alpha[-1, -1] < 20


@pytest.mark.parametrize(("width", "height", "expected"), [(3000, 1500, (256, 512)), (10, 4000, (512, 1))])
def test_a_large_image_gets_a_small_heatmap_of_its_shape(width, height, expected):
    assert pixels(overlay.heatmap(CORNER, width=width, height=height)).shape[:2] == expected


@pytest.mark.parametrize(
    ("peak", "region"), [((0, 0), (0, 0)), ((5, 5), (1, 1)), ((9, 0), (2, 0)), ((3, 9), (1, 2)), ((0, 9), (0, 2))]
)
def test_the_strongest_region_is_one_of_nine(peak, region):
    values = np.full((10, 10), 0.001)
    values[peak] = 1
    assert overlay.strongest_region(AttentionMap(rows=10, columns=10, values=values.tolist())) == region


def test_a_picture_for_the_screen_keeps_its_shape_and_is_reduced_only_where_needed():
    small, large = png(64), png(2000, width=4000)
    assert overlay.screen_uri(small) == overlay.data_uri(small)
    reduced = overlay.screen_uri(large)
    assert pixels(base64.b64decode(reduced.partition(",")[2])).shape == (800, 1600)


def test_a_thumbnail_is_the_central_square():
    assert pixels(overlay.thumbnail(png(60, width=120), side=32)).shape == (32, 32)
