from __future__ import annotations

import pytest
from PIL import Image

from medical_vqa.evaluation.joining import join
from medical_vqa.evaluation.scoring import ScoringSettings, score_answers
from medical_vqa.schema.records import Example, Prediction
from medical_vqa.schema.results import Bootstrap, DatasetRef

ROWS = [
    ("1", "scan-1", "Which organ is it?", "Lung", "OPEN", "CT", "lung", 0.9, "lung"),
    ("2", "scan-1", "Is it healthy?", "Yes", "CLOSED", "CT", "yes", 0.8, "yes"),
    ("3", "scan-2", "Which organ is it?", "Liver", "OPEN", "MRI", "left lung", 0.7, "lung"),
    ("4", "scan-2", "Is it healthy?", "No", "CLOSED", "MRI", "no", 0.6, "yes"),
    ("5", "scan-3", "Where is the mass?", "Left lung", "OPEN", "MRI", "right lung", 0.5, "lung"),
    ("6", "scan-3", "Is it healthy?", "No", "CLOSED", "MRI", "yes", None, "yes"),
]


@pytest.fixture
def examples():
    return [
        Example(id_, image, question, (answer,), image, {"answer_type": kind, "modality": modality})
        for id_, image, question, answer, kind, modality, *_ in ROWS
    ]


@pytest.fixture
def predictions():
    return [Prediction(row[0], row[6], row[6], row[7], (("spleen", 0.05),)) for row in ROWS]


@pytest.fixture
def baseline():
    return [Prediction(row[0], row[8]) for row in ROWS]


@pytest.fixture
def dataset():
    return DatasetRef(
        name="slake",
        split="validation",
        where={"language": "en"},
        manifest="ab" * 32,
        title="SLAKE",
        license="CC BY 4.0",
        citation="Liu et al. 2021",
    )


@pytest.fixture
def score(dataset):
    """Scores predictions; further keywords are fields of `ScoringSettings`."""

    def run(examples, predictions, *, baselines=None, model=None, leaks=None, train=(), resamples=20, **settings):
        return score_answers(
            join(examples, predictions),
            baselines=baselines or {},
            dataset=dataset,
            model=model,
            training_rows=train,
            leaks=leaks,
            settings=ScoringSettings(bootstrap=Bootstrap(resamples=resamples), **settings),
        )

    return run


class Images:
    """Three plain images; records how often each is decoded."""

    def __init__(self):
        self.loaded: list[str] = []

    def load(self, image_id):
        self.loaded.append(image_id)
        return Image.new("RGB", (300, 200), (40 * int(image_id[-1]), 60, 60))

    def digest(self, image_id):
        return image_id[-1] * 64


@pytest.fixture
def images():
    return Images()
