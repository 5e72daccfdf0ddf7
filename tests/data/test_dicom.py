from __future__ import annotations

import io
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)

sys.path.insert(0, str(Path(__file__).parent))
from dicom_files import RAMP, SHIPPED, lut, made, shipped

from medical_vqa.data.imaging.decode import decode_image
from medical_vqa.data.imaging.decoded_frame import DecodeLimits
from medical_vqa.errors import ImageError, TooLargeError, UnsupportedImageError

WINDOWED = [
    "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm", "MR_small.dcm", "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_padded.dcm", "examples_overlay.dcm",
]  # fmt: skip
COLORED = [
    "ExplVR_BigEnd.dcm", "GDCMJ2K_TextGBR.dcm", "SC_jpeg_no_color_transform.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm",
    "SC_rgb_dcmtk_+eb+cy+n1.dcm", "SC_rgb_gdcm_KY.dcm", "SC_rgb_jls_lossy_line.dcm", "SC_rgb_jls_lossy_sample.dcm",
    "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle.dcm", "SC_ybr_full_422_uncompressed.dcm",
    "examples_jpeg2k.dcm", "examples_rgb_color.dcm", "examples_ybr_color.dcm",
]  # fmt: skip


def window_reference(dataset: Any, index: int = 0) -> np.ndarray:
    """What pydicom's own functions make of it, its output range spread over 0..255."""
    shown = apply_voi_lut(apply_modality_lut(pixel_array(dataset, index=index), dataset), dataset)
    stored = int(dataset.BitsStored)
    low, high = (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1) if dataset.PixelRepresentation else (0, 2**stored - 1)
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    low, high = low * slope + intercept, high * slope + intercept
    return np.rint((shown - low) / (high - low) * 255).astype(np.uint8)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", WINDOWED)
def test_a_windowed_picture_is_what_pydicom_makes_of_it(name: str) -> None:
    found, dataset = decode_image(shipped(name)), dcmread(SHIPPED / name)
    assert found.format == "DICOM"
    assert found.window == (
        float(np.ravel(dataset.WindowCenter)[0]),
        float(np.ravel(dataset.WindowWidth)[0]),
    )
    difference = np.abs(found.pixels[:, :, 0].astype(int) - window_reference(dataset))
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.999


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", COLORED)
def test_a_colored_picture_is_the_rgb_that_pydicom_makes_of_it(name: str) -> None:
    found = decode_image(shipped(name))
    assert found.pixels.shape[2] == 3
    plugin = {"SC_rgb_dcmtk_+eb+cy+np.dcm": "pillow", "SC_rgb_jpeg_dcmtk.dcm": "pillow"}.get(name, "")
    reference = pixel_array(dcmread(SHIPPED / name), index=found.frame, decoding_plugin=plugin)
    assert np.abs(found.pixels.astype(int) - reference).mean() < 1.5  # decoders of lossy JPEG differ a little


def test_a_palette_becomes_its_colors() -> None:
    dataset = dcmread(SHIPPED / "examples_palette.dcm")
    reference = apply_color_lut(pixel_array(dataset), dataset)
    assert np.array_equal(decode_image(shipped("examples_palette.dcm")).pixels, reference >> 8)


@pytest.mark.parametrize("name", ["SC_rgb_rle_16bit.dcm", "SC_rgb_rle_32bit.dcm"])
def test_wide_colors_keep_their_highest_bits(name: str) -> None:
    assert np.array_equal(decode_image(shipped(name)).pixels, decode_image(shipped("SC_rgb_rle.dcm")).pixels)


def test_every_lossless_transfer_syntax_gives_the_same_picture() -> None:
    plain = decode_image(shipped("MR_small.dcm")).pixels
    for kind in ("RLE", "bigendian", "implicit", "jp2klossless", "jpeg_ls_lossless", "expb", "padded"):
        assert np.array_equal(decode_image(shipped(f"MR_small_{kind}.dcm")).pixels, plain)


def test_a_window_of_ones_own_is_the_standards_linear_one() -> None:
    found = decode_image(made(RAMP, RescaleSlope="1", RescaleIntercept="0"), window=(40.0, 400.0))
    expected = np.clip(((RAMP - 39.5) / 399 + 0.5) * 255, 0, 255)
    assert found.window == (40.0, 400.0)
    assert np.array_equal(found.pixels[:, :, 0], np.rint(expected))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("LINEAR_EXACT", (RAMP - 40.0) / 400 + 0.5),
        ("SIGMOID", 1 / (1 + np.exp(-4 * (RAMP - 40.0) / 400))),
    ],
)
def test_the_other_window_functions_are_the_standards(function: str, expected: Any) -> None:
    data = made(RAMP, WindowCenter="40", WindowWidth="400", VOILUTFunction=function)
    assert np.array_equal(decode_image(data).pixels[:, :, 0], np.rint(np.clip(expected, 0, 1) * 255))


def test_hounsfield_units_come_from_slope_and_intercept() -> None:
    stored = (RAMP + 1024).astype(np.uint16)
    window = {"WindowCenter": "40", "WindowWidth": "400"}
    rescaled = made(stored, RescaleSlope="1", RescaleIntercept="-1024", **window)
    assert np.array_equal(decode_image(rescaled).pixels, decode_image(made(RAMP, **window)).pixels)


def test_monochrome1_is_inverted() -> None:
    window = {"WindowCenter": "40", "WindowWidth": "400"}
    plain, inverted = made(RAMP, **window), made(RAMP, PhotometricInterpretation="MONOCHROME1", **window)
    assert np.array_equal(decode_image(inverted).pixels, 255 - decode_image(plain).pixels)


def test_a_compressed_frame_of_too_many_scans_is_refused() -> None:
    out = io.BytesIO()
    Image.new("L", (32, 32)).save(out, "JPEG", progressive=True)
    stream = out.getvalue()
    scan = stream[stream.rindex(b"\xff\xda") : -2]
    frames = encapsulate([stream[:-2] + scan * 300 + stream[-2:]])
    data = made(np.zeros((32, 32), np.uint8), JPEGBaseline8Bit, PixelData=frames)
    with pytest.raises(ImageError, match="frame 0 cannot be decoded: it has more than 256 scans"):
        decode_image(data)


def test_a_window_narrower_than_one_is_an_exact_one() -> None:
    """As of PET with a small slope: the linear function would divide by its width less one."""
    data = made(np.arange(256, dtype=np.uint16).reshape(16, 16), RescaleSlope="0.001", RescaleIntercept="0",
                WindowCenter="0.125", WindowWidth="0.25")  # fmt: skip
    pixels = decode_image(data).pixels[:, :, 0]
    assert np.array_equal(pixels.ravel()[[0, 125, 250]], [0, 128, 255])


def test_a_voi_lut_goes_before_a_window() -> None:
    stored = np.arange(1024, dtype=np.uint16).reshape(32, 32)
    curve = np.linspace(0, 4095, 512) ** 2 // 4095
    data = made(stored, VOILUTSequence=[lut(curve, 100, 12)], WindowCenter="40", WindowWidth="400")
    expected = curve.astype(np.uint16)[np.clip(stored.astype(int) - 100, 0, 511)] / 4095 * 255
    assert np.array_equal(decode_image(data).pixels[:, :, 0], np.rint(expected))
    assert decode_image(data).window is None
    assert decode_image(data, window=(512, 1024)).window == (512, 1024)


def test_a_modality_lut_is_looked_up_first() -> None:
    stored = np.arange(1024, dtype=np.uint16).reshape(32, 32)
    mirrored = np.arange(1023, -1, -1)
    data = made(stored, ModalityLUTSequence=[lut(mirrored, 0, 16)], WindowCenter="512", WindowWidth="1024")
    plain = made(mirrored.astype(np.uint16).reshape(32, 32), WindowCenter="512", WindowWidth="1024")
    assert np.array_equal(decode_image(data).pixels, decode_image(plain).pixels)


def test_without_a_window_percentiles_are_taken_and_padding_does_not_count() -> None:
    values = RAMP.copy()
    values[:4] = -32768
    found = decode_image(made(values, PixelPaddingValue=-32768))
    low, high = np.percentile(values[4:].astype(float), [0.5, 99.5])
    assert found.window == pytest.approx(((low + high) / 2, high - low))
    assert (found.pixels[0, 0, 0], found.pixels[-1, -1, 0]) == (0, 255)


def test_eight_bits_without_a_window_stay_as_they_are() -> None:
    values = np.arange(40, 40 + 144, dtype=np.uint8).reshape(12, 12)
    assert np.array_equal(decode_image(made(values)).pixels[:, :, 0], values)


def test_a_window_that_is_none_is_passed_over() -> None:
    plain = decode_image(made(RAMP))
    for width in ("0", "-5", None):
        assert np.array_equal(decode_image(made(RAMP, WindowCenter="40", WindowWidth=width)).pixels, plain.pixels)


def test_unused_bits_do_not_count() -> None:
    values = np.arange(1024, dtype=np.uint16).reshape(32, 32)
    overlaid = made(values | 0xF000, BitsStored=12, HighBit=11, WindowCenter="512", WindowWidth="1024")
    plain = made(values, WindowCenter="512", WindowWidth="1024")
    assert np.array_equal(decode_image(overlaid).pixels, decode_image(plain).pixels)


def test_any_frame_can_be_asked_for() -> None:
    values = np.stack([np.full((16, 16), 10 * n, dtype=np.uint8) for n in range(4)])
    data = made(values)
    assert [decode_image(data, frame=n).pixels[0, 0, 0] for n in range(4)] == [0, 10, 20, 30]
    assert (decode_image(data).frames, decode_image(data).removed_metadata) == (4, ("DICOM header", "other frames"))
    with pytest.raises(ImageError, match="has no frame 4; the frames are 0 to 3"):
        decode_image(data, frame=4)
    with pytest.raises(TooLargeError, match="has 4 frames; give a part of at most 3"):
        decode_image(data, limits=DecodeLimits(frames=3))


def test_a_frame_of_a_compressed_series_is_decoded_alone() -> None:
    second = decode_image(shipped("SC_rgb_rle_2frame.dcm"), frame=1).pixels
    assert np.array_equal(second, pixel_array(dcmread(SHIPPED / "SC_rgb_rle_2frame.dcm"), index=1))


def test_an_enhanced_object_keeps_its_window_with_each_frame() -> None:
    def group(intercept: str, center: str) -> Dataset:
        values, voi, frame = Dataset(), Dataset(), Dataset()
        values.RescaleSlope, values.RescaleIntercept = "2", intercept
        voi.WindowCenter, voi.WindowWidth = center, "400"
        frame.PixelValueTransformationSequence, frame.FrameVOILUTSequence = [values], [voi]
        return frame

    data = made(np.stack([RAMP, RAMP]), PerFrameFunctionalGroupsSequence=[group("0", "40"), group("-100", "60")])
    second = decode_image(data, frame=1)
    assert second.window == (60, 400)
    expected = np.clip(((RAMP * 2.0 - 100 - 59.5) / 399 + 0.5) * 255, 0, 255)
    assert np.array_equal(second.pixels[:, :, 0], np.rint(expected))


def test_of_the_header_only_the_list_is_kept() -> None:
    data = made(RAMP, BodyPartExamined="CHEST", ViewPosition="PA", StudyDescription="Jane's", BurnedInAnnotation="YES")
    found = decode_image(data)
    assert found.header_fields == {
        "Modality": "CT", "BodyPartExamined": "CHEST", "ViewPosition": "PA", "Rows": "32", "Columns": "32"
    }  # fmt: skip
    assert found.burned_in_annotation is True
    assert "Doe" not in repr(found)
    assert decode_image(made(RAMP, BurnedInAnnotation="NO")).burned_in_annotation is False
    assert decode_image(made(RAMP)).burned_in_annotation is None


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_name_in_a_listed_field_is_not_kept() -> None:
    assert "BodyPartExamined" not in decode_image(made(RAMP, BodyPartExamined="Jane Doe, 4711")).header_fields


def test_a_file_without_a_preamble_is_told_too() -> None:
    assert decode_image(shipped("MR_small.dcm")[132:]).format == "DICOM"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rtplan.dcm", "is DICOM of the class RT Plan, which has no picture of its own; give the image that belongs"),
        ("rtstruct.dcm", "is DICOM of the class RT Structure Set, which has no picture of its own"),
        ("test-SR.dcm", "is DICOM of the class Comprehensive SR, which has no picture of its own"),
        ("reportsi.dcm", "is DICOM of the class Basic Text SR, which has no picture of its own"),
        ("waveform_ecg.dcm", "is DICOM of the class 12-lead ECG Waveform, which has no picture of its own"),
        ("liver_1frame.dcm", "is DICOM of the class Segmentation, which has no picture of its own"),
        ("meta_missing_tsyntax.dcm", "without the element TransferSyntaxUID, and its 115 bytes of data are in no"),
    ],
)
def test_what_is_not_read_is_named(name: str, words: str) -> None:
    with pytest.raises(UnsupportedImageError, match=words):
        decode_image(shipped(name))


@pytest.mark.parametrize(
    ("identifier", "words"),
    [
        ("1.2.840.10008.5.1.4.1.1.11.1", "of the class Grayscale Softcopy Presentation State, which has no picture"),
        (
            "1.2.840.10008.5.1.4.1.1.88.59",
            "of the class Key Object Selection Document, which has no picture of its own",
        ),
        ("1.2.840.10008.5.1.4.1.1.104.1", "of the class Encapsulated PDF, which has no picture of its own"),
        ("1.2.840.10008.5.1.4.1.1.66.5", "of the class Surface Segmentation, which has no picture of its own"),
        ("1.2.840.10008.5.1.4.1.1.66.7", "of the class Label Map Segmentation, which has no picture of its own"),
        ("1.2.840.10008.5.1.4.1.1.2", "of the class CT Image without its pixels; get the whole file"),
        ("1.2.826.0.1.3680043.8.4711", "is DICOM without a picture; give an object that has pixels"),
    ],
)
def test_an_object_without_pixels_is_named_by_its_class(identifier: str, words: str) -> None:
    dataset = dcmread(io.BytesIO(made(RAMP, SOPClassUID=identifier)))
    del dataset.PixelData
    out = io.BytesIO()
    dataset.save_as(out)
    with pytest.raises(UnsupportedImageError, match=words) as failure:
        decode_image(out.getvalue())
    assert "4711" not in str(failure.value)


@pytest.mark.parametrize("elements", [{"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"},
                                      {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.7"},
                                      {"SOPClassUID": None, "Modality": "SEG"}])  # fmt: skip
def test_the_masks_of_a_segmentation_are_no_picture(elements: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedImageError, match="Segmentation, which has no picture of its own"):
        decode_image(made(RAMP, **elements))


def test_a_picture_of_one_bit_is_black_and_white() -> None:
    bits = shipped("liver_1frame.dcm").replace(b"1.2.840.10008.5.1.4.1.1.66.4", b"1.2.840.10008.5.1.4.1.1.7.1\0")
    assert np.unique(decode_image(bits).pixels).tolist() == [0, 255]


def test_a_reference_to_pixels_elsewhere_is_not_followed() -> None:
    with pytest.raises(UnsupportedImageError, match="transfer syntax JPIP Referenced, which is not read"):
        decode_image(
            shipped("MR_small_jp2klossless.dcm").replace(b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.94", 1)
        )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("MR_truncated.dcm", r"expected 8,192 bytes in the DICOM element PixelData \(64x64 pixels.*, got 8,130"),
        ("nested_priv_SQ.dcm", "the DICOM element Columns is absent"),
    ],
)
def test_a_damaged_file_is_refused_by_the_element_and_its_bytes(name: str, words: str) -> None:
    with pytest.raises(ImageError, match=rf"^a: {words}.*; (export|get) the "):
        decode_image(shipped(name), name="a")


def test_a_window_for_colors_is_refused() -> None:
    with pytest.raises(ImageError, match="a window is for gray pictures"):
        decode_image(shipped("examples_rgb_color.dcm"), window=(40, 400))


def peak_of(data: bytes, error: type[ImageError], words: str) -> int:
    tracemalloc.start()
    with pytest.raises(error, match=words):
        decode_image(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.slow
def test_a_deflated_bomb_is_not_inflated() -> None:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = shipped("image_dfl.dcm")
    body = squeezer.compress(bytes(600_000_000)) + squeezer.flush()
    meta = 132 + 12 + int.from_bytes(head[140:144], "little")
    assert len(body) < 1_000_000
    assert peak_of(head[:meta] + body, TooLargeError, "inflates to more than 80 million bytes") < 170_000_000


def test_a_header_that_claims_too_much_is_refused_before_decoding() -> None:
    data = made(np.zeros((16, 16), dtype=np.uint16), Rows=60_000, Columns=60_000)
    assert peak_of(data, TooLargeError, "is 60000x60000 pixels; make it smaller") < 1_000_000
    data = made(np.zeros((16, 16), dtype=np.uint16), NumberOfFrames=2_000_000_000)
    assert peak_of(data, TooLargeError, "has 2,000,000,000 frames") < 1_000_000


def test_a_stream_larger_than_its_header_is_refused_before_decoding() -> None:
    dataset = dcmread(SHIPPED / "693_J2KI.dcm")
    dataset.Rows = dataset.Columns = 100
    out = io.BytesIO()
    dataset.save_as(out)
    with pytest.raises(ImageError, match="header says 100x100 pixels and its compressed picture 512x512"):
        decode_image(out.getvalue())


def test_a_stream_without_a_header_is_refused() -> None:
    data = made(np.zeros((16, 16), dtype=np.uint8), PixelData=b"\0" * 256)
    dataset = dcmread(io.BytesIO(data))
    dataset.file_meta.TransferSyntaxUID = UID(JPEG2000Lossless)
    dataset.PixelData = encapsulate([b"nothing!" * 8])
    dataset["PixelData"].is_undefined_length = True
    out = io.BytesIO()
    dataset.save_as(out)
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode_image(out.getvalue())


def test_the_spacing_is_the_calibrated_one_or_else_that_of_the_detector() -> None:
    values = np.zeros((8, 9), np.uint16)
    detector = {"ImagerPixelSpacing": [0.2, 0.1]}
    assert decode_image(made(values)).spacing is None
    assert decode_image(made(values, **detector)).spacing == pytest.approx((0.1, 0.1))  # made square
    assert decode_image(made(values, PixelSpacing=[0.75, 0.5], **detector)).spacing == pytest.approx((0.5, 0.5))
    assert decode_image(made(values, PixelSpacing=[0.7, 0.7], **detector)).spacing == (0.7, 0.7)
    assert decode_image(made(values, PixelSpacing=[0, 0.5])).spacing is None


def test_the_spacing_of_an_enhanced_object_is_that_of_its_frame() -> None:
    data = made(
        np.zeros((2, 8, 9), np.uint16),
        NumberOfFrames=2,
        PerFrameFunctionalGroupsSequence=[
            dataset_of(PixelMeasuresSequence=[dataset_of(PixelSpacing=[size, size])]) for size in (0.5, 0.25)
        ],
    )
    assert [decode_image(data, frame=frame).spacing for frame in (0, 1)] == [(0.5, 0.5), (0.25, 0.25)]


def dataset_of(**elements: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset
