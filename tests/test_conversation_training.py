"""Conversations with several pictures through the stages: prepared, planned, trained, resumed, predicted and scored."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medical_vqa.config import parse_recipe
from medical_vqa.errors import ModelError
from medical_vqa.pipelines.ask import ask
from medical_vqa.pipelines.load import load
from medical_vqa.pipelines.plan import plan
from medical_vqa.pipelines.predict import predict
from medical_vqa.pipelines.preflight import check_bundle
from medical_vqa.pipelines.prepare import prepare_dataset
from medical_vqa.pipelines.queries import queries
from medical_vqa.pipelines.score import score
from medical_vqa.pipelines.train import train
from medical_vqa.pipelines.training_inputs import training_inputs
from medical_vqa.schema.bundle_card import read_bundle_card
from medical_vqa.training.journal import Journal

sys.path.insert(0, str(Path(__file__).parent / "hub"))
import tiny_hub


def write_conversations(folder: Path) -> Path:
    """Six conversations about three pictures each, in three turns."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows: dict[str, list[Any]] = {"train": [], "validation": []}
    for number in range(6):
        images = [f"{number}{name}.png" for name in "abc"]
        for image in images:
            Image.fromarray(rng.integers(0, 256, (40, 56), dtype=np.uint8)).save(folder / image)
        talk = [
            ("system", "Be short."),
            ("human", "<image>\nIs it bright?"), ("gpt", "yes"),
            ("human", "Why?"), ("gpt", "it is white"),
            ("human", "Compare it with <image> and <image>."), ("gpt", "darker"),
        ]  # fmt: skip
        content = [{"from": role, "value": text} for role, text in talk]
        rows["train" if number < 4 else "validation"].append(
            {"id": str(number), "image": images, "conversations": content}
        )
    for split, of_split in rows.items():
        (folder / f"{split}.json").write_text(json.dumps(of_split), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conversations")
    prepare_dataset("llava-json", source=write_conversations(folder / "in"), root=folder / "data", name="talks")
    return folder / "data"


@pytest.fixture(scope="module")
def hubs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    makers = {"chat": tiny_hub.chat, "vilt": tiny_hub.vilt}
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in makers.items()}


@pytest.fixture
def recipe(prepared: Path, hubs: dict[str, Path]) -> Any:
    def make(family: str = "chat", **training: Any) -> Any:
        settings = {"epochs": 2, "batch_size": 5, "device": "cpu", "average": 0, "learning_rate": 1e-3} | training
        content = {
            "name": family,
            "data": {"name": "talks", "root": str(prepared)},
            "model": {"family": family, "checkpoint": str(hubs[family])} | ({"side": 56} if family == "chat" else {}),
            "training": settings,
            "decoding": {"max_tokens": 3},
        }
        return parse_recipe(content, origin="test")

    return make


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in Journal(folder).rows() if "loss" in row]


class Killed(Exception):
    pass


def test_a_run_on_conversations_resumes_exactly_and_its_bundle_predicts_with_all_that_precedes(
    recipe, tmp_path, watcher, monkeypatch
):
    settings = {"checkpoint_minutes": 0, "evaluate_every": 2, "length_buckets": True, "grouping": "question"}
    run = train(recipe(**settings), tmp_path / "one", watcher=watcher)
    steps = losses(tmp_path / "one")

    def kill(*, done: int, **_: Any) -> None:
        if done >= len(steps) // 2:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(watcher, "step", kill)
        train(recipe(**settings), tmp_path / "two", watcher=watcher)
    train(recipe(**settings), tmp_path / "two", watcher=watcher)
    assert losses(tmp_path / "two") == steps

    data = read_bundle_card(run.bundle).data
    assert data is not None
    assert (data.rows, data.images) == (12, 12)
    loaded = load(run.bundle, device="cpu")
    predictions = predict(loaded, split="validation")
    assert len(score(predictions.path).answered.predictions) == 6
    inputs = training_inputs(recipe())
    asked = queries(inputs.selected, inputs.validation_rows, loaded.model)
    last = next(asked[n] for n in range(len(asked)) if asked[n].question.startswith("Compare"))
    assert (len(last.pictures), last.turns[1], last.system) == (3, ("Why?", "it is white"), "Be short.")
    expected = loaded.model.answer([last], loaded.card.decoding)[0]
    (written,) = (p for p in predictions.read() if p.id == last.id)
    assert written.answer == expected.answer
    assert written.confidence == pytest.approx(expected.confidence, rel=1e-4)
    shuffled = predict(loaded, split="validation", shuffle_images=True).read()
    assert [p.id for p in shuffled] == [p.id for p in predictions.read()]
    assert [p.confidence for p in shuffled] != [p.confidence for p in predictions.read()]


def test_a_row_beyond_the_models_context_is_refused_before_training(recipe):
    inputs = training_inputs(recipe())
    row = max(inputs.rows, key=inputs.length_of)
    assert (len(row.turns), len(row.other_image_ids)) == (2, 2)
    inputs.options["prompt"] = "Be short. " * 30 + "{question}"
    with pytest.raises(ModelError, match=r"reads 512 in all: .* \(checked before training; nothing was trained\)"):
        check_bundle(inputs, "cpu")


def test_a_chat_model_is_asked_about_several_files_and_with_earlier_turns(recipe, tmp_path, watcher, prepared):
    run = train(recipe(epochs=1), tmp_path / "run", watcher=watcher)
    loaded = load(run.bundle, device="cpu")
    first, second, *_ = sorted((prepared / "talks" / "images").rglob("*.png"))
    alone, both, later = (
        ask(loaded, first, ["Is it bright?"], **more)[0]
        for more in ({}, {"others": [second]}, {"turns": [("Why?", "it is white")]})
    )
    assert len({answer.confidence for answer in (alone, both, later)}) == 3
    assert len(both.others_seen) == 1


def write_frames(folder: Path) -> Path:
    """MedFrameQA's published columns: two to five frames in a question, five choices; here in all three splits."""
    rng = np.random.default_rng(0)

    def frame(name: str) -> dict[str, Any]:
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(file, "JPEG")
        return {"bytes": file.getvalue(), "path": name}

    rows = []
    for number in range(12):
        frames = {f"image_{place}": frame(f"{number}-{place}.jpg") for place in range(1, 3 + number % 4)}
        rows.append(
            {
                "question_id": str(number),
                "question": f"Which finding develops in case {number}?",
                "options": ["edema", "mass", "fracture", "effusion", "none"],
                "correct_answer": "ABCDE"[number % 5],
                "system": "respiratory",
                **dict.fromkeys(f"image_{place}" for place in range(1, 6)),
                **frames,
            }
        )
    (folder / "data").mkdir(parents=True)
    for split, part in (("train", rows[:6]), ("validation", rows[6:8]), ("test", rows[8:])):
        pq.write_table(pa.Table.from_pylist(part), folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def test_medframeqa_is_prepared_trained_answered_about_all_frames_and_scored(recipe, tmp_path, watcher):
    prepare_dataset("medframeqa", source=write_frames(tmp_path / "in"), root=tmp_path / "data")
    content = recipe(epochs=1, batch_size=3).model_dump(mode="json")
    content["data"] |= {"name": "medframeqa", "root": str(tmp_path / "data")}
    loaded = load(train(parse_recipe(content, origin="test"), tmp_path / "run", watcher=watcher).bundle, device="cpu")
    predictions = predict(loaded, split="test", guards=True)
    scores = score(predictions.path)
    assert scores.rows.data.selection.dataset == "medframeqa"
    inputs = training_inputs(parse_recipe(content, origin="test"))
    rows = inputs.selected.dataset.examples("test")
    assert [len(row.images) for row in rows] == [2, 3, 4, 5]
    assert [row.answers for row in rows] == [("effusion", "D"), ("none", "E"), ("edema", "A"), ("mass", "B")]
    asked = queries(inputs.selected, rows, loaded.model)
    for query, written in zip((asked[n] for n in range(len(asked))), predictions.read(), strict=True):
        (expected,) = loaded.model.answer([query], loaded.card.decoding)
        assert (written.id, written.answer) == (query.id, expected.answer)
        assert written.confidence == pytest.approx(expected.confidence, rel=1e-4)
        (first,) = loaded.model.answer([query.alone(query.question)], loaded.card.decoding)
        assert first.confidence != pytest.approx(expected.confidence, rel=1e-6)  # the others were read


def test_a_family_of_one_picture_says_what_it_leaves_out(recipe, tmp_path, watcher):
    (line,) = (line for line in plan(recipe("vilt")).lines() if line.startswith("note"))
    assert "12 rows have several images, earlier turns or a system message; vilt models receive the first image" in line
    assert not [line for line in plan(recipe()).lines() if line.startswith("note")]
    inputs = training_inputs(recipe("vilt"))
    loaded = load(train(recipe("vilt", epochs=1), tmp_path / "run", watcher=watcher).bundle, device="cpu")
    asked = queries(inputs.selected, inputs.validation_rows, loaded.model)
    assert all(asked[n].is_single for n in range(len(asked)))
    with pytest.raises(ModelError, match="takes one picture in one question, got 2"):
        ask(loaded, Path("a.png"), ["Why?"], others=[Path("b.png")])
