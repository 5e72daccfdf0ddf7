"""What a closed vocabulary understands of a typed question."""

import pytest

from medical_vqa.models.compact.postprocess import words_reason
from medical_vqa.models.compact.question_understanding import ImageTypes, QuestionParser, choices_in, entity_names
from medical_vqa.models.vocabulary import WordVocabulary
from medical_vqa.schema.records import Example

ENTITIES = entity_names(["mask: Left Lung", "box: Brain Edema", "mask: Liver"], ["Liver", "Brain", "Left", "Yes"])


def parser(*questions):
    training_questions = questions or (
        "What is the largest organ in the picture?",
        "Where is the abnormality located?",
        "liver lung",
    )
    return QuestionParser(WordVocabulary.from_questions(training_questions), ENTITIES)


@pytest.mark.parametrize(
    ("typed", "known", "corrected"),
    [
        ("livre", "liver", True),  # neighbors swapped
        ("livers", "liver", True),  # a letter too many
        ("lver", "liver", True),  # a letter too few
        ("liter", "liver", True),  # a letter changed
        ("lierv", "liver", False),  # two errors in a short word
        ("abnormlaty", "abnormality", True),  # two errors in a long word
        ("abnrmlat", "abnormality", False),  # three errors
        ("teh", "the", False),  # too short to guess
    ],
)
def test_typing_errors_are_letters_added_left_out_changed_or_swapped(typed, known, corrected):
    assert parser(f"where is {known}").unknown_words(typed) == ([] if corrected else [typed])


def test_typing_errors_are_corrected():
    typed, question = "What is the lagrest orgn in the picture?", "What is the largest organ in the picture?"
    assert parser().unknown_words(typed) == []
    assert parser().encode(typed, limit=9) == parser().encode(question, limit=9)


def test_unknown_function_words_and_punctuation_are_ignored():
    assert parser().unknown_words("Please, would you say: where is the abnormality (located)!") == []
    assert parser().encode("please where is the liver", limit=9) == parser().encode("where is the liver", limit=9)


def test_words_that_mean_something_unknown_are_named_once_and_in_order():
    assert parser().unknown_words("Where is the zebra of the giraffe, the zebra?") == ["zebra", "giraffe"]


def test_medical_terms_that_training_never_used_are_no_unknown_words():
    assert parser().unknown_words("Where is the pancreas of the giraffe?") == ["giraffe"]
    assert [term.spelling for term in parser().terms_outside("Where is the pancreas?")] == ["pancreas"]


def test_a_synonym_is_read_as_the_known_word():
    known = parser("Is the liver normal?")
    assert known.unknown_words("Is the hepar unremarkable?") == []
    assert known.encode("Is the hepar unremarkable?", limit=9) == known.encode("Is the liver normal?", limit=9)


def test_a_choice_between_two_known_words_is_not_made():
    assert parser("lung tung").unknown_words("xung") == ["xung"]


@pytest.mark.parametrize(
    ("question", "foreign"), [("Where is it?", False), ("¿Dónde?", False), ("Где?", True), ("肝在哪", True)]
)
def test_scripts_that_training_never_used_are_foreign(question, foreign):
    assert parser().is_foreign(question) is foreign


def test_chinese_is_read_where_it_was_learned():
    assert parser("肝脏在哪里？").is_foreign("肝在哪") is False
    assert parser("肝脏在哪里？").is_foreign("肝臓はどこですか") is True


def test_entities_are_regions_with_and_without_side_and_words_that_are_answers():
    assert ENTITIES == ["brain", "brain edema", "left lung", "liver", "lung"]


@pytest.mark.parametrize(
    ("question", "entity"),
    [
        ("Where is the liver?", "liver"),
        ("What color is the left lung?", "left lung"),
        ("Are the lungs healthy?", "lung"),
        ("Is there a liver in the image?", None),
        ("How many lungs do you see?", None),
        ("What modality is this?", None),
    ],
)
def test_which_entity_a_question_presupposes(question, entity):
    assert parser().presupposed_entity(question) == entity


@pytest.mark.parametrize(
    ("question", "premises"),
    [
        ("Where is the liver?", ["liver"]),
        ("Is there a liver in the image?", []),
        ("Is the liver visible?", []),
        ("Does the picture contain the liver?", []),
        ("Is there a tumor in the liver?", ["liver"]),
        ("Can you see a mass in the liver?", ["liver"]),
        ("Does the liver show a lesion?", ["liver"]),
        ("Are there any abnormalities in the left lung?", ["left lung"]),
        ("Does this patient have brain edema?", ["brain edema"]),
        ("Does the patient have a liver?", ["liver"]),
        ("What is the function of the liver?", []),
        ("What modality is this?", []),
        ("肝脏在哪里?", ["liver"]),
        ("图中有肝脏吗?", []),
        ("肝脏里有肿瘤吗?", ["liver"]),
        ("病人患有脑水肿吗?", ["brain edema"]),
        ("左肺看起来正常吗?", ["left lung"]),
        ("肝脏的功能是什么?", []),
    ],
)
def test_what_a_picture_must_be_able_to_show(question, premises):
    assert parser().premises(question) == premises


def test_a_finding_is_familiar_where_one_of_the_same_organ_is():
    image_types = ImageTypes("part?", {"brain": ("brain", "brain edema"), "abdomen": ("liver", "lung", "liver cancer")})
    assert not image_types.is_unfamiliar("brain enhancing tumor", "Brain")
    assert image_types.is_unfamiliar("pneumonia", "Brain")
    assert image_types.is_unfamiliar("pneumonia", "Abdomen")  # the lungs are in it, their diseases never were
    assert image_types.is_unfamiliar("mass", "Abdomen")
    assert not image_types.is_unfamiliar("head", "Brain")  # a picture of the brain is one of the head
    assert image_types.is_unfamiliar("head", "Abdomen")


def test_image_types_and_the_entities_that_rows_mention_in_them():
    rows = [
        Example("1", "a", "What part?", ("Chest",), "a"),
        Example("2", "a", "Is the lung healthy?", ("No",), "a"),
        Example("3", "a", "Is there a liver?", ("No",), "a"),
        Example("4", "b", "What part?", ("Abdomen",), "b"),
        Example("5", "b", "Is there a liver?", ("Yes",), "b"),
    ]
    image_types = ImageTypes.from_examples(rows, parser())
    assert image_types.question == "What part?"
    assert image_types.entities == {"chest": ("lung",), "abdomen": ("liver",)}
    assert image_types.is_unfamiliar("liver", "Chest")
    assert not image_types.is_unfamiliar("lung", "chest")
    assert not image_types.is_unfamiliar("liver", "Foot")  # a type of which nothing is known


@pytest.mark.parametrize(
    ("question", "choices"),
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
def test_which_choices_a_question_offers(question, choices):
    assert (
        choices_in(question, {"liver", "spleen", "lung", "heart", "left kidney", "kidney", "left", "right"}) == choices
    )


@pytest.mark.parametrize(
    ("text", "entity"),
    [
        ("图片中包含肝脏吗?", "liver"),
        ("图中脑水肿在哪里?", "brain edema"),
        ("病人的左肺有异常吗?", "left lung"),
        ("图中胃在哪?", None),  # no entity of these pictures
        ("Where is the brain edema?", "brain edema"),
        ("这是CT扫描吗?", None),
    ],
)
def test_entities_are_recognized_by_their_chinese_names_too(text, entity):
    assert parser().entity_in_any_language(text) == entity


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("Where is the zebra?", "The model does not know the word 'zebra'; ask again without it."),
        ("Is the zebra a giraffe?", "The model does not know the words 'zebra' and 'giraffe'; ask again without them."),
        (
            "Is the rib fractured?",
            "None of the model's training questions is about 'rib' and 'fractured'; ask again without them.",
        ),
        (
            "Where is the zebra of the pancreas?",
            "The model does not know 'zebra', and none of its training questions is about 'pancreas'; "
            "ask again without them.",
        ),
        ("Where is the abnormality?", None),
    ],
)
def test_all_words_that_are_not_understood_are_named(question, reason):
    assert words_reason(question, parser()) == reason
