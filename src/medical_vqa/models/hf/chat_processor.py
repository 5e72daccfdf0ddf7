"""Images and questions as tokens of a chat model: of one question a prefix by the picture, a suffix by the words.

A chat prompt is ``prefix(image) + suffix(question)``: everything up to the image's last token depends on the picture
alone (how many tokens it takes, how they are laid out), everything after it on the question alone. So the prefix is
computed once per image and cached with its features, and the next question needs no picture.

A conversation (several images, earlier turns, a system message) is rendered as a whole. Each image is one token in that
text, and that token is replaced by the image's own tokens (`ImageInputs.block`), which are cached as well.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from jinja2 import TemplateError
from numpy.typing import NDArray
from PIL import Image

from medical_vqa.errors import MissingDependencyError, ModelError
from medical_vqa.models.base import Query, check_question
from medical_vqa.models.hf.generation import fill_prompt
from medical_vqa.models.hf.loading import explain_errors, load_image_processor, load_tokenizer
from medical_vqa.models.queries import NO_PICTURE

if TYPE_CHECKING:
    from torch import Tensor

    from medical_vqa.models.hf.checkpoint import Checkpoint

_PROBE, _ANSWER = "What is shown here?", "answer"
_TEMPLATE_FAILED = (
    "cannot write such a question ({reason}); leave out the system message or the earlier turns of its rows, or use "
    "another checkpoint"
)
MAX_CHARACTERS = 8_000
"""Longer questions are refused; those of examinations tell a case in a thousand characters or two."""
_TODAY = date(2025, 1, 1)
"""What a chat template that writes the date (Mistral's) reads as today: a prompt, and the features that are stored with
it, must be the same tomorrow."""
_DATE_CALL = re.compile(r"""strftime_now\(\s*(['"])(?P<form>[^'"]*)\1\s*\)""")


@dataclass(frozen=True, slots=True)
class ImageInputs:
    """Output of the processor for one picture."""

    prefix: Tensor
    """(L,) token ids up to the image's last token."""
    block: Tensor
    """(B,) token ids that the processor puts in the place of the image's token, in a text of nothing else."""
    types: Mapping[str, Tensor]
    """Further values of each token of the prefix, (L,) each, such as whether it belongs to an image."""
    pixels: Mapping[str, Tensor]
    """Input of the vision encoder, and sizes that the language model's positions depend on."""


class ChatFormat:
    """A processor and a prompt, and how a turn of this model begins and ends."""

    def __init__(self, processor: Any, prompt: str, end_tokens: Collection[int], *, splitting: bool = True) -> None:
        """Learn from the template how a turn begins and ends.

        Args:
            processor: The processor.
            prompt: Template of the question.
            end_tokens: Tokens at which generation stops.
            splitting: Whether a model that divides pictures into tiles does so.
        """
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self._prompt = prompt
        # InternVL's processor overrides its image processor's setting with a default of its own
        tiles = not splitting and hasattr(processor.image_processor, "crop_to_patches")
        self._image_arguments = {"crop_to_patches": False} if tiles else {}
        self._opening, self._closing = self._answer_frame(end_tokens)
        self._before_answer = self._split(_PROBE)[1]
        self._blocks: dict[tuple[int, ...], Tensor] = {}
        self._special = frozenset(self.tokenizer.get_added_vocab().values()) | frozenset(self.tokenizer.all_special_ids)

    def suffix(self, question: str) -> list[int]:
        """Token ids after the image: the question and the beginning of the model's turn."""
        return self._ids_after(self.processor.image_token, self._split(question)[1])

    def answer(self, text: str) -> list[int]:
        """Token ids of an answer, the token that ends the turn included."""
        return [*self._ids_after(self._before_answer, self._opening + text), *self._closing]

    def image(self, picture: NDArray[np.uint8]) -> ImageInputs:
        """Tokens and pixels of one picture, RGB (H, W, 3); raises `ModelError` where words and image share a token."""
        before, after = self._split(_PROBE)
        text = f"{before}{self.processor.image_token}{after}"
        inputs = self._processed(text if self._template else text.removesuffix("\n"), picture, special=True)
        ids, suffix = inputs["input_ids"][0], self.suffix(_PROBE)
        length = len(ids) - len(suffix)
        if ids[length:].tolist() != suffix:
            if not self._template:
                raise ModelError(
                    "the checkpoint has no chat template, and its processor does not put the question behind the image "
                    "as it stands; put the template of its instruction-tuned sibling into chat_template.jinja next to "
                    "the tokenizer"
                )
            raise ModelError(
                "this model's tokenizer joins the end of the image with the question, so features cannot be cached per "
                "image; put a line break before {question} in model.prompt, or use another checkpoint"
            )
        others = {k: v for k, v in inputs.items() if isinstance(v, torch.Tensor) and k not in ("input_ids", "labels")}
        types = {k: v[0, :length] for k, v in others.items() if v.shape == inputs["input_ids"].shape}
        pixels = {k: v for k, v in others.items() if k not in types}
        types.pop("attention_mask", None)
        return ImageInputs(ids[:length], self._block(picture.shape), types, pixels)

    def _processed(self, text: str, picture: NDArray[np.uint8], *, special: bool) -> Any:
        """Output of the processor for a text with one picture; `special` adds special tokens that the text lacks."""
        has_bos = self.tokenizer.bos_token is not None and text.startswith(self.tokenizer.bos_token)
        with warnings.catch_warnings():
            # PaliGemma's own code converts a tensor in a way that NumPy deprecates
            warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
            return self.processor(
                text=[text],
                images=[Image.fromarray(picture)],
                return_tensors="pt",
                add_special_tokens=special and not has_bos,
                **self._image_arguments,
            )

    def _block(self, shape: tuple[int, ...]) -> Tensor:
        """Tokens of a picture of this shape, on which alone they depend."""
        if not self._template:
            return torch.zeros(0, dtype=torch.long)  # such a model takes no conversations
        if shape not in self._blocks:
            black = np.zeros(shape, np.uint8)
            self._blocks[shape] = self._processed(self.processor.image_token, black, special=False)["input_ids"][0]
        return self._blocks[shape].clone()  # a file of features holds no shared memory

    def conversation(self, query: Query, blocks: Sequence[Sequence[int]]) -> list[int]:
        """Token ids of a conversation up to the beginning of the answer to its last question.

        Args:
            query: The question with what precedes it; answers of earlier turns are those that it names.
            blocks: `ImageInputs.block` of each picture.

        Raises:
            ModelError: The checkpoint has no template for conversations, or its template leaves something out.
        """
        token = self.processor.image_token
        text = self._written(query, len(blocks))
        parts = text.split(token)
        image, edges = self.tokenizer.convert_tokens_to_ids(token), [self._edges(block) for block in blocks]
        for number, (before, _, after) in enumerate(edges):
            parts[number] += before
            parts[number + 1] = after + parts[number + 1]
        has_bos = self.tokenizer.bos_token is not None and text.startswith(self.tokenizer.bos_token)
        ids: list[int] = []
        images = iter(edges)
        for id_ in self.tokenizer(token.join(parts), add_special_tokens=not has_bos).input_ids:
            ids += next(images)[1] if id_ == image else [id_]
        return ids

    def takes(self, *, pictures: int = 1, turns: tuple[tuple[str, str], ...] = (), system: str = "") -> bool:
        """Whether the template writes a question with so many pictures, earlier turns or a system message."""
        query = Query("probe", _PROBE, "probe", NO_PICTURE, turns=turns, system=system)
        try:
            self._written(query, pictures)
        except ModelError:
            return False
        return True

    def _written(self, query: Query, images: int) -> str:
        """A conversation as the template writes it; raises `ModelError` where it leaves something out."""
        if not self._template:
            raise ModelError(
                "this checkpoint has no chat template, so that it cannot take several images, earlier turns or a "
                "system message; use another checkpoint, or leave such rows out"
            )
        token = self.processor.image_token
        for words in (query.system, *query.questions, *(answer for _, answer in query.turns)):
            if token in words:
                raise ModelError(f"a text holds {token!r}, which stands for an image in this model; take it out")
        messages = self._messages(query, images)
        text = self._render(messages, answer_follows=True)
        written = text.count(token)
        if written != images:
            raise ModelError(
                f"the chat template of this checkpoint writes {written} of {images} images of a question; "
                "leave such rows out, or use another checkpoint"
            )
        if query.system and text == self._render(messages[1:], answer_follows=True):
            raise ModelError(
                "the chat template of this checkpoint leaves the system message out; use another checkpoint, or rows "
                "without one"
            )
        return text

    def _edges(self, block: Sequence[int]) -> tuple[str, Sequence[int], str]:
        """A picture's tokens between its first and last special one, and the words before and after these.

        Words at the edges (Gemma's line breaks) may share tokens with the text around the picture.
        """
        special = [place for place, id_ in enumerate(block) if id_ in self._special]
        first, last = special[0], special[-1] + 1
        before, after = self.tokenizer.decode(block[:first]), self.tokenizer.decode(block[last:])
        return before, block[first:last], after

    def _messages(self, query: Query, images: int) -> list[dict[str, Any]]:
        """The turns of a conversation as templates read them, each picture at its place."""
        messages = [_message("system", [_text_part(query.system)])] if query.system else []
        places = query.image_places or ((0, 0),) * images
        start = self._prompt.index("{question}")
        for number, question in enumerate(query.questions):
            words = check_question(question, MAX_CHARACTERS)
            prompt = fill_prompt(self._prompt, words)
            content: list[dict[str, str]] = []
            position = 0
            for turn, character in places:
                if turn == number:
                    place = start + min(character, len(words)) if character else 0
                    content += [*_texts(prompt[position:place]), {"type": "image"}]
                    position = place
            messages.append(_message("user", [*content, *_texts(prompt[position:])]))
            if number < len(query.turns):
                messages.append(_message("assistant", [_text_part(query.turns[number][1])]))
        return messages

    @property
    def _template(self) -> str | None:
        template = self.processor.chat_template or self.tokenizer.chat_template
        return template.get("default") if isinstance(template, dict) else template

    def _split(self, question: str) -> tuple[str, str]:
        """The rendered turn before and after the image's place."""
        prompt = fill_prompt(self._prompt, question)
        if not self._template:
            return "", f"{prompt}\n"  # PaliGemma: no turns, the question and a line break
        text = self._render([_user_turn(prompt)], answer_follows=True)
        before, image_token, after = text.partition(self.processor.image_token)
        if not image_token:
            raise ModelError(
                f"the chat template has no place for an image: {self.processor.image_token!r} is not in what it "
                "renders; use a checkpoint that takes images"
            )
        return before, after

    def _render(self, turns: list[dict[str, Any]], *, answer_follows: bool) -> str:
        dated = _DATE_CALL.sub(lambda call: repr(_TODAY.strftime(call["form"])), self._template or "")
        with explain_errors("the chat template", _TEMPLATE_FAILED):
            try:
                text: str = self.tokenizer.apply_chat_template(
                    turns, chat_template=dated, tokenize=False, add_generation_prompt=answer_follows
                )
            except TemplateError as error:  # such as the template's own message about an order of roles
                raise ValueError(str(error)) from error
        return text

    def _answer_frame(self, end_tokens: Collection[int]) -> tuple[str, list[int]]:
        """Text before an answer in the model's turn, and the tokens that end the turn."""
        own = self.tokenizer.eos_token_id
        end = [next(iter(end_tokens)) if own is None and end_tokens else own]
        if not self._template:
            return "", end
        turn = _user_turn(fill_prompt(self._prompt, _PROBE))
        answer_turn = {"role": "assistant", "content": [{"type": "text", "text": _ANSWER}]}
        prompt = self._render([turn], answer_follows=True)
        conversation = self._render([turn, answer_turn], answer_follows=False)
        opening, answer, closing = conversation.removeprefix(prompt).partition(_ANSWER)
        if not conversation.startswith(prompt) or not answer or opening.strip():
            return "", end
        ids = self._ids(closing)
        end_places = [place for place, token in enumerate(ids) if token in end_tokens]
        return opening, ids[: end_places[0] + 1] if end_places else end

    def _ids_after(self, context: str, text: str) -> list[int]:
        """Token ids of a text where it follows another: SentencePiece marks the beginning of a text."""
        before, both = self._ids(context), self._ids(context + text)
        return both[len(before) :] if both[: len(before)] == before else self._ids(text)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids


def _user_turn(text: str) -> dict[str, Any]:
    return _message("user", [{"type": "image"}, _text_part(text)])


def _message(role: str, content: list[dict[str, str]]) -> dict[str, Any]:
    return {"role": role, "content": content}


def _text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _texts(text: str) -> list[dict[str, str]]:
    return [_text_part(text)] if text else []


def load_processor(folder: Path, name: str, config: Any) -> Any:
    """A chat model's processor, with Pillow's resizing and without its video part, which needs torchvision.

    Args:
        folder: A checkpoint or a bundle.
        name: What error messages call it.
        config: The network's configuration; decides the class where no file names it.

    Raises:
        MissingDependencyError: The class needs torchvision.
        ModelError: A file is missing or damaged.
    """
    with explain_errors(f"the processor of {name}"):
        processor_class = _processor_class(folder, config.model_type)
        stored, _ = processor_class.get_processor_dict(folder)
        parts = {"image_processor": load_image_processor(folder, name), "tokenizer": load_tokenizer(folder, name)}
        stored.setdefault("chat_template", parts["tokenizer"].chat_template)
        arguments = [parts.get(part) for part in processor_class.get_attributes()]
        return without_video(processor_class).from_args_and_dict(arguments, stored)


def without_video(processor_class: Any) -> Any:
    """The processor class, which accepts None as its video part."""

    def check(self: Any, name: str, part: Any) -> Any:
        return processor_class.check_argument_for_proper_class(self, name, part) if part is not None else None

    return type(processor_class.__name__, (processor_class,), {"check_argument_for_proper_class": check})


def shipped_image_tokens(checkpoint: Checkpoint, side: int) -> int:
    """Tokens of a square picture by the image processor alone: a shipped configuration (a Qwen-VL) has no tokenizer."""
    images = load_image_processor(checkpoint.folder, checkpoint.name)
    grid = images(images=[np.zeros((side, side, 3), np.uint8)], return_tensors="pt")["image_grid_thw"]
    return int(grid.prod()) // int(images.merge_size) ** 2


def stop_splitting(processor: Any, config: Any) -> None:
    """Make a processor take a picture as one tile, in the ways of the models that divide it.

    Args:
        processor: Its image processor is changed.
        config: The network's configuration, which repeats LLaVA's tilings.
    """
    images = processor.image_processor
    for name in ("do_image_splitting", "crop_to_patches", "do_pan_and_scan"):
        if hasattr(images, name):
            setattr(images, name, False)
    if hasattr(images, "image_grid_pinpoints"):
        size = dict(images.size)
        side = size.get("shortest_edge") or size["height"]
        images.image_grid_pinpoints = config.image_grid_pinpoints = [[side, side]]


def _processor_class(folder: Path, model_type: str) -> Any:
    for file in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        path = folder / file
        name = json.loads(path.read_text(encoding="utf-8")).get("processor_class") if path.is_file() else None
        if name and hasattr(transformers, name):
            break
    else:
        from transformers.models.auto import processing_auto  # noqa: PLC0415

        name = vars(processing_auto)["PROCESSOR_MAPPING_NAMES"][model_type]
    processor_class = _pixtral_processor() if name == "PixtralProcessor" else getattr(transformers, name)
    if not issubclass(processor_class, transformers.ProcessorMixin):  # what transformers puts in place of the class
        raise MissingDependencyError(
            f"{name} of transformers needs torchvision, which is not installed; install the torchvision of your "
            "PyTorch version from https://pytorch.org, or name another checkpoint in model.checkpoint"
        )
    return processor_class


def _pixtral_processor() -> Any:
    """The processor of Pixtral and Mistral 3, without torchvision too.

    transformers offers it only together with torchvision, because its module imports one function from the image
    processor that computes with torchvision. The one that computes with Pillow has the same function.
    """
    if issubclass(transformers.PixtralProcessor, transformers.ProcessorMixin):
        return transformers.PixtralProcessor
    package = "transformers.models.pixtral"
    name = f"{package}.image_processing_pixtral"
    sys.modules[name] = importlib.import_module(f"{package}.image_processing_pil_pixtral")
    try:
        return importlib.import_module(f"{package}.processing_pixtral").PixtralProcessor
    finally:
        del sys.modules[name]
