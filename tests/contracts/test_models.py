"""What every model family has to do, checked on each of them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.errors import ModelError
from medical_vqa.models.base import Query
from medical_vqa.models.baselines import Majority, QuestionLookup
from medical_vqa.models.compact.model import Compact
from medical_vqa.models.compact.onnx_export import write_graphs
from medical_vqa.models.compact.onnx_model import CompactOnnx
from medical_vqa.models.queries import NO_PICTURE
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Example

ROWS = [
    Example(f"t/{i}", f"image{i % 3}", question, (answer,), f"image{i % 3}")
    for i, (question, answer) in enumerate(
        [
            ("What modality is this?", "MRI"),
            ("What modality is this?", "CT"),
            ("Is the liver healthy?", "Yes"),
            ("Where is the liver?", "Left"),
            ("Is the lung healthy?", "No"),
            ("What modality is this?", "MRI"),
            ("Where is the lung?", "Right Lung"),
            ("How many kidneys are there?", "2"),
        ]
    )
]


def compact() -> Compact:
    torch.manual_seed(0)
    return Compact.build(
        ROWS, picture={"side": 32, "mode": "L", "fit": "stretch"}, augment=None, label_smoothing=0.1, channels=(8, 16),
        width=16, heads=2, layers=2, dropout=0.1, question_words=12,
    )  # fmt: skip


@cache
def exported() -> CompactOnnx:
    folder = Path(tempfile.mkdtemp())
    model = compact()
    model.save(folder)
    target = folder / "onnx"
    target.mkdir()
    write_graphs(model, folder / "weights.safetensors", target)
    model = CompactOnnx.load(target)
    atexit.register(shutil.rmtree, folder)
    return model


FAMILIES = {
    "question-only": lambda: QuestionLookup.fit(ROWS),
    "majority": lambda: Majority.fit(ROWS),
    "compact": compact,
    "compact-onnx": exported,
}


@pytest.fixture(params=FAMILIES)
def model(request: Any) -> Any:
    return FAMILIES[request.param]()


def picture(name: str, spec: PictureSpec | None) -> Any:
    if spec is None:
        return NO_PICTURE
    shape = (spec.side, spec.side, spec.channels)
    return np.random.default_rng(int(name[-1])).integers(0, 256, shape, dtype=np.uint8)


def queries(model: Any, *, learn: bool = False) -> list[Query]:
    return [
        Query(e.id, e.question, e.image_id, picture(e.image_id, model.picture), e.answers[0] if learn else None)
        for e in ROWS
    ]


def test_one_prediction_per_query_in_order(model):
    in_order = queries(model)
    for order in (in_order, in_order[::-1]):
        assert [p.id for p in model.answer(order, Decoding())] == [q.id for q in order]


def test_no_queries_give_no_predictions(model):
    assert model.answer([], Decoding()) == []


def test_a_batch_of_eight_equals_eight_batches_of_one(model):
    together = model.answer(queries(model), Decoding())
    alone = [model.answer([query], Decoding())[0] for query in queries(model)]
    assert [p.answer for p in together] == [p.answer for p in alone]
    assert [p.confidence for p in together] == pytest.approx([p.confidence for p in alone], abs=1e-5)


def test_confidences_are_in_the_unit_interval_and_fall(model):
    for prediction in model.answer(queries(model), Decoding(alternatives=3)):
        confidences = [prediction.confidence, *(confidence for _, confidence in prediction.alternatives)]
        assert all(0 <= confidence <= 1 for confidence in confidences)
        assert confidences == sorted(confidences, reverse=True)
        assert len(prediction.alternatives) <= 3
        assert prediction.answer not in [answer for answer, _ in prediction.alternatives]


def test_answering_again_gives_the_same(model):
    assert model.answer(queries(model), Decoding()) == model.answer(queries(model), Decoding())


def test_what_was_saved_answers_the_same(model, tmp_path):
    model.save(tmp_path)
    again = type(model).load(tmp_path, device=torch.device("cpu"))
    assert again.answer(queries(again), Decoding()) == model.answer(queries(model), Decoding())


@pytest.mark.parametrize("question", ["", "   ", "why " * 2500])
def test_an_impossible_question_is_refused(model, question):
    with pytest.raises(ModelError, match="question"):
        model.answer([Query("q", question, "image1", picture("image1", model.picture))], Decoding())


def test_words_and_scripts_never_seen_are_answered(model):
    for question in ("Zxqv blorp?", "肺在哪里？", "🙂", "هل الكبد سليم؟", "\x00\x07"):
        query = Query("q", question, "image1", picture("image1", model.picture))
        assert model.answer([query], Decoding())[0].answer


def test_the_description_is_numbers_and_words(model):
    assert model.describe()


TRAINABLE = {name: make for name, make in FAMILIES.items() if name not in ("question-only", "majority", "compact-onnx")}


@pytest.fixture(params=TRAINABLE)
def learner(request: Any) -> Any:
    return TRAINABLE[request.param]()


def test_the_loss_is_summed_over_supervised_items(learner):
    learner.module.eval()
    rows = queries(learner, learn=True)
    together = learner.collate(rows)
    alone = sum(learner.module(learner.collate([row])).item() for row in rows)
    assert together["supervised"].item() == len(rows)
    assert learner.module(together).item() == pytest.approx(alone, rel=1e-4)


def test_the_loss_falls_on_two_examples(learner):
    batch = learner.collate(queries(learner, learn=True)[2:4])
    optimizer = torch.optim.Adam(learner.module.parameters(), lr=1e-2)
    learner.module.train()
    first = learner.module(batch).item()
    for _ in range(30):
        optimizer.zero_grad()
        learner.module(batch).backward()
        optimizer.step()
    learner.module.eval()
    assert learner.module(batch).item() < first / 2


def test_features_give_the_answers_that_pictures_give(learner):
    with_pictures = queries(learner)
    names = sorted({q.image for q in with_pictures})
    encoded = dict(zip(names, learner.vision.encode([picture(n, learner.picture) for n in names]), strict=True))
    cached = [Query(q.id, q.question, q.image, encoded[q.image]) for q in with_pictures]
    for from_features, from_picture in zip(
        learner.answer(cached, Decoding()), learner.answer(with_pictures, Decoding()), strict=True
    ):
        assert from_features.answer == from_picture.answer
        assert from_features.confidence == pytest.approx(from_picture.confidence, abs=1e-5)


def test_an_image_is_encoded_once_for_all_its_questions(learner):
    assert len(learner.collate(queries(learner, learn=True))["pictures"]) == 3


def test_the_fingerprint_follows_the_weights(learner):
    before = learner.vision.fingerprint
    assert before == learner.vision.fingerprint
    with torch.no_grad():
        next(learner.module.parameters()).add_(1.0)
    assert learner.vision.fingerprint != before


def test_a_batch_without_an_answer_cannot_be_learned_from(learner):
    with pytest.raises(ModelError, match="without an answer"):
        learner.collate(queries(learner))


def test_an_answer_unseen_in_training_is_refused(learner):
    row = queries(learner, learn=True)[0]
    with pytest.raises(ModelError, match="'Spleen' is not among"):
        learner.collate([Query(row.id, row.question, row.image, row.visual, "Spleen")])
