"""Where adapters land on the published configurations, on the meta device: no weights, exact counts."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn
from transformers.quantizers.quantizers_utils import should_convert_module

from medical_vqa.errors import ModelError
from medical_vqa.models.hf import blip2_network, chat_network, loading
from medical_vqa.models.hf.lora import Lora, add_lora, check_targets, refuse_trainable
from medical_vqa.models.hf.vilt import ViltNet
from medical_vqa.models.memory import count_parameters, is_within

CONFIGS = Path(__file__).parents[1] / "assets" / "configs"
LORA = {"rank": 8, "alpha": 32.0, "dropout": 0.1}


def on_meta(name: str, kind: str):
    values = json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        config = transformers.AutoConfig.for_model(**values)
        return getattr(transformers, kind)._from_config(config) if kind != "auto" else (
            transformers.AutoModelForImageTextToText.from_config(config)
        )  # fmt: skip


# rank * (inputs + outputs) for each layer named
T5_XL = 8 * (2048 + 2048) * 2 * (24 + 24 + 24)  # q and v of 24 encoder, 24 decoder and 24 cross attentions
QFORMER = 8 * (2 * (768 + 768) * 12 + (768 + 768 + 1408 + 768) * 6)  # 12 self attentions, 6 that look at 1408 wide
OPT = 8 * (2560 + 2560) * 2 * 32


@pytest.mark.parametrize(
    ("name", "targets", "trainable"),
    [
        ("blip2-flan-t5-xl", "language", T5_XL),
        ("blip2-flan-t5-xl", "qformer", QFORMER),
        ("blip2-flan-t5-xl", "both", T5_XL + QFORMER),
        ("blip2-opt-2.7b", "language", OPT),
        ("blip2-opt-2.7b", "qformer", QFORMER),
        ("blip2-opt-2.7b", "both", OPT + QFORMER),
    ],
)
def test_each_preset_trains_the_published_number_of_parameters(name, targets, trainable):
    model = on_meta(name, "Blip2ForConditionalGeneration")
    adapted, cached_modules = blip2_network.adapt(model, LORA | {"targets": targets})
    assert count_parameters(adapted, trainable=True) == trainable
    assert "vision_model" in cached_modules
    assert ("qformer" in cached_modules) == (targets == "language")
    base = adapted.get_base_model()
    assert not [n for n, p in base.named_parameters() if p.requires_grad and is_within(n, cached_modules)]


def test_the_count_the_published_recipe_reports():
    assert T5_XL == 4_718_592


def test_the_published_sizes():
    # 3.94e9 with the output layer, which is tied here and untied where the checkpoint brings one of its own
    assert count_parameters(on_meta("blip2-flan-t5-xl", "Blip2ForConditionalGeneration")) == pytest.approx(
        3.877e9, rel=1e-3
    )
    assert count_parameters(on_meta("blip2-opt-2.7b", "Blip2ForConditionalGeneration")) == pytest.approx(
        3.74e9, rel=2e-3
    )
    assert count_parameters(on_meta("vilt-b32", "ViltModel")) == pytest.approx(111.6e6, rel=2e-3)


def test_vilt_trains_whole():
    model = ViltNet(on_meta("vilt-b32", "ViltForQuestionAnswering"))
    assert count_parameters(model, trainable=True) == count_parameters(model)


# rank * (hidden + query width + hidden + value width) * layers, of the language model alone
CHAT = {
    "qwen2.5-vl-3b": 8 * (2048 + 2048 + 2048 + 256) * 36,
    "qwen3-vl-4b": 8 * (2560 + 4096 + 2560 + 1024) * 36,
    "smolvlm-2.2b": 8 * (2048 + 2048 + 2048 + 2048) * 24,
    "paligemma-3b": 8 * (2048 + 2048 + 2048 + 256) * 18,
    "gemma3-4b": 8 * (2560 + 2048 + 2560 + 1024) * 34,
    "llava-onevision-0.5b": 8 * (896 + 896 + 896 + 128) * 24,
    "internvl3-1b": 8 * (896 + 896 + 896 + 128) * 24,
}


@pytest.mark.parametrize("name", CHAT)
def test_adapters_of_chat_models_stay_in_the_language_model(name):
    adapted, _ = chat_network.adapt(on_meta(name, "auto"), LORA | {"targets": "language"})
    trained = [n for n, p in adapted.get_base_model().named_parameters() if p.requires_grad]
    assert count_parameters(adapted, trainable=True) == CHAT[name]
    assert all(".language_model." in n or ".text_model.layers" in n for n in trained)
    assert not any("vis" in n for n in trained)


@pytest.mark.parametrize("name", CHAT)
def test_only_the_language_model_is_ever_kept_in_four_bits(name):
    model = on_meta(name, "auto")
    linear = {n: m.weight.numel() for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    packed = [n for n in linear if should_convert_module(n, [loading.NOT_LANGUAGE])]
    assert packed
    assert all(n.startswith(("model.language_model.", "model.text_model.")) for n in packed)
    assert loading.count_language_weights(model) == sum(linear[n] for n in packed)


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.vision_model = nn.ModuleDict({"q_proj": nn.Linear(4, 4)})
        self.language_model = nn.ModuleDict({"q_proj": nn.Linear(4, 4), "norm": nn.LayerNorm(4)})
        self.config = transformers.PretrainedConfig()


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ModelError, match=r"matches no linear layer .* called q_proj.*must match the whole"):
        check_targets(Toy(), "q_proj", frozen=["vision_model"])


def test_a_pattern_that_reaches_the_vision_tower_is_refused():
    with pytest.raises(ModelError, match=r"matches vision_model\.q_proj.*anchor it"):
        add_lora(Toy(), Lora(pattern=r".*q_proj"), frozen=["vision_model"])


def test_a_pattern_that_is_no_expression_is_refused():
    with pytest.raises(ModelError, match="not a regular expression"):
        check_targets(Toy(), "(q", frozen=[])


def test_a_trainable_parameter_upstream_of_the_cache_is_refused():
    with pytest.raises(ModelError, match=r"vision_model.*output is cached"):
        refuse_trainable(Toy(), ["vision_model"])


def test_a_name_that_only_begins_alike_is_not_inside():
    assert is_within("vision_model.q", ["vision_model"])
    assert not is_within("vision_model_2.q", ["vision_model"])


def test_an_unknown_language_model_has_no_preset():
    with pytest.raises(ModelError, match=r"no preset .* model\.lora\.modules"):
        blip2_network.lora_pattern("language", "bloom")
