"""CT in several windows at once, as the channels of one color picture: what some models were trained to see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from medical_vqa.data.imaging.decoded_frame import DecodedFrame
from medical_vqa.data.imaging.preprocessing import PictureSpec

Window = tuple[float, float]


def windowed_image(decode: Callable[[Window | None], DecodedFrame], spec: PictureSpec) -> DecodedFrame:
    """The frame that `decode` gives for no window of its own, or for CT its windows as red, green and blue.

    Args:
        decode: Decodes the frame with a window (center, width); None: that of its header.
        spec: The picture that the model receives; only its `windows` matter here.
    """
    frame = decode(None)
    if not spec.windows or frame.window is None or frame.header_fields.get("Modality", "CT") != "CT":
        return frame
    channels = [decode(window).pixels[..., :1] for window in spec.windows]
    return replace(frame, pixels=np.concatenate(channels, axis=-1))
