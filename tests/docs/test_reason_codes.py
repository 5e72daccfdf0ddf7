"""The page about the guards lists every reason code with its arguments."""

from pathlib import Path
from string import Formatter

import pytest

from medical_vqa.models.guards.reasons import SENTENCES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/explanation/grounded-answers.md"


def test_every_reason_code_is_listed_with_its_arguments():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    for code, sentence in SENTENCES.items():
        (row,) = [row for row in rows if f"`{code}`" in row.split("|")[1]]
        arguments = {name for _, name, _, _ in Formatter().parse(sentence) if name}
        assert {part.strip(" `") for part in row.split("|")[2].split(",") if part.strip()} == arguments, code


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_words_every_reason_code_in_its_languages(language):
    texts = (ROOT / f"web/src/i18n/{language}.ts").read_text(encoding="utf-8")
    assert [code for code in SENTENCES if f'"reason.{code}": ' not in texts] == []
