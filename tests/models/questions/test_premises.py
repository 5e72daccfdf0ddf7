"""A question about an organ is withheld where the picture shows another part of the body."""

import pytest

from medical_vqa.models.questions.premises import impossible_structure, is_knowledge, takes_for_granted


@pytest.mark.parametrize(
    ("question", "answer", "shown", "name"),
    [
        ("Where is the liver?", "Left", "MRI, Brain_Tissue", "liver"),
        ("Is there a tumor in the liver?", "No", "An axial CT of the head.", "liver"),
        ("Does the patient have pneumonia?", "No", "MRI of the pelvis", "pneumonia"),
        ("Is the liver visible?", "Yes", "brain", "liver"),
        ("脑部正常吗?", "是", "CT, Abdomen", "brain"),
        ("Are there gallstones?", "Yes", "Head", "gallstone"),
        ("How many kidneys are there?", "2", "MRI, Brain", "kidney"),
        ("图中有几个肾脏?", "2", "脑部", "kidney"),
        ("What color does the left lung show in the picture?", "Black", "CT, Brain_Tissue", "lung"),
        ("Which is smaller in this image, kidney or liver?", "Kidney", "MRI, Brain_Tissue", "kidney"),
        ("图中肺和肝脏哪个更大?", "肺", "CT, Brain_Tissue", "lung"),
        ("What is the largest organ in the picture?", "Liver", "CT, Head", "liver"),
        ("What diseases are included in the picture?", "Pneumonia", "MRI, Brain", "pneumonia"),
    ],
)
def test_what_the_body_part_cannot_show_is_named(question, answer, shown, name):
    assert impossible_structure(question, answer, shown).name == name


@pytest.mark.parametrize(
    ("question", "answer", "shown"),
    [
        ("Is the liver visible?", "No", "brain"),
        ("How many kidneys are there?", "0", "MRI, Brain"),
        ("Is there a tumor in the liver?", "Yes", "Chest X-ray"),
        ("Does the patient have pneumonia?", "No", "an abdominal CT"),
        ("What is the function of the liver?", "Metabolism", "head"),
        ("Is there a tumor?", "Yes", "head"),
        ("Is the spinal cord normal?", "Yes", "Neck"),
        ("Where is the liver?", "Left", "I cannot say"),
        ("Where is the liver?", "Left", ""),
        ("Which is bigger, brain or liver?", "Brain", "MRI, Brain"),
        ("Which organ belongs to the circulatory system?", "Heart", "MRI, Brain"),
        ("Which part of the body does this image belong to?", "Chest", "CT, Head"),
        ("What do you see?", "The picture of the head shows no liver.", "CT, Head"),
        ("What do you see?", "A brain; the liver lies elsewhere in the body.", "CT, Head"),
    ],
)
def test_what_a_picture_may_show_at_its_edge_or_nothing_is_known_of_passes(question, answer, shown):
    assert impossible_structure(question, answer, shown) is None


def test_presence_and_knowledge_take_nothing_for_granted():
    assert not takes_for_granted("Is the liver in this picture visible?")
    assert not takes_for_granted("What does the liver do to prevent disease?")
    assert takes_for_granted("Is the liver healthy?")
    assert is_knowledge("肝脏的功能是什么?")
