"""Lookup tables of DICOM: palettes, VOI LUTs and modality LUTs, with the entries that files hold in fact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COLORS = ("Red", "Green", "Blue")


@dataclass(frozen=True, slots=True)
class LookupTable:
    """A table from stored or rescaled values to its entries."""

    first: int
    """The value of the first entry; smaller values have this entry too, larger ones than the last have the last."""
    entries: NDArray[np.uint16]
    """The entries."""
    bits: int
    """Bits of an entry that are used."""
    packed: bool
    """Whether the file holds entries of 8 bits, two in a word."""

    def __call__(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """The entries of some values."""
        indices = np.clip(np.nan_to_num(values), self.first, self.first + len(self.entries) - 1) - self.first
        entries: NDArray[np.uint16] = self.entries[indices.astype(np.int64)]
        return entries


def read_table(module: Dataset, descriptor: str, data: str, *, signed: bool, big_endian: bool) -> LookupTable:
    """A table by its descriptor and its data. Source: PS3.3, C.11.2.1.1 and C.7.6.3.1.5.

    Args:
        module: The dataset or sequence item that holds both elements.
        descriptor: Keyword of the descriptor: number of entries, first value, bits of an entry.
        data: Keyword of the entries.
        signed: Whether stored values, and so the first one, are signed.
        big_endian: Whether the dataset is big-endian, which matters for entries in words.

    Raises:
        ValueError: There are fewer entries than the descriptor states.
    """
    count, first, bits = _descriptor(module[descriptor].value, signed=signed, big_endian=big_endian)
    words = _words(module[data].value, big_endian=big_endian)
    packed = len(words) < count
    entries = np.frombuffer(words.astype("<u2").tobytes(), np.uint8).astype(np.uint16) if packed else words
    if len(entries) < count:
        raise ValueError(f"{data} has {2 * len(words):,} bytes for {count:,} entries")
    if packed:
        bits = 8
    return LookupTable(first, entries[:count], bits if 8 <= bits <= 16 else 16, packed)


def _descriptor(value: Any, *, signed: bool, big_endian: bool) -> tuple[int, int, int]:
    if isinstance(value, bytes):
        value = np.frombuffer(value[:6], ">u2" if big_endian else "<u2")
    count, first, bits = (int(part) for part in value)
    first &= 0xFFFF
    return count & 0xFFFF or 2**16, first - 2**16 if signed and first >= 2**15 else first, bits & 0xFFFF


def _words(value: Any, *, big_endian: bool) -> NDArray[np.uint16]:
    """The words of 16 bits of an element, which pydicom gives as bytes or as numbers."""
    if isinstance(value, bytes):
        padded = value + b"\0" * (len(value) % 2)
        return np.frombuffer(padded, ">u2" if big_endian else "<u2").astype(np.uint16)
    return (np.ravel(value).astype(np.int64) & 0xFFFF).astype(np.uint16)


def scale_of(tables: list[LookupTable]) -> tuple[float, bool]:
    """The entry that is white, and whether it is not the declared one.

    Some files declare 16 bits and hold entries of 8; taken literally such a picture is black.
    """
    declared = 2 ** tables[0].bits - 1
    largest = max(int(table.entries.max()) for table in tables)
    if tables[0].bits == 16 and largest <= 0xFF:
        return 255.0, True
    return float(max(declared, 2 ** largest.bit_length() - 1)), largest > declared


def colors(values: NDArray[Any], dataset: Dataset, *, big_endian: bool) -> tuple[NDArray[np.uint8], bool]:
    """The RGB picture (rows, columns, 3) of palette indices, and whether its palette holds other bits than declared."""
    if "RedPaletteColorLookupTableData" not in dataset:  # segmented
        mapped = apply_color_lut(values, dataset)
        return (mapped >> 8 if mapped.dtype == np.uint16 else mapped).astype(np.uint8)[..., :3], False
    signed = bool(dataset.get("PixelRepresentation"))
    tables = [
        read_table(
            dataset,
            f"{color}PaletteColorLookupTableDescriptor",
            f"{color}PaletteColorLookupTableData",
            signed=signed,
            big_endian=big_endian,
        )
        for color in _COLORS
    ]
    white, differs = scale_of(tables)
    shift = max(0, int(white + 1).bit_length() - 9)
    pixels = np.stack([(table.entries >> shift).astype(np.uint8) for table in tables])  # (3, entries)
    indices = np.clip(values.astype(np.int64), tables[0].first, None) - tables[0].first
    return np.moveaxis(pixels[:, np.clip(indices, 0, pixels.shape[1] - 1)], 0, -1), differs
