"""What the readers of rows with images share: images of a folder, an archive or a cell, and rows by split.

An image may be a file under the source folder or in a zip archive there, named by any end of its path, so that
``C:/data/1.png`` and ``/home/me/imgs/1.png`` are found as ``1.png``; or bytes in the row itself, as parquet and base64
hold it. Embedded images are written to a temporary folder once, so that a large file is never in memory.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import shutil
import tempfile
import weakref
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from medical_vqa.data.disjoint_sets import DisjointSets
from medical_vqa.data.formats.base import Published
from medical_vqa.data.formats.rows import require_unique
from medical_vqa.data.formats.values import as_text
from medical_vqa.data.imaging.stripping import raster_bytes
from medical_vqa.errors import DataError, ImageError
from medical_vqa.io import json_type, sha256
from medical_vqa.schema.records import Example, Split, Turn

SPLIT_NAMES: Mapping[str, Split] = {
    "train": "train", "training": "train", "trainset": "train", "validation": "validation", "valid": "validation",
    "val": "validation", "dev": "validation", "test": "test", "testset": "test",
}  # fmt: skip
_MEDICAL = (".dcm", ".dicom", ".nii", ".gz")
_SIGNATURES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"GI": ".gif", b"BM": ".bmp", b"RI": ".webp", b"II": ".tif"}
_MAX_IMAGE_BYTES = 256 * 1024 * 1024


class ImageFiles:
    """The images under a folder and in the zip archives there, by any end of their path that is unique."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.elsewhere: dict[str, tuple[int, str]] = {}
        """Path of each image that is in another folder than its name -> parts of the name that agree, and the name."""
        self._nearest: dict[str, tuple[int, str]] = {}
        """Path of each image that was found -> the most parts of a name that agree with it, and that name."""

    def find(self, name: str, place: str) -> str:
        """The path of an image, as `read` takes it: relative to the folder, or ``archive.zip!member``.

        Of several images the one in the same capitals is taken, then one that is not in an archive.

        Raises:
            ImageError: There is no such image. The message has the place.
            DataError: Several are called so, or the only one of that name is in another folder and another row names
                it there.
        """
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            if paths := self._by_end.get(end.casefold()):
                if len(paths) > 1:
                    paths = [path for path in paths if end in _ends(path)] or paths
                    paths = [path for path in paths if "!" not in path] or paths
                if len(paths) == 1:
                    self._check_folder(paths[0], name, parts, start, place)
                    return paths[0]
                raise DataError(
                    f"{place}: {len(paths)} images are called {name!r}, such as {paths[0]} and {paths[1]}; give more "
                    "of the path"
                )
        raise ImageError(f"{place}: there is no image {name!r} in {self.folder} or its zip archives; add it")

    def _check_folder(self, path: str, name: str, parts: Sequence[str], start: int, place: str) -> None:
        """Raise `DataError` where two rows name an image in different folders, and one of these folders is its own."""
        length = len(parts) - start
        if length > self._nearest.get(path, (0, ""))[0]:
            self._nearest[path] = (length, name)
        if start and len(_inside(path).split("/")) > length:
            self.elsewhere.setdefault(path, (length, name))
        if path in self.elsewhere and self.elsewhere[path][0] < self._nearest[path][0]:
            raise DataError(
                f"{place}: there is no image {self.elsewhere[path][1]!r} in {self.folder} or its zip archives, and "
                f"another row names {path} as {self._nearest[path][1]!r}; add it"
            )

    def read(self, path: str) -> bytes:
        """The bytes of an image that `find` found; raises `ImageError`."""
        archive, separator, member = path.partition("!")
        if not separator:
            return raster_bytes(self.folder / path)
        try:
            info = self._archive(archive).getinfo(member)
            if info.file_size > _MAX_IMAGE_BYTES:
                raise ImageError(f"{path}: unpacks to {info.file_size:,} bytes; get the published archive")
            return self._archive(archive).read(info)
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
            raise ImageError(f"{path}: cannot be unpacked ({error}); download the archive again") from error

    @cached_property
    def _by_end(self) -> dict[str, list[str]]:
        """Every end of a path, without regard to case -> the paths that end so."""
        ends: defaultdict[str, list[str]] = defaultdict(list)
        for path in self.paths():
            for end in _ends(path):
                ends[end.casefold()].append(path)
        return dict(ends)

    def paths(self) -> list[str]:
        """The paths of all files, as `read` takes them; also archives, and files that are no images."""
        paths = [path.relative_to(self.folder).as_posix() for path in published_files(self.folder)]
        for path in paths:
            if path.lower().endswith(".zip"):
                members = self._archive(path).infolist()
                paths = paths + [
                    f"{path}!{m.filename}" for m in members if not m.is_dir() and "__MACOSX" not in m.filename
                ]
        return paths

    def _archive(self, path: str) -> zipfile.ZipFile:
        if path not in self._archives:
            try:
                self._archives[path] = zipfile.ZipFile(self.folder / path)
            except (zipfile.BadZipFile, OSError) as error:
                raise DataError(f"{path}: not a complete zip archive ({error}); download it again") from error
        return self._archives[path]

    @cached_property
    def _archives(self) -> dict[str, zipfile.ZipFile]:
        return {}


def _inside(path: str) -> str:
    """The path of an image in its folder or archive."""
    return path.rpartition("!")[2]


def _ends(path: str) -> list[str]:
    """Every end of the path of an image, with its file's ending and without."""
    parts = _inside(path).split("/")
    ends = ["/".join(parts[start:]) for start in range(len(parts))]
    return [*ends, *(end.rpartition(".")[0] for end in ends)] if "." in parts[-1] else ends


class DatasetBuilder:
    """Collects the rows and images of a source, and makes a `Published` of them.

    Args:
        name: First part of all ids.
        source: Folder of the published files.
    """

    def __init__(self, name: str, source: Path) -> None:
        self.name = name
        self.files = ImageFiles(source)
        self.notes: list[str] = []
        self.missing: list[str] = []
        self.without_image = 0
        """Questions that are left out because no image precedes them in their conversation."""
        self.without_answer = 0
        """Questions that are left out because their conversation ends with them."""
        self._examples: dict[Split, list[Example]] = {}
        self._places: dict[str, str] = {}
        self._image_names: dict[str, str] = {}
        self._paths: dict[str, str] = {}
        self._absent: dict[str, str] = {}
        """Image id -> that there is no such image, which is said when it is read: of all of them together."""
        self._spooled: dict[str, Path] = {}
        self._related: list[Sequence[str]] = []

    def numbered(self, path: Path, rows: Iterable[Any]) -> Iterator[tuple[str, Any]]:
        """The rows of a file, each after its place for messages; a note says of a file that it has none."""
        name = path.relative_to(self.files.folder).as_posix()
        place = ""
        for number, row in enumerate(rows, 1):
            place = f"{name} row {number}"
            yield place, row
        if not place:
            self.notes.append(f"{name} has no rows")

    def image(self, value: Any, place: str) -> str:
        """The id of an image: a path, bytes, base64, or an object with ``bytes`` and ``path``; raises `DataError`."""
        if isinstance(value, Mapping):
            data = value.get("bytes")
            value = (value.get("path") or value.get("url") or value) if data is None else data
        if isinstance(value, bytes):
            return self._embedded(value)
        if isinstance(value, int | float) and not isinstance(value, bool):  # the number of an image, as in COCO
            value = as_text(value)
        if isinstance(value, str) and value.strip():
            data = value.partition("base64,")[2] if value.startswith("data:") else value
            if len(data) > _LONGEST_PATH:
                return self._embedded(_decoded(data, place))
            return self._file(value.removeprefix("file://"), place)
        raise DataError(f"{place}: expected an image as path, bytes or base64, got {json_type(value)}; write it so")

    def add(
        self,
        split: Split,
        question: str,
        answers: Sequence[str],
        images: Sequence[str],
        place: str,
        *,
        number: str = "",
        group: str = "",
        facts: Mapping[str, str] | None = None,
        turns: Sequence[Turn] = (),
        system: str = "",
        places: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Add a row.

        Args:
            split: Its split.
            question: The question.
            answers: Accepted answers, best first; empty for one without an answer.
            images: Ids of its images, the first of which is the one that models of one image receive.
            place: File and row number, for messages.
            number: Its number or id in the dataset; by default its position in the split.
            group: Unit that must not be divided among splits; by default the first image of all rows that share one
                with it.
            facts: Facts for breakdowns.
            turns: Earlier turns of its conversation.
            system: System message of its conversation.
            places: Where each image stands, as in `Example.image_places`.

        Raises:
            DataError: It has no image or question, or its number is used already.
        """
        if not images:
            raise DataError(f"{place}: has no image; name one, or take the row out")
        if not question.strip():
            raise DataError(f"{place}: the question is empty; fill it in or take the row out")
        rows = self._examples.setdefault(split, [])
        if not group and len(images) > 1:
            self._related.append(images)
        id_ = f"{self.name}/{split}/{number.strip() or len(rows) + 1}"
        require_unique(self._places, id_, place, "id")
        rows.append(
            Example(
                id=id_,
                image_id=images[0],
                question=question,
                answers=tuple(answer for answer in answers if answer.strip()),
                group=group or images[0],
                facts={key: value for key, value in (facts or {}).items() if value},
                other_image_ids=tuple(images[1:]),
                turns=tuple(turns),
                system=system,
                image_places=() if all(place == (0, 0) for place in places) else tuple(places),
            )
        )

    def published(self) -> Published:
        """The dataset; raises `DataError` where no row was added."""
        if not self._examples:
            raise DataError(f"{self.files.folder}: no row of {self.name} in it; name the folder that holds its files")
        self._join_groups()
        if self.files.elsewhere:
            path, (_, name) = next(iter(self.files.elsewhere.items()))
            self.notes.append(
                f"{len(self.files.elsewhere):,} images are in another folder than the rows name, such as {name!r}, "
                f"which is read from {path}: check that they are the same"
            )
        if several := sum(bool(row.other_image_ids) for rows in self._examples.values() for row in rows):
            self.notes.append(
                f"{several:,} questions are about several images; a model of one image receives the first"
            )
        if later := sum(bool(row.turns) for rows in self._examples.values() for row in rows):
            self.notes.append(
                f"{later:,} questions follow earlier turns of a conversation; a model without memory receives the last "
                "question alone"
            )
        if self.without_image:
            self.notes.append(
                f"{self.without_image:,} questions stand before the first image of their conversation: they are "
                "context of the later ones and no questions of their own"
            )
        if self.without_answer:
            self.notes.append(
                f"{self.without_answer:,} questions end their conversation without an answer: they are left out"
            )
        total = sum(map(len, self._examples.values()))
        if unanswered := sum(not row.answers for rows in self._examples.values() for row in rows):
            self.notes.append(
                f"{unanswered:,} of {total:,} questions have no answer: they can be asked and are not scored"
            )
        return Published(
            examples=self._examples,
            image_names=self._image_names,
            read_image=self._read,
            missing=self.missing,
            notes=self.notes,
        )

    def _join_groups(self) -> None:
        """Make one group of the rows that share an image, where no group was given."""
        if not self._related:
            return
        linked = DisjointSets({name: number for number, name in enumerate(self._image_names)}.__getitem__)
        for first, *others in self._related:
            for other in others:
                linked.join(first, other)
        for rows in self._examples.values():
            for number, row in enumerate(rows):
                if row.group == row.image_id and (group := linked.first(row.image_id)) != row.group:
                    rows[number] = replace(row, group=group)

    def _file(self, name: str, place: str) -> str:
        try:
            path = self.files.find(name, place)
        except ImageError as error:
            absent_id = f"{self.name}/{name.strip()}"
            self._absent.setdefault(absent_id, str(error))
            self._image_names.setdefault(absent_id, name)
            return absent_id
        image_id = f"{self.name}/{path.rpartition('!')[2]}"
        if image_id not in self._image_names:
            self._paths[image_id] = path
            is_medical = Path(path).suffix.lower() in _MEDICAL
            self._image_names[image_id] = f"{path}.png" if is_medical else path
        return image_id

    def _embedded(self, data: bytes) -> str:
        digest = sha256(data)
        image_id = f"{self.name}/{digest[:16]}"
        if image_id not in self._image_names:
            path = self._spool / digest
            path.write_bytes(data)
            self._spooled[image_id] = path
            self._image_names[image_id] = f"{digest[:16]}{_SIGNATURES.get(data[:2], '.png')}"
        return image_id

    @cached_property
    def _spool(self) -> Path:
        """A folder for embedded images, which is removed with the builder."""
        folder = tempfile.mkdtemp(prefix="medical-vqa-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    def _read(self, image_id: str) -> bytes:
        if image_id in self._absent:
            raise ImageError(self._absent[image_id])
        if image_id in self._spooled:
            return self._spooled[image_id].read_bytes()
        return self.files.read(self._paths[image_id])


_LONGEST_PATH = 1024


def _decoded(text: str, place: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{place}: the image is neither a path nor base64 ({error}); write it again") from error


def split_of_name(name: str) -> Split | None:
    """The split that a file's name states: ``train-00000-of-00002.parquet``, ``test_2.csv``; None where it has none."""
    words = re.findall("[a-z]+", name.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def row_split(value: Any, place: str) -> Split | None:
    """The split that a cell names, whatever its capitals; None for an empty one; raises `DataError` for others."""
    name = as_text(value).strip().lower()
    if name and name not in SPLIT_NAMES:
        raise DataError(f"{place}: split is {name!r}; write train, validation or test, or leave the column out")
    return SPLIT_NAMES.get(name)


def choice_facts(options: Mapping[str, str], letter: str) -> dict[str, str]:
    """The facts of a multiple-choice question: its options as JSON, and the letter of the right one."""
    return {"options": json.dumps(dict(options), ensure_ascii=False), "choice": letter, "answer_type": "CHOICE"}


def with_options(question: str, options: Mapping[str, str]) -> str:
    """A question with its choices below it, one per line: what a model must see to choose."""
    return "\n".join([question.strip(), *(f"{letter}. {text}" for letter, text in options.items())])


def published_files(folder: Path, pattern: str = "*") -> list[Path]:
    """Files below a folder in order, without what macOS adds to archives: ``__MACOSX`` and ``._name``."""
    return [
        path
        for path in sorted(folder.rglob(pattern))
        if not path.name.startswith("._") and "__MACOSX" not in path.relative_to(folder).parts and path.is_file()
    ]
