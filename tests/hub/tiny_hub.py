"""Small random models of the real classes with real processors and tokenizers, saved in the hub's layout.

They are loaded by path through the code that loads the published ones. Vocabularies come from a list of texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import pre_tokenizers
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.vilt.image_processing_pil_vilt import ViltImageProcessorPil

from medical_vqa.models.hf.chat_processor import without_video

WORDS = (
    "Answer the following question based on the image: What modality is used to take this ? which part of body "
    "does belong lung heart liver are there any in yes no left right CT MRI X-Ray chest abdomen head is color"
)


def pieces(texts: Iterable[str], pattern: str = r"[A-Za-z]+|\d|\S") -> list[str]:
    return sorted({piece for text in texts for piece in re.findall(pattern, text)})


def seeded(make: Any) -> Any:
    torch.manual_seed(7)
    return make()


def vilt(folder: Path, texts: Iterable[str] = (WORDS,), **changes: Any) -> Path:
    words = pieces(text.lower() for text in texts)
    vocabulary = {t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    sizes: dict[str, Any] = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "image_size": 64, "patch_size": 16, "max_position_embeddings": 40, "num_labels": 2,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    } | changes  # fmt: skip
    config = transformers.ViltConfig(vocab_size=len(vocabulary), **sizes)
    seeded(lambda: transformers.ViltForQuestionAnswering(config)).save_pretrained(folder)
    side = sizes["image_size"]
    processor = ViltImageProcessorPil(size={"shortest_edge": side}, size_divisor=sizes["patch_size"])
    processor.save_pretrained(folder)
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return folder


VISION = {
    "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14, "initializer_range": 0.1,
}  # fmt: skip
QFORMER = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "cross_attention_frequency": 2, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    "vocab_size": 4, "initializer_range": 0.1,
}  # fmt: skip


def blip2(
    folder: Path,
    language: str = "t5",
    texts: Iterable[str] = (WORDS,),
    *,
    vision: Mapping[str, Any] | None = None,
    qformer: Mapping[str, Any] | None = None,
    queries: int = 4,
    **text_sizes: Any,
) -> Path:
    tokenizer = _t5_tokenizer(texts) if language == "t5" else byte_tokenizer(bos="</s>", eos="</s>", pad="<pad>")
    text = _t5_config(len(tokenizer), text_sizes) if language == "t5" else _opt_config(tokenizer, text_sizes)
    vision_sizes = VISION | dict(vision or {})
    config = transformers.Blip2Config(
        vision_config=vision_sizes,
        qformer_config=QFORMER | {"encoder_hidden_size": vision_sizes["hidden_size"]} | dict(qformer or {}),
        text_config=text,
        num_query_tokens=queries,
        image_token_index=len(tokenizer) - 1,
    )
    model = seeded(lambda: transformers.Blip2ForConditionalGeneration(config))
    model.query_tokens.data.normal_(std=0.5)
    model.save_pretrained(folder)
    side = vision_sizes["image_size"]
    BlipImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _t5_tokenizer(texts: Iterable[str]) -> Any:
    letters = [chr(code) for code in range(33, 127)]
    words = [f"▁{word}" for word in pieces(texts, r"[^\s?.,:]+")]
    known = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -8.0)]
    known += [(word, -2.0) for word in words] + [(letter, -6.0) for letter in letters] + [("<image>", 0.0)]
    return transformers.T5Tokenizer(vocab=known, extra_ids=0)


def _t5_config(vocabulary: int, changes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "t5", "vocab_size": vocabulary, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2,
        "num_decoder_layers": 2, "num_heads": 4, "feed_forward_proj": "gated-gelu", "dropout_rate": 0.0,
        "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": False,
    } | dict(changes)  # fmt: skip


def _opt_config(tokenizer: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "opt", "vocab_size": len(tokenizer), "hidden_size": 32, "word_embed_proj_dim": 32,
        "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256,
        "dropout": 0.0, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    } | dict(changes)  # fmt: skip


def byte_tokenizer(*, bos: str | None, eos: str, pad: str, special: Iterable[str] = (), named: Any = None) -> Any:
    """Bytes as tokens: GPT-2's own class, as OPT and many chat models use it, with no merges."""
    names = list(dict.fromkeys([pad, eos, *([bos] if bos else []), *special]))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*names, *alphabet])}
    tokenizer = transformers.GPT2Tokenizer(
        vocab=vocabulary, merges=[], bos_token=bos, eos_token=eos, unk_token=pad, pad_token=pad,
        extra_special_tokens=named or [name for name in names if name not in (bos, eos, pad)],
    )  # fmt: skip
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


CHAT_TEMPLATE = (
    "{% for m in messages %}<start>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<start>assistant\n{% endif %}"
)


def chat(folder: Path, kind: str = "qwen2_5_vl") -> Path:
    """A chat model of one of `CHAT`, with its own processor class and a template that puts the image first."""
    model, processor = CHAT[kind]()
    model.save_pretrained(folder)
    save_processor(processor, folder)
    return folder


def save_processor(processor: Any, folder: Path) -> None:
    processor.tokenizer.chat_template = processor.chat_template
    processor.tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    settings = {
        name: getattr(processor, name)
        for name in (
            "image_seq_len",
            "image_seq_length",
            "num_additional_image_tokens",
            "num_image_tokens",
            "patch_size",
            "vision_feature_select_strategy",
        )
        if hasattr(processor, name)
    }
    content = {"processor_class": type(processor).__name__, **settings}
    (folder / "processor_config.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip


def _qwen(kind: str, vision: Mapping[str, Any]) -> tuple[Any, Any]:
    """A Qwen-VL model of a generation, ``Qwen2_5_VL`` or ``Qwen3VL``: they differ in their vision part."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = byte_tokenizer(
        bos=None, eos="<end>", pad="<pad>",
        special=["<start>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"],
    )  # fmt: skip
    ids = dict(zip(["image", "video", "start", "end"], tokenizer.convert_tokens_to_ids(
        ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]), strict=True))  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(
        text_config=TEXT | {
            "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None,
            "pad_token_id": tokenizer.pad_token_id, "head_dim": 8,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
        },
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32,
            "patch_size": 14,
        } | vision,
        image_token_id=ids["image"], video_token_id=ids["video"], vision_start_token_id=ids["start"],
        vision_end_token_id=ids["end"],
    )  # fmt: skip
    model = seeded(lambda: getattr(transformers, f"{kind}ForConditionalGeneration")(config))
    template = CHAT_TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    pixels = Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16})
    return model, without_video(getattr(transformers, f"{kind}Processor"))(pixels, tokenizer, chat_template=template)


def _qwen2_5_vl() -> tuple[Any, Any]:
    return _qwen("Qwen2_5_VL", {"window_size": 56, "fullatt_block_indexes": [1]})


def _qwen3_vl() -> tuple[Any, Any]:
    return _qwen("Qwen3VL", {"deepstack_visual_indexes": [0], "num_position_embeddings": 16})


SIGLIP = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 7, "initializer_range": 0.1,
}  # fmt: skip


def _chat_tokenizer(**names: str) -> Any:
    return byte_tokenizer(bos=None, eos="<end>", pad="<pad>", special=["<start>", *names.values()], named=names)


def _language(tokenizer: Any, model_type: str, **changes: Any) -> dict[str, Any]:
    return TEXT | {
        "model_type": model_type, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None, "pad_token_id": tokenizer.pad_token_id, "head_dim": 8,
    } | changes  # fmt: skip


def _smolvlm() -> tuple[Any, Any]:
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    tokenizer = _chat_tokenizer(
        image_token="<image>", fake_image_token="<fake_token_around_image>", global_image_token="<global-img>",
        end_of_utterance_token="<end>",
    )  # fmt: skip
    config = transformers.SmolVLMConfig(
        text_config=_language(tokenizer, "llama"),
        vision_config=SIGLIP | {"model_type": "smolvlm_vision"},
        image_token_id=tokenizer.image_token_id, scale_factor=2, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    pixels = SmolVLMImageProcessorPil(
        size={"longest_edge": 56}, max_image_size={"longest_edge": 28}, do_image_splitting=True
    )
    processor = without_video(transformers.SmolVLMProcessor)(
        pixels, tokenizer, None, image_seq_len=4, chat_template=CHAT_TEMPLATE.replace("IMAGE", "<image>")
    )
    return seeded(lambda: transformers.SmolVLMForConditionalGeneration(config)), processor


def _gemma3() -> tuple[Any, Any]:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    tokenizer = _chat_tokenizer(image_token="<img>", boi_token="<boi>", eoi_token="<eoi>")
    config = transformers.Gemma3Config(
        text_config=_language(tokenizer, "gemma3_text", sliding_window=64, layer_types=["full_attention"] * 2),
        vision_config=SIGLIP | {"model_type": "siglip_vision_model", "vision_use_head": False},
        mm_tokens_per_image=4, image_token_id=tokenizer.image_token_id, image_token_index=tokenizer.image_token_id,
        boi_token_index=tokenizer.boi_token_id, eoi_token_index=tokenizer.eoi_token_id,
    )  # fmt: skip
    processor = transformers.Gemma3Processor(
        Gemma3ImageProcessorPil(size={"height": 28, "width": 28}), tokenizer, image_seq_length=4,
        chat_template=CHAT_TEMPLATE.replace("IMAGE", "<boi>"),
    )  # fmt: skip
    network = seeded(lambda: transformers.Gemma3ForConditionalGeneration(config))
    network.model.multi_modal_projector.mm_input_projection_weight.data.normal_(std=0.3)  # zeros at first
    return network, processor


def _llava() -> tuple[Any, Any]:
    """LLaVA-1.5 as llava-hf/llava-1.5-7b-hf publishes it: CLIP's last layer but one, a projector, Llama."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = _chat_tokenizer(image_token="<image>")
    config = transformers.LlavaConfig(
        text_config=_language(tokenizer, "llama"),
        vision_config=SIGLIP | {"model_type": "clip_vision_model", "projection_dim": 16},
        image_token_index=tokenizer.image_token_id, image_token_id=tokenizer.image_token_id, image_seq_length=16,
        vision_feature_layer=-2, vision_feature_select_strategy="default",
    )  # fmt: skip
    pixels = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = transformers.LlavaProcessor(
        pixels, tokenizer, patch_size=7, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE.replace("IMAGE", "<image>"),
    )  # fmt: skip
    return seeded(lambda: transformers.LlavaForConditionalGeneration(config)), processor


def _paligemma() -> tuple[Any, Any]:
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    tokenizer = byte_tokenizer(bos="<bos>", eos="<end>", pad="<pad>")
    pixels = SiglipImageProcessorPil(size={"height": 28, "width": 28})
    pixels.image_seq_length = 16
    processor = transformers.PaliGemmaProcessor(pixels, tokenizer)
    config = transformers.PaliGemmaConfig(
        text_config=_language(tokenizer, "gemma"),
        vision_config=SIGLIP | {"model_type": "siglip_vision_model", "projection_dim": 32, "vision_use_head": False},
        image_token_index=processor.image_token_id, image_token_id=processor.image_token_id, projection_dim=32,
        hidden_size=32,
    )  # fmt: skip
    return seeded(lambda: transformers.PaliGemmaForConditionalGeneration(config)), processor


def _llava_onevision() -> tuple[Any, Any]:
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    tokenizer = _chat_tokenizer(image_token="<image>", video_token="<video>")
    pins = [[28, 28], [28, 56], [56, 28], [56, 56]]
    config = transformers.LlavaOnevisionConfig(
        text_config=_language(tokenizer, "qwen2"),
        vision_config=SIGLIP | {"model_type": "siglip_vision_model", "vision_use_head": False},
        image_token_index=tokenizer.image_token_id, image_token_id=tokenizer.image_token_id,
        video_token_index=tokenizer.video_token_id, video_token_id=tokenizer.video_token_id,
        image_grid_pinpoints=pins, vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip
    pixels = LlavaOnevisionImageProcessorPil(size={"height": 28, "width": 28}, image_grid_pinpoints=pins)
    processor = without_video(transformers.LlavaOnevisionProcessor)(
        pixels, tokenizer, None, num_image_tokens=16, vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE.replace("IMAGE", "<image>"),
    )  # fmt: skip
    return seeded(lambda: transformers.LlavaOnevisionForConditionalGeneration(config)), processor


def _internvl() -> tuple[Any, Any]:
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    tokenizer = _chat_tokenizer(
        start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>"
    )
    config = transformers.InternVLConfig(
        text_config=_language(tokenizer, "qwen2"),
        vision_config=SIGLIP | {"model_type": "internvl_vision", "image_size": [28, 28], "patch_size": [7, 7]},
        image_token_id=tokenizer.context_image_token_id, downsample_ratio=0.5, image_seq_length=4,
        vision_feature_layer=-1,
    )  # fmt: skip
    pixels = GotOcr2ImageProcessorPil(size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=2)
    processor = without_video(transformers.InternVLProcessor)(
        pixels, tokenizer, None, image_seq_length=4, chat_template=CHAT_TEMPLATE.replace("IMAGE", "<IMG_CONTEXT>")
    )
    return seeded(lambda: transformers.InternVLForConditionalGeneration(config)), processor


CHAT = {
    "qwen2_5_vl": _qwen2_5_vl, "qwen3_vl": _qwen3_vl, "smolvlm": _smolvlm, "gemma3": _gemma3,
    "paligemma": _paligemma, "llava_onevision": _llava_onevision, "internvl": _internvl, "llava": _llava,
}  # fmt: skip
