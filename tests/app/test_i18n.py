"""Both languages have every text, with the same placeholders, and no unused one."""

import re
from pathlib import Path
from string import Formatter
from typing import get_args

import pytest

import medical_vqa.app
from medical_vqa.app.case import CT_WINDOWS
from medical_vqa.app.client import FailureCode
from medical_vqa.app.i18n.chinese import TEXTS as CHINESE
from medical_vqa.app.i18n.english import TEXTS as ENGLISH
from medical_vqa.app.i18n.texts import Texts, language_of
from medical_vqa.models.guards.pictures.image_dependence import Source
from medical_vqa.models.guards.reasons import SENTENCES
from medical_vqa.models.guards.sides import Side
from medical_vqa.serving.schema.errors import ErrorCode


def placeholders(text):
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_every_text_exists_in_both_languages_in_the_same_order():
    assert list(ENGLISH) == list(CHINESE)


@pytest.mark.parametrize("key", ENGLISH)
def test_both_languages_have_the_same_placeholders(key):
    assert ENGLISH[key].strip()
    assert placeholders(ENGLISH[key]) == placeholders(CHINESE[key])
    assert not re.search(r"[\u4e00-\u9fff]", ENGLISH[key])
    assert re.search(r"[\u4e00-\u9fff]", CHINESE[key])


def test_every_failure_has_a_sentence():
    codes = {code for part in get_args(FailureCode) for code in get_args(part) or (part,)}
    assert codes >= {"unreachable", *get_args(ErrorCode)}
    for code in codes:
        assert Texts("en").failure(code).endswith(".")
        assert Texts("zh").failure(code).endswith("。")
    assert codes == {key.removeprefix("failure_") for key in ENGLISH if key.startswith("failure_")}


@pytest.mark.parametrize("code", [*SENTENCES, "question_scope"])
def test_every_reason_is_worded_in_both_languages_with_the_arguments_of_its_sentence(code):
    expected = placeholders(SENTENCES.get(code, ""))
    for texts in (ENGLISH, CHINESE):
        assert placeholders(texts[f"reason_{code}"]) == expected
    arguments = {name: f"<{name}>" for name in expected}
    english, chinese = (Texts(language).reason(code, arguments, "Sentence.") for language in ("en", "zh"))
    assert all(value in english and value in chinese for value in arguments.values())
    assert re.search(r"[\u4e00-\u9fff]", chinese)


def test_the_thin_page_and_the_command_line_say_the_same_in_english():
    assert {code: ENGLISH[f"reason_{code}"] for code in SENTENCES} == dict(SENTENCES)


def test_there_is_no_reason_that_no_guard_gives():
    codes = {key.removeprefix("reason_") for key in ENGLISH if key.startswith("reason_")}
    assert codes == {*SENTENCES, "question_scope"}


def test_a_reason_of_a_newer_backend_is_its_own_sentence():
    for language in ("en", "zh"):
        assert Texts(language).reason("of_the_future", {}, "I do not like it.") == "I do not like it."
        without_arguments = Texts(language).reason("low_confidence", {}, "I am not sure.")
        assert without_arguments == "I am not sure."
    assert Texts("en").reason("question_scope", {}, "I was trained on dogs.") == "I was trained on dogs."


def test_values_that_a_reason_names_are_in_the_language_of_the_page():
    arguments = {"entity": "left lung"}
    assert "左肺" in Texts("zh").reason("organ_not_in_image_type", arguments, None)
    assert "the left lung" in Texts("en").reason("organ_not_in_image_type", arguments, None)
    assert "'rib'和'fracture'" in Texts("zh").reason("untrained_terms", {"terms": "'rib' and 'fracture'"}, None)


def test_every_source_and_side_is_worded():
    for name, kind in (("source", Source), ("side", Side)):
        assert {key.removeprefix(f"{name}_") for key in ENGLISH if key.startswith(f"{name}_")} == set(get_args(kind))


def test_every_text_is_used():
    folder = Path(medical_vqa.app.__file__).parent
    definitions = {folder / "i18n/english.py", folder / "i18n/chinese.py"}
    code = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py") if path not in definitions)
    composed = ("failure_", "region_", "reason_", "source_", "side_")
    presets = {f"preset_{name}" for name in ("header", *CT_WINDOWS)}
    keys = [key for key in ENGLISH if not key.startswith(composed) and key not in presets]
    assert [key for key in keys if not re.search(rf"""["']{key}["']""", code)] == []


def test_durations_are_in_minutes_and_hours():
    assert Texts("en").duration(20) == "1\u00a0min"
    assert Texts("en").duration(3600) == "60\u00a0min"
    assert Texts("zh").duration(24 * 3600) == "24 小时"


def test_a_browser_set_to_chinese_gets_chinese():
    assert [language_of(locale) for locale in ("zh-CN", "zh", "en-GB", "de", None)] == ["zh", "zh", "en", "en", "en"]
