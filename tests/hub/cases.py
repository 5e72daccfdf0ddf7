"""Models and questions on the layouts, for the tests that compare them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from layouts import LAYOUTS
from PIL import Image

from medical_vqa.data.imaging.preprocessing import prepare_picture
from medical_vqa.models.base import Query
from medical_vqa.models.hf.blip2 import Blip2
from medical_vqa.models.hf.chat import ChatVlm
from medical_vqa.models.hf.vilt import Vilt
from medical_vqa.schema.records import Example

ROWS = [("What is this?", "CT"), ("Which part?", "left lung"), ("Is the heart there?", "no")]
EXAMPLES = [Example(f"t/{i}", "image", q, (a,), "image") for i, (q, a) in enumerate(ROWS)]
LORA = {"targets": "language", "rank": 4, "alpha": 16.0, "dropout": 0.0}
GENERATIVE = [name for name in LAYOUTS if LAYOUTS[name].family != "vilt"]


def build(name: str, folder: Path, **options: Any) -> Any:
    torch.manual_seed(3)
    family = LAYOUTS[name].family
    if family == "vilt":
        return Vilt.build(EXAMPLES, checkpoint=str(folder), **options)
    lora = LORA | options.pop("lora", {})
    prompt = "Question: {question} Answer:" if family == "blip2" else "{question}\nBe short."
    if family == "blip2":
        return Blip2.build(EXAMPLES, checkpoint=str(folder), lora=lora, prompt=prompt, **options)
    return ChatVlm.build(EXAMPLES, checkpoint=str(folder), lora=lora, prompt=prompt, side=56, **options)


def queries(model: Any, *, learn: bool = False, seed: int = 0) -> list[Query]:
    pixels = np.random.default_rng(seed).integers(0, 256, (44, 60, 3), dtype=np.uint8)
    picture = prepare_picture(Image.fromarray(pixels), model.picture)
    return [Query(e.id, e.question, "image", picture, e.answers[0] if learn else None) for e in EXAMPLES]
