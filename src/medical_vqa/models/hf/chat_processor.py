"""One image and one question as a chat model reads them: the part its picture decides, and the part the words decide.

A chat prompt is ``head(image) + tail(question)``: everything up to the image's last token depends on the picture alone
(how many tokens it takes, how they are laid out), everything after it on the question alone. So the head is made once
per image, kept beside the image's features, and no picture is needed to ask the next question.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image

from medical_vqa.errors import ModelError
from medical_vqa.models.hf.generation import fill
from medical_vqa.models.hf.loading import load_image_processor, load_tokenizer, reading

if TYPE_CHECKING:
    from torch import Tensor

_PROCESSOR_SETTINGS = (
    "image_seq_len", "image_seq_length", "num_image_tokens", "patch_size", "vision_aspect_ratio",
    "vision_feature_select_strategy",
)  # fmt: skip
_PROBE, _ANSWER = "What is shown here?", "answer"


@dataclass(frozen=True, slots=True)
class ImageInputs:
    """What the processor makes of one picture."""

    head: Tensor
    """(L,) token ids up to the image's last token."""
    types: Mapping[str, Tensor]
    """Other values of each token of the head, (L,) each: which belong to an image."""
    pixels: Mapping[str, Tensor]
    """What the vision part takes, and sizes that the language model's positions need."""


class ChatFormat:
    """A processor and a prompt, and how a turn of this model begins and ends."""

    def __init__(self, processor: Any, prompt: str, end_tokens: set[int]) -> None:
        self.processor, self.tokenizer, self._prompt = processor, processor.tokenizer, prompt
        self._opening, self._closing = self._answer_frame(end_tokens)

    def tail(self, question: str) -> list[int]:
        """Token ids after the image: the question and the beginning of the model's turn."""
        return self._ids(self._split(question)[1])

    def answer(self, text: str) -> list[int]:
        """Token ids of an answer, the mark that ends the turn included."""
        return [*self._ids(self._opening + text), *self._closing]

    def image(self, picture: NDArray[np.uint8]) -> ImageInputs:
        """What one picture, RGB (H, W, 3), becomes; raises `ModelError` where words and image cannot be told apart."""
        before, after = self._split(_PROBE)
        text = f"{before}{self.processor.image_token}{after}"
        begins = self.tokenizer.bos_token is not None and text.startswith(self.tokenizer.bos_token)
        with warnings.catch_warnings():
            # PaliGemma's own code converts a tensor in a way that NumPy is giving up
            warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
            made = self.processor(
                text=[text if self._templated else text.removesuffix("\n")],
                images=[Image.fromarray(picture)],
                return_tensors="pt",
                add_special_tokens=not begins,
            )
        ids, tail = made["input_ids"][0], self._ids(after)
        length = len(ids) - len(tail)
        if ids[length:].tolist() != tail:
            raise ModelError(
                "this model's tokenizer joins the end of the image with the question, so features cannot be kept per "
                "image; put a line break before {question} in model.prompt, or use another checkpoint"
            )
        others = {k: v for k, v in made.items() if isinstance(v, torch.Tensor) and k not in ("input_ids", "labels")}
        types = {k: v[0, :length] for k, v in others.items() if v.shape == made["input_ids"].shape}
        pixels = {k: v for k, v in others.items() if k not in types}
        types.pop("attention_mask", None)
        return ImageInputs(ids[:length], types, pixels)

    @property
    def _templated(self) -> bool:
        return bool(self.processor.chat_template or self.tokenizer.chat_template)

    def _split(self, question: str) -> tuple[str, str]:
        """The rendered turn before and after the image's place."""
        asked = fill(self._prompt, question)
        if not self._templated:
            return "", f"{asked}\n"  # PaliGemma: no turns, the question and a line break
        text = self._render([self._turn(asked)], opens=True)
        before, found, after = text.partition(self.processor.image_token)
        if not found:
            raise ModelError(
                f"the chat template has no place for an image: {self.processor.image_token!r} is not in what it "
                "renders; use a checkpoint that takes images"
            )
        return before, after

    def _turn(self, asked: str) -> dict[str, Any]:
        return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": asked}]}

    def _render(self, turns: list[dict[str, Any]], *, opens: bool) -> str:
        template = self.processor.chat_template or self.tokenizer.chat_template
        with reading("the chat template"):
            text: str = self.tokenizer.apply_chat_template(
                turns, chat_template=template, tokenize=False, add_generation_prompt=opens
            )
        return text

    def _answer_frame(self, end_tokens: set[int]) -> tuple[str, list[int]]:
        """What stands before an answer in the model's turn, and the tokens that end it."""
        end = [self.tokenizer.eos_token_id]
        if not self._templated:
            return "", end
        turn = self._turn(fill(self._prompt, _PROBE))
        prompt = self._render([turn], opens=True)
        whole = self._render([turn, {"role": "assistant", "content": [{"type": "text", "text": _ANSWER}]}], opens=False)
        opening, found, closing = whole.removeprefix(prompt).partition(_ANSWER)
        if not whole.startswith(prompt) or not found or opening.strip():
            return "", end
        ids = self._ids(closing)
        marks = [place for place, token in enumerate(ids) if token in end_tokens]
        return opening, ids[: marks[0] + 1] if marks else end

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids


def load_processor(folder: Path, name: str) -> Any:
    """A chat model's processor, with Pillow's resizing and without its video part, which needs torchvision.

    Raises `ModelError`.
    """
    with reading(f"the processor of {name}"):
        kind = _processor_class(folder)
        stored, _ = kind.get_processor_dict(folder)
        parts = {"image_processor": load_image_processor(folder, name), "tokenizer": load_tokenizer(folder, name)}
        stored.setdefault("chat_template", parts["tokenizer"].chat_template)
        return without_video(kind).from_args_and_dict([parts.get(p) for p in kind.get_attributes()], stored)


def without_video(kind: Any) -> Any:
    """The processor class, letting its video part be None."""

    def check(self: Any, name: str, part: Any) -> Any:
        return kind.check_argument_for_proper_class(self, name, part) if part is not None else None

    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})


def save_processor(processor: Any, folder: Path) -> None:
    """Write it as transformers does, so that ``AutoProcessor`` reads it where torchvision is."""
    processor.tokenizer.chat_template = processor.chat_template or processor.tokenizer.chat_template
    processor.tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    settings = {name: getattr(processor, name) for name in _PROCESSOR_SETTINGS if hasattr(processor, name)}
    about = {"processor_class": type(processor).__name__, **settings}
    (folder / "processor_config.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _processor_class(folder: Path) -> Any:
    for file in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        path = folder / file
        name = json.loads(path.read_text(encoding="utf-8")).get("processor_class") if path.is_file() else None
        if name and hasattr(transformers, name):
            return getattr(transformers, name)
    config = transformers.AutoConfig.from_pretrained(folder)
    from transformers.models.auto import processing_auto  # noqa: PLC0415

    return getattr(transformers, vars(processing_auto)["PROCESSOR_MAPPING_NAMES"][config.model_type])
