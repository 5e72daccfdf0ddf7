"""The page words every reason and every error code in each of its languages."""

import json
import re
from pathlib import Path
from string import Formatter
from typing import get_args

import pytest

from medical_vqa.models.guards.reasons import SENTENCES
from medical_vqa.serving.schema.errors import ErrorCode

FOLDER = Path(__file__).parents[2] / "web/src/i18n"
LANGUAGES = sorted(path.stem for path in FOLDER.glob("*.ts") if path.stem != "index")
ENTRY = re.compile(r'^  "([\w.]+)": (".*"),$', re.M)


def texts(language: str) -> dict[str, str]:
    """The texts of a language, without the names of organs and findings that follow them."""
    source = (FOLDER / f"{language}.ts").read_text("utf-8").partition("\n};")[0].partition("\n} as const")[0]
    return {key: json.loads(text) for key, text in ENTRY.findall(source)}


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_english_and_chinese_are_among_the_languages():
    assert {"en", "zh"} <= set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_reason_is_worded_with_its_arguments(language):
    for code, sentence in SENTENCES.items():
        text = texts(language).get(f"reason.{code}", "")
        assert text, f"{language}.ts has no reason.{code}"
        assert placeholders(text) <= placeholders(sentence), f"{language}.ts, reason.{code}: no such argument"


def test_the_page_and_the_command_line_say_the_same_in_english():
    english = texts("en")
    assert {code: english[f"reason.{code}"] for code in SENTENCES} == dict(SENTENCES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_error_is_worded(language):
    missing = [code for code in get_args(ErrorCode) if f"failure.{code}" not in texts(language)]
    assert missing == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_same_texts_and_placeholders(language):
    english = texts("en")
    other = texts(language)
    assert other.keys() == english.keys()
    assert [key for key in english if placeholders(other[key]) != placeholders(english[key])] == []


def test_chinese_texts_are_chinese():
    plain = {"title", "preset.usual", "preset.middle", "cases.upload_failed", "viewer.frame"}
    assert [key for key, text in texts("zh").items() if key not in plain and not re.search(r"[一-鿿]", text)] == []
