"""What a closed vocabulary understands of a typed question."""

import pytest

from medical_vqa.models.compact.question_understanding import ImageTypes, Reader, distance, offered, things_of
from medical_vqa.models.vocabulary import WordVocabulary
from medical_vqa.schema.records import Example

THINGS = things_of(["mask: Left Lung", "box: Brain Edema", "mask: Liver"], ["Liver", "Brain", "Left", "Yes"])


def reader(*questions):
    asked = questions or (
        "What is the largest organ in the picture?",
        "Where is the abnormality located?",
        "liver lung",
    )
    return Reader(WordVocabulary.from_questions(asked), THINGS)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("liver", "liver", 0),
        ("liver", "livre", 1),
        ("liver", "livers", 1),
        ("liver", "river", 1),
        ("lung", "kidney", 2),
    ],
)
def test_distance_counts_typing_errors_up_to_the_most(one, other, expected):
    assert distance(one, other, 1) == expected
    assert distance(other, one, 1) == expected


@pytest.mark.parametrize(
    "typed", ["What is the lagrest orgn in the picture?", "what is teh largest organ in the picture"]
)
def test_typing_errors_are_mended(typed):
    read = reader()
    if "teh" in typed:
        assert read.unknown(typed) == ["teh"]  # too short to guess
        return
    assert read.unknown(typed) == []
    assert read.encode(typed, limit=9) == read.encode("What is the largest organ in the picture?", limit=9)


def test_idle_words_and_marks_are_passed_over():
    read = reader()
    assert read.unknown("Please, would you say: where is the abnormality (located)!") == []
    assert read.encode("please where is the liver", limit=9) == read.encode("where is the liver", limit=9)


def test_words_that_mean_something_unknown_are_named_in_order():
    assert reader().unknown("Where is the pancreas of the giraffe?") == ["pancreas", "giraffe"]


def test_a_choice_between_two_known_words_is_not_made():
    assert reader("lung tung").unknown("xung") == ["xung"]


@pytest.mark.parametrize(
    ("question", "foreign"), [("Where is it?", False), ("¿Dónde?", False), ("Где?", True), ("肝在哪", True)]
)
def test_scripts_that_training_never_used_are_foreign(question, foreign):
    assert reader().foreign(question) is foreign


def test_chinese_is_read_where_it_was_learned():
    assert reader("肝脏在哪里？").foreign("肝在哪") is False
    assert reader("肝脏在哪里？").foreign("肝臓はどこですか") is True


def test_things_are_regions_without_side_and_words_that_are_answers():
    assert THINGS == ["brain", "brain edema", "left lung", "liver", "lung"]


@pytest.mark.parametrize(
    ("question", "thing"),
    [
        ("Where is the liver?", "liver"),
        ("What color is the left lung?", "left lung"),
        ("Are the lungs healthy?", "lung"),
        ("Is there a liver in the image?", None),
        ("How many lungs do you see?", None),
        ("What modality is this?", None),
    ],
)
def test_what_a_question_takes_for_granted(question, thing):
    assert reader().presupposed(question) == thing


def test_image_types_and_the_entities_that_rows_mention_in_them():
    rows = [
        Example("1", "a", "What part?", ("Chest",), "a"),
        Example("2", "a", "Is the lung healthy?", ("No",), "a"),
        Example("3", "a", "Is there a liver?", ("No",), "a"),
        Example("4", "b", "What part?", ("Abdomen",), "b"),
        Example("5", "b", "Is there a liver?", ("Yes",), "b"),
    ]
    image_types = ImageTypes.from_examples(rows, reader())
    assert image_types.question == "What part?"
    assert image_types.entities == {"chest": ("lung",), "abdomen": ("liver",)}
    assert image_types.is_unfamiliar("liver", "Chest")
    assert not image_types.is_unfamiliar("lung", "chest")
    assert not image_types.is_unfamiliar("liver", "Foot")  # a type of which nothing is known


@pytest.mark.parametrize(
    ("question", "choice"),
    [
        ("Which is bigger in this image, liver or spleen?", ["liver", "spleen"]),
        ("Which is the biggest in this image,lung,liver or heart?", ["lung", "liver", "heart"]),
        ("Which is bigger, left kidney or spleen ?", ["left kidney", "spleen"]),
        ("Is the abnormality on the left or the right?", ["left", "right"]),
        ("Which is bigger, the moon or the spleen?", []),
        ("Where is the liver?", []),
        ("liver or", []),
        ("or", []),
        ("left or right or both?", []),
    ],
)
def test_what_a_question_offers_to_choose_from(question, choice):
    assert offered(question, {"liver", "spleen", "lung", "heart", "left kidney", "kidney", "left", "right"}) == choice


@pytest.mark.parametrize(
    ("text", "thing"),
    [
        ("图片中包含肝脏吗?", "liver"),
        ("图中脑水肿在哪里?", "brain edema"),
        ("病人的左肺有异常吗?", "left lung"),
        ("图中胃在哪?", None),  # no thing of these pictures
        ("Where is the brain edema?", "brain edema"),
        ("这是CT扫描吗?", None),
    ],
)
def test_things_are_found_in_the_picture_by_their_chinese_names_too(text, thing):
    assert reader().named_in_any_language(text) == thing
