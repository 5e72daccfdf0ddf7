"""Medical terms are replaced only by words of the same meaning, and named where there are none."""

import pytest

from medical_vqa.errors import DataError
from medical_vqa.models.questions.terms import canonical_terms, medical_terms, read_terms

WORDS = """
is this a an the in of there where what x ray chest transverse section plane liver kidney heart cardiomegaly ct mri
abnormality abnormalities lung normal on image tumor brain edema pleural effusion shown 2 lobe
图 中 肺 张 不 断 横 面 心 脏 肥 大 有 是 什 么 成 像 方 式 扫 描 平
"""
KNOWN = frozenset(WORDS.split())


@pytest.mark.parametrize(
    ("question", "canonical"),
    [
        ("Is this a CXR?", "Is this a chest x ray?"),
        ("Is this an axial plane?", "Is this an transverse plane?"),
        ("Is this an axial slice?", "Is this an transverse section?"),
        ("Is there an enlarged heart?", "Is there cardiomegaly?"),
        ("Is the heart enlarged?", "Is there cardiomegaly?"),
        ("Is there a hepatic tumour?", "Is there a liver tumor?"),
        ("Is there cerebral edema in the image?", "Is there brain edema in the image?"),
        ("Is there pleural fluid?", "Is there pleural effusion?"),
        ("Are the lungs unremarkable?", "Are the lungs normal?"),
        ("What is most likely shown?", "What is  shown?"),
        ("这是轴位吗", "这是横断面吗"),
        ("请问这是什么图?", "这是什么图?"),
        ("您好,麻烦您帮我看一下这是什么图呢?谢谢", ",这是什么图?"),
        ("这是什么模态", "这是什么成像方式"),
        ("这张图像的成像模态是什么", "这张图像的成像方式是什么"),
        ("扫描切面是什么", "扫描平面是什么"),
        ("有肺萎陷吗", "有肺不张吗"),
    ],
)
def test_a_synonym_is_replaced_by_the_known_word(question, canonical):
    assert canonical_terms(question, KNOWN).text == canonical


def test_a_lesion_is_an_abnormality_where_its_place_is_asked_for():
    assert canonical_terms("Where are the lesions?", KNOWN).text == "Where are the abnormalities?"
    known = KNOWN | {"which"}
    assert canonical_terms("In which lobe is the lesion?", known).text == "In which lobe is the abnormality?"


def test_a_lesion_is_not_an_abnormality_in_a_question_for_its_presence():
    canonical = canonical_terms("Is there a lesion in the liver?", KNOWN)
    assert canonical.text == "Is there a lesion in the liver?"
    assert [term.spelling for term in canonical.outside] == ["lesion"]


@pytest.mark.parametrize(
    "question", ["Is there an opacity?", "Are the ribs fractured?", "Is this a PA view?", "有骨折吗"]
)
def test_a_term_without_words_of_the_same_meaning_is_named_and_stays(question):
    canonical = canonical_terms(question, KNOWN)
    assert canonical.text == question
    assert canonical.outside


def test_the_longest_term_counts():
    assert [term.spelling for term in canonical_terms("midline shift", KNOWN).outside] == ["midline shift"]


def test_plurals_are_recognized():
    spellings = [term.spelling for term in canonical_terms("fractures, arteries", KNOWN).outside]
    assert spellings == ["fracture", "arteries"]


def test_words_that_the_model_knows_are_never_replaced():
    known = KNOWN | {"axial", "lesion", "film"}
    for question in ("Is this axial?", "Where is the lesion?", "Is this film normal?"):
        assert canonical_terms(question, known).text == question
        assert not canonical_terms(question, known).outside


def test_a_synonym_of_a_word_that_the_model_does_not_know_is_only_named():
    canonical = canonical_terms("Is there a hepatic mass?", frozenset({"is", "there", "a", "mass"}))
    assert canonical.replaced == ()
    assert [term.target for term in canonical.outside] == ["liver"]


def test_what_was_replaced_is_reported():
    assert canonical_terms("CXR of two lungs", KNOWN).replaced == (("CXR", "chest x ray"), ("two", "2"))


def test_the_table_names_a_source_for_every_term():
    assert len(medical_terms()) > 1000
    assert all(term.source for term in medical_terms().values())


def test_no_target_is_a_term_that_would_be_replaced_in_turn():
    table = medical_terms()
    same = {term.spelling: term.target for term in table.values() if term.relation == "same"}
    assert [spelling for spelling, target in same.items() if target in same] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("terms,relation,target,source\nrib,near,chest,TA\n", "relations are"),
        ("terms,relation,target,source\nrib,same\n", "expected terms"),
        ("terms,relation,target,source\nrib,outside,chest,TA\nrib,outside,spine,TA\n", "'rib' occurs twice"),
    ],
)
def test_a_damaged_table_is_refused(text, message):
    with pytest.raises(DataError, match=message):
        read_terms(text)
