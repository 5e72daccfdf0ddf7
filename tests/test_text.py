import pytest
from hypothesis import given
from hypothesis import strategies as st

from medical_vqa.text import did_you_mean, per_cent, plain_letters, squad_normalize, tokens


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The left lung.", "left lung"),
        ("X-Ray", "xray"),
        ("a.n", ""),
        ("theatre", "theatre"),
        ("  Lung \t cancer\n", "lung cancer"),
        ("左肺", "左肺"),
        ("", ""),
    ],
)
def test_squad_normalisation_lowers_drops_punctuation_then_articles_and_squeezes_blanks(text, normalized):
    assert squad_normalize(text) == normalized


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    once = squad_normalize(text)
    assert squad_normalize(once) == once


@given(st.text(alphabet="aAnNtThHeE .,-_'\u0301 1é"))
def test_normalising_twice_changes_nothing_near_articles(text):
    once = squad_normalize(text)
    assert squad_normalize(once) == once


def test_tokens_are_the_words_left_in_order():
    assert tokens("The upper lobe of the left lung") == ["upper", "lobe", "of", "left", "lung"]
    assert tokens("the ...") == []


def test_shares_are_said_in_whole_per_cent_and_never_rounded_to_nothing():
    assert [per_cent(share) for share in (1.0, 0.826, 0.01, 0.004, 0.0)] == ["100%", "83%", "1%", "<1%", "0%"]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("\u0410\u043e\u0440ta", "Aopta"),
        ("\uff23\uff34", "CT"),
        ("X\u2011Ray", "X-Ray"),
        ("Cro\u200bhn\u2019s", "Crohn's"),
        ("e\u0301dema", "\u00e9dema"),
        ("肺", "肺"),
        ("רֵאָה", "רֵאָה"),
    ],
)
def test_characters_that_only_look_different_become_one(text, plain):
    assert plain_letters(text) == plain


def test_a_misspelled_name_is_met_with_the_nearest_or_with_what_is_known():
    assert did_you_mean("slak", ["folder", "slake"]) == "did you mean 'slake'?"
    assert did_you_mean("zzz", ["folder", "slake"]) == "known: folder, slake"
    assert did_you_mean("zzz", map(str, range(20))).endswith("10, 11 ...")
    assert did_you_mean("zzz", ["slake"], otherwise="remove it") == "remove it"
