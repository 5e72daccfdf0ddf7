"""Both languages say everything, with the same blanks, and nothing that is never said."""

import re
from pathlib import Path
from string import Formatter
from typing import get_args

import pytest

import medical_vqa.app
from medical_vqa.app.client import Kind
from medical_vqa.app.i18n import CHINESE, ENGLISH, Words, language_of
from medical_vqa.serving.api.schema import ErrorCode


def blanks(text):
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_every_text_is_there_in_both_languages_in_the_same_order():
    assert list(ENGLISH) == list(CHINESE)


@pytest.mark.parametrize("key", ENGLISH)
def test_both_languages_fill_in_the_same_blanks(key):
    assert ENGLISH[key].strip()
    assert blanks(ENGLISH[key]) == blanks(CHINESE[key])
    assert not re.search(r"[\u4e00-\u9fff]", ENGLISH[key])
    assert re.search(r"[\u4e00-\u9fff]", CHINESE[key])


def test_everything_that_can_go_wrong_has_a_sentence():
    literal = [get_args(part) or (part,) for part in get_args(Kind)]
    kinds = {kind for part in literal for kind in part} | set(get_args(ErrorCode))
    for kind in kinds:
        assert Words("en").problem(kind).endswith(".")
        assert Words("zh").problem(kind).endswith("。")


def test_no_text_is_left_over():
    folder = Path(medical_vqa.app.__file__).parent
    code = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py") if path.name != "words.py")
    code += (folder / "words.py").read_text(encoding="utf-8").partition("_TEXTS")[2]
    built = ("problem_", "place_", "preset_")
    assert [key for key in ENGLISH if not key.startswith(built) and not re.search(rf"""["']{key}["']""", code)] == []


def test_times_are_said_in_minutes_and_hours():
    assert Words("en").duration(20) == "1\u00a0min"
    assert Words("en").duration(3600) == "60\u00a0min"
    assert Words("zh").duration(24 * 3600) == "24 小时"


def test_a_browser_set_to_chinese_gets_chinese():
    assert [language_of(locale) for locale in ("zh-CN", "zh", "en-GB", "de", None)] == ["zh", "zh", "en", "en", "en"]
