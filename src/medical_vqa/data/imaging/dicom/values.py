"""Stored values of one frame of a DICOM dataset, decompressed and checked against what its header states."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from medical_vqa.data.imaging.containers import end_of, stream_size
from medical_vqa.data.imaging.dicom.dataset import (
    DICOM_ERRORS,
    PIXEL_KEYWORDS,
    PLAIN_SYNTAXES,
    Frame,
    transfer_syntax_name,
)
from medical_vqa.data.imaging.dicom.object_kind import describe_without_picture, is_about_images
from medical_vqa.data.imaging.raster import check_size
from medical_vqa.errors import ImageError, TooLargeError, UnsupportedImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medical_vqa.data.imaging.decoded_frame import DecodeLimits

# One decoder each, not whichever is installed: the same file gives the same pixels everywhere.
_DECODERS = {
    RLELossless: "pylibjpeg",
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: "pillow",
    JPEGLossless: "gdcm",
    JPEGLosslessSV1: "gdcm",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
    HTJ2K: "pylibjpeg",
}
_COLORS = {"MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR"}
_MAX_FRAGMENTS = 65_536
_PIXEL_MODULE = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip
"""What a decoder must know."""
_ITEM = b"\xfe\xff\x00\xe0"
_BITS = {"PixelData": (1, 8, 16, 32, 64), "FloatPixelData": (32,), "DoubleFloatPixelData": (64,)}


def check_dataset(dataset: Dataset, name: str, limits: DecodeLimits, index: int | None) -> tuple[int, int]:
    """The frame to decode and the number of frames.

    Args:
        dataset: Elements on the allow-list; absent ones that the others determine are added.
        name: What messages call the image.
        limits: Limits of pixels and frames.
        index: The frame, from 0; None for the middle one.

    Raises:
        UnsupportedImageError: There are no pixels, or none of a type that is read.
        TooLargeError: The header states more than the limits allow.
        ImageError: A needed element is absent, or there is no such frame.
    """
    if is_about_images(dataset):
        raise _without_picture(dataset, name)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in PLAIN_SYNTAXES and syntax not in _DECODERS:
        raise UnsupportedImageError(
            f"{name}: has the DICOM transfer syntax {transfer_syntax_name(syntax)}, which is not read; "
            "convert it to Explicit VR Little Endian"
        )
    if not any(key in dataset for key in PIXEL_KEYWORDS):
        raise _without_picture(dataset, name)
    columns, rows = _needed(dataset, "Columns", name), _needed(dataset, "Rows", name)
    check_size((columns, rows), name, limits.pixels, limits.advice("pixels"))
    _complete(dataset)
    samples, frames = _needed(dataset, "SamplesPerPixel", name), _frame_count(dataset)
    if samples not in (1, 3):
        raise UnsupportedImageError(f"{name}: has {samples} samples in a pixel; give a gray or an RGB picture")
    if samples == 3 and dataset.PhotometricInterpretation not in _COLORS:
        raise UnsupportedImageError(
            f"{name}: has colors of another kind than RGB, YBR_FULL and YBR_FULL_422 in the DICOM element "
            "PhotometricInterpretation; convert them to RGB"
        )
    if frames > limits.frames:
        raise TooLargeError(
            f"{name}: has {frames:,} frames; give a part of at most {limits.frames:,}{limits.advice('frames')}"
        )
    selected = frames // 2 if index is None else index
    if not 0 <= selected < frames:
        raise ImageError(f"{name}: has no frame {index}; the frames are 0 to {frames - 1}")
    return selected, frames


def _without_picture(dataset: Dataset, name: str) -> UnsupportedImageError:
    what, advice = describe_without_picture(dataset)
    return UnsupportedImageError(f"{name}: is {what}; {advice}")


def _needed(dataset: Dataset, keyword: str, name: str) -> int:
    """A whole number without which there is no picture."""
    try:
        value = dataset.get(keyword)
        return int(value)
    except DICOM_ERRORS as error:
        state = "has no usable value" if keyword in dataset else "is absent"
        raise ImageError(f"{name}: the DICOM element {keyword} {state}; export the file again") from error


def _frame_count(dataset: Dataset) -> int:
    """The number of frames; 1 where the header has no usable one, as of a picture that needs none."""
    try:
        return max(1, int(dataset.get("NumberOfFrames") or 1))
    except DICOM_ERRORS:
        del dataset["NumberOfFrames"]
        return 1


def _complete(dataset: Dataset) -> None:
    """Add elements that writers leave out although others determine them."""
    photometric = stated = str(dataset.get("PhotometricInterpretation") or "")
    photometric = photometric.strip().upper()
    if photometric.startswith("YBR_PARTIAL") and dataset.file_meta.TransferSyntaxUID not in PLAIN_SYNTAXES:
        photometric = "YBR_FULL_422"  # a stream says itself how its colors are stored, as DCMTK reads it
    if photometric != stated:
        dataset.PhotometricInterpretation = photometric
    if dataset.get("SamplesPerPixel") is None:
        colored = photometric.startswith(("RGB", "YBR"))
        dataset.SamplesPerPixel = 3 if colored else 1
    if not photometric:
        dataset.PhotometricInterpretation = "RGB" if dataset.SamplesPerPixel == 3 else "MONOCHROME2"
    if dataset.SamplesPerPixel == 3 and dataset.get("PlanarConfiguration") is None:
        dataset.PlanarConfiguration = 0
    if "PixelData" in dataset:
        if dataset.get("BitsStored") is None and dataset.get("BitsAllocated") is not None:
            dataset.BitsStored = dataset.BitsAllocated
        if dataset.get("PixelRepresentation") is None:
            dataset.PixelRepresentation = 0


def stored_values(frame: Frame) -> NDArray[Any]:
    """The values of a frame: (rows, columns), or (rows, columns, 3) in RGB; raises `ImageError`."""
    dataset, name = frame.dataset, frame.name
    keyword = next(key for key in PIXEL_KEYWORDS if key in dataset)
    bits = _needed(dataset, "BitsAllocated", name) if keyword == "PixelData" else _BITS[keyword][0]
    if bits not in _BITS[keyword]:
        raise UnsupportedImageError(f"{name}: has BitsAllocated {bits}; give a picture of 1, 8, 16 or 32 bits")
    plugin = _DECODERS.get(dataset.file_meta.TransferSyntaxUID, "")
    if not plugin:
        shift = _check_length(frame, keyword, bits)
        if bits == 1:
            return _single_bits(frame)
        values = _decoded(frame, dataset, frame.index, "")
        return values >> shift if shift else values
    if dataset.file_meta.TransferSyntaxUID == JPEGExtended12Bit and _needed(dataset, "BitsStored", name) > 8:
        plugin = "gdcm"
    _check_plugin(frame, plugin)
    stream = _check_stream(frame)
    if plugin == "gdcm" and dataset.file_meta.TransferSyntaxUID == JPEGExtended12Bit:
        return _decoded_by_gdcm(frame, stream)
    return _decoded(frame, _of_one_frame(dataset, stream), 0, plugin)


def _check_length(frame: Frame, keyword: str, bits: int) -> int:
    """Compare the bytes of pixels with what the header states; returns by how many bits the values are shifted.

    A file that ends early still has the frames before its end.
    """
    dataset, name = frame.dataset, frame.name
    data = dataset[keyword].value or b""
    samples = dataset.SamplesPerPixel
    per_pixel = 2 if dataset.PhotometricInterpretation == "YBR_FULL_422" and samples == 3 else samples
    frame_bits = int(dataset.Rows) * int(dataset.Columns) * per_pixel * bits
    frames = int(dataset.get("NumberOfFrames") or 1)
    needed, end = (frame_bits * frames + 7) // 8, (frame_bits * (frame.index + 1) + 7) // 8
    if len(data) < end:
        raise ImageError(
            f"{name}: expected {needed:,} bytes in the DICOM element {keyword} ({dataset.Columns}x{dataset.Rows} "
            f"pixels, {samples} x {bits} bits, {frames} frames), got {len(data):,}; get the whole file"
        )
    if len(data) < needed:
        complete = len(data) * 8 // frame_bits
        dataset.NumberOfFrames = complete
        frame.warn(f"the file ends early and holds {complete} of {frames} frames")
    stored, high = frame.numbers(dataset, "BitsStored"), frame.numbers(dataset, "HighBit")
    if keyword != "PixelData" or bits < 8 or not stored or not high:
        return 0
    shift = int(high[0]) + 1 - int(stored[0])
    if not 0 < shift < bits or int(high[0]) >= bits:
        return 0
    dataset.BitsStored = int(high[0]) + 1  # so that the decoder does not cut the high bits off
    return shift


def _single_bits(frame: Frame) -> NDArray[np.uint8]:
    """A frame of 1 bit a pixel; frames follow each other without filling bits. Source: PS3.5, 8.1.1."""
    rows, columns = int(frame.dataset.Rows), int(frame.dataset.Columns)
    first = frame.index * rows * columns
    packed = np.frombuffer(frame.dataset.PixelData, np.uint8)[first // 8 : (first + rows * columns + 7) // 8]
    bits = np.unpackbits(packed, bitorder="little")[first % 8 :][: rows * columns]
    return bits.reshape(rows, columns)


def _of_one_frame(dataset: Dataset, stream: bytes) -> Dataset:
    """A dataset of one compressed frame, without the others, among which a decoder would search for it again."""
    single = Dataset()
    for keyword in _PIXEL_MODULE:
        if keyword in dataset:
            single[keyword] = dataset[keyword]
    single.PixelData = encapsulate([stream])
    single["PixelData"].is_undefined_length = True
    single.file_meta = dataset.file_meta
    return single


def _decoded(frame: Frame, source: Dataset, index: int, plugin: str) -> NDArray[Any]:
    dataset = frame.dataset
    try:
        return pixel_array(source, index=index, decoding_plugin=plugin)
    except BaseException as error:
        if isinstance(error, DICOM_ERRORS) or type(error).__name__ == "PanicException":  # of a decoder in Rust
            size = len(next(dataset[key].value or b"" for key in PIXEL_KEYWORDS if key in dataset))
            raise ImageError(
                f"{frame.name}: frame {frame.index} cannot be decoded from the {size:,} bytes of pixels "
                f"({transfer_syntax_name(dataset.file_meta.TransferSyntaxUID)}, {dataset.Columns}x{dataset.Rows} "
                f"pixels); export the file again"
            ) from error
        raise


def _check_plugin(frame: Frame, plugin: str) -> None:
    syntax = frame.dataset.file_meta.TransferSyntaxUID
    if plugin == "gdcm" and syntax == JPEGExtended12Bit:
        with contextlib.suppress(ImportError):
            import gdcm  # noqa: F401, PLC0415 - an extra

            return
    elif plugin in get_decoder(syntax).available_plugins:
        return
    extra = "gdcm" if plugin == "gdcm" else "dicom"
    raise UnsupportedImageError(
        f"{frame.name}: is compressed as {syntax.name}, which needs another package; "
        f"run: pip install 'medical-vqa[{extra}]'"
    )


def _check_stream(frame: Frame) -> bytes:
    """The compressed frame; raises `ImageError` where it decodes to another size than the header states."""
    dataset, name = frame.dataset, frame.name
    if not frame.streams and dataset.PixelData.count(_ITEM) > _MAX_FRAGMENTS:
        raise ImageError(f"{name}: its picture is cut into too many fragments; export the file again")
    try:
        stream = _stream(frame)
        if dataset.file_meta.TransferSyntaxUID == RLELossless:
            return stream  # its decoder allocates by the header alone
        width, height, components = stream_size(stream)
    except DICOM_ERRORS as error:
        raise ImageError(
            f"{name}: frame {frame.index} cannot be decoded: there is no {dataset.file_meta.TransferSyntaxUID.name} "
            f"stream for it in the {len(dataset.PixelData):,} bytes of PixelData; export the file again"
        ) from error
    try:
        end_of(stream)
    except ValueError as error:
        raise ImageError(
            f"{name}: frame {frame.index} cannot be decoded: it has {error}; export the file again"
        ) from error
    if components not in (1, 3):
        raise UnsupportedImageError(f"{name}: its picture has {components} components; give a gray or RGB one")
    if (width, height) != (dataset.Columns, dataset.Rows):
        raise ImageError(
            f"{name}: its header says {dataset.Columns}x{dataset.Rows} pixels and its compressed picture "
            f"{width}x{height}; export the file again"
        )
    return stream


def _stream(frame: Frame) -> bytes:
    """The compressed frame. Without a table of their offsets all must be searched, which is done once for a series."""
    dataset, streams = frame.dataset, frame.streams
    extended = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths) if 0x7FE00001 in dataset else None
    frames = int(dataset.get("NumberOfFrames") or 1)
    if streams is None:
        return get_frame(dataset.PixelData, frame.index, extended_offsets=extended, number_of_frames=frames)
    if not streams:
        streams += generate_frames(dataset.PixelData, extended_offsets=extended, number_of_frames=frames)
    return streams[frame.index]


def _decoded_by_gdcm(frame: Frame, stream: bytes) -> NDArray[Any]:
    """A frame that pydicom's plug-ins do not decode, through GDCM's own reader, which reads from files alone."""
    import gdcm  # noqa: PLC0415 - an extra

    source = frame.dataset
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = UID("2.25.1")
    meta.TransferSyntaxUID = UID(JPEGExtended12Bit)
    single = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    single.SOPClassUID = meta.MediaStorageSOPClassUID
    single.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    for keyword in ("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored"):
        setattr(single, keyword, source.get(keyword))
    single.HighBit = int(source.BitsStored) - 1
    single.PixelRepresentation = int(source.PixelRepresentation)
    single.PixelData = encapsulate([stream])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.dcm"
        single.save_as(path, enforce_file_format=True)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        if not reader.Read():
            raise ImageError(
                f"{frame.name}: frame {frame.index} cannot be decoded from its {len(stream):,} bytes of "
                f"{JPEGExtended12Bit.name}; export the file again"
            )
        # GDCM gives its bytes as text in which each surrogate stands for a byte that is no character.
        raw = reader.GetImage().GetBuffer().encode("utf-8", errors="surrogateescape")
    bits = int(source.BitsAllocated)
    dtype = np.dtype(f"<{'i' if source.PixelRepresentation else 'u'}{bits // 8}")
    rows, columns, samples = int(source.Rows), int(source.Columns), int(source.SamplesPerPixel)
    shape = (rows, columns) if samples == 1 else (rows, columns, samples)
    return np.frombuffer(raw, dtype, count=rows * columns * samples).reshape(shape)
