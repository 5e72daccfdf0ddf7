"""Both languages have every text, with the same placeholders, and no unused one."""

import re
from pathlib import Path
from string import Formatter
from typing import get_args

import pytest

import medical_vqa.app
from medical_vqa.app.case import CT_WINDOWS
from medical_vqa.app.client import FailureCode
from medical_vqa.app.i18n import CHINESE, ENGLISH, Texts, language_of
from medical_vqa.serving.schema import ErrorCode


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


def test_every_text_is_used():
    folder = Path(medical_vqa.app.__file__).parent
    code = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py") if path.name != "i18n.py")
    code += (folder / "i18n.py").read_text(encoding="utf-8").partition("_TEXTS")[2]
    composed = ("failure_", "region_")
    presets = {f"preset_{name}" for name in ("header", *CT_WINDOWS)}
    keys = [key for key in ENGLISH if not key.startswith(composed) and key not in presets]
    assert [key for key in keys if not re.search(rf"""["']{key}["']""", code)] == []


def test_durations_are_in_minutes_and_hours():
    assert Texts("en").duration(20) == "1\u00a0min"
    assert Texts("en").duration(3600) == "60\u00a0min"
    assert Texts("zh").duration(24 * 3600) == "24 小时"


def test_a_browser_set_to_chinese_gets_chinese():
    assert [language_of(locale) for locale in ("zh-CN", "zh", "en-GB", "de", None)] == ["zh", "zh", "en", "en", "en"]
