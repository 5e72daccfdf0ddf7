"""Pictures for the page: the heat over an image where the model looked, and images small enough to send."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medical_vqa.serving.api.schema import AttentionMap

AMBER = (255, 176, 32)  # stands out from gray pictures for all kinds of color vision
_STRONGEST = 0.72  # opacity where the model looked most; the tissue below stays visible
_FAINT = 0.12  # shares of the strongest weight below which nothing is drawn
_LONGEST_HEAT = 512  # pixels
_LONGEST_VIEW = 1600  # pixels


def strength(attention_map: AttentionMap) -> NDArray[np.float32]:
    """The weights (rows, columns) scaled so that the largest is 1; all zero where there is nothing to show."""
    weights = (
        np.asarray(attention_map.values, dtype=np.float32)
        .reshape(attention_map.rows, attention_map.columns)
        .clip(min=0)
    )
    largest = float(weights.max(initial=0.0))
    return (weights / largest).astype(np.float32) if largest > 0 else weights


def heat(attention_map: AttentionMap, *, width: int, height: int) -> bytes:
    """A PNG of the picture's shape: one color whose opacity says how much the model looked there."""
    scale = min(1.0, _LONGEST_HEAT / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    smooth = Image.fromarray(strength(attention_map)).resize(size, Image.Resampling.BICUBIC)
    values = np.asarray(smooth, dtype=np.float32).clip(0, 1)
    shown = ((values - _FAINT) / (1 - _FAINT)).clip(0, 1)
    pixels = np.empty((size[1], size[0], 4), dtype=np.uint8)
    pixels[..., :3] = AMBER
    pixels[..., 3] = np.rint(shown * _STRONGEST * 255)
    return _png(Image.fromarray(pixels, "RGBA"))


def place(attention_map: AttentionMap) -> tuple[int, int]:
    """Row and column in a three by three raster of where the model looked most, for who cannot see the picture."""
    row, column = np.unravel_index(int(strength(attention_map).argmax()), (attention_map.rows, attention_map.columns))
    return int(3 * (row + 0.5) / attention_map.rows), int(3 * (column + 0.5) / attention_map.columns)


def for_view(png: bytes) -> str:
    """A data URI of a picture that fits a screen; what is larger is made smaller."""
    with Image.open(io.BytesIO(png)) as image:
        if max(image.size) <= _LONGEST_VIEW:
            return data_uri(png)
        image.thumbnail((_LONGEST_VIEW, _LONGEST_VIEW), Image.Resampling.LANCZOS)
        return data_uri(_png(image))


def thumbnail(data: bytes, *, side: int) -> bytes:
    """A square PNG cut from the middle of a picture."""
    with Image.open(io.BytesIO(data)) as image:
        gray_or_rgb = image.convert("L" if image.mode in ("1", "L", "I;16") else "RGB")
    edge = min(gray_or_rgb.size)
    left, top = (gray_or_rgb.width - edge) // 2, (gray_or_rgb.height - edge) // 2
    cut = gray_or_rgb.crop((left, top, left + edge, top + edge))
    return _png(cut.resize((side, side), Image.Resampling.LANCZOS))


def data_uri(png: bytes) -> str:
    """The bytes of a PNG as an address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
