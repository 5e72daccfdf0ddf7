"""Arguments of the public functions: what a person may pass, and what the pipelines take."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from medical_vqa.errors import ConfigError, DataError, ModelError
from medical_vqa.io import as_path, received

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

    from medical_vqa.data.imaging.planes import Plane
    from medical_vqa.schema.records import Split
    from medical_vqa.schema.selection import Selection

StrPath = str | os.PathLike[str]
"""A path as text or as a path object; results that stand for a file or folder are path objects too."""
ImageInput: TypeAlias = "StrPath | bytes | PilImage"
"""An image: the path of a file, the bytes of one, or a Pillow image."""
_WITHOUT_PNG = ("CMYK", "YCbCr", "LAB", "HSV", "RGBX")  # modes of color pictures
_ADDRESS = re.compile(r"(?:[a-z][a-z0-9+.-]*://|data:)", re.IGNORECASE)
_QUOTED = 80
"""Characters of an address that a message repeats."""
RISK = 0.1
"""Default of the tolerated fraction of wrong answers among those that are given."""


def optional_path(value: StrPath | None, what: str) -> Path | None:
    """A path, or None; `what` is the argument's name, for the message."""
    return None if value is None else as_path(value, what)


def optional_output(value: StrPath | None, what: str) -> Path | None:
    """The path of a file to write, or None."""
    path = optional_path(value, what)
    if path is not None and path.is_dir():
        raise ConfigError(f"{what}: {path} is a folder; pass the path of a file to write")
    return path


def as_root(root: StrPath | None) -> Path:
    """The folder of prepared datasets, absolute."""
    from medical_vqa.data.prepared.dataset import default_root

    folder = (default_root() if root is None else as_path(root, "root")).resolve()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"root: {folder} is a file; pass a folder for prepared datasets")
    return folder


def as_name(name: str, what: str) -> str:
    """A name that can also be that of a folder."""
    if what == "dataset" and isinstance(name, str | os.PathLike) and {"/", os.sep} & set(str(name)):
        raise ConfigError(
            f"dataset: expected the name of a dataset or layout, such as slake or folder, got the path "
            f"{os.fspath(name)!r}; pass it as --source (source=), behind such a name"
        )
    if not isinstance(name, str) or not name.strip() or name in (".", "..") or {"/", os.sep, "\0"} & set(name):
        raise ConfigError(f"{what}: expected a name such as slake-mini, got {received(name)}; correct it")
    return name


def as_dataset(dataset: StrPath, root: StrPath | None, what: str = "dataset") -> tuple[str, Path]:
    """Name and root of a prepared dataset that is passed by name or by folder; `what` is the argument's name."""
    if isinstance(dataset, str) and not dataset.strip():
        raise ConfigError(f"{what}: expected the name or folder of a prepared dataset, got {dataset!r}; pass one")
    if isinstance(dataset, str) and not {"/", os.sep} & set(dataset):
        return dataset, as_root(root)
    if root is not None:
        raise ConfigError(f"root belongs to the name of a dataset and not to the folder {dataset}; leave root out")
    advice = "write it to a file, prepare it with prepare(), and pass what that returns"
    folder = as_path(dataset, what, "pass one" if dataset is None else advice).resolve()
    return folder.name, folder.parent


def as_selection(
    dataset: StrPath | None, root: StrPath | None, where: Mapping[str, str] | None, *, has_card: bool = False
) -> Selection | None:
    """The rows that the three select; None without a dataset.

    Args:
        dataset: Name or folder of a prepared dataset.
        root: Folder of prepared datasets, for a name.
        where: Facts that rows must have.
        has_card: Whether the card of a predictions file names the dataset, which `where` then selects from.

    Raises:
        ConfigError: There is no dataset to select from, or a value is of the wrong type.
    """
    from medical_vqa.schema.selection import Selection

    facts = optional_facts(where)
    if dataset is None:
        if (facts and not has_card) or root is not None:
            raise ConfigError("root and where need --dataset (dataset=), which names the rows they select from")
        return None
    name, folder = as_dataset(dataset, root)
    return Selection(dataset=name, root=folder, where=facts)


def optional_facts(where: Mapping[str, str] | None) -> dict[str, str]:
    """Facts that rows must have; empty for None."""
    return {} if where is None else as_texts(where, "where", "language")


def as_resplit(resplit: str | None) -> Literal["clean"] | None:
    """How a dataset is split again, or None."""
    if resplit is None:
        return None
    if isinstance(resplit, str) and resplit == "clean":
        return "clean"
    raise ConfigError(f"resplit: expected 'clean', got {received(resplit)}; correct it or leave it out")


def as_texts(values: Mapping[str, str], what: str, example: str) -> dict[str, str]:
    """A mapping of text to text."""
    if isinstance(values, Mapping) and all(isinstance(text, str) for pair in values.items() for text in pair):
        return dict(values)
    raise ConfigError(
        f"{what}: expected names and texts such as {{{example!r}: ...}}, got {received(values)}; correct it"
    )


def as_overrides(overrides: Mapping[str, object] | None) -> dict[str, str]:
    """Changes to a recipe as ``--set`` takes them: dotted keys, and values as YAML."""
    texts = {} if overrides is None else overrides
    if not isinstance(texts, Mapping) or not all(isinstance(key, str) for key in texts):
        raise ConfigError(
            f'overrides: expected keys and values such as {{"training.epochs": 5}}, got {received(texts)}'
        )
    return {key: value if isinstance(value, str) else as_yaml(value) for key, value in texts.items()}


def as_yaml(value: object) -> str:
    """A value as YAML; JSON is YAML."""
    try:
        return json.dumps(os.fspath(value) if isinstance(value, os.PathLike) else value)
    except TypeError as error:
        raise ConfigError(f"a recipe cannot hold {value!r}; pass text, numbers, lists or mappings") from error


def as_split(split: str) -> Split:
    """A split by any of its names."""
    from medical_vqa.config import where_split

    if not isinstance(split, str):
        raise ConfigError(f"split: expected train, validation or test, got {received(split)}; pass one of them")
    return where_split(split)


def optional_split(split: str | None) -> Split | None:
    """A split by any of its names, or None."""
    return None if split is None else as_split(split)


def as_protocols(protocol: str | Sequence[str]) -> list[str]:
    """Names of published rules: one, several, or ``all``."""
    from medical_vqa import registry

    if isinstance(protocol, str) and protocol == "all":
        return registry.names("protocols")
    return as_list(protocol, "protocol")


def as_list(texts: str | Sequence[str], what: str) -> list[str]:
    """One text or several."""
    several = [texts] if isinstance(texts, str) else texts
    if not isinstance(several, Sequence) or not all(isinstance(text, str) for text in several):
        raise ConfigError(f"{what}: expected text or a list of texts, got {received(texts)}; correct it")
    return list(several)


def as_columns(columns: str | Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Columns of another program's file, also as the text of ``--map``."""
    from medical_vqa.evaluation.imports.columns import check_map, parse_map

    if columns is None or isinstance(columns, str):
        return None if columns is None else parse_map(columns)
    return check_map(as_texts(columns, "columns", "answer"))


def as_fact_groups(by: Sequence[str | Sequence[str]]) -> list[tuple[str, ...]]:
    """Facts to cross, each group as text with commas or as a sequence."""
    groups = [by] if isinstance(by, str) else by
    if not isinstance(groups, Sequence):
        raise ConfigError(f"by: expected facts such as ['modality,organ'], got {received(by)}; correct it")
    parted = [
        tuple(fact.strip() for fact in (group.split(",") if isinstance(group, str) else as_list(group, "by")))
        for group in groups
    ]
    if twice := [group for group in parted if len(set(group)) < len(group)]:
        raise ConfigError(f"by: {','.join(twice[0])!r} names a fact twice; cross different facts")
    return parted


def as_risk(risk: float) -> float:
    """A tolerated fraction of wrong answers."""
    if isinstance(risk, bool) or not isinstance(risk, int | float) or not 0 < risk < 1:
        raise ConfigError(f"risk: expected a fraction between 0 and 1, such as 0.05, got {received(risk)}; correct it")
    return risk


def as_questions(questions: str | Sequence[str]) -> list[str]:
    """Questions, each of them text; the ones in a text that asks several."""
    from medical_vqa.models.questions.form import questions_in

    if isinstance(questions, str):
        return questions_in(questions)
    if not isinstance(questions, Sequence):
        raise ModelError(f"expected a list of questions, got {received(questions)}; pass the questions as text")
    for question in questions:
        if not isinstance(question, str):
            advice = "ask several with ask_many" if isinstance(question, list | tuple) else "pass it as text"
            raise ModelError(f"expected a question as text, got {received(question)}; {advice}")
    return list(questions)


def as_image(image: ImageInput, what: str = "image") -> Path | bytes:
    """A path, or the bytes of an image file; a Pillow image becomes a PNG file without loss.

    Args:
        image: What a person passed.
        what: Name of the argument, for messages.

    Raises:
        ConfigError: It is none of these, an address, or a Pillow image whose mode no PNG file has.
    """
    from PIL import Image

    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str) and _ADDRESS.match(image):
        raise ConfigError(
            f"{what}: expected a path, got the address {image[:_QUOTED]!r}; download it, and pass the file or its bytes"
        )
    if isinstance(image, str | os.PathLike):
        return as_path(image, what)
    if not isinstance(image, Image.Image):
        raise ConfigError(
            f"{what}: expected a path, the bytes of a file or a Pillow image, got {type(image).__name__}; "
            f"{_pass_instead(image)}"
        )
    file = io.BytesIO()
    picture = image.convert("RGB") if image.mode in _WITHOUT_PNG else image
    try:
        picture.save(file, "PNG", exif=image.getexif())
    except OSError as error:
        raise ConfigError(
            f"{what}: a Pillow image of mode {image.mode} has no file format here; convert it, for example to I;16 or L"
        ) from error
    return file.getvalue()


def _pass_instead(image: object) -> str:
    """What to pass in place of something that holds an image."""
    if hasattr(image, "read"):
        return "pass what its read() returns"
    if hasattr(image, "__array__"):
        return "pass PIL.Image.fromarray(array) of an array of bytes, gray (rows, columns) or RGB (rows, columns, 3)"
    return "pass one"


def as_images(images: ImageInput | Sequence[ImageInput], what: str) -> list[Path | bytes]:
    """One or several images."""
    several = isinstance(images, Sequence) and not isinstance(images, str | bytes | bytearray | memoryview)
    listed = cast("Sequence[ImageInput]", images) if several else [cast("ImageInput", images)]
    return [as_image(image, what) for image in listed]


def as_turns(turns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Earlier questions with their answers."""
    listed = turns if isinstance(turns, Sequence) else [turns]
    pairs = [tuple(turn) for turn in listed if isinstance(turn, list | tuple)]
    if len(pairs) != len(listed) or not all(len(pair) == 2 and isinstance(pair[1], str) for pair in pairs):
        raise ModelError(f"turns: expected pairs of a question and its answer, got {received(turns)}; correct it")
    return [(as_questions([question])[0], answer) for question, answer in pairs]


def as_predictions(predictions: StrPath) -> Path:
    """A predictions file."""
    path = as_path(predictions, "predictions", _file_instead(predictions))
    if path.is_dir():
        patterns = ("predictions-*.jsonl", "scenario_state.json", "display_predictions.json")
        inside = [file.name for pattern in patterns for file in sorted(path.glob(pattern))]
        such_as = inside[0] if inside else "predictions-validation.jsonl"
        raise DataError(f"{path} is a folder; expected a predictions file, such as {such_as} in it")
    return path


def _file_instead(value: object) -> str:
    """What to pass in place of something that is no path to predictions."""
    if isinstance(value, list | tuple) and value and all(isinstance(one, str | os.PathLike) for one in value):
        return "pass one of them; compare and report take several"
    if isinstance(value, list | tuple | Mapping):
        return 'write a line {"id": ..., "answer": ...} for each question to answers.jsonl, and pass "answers.jsonl"'
    if hasattr(value, "to_csv"):
        return 'write it with to_csv("answers.csv", index=False), and pass "answers.csv"'
    if hasattr(value, "read"):
        return "pass the path of the file"
    for attribute in ("file", "predictions"):  # of scores and of a full evaluation
        if isinstance(getattr(value, attribute, None), os.PathLike):
            return f"pass its {attribute}"
    return "pass one"


def as_several(values: tuple[object, ...]) -> list[object]:
    """What was passed to a function that takes several: one by one, or as one list, tuple, set, or `Path.glob`."""
    first = values[0] if len(values) == 1 else values
    is_text = isinstance(first, str | bytes | os.PathLike) or hasattr(first, "read")
    return list(first) if isinstance(first, Sequence | Set | Iterator) and not is_text else list(values)


def as_files(*predictions: StrPath | Sequence[StrPath]) -> list[Path]:
    """One or several predictions files."""
    files = [as_predictions(cast("StrPath", file)) for file in as_several(predictions)]
    if not files:
        raise DataError("expected one predictions file or several, got none; pass what predict() returned")
    names: dict[Path, Path] = {}
    for file in files:
        if (other := names.setdefault(file.resolve(), file)) is not file:
            raise ConfigError(f"{file} is the same file as {other}; name each file once")
    return files


def as_frame(frame: int | None) -> int | None:
    """A frame number, of any type of whole numbers."""
    if frame is not None and (isinstance(frame, bool) or not hasattr(frame, "__index__")):
        raise ConfigError(f"frame: expected a whole number from 0, got {received(frame)}; correct it")
    return None if frame is None else int(frame)


def as_count(count: int, what: str) -> int:
    """A count, of any type of whole numbers; `what` is the argument's name, for the message."""
    if isinstance(count, bool) or not hasattr(count, "__index__"):
        raise ConfigError(f"{what}: expected a whole number from 1, got {received(count)}; correct it")
    return int(count)


def as_plane(plane: str | None) -> Plane | None:
    """The name of a plane."""
    if plane not in (None, "axial", "coronal", "sagittal"):
        raise ConfigError(f"plane: expected axial, coronal or sagittal, got {received(plane)}; correct it")
    return cast("Plane | None", plane)


def as_window(window: tuple[float, float] | None) -> tuple[float, float] | None:
    """Center and width, of any type of numbers."""
    if window is None:
        return None
    try:
        center, width = (float(value) for value in window)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"window: expected center and width, such as (40, 400), got {received(window)}; correct it"
        ) from error
    return center, width
