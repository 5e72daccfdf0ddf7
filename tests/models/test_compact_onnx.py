"""The exported graphs: they answer as the model does, and need no torch."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import medical_vqa
from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.errors import BundleError, ConfigError, MissingDependencyError, ModelError
from medical_vqa.models.base import Query
from medical_vqa.models.bundle import load_bundle
from medical_vqa.models.compact.model import Compact
from medical_vqa.models.compact.onnx_export import check, write_graphs
from medical_vqa.models.compact.onnx_model import CompactOnnx
from medical_vqa.models.compact.onnx_weights import share_weights
from medical_vqa.models.compact.settings import CompactSettings, Sizes
from medical_vqa.models.vocabulary import AnswerVocabulary, WordVocabulary
from medical_vqa.pipelines.ask import ask
from medical_vqa.pipelines.bundles import load_model
from medical_vqa.pipelines.export import export_onnx, ship
from medical_vqa.pipelines.load import load
from medical_vqa.schema.bundle_card import Decoding, read_bundle_card
from medical_vqa.schema.records import Prediction, read_predictions

BLOCKED = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "safetensors", "accelerate"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoTorch())
sys.argv[0] = "medical-vqa"
from medical_vqa.cli import main
main()
"""


def without_torch(*arguments):
    command = [sys.executable, "-c", BLOCKED, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def pictures(model, count):
    shape = (model.picture.side, model.picture.side, model.picture.channels)
    return [np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8) for i in range(count)]


def queries_about(model, questions):
    """`questions`: (question, number of its picture) each."""
    visuals = pictures(model, 1 + max(image for _, image in questions))
    return [Query(f"q{i}", text, f"i{image}", visuals[image]) for i, (text, image) in enumerate(questions)]


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The tiny run's bundle as ONNX."""
    return export_onnx(run, tmp_path_factory.mktemp("onnx") / "bundle")[0]


@pytest.fixture(scope="module")
def both(run, exported):
    return Compact.load(run / "bundle", device=torch.device("cpu")), CompactOnnx.load(exported)


SINGLE = [("Is the liver healthy?", 0)]
MIXED = [("What is this?", 2), ("Does the picture contain lung?", 0), ("zxqv", 2), ("肺在哪里？", 1), ("Where?", 2)]


@pytest.mark.parametrize("questions", [SINGLE, MIXED, MIXED * 9], ids=["one", "mixed", "many"])
def test_any_number_of_questions_images_and_words_gives_the_models_logits(both, questions):
    model, graphs = both
    queries = queries_about(model, questions)
    assert np.abs(model.logits(queries).numpy() - graphs.logits(queries)).max() < 1e-4
    for expected, actual in zip(model.answer(queries, Decoding()), graphs.answer(queries, Decoding()), strict=True):
        assert (expected.id, expected.answer) == (actual.id, actual.answer)
        assert [a for a, _ in expected.alternatives] == [a for a, _ in actual.alternatives]
        assert expected.confidence == pytest.approx(actual.confidence, abs=1e-4)


def test_the_graphs_give_the_models_attention_maps(both):
    model, graphs = both
    queries = queries_about(model, MIXED)
    assert graphs.has_attention_maps
    for expected, actual in zip(model.attention_maps(queries), graphs.attention_maps(queries), strict=True):
        assert expected.shape == actual.shape
        assert actual.sum() == pytest.approx(1, abs=1e-5)
        assert np.abs(expected - actual).max() < 1e-4
    assert graphs.attention_maps([]) == []


@pytest.mark.parametrize(
    "question", ["Where is the liver?", "Where is the zxqvish?", "Où est le foie?", "Is it a lung?"]
)
def test_the_graphs_abstain_where_the_model_abstains(both, question):
    model, graphs = both
    (query,) = queries_about(model, [(question, 0)])
    (prediction,) = graphs.answer([query], Decoding())
    assert graphs.abstention_reason(query, prediction) == model.abstention_reason(query, prediction)


def test_an_unknown_word_is_named(both):
    (query,) = queries_about(both[1], [("Where is the zxqvish?", 0)])
    assert "'zxqvish'" in both[1].abstention_reason(query, both[1].answer([query], Decoding())[0])


def test_features_give_the_answers_that_pictures_give(both):
    _, graphs = both
    queries = queries_about(graphs, MIXED)
    with_features = [dataclasses.replace(q, visual=graphs.vision.encode([q.visual])[0]) for q in queries]
    assert all(isinstance(q.visual["keys"], np.ndarray) for q in with_features)
    from_features, from_pictures = graphs.answer(with_features, Decoding()), graphs.answer(queries, Decoding())
    assert [p.answer for p in from_features] == [p.answer for p in from_pictures]


def test_no_queries_give_no_predictions(both):
    assert both[1].answer([], Decoding()) == []
    assert both[1].vision.encode([]) == []


def test_an_empty_question_is_refused(both):
    with pytest.raises(ModelError, match="question is empty"):
        both[1].answer(queries_about(both[1], [("  ", 0)]), Decoding())


def test_the_card_keeps_what_the_bundle_said(run, exported):
    old, new = read_bundle_card(run / "bundle"), read_bundle_card(exported)
    assert new.family == "compact-onnx"
    assert (new.name, new.data, new.decoding, new.calibration) == (old.name, old.data, old.decoding, old.calibration)
    assert new.facts.exported_from.files == old.files
    assert set(new.files) == {"answer.onnx", "image.onnx", "compact.json", "weights.safetensors"}
    assert new.files["weights.safetensors"] == old.files["weights.safetensors"]


def test_it_can_be_exported_again_over_itself_and_never_over_anything_else(run, exported, tmp_path):
    assert export_onnx(run, exported)[1] <= 1e-4
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ModelError, match="is not an ONNX bundle"):
        export_onnx(run, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_graphs_that_answer_differently_are_not_written(run, tmp_path, monkeypatch):
    from medical_vqa.models.compact import onnx_export

    def other(model, weights, folder):
        with torch.no_grad():
            for parameter in model.module.head.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
        (tmp_path / "changed").mkdir()
        model.save(tmp_path / "changed")
        write_graphs(model, tmp_path / "changed" / "weights.safetensors", folder)
        model.module.load_state_dict(before)

    before = Compact.load(run / "bundle", device=torch.device("cpu")).module.state_dict()
    monkeypatch.setattr(onnx_export, "write_graphs", other)
    with pytest.raises(ModelError, match="the exported graphs differ from the model"):
        export_onnx(run, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_logits_that_are_no_numbers_are_noticed(both):
    class Broken:
        attention = both[0].attention

        def logits(self, queries):
            return np.full((len(queries), len(both[0].answers)), np.nan, np.float32)

        def answer(self, queries, decoding):
            return both[0].answer(queries, decoding)

    with pytest.raises(ModelError, match="logits or attention by up to nan"):
        check(both[0], Broken(), queries_about(both[0], MIXED))


def test_another_family_is_refused(tmp_path):
    (tmp_path / "card.json").write_text(json.dumps({"format": 2, "family": "question-only", "name": "f"}))
    with pytest.raises(ModelError, match="a family that has no ONNX export"):
        export_onnx(tmp_path, tmp_path / "out")


def test_a_bundle_that_is_exported_already_is_named_so(exported, tmp_path):
    with pytest.raises(ModelError, match="is an ONNX bundle already; it answers without torch as it is"):
        export_onnx(exported, tmp_path / "out")


def test_ask_runs_without_torch(run, exported, picture):
    expected = without_torch("ask", picture, "Is the liver healthy?", "--model", exported, "--json")
    assert expected.returncode == 0, expected.stderr
    (answer,) = ask(load(run, device="cpu"), picture, ["Is the liver healthy?"])
    assert json.loads(expected.stdout)["answer"] == answer.text


def test_predict_runs_without_torch_and_gives_the_same_answers(run, exported, tmp_path):
    out = tmp_path / "predictions-validation.jsonl"
    done = without_torch("predict", exported, "--split", "validation", "--out", out)
    assert done.returncode == 0, done.stderr
    expected, actual = read_predictions(out), read_predictions(run / "predictions-validation.jsonl")
    assert [(p.id, p.answer) for p in expected] == [(p.id, p.answer) for p in actual]
    assert [p.confidence for p in expected] == pytest.approx([p.confidence for p in actual], abs=1e-4)


def test_a_bundle_that_needs_torch_says_so_without_it(run, picture):
    done = without_torch("ask", picture, "Is it?", "--model", run)
    assert done.returncode == 2
    assert "needs PyTorch, which is not installed; run: pip install 'medical-vqa[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_exporting_without_onnx_names_the_extra(both, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="onnx-export"):
        write_graphs(both[0], tmp_path / "weights.safetensors", tmp_path)


def test_a_bundle_without_onnxruntime_names_the_package(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="pip install onnxruntime"):
        CompactOnnx.load(exported)


def test_weights_that_ship_are_stored_once_and_in_8_bits(run, tmp_path):
    shipped = ship(run, tmp_path / "shipped")
    sizes = {path.name: path.stat().st_size for path in shipped.iterdir()}
    weights = sum(p.numel() for p in Compact.load(shipped, device=torch.device("cpu")).module.parameters())
    assert sizes["weights.safetensors"] < 1.2 * weights + 20_000
    for name in ("image.onnx", "answer.onnx"):
        inside = onnx.load(shipped / name, load_external_data=False).graph.initializer
        internal = [t for t in inside if t.data_location != onnx.TensorProto.EXTERNAL]
        assert sum(len(t.raw_data) for t in internal if t.data_type == onnx.TensorProto.FLOAT) < 400_000  # grids
        assert {entry.value for t in inside for entry in t.external_data if entry.key == "location"} == {
            "weights.safetensors"
        }


def test_the_exported_bundle_is_the_model_in_torch_too(run, exported):
    model, again = (Compact.load(folder, device=torch.device("cpu")) for folder in (run / "bundle", exported))
    state = again.module.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.module.state_dict().items())


def test_the_graphs_name_no_path_of_the_machine_that_exported_them(exported):
    here = str(Path(medical_vqa.__file__).parent).encode()
    for name in ("image.onnx", "answer.onnx"):
        assert here not in (exported / name).read_bytes()


def test_other_weights_in_the_file_are_refused(exported, tmp_path):
    """The graphs read the file itself: a bundle whose weights were swapped is noticed by its digest."""
    shutil.copytree(exported, tmp_path / "bundle")
    weights = tmp_path / "bundle" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(BundleError, match=r"weights\.safetensors is not the file"):
        load_bundle(tmp_path / "bundle")


def test_weights_that_the_exporter_changed_beyond_recognition_are_refused(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "bundle")
    plain = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["net.mystery"], ["y"])],
            "g",
            [],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [200])],
            [onnx.numpy_helper.from_array(np.linspace(0, 1, 200, dtype=np.float32), "net.mystery")],
        )
    )
    onnx.save(plain, tmp_path / "bundle" / "image.onnx")
    with pytest.raises(ModelError, match="not one of the model's"):
        share_weights(tmp_path / "bundle" / "image.onnx", tmp_path / "bundle" / "weights.safetensors", {})


def test_a_gpu_is_refused(exported):
    with pytest.raises(ConfigError, match="run on the CPU and not on cuda"):
        load_model(exported, "cuda")


def test_a_damaged_graph_is_one_sentence(exported, tmp_path):
    for path in exported.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "answer.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleError, match="damaged") as error:
        CompactOnnx.load(tmp_path)
    assert "\n" not in str(error.value)


def test_the_fingerprint_follows_the_graph(both, exported, tmp_path):
    from medical_vqa.models.compact.onnx_model import OnnxVision

    again = OnnxVision(exported, both[1].picture)
    assert again.fingerprint == both[1].vision.fingerprint
    assert again.frozen is False


@pytest.mark.parametrize(
    ("trunk", "stride"),
    [
        (None, 8),
        pytest.param("efficientnet-lite0", 8, marks=pytest.mark.slow),
        pytest.param("efficientnet-lite0", 16, marks=pytest.mark.slow),
    ],
)
def test_trunk_foreground_contrast_regions_and_presence_are_exported_too(tmp_path, trunk, stride):
    torch.manual_seed(0)
    settings = CompactSettings(
        picture=PictureSpec(80, "L", "stretch"),
        sizes=Sizes((8, 16), 16, 2, 1, 0.0, 8),
        words=WordVocabulary(("where", "is", "liver")),
        answers=AnswerVocabulary(("left", "right", "yes")),
        regions=("mask: Liver", "box: Mass"),
        local_contrast=True,
        foreground=32 if trunk is None else 64,
        trunk=trunk,
        region_stride=stride,
        presence=stride == 8,
    )
    model = Compact(settings)
    for norm in (m for m in model.module.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)  # as in a trained model: joining it changes the weights
        torch.nn.init.uniform_(norm.running_mean, -0.5, 0.5)
    (tmp_path / "torch").mkdir()
    (tmp_path / "onnx").mkdir()
    model.save(tmp_path / "torch")
    write_graphs(model, tmp_path / "torch" / "weights.safetensors", tmp_path / "onnx")
    graphs = CompactOnnx.load(tmp_path / "onnx")
    bodies = np.zeros((3, 80, 80, 1), np.uint8)
    for number, (top, left, size) in enumerate([(5, 40, 30), (30, 10, 44), (0, 0, 80)]):
        noise = np.random.default_rng(number).integers(60, 250, (size, size, 1))
        bodies[number, top : top + size, left : left + size] = noise
    queries = [Query(f"q{n}", "where is liver", f"i{n}", body) for n, body in enumerate(bodies)]
    assert check(model, graphs, queries) < 1e-4
    cells = 16 if trunk is None else 64 // stride
    for expected, actual in zip(model.attention_maps(queries), graphs.attention_maps(queries), strict=True):
        assert expected.shape == actual.shape == (cells, cells)
        assert np.abs(expected - actual).max() < 1e-4
    answer = Prediction("q", "left")
    for query in queries:
        pairs = zip(model.localizations(query, answer), graphs.localizations(query, answer), strict=True)
        for expected, actual in pairs:
            assert (expected.name, expected.learned_from) == (actual.name, actual.learned_from) == ("Liver", "mask")
            assert np.abs(expected.probability - actual.probability.astype(np.float32)).max() < 1e-3
    features = graphs.vision.encode(list(bodies))
    assert features[0]["frame"].shape == (2, 3)
    assert features[0]["regions"].shape == (2, cells, cells)
    with_features = [dataclasses.replace(q, visual=f) for q, f in zip(queries, features, strict=True)]
    assert np.abs(graphs.attention(with_features)[0] - graphs.attention(queries)[0]).max() < 1e-6
