"""What checkpoints and adapters in the wild do differently from the layouts, one difference at a time."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]
from safetensors.torch import load_file, save_file

from medical_vqa.errors import BundleError, ModelError, OfflineError
from medical_vqa.models.hf.checkpoint import find_checkpoint
from medical_vqa.schema.bundle_card import Decoding

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
from cases import build, queries
from layouts import LAYOUTS

CPU = torch.device("cpu")
RENAMED = [name for name, layout in LAYOUTS.items() if layout.family == "chat" and layout.keys]


@pytest.fixture
def copied(written: Any, tmp_path: Path) -> Callable[[str], Path]:
    """Makes a copy of a layout that a test may change."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(written(name), tmp_path / "changed"))

    return copy


def change(path: Path, *without: str, **values: Any) -> None:
    """Set keys of a JSON file, and take others out."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    changed = {key: value for key, value in (content | values).items() if key not in without}
    path.write_text(json.dumps(changed), encoding="utf-8")


def without_token(folder: Path, name: str) -> None:
    """Take a special token out of all files that name one."""
    change(folder / "tokenizer_config.json", **{name.removesuffix("_id"): None})
    change(folder / "generation_config.json", name)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    change(folder / "config.json", name, text_config={key: value for key, value in text.items() if key != name})


def answers(model: Any) -> list[tuple[str, float]]:
    return [(p.raw, p.confidence) for p in model.answer(queries(model), Decoding(max_tokens=3))]


def disturbed(model: Any) -> Any:
    with torch.no_grad():
        for number, p in enumerate(p for p in model.module.parameters() if p.requires_grad):
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(number)))
    return model


def saved(model: Any, folder: Path) -> Path:
    folder.mkdir()
    model.save(folder)
    return folder


# --- adapters of other programs and other times


def elsewhere(bundle: Path, folder: Path, rename: Callable[[str], str], targets: Any) -> Path:
    """The adapter of a bundle with other names of its layers and places."""
    folder.mkdir()
    weights = load_file(bundle / "adapter_model.safetensors")
    prefix = "base_model.model."
    renamed = {prefix + rename(key.removeprefix(prefix)): value for key, value in weights.items()}
    save_file(renamed, folder / "adapter_model.safetensors")
    config = json.loads((bundle / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"target_modules": targets}))
    return folder


@pytest.mark.parametrize("name", RENAMED)
@pytest.mark.parametrize("targets", ["short", "whole"])
def test_an_adapter_with_the_layer_names_of_older_libraries_is_read_completely(written, tmp_path, name, targets):
    model = disturbed(build(name, written(name)))
    expected = answers(model)
    bundle = saved(model, tmp_path / "bundle")
    layers = sorted({
        LAYOUTS[name]._published(n.partition(".lora_")[0])
        for n, _ in model.module.base.named_modules() if ".lora_A" in n
    })  # fmt: skip
    named = ["q_proj", "v_proj"] if targets == "short" else layers
    old = elsewhere(bundle, tmp_path / "old", LAYOUTS[name]._published, named)
    again = build(name, written(name), initial=old)
    assert answers(again) == expected
    assert again.cached_modules == model.cached_modules
    assert answers(type(again).load(saved(again, tmp_path / "again"), device=CPU)) == expected


@pytest.mark.parametrize("name", ["qwen2.5-vl", "blip2-flan-t5-xl"])
def test_an_adapter_of_which_a_weight_has_no_place_is_refused(written, tmp_path, name):
    bundle = saved(build(name, written(name)), tmp_path / "bundle")
    config = json.loads((bundle / "adapter_config.json").read_text())
    other = elsewhere(
        bundle, tmp_path / "other", lambda n: n.replace("layers.0.", "layers.7.").replace("block.0.", "block.7."),
        config["target_modules"],
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"does not fit the network: \d+ of its \d+ places have no weight and \d+"):
        build(name, written(name), initial=other)


@pytest.mark.parametrize("name", ["qwen2.5-vl", "blip2-opt-2.7b"])
@pytest.mark.parametrize("lora", [{"projector": True}, {"vision": "lora"}])
def test_a_part_that_should_train_and_is_not_in_the_adapter_to_start_from_is_refused(written, tmp_path, name, lora):
    bundle = saved(build(name, written(name)), tmp_path / "bundle")
    with pytest.raises(
        ModelError, match=rf"model\.lora\.{next(iter(lora))} is .* has nothing there; leave the key out"
    ):
        build(name, written(name), initial=bundle, lora=lora)


def test_an_adapter_on_a_head_that_is_the_embedding_answers_alike_when_it_is_merged(written, tmp_path):
    name = "qwen2.5-vl"
    lora = {"modules": r".*lm_head|.*language_model.*q_proj"}
    model = disturbed(build(name, written(name), dtype="fp32", lora=lora))
    expected = answers(model)
    bundle = saved(model, tmp_path / "bundle")
    assert answers(type(model).load(bundle, device=CPU)) == expected
    merged = tmp_path / "merged"
    merged.mkdir()
    type(model).write_merged(bundle, merged)
    again = answers(build(name, merged, dtype="fp32"))
    assert [text for text, _ in again] == [text for text, _ in expected]
    assert [value for _, value in again] == pytest.approx([value for _, value in expected], rel=1e-4)


# --- where the base is


def test_a_bundle_whose_base_was_a_relative_path_answers_from_any_working_folder(written, tmp_path, monkeypatch):
    monkeypatch.chdir(written("qwen3-vl").parent)
    model = disturbed(build("qwen3-vl", Path(written("qwen3-vl").name)))
    bundle = saved(model, tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    assert answers(type(model).load(bundle, device=CPU)) == answers(model)


@pytest.mark.parametrize("name", ["qwen3-vl", "blip2-opt-2.7b"])
@pytest.mark.parametrize("path", [None, r"D:\models\changed"])
def test_a_bundle_whose_base_is_elsewhere_now_says_where_to_put_it_and_finds_it_there(
    copied, tmp_path, monkeypatch, name, path
):
    monkeypatch.setenv("MEDICAL_VQA_HOME", str(tmp_path / "home"))
    base = copied(name)
    model = disturbed(build(name, base))
    expected = answers(model)
    bundle = saved(model, tmp_path / "bundle")
    if path is not None:
        change(bundle / type(model).settings_file, checkpoint=path)
    place = tmp_path / "home" / "checkpoints" / "changed"
    base.rename(tmp_path / "moved")
    with pytest.raises(BundleError, match="is not on this machine; put the same files, or a link to them, at") as error:
        type(model).load(bundle, device=CPU)
    assert str(place) in str(error.value)
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "moved")
    assert answers(type(model).load(bundle, device=CPU)) == expected
    (place / "config.json").write_text((place / "config.json").read_text() + " ")
    with pytest.raises(BundleError, match="is not the checkpoint that"):
        type(model).load(bundle, device=CPU)


# --- where the chat template is


def move_template(folder: Path, place: str) -> None:
    file = folder / "chat_template.jinja"
    text = file.read_text(encoding="utf-8")
    if place == "chat_template.json":
        change(folder / place, chat_template=text)
    elif place == "several":
        others = folder / "additional_chat_templates"
        others.mkdir()
        (others / "tool_use.jinja").write_text("for tools")
        return
    elif place == "named":
        named = [{"name": "default", "template": text}, {"name": "tool_use", "template": "for tools"}]
        change(folder / "tokenizer_config.json", chat_template=named)
    else:
        change(folder / place, chat_template=text)
    file.unlink()


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # transformers
@pytest.mark.parametrize(
    "place", ["tokenizer_config.json", "processor_config.json", "chat_template.json", "named", "several"]
)
def test_a_chat_template_is_read_wherever_it_is_published(written, copied, tmp_path, place):
    folder = copied("internvl3")
    move_template(folder, place)
    model = build("internvl3", folder)
    expected = answers(build("internvl3", written("internvl3")))
    assert answers(model) == expected
    assert answers(type(model).load(saved(model, tmp_path / "bundle"), device=CPU)) == expected


def test_a_checkpoint_without_the_chat_template_that_it_needs_says_so(copied):
    folder = copied("internvl3")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="has no chat template, and its processor"):
        model = build("internvl3", folder)
        model.collate(queries(model, learn=True))


# --- tokens, precision and files


@pytest.mark.parametrize("name", ["smolvlm2", "blip2-opt-2.7b", "llava-1.5"])
def test_a_checkpoint_without_a_padding_token_trains_and_answers_alike(written, copied, name):
    folder = copied(name)
    without_token(folder, "pad_token_id")
    found = []
    for checkpoint in (folder, written(name)):
        model = build(name, checkpoint)
        found.append((model.module(model.collate(queries(model, learn=True))).item(), answers(model)))
    (loss, texts), (expected_loss, expected) = found
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert texts == expected


def test_answers_end_at_the_token_of_the_checkpoint_where_the_tokenizer_names_none(copied, written):
    folder = copied("llava-onevision")
    change(folder / "tokenizer_config.json", eos_token=None)
    model, published = build("llava-onevision", folder), build("llava-onevision", written("llava-onevision"))
    assert model.tokenizer.eos_token is None
    assert model.end_tokens == published.end_tokens
    assert model.format.answer("CT") == published.format.answer("CT")
    assert answers(model) == answers(published)


def test_a_checkpoint_that_names_no_end_token_anywhere_is_refused(copied):
    folder = copied("llava-onevision")
    without_token(folder, "eos_token_id")
    with pytest.raises(ModelError, match=r"nothing says at which token an answer ends: expected eos_token"):
        build("llava-onevision", folder)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("value", ["float16", "bfloat16"])
def test_the_precision_that_a_checkpoint_names_does_not_change_that_of_the_run(written, copied, key, value):
    folder = copied("llava-1.5")
    change(folder / "config.json", "torch_dtype")
    text = json.loads((folder / "config.json").read_text())["text_config"]
    change(folder / "config.json", **{key: value, "text_config": text | {key: value}})
    model = build("llava-1.5", folder, dtype="fp32")
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}
    assert answers(model) == answers(build("llava-1.5", written("llava-1.5"), dtype="fp32"))


@pytest.mark.parametrize("name", ["llava-1.6", "blip2-opt-2.7b"])
def test_weights_in_several_pytorch_files_with_an_index_are_read(written, copied, tmp_path, name):
    folder = copied(name)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    for file in folder.glob("*.safetensors"):
        torch.save(load_file(file), folder / f"pytorch_{file.stem}.bin")
        file.unlink()
    index["weight_map"] = {k: f"pytorch_{Path(v).stem}.bin" for k, v in index["weight_map"].items()}
    (folder / "model.safetensors.index.json").unlink()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    model = build(name, folder)
    assert answers(model) == answers(build(name, written(name)))
    assert answers(type(model).load(saved(model, tmp_path / "bundle"), device=CPU)) == answers(model)
    next(folder.glob("*.bin")).unlink()
    with pytest.raises(ModelError, match=r"cannot be loaded .* check that its files are complete"):
        build(name, folder)


# --- what is no checkpoint that can be trained


@pytest.mark.parametrize(("other", "tokenizer"), [(None, "none"), ("tekken.json", "tekken.json alone")])
def test_a_checkpoint_without_a_tokenizer_that_transformers_reads_is_refused(copied, other, tokenizer):
    folder = copied("mistral3")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    if other:
        (folder / other).write_text("{}")
    with pytest.raises(ModelError, match=rf"has no tokenizer .*expected tokenizer\.json, received {tokenizer}"):
        build("mistral3", folder)


def test_weights_that_are_quantized_already_are_refused_before_they_are_read(copied):
    folder = copied("qwen2.5-vl")
    change(folder / "config.json", quantization_config={"quant_method": "awq", "bits": 4})
    for weights in (True, False):  # training, and its plan
        with pytest.raises(ModelError, match=r"is quantized already \(awq\).*model\.four_bit: true"):
            find_checkpoint(str(folder), weights=weights)


def test_gguf_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    for path in (tmp_path, tmp_path / "model.gguf"):
        with pytest.raises(ModelError, match=r"is GGUF, which cannot be trained: name the checkpoint that it was made"):
            find_checkpoint(str(path))


class Repository:
    """A repository of a hub."""

    def __init__(self, *files: str) -> None:
        self.siblings = [SimpleNamespace(rfilename=file) for file in files]


def test_a_repository_of_gguf_files_is_refused_before_anything_is_downloaded(monkeypatch):
    files = Repository("model-Q4_K_M.gguf", "config.json")
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: files)
    with pytest.raises(ModelError, match=r"someone/model-GGUF is GGUF, which cannot be trained"):
        find_checkpoint("someone/model-GGUF")


def test_without_a_network_a_checkpoint_is_looked_for_in_the_cache_and_the_sentence_says_how_to_fetch_it(monkeypatch):
    def unreachable(*_: Any, **__: Any) -> None:
        raise HTTPError("[Errno -2] Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    monkeypatch.setattr("medical_vqa.models.hf.checkpoint.snapshot_download", unreachable)
    with pytest.raises(OfflineError, match=r"hf download nobody/nothing --local-dir"):
        find_checkpoint("nobody/nothing")
