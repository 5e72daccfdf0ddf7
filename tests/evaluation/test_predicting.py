"""Answers of a model written to a file: one for each query, whatever the model's class does."""

import numpy as np
import pytest

from medical_vqa.errors import ModelError
from medical_vqa.evaluation.predicting import predict
from medical_vqa.models.base import Query
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.prediction_card import AnsweringModel, PredictionCard
from medical_vqa.schema.records import Prediction, read_predictions
from medical_vqa.schema.selection import Selection


class Queries:
    ids = ("q1", "q2", "q3")
    images = ("one", "two", "one")

    def __getitem__(self, index):
        return Query(self.ids[index], "What is it?", self.images[index], np.zeros((4, 4, 3), np.uint8))


class Answers:
    """A model whose `answer` is the function that is passed."""

    def __init__(self, answer):
        self.answer = answer

    def answer_batches(self, batches, decoding):
        for batch in batches:
            yield from self.answer(batch)


def written(path, answer):
    card = PredictionCard(
        model=AnsweringModel(name="m", family="own"),
        selection=Selection(dataset="mine"),
        split="test",
        manifest="0" * 64,
    )
    return predict(Answers(answer), Queries(), decoding=Decoding(), path=path, card=card, batch_size=2)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda batch: ["lung" for _ in batch], "gives 'lung' for an answer, expected one Prediction for each query"),
        (lambda batch: [Prediction("1", "lung") for _ in batch], "gives '1' for an answer, expected one Prediction"),
        (lambda batch: [Prediction(batch[0].id, "a") for _ in batch], "gives 'q1' for an answer"),
        (lambda batch: [Prediction(batch[0].id, "a")], "gives no answer to 1 of 3 queries, such as q3; expected one"),
    ],
)
def test_a_model_that_does_not_answer_every_query_once_is_refused(tmp_path, answer, words):
    path = tmp_path / "predictions.jsonl"
    with pytest.raises(ModelError, match=words):
        written(path, answer)
    assert not path.exists()
    assert written(path, lambda batch: [Prediction(query.id, "lung") for query in batch]) > 0
    assert {prediction.id for prediction in read_predictions(path)} == set(Queries.ids)


def test_the_file_is_in_the_order_of_the_queries_whatever_that_of_their_images(tmp_path):
    path = tmp_path / "predictions.jsonl"
    asked = []

    def answer(batch):
        asked.extend(query.id for query in batch)
        return [Prediction(query.id, f"to {query.id}", confidence=0.5) for query in reversed(batch)]

    assert written(path, answer) == 3
    assert asked == ["q1", "q3", "q2"]
    predictions = read_predictions(path)
    assert [(one.id, one.answer, one.confidence) for one in predictions] == [
        (id_, f"to {id_}", 0.5) for id_ in Queries.ids
    ]
