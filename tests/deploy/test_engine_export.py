"""Export of fine-tuned models for inference engines: merged, as a vLLM adapter, as GGUF."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
import tiny_hub

from medical_vqa.deploying.engine_export import CONVERTER, write_gguf, write_vllm
from medical_vqa.errors import MissingDependencyError, ModelError
from medical_vqa.models.base import Query
from medical_vqa.models.bundle import load_bundle, write_bundle
from medical_vqa.pipelines.export import export_gguf, export_merged, export_vllm
from medical_vqa.schema.bundle_card import BundleCard, Decoding, ModelFacts
from medical_vqa.schema.records import Example

EXAMPLE = Example("a", "i", "Is this a CT?", ("yes",), "i")
LORA = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "dora": False}


def build(checkpoint: Path):
    from medical_vqa.models.hf.chat import ChatVlm

    return ChatVlm.build([EXAMPLE], checkpoint=str(checkpoint), lora=LORA, prompt="{question}", side=56)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """A bundle of a tiny LLaVA-1.5 whose adapter has an effect."""
    import torch

    folder = tmp_path_factory.mktemp("export")
    model = build(tiny_hub.chat(folder / "base", "llava"))
    with torch.no_grad():
        for number, weights in enumerate(p for p in model.module.parameters() if p.requires_grad):
            weights.add_(0.05 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(number)))
    card = BundleCard(family="chat", name="mine", facts=ModelFacts.of(model.describe()))
    write_bundle(folder / "bundle", card, model.save)
    return folder / "bundle"


def answers(model) -> list[tuple[str, float]]:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    queries = [Query(str(n), question, "i", pixels) for n, question in enumerate(["Is this a CT?", "Where is it?"])]
    return [(one.answer, one.confidence) for one in model.answer(queries, Decoding(max_tokens=4))]


@pytest.mark.slow
def test_a_merged_model_answers_as_its_base_with_the_adapter(bundle, tmp_path):
    import torch

    merged = export_merged(bundle, tmp_path / "merged")
    adapted, _ = load_bundle(bundle, device=torch.device("cpu"))
    expected, actual = answers(adapted), answers(build(merged))
    assert [text for text, _ in actual] == [text for text, _ in expected]
    assert [value for _, value in actual] == pytest.approx([value for _, value in expected], rel=1e-3)
    base = Path(json.loads((bundle / "adapter_config.json").read_text())["base_model_name_or_path"])
    assert (merged / "chat_template.jinja").read_text() == (base / "chat_template.jinja").read_text()
    assert answers(build(base)) != expected
    with pytest.raises(ModelError, match="exists; export into a new folder"):
        export_merged(bundle, merged)


def test_a_model_without_an_adapter_has_nothing_to_merge(run, tmp_path):
    with pytest.raises(ModelError, match="no adapter to merge"):
        export_merged(run, tmp_path / "merged")
    with pytest.raises(ModelError, match="has no adapter"):
        export_vllm(run, tmp_path / "adapter")
    assert not (tmp_path / "merged").exists()


# The keys of adapter_config.json as PEFT 0.21 writes them; those that the export reads.
CONFIG = {
    "base_model_name_or_path": "google/medgemma-4b-it",
    "revision": "290cda5eeccbee130f987c4ad74a59ae6f196408",
    "peft_type": "LORA",
    "r": 12,
    "lora_alpha": 24,
    "use_dora": False,
    "target_modules": ["q_proj", "v_proj"],
}


def adapter(folder: Path, layer: str = "model.language_model.layers.0.self_attn.q_proj", **changes) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | changes))
    weights = {f"base_model.model.{layer}.lora_A.weight": np.zeros((12, 4), np.float32)}
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


def test_vllm_gets_the_adapter_and_the_exact_command(tmp_path):
    command = write_vllm(adapter(tmp_path / "bundle"), "mine", tmp_path / "mine-vllm")
    assert command == (
        "vllm serve google/medgemma-4b-it --revision 290cda5eeccbee130f987c4ad74a59ae6f196408 --enable-lora "
        "--max-lora-rank 16 --lora-modules mine=mine-vllm"
    )
    files = {path.name for path in (tmp_path / "mine-vllm").iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    assert command in (tmp_path / "mine-vllm" / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"revision": None}, "is the folder google"),
        ({"r": 1024}, "at most 512"),
        (
            {"modules_to_save": ["model.multi_modal_projector"]},
            r"holds whole trained modules \(model\.multi_modal_projector\), which vLLM .*--to merged",
        ),
        ({"layer": "model.vision_tower.encoder.layers.0.self_attn.q_proj"}, "adapts the vision encoder"),
    ],
)
def test_an_adapter_that_vllm_cannot_serve_is_refused(tmp_path, changes, words):
    with pytest.raises(ModelError, match=words):
        write_vllm(adapter(tmp_path / "bundle", **changes), "mine", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_gguf_without_a_converter_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"brew install llama\.cpp, or git clone"):
        write_gguf(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def converter(folder: Path, program: str, monkeypatch) -> None:
    folder.mkdir()
    path = folder / CONVERTER
    path.write_text(program)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_the_converter_writes_model_and_projector(tmp_path, monkeypatch):
    program = "import sys; open(sys.argv[sys.argv.index('--outfile') + 1], 'w').write(' '.join(sys.argv[1:]))"
    converter(tmp_path / "bin", program, monkeypatch)
    model, projector = write_gguf(tmp_path / "merged", tmp_path / "out")
    assert model.read_text().startswith(str(tmp_path / "merged"))
    assert projector.read_text().endswith("--mmproj")


def test_a_converter_that_fails_leaves_nothing(tmp_path, monkeypatch):
    converter(tmp_path / "bin", "import sys; sys.exit('Model LlavaForX is not supported')", monkeypatch)
    with pytest.raises(ModelError, match=r"LlavaForX is not supported"):
        write_gguf(tmp_path / "merged", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_gguf_is_made_of_the_merged_model(bundle, tmp_path, monkeypatch):
    program = (
        "import sys, pathlib; merged = pathlib.Path(sys.argv[1]); assert (merged / 'model.safetensors').is_file(); "
        "pathlib.Path(sys.argv[sys.argv.index('--outfile') + 1]).write_text('gguf')"
    )
    converter(tmp_path / "bin", program, monkeypatch)
    out = export_gguf(bundle, tmp_path / "out")
    assert {path.name for path in out.iterdir()} == {"model.gguf", "mmproj.gguf"}
