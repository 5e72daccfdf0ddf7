"""A bundle used with transformers and PEFT alone, as somebody elsewhere would: losses, gradients and answers."""

from __future__ import annotations

import warnings
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers
from layouts import LAYOUTS, Layout
from peft import PeftModel
from PIL import Image

ANSWER_TURNS = {
    "qwen2.5-vl": "{}<|im_end|>", "qwen3-vl": "{}<|im_end|>", "smolvlm2": " {}<end_of_utterance>",
    "smolvlm": " {}<end_of_utterance>", "idefics3": " {}<end_of_utterance>", "gemma3": "{}<end_of_turn>",
    "paligemma2": "{}<eos>", "llava-1.5": " {}</s>", "llava-1.6": " {}</s>", "llava-onevision": "{}<|im_end|>",
    "internvl3": "{}<|im_end|>", "mistral3": "{}</s>", "pixtral": "{}</s>",
}  # fmt: skip
"""What stands behind the prompt when a model has answered, by the published templates."""


class FirstOfJanuary(datetime):
    """The date that prompts of this package have."""

    @classmethod
    def now(cls, *_: object) -> datetime:
        return datetime(2025, 1, 1)


class Plain:
    """A base checkpoint with the adapter of a bundle, or a bundle that is a whole checkpoint (ViLT)."""

    def __init__(self, name: str, base: Path, bundle: Path, network: Any = None) -> None:
        """Load a bundle on its base, or take the processor of a folder for a complete `network`."""
        self.name = name
        self.layout: Layout = LAYOUTS[name]
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(bundle)
        if self.layout.family == "vilt":
            self.images = transformers.AutoImageProcessor.from_pretrained(bundle, backend="pil")
            self.model = transformers.ViltForQuestionAnswering.from_pretrained(bundle).eval()
            return
        self.processor = self._processor(bundle)
        if network is not None:
            self.model = network.eval()
            return
        network = transformers.AutoModelForImageTextToText
        if self.layout.family == "blip2":
            network = transformers.Blip2ForConditionalGeneration
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model = PeftModel.from_pretrained(
                network.from_pretrained(base, dtype=torch.float32), bundle, is_trainable=True
            ).eval()

    def _processor(self, bundle: Path) -> Any:
        from medical_vqa.models.hf.chat_processor import _processor_class, without_video

        images = transformers.AutoImageProcessor.from_pretrained(bundle, backend="pil")
        processor_class = _processor_class(bundle, "")
        stored, _ = processor_class.get_processor_dict(bundle)
        stored.setdefault("chat_template", self.tokenizer.chat_template)
        parts = {"image_processor": images, "tokenizer": self.tokenizer}
        # AutoProcessor itself where it needs no torchvision, as a video part and PixtralProcessor do
        automatic = self.layout.family == "chat" and self.name not in ("mistral3", "pixtral")
        if automatic and "video_processor" not in processor_class.get_attributes():
            processor = transformers.AutoProcessor.from_pretrained(bundle)
            processor.image_processor = images
            return processor
        arguments = [parts.get(part) for part in processor_class.get_attributes()]
        return without_video(processor_class).from_args_and_dict(arguments, stored)

    @property
    def network(self) -> Any:
        """The network, without PEFT's wrapper where it has one."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    def inputs(self, image: Image.Image, prompt: str, answer: str | None = None) -> dict[str, Any]:
        """Model inputs; with an answer, labels too."""
        if self.layout.family == "blip2":
            return self._blip2_inputs(image, prompt, answer)
        asked = self._encoded(image, self._rendered(prompt))
        if answer is None:
            return asked
        full = self._encoded(image, self._rendered(prompt) + ANSWER_TURNS[self.name].format(answer))
        labels = full["input_ids"].clone()
        labels[:, : asked["input_ids"].shape[1]] = -100
        if "token_type_ids" in full and self.name == "paligemma2":
            full["token_type_ids"][:, asked["input_ids"].shape[1] :] = 1
        return full | {"labels": labels}

    def _rendered(self, prompt: str) -> str:
        if self.name == "paligemma2":
            return prompt + "\n"
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        with mock.patch("transformers.utils.chat_template_utils.datetime", FirstOfJanuary):
            text: str = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                chat_template=self.processor.chat_template,
                add_generation_prompt=True,
                tokenize=False,
            )
        return text

    def _encoded(self, image: Image.Image, text: str) -> dict[str, Any]:
        if self.name == "paligemma2":  # its processor puts the image and a line break around the text
            prompt, _, answer = text.rpartition("\n")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # its own code, with NumPy 2
                encoded = dict(self.processor(text=[prompt], images=[image], return_tensors="pt"))
            ids = self.tokenizer(answer, add_special_tokens=False, return_tensors="pt").input_ids if answer else None
            if ids is not None:
                ids = ids.long()
                encoded["input_ids"] = torch.cat([encoded["input_ids"], ids], 1)
                for key in ("attention_mask", "token_type_ids"):
                    encoded[key] = torch.cat([encoded[key], torch.ones_like(ids)], 1)
            return encoded
        bos = self.tokenizer.bos_token
        special = not (bos is not None and text.startswith(bos))
        return dict(self.processor(text=[text], images=[image], return_tensors="pt", add_special_tokens=special))

    def _blip2_inputs(self, image: Image.Image, prompt: str, answer: str | None) -> dict[str, Any]:
        pixels = self.processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
        config = self.network.config
        image_ids = [config.image_token_index] * config.num_query_tokens
        ids, labels = [*image_ids, *self.tokenizer(prompt).input_ids], None
        if answer is not None and config.use_decoder_only_language_model:
            own = [*self.tokenizer(f" {answer}", add_special_tokens=False).input_ids, self.tokenizer.eos_token_id]
            labels = torch.tensor([[-100] * len(ids) + own])
            ids += own
        elif answer is not None:
            labels = torch.tensor([self.tokenizer(answer).input_ids])
        encoded = {"pixel_values": pixels, "input_ids": torch.tensor([ids])}
        encoded["attention_mask"] = torch.ones_like(encoded["input_ids"])
        return encoded if labels is None else encoded | {"labels": labels}

    def loss_and_gradients(self, image: Image.Image, prompt: str, answer: str) -> tuple[float, dict[str, torch.Tensor]]:
        """Loss summed over the answer's tokens, and the gradient of each adapter weight."""
        self.model.zero_grad()
        inputs = self.inputs(image, prompt, answer)
        loss = self.model(**inputs).loss * (inputs["labels"] != -100).sum()
        loss.backward()
        own = self.model.named_parameters()
        return loss.item(), {name: p.grad for name, p in own if p.requires_grad and p.grad is not None}

    def answer(self, image: Image.Image, prompt: str, *, stops: list[int], tokens: int, beams: int = 1) -> str:
        """The generated text, with every parameter of the search given."""
        return self.generate(self.inputs(image, prompt), stops=stops, tokens=tokens, beams=beams)

    @torch.inference_mode()
    def generate(self, inputs: dict[str, Any], *, stops: list[int], tokens: int, beams: int = 1) -> str:
        """The text that follows prepared inputs, with every parameter of the search given."""
        output = self.model.generate(
            **inputs, max_new_tokens=tokens, num_beams=beams, do_sample=False, eos_token_id=stops,
            pad_token_id=stops[0], repetition_penalty=1.0, no_repeat_ngram_size=0, length_penalty=1.0,
        )  # fmt: skip
        decoder_only = not getattr(self.network.config, "is_encoder_decoder", False)
        start = inputs["input_ids"].shape[1] if decoder_only else 0
        new = output[0, start:].tolist()
        end = next((place for place, token in enumerate(new) if token in stops and place), len(new))
        return self.tokenizer.decode([token for token in new[:end] if token not in stops], skip_special_tokens=True)
