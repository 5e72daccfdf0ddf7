"""The public Python API as a stranger uses it: ``import medical_vqa as mv`` and nothing else of the package."""

from __future__ import annotations

import copy
import csv
import io
import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import medical_vqa as mv

HERE = Path(__file__).parent
IMAGE = HERE.parent / "src/medical_vqa/assets/slake-mini/imgs/xmlab112/source.jpg"
TINY = {
    "model.picture.side": 32,
    "model.channels": [8, 16],
    "model.width": 16,
    "model.heads": 2,
    "model.layers": 1,
    "training.epochs": 1,
    "training.device": "cpu",
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder to work in, with a home of its own in which the sample is prepared and a run that is trained by name."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MEDICAL_VQA_HOME", str(folder / "home"))
        mv.prepare("slake-mini", progress=False)
        mv.train("demo", overrides=TINY, progress=False)
        mv.predict(progress=False, device="cpu")
        yield folder


@pytest.fixture
def work(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("MEDICAL_VQA_HOME", str(workplace / "home"))
    return workplace


@pytest.fixture(scope="module")
def shipped():
    return mv.load("shipped")


def sentence(error) -> str:
    """The message of a mistake, which is one sentence for a person."""
    text = str(error.value)
    assert "\n" not in text
    assert len(text) > 20
    return text


# --- asking


def test_the_shipped_model_is_loaded_by_name_and_says_what_it_is(shipped):
    assert shipped.name == "slake-compact-trunk"
    assert shipped.family.startswith("compact")
    assert "CC BY" in shipped.card.license
    assert shipped.usage is None
    assert "slake-compact-trunk" in repr(shipped)


def test_an_answer_has_text_confidence_alternatives_and_what_was_seen(shipped):
    answer = shipped.ask(str(IMAGE), " Is this a CT? ")
    assert answer.text in {"Yes", "No"}
    assert str(answer) == answer.text
    assert answer.question == "Is this a CT?"
    assert 0 < answer.confidence <= 1
    assert all(text != answer.text and 0 <= value <= 1 for text, value in answer.alternatives)
    assert (answer.abstained, answer.reason, answer.model) == (False, None, "slake-compact-trunk")
    assert (answer.seen.format, answer.seen.frame, answer.seen.frames, answer.seen.window) == ("JPEG", 0, 1, None)
    assert min(answer.seen.size) > 100
    assert json.loads(json.dumps(answer.to_dict()))["answer"] == answer.text


def test_an_abstention_is_never_lost(shipped):
    answer = shipped.ask(IMAGE, "Zxqv blorp kidney?")
    assert answer.abstained
    assert "zxqv" in answer.reason.lower()
    assert str(answer) == f"{answer}" == answer.reason  # what is printed is not the answer
    assert answer.text
    assert answer.to_dict()["abstained"] is True
    (asked_together,) = shipped.ask_many(IMAGE, ["Zxqv blorp kidney?"])
    assert (asked_together.text, asked_together.reason) == (answer.text, answer.reason)
    assert asked_together.confidence == pytest.approx(answer.confidence, abs=1e-6)  # batches round differently


def test_an_answer_carries_evidence_in_pixels_of_the_image(shipped):
    answer = shipped.ask(IMAGE.parents[1] / "xmlab22/source.jpg", "Does the picture contain liver?")
    assert not answer.abstained
    (item,) = answer.evidence
    left, top, right, bottom = item.box
    width, height = answer.seen.size
    assert item.name == "Liver"
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert 0 < item.area <= (right - left) * (bottom - top)
    assert item.area_mm2 is None
    assert answer.to_dict()["evidence"] == [json.loads(item.model_dump_json())]


def test_an_answer_does_not_change(shipped):
    answer = shipped.ask(IMAGE, "Is this a CT?")
    with pytest.raises(AttributeError):
        answer.text = "No"


def test_many_questions_are_answered_in_order_as_each_alone_and_the_image_is_decoded_once(shipped, monkeypatch):
    import medical_vqa.pipelines.ask as stage

    decoded = []
    decode = stage.decode_image_file
    monkeypatch.setattr(stage, "decode_image_file", lambda *a, **k: decoded.append(a) or decode(*a, **k))
    questions = ["Is this a CT?", "Which organ is abnormal, heart or lung?", "Zxqv blorp kidney?"] * 30
    answers = shipped.ask_many(IMAGE, questions)
    assert [answer.question for answer in answers] == questions
    assert len(decoded) == 1
    alone = [shipped.ask(IMAGE, question) for question in questions[:3]]
    assert [(a.text, a.abstained) for a in answers[:3]] == [(a.text, a.abstained) for a in alone]
    assert shipped.ask_many(IMAGE, []) == []


def test_an_attention_map_sums_to_one(shipped):
    attention = shipped.attention_map(IMAGE, "Where is the liver?")
    assert attention.weights.ndim == 2
    assert attention.weights.min() >= 0
    assert attention.weights.sum() == pytest.approx(1, abs=1e-3)
    assert attention.seen.format == "JPEG"


def test_a_frame_and_a_window_of_a_dicom_file(shipped, tmp_path):
    path = tmp_path / "scan.dcm"
    path.write_bytes(dicom(np.stack([np.full((40, 50), value) for value in (-900, 0, 40)]).astype(np.int16)))
    view = shipped.ask(path, "Is this a CT?", frame=2, window=(40, 400)).seen
    assert (view.format, view.frame, view.frames, view.window, view.size) == ("DICOM", 2, 3, (40.0, 400.0), (50, 40))
    assert view.facts["Modality"] == "CT"
    assert shipped.ask(path, "Is this a CT?").seen.frame == 1  # the middle one
    assert shipped.ask(path, "Is this a CT?", frame=np.int64(1), window=[40, 400]).seen.frame == 1
    with pytest.raises(mv.MedicalVqaError, match="no frame 3"):
        shipped.ask(path, "Is this a CT?", frame=3)
    for frame in (1.5, "1", True):
        with pytest.raises(mv.MedicalVqaError, match="frame: expected a whole number"):
            shipped.ask(path, "Is this a CT?", frame=frame)
    for window in (40, (40,), ("a", "b"), (1, 2, 3)):
        with pytest.raises(mv.MedicalVqaError, match="window: expected center and width"):
            shipped.ask(path, "Is this a CT?", window=window)


def dicom(values) -> bytes:
    pydicom = pytest.importorskip("pydicom")
    import io

    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = pydicom.uid.CTImageStorage, "1.2"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset = FileDataset("a", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.Modality = "CT"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelData = values.tobytes()
    dataset["PixelData"].VR = "OW"
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


@pytest.mark.parametrize("question", ["", "  ", "x" * 1001, None, 7])
def test_a_question_that_cannot_be_asked(shipped, question):
    with pytest.raises(mv.MedicalVqaError, match="question") as error:
        shipped.ask(IMAGE, question)
    sentence(error)


def test_a_text_that_asks_several_questions_is_split_as_on_the_command_line(shipped):
    one, two = shipped.ask_many(IMAGE, "Is this a CT? Which organ system is shown?")
    assert (one.question, two.question) == ("Is this a CT?", "Which organ system is shown?")
    assert not one.abstained
    (single,) = shipped.ask_many(IMAGE, "Is this a CT?")
    assert (single.question, single.text) == (one.question, one.text)


@pytest.mark.parametrize("image", [None, 7, "", ["scan.png"], "a\0b"])
def test_an_image_that_is_no_path(shipped, image):
    with pytest.raises(mv.MedicalVqaError, match="image: expected a path") as error:
        shipped.ask(image, "Is this a CT?")
    sentence(error)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("https://example.org/scan.png", "got the address 'https://example.org/scan.png'; download it"),
        (f"data:image/png;base64,{'A' * 999}", "got the address 'data:image/png;base64,A"),
        (np.zeros((8, 8, 3), np.uint8), "a Pillow image, got ndarray; pass PIL.Image.fromarray"),
        (io.BytesIO(b"x"), "got BytesIO; pass what its read"),
        ([IMAGE], "expected a path, the bytes of a file or a Pillow image, got list; pass one"),
    ],
)
def test_what_holds_an_image_and_cannot_be_read_says_what_to_pass(shipped, image, words):
    with pytest.raises(mv.MedicalVqaError) as error:
        shipped.ask(image, "What is shown?")
    assert words in str(error.value) and len(str(error.value)) < 220


def test_a_loaded_model_says_that_it_cannot_be_sent_to_another_process(shipped):
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(mv.MedicalVqaError, match=r"call .*load in each process"):
            copied(shipped)


def test_an_image_that_is_missing_a_folder_or_damaged(shipped, tmp_path):
    (tmp_path / "half.jpg").write_bytes(IMAGE.read_bytes()[:2000])
    for image in (tmp_path / "none.png", tmp_path, tmp_path / "half.jpg"):
        with pytest.raises(mv.MedicalVqaError) as error:
            shipped.ask(image, "Is this a CT?")
        assert str(image) in sentence(error)


def test_relative_paths_and_the_home_folder(shipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(IMAGE, "scan.jpg")
    assert shipped.ask("scan.jpg", "Is this a CT?").seen.file == Path("scan.jpg")
    assert shipped.ask("~/scan.jpg", "Is this a CT?").seen.file == tmp_path / "scan.jpg"
    assert shipped.ask(Path("~/scan.jpg"), "Is this a CT?").text


# --- loading


def test_models_are_loaded_from_a_run_a_bundle_an_object_and_by_default(work):
    run = mv.load("runs/demo", device="cpu")
    assert run.name == mv.load(Path("runs/demo/bundle"), device="cpu").name == "demo"
    assert mv.load(work / "runs" / "demo", device="cpu").name == "demo"
    assert mv.load(device="cpu").name == "demo"  # the newest finished run


def test_without_a_run_the_shipped_model_is_the_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert mv.load().name == "slake-compact-trunk"


@pytest.mark.parametrize("model", ["nothing", "", 7, "openai:m", "hub:not a repository", "hub:"])
def test_a_model_that_cannot_be_loaded(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(mv.MedicalVqaError) as error:
        mv.load(model)
    sentence(error)


def test_a_device_that_does_not_exist(work):
    for model in ("runs/demo", "shipped"):
        with pytest.raises(mv.MedicalVqaError, match="banana") as error:
            mv.load(model, device="banana")
        sentence(error)


def test_a_base_url_belongs_to_a_remote_model():
    with pytest.raises(mv.MedicalVqaError, match="a base URL belongs to a remote model"):
        mv.load("shipped", base_url="http://localhost:8000/v1")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"concurrency": 4}, "--concurrency"),
        ({"logprobs": False}, "--no-logprobs"),
        ({"api_key": "secret"}, "--api-key-env"),
        ({"api_key_env": "MY_KEY"}, "--api-key-env"),
        ({"allow_http": True}, "--allow-http"),
    ],
)
def test_options_of_endpoints_are_not_ignored_for_a_local_model(options, name):
    with pytest.raises(mv.MedicalVqaError, match="belongs to a remote model and not to shipped; leave it out") as error:
        mv.load("shipped", **options)
    assert name in sentence(error)
    assert "secret" not in str(error.value)


def test_a_device_is_not_ignored_for_a_remote_model():
    with pytest.raises(mv.MedicalVqaError, match="openai:m runs on the machine of its endpoint; leave it out") as error:
        mv.load("openai:m", base_url="http://localhost:8000/v1", device="cpu")
    sentence(error)


@pytest.mark.parametrize("function", [mv.predict, mv.probe, mv.evaluate])
def test_options_of_load_are_not_ignored_for_a_loaded_model(work, function):
    model = mv.load("shipped")
    with pytest.raises(mv.MedicalVqaError, match=r"device= is an argument of load, and .* is loaded already") as error:
        function(model, dataset="slake-mini", device="cuda")
    sentence(error)
    with pytest.raises(mv.MedicalVqaError, match="concurrency= is an argument of load"):
        function(model, dataset="slake-mini", device="cpu", concurrency=3)  # that is where it runs


def test_a_bundle_on_the_hub_is_loaded_from_the_local_cache(work, tmp_path, monkeypatch):
    snapshot = tmp_path / "models--user--demo" / "snapshots" / ("a" * 40)
    shutil.copytree("runs/demo/bundle", snapshot)
    (tmp_path / "models--user--demo" / "refs").mkdir()
    (tmp_path / "models--user--demo" / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert mv.load("hub:user/demo", device="cpu").ask(IMAGE, "Is this a CT?").model == "demo"
    assert mv.load(f"hub:user/demo@{'a' * 40}", device="cpu").name == "demo"
    with pytest.raises(mv.MedicalVqaError, match="hf download user/other --local-dir DIR") as error:
        mv.load("hub:user/other")
    sentence(error)


def test_a_repository_on_the_hub_that_is_no_bundle_is_refused_before_it_is_downloaded(monkeypatch):
    from huggingface_hub.errors import EntryNotFoundError

    def absent(repository, file, **_):
        raise EntryNotFoundError(f"{repository} has no {file}")

    def download(*_, **__):
        raise AssertionError("the weights were downloaded")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", absent)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(mv.MedicalVqaError, match="is no bundle of this package") as error:
        mv.load("hub:user/large-language-model")
    sentence(error)


class Endpoint(BaseHTTPRequestHandler):
    """Answers every question with "lung", and keeps the keys that it was asked with."""

    keys: list = []  # noqa: RUF012

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.keys.append(self.headers.get("authorization"))
        pictures = sum(part["type"] == "image_url" for part in body["messages"][0]["content"])
        usage = {"prompt_tokens": 10 + 256 * pictures, "completion_tokens": 1}
        body = json.dumps({"choices": [{"message": {"content": "lung"}}], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint():
    Endpoint.keys.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_a_remote_model_answers_and_predicts_like_any_other(work, endpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("MY_KEY", "from the environment")
    with mv.load("openai:some/model", base_url=endpoint, api_key_env="MY_KEY") as model:
        assert (model.name, model.family) == ("some/model", "openai")
        assert model.ask(IMAGE, "Which organ is this?").text == "lung"
        with pytest.raises(mv.MedicalVqaError, match="no attention maps"):
            model.attention_map(IMAGE, "Which organ is this?")
        where = {"content_type": "Size"}
        predictions = mv.predict(model, split="dev", dataset="slake-mini", where=where, progress=False)
        again = mv.predict(model, dataset="slake-mini", where=where, out=tmp_path / "p.jsonl", progress=False)
    assert predictions.path == Path("runs/some-model/predictions-validation.jsonl")
    assert set(Endpoint.keys) == {"Bearer from the environment"}
    n = len(predictions.read())
    assert predictions.usage.requests == again.usage.requests == n  # of each file, not of the loaded model
    assert model.usage.requests == 2 * n + 1
    assert mv.score(predictions).results.counts.scored == n
    shutil.rmtree("runs/some-model")


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_a_remote_model_has_no_dataset_of_its_own(work, endpoint):
    with pytest.raises(mv.MedicalVqaError, match="names no dataset of its own"):
        mv.predict("openai:m", base_url=endpoint, api_key="k", progress=False)


# --- preparing


def test_prepare_needs_a_name_alone_and_returns_the_dataset(work):
    data = mv.prepare("slake-mini", progress=False)
    assert data.name == "slake-mini"
    assert data.splits == ("train", "validation")
    assert len(data.examples("validation", {"language": "en"})) == 424
    assert data.manifest.license.startswith("CC BY")
    assert os.fspath(data) == str(work / "home" / "data" / "slake-mini")


def test_prepare_takes_a_source_and_a_root_as_text_or_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = IMAGE.parents[2]
    for root in ("data", Path("other"), "~/third"):
        monkeypatch.setenv("HOME", str(tmp_path))
        data = mv.prepare("slake", source=str(source), root=root, partial=True, progress=False)
        assert data.folder == tmp_path / Path(root).name / "slake"
    with pytest.raises(mv.MedicalVqaError, match="partial"):
        mv.prepare("slake", source=source, root="data", progress=False)


@pytest.mark.parametrize("options", [{"source": "nothing"}, {"source": IMAGE}, {"source": 7}, {"root": 7}])
def test_a_source_or_root_that_cannot_be_used(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(mv.MedicalVqaError) as error:
        mv.prepare("slake", **{"root": "data", "progress": False, **options})
    sentence(error)


def test_an_unknown_dataset():
    with pytest.raises(mv.MedicalVqaError, match="did you mean 'slake'"):
        mv.prepare("slak", progress=False)


def test_audit_takes_a_name_a_folder_or_a_dataset(work, tmp_path):
    data = mv.prepare("slake-mini", root=tmp_path, progress=False)
    audits = [mv.audit(place, compare_images=False, progress=False) for place in (data, str(tmp_path / "slake-mini"))]
    assert audits[0] == audits[1]
    page = tmp_path / "audit.html"
    assert mv.audit("slake-mini", root=str(tmp_path), page=page, compare_images=False, progress=False).dataset
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(mv.MedicalVqaError, match="is not prepared"):
        mv.audit("slake", root=tmp_path, progress=False)
    with pytest.raises(mv.MedicalVqaError, match="leave root out"):
        mv.audit(data, root=tmp_path, progress=False)


# --- recipes and training


def test_a_recipe_is_loaded_by_name_path_and_object(tmp_path):
    recipe = mv.load_recipe("demo")
    assert recipe == mv.load_recipe(Path("demo")) == mv.load_recipe("recipes/demo.yaml")
    file = tmp_path / "mine.yaml"
    file.write_text(recipe.to_yaml())
    assert mv.load_recipe(str(file)) == mv.load_recipe(file) == mv.load_recipe(recipe) == recipe


def test_a_recipe_may_be_a_mapping_which_stays_as_it_was():
    content = {"name": "run", "data": {"name": "slake"}, "model": {"family": "compact"}}
    recipe = mv.load_recipe(content, {"training.epochs": 3, "model.width": 64})
    assert (recipe.name, recipe.training.epochs, recipe.model.width) == ("run", 3, 64)
    assert content == {"name": "run", "data": {"name": "slake"}, "model": {"family": "compact"}}
    with pytest.raises(mv.MedicalVqaError) as error:
        mv.load_recipe({**content, "training": {"epochs": 0}, "model": {"family": "compct"}})
    assert str(error.value).splitlines() == [
        "the recipe: 2 mistakes",
        "  model.family: unknown model family 'compct'; did you mean 'compact'?",
        "  training.epochs: expected a whole number of at least 1, got 0",
    ]


def test_overrides_are_values_or_text_as_on_the_command_line(tmp_path):
    changes = {"training.epochs": 3, "model.channels": (8, 16), "data.root": tmp_path, "training.patience": "2"}
    recipe = mv.load_recipe("demo", changes)
    assert (recipe.training.epochs, recipe.training.patience) == (3, 2)
    assert recipe.model.channels == (8, 16)
    assert recipe.data.root == tmp_path
    assert mv.load_recipe(mv.load_recipe("demo"), changes) == recipe


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("nothing.yaml", {}),
        (None, {}),
        (HERE, {}),
        ("demo", {"training.epoch": 3}),
        ("demo", {"training.epochs": object()}),
        ("demo", {"training.epochs": 0}),
    ],
)
def test_a_recipe_that_cannot_be_loaded(recipe, overrides):
    with pytest.raises(mv.MedicalVqaError) as error:
        mv.load_recipe(recipe, overrides)
    sentence(error)


def test_train_takes_the_dataset_that_prepare_returned_and_a_recipe_object(work, tmp_path, capfd):
    data = mv.prepare("slake-mini", root=tmp_path / "root", progress=False)
    recipe = mv.load_recipe("demo", TINY)
    run = mv.train(recipe, data=data, run=str(tmp_path / "run"), progress=False)
    assert capfd.readouterr() == ("", "")
    assert os.fspath(run) == str(tmp_path / "run")
    assert run.result.steps > 0
    assert mv.load_recipe(run.run / "recipe.yaml").data.root == tmp_path / "root"
    with pytest.raises(mv.MedicalVqaError, match="finished"):
        mv.train(recipe, data=tmp_path / "root" / "slake-mini", run=run, progress=False)
    assert mv.train(recipe, data=data, run=run, fresh=True, progress=False).bundle.is_dir()
    assert mv.load(run, device="cpu").ask(IMAGE, "Is this a CT?").text


def test_training_shows_steps_and_scores_or_reports_them(work, tmp_path, capfd):
    mv.train("demo", data="slake-mini", run=tmp_path / "shown", overrides=TINY)
    out, err = capfd.readouterr()
    assert "validation EM" in err
    assert out == ""

    class Watcher:
        def __init__(self):
            self.scores = []

        def begin(self, **_):
            pass

        def step(self, **_):
            pass

        def score(self, *, scores, **_):
            self.scores.append(scores)

    watcher = Watcher()
    mv.train("demo", run=tmp_path / "watched", overrides=TINY, watcher=watcher)
    assert [set(scores) for scores in watcher.scores] == [{"em", "f1"}]
    assert capfd.readouterr() == ("", "")


def test_a_fresh_run_deletes_an_earlier_run_and_no_other_folder(work, tmp_path):
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(mv.MedicalVqaError, match="choose another --run"):
        mv.train("demo", run=tmp_path, fresh=True, overrides=TINY, progress=False)
    assert (tmp_path / "thesis.txt").is_file()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mv.load_recipe("demo", ["training.epochs=1"]), "overrides"),
        (lambda: mv.load_recipe("demo", {1: 2}), "overrides"),
        (lambda: mv.train("demo", run="runs/demo/recipe.yaml", overrides=TINY, progress=False), "cannot be written"),
        (lambda: mv.train("demo", data="", progress=False), "dataset"),
        (lambda: mv.predict(out="runs/demo", progress=False), "out"),
        (lambda: mv.predict(out="runs/demo/recipe.yaml/p.jsonl", progress=False), "cannot be written"),
        (lambda: mv.predict(dataset="slake-mini", where=["language=en"], progress=False), "where"),
        (lambda: mv.predict(dataset="slake-mini", where={"language": 1}, progress=False), "where"),
        (lambda: mv.predict(dataset="slake-mini", where={"languge": "en"}, progress=False), "did you mean 'language'"),
        (lambda: mv.score(protocol="llava"), "did you mean 'llava_med'"),
        (lambda: mv.score(protocol=7), "protocol"),
        (lambda: mv.score(by=7), "by"),
        (lambda: mv.score(by=[7]), "by"),
        (lambda: mv.score(columns=7), "columns"),
        (lambda: mv.score(risk="0.1"), "risk"),
        (lambda: mv.score(risk=7), "risk"),
        (lambda: mv.report(out="runs"), "out"),
        (lambda: mv.report([]), "expected one predictions file"),
        (lambda: mv.compare(["runs/demo/predictions-validation.jsonl"]), "at least two"),
        (lambda: mv.audit("slake-mini", page="runs", progress=False), "page"),
        (lambda: mv.audit(None), "dataset"),
        (lambda: mv.prepare(None), "dataset"),
        (lambda: mv.prepare("slake-mini", name="../other", progress=False), "name"),
        (lambda: mv.prepare("slake-mini", root="runs/demo/recipe.yaml", progress=False), "root"),
        (lambda: mv.export("runs/demo", to=None), "to"),
        (lambda: mv.calibrate(refit=7), "refit"),
        (lambda: mv.leaderboard(7), "results"),
        (lambda: mv.leaderboard(Path("runs")), "results"),
        (lambda: mv.evaluate("shipped", probe_images="5"), "probe_images"),
        (lambda: mv.report(where=np.zeros(2)), "where"),
        (lambda: mv.score(protocol=np.zeros(2)), "protocol"),
        (lambda: mv.prepare("slake-mini", resplit=np.zeros(2)), "resplit"),
        (lambda: mv.prepare("slake-mini", source=np.zeros(2)), "source"),
        (lambda: mv.load("shipped").ask_many(IMAGE, None), "questions"),
        (lambda: mv.load("shipped").attention_map(IMAGE, None), "question"),
    ],
)
def test_an_argument_that_cannot_be_used(work, call, words):
    with pytest.raises(mv.MedicalVqaError) as error:
        call()
    assert words in sentence(error)


def test_a_table_in_place_of_a_file_is_one_sentence():
    import pandas

    with pytest.raises(mv.MedicalVqaError, match="predictions: expected a path as text") as error:
        mv.score(pandas.DataFrame({"id": ["a", "b"], "answer": ["CT", "MRI"]}))
    sentence(error)


def test_a_dataset_that_is_not_prepared(tmp_path):
    with pytest.raises(mv.MedicalVqaError, match="is not prepared under") as error:
        mv.train("demo", data=tmp_path / "nothing", run=tmp_path / "run", progress=False)
    sentence(error)
    assert not (tmp_path / "run").exists()


# --- predictions


def test_predict_takes_a_run_in_every_form_and_every_name_of_a_split(work, tmp_path):
    file = tmp_path / "p.jsonl"
    model = mv.load("runs/demo", device="cpu")
    for which, split in (("runs/demo", "dev"), (Path("runs/demo"), "val"), (model, "Validation"), (None, "validate")):
        predictions = mv.predict(which, split=split, out=file, device="cpu", progress=False)
        assert (predictions.split, predictions.path) == ("validation", file)
        file.unlink()
    predictions = mv.predict(model, progress=False)
    assert predictions.path == Path("runs/demo/predictions-validation.jsonl")
    assert 0.9 < predictions.coverage <= 1
    assert len(predictions.read()) == 424
    for split in ("testing", None, 7):
        with pytest.raises(mv.MedicalVqaError, match="train, validation or test"):
            mv.predict(model, split=split, progress=False)
    with pytest.raises(mv.MedicalVqaError, match="need --dataset"):
        mv.predict(model, where={"language": "en"}, progress=False)


def test_scores_have_bounds_and_are_written(work):
    scores = mv.score("runs/demo/predictions-validation.jsonl")
    assert scores.em.low < scores.em.value < scores.em.high
    assert scores.f1.value >= scores.em.value
    assert str(scores).startswith("EM ")
    assert "question-only baseline" in str(scores)
    assert scores.results.counts.scored == 424
    assert json.loads(scores.write().read_text()) == scores.to_dict()
    assert scores.write(Path("runs/other.json")).is_file()
    assert mv.score().em == mv.score(Path("runs/demo/predictions-validation.jsonl")).em == scores.em
    assert repr(scores) == f"<medical_vqa.Scores '{scores}', of 'runs/demo/predictions-validation.jsonl'>"
    assert repr(mv.referee(scores.file, 84.4)).startswith("<medical_vqa.Examination ")
    with pytest.raises(mv.MedicalVqaError, match="unknown metric 'emm'"):
        scores.metric("emm")


@pytest.mark.slow
def test_score_takes_published_rules_and_another_programs_file(work, tmp_path):
    answers = mv.Predictions(Path("runs/demo/predictions-validation.jsonl"), "validation").read()
    file = tmp_path / "other.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:  # an answer may contain commas
        csv.writer(stream).writerows([("qid", "text"), *((answer.id, answer.answer) for answer in answers)])
    rows = {"dataset": "slake-mini", "split": "dev", "where": {"language": "en"}}
    for columns in ("id=qid,answer=text", {"id": "qid", "answer": "text"}):
        scores = mv.score(file, columns=columns, protocol="llava_med", **rows)
        assert [rule.protocol for rule in scores.results.protocols][:1] == ["llava_med"]
    assert len({rule.protocol for rule in mv.score(protocol="all").results.protocols}) > 5
    assert scores.em.value == mv.score().em.value
    with pytest.raises(mv.MedicalVqaError, match="--dataset and --split"):
        mv.score(file, columns="id=qid,answer=text")


@pytest.mark.parametrize("call", [mv.score, mv.report, mv.calibrate, lambda file: mv.compare([file, "other.jsonl"])])
@pytest.mark.parametrize("file", ["nothing.jsonl", ".", 7, b"p.jsonl"])
def test_predictions_that_are_not_there(work, call, file):
    with pytest.raises(mv.MedicalVqaError) as error:
        call(file)
    sentence(error)


@pytest.mark.slow
def test_reports_and_comparisons_take_names_paths_and_what_predict_returned(work, tmp_path):
    predictions = mv.predict("runs/demo", device="cpu", progress=False)
    other = shutil.copy(predictions.path, tmp_path / "other.jsonl")
    report = mv.report(predictions, str(tmp_path / "report.html"), by=["modality,organ"])
    assert Path(report).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert report.results.is_file()
    assert mv.report().page == Path("runs/demo/report-validation.html")
    rows = {"dataset": "slake-mini", "split": "validation"}
    together = mv.report([predictions, other], tmp_path / "both.html", **rows)
    assert "Is one better?" in together.page.read_text(encoding="utf-8")
    assert [pair.metric for pair in mv.compare([predictions, str(other)], **rows)] == ["em", "f1"]


@pytest.mark.parametrize("name", ["turned.jpg", "cmyk.jpg", "palette.png", "sixteen.png", "bits.png"])
def test_a_pillow_image_and_the_bytes_of_a_file_are_what_the_file_is(shipped, tmp_path, name):
    file = tmp_path / name
    values = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    picture = Image.fromarray(values)
    exif = Image.Exif()
    exif[0x0112] = 6  # lying on its side
    if name == "turned.jpg":
        picture.save(file, exif=exif)
    elif name == "sixteen.png":
        Image.fromarray(values[..., 0].astype(np.uint16) * 200).save(file)
    else:
        picture.convert({"cmyk.jpg": "CMYK", "palette.png": "P", "bits.png": "1"}[name]).save(file)
    with Image.open(file) as opened:
        images = [file, str(file), file.read_bytes(), bytearray(file.read_bytes()), opened]
        answers = [shipped.ask(image, "Is this a CT?") for image in images]
    assert len({(answer.text, answer.confidence, answer.seen.size, answer.seen.window) for answer in answers}) == 1
    assert [str(answer.seen.file) for answer in answers] == [str(file), str(file), "image", "image", "image"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.ask(Image.new("F", (8, 8)), "What?"), "image: a Pillow image of mode F has no file format here"),
        (lambda m: m.ask(np.zeros((900, 900)), "What?"), "image: expected a path"),
        (lambda m: m.ask(b"no picture" * 100, "What?"), "the image: expected"),
        (lambda m: m.ask(IMAGE, "What?", others=IMAGE), "takes one picture in one question, got 2"),
        (lambda m: m.ask(IMAGE, "What?", others=str(IMAGE)), "takes one picture in one question, got 2"),
        (lambda m: m.ask(IMAGE, "What?", turns=[{"role": "user", "content": "Where?"}]), "turns: expected pairs"),
        (lambda m: m.ask(IMAGE, "What?", turns=iter([("Where?", "here")])), "turns: expected pairs"),
        (lambda m: m.ask(IMAGE, "What?", turns=None), "turns: expected pairs"),
        (lambda m: m.ask_series(IMAGE, "What?", slices="5"), "slices: expected a whole number from 1, got '5'"),
    ],
)
def test_other_images_and_turns_are_refused_in_one_short_sentence(shipped, call, message):
    with pytest.raises(mv.MedicalVqaError) as error:
        call(shipped)
    assert message in sentence(error) and len(str(error.value)) < 300


@pytest.fixture
def read_only_run(work, tmp_path):
    """A run folder of a colleague: its files can be read, by root too, and nothing can be written."""
    run = tmp_path / "theirs"
    shutil.copytree("runs/demo", run)
    folders = [run, run / "bundle"]
    with pytest.MonkeyPatch.context() as patch:  # root may write where it is forbidden
        access = os.access
        patch.setattr(os, "access", lambda path, mode: access(path, mode) and not (mode & os.W_OK and path in folders))
        for folder in folders:
            for path in [*folder.iterdir(), folder]:
                path.chmod(0o555 if path.is_dir() else 0o444)
        yield run
    for folder in folders:
        folder.chmod(0o755)


def test_a_run_that_cannot_be_written_is_asked_scored_reported_and_exported(read_only_run, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    predictions = read_only_run / "predictions-validation.jsonl"
    assert mv.load(read_only_run, device="cpu").ask(IMAGE, "Is this a CT?").text
    assert mv.score(predictions).write() == Path("results-validation.json")
    assert mv.report(predictions).page == Path("report-validation.html")
    exported = Path(mv.export(read_only_run, to=tmp_path / "exported").location)
    assert all(path.stat().st_mode & stat.S_IWUSR for path in [exported, *exported.iterdir()])


@pytest.mark.slow
def test_calibrating_changes_what_asking_says(work, tmp_path):
    shutil.copytree("runs/demo", tmp_path / "demo")
    before = mv.load(tmp_path / "demo", device="cpu").ask(IMAGE, "Is this a CT?").confidence
    predictions = mv.predict(tmp_path / "demo", device="cpu", progress=False)
    calibration = mv.calibrate(predictions, risk=0.9)
    assert calibration.temperature > 0
    after = mv.load(tmp_path / "demo", device="cpu").ask(IMAGE, "Is this a CT?").confidence
    assert (after == pytest.approx(before)) is (calibration.temperature == pytest.approx(1))


def test_export_writes_a_folder_that_loads(work, tmp_path):
    exported = mv.export("runs/demo", to=str(tmp_path / "exported"))
    assert exported.location == str(tmp_path / "exported")
    assert mv.load(exported.location, device="cpu").name == "demo"
    with pytest.raises(mv.MedicalVqaError, match="exists; export into a new folder"):
        mv.export(Path("runs/demo"), to=tmp_path / "exported")
    with pytest.raises(mv.MedicalVqaError, match="needs a repository"):
        mv.export("runs/demo", to="hub")


# --- without torch


WITHOUT_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "accelerate", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
import medical_vqa as mv
"""


def run_without_torch(code, folder):
    environment = os.environ | {"MEDICAL_VQA_HOME": str(folder / "home")}
    command = [sys.executable, "-c", WITHOUT_TORCH + code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_plain_install_answers(work):
    code = f"model = mv.load('shipped'); print(model.ask({str(IMAGE)!r}, 'Zxqv blorp kidney?').abstained)"
    done = run_without_torch(code, work)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


@pytest.mark.parametrize("call", ["mv.train('demo')", "mv.load('runs/demo')"])
def test_what_needs_torch_names_the_extra(work, call):
    code = f"try: {call}\nexcept mv.MedicalVqaError as error: print(error)"
    done = run_without_torch(code, work)
    assert "pip install 'medical-vqa[train]'" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1


# --- the whole of it


@pytest.mark.slow
def test_the_example_runs_from_names_alone(tmp_path):
    shutil.copy(IMAGE, tmp_path / "scan.png")
    script = (HERE.parent / "examples" / "quickstart.py").read_text(encoding="utf-8")
    statements = [line for line in script.partition('"""\n\n')[2].splitlines() if line.strip()]
    assert len(statements) <= 10
    tiny = script.replace('{"training.epochs": 3}', repr(TINY))
    assert tiny != script
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", tiny], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "EM " in done.stdout
    assert (tmp_path / "report.html").is_file()


@pytest.mark.slow
def test_a_users_script_is_checked_by_mypy_in_strict_mode(tmp_path):
    pytest.importorskip("mypy")
    script = tmp_path / "script.py"
    script.write_text(
        "import medical_vqa as mv\n"
        "answer: mv.Answer = mv.load('shipped').ask('scan.png', 'Is it?', frame=3, window=(40, 400))\n"
        "text: str = answer.text\n"
        "reveal_type(answer.abstained)\n"
        "data = mv.prepare('slake-mini')\n"
        "run = mv.train('demo', data=data, overrides={'training.epochs': 1})\n"
        "predictions = mv.predict(run, split='dev')\n"
        "value: float | None = mv.score(predictions).em.value\n"
        "mv.report([predictions], 'report.html')\n"
        "print(mv.__version__, [pair.difference for pair in mv.compare([predictions, 'p.jsonl'])])\n"
        "mv.nonsense\n"
    )
    source = Path(mv.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", tmp_path / "c", script],
        env=os.environ | {"MYPYPATH": str(source)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'Revealed type is "bool"' in done.stdout.replace("builtins.", ""), done.stdout + done.stderr
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, done.stdout
    assert 'has no attribute "nonsense"' in errors[0]
