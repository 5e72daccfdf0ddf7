import pytest

from medical_vqa.errors import ModelError
from medical_vqa.models.vocabulary import AnswerVocabulary, WordVocabulary, words


def test_words_are_lower_case_and_chinese_characters_stand_alone():
    assert words("Is the T2 left-sided?") == ["is", "the", "t", "2", "left", "-", "sided", "?"]
    assert words("肺在哪") == ["肺", "在", "哪"]


def test_answers_that_scoring_does_not_tell_apart_share_a_class():
    answers = AnswerVocabulary.from_answers(["Transverse  Plane", "transverse plane", "transverse plane", "Lung"])
    assert answers.answers == ("transverse plane", "Lung")
    assert answers.index("The Transverse Plane.") == 0


def test_the_order_does_not_depend_on_the_order_of_the_rows():
    rows = ["b", "a", "c", "c"]
    assert AnswerVocabulary.from_answers(rows) == AnswerVocabulary.from_answers(rows[::-1])


def test_an_answer_unseen_in_training_is_refused_by_name():
    with pytest.raises(ModelError, match="'Spleen' is not among the 1 answers"):
        AnswerVocabulary(("Lung",)).index("Spleen")


def test_coverage_is_the_share_of_known_answers():
    assert AnswerVocabulary(("yes", "no")).coverage(["Yes", "no", "lung", "no."]) == 0.75
    assert AnswerVocabulary(("yes",)).coverage([]) == 1.0


def test_no_answers_is_an_error():
    with pytest.raises(ModelError, match="no answers to learn"):
        AnswerVocabulary.from_answers(["", "the"])


def test_unknown_words_get_index_one_and_nothing_is_ever_empty():
    known = WordVocabulary.from_questions(["is it left", "is it"])
    assert known.known == ("is", "it", "left")
    assert known.encode("it is purple", limit=9) == [3, 2, 1]
    assert known.encode("", limit=9) == [1]
    assert known.unknown("is purple it") == ["purple"]


def test_long_questions_are_cut():
    assert len(WordVocabulary(("a",)).encode("a " * 50, limit=7)) == 7
