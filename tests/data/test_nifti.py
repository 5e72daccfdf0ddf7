from __future__ import annotations

import gzip
import itertools
import tracemalloc
from typing import Any

import nibabel
import numpy as np
import pytest

from medical_vqa.data.imaging.decode import decode_image
from medical_vqa.data.imaging.decoded_frame import DecodeLimits
from medical_vqa.errors import ImageError, TooLargeError, UnsupportedImageError

RAS = np.eye(4)


def made(values: np.ndarray, affine: Any = RAS, kind: Any = nibabel.Nifti1Image, **header: Any) -> bytes:
    image = kind(values, affine)
    for key, value in header.items():
        image.header[key] = value
    return bytes(image.to_bytes())


def volume(*shape: int, dtype: Any = np.int16) -> np.ndarray:
    return (np.arange(np.prod(shape)) % 997).reshape(shape, order="F").astype(dtype)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("zipped", [False, True])
def test_the_middle_slice_is_shown_and_any_other_can_be_asked_for(kind: Any, zipped: bool) -> None:
    values = np.stack([np.full((10, 12), 10 * n, dtype=np.int16) for n in range(5)], axis=2)
    data = made(values, kind=kind)
    data = gzip.compress(data) if zipped else data
    found = decode_image(data, window=(20, 40))
    assert (found.format, found.frames, found.pixels.shape) == ("NIFTI", 5, (12, 10, 1))
    assert found.removed_metadata == ("NIfTI header", "other frames")
    assert found.header_fields == {"Rows": "12", "Columns": "10"}
    assert found.pixels[0, 0, 0] == 128  # 20 of 0..40
    assert [int(decode_image(data, frame=n, window=(20, 40)).pixels[0, 0, 0]) for n in (0, 4)] == [0, 255]
    with pytest.raises(ImageError, match="has no frame 5; the frames are 0 to 4"):
        decode_image(data, frame=5)


def test_slices_of_a_series_in_time_are_counted_on() -> None:
    values = volume(8, 8, 3, 2)
    found = decode_image(made(values), frame=4, window=(500, 1000))
    assert found.frames == 6
    assert np.array_equal(found.pixels, decode_image(made(values[:, :, :, 1]), frame=1, window=(500, 1000)).pixels)


@pytest.mark.parametrize("codes", ["".join(code) for order in itertools.permutations(("RL", "AP", "SI"))
                                   for code in itertools.product(*order)])  # fmt: skip
def test_however_it_is_stored_a_slice_is_turned_the_same_way(codes: str) -> None:
    values = volume(8, 9, 10)
    ras, wanted = (nibabel.orientations.axcodes2ornt(name) for name in ("RAS", codes))
    turn = nibabel.orientations.ornt_transform(ras, wanted)
    data = bytes(nibabel.Nifti1Image(values, RAS).as_reoriented(turn).to_bytes())
    picture = decode_image(data, frame=0, window=(500, 1000)).pixels[:, :, 0]
    first = {"S": values[:, :, 0], "I": values[:, :, -1], "R": values[0], "L": values[-1],
             "A": values[:, 0], "P": values[:, -1]}[codes[2]]  # fmt: skip
    # Axial: the face up; coronal and sagittal: the head up. The patient's right, or the face, on the left.
    assert np.array_equal(picture, np.rint(np.clip(first.T[::-1, ::-1] / 1000, 0, 1) * 255))


def test_values_are_scaled_as_the_header_says() -> None:
    values = volume(8, 8, 1)
    data = bytearray(made(values))
    data[112:120] = np.array([2.0, -100.0], dtype=np.float32).tobytes()  # scl_slope, scl_inter
    found = decode_image(bytes(data))
    low, high = np.percentile(values.astype(float) * 2 - 100, [0.5, 99.5])
    assert found.window == pytest.approx(((low + high) / 2, high - low))
    expected = np.clip((values[:, :, 0].T[::-1, ::-1] * 2.0 - 100 - low) / (high - low), 0, 1)
    assert np.array_equal(found.pixels[:, :, 0], np.rint(expected * 255))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_every_usual_type_is_read(dtype: Any) -> None:
    picture = decode_image(made(volume(8, 8, 2, dtype=dtype)), frame=0).pixels
    assert (picture.min(), picture.max()) == (0, 255)


def test_a_color_volume_becomes_rgb() -> None:
    values = np.zeros((8, 8, 1), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    values["G"] = 200
    found = decode_image(made(values))
    assert found.pixels.shape == (8, 8, 3)
    assert found.pixels[0, 0].tolist() == [0, 200, 0]
    with pytest.raises(ImageError, match="a window is for gray pictures"):
        decode_image(made(values), window=(1, 2))


def test_big_endian_is_read() -> None:
    image = nibabel.Nifti1Image(volume(8, 8, 2), RAS)
    swapped = nibabel.Nifti1Image(volume(8, 8, 2), RAS, image.header.as_byteswapped(">"))
    assert np.array_equal(decode_image(bytes(swapped.to_bytes())).pixels, decode_image(bytes(image.to_bytes())).pixels)


def test_what_is_not_read_is_named() -> None:
    with pytest.raises(UnsupportedImageError, match="expected a NIfTI volume in the gzip file, got something else"):
        decode_image(gzip.compress(b"hello " * 100))
    data = bytearray(made(volume(8, 8, 2)))
    data[344:347] = b"ni1"
    with pytest.raises(UnsupportedImageError, match="pixels are in another file"):
        decode_image(bytes(data))
    with pytest.raises(UnsupportedImageError, match="voxels of type complex64"):
        decode_image(made(np.ones((8, 8, 2), dtype=np.complex64)))


@pytest.mark.parametrize("zipped", [False, True])
def test_a_truncated_volume_is_refused(zipped: bool) -> None:
    data = made(volume(32, 32, 8))
    data = gzip.compress(data) if zipped else data
    with pytest.raises(ImageError, match="expected a whole NIfTI volume"):
        decode_image(data[: len(data) // 2], frame=7)


@pytest.mark.parametrize("length", [345, 347, 348, 400, 500])
def test_a_file_that_ends_within_its_header_is_refused(length: int) -> None:
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        data = made(volume(8, 8, 2), kind=kind)[:length]
        for file in (data, gzip.compress(data)):
            with pytest.raises(ImageError):
                decode_image(file)


def test_limits_are_kept_before_inflating() -> None:
    data = gzip.compress(made(volume(16, 16, 4)))
    with pytest.raises(TooLargeError, match="has 4 slices; give a part of at most 3"):
        decode_image(data, limits=DecodeLimits(frames=3))
    with pytest.raises(TooLargeError, match="is 16x16 pixels"):
        decode_image(data, limits=DecodeLimits(pixels=100))
    with pytest.raises(TooLargeError, match=r"frame 3 ends 2,400 bytes into the volume"):
        decode_image(data, frame=3, limits=DecodeLimits(inflated_bytes=2000))


def test_a_bomb_is_inflated_piece_by_piece() -> None:
    data = gzip.compress(made(np.zeros((512, 512, 400), dtype=np.int16)), 1)
    assert len(data) < 2_000_000
    tracemalloc.start()
    assert decode_image(data, frame=399).pixels.max() == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12_000_000  # the volume has 210 million bytes


def spacing_of(data: bytes) -> Any:
    return decode_image(data).spacing


def test_the_spacing_of_rows_and_columns_follows_the_orientation_and_the_unit() -> None:
    values = volume(8, 10, 9)
    affine = np.diag([0.5, 0.75, 3.0, 1.0])  # left to right, back to front, feet to head
    decoded = decode_image(made(values, affine))  # pixels are made square
    assert (decoded.pixels.shape, decoded.spacing) == ((15, 8, 1), (0.5, 0.5))
    assert spacing_of(made(values, affine, xyzt_units=3)) == pytest.approx((0.0005, 0.0005))  # micrometers
    image = nibabel.Nifti1Image(values, affine)
    turn = nibabel.orientations.ornt_transform(*(nibabel.orientations.axcodes2ornt(codes) for codes in ("RAS", "SAL")))
    decoded = decode_image(bytes(image.as_reoriented(turn).to_bytes()))  # sagittal: head up
    assert (decoded.pixels.shape, decoded.spacing, decoded.plane) == ((36, 10, 1), (0.75, 0.75), "sagittal")
