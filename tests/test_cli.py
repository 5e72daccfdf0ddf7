"""The command line as a person meets it: what it prints, and one sentence with exit status 2 for every mistake."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from medical_vqa import cli

SAMPLE = Path(__file__).parents[1] / "src/medical_vqa/assets/slake-mini"


def slake_row(qid, **changes):
    row = {
        "img_id": 1, "img_name": "xmlab1/source.jpg", "question": "Is it?", "answer": "Yes", "q_lang": "en",
        "location": "Lung", "modality": "CT", "answer_type": "CLOSED", "base_type": "vqa", "content_type": "Organ",
        "triple": ["vhead", "_", "_"], "qid": qid,
    }  # fmt: skip
    return {**row, **changes}


@pytest.fixture
def slake(tmp_path):
    """Writes a folder in SLAKE's layout; `image` replaces the bytes of its only image."""

    def write(rows, image=None):
        folder = tmp_path / "Slake1.0"
        (folder / "imgs/xmlab1").mkdir(parents=True)
        (folder / "train.json").write_text(json.dumps(rows), encoding="utf-8")
        path = folder / "imgs/xmlab1/source.jpg"
        shutil.copy(SAMPLE / "imgs/xmlab112/source.jpg", path)
        if image is not None:
            path.write_bytes(image)
        return folder

    return write


def test_help_lists_the_main_path_in_its_order():
    lines = CliRunner().invoke(cli.cli, ["--help"]).output
    places = [lines.index(f"\n  {name} ") for name in ("prepare", "train", "predict", "score", "report", "ask")]
    assert places == sorted(places)
    assert "not for diagnosis" in lines


@pytest.mark.parametrize("command", list(cli.cli.commands))
def test_every_command_explains_itself(command):
    result = CliRunner().invoke(cli.cli, [command, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Is it?", "scan.png"), 'the image comes first: medical-vqa ask scan.png "Is it?"'),
        (("https://example.org/scan.png", "Is it?"), "expected a file, a folder or a dicomweb:// address"),
        (("scan2.png", "Is it? " * 100), "expected a picture, but it does not exist"),
    ],
)
def test_an_image_that_is_none_is_one_sentence(call, tmp_path, arguments, message):
    (tmp_path / "scan.png").write_bytes(b"")
    code, _, errors = call("ask", *arguments)
    assert code == 2 and message in errors and errors.count("\n") == 1


def test_prepare_prints_counts_and_where_it_is(call, tmp_path):
    code, out, _ = call("prepare", "slake-mini", "--root", tmp_path / "data")
    assert code == 0
    assert "1,226" in out
    assert str(tmp_path / "data" / "slake-mini") in out
    assert "CC BY 4.0" in out


@pytest.mark.slow
def test_train_predict_score_report_ask_on_a_terminal(call, root, tmp_path):
    tiny = ["model.picture.side=32", "model.channels=[8,16]", "model.width=16", "model.heads=2", "training.epochs=1",
            "training.device=cpu", f"data.root={root}"]  # fmt: skip
    code, out, err = call("train", "demo", *(word for setting in tiny for word in ("--set", setting)))
    assert code == 0, err
    assert "validation EM" in out
    assert "runs/demo/bundle" in out
    code, out, _ = call("predict")
    assert (code, out.splitlines()[0]) == (0, "predictions: runs/demo/predictions-validation.jsonl")
    coverage = r"the model's list of answers has the right answer to \d+% of these questions"
    assert re.fullmatch(coverage, out.splitlines()[1])
    code, out, _ = call("score")
    assert code == 0
    assert "EM" in out
    assert "question-only baseline" in out
    code, out, err = call("score", "--json")
    assert json.loads(out)["format"] == 1
    code, out, _ = call("report")
    assert code == 0
    assert Path("runs/demo/report-validation.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    code, out, err = call("ask", SAMPLE / "imgs/xmlab112/source.jpg", "Is the liver healthy?", "--json")
    answer = json.loads(out)
    assert code == 0
    keys = {
        "image",
        "question",
        "answer",
        "raw",
        "confidence",
        "confidence_basis",
        "cut_off",
        "others_seen",
        "alternatives",
        "model",
        "abstained",
        "reason",
        "seen",
        "suggestions",
        "reason_code",
        "reason_arguments",
        "image_dependence",
        "source",
        "side",
        "evidence",
    }
    assert set(answer) == keys
    assert answer["seen"]["format"] == "JPEG"
    code, out, err = call("ask", SAMPLE / "imgs/xmlab112/source.jpg", "Is the liver healthy?")
    assert out.splitlines()[0] == (answer["reason"] or answer["answer"])
    assert "confidence" in out
    assert "not for diagnosis" in err


def test_a_dicom_series_is_asked_about_by_frame_and_window(call, run, tmp_path):
    picture = Image.open(SAMPLE / "imgs/xmlab112/source.jpg").convert("L")
    frames = np.stack([np.asarray(picture), np.zeros((picture.height, picture.width), np.uint8)])
    path = tmp_path / "scan.dcm"
    path.write_bytes(dicom_series(frames.astype(np.int16) - 1024))
    picture.save(tmp_path / "scan.png")
    question, how = "What modality is used to take this image?", ("--model", run, "--json")
    plain = json.loads(call("ask", tmp_path / "scan.png", question, *how)[1])
    code, out, err = call("ask", path, question, *how, "--frame", "0", "--window", "-896", "256")
    assert code == 0, err
    assert json.loads(out)["confidence"] == pytest.approx(plain["confidence"], abs=0.02)
    black = json.loads(call("ask", path, question, *how, "--frame", "1", "--window", "-896", "256")[1])
    assert black["confidence"] != plain["confidence"]


def test_what_was_seen_of_a_dicom_file_is_stated(call, run, tmp_path):
    values = np.random.default_rng(0).integers(-1024, 1024, (3, 64, 64)).astype(np.int16)
    path = tmp_path / "scan.dcm"
    header = {"Modality": "US", "BodyPartExamined": "ABDOMEN", "PatientName": "Doe^Jane", "BurnedInAnnotation": "YES"}
    path.write_bytes(dicom_series(values, **header, WindowCenter="40", WindowWidth="400"))
    code, out, err = call("ask", path, "Is this a CT?", "--model", run)
    assert code == 0, err
    seen = "seen: DICOM, 64x64; frame 1 of 3, counted from 0; window 40 400 (from the header); US; ABDOMEN"
    burned_in = "warning: the header says that text is burned into the picture, which may name a patient"
    assert [line for line in (seen, "not seen: DICOM header, other frames", burned_in) if line not in out] == []
    view = json.loads(call("ask", path, "Is this a CT?", "--model", run, "--json", "--window", "9", "99")[1])["seen"]
    assert (view["frame"], view["frames"], view["window"], view["window_source"]) == (1, 3, [9, 99], "option")
    assert (view["facts"]["Modality"], view["facts"]["BodyPartExamined"]) == ("US", "ABDOMEN")
    assert (view["removed"], view["burned_in_annotation"]) == (["DICOM header", "other frames"], True)
    assert "Doe" not in out + json.dumps(view)


@pytest.mark.parametrize("width", ["0", "-5", "nan", "inf"])
def test_a_window_without_a_width_is_refused(refused, run, tmp_path, width):
    (tmp_path / "scan.dcm").write_bytes(dicom_series(np.zeros((1, 64, 64), np.int16)))
    message = refused("ask", tmp_path / "scan.dcm", "Is it?", "--model", run, "--window", "40", width)
    assert "expected a window of a finite center and a width above 0" in message


def dicom_series(values, **elements):
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, "1.2"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("a", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelData = values.tobytes()
    dataset["PixelData"].VR = "OW"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


# --- bad input: images


def test_a_missing_image(refused, run):
    assert "does not exist" in refused("ask", "none.png", "Is it?", "--model", run)


def test_a_corrupt_image(refused, run, tmp_path):
    path = tmp_path / "half.jpg"
    content = (SAMPLE / "imgs/xmlab112/source.jpg").read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "cannot be decoded" in refused("ask", path, "Is it?", "--model", run)


@pytest.mark.parametrize("side", [1, 30_000])
@pytest.mark.slow
def test_an_image_too_small_or_too_large(refused, run, tmp_path, side):
    path = tmp_path / "picture.png"
    Image.fromarray(np.zeros((side, side), bool)).save(path)
    assert f"{side}x{side} pixels" in refused("ask", path, "Is it?", "--model", run)


def test_a_window_for_a_png_and_a_frame_that_is_not_there(refused, run, tmp_path):
    path = SAMPLE / "imgs/xmlab112/source.jpg"
    assert "a window is for values of more than 8 bits" in refused(
        "ask", path, "Is it?", "--model", run, "--window", "40", "400"
    )
    assert "has no frame 3" in refused("ask", path, "Is it?", "--model", run, "--frame", "3")


def test_a_text_file_is_no_image(refused, run, tmp_path):
    (tmp_path / "a.jpg").write_text("hello")
    assert "JPEG, PNG" in refused("ask", tmp_path / "a.jpg", "Is it?", "--model", run)


# --- bad input: questions


def test_a_question_of_ten_thousand_characters(refused, run, picture):
    assert "10,000 characters" in refused("ask", picture, "x" * 10_000, "--model", run)


def test_an_empty_question(refused, run, picture):
    assert "question is empty" in refused("ask", picture, " ", "--model", run)


# --- bad input: datasets, none of which may leave anything behind


def left_behind(tmp_path):
    return list((tmp_path / "data").rglob("manifest.json")) if (tmp_path / "data").exists() else []


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{("anwser" if k == "answer" else k): v for k, v in slake_row(0).items()}], ["train.json", "anwser"]),
        ([{k: v for k, v in slake_row(0).items() if k != "answer"}], ["train.json", "answer"]),
        ([slake_row(0, answer="")], ["train.json", "answer"]),
        ([slake_row(0), slake_row(0)], ["train.json", "0"]),
        ([slake_row(0, img_name="xmlab9/source.jpg", img_id=9)], ["xmlab9"]),
        ("not rows", ["train.json"]),
    ],
    ids=["misspelled field", "missing field", "empty answer", "duplicate id", "missing image", "no rows"],
)
def test_a_bad_row(refused, slake, tmp_path, rows, words):
    err = refused("prepare", "slake", "--source", slake(rows), "--root", tmp_path / "data", "--partial")
    assert all(word in err for word in words), err
    assert not left_behind(tmp_path)


def test_a_corrupt_image_in_a_dataset(refused, slake, tmp_path):
    folder = slake([slake_row(0)], image=b"\xff\xd8\xff\xe0 not a picture")
    err = refused("prepare", "slake", "--source", folder, "--root", tmp_path / "data", "--partial")
    assert "xmlab1" in err
    assert not left_behind(tmp_path)


def test_part_of_a_dataset_names_what_is_missing(refused, slake, tmp_path):
    err = refused("prepare", "slake", "--source", slake([slake_row(0)]), "--root", tmp_path / "data")
    assert "test.json" in err
    assert "--partial" in err
    assert not left_behind(tmp_path)


def test_a_dataset_without_a_network(refused, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    err = refused("prepare", "slake", "--source", "hub", "--root", tmp_path / "data")
    assert "medical-vqa prepare slake --source" in err


def test_an_unknown_dataset(refused):
    assert "did you mean 'slake'" in refused("prepare", "slak")


def test_a_dataset_that_is_not_prepared(refused, tmp_path):
    err = refused("train", "slake-compact", "--set", f"data.root={tmp_path}")
    assert "medical-vqa prepare slake" in err
    assert not Path("runs").exists()


# --- bad input: recipes and bundles


def test_a_recipe_with_an_unknown_key(refused):
    assert "did you mean 'epochs'" in refused("train", "demo", "--set", "training.epoch=3")
    assert not Path("runs").exists()


def test_a_setting_without_a_value(refused):
    assert "KEY=VALUE" in refused("train", "demo", "--set", "training.epochs")


def test_a_missing_recipe(refused):
    assert "no recipe at nothing.yaml" in refused("train", "nothing.yaml")


def test_a_bundle_of_another_version(refused, run, picture, tmp_path):
    shutil.copytree(run / "bundle", tmp_path / "bundle")
    card = json.loads((tmp_path / "bundle/card.json").read_text())
    (tmp_path / "bundle/card.json").write_text(json.dumps(card | {"format": 0}))
    assert "has format 0" in refused("ask", picture, "Is it?", "--model", tmp_path / "bundle")


def test_without_a_run_the_shipped_model_answers(call):
    code, out, err = call("ask", SAMPLE / "imgs/xmlab112/source.jpg", "Is this a CT?", "--json", "--device", "cpu")
    assert code == 0, err
    assert json.loads(out)["model"] == "slake-compact-trunk"
    assert json.loads(out)["answer"] in {"Yes", "No"}


def test_no_run_yet(refused):
    assert "no finished run" in refused("predict")
    assert "no predictions" in refused("score")


def test_a_split_that_was_not_prepared(refused, run):
    err = refused("predict", run, "--split", "test", "--device", "cpu")
    assert "without a test split" in err


def test_predictions_that_match_nothing(refused, root, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "other/1", "answer": "yes"}\n')
    refused("score", path, "--dataset", "slake-mini", "--root", root, "--split", "validation")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"id": "a"}', "answer"),
        ('{"id": "a", "answer": "b", "score": 1}', "score"),
        ('{"id": "a", "answer": "b", "confidence": 7}', "confidence"),
        ("{broken", ":1:"),
        ('{"id": "a", "answer": "b"}\n{"id": "a", "answer": "c"}', "twice"),
    ],
)
def test_a_bad_predictions_file(refused, tmp_path, line, words):
    path = tmp_path / "p.jsonl"
    path.write_text(line + "\n")
    assert words in refused("score", path)


@pytest.mark.parametrize(
    "command", [("score",), ("report",), ("compare", "b.jsonl"), ("referee", "--claim", "3"), ("calibrate",)]
)
def test_predictions_that_are_not_there(refused, command):
    name, *options = command
    message = refused(name, "a.jsonl", *options)
    assert "no predictions at a.jsonl; expected a predictions.jsonl written by `medical-vqa predict`" in message


def test_a_file_without_a_card_needs_its_split(refused, root):
    Path("a.csv").write_text("id,answer\n1,lung\n")
    message = refused("score", "a.csv", "--dataset", "slake-mini", "--root", root)
    assert "a.csv: nothing says which split of slake-mini it answers; add --split" in message


def test_rows_need_a_dataset_to_be_selected_from(refused, run):
    assert "--dataset" in refused("predict", run, "--where", "modality=CT")


def test_cuda_where_there_is_none(refused, run, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "no CUDA device" in refused("predict", run, "--device", "cuda")


def test_half_precision_on_a_cpu(refused, root):
    err = refused("train", "demo", "--set", f"data.root={root}", "--set", "training.precision=fp16",
                  "--set", "training.device=cpu")  # fmt: skip
    assert "fp16" in err


REMOTE = ("--model", "openai:m", "--base-url", "http://localhost:9/v1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ask", "a.png", "Is it CT?", *REMOTE, "--device", "cpu"), "openai:m runs on the machine of its endpoint"),
        (("ask", "a.png", "Is it CT?", "--model", "named", "--device", "cpu"), "named runs on the machine of its"),
        (("predict", "openai:m", *REMOTE[2:], "--device", "cpu"), "openai:m runs on the machine of its endpoint"),
        (("probe", "openai:m", *REMOTE[2:], "--device", "cpu"), "openai:m runs on the machine of its endpoint"),
        (("evaluate", "openai:m", *REMOTE[2:], "--device", "cpu"), "openai:m runs on the machine of its endpoint"),
        (("serve", *REMOTE, "--device", "cpu"), "openai:m runs on the machine of its endpoint"),
        (("mcp", "--model", "named", "--device", "cpu"), "named runs on the machine of its endpoint"),
        (("predict", "shipped", "--price", 1, 2), "--price is what the tokens of a remote model cost, and shipped is"),
        (("evaluate", "shipped", "--price", 1, 2), "--price is what the tokens of a remote model cost, and shipped is"),
        (("predict", "shipped", "--image-dependence"), "is what the guards measure, and they are off; add --guards"),
        (("predict", "shipped", "--no-image-dependence"), "is what the guards measure, and they are off"),
        (("mcp", "--port", 9000), "--port 9000 is where --http listens; add --http"),
        (("app", "--streamlit", "--store", "pictures"), "--store pictures: the thin page keeps nothing"),
        (("export", "shipped", "--to", "onnx", "--public"), "--public (public=) is for a repository on the hub"),
        (("export", "shipped", "USER/NAME", "--to", "folder"), "names the folder to write, and so does USER/NAME"),
    ],
)
def test_an_option_that_the_model_or_the_command_cannot_use_is_refused(refused, arguments, message):
    Image.new("L", (64, 64), 90).save("a.png")
    Path("models.yaml").write_text("models:\n  named:\n    model: openai:m\n    base_url: http://localhost:9/v1\n")
    assert message in refused(*arguments)


@pytest.mark.enable_socket
def test_of_several_models_each_receives_the_options_that_are_its_own(call, monkeypatch):
    monkeypatch.setenv("KEY", "k")
    shutil.copy(SAMPLE / "imgs/xmlab112/source.jpg", "a.jpg")
    names = ("--model", "shipped", "--model", "openai:m", "--base-url", "http://localhost:9/v1")
    code, out, errors = call("ask", "a.jpg", "Is it CT?", *names, "--device", "cpu", "--api-key-env", "KEY", "--json")
    assert code == 0, errors
    answers = json.loads(out)
    assert answers["shipped"][0]["answer"]
    assert "did not answer" in answers["openai:m"]["error"]


@pytest.mark.parametrize(
    "command",
    [
        ["convert", "slake-mini", "--to", "csv", "--out", ""],
        ["audit", "slake-mini", "--out", ""],
        ["score", ""],
        ["score", "p.jsonl", "--out", " "],
        ["evaluate", "shipped", "--out", ""],
        ["leaderboard", "", "--out", "page.html"],
        ["prepare", "slake-mini", "--root", ""],
    ],
)
def test_an_empty_path_is_not_the_current_folder(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(cli.cli, command)
    assert "expected a path as text or as pathlib.Path, got '" in str(answer.exception)
    assert list(tmp_path.iterdir()) == []
