"""Elements of a DICOM dataset, in time that is linear in its bytes whatever it holds. Source: PS3.5, chapter 7.

pydicom's parser reads every sequence of undefined length, with all that is nested in it, also where nobody uses it: a
file of some hundred kilobytes can keep it busy for seconds. Here an element that is not requested is skipped, without
recursion, and the items of a sequence are parsed one by one when they are used. pydicom converts the values.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Set
from typing import Any

from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.values import convert_string

from medical_vqa.data.imaging.decoded_frame import ReadingBudget
from medical_vqa.data.imaging.recognition import LONG_VALUE_REPRESENTATIONS
from medical_vqa.errors import TooLargeError

MAX_ELEMENTS = 1_000_000
"""Elements and items of a file that are walked over; each takes about a microsecond."""
MAX_ITEMS = 100_000
"""Items of one sequence that is used."""
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_CHARACTER_SET = 0x00080005
_SEQUENCE_REPRESENTATIONS = (b"SQ", b"UN", None)  # None: the encoding names none
_SEQUENCES = {
    0x00283000, 0x00283010, 0x52009229, 0x52009230,  # modality and VOI LUT, shared and per-frame functional groups
    0x00209113, 0x00209116, 0x00289110, 0x00289132, 0x00289145,  # position, orientation, size, VOI LUT and rescaling
}  # fmt: skip
_IN_ITEMS = _SEQUENCES - {0x52009229, 0x52009230} | {
    0x00200032, 0x00200037, 0x00280030, 0x00280034, 0x00181164, 0x00182010,  # position, orientation, size of the pixels
    0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00281056, 0x00283002, 0x00283006,  # window, rescaling, LUT
}  # fmt: skip
"""The elements that are read within the items of sequences."""
_LONGEST_VALUE, _LONGEST_TABLE = 4096, 1 << 18  # bytes; numbers in text take microseconds each
_PIXEL_GROUP = 0x7FE0


class ElementReader:
    """Reads the requested elements of one file."""

    def __init__(self, data: bytes, name: str, *, little_endian: bool, budget: ReadingBudget) -> None:
        """Set up without reading.

        Args:
            data: The file's bytes.
            name: What messages call the image.
            little_endian: Order of the bytes of numbers.
            budget: Of the request that the file belongs to.
        """
        order = "<" if little_endian else ">"
        self._data = data
        self._name = name
        self._little_endian = little_endian
        self._tag_and_length = struct.Struct(order + "HHI")
        self._short = struct.Struct(order + "H")
        self._long = struct.Struct(order + "I")
        self._item, self._sequence_end = (
            struct.pack(order + "HH", tag >> 16, tag & 0xFFFF) for tag in (_ITEM, _SEQUENCE_END)
        )
        self._remaining = MAX_ELEMENTS
        self._budget = budget

    def dataset(self, start: int, *, implicit: bool, tags: Collection[int]) -> Dataset:
        """The requested elements of the dataset that begins at `start` and ends with the file.

        Args:
            start: Offset of its first element.
            implicit: Whether elements have no value representation; where the first contradicts this, it is believed.
            tags: The elements to read.

        Raises:
            TooLargeError: It has too many elements, or the files of its request have together.
            EOFError: It ends within an element.
        """
        representation = self._data[start + 4 : start + 6]
        if len(representation) == 2:
            implicit = not _is_representation(representation)
        elements = self._elements(start, len(self._data), implicit=implicit, tags={*tags, _CHARACTER_SET})
        dataset = Dataset(elements)
        named = elements.get(BaseTag(_CHARACTER_SET))
        encodings = [default_encoding]
        if isinstance(named, RawDataElement):
            encodings = convert_encodings(convert_string(named.value or b"", self._little_endian))
        dataset.set_original_encoding(implicit, self._little_endian, encodings)
        return dataset

    def item(self, start: int, end: int, *, implicit: bool) -> Dataset:
        """The elements of an item of a sequence that are read."""
        return Dataset(self._elements(start, end, implicit=implicit or self._is_implicit(start), tags=_IN_ITEMS))

    def items(self, start: int, end: int | None, *, implicit: bool) -> tuple[list[tuple[int, int]], int]:
        """Start and end of each item of a sequence, and the offset after the sequence.

        Args:
            start: Offset of its value.
            end: Offset of the value's end; None for one of undefined length, which ends with a delimiter.
            implicit: Whether elements have no value representation.
        """
        places: list[tuple[int, int]] = []
        at = start
        while end is None or at < end:
            tag, _, length, at = self._header(at, implicit=True)
            if tag == _SEQUENCE_END:
                break
            if length == _UNDEFINED:
                item_start = at
                item_end, at = self._end_of_item(at, implicit=implicit or self._is_implicit(at))
                places.append((item_start, item_end))
            else:
                places.append((at, at + length))
                at += length
            if len(places) > MAX_ITEMS:
                raise TooLargeError(
                    f"{self._name}: has more than {MAX_ITEMS:,} items in the sequences of its DICOM header; "
                    "give a part of it"
                )
        return places, at

    def _end_of_item(self, at: int, *, implicit: bool) -> tuple[int, int]:
        """End of an item of undefined length, and the offset after its delimiter."""
        # What of undefined length is open, from the outside: an item, by whether it is implicit, or a sequence (None).
        opened: list[bool | None] = [implicit]
        item_end = at
        while opened:
            inside = opened[-1]
            if inside is None:
                tag, _, length, at = self._header(at, implicit=True)
                if tag == _SEQUENCE_END:
                    opened.pop()
                elif length == _UNDEFINED:
                    opened.append(bool(opened[-2]) or self._is_implicit(at))
                else:
                    at += length
                continue
            item_end = at
            tag, representation, length, at = self._header(at, implicit=inside)
            if tag == _ITEM_END:
                opened.pop()
            elif length != _UNDEFINED:
                at += length
            elif self._is_sequence(tag, representation, at):
                opened.append(None)
            else:
                _, at = self._value_of_undefined_length(at)
        return item_end, at

    def _elements(
        self, at: int, end: int, *, implicit: bool, tags: Set[int]
    ) -> dict[BaseTag, DataElement | RawDataElement]:
        elements: dict[BaseTag, DataElement | RawDataElement] = {}
        end = min(end, len(self._data) - 7)  # a shorter rest is no element
        while at < end:
            tag, representation, length, at = self._header(at, implicit=implicit)
            if tag == _ITEM_END:
                break
            start = at
            if length != _UNDEFINED:
                at = value_end = start + length
                if tag not in tags:
                    continue
            elif self._is_sequence(tag, representation, start):
                _, at = self.items(start, None, implicit=implicit)
                value_end = at - 8
            else:
                try:
                    value_end, at = self._value_of_undefined_length(start)
                except EOFError:  # what precedes it may still be of use
                    break
            if tag not in tags:
                continue
            if tag in _SEQUENCES and representation in _SEQUENCE_REPRESENTATIONS:
                items = _Items(self, start, value_end, implicit=implicit)
                elements[BaseTag(tag)] = DataElement(BaseTag(tag), "SQ", items, start)
            else:
                value = self._value(tag, start, value_end)
                elements[BaseTag(tag)] = self._raw(tag, representation, length, value, start, implicit=implicit)
        return elements

    def _value(self, tag: int, start: int, end: int) -> bytes:
        """The bytes of a value; none of one that is longer than any with a meaning."""
        if tag >> 16 != _PIXEL_GROUP:
            is_table = 0x00281100 <= tag < 0x00281300 or tag == 0x00283006
            if end - start > (_LONGEST_TABLE if is_table else _LONGEST_VALUE):
                return b""
        return self._data[start:end]

    def _raw(
        self, tag: int, representation: bytes | None, length: int, value: bytes, start: int, *, implicit: bool
    ) -> RawDataElement:
        name = None if representation is None else representation.decode(default_encoding)
        content: Any = value or empty_value_for_VR(name, raw=True)
        if length != _UNDEFINED:
            length = len(value)  # pydicom would read the rest of a shorter one later
        return RawDataElement(BaseTag(tag), name, length, content, start, implicit, self._little_endian)

    def _header(self, at: int, *, implicit: bool) -> tuple[int, bytes | None, int, int]:
        """Tag, value representation and length of the element at an offset, and the offset of its value."""
        self._remaining -= 1
        self._budget.elements_left -= 1
        if self._budget.elements_left < 0:
            raise TooLargeError(
                f"{self._name}: belongs to a request whose DICOM headers have more than {self._budget.elements:,} "
                "elements and items; send it in another one"
            )
        if self._remaining < 0:
            raise TooLargeError(
                f"{self._name}: has more than {MAX_ELEMENTS:,} elements and items in its DICOM header; "
                "give a part of it, or export it without private elements"
            )
        if at + 8 > len(self._data):
            raise EOFError("an element has no end")
        group, element, length = self._tag_and_length.unpack_from(self._data, at)
        tag = group << 16 | element
        if implicit:
            return tag, None, length, at + 8
        representation = self._data[at + 4 : at + 6]
        if representation in LONG_VALUE_REPRESENTATIONS:
            if at + 12 > len(self._data):
                raise EOFError("an element has no end")
            (length,) = self._long.unpack_from(self._data, at + 8)
            return tag, representation, length, at + 12
        if b"AA" <= representation <= b"ZZ":
            (length,) = self._short.unpack_from(self._data, at + 6)
            return tag, representation, length, at + 8
        return tag, None, length, at + 8  # some writers change the encoding within a file

    def _is_implicit(self, start: int) -> bool:
        """Whether the elements of an item have no value representation, by its first element."""
        representation = self._data[start + 4 : start + 6]
        return len(representation) == 2 and not _is_representation(representation)

    def _is_sequence(self, tag: int, representation: bytes | None, start: int) -> bool:
        """Whether an element of undefined length is a sequence. Source: PS3.5, section 6.2.2, note 1 for UN."""
        if tag >> 16 == _PIXEL_GROUP:  # also where a writer states another representation
            return False
        if representation is None:
            return self._data[start : start + 4] in (self._item, self._sequence_end)
        return representation in _SEQUENCE_REPRESENTATIONS

    def _value_of_undefined_length(self, start: int) -> tuple[int, int]:
        """End of a value, and the offset after its delimiter: of fragments, or else of bytes up to the first delimiter.

        Raises:
            EOFError: There is no delimiter.
        """
        at = start
        while self._data[at : at + 4] == self._item and at + 8 <= len(self._data):
            _, _, length, at = self._header(at, implicit=True)
            at += length
        if self._data[at : at + 4] != self._sequence_end:
            at = self._data.find(self._sequence_end, start)
        if at < 0:
            raise EOFError("a value has no end")
        return at, at + 8


class _Items(Sequence):
    """The items of a sequence, each parsed when it is used; the newest is kept."""

    def __init__(self, reader: ElementReader, start: int, end: int, *, implicit: bool) -> None:
        super().__init__()
        self._reader = reader
        self._start = start
        self._end = end
        self._implicit = implicit
        self._places: list[tuple[int, int]] | None = None
        self._newest: tuple[int, Dataset] | None = None

    def __len__(self) -> int:
        if self._places is None:
            self._places, _ = self._reader.items(self._start, self._end, implicit=self._implicit)
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        count = len(self)
        assert self._places is not None
        place = range(count)[index]
        if self._newest is None or self._newest[0] != place:
            self._newest = place, self._reader.item(*self._places[place], implicit=self._implicit)
        return self._newest[1]

    def __iter__(self) -> Iterator[Dataset]:
        for index in range(len(self)):
            yield self[index]


def _is_representation(code: bytes) -> bool:
    """Whether two bytes can be a value representation: two capital letters."""
    return 0x41 <= code[0] <= 0x5A and 0x41 <= code[1] <= 0x5A
