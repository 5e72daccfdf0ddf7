"""Checkpoints at tiny size with the files, names and values of published ones: `LAYOUTS`.

The other tiny models (`tiny_hub`) are written by the transformers version at hand. A published checkpoint is not: it
has the key names, file formats and settings of the version that its authors used. Each layout here copies those, as
public repositories quote them; `source` names where, `unconfirmed` says what was taken from documentation of the
classes or could not be compared with the published file. Sizes, vocabularies and weights are our own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny_hub
import torch
import transformers
from safetensors.torch import save_file
from tiny_hub import QFORMER, SIGLIP, TEXT, VISION, WORDS, byte_tokenizer, pieces, seeded


@dataclass(frozen=True)
class Layout:
    """Facts of one published checkpoint, and the tiny network that is written in its form."""

    repository: str
    """Its id on the hub."""
    family: str
    """The family of this package that trains it."""
    network: Callable[[], tuple[Any, Any]]
    """The tiny network and its tokenizer."""
    files: Callable[[Any, Any], Mapping[str, Any]]
    """JSON and text files in addition to weights and tokenizer, for the network's configuration and the tokenizer."""
    source: str
    """Public text that quotes the published files."""
    unconfirmed: str = ""
    """What could not be compared with a quotation."""
    keys: tuple[tuple[str, str], ...] = ()
    """Regular expressions that turn today's parameter names into the published ones."""
    tied: bool = False
    """Whether the head is the embedding and absent from the file."""
    dtype: torch.dtype = torch.bfloat16
    """Precision of the published weights."""
    shards: int = 1
    """Number of weight files; with more than one there is an index."""
    pickled: bool = False
    """Whether the weights are a ``pytorch_model.bin``."""
    tokenizer_changes: Mapping[str, Any] = field(default_factory=dict)
    """Keys of tokenizer_config.json that differ from what is written today; None deletes one."""

    def write(self, folder: Path) -> Path:
        """The checkpoint as a folder in the hub's layout."""
        folder.mkdir(parents=True, exist_ok=True)
        network, tokenizer = self.network()
        tokenizer.save_pretrained(folder)
        if self.tokenizer_changes:
            _change_json(folder / "tokenizer_config.json", self.tokenizer_changes)
        self._write_weights(network, folder)
        files = dict(self.files(network.config, tokenizer))
        files["config.json"] |= {"torch_dtype": str(self.dtype).removeprefix("torch.")}  # its name before 4.56
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
            (folder / name).write_text(text, encoding="utf-8")
        return folder

    def _write_weights(self, network: Any, folder: Path) -> None:
        state = {self._published(name): value for name, value in network.state_dict().items()}
        if self.tied:
            state = {name: value for name, value in state.items() if not name.endswith("lm_head.weight")}
        state = {n: v.to(self.dtype).clone() if v.is_floating_point() else v.clone() for n, v in state.items()}
        if self.pickled:
            torch.save(state, folder / "pytorch_model.bin")
            return
        names = sorted(state)
        places = {}
        for shard in range(self.shards):
            part = names[shard :: self.shards]
            file = f"model-{shard + 1:05d}-of-{self.shards:05d}.safetensors" if self.shards > 1 else "model.safetensors"
            save_file({name: state[name] for name in part}, folder / file, metadata={"format": "pt"})
            places |= dict.fromkeys(part, file)
        if self.shards > 1:
            size = sum(value.numel() * value.element_size() for value in state.values())
            index = {"metadata": {"total_size": size}, "weight_map": places}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")

    def _published(self, name: str) -> str:
        for pattern, replacement in self.keys:
            name = re.sub(pattern, replacement, name)
        return name


def _change_json(path: Path, changes: Mapping[str, Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) | dict(changes)
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}, indent=2), encoding="utf-8")


def _config(config: Any, **changes: Any) -> dict[str, Any]:
    """A configuration without the keys that only the installed version writes."""
    content = config.to_dict() | changes
    for part in (content, *(value for value in content.values() if isinstance(value, dict))):
        for key in ("transformers_version", "dtype"):
            part.pop(key, None)
    return {key: value for key, value in content.items() if value is not None}


def _seeded(name: str, config: Any) -> Any:
    network = seeded(lambda: getattr(transformers, name)(config))
    with torch.no_grad():
        for parameter in network.parameters():  # as they come back from the precision of the file
            parameter.copy_(parameter.to(torch.bfloat16))
    return network


# --- BLIP-2


def _blip2_t5() -> tuple[Any, Any]:
    tokenizer = tiny_hub._t5_tokenizer((WORDS,))
    text = tiny_hub._t5_config(len(tokenizer) + 3, {}) | {"tie_word_embeddings": False}
    return _blip2(text, len(tokenizer) - 1), tokenizer


def _blip2_opt() -> tuple[Any, Any]:
    tokenizer = byte_tokenizer(bos="</s>", eos="</s>", pad="<pad>", special=["<image>"])
    text = tiny_hub._opt_config(tokenizer, {}) | {
        "vocab_size": len(tokenizer) + 3,  # published: 50304 rows for 50266 tokens
        "eos_token_id": tokenizer.convert_tokens_to_ids("Ċ"),  # a line break: 50118, while training appends </s>, 2
        "_name_or_path": "facebook/opt-2.7b", "prefix": "</s>",
    }  # fmt: skip
    return _blip2(text, tokenizer.convert_tokens_to_ids("<image>")), tokenizer


def _blip2(text: Mapping[str, Any], image_token: int) -> Any:
    config = transformers.Blip2Config(
        vision_config=VISION,
        qformer_config=QFORMER | {"encoder_hidden_size": VISION["hidden_size"]},
        text_config=dict(text), num_query_tokens=4, image_token_index=image_token,
    )  # fmt: skip
    network = _seeded("Blip2ForConditionalGeneration", config)
    network.query_tokens.data.normal_(std=0.5).copy_(network.query_tokens.data.to(torch.bfloat16))
    return network


BLIP_PIXELS = {
    "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_processor_type": "BlipImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711], "processor_class": "Blip2Processor", "resample": 3,
    "rescale_factor": 0.00392156862745098, "size": {"height": 28, "width": 28},
}  # fmt: skip


def _blip2_files(config: Any, tokenizer: Any) -> dict[str, Any]:
    return {
        "config.json": _config(config),
        "preprocessor_config.json": BLIP_PIXELS,
        "processor_config.json": {"num_query_tokens": 4, "processor_class": "Blip2Processor"},
    }


# --- ViLT


def _vilt() -> tuple[Any, Any]:
    words = pieces([WORDS.lower()])
    vocabulary = {t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    config = transformers.ViltConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        image_size=64, patch_size=16, max_position_embeddings=40, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, tie_word_embeddings=False,
    )  # fmt: skip
    return _seeded("ViltForMaskedLM", config), transformers.BertTokenizer(vocab=vocabulary)


def _vilt_files(config: Any, tokenizer: Any) -> dict[str, Any]:
    ordered = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    return {
        "config.json": _config(config, architectures=["ViltForMaskedLM"]),
        "preprocessor_config.json": {
            "do_normalize": True, "do_resize": True, "feature_extractor_type": "ViltFeatureExtractor",
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 3, "size": 64, "size_divisor": 16,
        },
        "vocab.txt": "\n".join(ordered) + "\n",
        "tokenizer_config.json": {
            "do_lower_case": True, "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]",
            "cls_token": "[CLS]", "mask_token": "[MASK]", "tokenize_chinese_chars": True, "strip_accents": None,
            "model_max_length": 40, "special_tokens_map_file": None, "tokenizer_class": "BertTokenizer",
        },
        "special_tokens_map.json": {
            "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
            "mask_token": "[MASK]",
        },
    }  # fmt: skip


# --- chat models

QWEN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _qwen(kind: str, vision: Mapping[str, Any], *, tied: bool) -> tuple[Any, Any]:
    tokenizer = byte_tokenizer(
        bos=None, eos="<|im_end|>", pad="<|endoftext|>",
        special=["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"],
    )  # fmt: skip
    named = tokenizer.convert_tokens_to_ids
    config = getattr(transformers, f"{kind}Config")(
        text_config=TEXT | {
            "vocab_size": len(tokenizer) + 5, "eos_token_id": named("<|im_end|>"), "bos_token_id": None,
            "pad_token_id": None, "head_dim": 8, "tie_word_embeddings": tied,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1000000.0},
        },
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32,
        } | dict(vision),
        image_token_id=named("<|image_pad|>"), video_token_id=named("<|video_pad|>"),
        vision_start_token_id=named("<|vision_start|>"), vision_end_token_id=named("<|vision_end|>"),
        tie_word_embeddings=tied,
    )  # fmt: skip
    return _seeded(f"{kind}ForConditionalGeneration", config), tokenizer


def _qwen_generation(tokenizer: Any, **values: Any) -> dict[str, Any]:
    end, padding = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    return {
        "bos_token_id": padding, "pad_token_id": padding, "do_sample": True, "eos_token_id": [end, padding],
        **values, "transformers_version": "4.49.0",
    }  # fmt: skip


def _qwen2_5_vl_files(config: Any, tokenizer: Any) -> dict[str, Any]:
    return {
        "config.json": _config(config),
        "chat_template.json": {"chat_template": QWEN_TEMPLATE},
        "generation_config.json": _qwen_generation(tokenizer, repetition_penalty=1.05, temperature=0.000001),
        "preprocessor_config.json": {
            "min_pixels": 784, "max_pixels": 12544, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
            "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
            "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor",
        },
    }  # fmt: skip


def _qwen3_vl_files(config: Any, tokenizer: Any) -> dict[str, Any]:
    pixels = {
        "size": {"longest_edge": 16384, "shortest_edge": 1024}, "patch_size": 16, "temporal_patch_size": 2,
        "merge_size": 2, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "processor_class": "Qwen3VLProcessor",
    }  # fmt: skip
    return {
        "config.json": _config(config),
        "chat_template.json": {"chat_template": QWEN_TEMPLATE},
        "generation_config.json": _qwen_generation(
            tokenizer, top_k=20, top_p=0.8, repetition_penalty=1.0, temperature=0.7
        ),
        "preprocessor_config.json": pixels | {"image_processor_type": "Qwen2VLImageProcessorFast"},
        "video_preprocessor_config.json": pixels | {"video_processor_type": "Qwen3VLVideoProcessor"},
    }


SMOL_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def _idefics(kind: str, vision_type: str, text_type: str) -> tuple[Any, Any]:
    names = {
        "image_token": "<image>", "fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }  # fmt: skip
    cells = [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
    eos = "<end_of_utterance>" if kind == "SmolVLM" else "<|end_of_text|>"
    tokenizer = byte_tokenizer(
        bos="<|im_start|>", eos=eos, pad="<|im_end|>", special=["<|endoftext|>", *names.values(), *cells],
        named=names if kind == "SmolVLM" else None,
    )  # fmt: skip
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    config = getattr(transformers, f"{kind}Config")(
        text_config=TEXT | {
            "model_type": text_type, "vocab_size": len(tokenizer) + 2, "head_dim": 8,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config=SIGLIP | {"model_type": vision_type},
        image_token_id=image_token, scale_factor=2, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return _seeded(f"{kind}ForConditionalGeneration", config), tokenizer


def _idefics_pixels(kind: str) -> dict[str, Any]:
    return {
        "do_convert_rgb": True, "do_image_splitting": True, "do_normalize": True, "do_pad": True, "do_rescale": True,
        "do_resize": True, "image_mean": [0.5, 0.5, 0.5], "image_processor_type": f"{kind}ImageProcessor",
        "image_std": [0.5, 0.5, 0.5], "max_image_size": {"longest_edge": 28},
        "processor_class": f"{kind}Processor", "resample": 1, "rescale_factor": 0.00392156862745098,
        "size": {"longest_edge": 56},
    }  # fmt: skip


def _idefics_files(kind: str, *, template: str, end: str) -> Callable[[Any, Any], dict[str, Any]]:
    def files(config: Any, tokenizer: Any) -> dict[str, Any]:
        ids = tokenizer.convert_tokens_to_ids
        ends = ids("<end_of_utterance>") if kind == "SmolVLM" else [ids(end), ids("<end_of_utterance>")]
        text = {"chat_template": SMOL_TEMPLATE}
        return {
            "config.json": _config(config),
            "generation_config.json": {
                "_from_model_config": True, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": ends,
                "pad_token_id": tokenizer.pad_token_id, "transformers_version": "4.47.1",
            },
            "preprocessor_config.json": _idefics_pixels("SmolVLM" if template == "smolvlm2" else "Idefics3"),
            "processor_config.json": {
                "image_seq_len": 4, "processor_class": f"{'SmolVLM' if template == 'smolvlm2' else 'Idefics3'}Processor"
            },
            "chat_template.json": text,
        }  # fmt: skip

    return files


def _llama_tokenizer(special: Mapping[str, str], *, bos: str = "<s>", eos: str = "</s>", pad: str = "<pad>") -> Any:
    """SentencePiece's form of BPE, with bytes as fallback and no merges."""
    letters = ["▁", "\n", *[chr(code) for code in range(33, 127)]]
    tokens = ["<unk>", bos, eos, pad, *special.values(), *[f"<0x{byte:02X}>" for byte in range(256)], *letters]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = transformers.LlamaTokenizer(
        vocab=vocabulary, merges=[], unk_token="<unk>", bos_token=bos, eos_token=eos, pad_token=pad,
        extra_special_tokens=dict(special), add_bos_token=True,
    )  # fmt: skip
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3,
    "num_attention_heads": 2, "image_size": 28, "patch_size": 7, "projection_dim": 16, "initializer_range": 0.1,
}  # fmt: skip
CLIP_PIXELS = {
    "crop_size": {"height": 28, "width": 28}, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True,
    "do_rescale": True, "do_resize": True, "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 28},
}  # fmt: skip
LLAVA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
MISTRAL_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}{% endfor %}"
    "{{' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' }}"
    "{% for content in message['content'] %}{{ content['text'] }}{% endfor %}{{ '</s>' }}{% endif %}{% endfor %}"
)
PINPOINTS = [[28, 28], [28, 56], [56, 28], [56, 56]]


def _llava(kind: str, text_type: str) -> tuple[Any, Any]:
    tokenizer = _llama_tokenizer({"image_token": "<image>"})
    more = {"image_grid_pinpoints": PINPOINTS} if kind == "LlavaNext" else {}
    config = getattr(transformers, f"{kind}Config")(
        text_config=TEXT | {"model_type": text_type, "vocab_size": len(tokenizer) + 4, "head_dim": 8},
        vision_config=CLIP, image_token_index=tokenizer.convert_tokens_to_ids("<image>"), vision_feature_layer=-2,
        vision_feature_select_strategy="default", projector_hidden_act="gelu", tie_word_embeddings=False, **more,
    )  # fmt: skip
    return _seeded(f"{kind}ForConditionalGeneration", config), tokenizer


def _llava_files(kind: str, template: str) -> Callable[[Any, Any], dict[str, Any]]:
    def files(config: Any, tokenizer: Any) -> dict[str, Any]:
        processor = {
            "image_token": "<image>", "num_additional_image_tokens": 1, "patch_size": 7,
            "processor_class": f"{kind}Processor", "vision_feature_select_strategy": "default",
        }  # fmt: skip
        own = {"image_processor_type": "CLIPImageProcessor"}
        if kind == "LlavaNext":
            own = {
                "image_processor_type": "LlavaNextImageProcessor", "image_grid_pinpoints": PINPOINTS, "do_pad": True,
            }  # fmt: skip
        return {
            "config.json": _config(config),
            "generation_config.json": {
                "_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3,
                "transformers_version": "4.36.0.dev0",
            },
            "preprocessor_config.json": CLIP_PIXELS | own | {"processor_class": f"{kind}Processor"},
            "processor_config.json": processor,
            "chat_template.json": {"chat_template": template},
        }  # fmt: skip

    return files


def _llava_onevision() -> tuple[Any, Any]:
    tokenizer = byte_tokenizer(
        bos=None, eos="<|im_end|>", pad="<|endoftext|>", special=["<|im_start|>", "<image>", "<video>"]
    )
    image, video, end = tokenizer.convert_tokens_to_ids(["<image>", "<video>", "<|im_end|>"])
    config = transformers.LlavaOnevisionConfig(
        text_config=TEXT | {
            "model_type": "qwen2", "vocab_size": len(tokenizer) + 6, "eos_token_id": end, "head_dim": 8,
            "tie_word_embeddings": True,
        },
        vision_config=SIGLIP | {"model_type": "siglip_vision_model", "vision_use_head": False},
        image_token_index=image, video_token_index=video, image_grid_pinpoints=PINPOINTS, vision_feature_layer=-1,
        vision_feature_select_strategy="full", vision_aspect_ratio="anyres_max_9", tie_word_embeddings=True,
    )  # fmt: skip
    return _seeded("LlavaOnevisionForConditionalGeneration", config), tokenizer


ONEVISION_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + content['text'] }}"
    "{% endfor %}{{'<|im_end|>'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def _llava_onevision_files(config: Any, tokenizer: Any) -> dict[str, Any]:
    ends = {"bos_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    return {
        "config.json": _config(config),
        "chat_template.json": {"chat_template": ONEVISION_TEMPLATE},
        "generation_config.json": {"_from_model_config": True, **ends},
        "preprocessor_config.json": {
            "do_convert_rgb": True, "do_normalize": True, "do_pad": True, "do_rescale": True, "do_resize": True,
            "image_grid_pinpoints": PINPOINTS, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
            "image_processor_type": "LlavaOnevisionImageProcessor", "processor_class": "LlavaOnevisionProcessor",
            "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"height": 28, "width": 28},
        },
        "processor_config.json": {
            "image_token": "<image>", "num_image_tokens": 16, "processor_class": "LlavaOnevisionProcessor",
            "video_token": "<video>", "vision_feature_select_strategy": "full",
        },
    }  # fmt: skip


GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + "
    "('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% elif item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}{% endfor %}{{ '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def _gemma_tokenizer(special: Mapping[str, str]) -> Any:
    letters = ["▁", "\n", "\n\n", *[chr(code) for code in range(33, 127)]]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *special.values(), *[f"<0x{byte:02X}>" for byte in range(256)]]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys([*tokens, *letters]))}
    tokenizer = transformers.GemmaTokenizer(vocab=vocabulary, merges=[], extra_special_tokens=dict(special))
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def _gemma3() -> tuple[Any, Any]:
    tokenizer = _gemma_tokenizer({
        "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>",
        "start_of_turn": "<start_of_turn>", "end_of_turn": "<end_of_turn>",
    })  # fmt: skip
    ids = tokenizer.convert_tokens_to_ids
    config = transformers.Gemma3Config(
        text_config=TEXT | {
            "model_type": "gemma3_text", "vocab_size": len(tokenizer) + 1, "head_dim": 8, "sliding_window": 64,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        vision_config=SIGLIP | {"model_type": "siglip_vision_model", "vision_use_head": False},
        mm_tokens_per_image=4, image_token_index=ids("<image_soft_token>"), boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"), eos_token_id=[1, ids("<end_of_turn>")],
    )  # fmt: skip
    network = _seeded("Gemma3ForConditionalGeneration", config)
    projection = network.model.multi_modal_projector.mm_input_projection_weight.data
    projection.normal_(std=0.3).copy_(projection.to(torch.bfloat16))  # zeros at first: no picture would have an effect
    return network, tokenizer


def _gemma3_files(config: Any, tokenizer: Any) -> dict[str, Any]:
    return {
        "config.json": _config(config),
        "chat_template.json": {"chat_template": GEMMA_TEMPLATE},
        "generation_config.json": {
            "_from_model_config": True, "bos_token_id": 2, "cache_implementation": "hybrid", "do_sample": True,
            "eos_token_id": [1, tokenizer.convert_tokens_to_ids("<end_of_turn>")], "pad_token_id": 0, "top_k": 64,
            "top_p": 0.95, "transformers_version": "4.50.0.dev0",
        },
        "preprocessor_config.json": {
            "do_convert_rgb": None, "do_normalize": True, "do_pan_and_scan": None, "do_rescale": True,
            "do_resize": True, "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "Gemma3ImageProcessor",
            "image_seq_length": 4, "image_std": [0.5, 0.5, 0.5], "pan_and_scan_max_num_crops": None,
            "pan_and_scan_min_crop_size": None, "pan_and_scan_min_ratio_to_activate": None,
            "processor_class": "Gemma3Processor", "resample": 2, "rescale_factor": 0.00392156862745098,
            "size": {"height": 28, "width": 28},
        },
        "processor_config.json": {"image_seq_length": 4, "processor_class": "Gemma3Processor"},
    }  # fmt: skip


def _paligemma2() -> tuple[Any, Any]:
    tokenizer = _gemma_tokenizer({"image_token": "<image>"})
    config = transformers.PaliGemmaConfig(
        text_config=TEXT | {
            "model_type": "gemma2", "vocab_size": len(tokenizer) + 1, "head_dim": 8, "sliding_window": 64,
            "query_pre_attn_scalar": 8,
        },
        vision_config=SIGLIP | {"model_type": "siglip_vision_model", "projection_dim": 32, "vision_use_head": False},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), projection_dim=32, hidden_size=32,
    )  # fmt: skip
    return _seeded("PaliGemmaForConditionalGeneration", config), tokenizer


def _paligemma2_files(config: Any, tokenizer: Any) -> dict[str, Any]:
    return {
        "config.json": _config(config),
        "generation_config.json": {
            "_from_model_config": True, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": 1,
            "pad_token_id": 0, "transformers_version": "4.47.0.dev0",
        },
        "preprocessor_config.json": {
            "do_convert_rgb": None, "do_normalize": True, "do_rescale": True, "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "SiglipImageProcessor", "image_seq_length": 16,
            "image_std": [0.5, 0.5, 0.5], "processor_class": "PaliGemmaProcessor", "resample": 3,
            "rescale_factor": 0.00392156862745098, "size": {"height": 28, "width": 28},
        },
    }  # fmt: skip


def _internvl() -> tuple[Any, Any]:
    names = {
        "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }  # fmt: skip
    tokenizer = byte_tokenizer(
        bos=None, eos="<|im_end|>", pad="<|endoftext|>", special=["<|im_start|>", *names.values()], named=names
    )
    end, context = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<IMG_CONTEXT>"])
    config = transformers.InternVLConfig(
        text_config=TEXT | {
            "model_type": "qwen2", "vocab_size": len(tokenizer) + 3, "head_dim": 8, "eos_token_id": end,
        },
        vision_config=SIGLIP | {"model_type": "internvl_vision", "image_size": [28, 28], "patch_size": [7, 7]},
        image_token_id=context, downsample_ratio=0.5, image_seq_length=4, vision_feature_layer=-1,
    )  # fmt: skip
    return _seeded("InternVLForConditionalGeneration", config), tokenizer


INTERNVL_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "{{ '<IMG_CONTEXT>\n' }}{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{'<|im_end|>\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)


def _internvl_files(config: Any, tokenizer: Any) -> dict[str, Any]:
    return {
        "config.json": _config(config),
        "chat_template.jinja": INTERNVL_TEMPLATE,
        "generation_config.json": {
            "_from_model_config": True, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
        },
        "preprocessor_config.json": {
            "crop_to_patches": False, "do_convert_rgb": True, "do_normalize": True, "do_rescale": True,
            "do_resize": True, "image_mean": [0.485, 0.456, 0.406], "image_processor_type": "GotOcr2ImageProcessorFast",
            "image_std": [0.229, 0.224, 0.225], "max_patches": 2, "min_patches": 1,
            "processor_class": "InternVLProcessor", "resample": 3, "rescale_factor": 0.00392156862745098,
            "size": {"height": 28, "width": 28},
        },
        "processor_config.json": {"image_seq_length": 4, "processor_class": "InternVLProcessor"},
    }  # fmt: skip


PIXTRAL_NAMES = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}
PIXTRAL_TEMPLATE = (
    "{%- set loop_messages = messages %}{{- bos_token }}{%- for message in loop_messages %}"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('conversation roles must alternate user/assistant') }}{%- endif %}"
    "{%- if message['role'] == 'user' %}{{- '[INST]' }}{%- for chunk in message['content'] %}"
    "{%- if chunk['type'] == 'text' %}{{- chunk['text'] }}"
    "{%- elif chunk['type'] == 'image' %}{{- '[IMG]' }}{%- endif %}{%- endfor %}{{- '[/INST]' }}"
    "{%- else %}{%- for chunk in message['content'] %}{{- chunk['text'] }}{%- endfor %}"
    "{{- eos_token }}{%- endif %}{%- endfor %}"
)
MISTRAL3_TEMPLATE = (  # the published one has the date of the day in its system prompt as well
    "{%- set today = strftime_now('%Y-%m-%d') %}{{- bos_token }}"
    "{{- '[SYSTEM_PROMPT]You answer. The current date is ' + today + '.[/SYSTEM_PROMPT]' }}"
    "{%- for message in messages %}{%- if message['role'] == 'user' %}{{- '[INST]' }}"
    "{%- for block in message['content'] %}{%- if block['type'] == 'text' %}{{- block['text'] }}"
    "{%- elif block['type'] in ['image', 'image_url'] %}{{- '[IMG]' }}{%- endif %}{%- endfor %}{{- '[/INST]' }}"
    "{%- else %}{{- message['content'][0]['text'] + eos_token }}{%- endif %}{%- endfor %}"
)


def _pixtral(kind: str) -> tuple[Any, Any]:
    tokenizer = byte_tokenizer(
        bos="<s>", eos="</s>", pad="<pad>",
        special=["[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", *PIXTRAL_NAMES.values()],
    )  # fmt: skip
    vision = {
        "model_type": "pixtral", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "head_dim": 8, "image_size": 56, "patch_size": 7, "rope_theta": 10000.0,
        "initializer_range": 0.1,
    }  # fmt: skip
    more: dict[str, Any] = {"spatial_merge_size": 2} if kind == "Mistral3" else {
        "vision_feature_select_strategy": "full", "image_seq_length": 1,
    }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(
        text_config=TEXT | {"model_type": "mistral", "vocab_size": len(tokenizer), "head_dim": 8},
        vision_config=vision, image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"), vision_feature_layer=-1,
        tie_word_embeddings=False, **more,
    )  # fmt: skip
    return _seeded(f"{kind}ForConditionalGeneration", config), tokenizer


def _pixtral_files(kind: str) -> Callable[[Any, Any], dict[str, Any]]:
    def files(config: Any, tokenizer: Any) -> dict[str, Any]:
        merge = {"spatial_merge_size": 2} if kind == "Mistral3" else {}
        template = MISTRAL3_TEMPLATE if kind == "Mistral3" else PIXTRAL_TEMPLATE
        # the repositories of Mistral AI hold the files of its own inference code as well
        own = {"params.json": {"dim": 32, "vision_encoder": {"patch_size": 7}}} if kind == "Mistral3" else {}
        return own | {
            "config.json": _config(config),
            "chat_template.json": {"chat_template": template},
            "generation_config.json": {
                "_from_model_config": True, "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id, "transformers_version": "4.50.0.dev0",
            },
            "preprocessor_config.json": {
                "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
                "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_processor_type": "PixtralImageProcessor",
                "image_std": [0.26862954, 0.26130258, 0.27577711], "patch_size": {"height": 7, "width": 7},
                "processor_class": "PixtralProcessor", "resample": 3, "rescale_factor": 0.00392156862745098,
                "size": {"longest_edge": 56},
            },
            "processor_config.json": PIXTRAL_NAMES | {
                "patch_size": 7, "processor_class": "PixtralProcessor", **merge,
            },
        }  # fmt: skip

    return files


# Since transformers 4.52 the language model is `model.language_model`; published files have the names before that
LLAVA_KEYS = (
    (r"^model\.language_model\.", "language_model.model."), (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.vision_tower\.", "vision_tower.vision_model."),
    (r"^model\.multi_modal_projector\.", "multi_modal_projector."), (r"^model\.image_newline", "image_newline"),
)  # fmt: skip
PIXTRAL_KEYS = tuple(
    (pattern, "vision_tower." if pattern == r"^model\.vision_tower\." else name) for pattern, name in LLAVA_KEYS
)
QWEN2_5_KEYS = ((r"^model\.language_model\.", "model."), (r"^model\.visual\.", "visual."))
NO_TEMPLATE = {"chat_template": None}

LAYOUTS = {
    "blip2-flan-t5-xl": Layout(
        "Salesforce/blip2-flan-t5-xl", "blip2", _blip2_t5, _blip2_files, dtype=torch.float32, shards=2,
        source="documentation of Blip2Processor and Blip2Config",
        unconfirmed="generation_config.json; the tokenizer's ids of <image>",
    ),
    "blip2-opt-2.7b": Layout(
        "Salesforce/blip2-opt-2.7b", "blip2", _blip2_opt, _blip2_files, dtype=torch.float32, shards=2,
        source="config.json as quoted in a public notebook of the model (eos_token_id 50118, image_token_index 50265, "
        "vocab_size 50304); salesforce/LAVIS issue 265 (a line break ends an answer)",
        unconfirmed="generation_config.json",
    ),
    "vilt-b32-mlm": Layout(
        "dandelin/vilt-b32-mlm", "vilt", _vilt, _vilt_files, dtype=torch.float32, pickled=True,
        source="transformers' documentation of ViltFeatureExtractor, the class's name before ViltImageProcessor",
        unconfirmed="the order of keys in preprocessor_config.json",
    ),
    "qwen2.5-vl": Layout(
        "Qwen/Qwen2.5-VL-3B-Instruct", "chat",
        lambda: _qwen("Qwen2_5_VL", {"window_size": 56, "fullatt_block_indexes": [1], "patch_size": 14}, tied=True),
        _qwen2_5_vl_files, keys=QWEN2_5_KEYS, tied=True, shards=2, tokenizer_changes=NO_TEMPLATE,
        source="preprocessor_config.json and chat template as quoted in public repositories (min_pixels 3136, "
        "max_pixels 12845056, no processor_config.json)",
        unconfirmed="generation_config.json beyond repetition_penalty 1.05",
    ),
    "qwen3-vl": Layout(
        "Qwen/Qwen3-VL-2B-Instruct", "chat",
        lambda: _qwen(
            "Qwen3VL", {"deepstack_visual_indexes": [0], "num_position_embeddings": 16, "patch_size": 16}, tied=True
        ),
        _qwen3_vl_files, tied=True, tokenizer_changes=NO_TEMPLATE,
        source="preprocessor_config.json (size 65536 to 16777216, patch_size 16) and video_preprocessor_config.json as "
        "quoted in public repositories",
        unconfirmed="generation_config.json",
    ),
    "smolvlm2": Layout(
        "HuggingFaceTB/SmolVLM2-2.2B-Instruct", "chat", lambda: _idefics("SmolVLM", "smolvlm_vision", "llama"),
        _idefics_files("SmolVLM", template="smolvlm2", end="<end_of_utterance>"), tokenizer_changes=NO_TEMPLATE,
        source="preprocessor_config.json (size 2048, max_image_size 512) and processor_config.json (image_seq_len 64) "
        "as quoted in public repositories",
        unconfirmed="generation_config.json",
    ),
    "smolvlm": Layout(
        "HuggingFaceTB/SmolVLM-Instruct", "chat", lambda: _idefics("Idefics3", "idefics3_vision", "llama"),
        _idefics_files("Idefics3", template="smolvlm", end="<end_of_utterance>"), tokenizer_changes=NO_TEMPLATE,
        source="preprocessor_config.json (size 1536, max_image_size 384) and processor_config.json (image_seq_len 81, "
        "Idefics3Processor) as quoted in public repositories",
        unconfirmed="generation_config.json",
    ),
    "idefics3": Layout(
        "HuggingFaceM4/Idefics3-8B-Llama3", "chat", lambda: _idefics("Idefics3", "idefics3_vision", "llama"),
        _idefics_files("Idefics3", template="idefics3", end="<|end_of_text|>"), shards=2, tokenizer_changes=NO_TEMPLATE,
        source="preprocessor_config.json (size 1456, max_image_size 364) and processor_config.json (image_seq_len 169) "
        "as quoted in public repositories",
        unconfirmed="generation_config.json; the end token of the tokenizer",
    ),
    "gemma3": Layout(
        "google/gemma-3-4b-it", "chat", _gemma3, _gemma3_files, keys=LLAVA_KEYS, tied=True, shards=2,
        tokenizer_changes=NO_TEMPLATE,
        source="preprocessor_config.json and processor_config.json (image_seq_length 256) as quoted in public "
        "repositories; MedGemma has the same layout",
        unconfirmed="generation_config.json",
    ),
    "paligemma2": Layout(
        "google/paligemma2-3b-pt-224", "chat", _paligemma2, _paligemma2_files, keys=LLAVA_KEYS, tied=True, shards=2,
        source="processor_class in preprocessor_config.json as read by PaddleFormers' tests",
        unconfirmed="generation_config.json; image_seq_length in preprocessor_config.json",
    ),
    "llava-1.5": Layout(
        "llava-hf/llava-1.5-7b-hf", "chat", lambda: _llava("Llava", "llama"), _llava_files("Llava", LLAVA_TEMPLATE),
        keys=LLAVA_KEYS, dtype=torch.float16, shards=3, tokenizer_changes=NO_TEMPLATE,
        source="preprocessor_config.json (crop_size 336) and processor_config.json (num_additional_image_tokens 1) as "
        "quoted in public repositories",
    ),
    "llava-1.6": Layout(
        "llava-hf/llava-v1.6-mistral-7b-hf", "chat", lambda: _llava("LlavaNext", "mistral"),
        _llava_files("LlavaNext", MISTRAL_TEMPLATE), keys=LLAVA_KEYS, dtype=torch.float16, shards=2,
        tokenizer_changes=NO_TEMPLATE,
        source="preprocessor_config.json (image_grid_pinpoints) and processor_config.json (num_additional_image_tokens "
        "1) as quoted in public repositories",
    ),
    "llava-onevision": Layout(
        "llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "chat", _llava_onevision, _llava_onevision_files, keys=LLAVA_KEYS,
        tied=True, tokenizer_changes=NO_TEMPLATE,
        source="config.json, chat_template.json, preprocessor_config.json, processor_config.json and "
        "generation_config.json as a public conversion script copies them from llava-onevision-qwen2-7b-ov-hf",
    ),
    "internvl3": Layout(
        "OpenGVLab/InternVL3-1B-hf", "chat", _internvl, _internvl_files,
        keys=(*LLAVA_KEYS[:2], (r"^model\.vision_tower\.", "vision_tower."), *LLAVA_KEYS[3:]),
        tokenizer_changes=NO_TEMPLATE,
        source="preprocessor_config.json (GotOcr2ImageProcessorFast) as quoted in PaddleFormers' tests; the processor "
        "tiles by default, 256 tokens a tile",
        unconfirmed="generation_config.json",
    ),
    "mistral3": Layout(
        "mistralai/Mistral-Small-3.1-24B-Instruct-2503", "chat", lambda: _pixtral("Mistral3"),
        _pixtral_files("Mistral3"), keys=PIXTRAL_KEYS, shards=2, tokenizer_changes=NO_TEMPLATE,
        source="preprocessor_config.json (longest_edge 1540, patch_size as an object) and processor_config.json as "
        "quoted in public repositories; chat template (the date in its system prompt) as quoted in vLLM's examples",
        unconfirmed="generation_config.json; tekken.json, which stands next to tokenizer.json and needs mistral-common",
    ),
    "pixtral": Layout(
        "mistral-community/pixtral-12b", "chat", lambda: _pixtral("Llava"), _pixtral_files("Llava"), keys=PIXTRAL_KEYS,
        shards=2, tokenizer_changes=NO_TEMPLATE,
        source="processor_config.json (image_token [IMG], image_break_token, image_end_token, patch_size) as quoted in "
        "public repositories",
        unconfirmed="generation_config.json",
    ),
}  # fmt: skip
