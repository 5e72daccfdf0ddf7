"""DICOM files: the pixels of one frame in 8 bits, and the header fields on an allow-list.

The parser receives the list, so names, dates and identifiers of patients are never read.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from medical_vqa.data.imaging.containers import stream_size
from medical_vqa.data.imaging.decoded_frame import DecodedFrame, DecodeLimits
from medical_vqa.data.imaging.geometry import Spacing, valid_spacing
from medical_vqa.data.imaging.raster import DECODER_ERRORS, check_size
from medical_vqa.data.imaging.suppress_warnings import suppress_warnings
from medical_vqa.data.imaging.windowing import Ramp, percentile_range, ramp, sigmoid, to_8_bits
from medical_vqa.errors import ImageError, TooLargeError, UnsupportedImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEADER_FIELDS = ("Modality", "BodyPartExamined", "ViewPosition")
_TAGS: list[Any] = [
    0x00080060, 0x00180015, 0x00185101, 0x00280301,  # Modality, BodyPartExamined, ViewPosition, BurnedInAnnotation
    0x00181164, 0x00280030, 0x00289110,  # imager pixel spacing, pixel spacing, pixel measures
    0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011,  # samples, colors, frames, rows, columns
    0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280120,  # bits, sign, padding
    0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00281056,  # window, rescale, VOI LUT function
    *range(0x00281101, 0x00281104), *range(0x00281201, 0x00281204), *range(0x00281221, 0x00281224),  # palettes
    0x00283000, 0x00283010, 0x52009229, 0x52009230,  # modality LUT, VOI LUT, functional groups
    0x7FE00001, 0x7FE00002, 0x7FE00008, 0x7FE00009, 0x7FE00010,  # pixels
]  # fmt: skip
_PLAIN = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
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
_LONG_VALUES = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_CODE = re.compile(r"[A-Z0-9_ ]{1,16}")  # values of VR CS; anything else could be a name


_MAX_READS = 500_000  # of the parser, which takes microseconds for each: limits the elements of a header
_MAX_FRAGMENTS = 65_536
_ITEM = b"\xfe\xff\x00\xe0"


class _Reader(io.BytesIO):
    """A file with a limited number of reads."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.remaining = _MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self.remaining -= 1
        if self.remaining < 0:
            raise ValueError(f"more than {_MAX_READS:,} reads")
        return super().read(size)


@dataclass(frozen=True, slots=True)
class _Frame:
    """One frame of a DICOM dataset, with the meaning of its pixels."""

    dataset: Dataset
    index: int
    name: str

    def group(self, sequence: str) -> Dataset:
        """A module's attributes for this frame: its functional group in an enhanced object, else the dataset."""
        for place, index in (("PerFrameFunctionalGroupsSequence", self.index), ("SharedFunctionalGroupsSequence", 0)):
            groups = self.dataset.get(place) or []
            if index < len(groups) and groups[index].get(sequence):
                return groups[index][sequence].value[0]  # type: ignore[no-any-return]
        return self.dataset


def read_dicom(
    data: bytes, name: str, *, limits: DecodeLimits, frame: int = 0, window: tuple[float, float] | None = None
) -> DecodedFrame:
    """Decode one frame of a DICOM file.

    Values pass the modality LUT or rescaling, then `window`, or else the VOI LUT or the first window of the header.
    Without any of these 8-bit values are unchanged and others are mapped from their 0.5th and 99.5th percentile to
    0..255. MONOCHROME1 is inverted; YBR and palettes become RGB.

    Args:
        data: The file's bytes.
        name: What messages call the image.
        limits: Limits that are checked before anything is inflated or decoded.
        frame: The frame, from 0.
        window: Center and width of the values to show.

    Raises:
        TooLargeError: A limit is exceeded.
        UnsupportedImageError: A transfer syntax or pixel type that is not supported, or needs an extra.
        ImageError: Damaged, truncated or without pixels, no such frame, or a window for a color image.
    """
    try:
        with suppress_warnings("pydicom"):
            return _read(data, name, limits, frame, window)
    except (*DECODER_ERRORS, InvalidDicomError) as error:  # its text may quote the header
        raise ImageError(
            f"{name}: expected a whole DICOM picture, but it cannot be decoded; export the file again"
        ) from error


def _read(data: bytes, name: str, limits: DecodeLimits, index: int, window: tuple[float, float] | None) -> DecodedFrame:
    dataset = _dataset(data, name, limits)
    frames = _check(dataset, name, limits, index)
    frame = _Frame(dataset, index, name)
    values = _values(frame)  # (rows, columns) or (rows, columns, 3)
    if values.ndim == 2:
        pixels, used_window = _gray_pixels(values, frame, window)
    elif window is None:
        pixels, used_window = _color_pixels(values, dataset), None
    else:
        raise ImageError(f"{name}: a window is for gray pictures, and this one has colors; leave it out")
    return DecodedFrame(
        pixels,
        "DICOM",
        removed_metadata=("DICOM header", "other frames") if frames > 1 else ("DICOM header",),
        header_fields=_header_fields(dataset),
        burned_in_annotation={"YES": True, "NO": False}.get(str(dataset.get("BurnedInAnnotation", "")).strip()),
        frame=index,
        frames=frames,
        window=used_window,
        spacing=_spacing(frame),
    )


def _dataset(data: bytes, name: str, limits: DecodeLimits) -> Dataset:
    """The elements on the allow-list; deflated ones are inflated no further than the limit."""
    syntax, start = _file_meta(data)
    if syntax not in _PLAIN and syntax not in _DECODERS:
        known = syntax.name if re.fullmatch(r"[0-9.]{1,64}", syntax) else "of no name"
        raise UnsupportedImageError(
            f"{name}: has the DICOM transfer syntax {known}, which is not read; convert it to Explicit VR Little Endian"
        )
    body = data[start:]
    if syntax == DeflatedExplicitVRLittleEndian:
        body = _inflated(body, name, limits)
        syntax = ExplicitVRLittleEndian
    dataset = read_dataset(
        _Reader(body),
        is_implicit_VR=syntax == ImplicitVRLittleEndian,
        is_little_endian=syntax != ExplicitVRBigEndian,
        specific_tags=_TAGS,
    )
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def _file_meta(data: bytes) -> tuple[UID, int]:
    """The transfer syntax, and the offset of the dataset. Source: PS3.10 section 7.1."""
    at = 132 if data[128:132] == b"DICM" else 0
    syntax = b""
    while data[at : at + 2] == b"\x02\x00":
        element, vr = data[at + 2 : at + 4], data[at + 4 : at + 6]
        if vr in _LONG_VALUES:
            (length,), header = struct.unpack_from("<I", data, at + 8), 12
        else:
            (length,), header = struct.unpack_from("<H", data, at + 6), 8
        if element == b"\x10\x00":
            syntax = data[at + header : at + header + length]
        at += header + length
    return UID(syntax[:64].decode("ascii").strip("\x00 ")), at


def _inflated(body: bytes, name: str, limits: DecodeLimits) -> bytes:
    limit = 4 * limits.file_bytes
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, limit + 1)
    if len(inflated) > limit:
        raise TooLargeError(
            f"{name}: inflates to more than {limit / 1e6:g} million bytes; convert it to an "
            "uncompressed transfer syntax"
        )
    return inflated


def _check(dataset: Dataset, name: str, limits: DecodeLimits, index: int) -> int:
    """The number of frames; raises before anything is decoded where the header states too much or too little."""
    if not any(key in dataset for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise UnsupportedImageError(f"{name}: is DICOM without a picture; give an object that has pixels")
    check_size((int(dataset.Columns), int(dataset.Rows)), name, limits.pixels)
    samples, frames = int(dataset.SamplesPerPixel), int(dataset.get("NumberOfFrames") or 1)
    if samples not in (1, 3):
        raise UnsupportedImageError(f"{name}: has {samples} samples in a pixel; give a gray or an RGB picture")
    if frames > limits.frames:
        raise TooLargeError(f"{name}: has {frames:,} frames; give a part of at most {limits.frames:,}")
    if not 0 <= index < frames:
        raise ImageError(f"{name}: has no frame {index}; the frames are 0 to {frames - 1}")
    return frames


def _values(frame: _Frame) -> NDArray[Any]:
    dataset = frame.dataset
    plugin = _DECODERS.get(dataset.file_meta.TransferSyntaxUID, "")
    if plugin:
        _check_plugin(frame, plugin)
        _check_stream(frame)
    values = _decoded(dataset, frame.index, plugin)
    return apply_color_lut(values, dataset) if dataset.PhotometricInterpretation == "PALETTE COLOR" else values


def _decoded(dataset: Dataset, index: int, plugin: str) -> NDArray[Any]:
    try:
        return pixel_array(dataset, index=index, decoding_plugin=plugin)
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # of the RLE decoder, in Rust; it cannot be imported
            raise ValueError(str(error)) from error
        raise


def _check_plugin(frame: _Frame, plugin: str) -> None:
    syntax = frame.dataset.file_meta.TransferSyntaxUID
    if plugin not in get_decoder(syntax).available_plugins:
        extra = "gdcm" if plugin == "gdcm" else "dicom"
        raise UnsupportedImageError(
            f"{frame.name}: is compressed as {syntax.name}, which needs another package; "
            f"run: pip install 'medical-vqa[{extra}]'"
        )
    if syntax == JPEGExtended12Bit and int(frame.dataset.BitsStored) > 8:
        raise UnsupportedImageError(
            f"{frame.name}: is compressed as JPEG with 12 bits, which is not read; "
            "convert it to Explicit VR Little Endian"
        )


def _check_stream(frame: _Frame) -> None:
    """Refuse a compressed frame that decodes to another size than the header states."""
    dataset = frame.dataset
    if dataset.PixelData.count(_ITEM) > _MAX_FRAGMENTS:
        raise ImageError(f"{frame.name}: its picture is cut into too many fragments; export the file again")
    if dataset.file_meta.TransferSyntaxUID == RLELossless:
        return  # its decoder allocates by the header alone
    extended = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths) if 0x7FE00001 in dataset else None
    stream = get_frame(
        dataset.PixelData,
        frame.index,
        extended_offsets=extended,
        number_of_frames=int(dataset.get("NumberOfFrames") or 1),
    )
    width, height, components = stream_size(stream)
    if components not in (1, 3):
        raise UnsupportedImageError(f"{frame.name}: its picture has {components} components; give a gray or RGB one")
    if (width, height) != (dataset.Columns, dataset.Rows):
        raise ImageError(
            f"{frame.name}: its header says {dataset.Columns}x{dataset.Rows} pixels and its compressed picture "
            f"{width}x{height}; export the file again"
        )


def _color_pixels(values: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    # A palette's entries have 8 or 16 bits, whatever the bits of the index.
    bits = 16 if dataset.PhotometricInterpretation == "PALETTE COLOR" else max(8, int(dataset.BitsStored))
    return (values >> (bits - 8)).astype(np.uint8)


def _gray_pixels(
    values: NDArray[Any], frame: _Frame, window: tuple[float, float] | None
) -> tuple[NDArray[np.uint8], tuple[float, float] | None]:
    rescale = frame.group("PixelValueTransformationSequence")
    luts = frame.dataset.get("VOILUTSequence")
    if window is None and luts and "LUTDescriptor" in luts[0] and "LUTData" in luts[0]:
        brightness, used_window = _voi_lut(frame.dataset), None
    else:
        brightness, used_window = _brightness(values, frame, rescale, window)
    inverted = frame.dataset.PhotometricInterpretation == "MONOCHROME1"
    pixels = to_8_bits(values, lambda strip: brightness(_rescaled(strip, rescale)), inverted=inverted)
    return pixels, used_window


def _rescaled(values: NDArray[Any], rescale: Dataset) -> NDArray[Any]:
    if rescale.get("ModalityLUTSequence"):
        return apply_modality_lut(values.astype(np.int64), rescale)
    return apply_modality_lut(values, rescale)


def _voi_lut(dataset: Dataset) -> Ramp:
    """Brightness by the VOI LUT. Source: PS3.3 C.11.2.1.1."""
    entries, first, bits = (int(part) for part in dataset.VOILUTSequence[0].LUTDescriptor)
    last = first + (entries or 2**16) - 1
    return lambda values: apply_voi(np.clip(values, first, last).astype(np.int64), dataset) / (2.0**bits - 1)


def _brightness(
    values: NDArray[Any], frame: _Frame, rescale: Dataset, window: tuple[float, float] | None
) -> tuple[Ramp, tuple[float, float] | None]:
    """Brightness by a window, by percentiles or unchanged; and the center and width that were used, if any."""
    dataset, module = frame.dataset, frame.group("FrameVOILUTSequence")
    function = "LINEAR" if window else str(module.get("VOILUTFunction") or "LINEAR").upper()
    window = window or _header_window(module)
    if window is not None:
        return _windowed(*window, function), window
    rescaled = any(key in rescale for key in ("ModalityLUTSequence", "RescaleSlope"))
    if values.dtype == np.uint8 and not rescaled:
        return ramp(0, 2.0 ** int(dataset.BitsStored) - 1), None
    padding = dataset.get("PixelPaddingValue")
    inside = values if padding is None else values[values != padding]
    sample = inside.reshape(-1, 1)[:: max(1, inside.size // 1_000_000)]
    low, high = percentile_range(_rescaled(sample, rescale))
    return ramp(low, high), ((low + high) / 2, high - low)


def _header_window(module: Dataset) -> tuple[float, float] | None:
    """The first window of the header, where it is valid."""
    pair = [np.ravel(module.get(key) or [])[:1] for key in ("WindowCenter", "WindowWidth")]
    if any(part.size == 0 for part in pair):
        return None
    center, width = (float(part[0]) for part in pair)
    return (center, width) if np.isfinite([center, width]).all() and width > 0 else None


def _windowed(center: float, width: float, function: str) -> Ramp:
    """Brightness by a window. Source: PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        return sigmoid(center, width)
    if function != "LINEAR_EXACT":
        center, width = center - 0.5, width - 1
    return ramp(center - width / 2, center + width / 2)


def _spacing(frame: _Frame) -> Spacing | None:
    """Pixel spacing, calibrated where the header has it, otherwise at the detector. Source: PS3.3 10.7.1."""
    measures = frame.group("PixelMeasuresSequence")
    for holder, keyword in ((measures, "PixelSpacing"), (frame.dataset, "ImagerPixelSpacing")):
        if (spacing := valid_spacing(holder.get(keyword))) is not None:
            return spacing
    return None


def _header_fields(dataset: Dataset) -> dict[str, str]:
    codes = {key: str(dataset.get(key) or "").strip() for key in _HEADER_FIELDS}
    valid = {key: value for key, value in codes.items() if _CODE.fullmatch(value)}
    return {**valid, "Rows": str(int(dataset.Rows)), "Columns": str(int(dataset.Columns))}
