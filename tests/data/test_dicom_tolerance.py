"""DICOM files as they occur: without headers, with unusable optional elements, with values that mislead.

References: pydicom's own functions, GDCM's `gdcm.ImageReader` and, where it is installed, DCMTK's `dcm2pnm`.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

sys.path.insert(0, str(Path(__file__).parent))
from dicom_files import RAMP, SHIPPED, lut, made, shipped

from medical_vqa.data.imaging.decode import decode_image
from medical_vqa.errors import ImageError, TooLargeError, UnsupportedImageError

WINDOW = {"WindowCenter": "40", "WindowWidth": "400"}


def dcmtk(data: bytes, folder: Path, *options: str) -> np.ndarray:
    """The picture that DCMTK shows."""
    if shutil.which("dcm2pnm") is None:
        pytest.skip("DCMTK is not installed")
    source, target = folder / "in.dcm", folder / "out.pgm"
    source.write_bytes(data)
    subprocess.run(["dcmj2pnm", "--write-raw-pnm", *options, source, target], check=True, capture_output=True)
    return np.asarray(Image.open(target))


# --- elements whose length their type does not allow ----------------------------------------------------------------


@pytest.mark.parametrize("keyword", ["Rows", "BitsAllocated", "SamplesPerPixel"])
def test_an_element_of_an_impossible_length_is_refused_without_its_bytes(keyword: str) -> None:
    data = with_three_bytes(made(RAMP, **WINDOW), keyword)
    with pytest.raises(ImageError) as failure:
        decode_image(data)
    assert "export the file again" in str(failure.value)
    assert "JON" not in str(failure.value)


def test_an_optional_element_of_an_impossible_length_is_not_used() -> None:
    data = with_three_bytes(made(RAMP, LossyImageCompression="00", RepresentativeFrameNumber=1, **WINDOW),
                            "RepresentativeFrameNumber")  # fmt: skip
    assert np.array_equal(decode_image(data).pixels, decode_image(made(RAMP, **WINDOW)).pixels)


def with_three_bytes(file: bytes, keyword: str) -> bytes:
    """The file, with ``JON`` for the two bytes of an unsigned short."""
    tag = tag_for_keyword(keyword)
    element = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + b"US"
    start = file.index(element + b"\x02\x00")
    return file[:start] + element + b"\x03\x00JON" + file[start + 10 :]


# --- files without a Part 10 header -----------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_bare_dataset_is_the_same_picture_as_the_file(syntax: Any) -> None:
    values = RAMP.astype(RAMP.dtype.newbyteorder(">" if syntax == ExplicitVRBigEndian else "<"))
    file = made(values, syntax, **WINDOW)
    start = 132 + 12 + int.from_bytes(file[140:144], "little")
    assert np.array_equal(decode_image(file[start:]).pixels, decode_image(made(RAMP, **WINDOW)).pixels)


def test_a_dataset_behind_a_preamble_without_meta_information_is_read() -> None:
    file = made(RAMP, **WINDOW)
    start = 132 + 12 + int.from_bytes(file[140:144], "little")
    assert np.array_equal(decode_image(bytes(128) + b"DICM" + file[start:]).pixels, decode_image(file).pixels)


def test_meta_information_without_its_group_length_and_without_a_preamble_is_read() -> None:
    file = made(RAMP, **WINDOW)
    assert np.array_equal(decode_image(file[132 + 12 :]).pixels, decode_image(file).pixels)
    assert np.array_equal(decode_image(file[:132] + file[132 + 12 :]).pixels, decode_image(file).pixels)


def test_what_pydicom_writes_without_a_file_format_is_read() -> None:
    dataset = dcmread(SHIPPED / "MR_small.dcm")
    out = io.BytesIO()
    bare = Dataset(dataset)
    bare.save_as(out, implicit_vr=True, little_endian=True)
    assert np.array_equal(decode_image(out.getvalue()).pixels, decode_image(shipped("MR_small.dcm")).pixels)


# --- unusable optional elements ---------------------------------------------------------------------------------------


def with_text(keyword: str, text: str, **elements: Any) -> bytes:
    """A file whose element holds this text, whatever its type allows."""
    placeholder = "1" * (len(text) + len(text) % 2)
    data = made(RAMP, **{"RescaleIntercept": "0", **elements, keyword: placeholder})
    assert data.count(placeholder.encode()) == 1
    return data.replace(placeholder.encode(), text.ljust(len(placeholder)).encode())


@pytest.mark.parametrize("text", ["40,5555", "\\40.2222", "40;300;1", "40 HU...", "-+--+---"])
def test_an_unusable_window_is_no_window_and_is_warned(text: str) -> None:
    decoded = decode_image(with_text("WindowCenter", text, WindowWidth="400"))
    assert np.array_equal(decoded.pixels, decode_image(made(RAMP)).pixels)
    assert decoded.window_source == "percentiles"
    assert any("WindowCenter" in warning for warning in decoded.warnings)
    assert text.strip() not in " ".join(decoded.warnings)


@pytest.mark.parametrize("slope", [None, "0"])
def test_an_empty_or_zero_slope_is_one_and_is_warned(slope: str | None) -> None:
    decoded = decode_image(made(RAMP, RescaleSlope=slope, RescaleIntercept="0", **WINDOW))
    assert np.array_equal(decoded.pixels, decode_image(made(RAMP, **WINDOW)).pixels)
    assert "RescaleSlope is empty or zero; 1 was used" in decoded.warnings


def test_missing_samples_per_pixel_follow_from_the_colors() -> None:
    dataset = dcmread(io.BytesIO(made(RAMP, **WINDOW)))
    del dataset.SamplesPerPixel
    out = io.BytesIO()
    dataset.save_as(out)
    assert np.array_equal(decode_image(out.getvalue()).pixels, decode_image(made(RAMP, **WINDOW)).pixels)


def test_a_voi_lut_of_packed_bytes_is_read() -> None:
    stored = np.arange(256, dtype=np.uint16).reshape(16, 16)
    item = lut(np.zeros(1), 0, 8)
    item.LUTDescriptor, item.LUTData = [256, 0, 8], bytes(range(255, -1, -1))
    item["LUTData"].VR = "OW"
    decoded = decode_image(made(stored, VOILUTSequence=[item]))
    assert np.array_equal(decoded.pixels[:, :, 0], 255 - stored)
    assert decoded.window_source == "header LUT"


def test_a_voi_lut_that_is_too_short_is_left_out_and_warned() -> None:
    item = lut(np.zeros(10), 0, 12)
    item.LUTDescriptor = [4096, 0, 12]
    decoded = decode_image(made(RAMP, VOILUTSequence=[item], **WINDOW))
    assert np.array_equal(decoded.pixels, decode_image(made(RAMP, **WINDOW)).pixels)
    assert "VOILUTSequence cannot be used and was ignored" in decoded.warnings


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_number_of_frames_that_is_no_number_is_one_frame() -> None:
    decoded = decode_image(shipped("badVR.dcm"))
    assert (decoded.frame, decoded.frames) == (0, 1)


@pytest.mark.parametrize("keyword", ["Rows", "Columns", "BitsAllocated"])
def test_a_missing_element_that_a_picture_needs_is_named(keyword: str) -> None:
    dataset = dcmread(io.BytesIO(made(RAMP)))
    del dataset[keyword]
    out = io.BytesIO()
    dataset.save_as(out)
    with pytest.raises(ImageError, match=f"the DICOM element {keyword} is absent; export the file again"):
        decode_image(out.getvalue())


def test_of_a_file_that_ends_early_the_frames_before_its_end_are_read() -> None:
    values = np.stack([np.full((16, 16), shade, dtype=np.uint8) for shade in (10, 20, 30)])
    data = made(values)[:-100]
    decoded = decode_image(data, frame=1)
    assert decoded.pixels.max() == 20
    assert "the file ends early and holds 2 of 3 frames" in decoded.warnings
    with pytest.raises(ImageError, match=r"expected 768 bytes in the DICOM element PixelData .*, got 668"):
        decode_image(data, frame=2)


# --- compressed with 12 bits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_jpeg_of_12_bits_is_what_gdcm_reads(name: str) -> None:
    gdcm = pytest.importorskip("gdcm")
    reader = gdcm.ImageReader()
    reader.SetFileName(str(SHIPPED / name))
    assert reader.Read()
    raw = reader.GetImage().GetBuffer().encode("utf-8", errors="surrogateescape")
    values = np.frombuffer(raw, "<u2").reshape(1024, 256)
    decoded = decode_image(shipped(name))
    low, high = np.percentile(values, [0.5, 99.5])
    assert np.array_equal(decoded.pixels[:, :, 0], np.rint(np.clip((values - low) / (high - low), 0, 1) * 255))


# --- values that mislead ----------------------------------------------------------------------------------------------


def palette(entries: np.ndarray, bits: int, syntax: Any, values: np.ndarray) -> bytes:
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    words = entries.astype(f"{order}u2").tobytes() if entries.dtype != np.uint8 else entries.tobytes()
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for color in ("Red", "Green", "Blue"):
        elements[f"{color}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        elements[f"{color}PaletteColorLookupTableData"] = words
    return made(values, syntax, **elements)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize(("scale", "bits"), [(257, 16), (1, 16)], ids=["16 bits", "8 bits declared as 16"])
def test_a_palette_has_its_colors_in_either_byte_order_and_with_either_bits(syntax: Any, scale: int, bits: int) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    entries = (np.arange(255, -1, -1) * scale).astype(np.uint16)
    decoded = decode_image(palette(entries, bits, syntax, values))
    assert np.array_equal(decoded.pixels[:, :, 0], 255 - values)
    assert bool([warning for warning in decoded.warnings if "palette" in warning]) == (scale == 1)


def test_a_palette_of_packed_bytes_that_declares_16_bits_has_its_colors() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    entries = np.arange(255, -1, -1).astype(np.uint8)
    assert np.array_equal(
        decode_image(palette(entries, 16, ExplicitVRLittleEndian, values)).pixels[:, :, 1], 255 - values
    )


def test_a_voi_lut_that_declares_16_bits_and_holds_8_is_not_black() -> None:
    stored = np.arange(256, dtype=np.uint16).reshape(16, 16)
    decoded = decode_image(made(stored, VOILUTSequence=[lut(np.arange(256), 0, 16)]))
    assert np.array_equal(decoded.pixels[:, :, 0], stored)
    assert any("VOI LUT" in warning for warning in decoded.warnings)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_values_above_unused_low_bits_are_what_dcmtk_shows(dtype: Any, tmp_path: Path) -> None:
    plain = np.arange(-512 if dtype == np.int16 else 0, 512 if dtype == np.int16 else 1024, dtype=dtype).reshape(32, 32)
    window = {"WindowCenter": "100", "WindowWidth": "600"}
    shifted = made((plain << 4).astype(dtype), BitsStored=12, HighBit=15, **window)
    assert np.array_equal(decode_image(shifted).pixels, decode_image(made(plain, **window)).pixels)
    assert np.abs(decode_image(shifted).pixels[:, :, 0].astype(int) - dcmtk(shifted, tmp_path, "+Wi", "1")).max() <= 1


def test_a_sequence_of_a_million_items_is_refused_before_they_are_parsed() -> None:
    """Which took minutes, of a file of 8 MB."""
    data = made(RAMP, PerFrameFunctionalGroupsSequence=[Dataset()])
    start = data.index(b"\x00\x52\x30\x92SQ")
    head, rest = data[:start], data[start + 12 + 8 :]
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 1_000_000
    sequence = b"\x00\x52\x30\x92SQ\0\0" + len(items).to_bytes(4, "little") + items
    with pytest.raises(TooLargeError, match="more than 100,000 items in the sequences of its DICOM header"):
        decode_image(head + sequence + rest)


@pytest.mark.parametrize("frame", range(3))
def test_frames_of_one_bit_follow_each_other_without_filling_bits(frame: int) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (3, 9, 11)).astype(np.uint8)  # 99 bits a frame
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    data = made(bits, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=packed)
    assert np.array_equal(decode_image(data, frame=frame).pixels[:, :, 0], 255 * bits[frame])


RGB = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)


def colored(photometric: str) -> bytes:
    elements = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PixelData": RGB.tobytes()}
    return made(RGB[:, :, 0], PhotometricInterpretation=photometric, **elements)


@pytest.mark.parametrize("photometric", ["HSV", "CMYK", "ARGB", "YBR_PARTIAL_422", "YBR_PARTIAL_420"])
def test_colors_of_a_kind_that_is_not_read_are_refused_and_never_taken_for_red_green_and_blue(photometric: str) -> None:
    with pytest.raises(UnsupportedImageError, match="PhotometricInterpretation; convert them to RGB"):
        decode_image(colored(photometric))


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_a_color_space_in_small_letters_is_the_same_one() -> None:
    assert np.array_equal(decode_image(colored("rgb")).pixels, RGB)
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    inverted = decode_image(made(ramp, PhotometricInterpretation="monochrome1")).pixels[:, :, 0]
    assert np.array_equal(inverted, 255 - ramp)


def test_colors_of_a_compressed_stream_are_those_of_dcmtk_whatever_the_header_calls_them(tmp_path: Path) -> None:
    dataset = dcmread(SHIPPED / "SC_rgb_dcmtk_+eb+cy+np.dcm")
    dataset.PhotometricInterpretation = "YBR_PARTIAL_422"
    out = io.BytesIO()
    dataset.save_as(out)
    expected = dcmtk(out.getvalue(), tmp_path)
    assert np.abs(decode_image(out.getvalue()).pixels.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", [None, "IDENTITY", "INVERSE"])
def test_black_and_white_are_those_of_dcmtk(photometric: str, shape: str | None, tmp_path: Path) -> None:
    data = made(
        np.arange(1024, dtype=np.uint16).reshape(32, 32),
        PhotometricInterpretation=photometric,
        PresentationLUTShape=shape,
        WindowCenter="512",
        WindowWidth="1024",
    )
    decoded = decode_image(data)
    assert np.abs(decoded.pixels[:, :, 0].astype(int) - dcmtk(data, tmp_path, "+Wi", "1")).max() <= 1
    contradicting = (photometric, shape) in {("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")}
    assert any("PresentationLUTShape" in warning for warning in decoded.warnings) == contradicting


def test_a_voi_lut_within_the_functional_groups_of_a_frame_is_used() -> None:
    stored = np.arange(256, dtype=np.uint16).reshape(16, 16)

    def group(entries: np.ndarray) -> Dataset:
        voi, frame = Dataset(), Dataset()
        voi.VOILUTSequence = [lut(entries, 0, 8)]
        frame.FrameVOILUTSequence = [voi]
        return frame

    groups = [group(np.arange(256)), group(np.arange(255, -1, -1))]
    data = made(np.stack([stored, stored]), PerFrameFunctionalGroupsSequence=groups)
    assert np.array_equal(decode_image(data, frame=0).pixels[:, :, 0], stored)
    assert np.array_equal(decode_image(data, frame=1).pixels[:, :, 0], 255 - stored)


def test_a_range_of_padding_does_not_count_and_is_black() -> None:
    values = RAMP.copy()
    values[:4], values[4:6] = 30000, 30005
    data = made(values, PixelPaddingValue=30000, PixelPaddingRangeLimit=30005)
    decoded = decode_image(data)
    low, high = np.percentile(values[6:].astype(float), [0.5, 99.5])
    assert decoded.window == pytest.approx(((low + high) / 2, high - low))
    assert (decoded.pixels[:6].max(), decoded.pixels[-1, -1, 0]) == (0, 255)


def test_padding_that_is_stated_without_a_sign_counts_as_signed() -> None:
    values = RAMP.copy()
    values[:4] = -2000
    data = bytearray(made(values, PixelPaddingValue=-2000))
    at = data.find(b"\x28\x00\x20\x01SS")
    data[at + 4 : at + 6] = b"US"
    low, high = np.percentile(values[4:].astype(float), [0.5, 99.5])
    assert decode_image(bytes(data)).window == pytest.approx(((low + high) / 2, high - low))


def test_padding_of_an_inverted_picture_is_black() -> None:
    values = RAMP.copy()
    values[:4] = -2000
    data = made(values, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=-2000, **WINDOW)
    assert decode_image(data).pixels[:4].max() == 0


@pytest.mark.parametrize(
    ("elements", "shape"),
    [
        ({"PixelSpacing": ["2", "1"]}, (64, 32)),
        ({"PixelSpacing": ["0.5", "1"]}, (32, 64)),
        ({"PixelAspectRatio": ["3", "2"]}, (48, 32)),
        ({"ImagerPixelSpacing": ["1", "1"]}, (32, 32)),
        ({"PixelSpacing": ["0", "1"]}, (32, 32)),
    ],
)
def test_pixels_that_are_not_square_are_resampled_to_the_size_that_dcmtk_shows(
    elements: Any, shape: tuple[int, int], tmp_path: Path
) -> None:
    data = made(RAMP, **WINDOW, **elements)
    decoded = decode_image(data)
    assert decoded.pixels.shape == (*shape, 1)
    assert (decoded.header_fields["Rows"], decoded.header_fields["Columns"]) == ("32", "32")
    if shape != (32, 32):
        shown = dcmtk(data, tmp_path, "+Wi", "1", "+a", "+Sxv" if shape[1] > 32 else "+Syv", str(max(shape)))
        assert shown.shape == shape
        assert np.abs(shown.astype(int) - decoded.pixels[:, :, 0]).mean() < 3


@pytest.mark.parametrize(
    ("orientation", "plane"),
    [([1, 0, 0, 0, 1, 0], "axial"), ([1, 0, 0, 0, 0, -1], "coronal"), ([0, 1, 0, 0, 0, -1], "sagittal")],
)
def test_the_plane_follows_from_the_orientation(orientation: list[int], plane: str) -> None:
    assert decode_image(made(RAMP, ImageOrientationPatient=orientation)).plane == plane
    assert decode_image(made(RAMP)).plane is None


def test_the_middle_frame_is_the_default() -> None:
    values = np.stack([np.full((16, 16), 10 * n, dtype=np.uint8) for n in range(5)])
    assert (decode_image(made(values)).frame, decode_image(made(values)).pixels[0, 0, 0]) == (2, 20)


def test_a_directory_is_named() -> None:
    data = (SHIPPED / "dicomdirtests" / "DICOMDIR").read_bytes()
    with pytest.raises(UnsupportedImageError, match="is a DICOMDIR, a list of files without a picture; give"):
        decode_image(data)


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"BurnedInAnnotation": "YES"}, "says that text is burned into the picture"),
        ({"Modality": "US"}, "does not say whether text is burned"),
        ({"Modality": "OT"}, "does not say whether text is burned"),
        ({"Modality": "US", "BurnedInAnnotation": "NO"}, None),
    ],
)
def test_burned_in_text_is_warned_where_it_is_stated_or_likely(elements: Any, words: str | None) -> None:
    warnings = decode_image(made(RAMP, SOPClassUID="1.2.840.10008.5.1.4.1.1.2", **elements)).warnings
    assert (words is None and not warnings) or words in " ".join(warnings)


@pytest.mark.parametrize("keyword", ["BodyPartExamined", "ViewPosition", "Modality"])
@pytest.mark.parametrize("value", ["SMITH JOHN", "JANE", "19700101", "4711"])
def test_a_value_that_the_standard_does_not_define_is_not_kept(keyword: str, value: str) -> None:
    decoded = decode_image(made(RAMP, **{keyword: value}))
    assert keyword not in decoded.header_fields
    assert value not in repr(decoded)


def test_frames_and_windows_are_those_of_pydicom_in_a_real_enhanced_file() -> None:
    decoded = decode_image(shipped("SC_rgb_rle_2frame.dcm"))
    assert np.array_equal(decoded.pixels, pixel_array(dcmread(SHIPPED / "SC_rgb_rle_2frame.dcm"), index=1))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_progressive_jpeg_is_read_in_every_transfer_syntax_that_may_hold_it(syntax: str, progressive: bool) -> None:
    smooth = np.add.outer(np.arange(64), 2 * np.arange(64)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(smooth).save(stream, "JPEG", quality=95, progressive=progressive)
    dataset = dcmread(io.BytesIO(made(smooth)))
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = encapsulate([stream.getvalue()])
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    expected = np.asarray(Image.open(stream))
    assert np.array_equal(decode_image(out.getvalue()).pixels[:, :, 0], expected)


@pytest.mark.skipif(shutil.which("dcmcjpeg") is None, reason="DCMTK is not installed")
@pytest.mark.parametrize("option", ["--encode-extended", "--encode-spectral", "--encode-progressive"])
def test_12_bits_are_read_from_every_lossy_process_that_dcmtk_writes(option: str, tmp_path: Path) -> None:
    pytest.importorskip("gdcm")
    smooth = np.add.outer(16 * np.arange(64), 32 * np.arange(64)).astype(np.uint16)
    plain = made(smooth, BitsStored=12, HighBit=11)
    (tmp_path / "plain.dcm").write_bytes(plain)
    subprocess.run(["dcmcjpeg", option, tmp_path / "plain.dcm", tmp_path / "coded.dcm"], check=True)
    coded = decode_image((tmp_path / "coded.dcm").read_bytes()).pixels.astype(int)
    assert np.abs(coded - decode_image(plain).pixels).max() <= 1
