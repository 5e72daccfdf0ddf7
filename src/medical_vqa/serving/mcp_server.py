"""Tools for agents over the Model Context Protocol: ask about an image, describe it, localize, read the model's card.

An image is a file below a folder that the operator names, or a data URL. An abstention is a result like any other: the
agent receives `abstained`, the reason and questions that the model would answer instead.
"""

from __future__ import annotations

import base64
import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import Field

from medical_vqa.data.imaging.decode import decode_image_file
from medical_vqa.errors import ImageError, MedicalVqaError, MissingDependencyError

if TYPE_CHECKING:
    from mcp.server import MCPServer

MAX_FRAMES = 32
"""Frames of a series in one call."""
_INSTRUCTIONS = """Answers questions about medical images with a small local model. Ask one short question at a time.
Where a result has abstained = true, do not use its answer: tell the reason, or ask one of its suggestions.
Research software: not a medical device and not for diagnosis."""

Image = Annotated[str, Field(description="A file below the server's image folder, or data:image/...;base64,...")]
Question = Annotated[str, Field(description="One short question in words.", min_length=1, max_length=1000)]
Frame = Annotated[int | None, Field(description="Frame or slice, from 0; null: the middle one.", ge=0)]
Window = Annotated[tuple[float, float] | None, Field(description="Center and width, such as [40, 400]; null: default.")]


class AnsweringModel(Protocol):
    """What the tools need of a model: `medical_vqa.Model` has it."""

    @property
    def card(self) -> Any:
        """What is known about the model."""

    def ask(
        self, image: Path, question: str, *, frame: int | None = None, window: tuple[float, float] | None = None
    ) -> Any:
        """Answer a question about an image file."""

    def attention_map(
        self, image: Path, question: str, *, frame: int | None = None, window: tuple[float, float] | None = None
    ) -> Any:
        """Where in the picture an answer comes from."""


def create_mcp_server(model: AnsweringModel, images: Path) -> MCPServer:
    """The server with its tools; `images` is the folder whose files may be named.

    Raises:
        MissingDependencyError: The package mcp is not installed.
    """
    try:
        from mcp.server import MCPServer  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingDependencyError("agents' tools need mcp; run: pip install 'medical-vqa[mcp]'") from error
    server = MCPServer("medical-vqa", instructions=_INSTRUCTIONS)
    folder = images.resolve()

    def ask_image(image: Image, question: Question, frame: Frame = None, window: Window = None) -> dict[str, Any]:
        """Answer a question about one image, or abstain with a reason."""
        with _image_file(image, folder) as path:
            return _result(model.ask(path, question, frame=frame, window=window))

    def ask_series(
        image: Image,
        question: Question,
        frames: Annotated[
            list[int], Field(description="Frames or slices, from 0.", min_length=1, max_length=MAX_FRAMES)
        ],
        window: Window = None,
    ) -> dict[str, Any]:
        """Answer the same question about several frames of one file, each by itself."""
        with _image_file(image, folder) as path:
            answers = [_result(model.ask(path, question, frame=frame, window=window)) for frame in frames]
        return {"answers": [{"frame": frame, **answer} for frame, answer in zip(frames, answers, strict=True)]}

    def describe_image(image: Image, frame: Frame = None, window: Window = None) -> dict[str, Any]:
        """What the file is, without the model: format, size, frames, window, plane, and some header fields."""
        with _image_file(image, folder) as path:
            decoded = decode_image_file(path, frame=frame, window=window)
        return {
            "format": decoded.format,
            "width": decoded.width,
            "height": decoded.height,
            "frame": decoded.frame,
            "frames": decoded.frames,
            "window": decoded.window,
            "plane": decoded.plane,
            "header_fields": dict(decoded.header_fields),
            "burned_in_annotation": decoded.burned_in_annotation,
            "warnings": list(decoded.warnings),
        }

    def localize(image: Image, question: Question, frame: Frame = None, window: Window = None) -> dict[str, Any]:
        """Where in the image the answer comes from: weights over a grid, which sum to 1, with the strongest cell."""
        with _image_file(image, folder) as path:
            weights = model.attention_map(path, question, frame=frame, window=window).weights
        rows, columns = weights.shape
        row, column = divmod(int(weights.argmax()), columns)
        return {
            "rows": rows,
            "columns": columns,
            "weights": [[round(float(weight), 5) for weight in line] for line in weights],
            "strongest": {"x": round((column + 0.5) / columns, 3), "y": round((row + 0.5) / rows, 3)},
        }

    def model_card() -> dict[str, Any]:
        """What the model was trained on, how well it answers, its license, and what it is not for."""
        card: dict[str, Any] = model.card.model_dump(mode="json")
        return card

    for tool in (ask_image, ask_series, describe_image, localize, model_card):
        server.tool()(_with_plain_errors(tool))
    return server


def _with_plain_errors(tool: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The tool, whose errors reach the agent as one sentence."""
    import functools  # noqa: PLC0415

    from mcp.server.mcpserver.exceptions import ToolError  # noqa: PLC0415 - an extra

    @functools.wraps(tool)
    def call(*arguments: Any, **named: Any) -> dict[str, Any]:
        try:
            return tool(*arguments, **named)
        except MedicalVqaError as error:
            raise ToolError(str(error)) from error

    return call


def _result(answer: Any) -> dict[str, Any]:
    """An answer for an agent: without the file's path, which it knows or must not."""
    values: dict[str, Any] = answer.to_dict()
    unused: Sequence[str] = ("image", "raw", "seen")
    return {name: value for name, value in values.items() if name not in unused}


@contextlib.contextmanager
def _image_file(image: str, folder: Path) -> Iterator[Path]:
    """The file of an image; that of a data URL is removed at the end. Raises `ImageError`."""
    if not image.startswith("data:"):
        path = (folder / image).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            raise ImageError(
                f"expected a file below the server's image folder, got {image!r}; name one, or send a data URL"
            )
        yield path
        return
    header, comma, content = image.partition(",")
    try:
        if not comma or not header.endswith(";base64"):
            raise ValueError
        data = base64.b64decode("".join(content.split()), validate=True)
    except ValueError:
        raise ImageError("expected an image as data:image/...;base64,...; encode it again") from None
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "image"
        path.write_bytes(data)
        yield path
