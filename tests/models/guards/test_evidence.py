"""Evidence: outlines are valid polygons with the right area, in pixels of the picture and in square millimeters."""

import json

import numpy as np
import pytest
from PIL import Image

from medical_vqa.data.imaging.geometry import PictureGeometry, prepared_area, valid_spacing
from medical_vqa.data.imaging.picture_statistics import PictureContext, PictureStatistics
from medical_vqa.data.imaging.preprocessing import PictureSpec, prepare_picture
from medical_vqa.models.base import Localization, ModelFamily, Query
from medical_vqa.models.guards.evidence import evidence_of
from medical_vqa.models.guards.guard import Guards
from medical_vqa.models.guards.outlines import at_cells, outlines, polygon_area, ring_area
from medical_vqa.models.guards.pictures.reference import ReferenceSet
from medical_vqa.schema.bundle_card import BundleCard, ConfidenceCalibration
from medical_vqa.schema.records import Prediction

GOOD = PictureStatistics(contrast=200, saturation=0, entropy=5, outside_common_levels=0.5)
STRETCH = PictureSpec(160, "L", "stretch")


def rows_and_columns(height, width):
    return np.mgrid[0:height, 0:width] + 0.5


def circle(height, width, center, radius):
    rows, columns = rows_and_columns(height, width)
    return (rows - center[0]) ** 2 + (columns - center[1]) ** 2 < radius**2


def of_mask(mask):
    """Outlines of a mask at full resolution."""
    height, width = mask.shape
    values, x, y = at_cells(mask.astype(float), start=(0, 0), size=(width, height), picture=(width, height))
    return outlines(values, x, y, level=0.5)


def crosses_itself(rings):
    """Whether two edges of any rings that are not neighbors touch or cross."""
    starts = np.concatenate([ring[:-1] for ring in rings])
    ends = np.concatenate([ring[1:] for ring in rings])
    number = len(starts)
    following = np.concatenate([np.roll(np.arange(len(ring) - 1), -1) for ring in rings])
    following += np.repeat(np.cumsum([0, *(len(ring) - 1 for ring in rings[:-1])]), [len(ring) - 1 for ring in rings])
    apart = np.ones((number, number), bool)
    apart[np.arange(number), np.arange(number)] = False
    apart[np.arange(number), following] = apart[following, np.arange(number)] = False

    def turn(a, b, c):
        return np.sign(
            (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
        )

    a, b, c, d = starts[:, None], ends[:, None], starts[None], ends[None]
    crossing = (turn(a, b, c) * turn(a, b, d) < 0) & (turn(c, d, a) * turn(c, d, b) < 0)
    same_point = (a == c).all(-1)
    return bool(((crossing | same_point) & apart).any())


def assert_valid(polygons):
    for border, *holes in polygons:
        for ring in (border, *holes):
            assert len(ring) >= 4
            assert (ring[0] == ring[-1]).all()
            assert (ring[1:] != ring[:-1]).any(1).all()
        assert ring_area(border) > 0
        assert all(ring_area(hole) < 0 for hole in holes)
    assert not polygons or not crosses_itself([ring for polygon in polygons for ring in polygon])


SQUARE_WITH_HOLE = np.zeros((90, 120), bool)
SQUARE_WITH_HOLE[10:80, 20:100] = True
SQUARE_WITH_HOLE[30:60, 40:70] = False
MASKS = {
    "circle": circle(120, 160, (60, 80), 40),
    "small circle": circle(60, 60, (30, 30), 8),
    "rectangle": np.pad(np.ones((40, 70), bool), ((20, 30), (10, 50))),
    "rectangle with a hole": SQUARE_WITH_HOLE,
    "ring of circles": circle(150, 150, (75, 75), 60) & ~circle(150, 150, (75, 75), 25),
    "at the border": np.pad(np.ones((40, 40), bool), ((0, 60), (0, 90))),
    "circle over the border": circle(120, 100, (60, 0), 45),
    "everything": np.ones((50, 80), bool),
    "two parts": np.pad(np.ones((30, 20), bool), ((5, 5), (5, 60)))
    | np.pad(np.ones((30, 20), bool), ((5, 5), (60, 5))),
}


@pytest.mark.parametrize("name", MASKS)
def test_the_outline_of_a_mask_is_valid_and_has_its_area_within_two_per_cent(name):
    mask = MASKS[name]
    polygons = of_mask(mask)
    assert_valid(polygons)
    assert sum(map(polygon_area, polygons)) == pytest.approx(mask.sum(), rel=0.02)


def test_holes_and_parts_are_rings_of_their_own():
    assert [len(polygon) for polygon in of_mask(SQUARE_WITH_HOLE)] == [2]
    assert [len(polygon) for polygon in of_mask(MASKS["two parts"])] == [1, 1]
    assert of_mask(np.zeros((30, 40), bool)) == []


@pytest.mark.parametrize("side", [40, 64, 500])
def test_outlines_of_random_maps_are_valid_also_where_values_equal_the_level(side):
    rng = np.random.default_rng(side)
    for _ in range(60):
        values = np.round(rng.random((20, 20)), 1)  # many values of exactly 0.5
        points, x, y = at_cells(values, start=(0, 0), size=(side, side), picture=(side, side))
        assert_valid(outlines(points, x, y, level=0.5))


def coverage(mask, cells):
    height, width = mask.shape
    return mask.reshape(cells, height // cells, cells, width // cells).mean((1, 3))


def localization(probability, name="Liver", learned_from="mask"):
    return Localization(name=name, learned_from=learned_from, probability=probability.astype(np.float16))


def test_evidence_is_in_pixels_of_the_decoded_picture_and_in_square_millimeters():
    mask = circle(400, 400, (200, 100), 80)
    geometry = PictureGeometry(800, 400, (0.5, 0.25))  # the picture is twice as wide as the mask that it was made from
    (item,) = evidence_of([localization(coverage(mask, 40))], geometry, STRETCH)
    assert item.area == pytest.approx(2 * mask.sum(), rel=0.02)
    assert item.area_mm2 == pytest.approx(2 * mask.sum() * 0.5 * 0.25, rel=0.02)
    assert item.box == pytest.approx((40, 120, 360, 280), abs=4)
    assert (item.name, item.side, item.position, item.score) == ("Liver", None, "left", 1.0)
    assert json.loads(item.model_dump_json())["polygon"]["type"] == "MultiPolygon"


def test_without_spacing_there_is_no_area_in_millimeters():
    (item,) = evidence_of([localization(np.eye(20))], PictureGeometry(200, 200), STRETCH)
    assert item.area_mm2 is None


def test_a_padded_picture_is_mapped_back_without_its_padding():
    mask = np.zeros((200, 400), bool)
    mask[50:150, 100:300] = True
    spec = PictureSpec(160, "L", "pad")
    area = prepared_area(PictureGeometry(400, 200), spec)
    assert (area.left, area.top, area.width, area.height) == (0, 0.25, 1, 0.5)
    prepared = prepare_picture(Image.fromarray(mask.astype(np.uint8) * 255), spec)[..., 0] / 255
    (item,) = evidence_of([localization(coverage(prepared, 40))], PictureGeometry(400, 200), spec)
    assert item.box == pytest.approx((100, 50, 300, 150), abs=4)
    assert item.area == pytest.approx(mask.sum(), rel=0.04)
    everywhere = evidence_of([localization(np.ones((20, 20)))], PictureGeometry(400, 200), spec)[0]
    assert everywhere.box == (0, 0, 400, 200)


def test_masks_come_before_boxes_and_what_is_hardly_localized_is_left_out():
    blob, faint = np.eye(20), 0.1 * np.eye(20)
    geometry = PictureGeometry(200, 200)
    both = [localization(blob), localization(0.9 * blob, learned_from="box"), localization(faint, "Spleen")]
    assert [(item.name, item.learned_from) for item in evidence_of(both, geometry, STRETCH)] == [("Liver", "mask")]
    faint_mask = [localization(faint), localization(0.9 * blob, learned_from="box")]
    assert [item.learned_from for item in evidence_of(faint_mask, geometry, STRETCH)] == ["box"]


def test_the_left_lung_lies_at_the_right_of_the_picture_and_says_whose_side_it_is():
    right_half = np.zeros((20, 20))
    right_half[5:15, 12:18] = 0.9
    (item,) = evidence_of([localization(right_half, "Left Lung")], PictureGeometry(200, 200), STRETCH)
    assert (item.side, item.position) == ("patient", "right")


@pytest.mark.parametrize(
    ("values", "spacing"),
    [
        (("0.7", "0.5"), (0.7, 0.5)),
        (None, None),
        (("0.7",), None),
        (("0", "1"), None),
        (("x", "1"), None),
        ((float("inf"), 1), None),
    ],
)
def test_a_spacing_is_two_positive_numbers(values, spacing):
    assert valid_spacing(values) == spacing


class Localizing(ModelFamily):
    """Answers Yes with this confidence, and localizes the liver in the upper left quarter, whatever is asked."""

    family, picture, vision = "localizing", PictureSpec(8, "L", "stretch"), None
    has_closed_answers = True

    def __init__(self, confidence):
        self.confidence = confidence

    def answer(self, queries, decoding):
        return [Prediction(query.id, "Yes", "Yes", self.confidence) for query in queries]

    def localizations(self, query, prediction):
        quarter = np.zeros((8, 8))
        quarter[:4, :4] = 0.8
        return [localization(quarter)]


def guarded(question, confidence=0.9):
    pixels = np.full((8, 8, 1), 120, np.uint8)
    reference = ReferenceSet(
        features=None,
        point_types=np.zeros(0, np.int16),
        image_types=("",),
        pictures={"": (pixels,) * 6},
        modalities=("CT",),
        question_types={"is liver seen": "Organ", "does liver make bile": "KG"},
        findings=(),
    )
    calibration = ConfidenceCalibration(temperature=1.0, fitted_on="rows", risk=0.1, threshold=0.5)
    guards = Guards(Localizing(confidence), BundleCard(family="fake", name="fake", calibration=calibration), reference)
    context = PictureContext(GOOD, {}, PictureGeometry(80, 40, (2.0, 1.0)))
    return guards.answer([Query("q", question, "image", pixels)], {"image": context})[0]


def test_an_answer_carries_evidence_unless_it_is_withheld_or_general_knowledge():
    shown, withheld, knowledge = (
        guarded("Is the liver seen?"),
        guarded("Is the liver seen?", confidence=0.3),
        guarded("Does the liver make bile?"),
    )
    assert [item.name for item in shown.evidence] == ["Liver"]
    assert shown.evidence[0].area == pytest.approx(800, rel=0.02)
    assert shown.evidence[0].area_mm2 == pytest.approx(1600, rel=0.02)
    assert withheld.abstention.code == "low_confidence"
    assert withheld.evidence == ()
    assert knowledge.source == "knowledge"
    assert knowledge.evidence == ()


def test_a_context_comes_back_from_its_json_and_differs_where_the_spacing_does():
    context = PictureContext(GOOD, {"Modality": "CT"}, PictureGeometry(80, 40, (2.0, 1.0)))
    assert PictureContext.from_json(context.to_json()) == context
    assert PictureContext.from_json('{"statistics": null, "facts": {}}') == PictureContext()
    assert context.digest != PictureContext(GOOD, {"Modality": "CT"}, PictureGeometry(80, 40)).digest
