"""Images for the page: the attention map as a heatmap, pictures small enough to send, thumbnails."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medical_vqa.schema.evidence import Evidence
from medical_vqa.serving.schema.answers import AttentionMap

AMBER = (255, 176, 32)  # stands out from gray images for all types of color vision
_MAX_OPACITY = 0.72  # at the largest weight; the tissue below stays visible
_THRESHOLD = 0.12  # fraction of the largest weight below which nothing is drawn
_MAX_HEATMAP_SIDE = 512  # pixels
_MAX_PICTURE_SIDE = 1600  # pixels


def normalized_weights(attention_map: AttentionMap) -> NDArray[np.float32]:
    """Weights (rows, columns) scaled to a maximum of 1; all zero where no weight is positive."""
    shape = (attention_map.rows, attention_map.columns)
    weights = np.asarray(attention_map.values, dtype=np.float32).reshape(shape).clip(min=0)
    largest = float(weights.max(initial=0.0))
    return (weights / largest).astype(np.float32) if largest > 0 else weights


def heatmap(attention_map: AttentionMap, *, width: int, height: int) -> bytes:
    """Draw an attention map in one color whose opacity grows with the weight.

    Args:
        attention_map: Weights over a grid.
        width: Width of the image in pixels.
        height: Height of the image in pixels.

    Returns:
        An RGBA PNG with the image's aspect ratio, at most 512 pixels on its longer side.
    """
    scale = min(1.0, _MAX_HEATMAP_SIDE / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    smooth = Image.fromarray(normalized_weights(attention_map)).resize(size, Image.Resampling.BICUBIC)
    weights = np.asarray(smooth, dtype=np.float32).clip(0, 1)
    opacity = ((weights - _THRESHOLD) / (1 - _THRESHOLD)).clip(0, 1)
    pixels = np.empty((size[1], size[0], 4), dtype=np.uint8)
    pixels[..., :3] = AMBER
    pixels[..., 3] = np.rint(opacity * _MAX_OPACITY * 255)
    return _png(Image.fromarray(pixels, "RGBA"))


def outline_path(item: Evidence) -> str:
    """The polygon as the commands of an SVG path, in pixels of the picture."""
    rings = (ring for polygon in item.polygon.coordinates for ring in polygon)
    return " ".join("M" + "L".join(f"{x:g} {y:g}" for x, y in ring[:-1]) + "Z" for ring in rings)


def strongest_region(attention_map: AttentionMap) -> tuple[int, int]:
    """Row and column, in a grid of three by three, of the largest weight; for visitors who cannot see the image."""
    shape = (attention_map.rows, attention_map.columns)
    row, column = np.unravel_index(int(normalized_weights(attention_map).argmax()), shape)
    return int(3 * (row + 0.5) / attention_map.rows), int(3 * (column + 0.5) / attention_map.columns)


def screen_uri(png: bytes) -> str:
    """A data URI of a picture, reduced where it is larger than a screen."""
    with Image.open(io.BytesIO(png)) as image:
        if max(image.size) <= _MAX_PICTURE_SIDE:
            return data_uri(png)
        image.thumbnail((_MAX_PICTURE_SIDE, _MAX_PICTURE_SIDE), Image.Resampling.LANCZOS)
        return data_uri(_png(image))


def thumbnail(data: bytes, *, side: int) -> bytes:
    """A square PNG of `side` pixels, cropped from the center of an image."""
    with Image.open(io.BytesIO(data)) as image:
        picture = image.convert("L" if image.mode in ("1", "L", "I;16") else "RGB")
    edge = min(picture.size)
    left = (picture.width - edge) // 2
    top = (picture.height - edge) // 2
    square = picture.crop((left, top, left + edge, top + edge))
    return _png(square.resize((side, side), Image.Resampling.LANCZOS))


def data_uri(png: bytes) -> str:
    """The data URI of a PNG."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
