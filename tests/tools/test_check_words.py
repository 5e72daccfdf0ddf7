"""The word list accepts plain technical English and refuses the idioms of the table."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools/check_words.py"


def load_tool():
    spec = importlib.util.spec_from_file_location("check_words", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


check_words = load_tool()
TABLE = check_words.read_table()


def texts(findings):
    return [finding.text for finding in findings]


@pytest.mark.parametrize(
    "line",
    [
        "The floor is counted on the training rows.",
        "The page shows where the model looked.",
        "The loop is told the batch size.",
        "Training goes on after an interruption.",
        "A question that it had better not answer.",
        "The features are made once.",
        "Five rows were mended.",
        "A message says what came.",
        "A folder of one's own.",
        "Three things are checked.",
        "The warmed probability.",
        "Weights are shared out over the devices.",
        "A sketch of the memory.",
        "An interval stands beside each score.",
        "The share of wrong answers.",
        "Runs of blanks become one.",
    ],
)
def test_an_idiom_in_prose_is_refused(line):
    assert len(texts(check_words.check_prose(line, "page.md", 1, TABLE))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "`math.floor(x)` and `np.floor` round down; `torch.floor_divide` divides.",
        "Look the word up in the lookup table.",
        "The mask is besides this point.",
        "Two kinds of question; both share a cache.",
        "The whole image is resized, then moved to the device.",
        "The optimizer is warmed up for 100 steps.",
        "A question mark ends the sentence.",
        "One can tell them apart.",
        "A blank line ends the header.",
    ],
)
def test_plain_english_is_accepted(line):
    assert texts(check_words.check_prose(line, "page.md", 1, TABLE)) == []


def test_a_phrase_is_seen_across_a_line_break_and_reported_where_it_begins():
    comment = 'x = 1\n# It is cut\n# short here.\ntext = """A folder of one\'s\n    own."""\n'
    findings = sorted(check_words.check_python(comment, "a.py", TABLE))
    assert [(finding.line, finding.text) for finding in findings] == [(2, "cut short"), (4, "one's own")]


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("floor_scores = {}", ["floor_scores"]),
        ("class ImageFloor: ...", ["ImageFloor"]),
        ("import math\nn = math.floor(2.5)", []),
        ("lookup = {}\nlook_up = lookup", []),
        ("def ask(look): ...", ["look"]),
        ("row = {'verdict': 1}", ["verdict"]),
        ("kinds = ()\nkind = 1", ["kinds"]),
        ("whole = 1\nwhole_image = 2", ["whole"]),
        ("share_weights = True\nopen_share = 0.5", ["open_share"]),
        ("self.colour = 1\ncolor = 2", ["colour"]),
        ("licence: str = ''", ["licence"]),
        ("analysis = 1\ncancellation = 2\ntokens = 3", []),
    ],
)
def test_identifiers_and_keys_are_checked_part_by_part(source, names):
    assert sorted(set(texts(check_words.check_python(source, "a.py", TABLE)))) == names


@pytest.mark.parametrize(
    "source",
    [
        "found = 1",
        "def f(given): ...",
        "for asked in (): ...",
        "with open('a') as seen: ...",
        "[kept for kept in ()]",
        "class A:\n    ours: int = 1",
        "try: ...\nexcept OSError as said: ...",
        "f = lambda made: made",
        "(chosen := 1)",
    ],
)
def test_a_variable_named_by_a_bare_participle_is_refused(source):
    findings = list(check_words.check_python(source, "a.py", TABLE))
    assert [finding.instead for finding in findings] == ["the name of what it holds"]


def test_a_participle_with_its_noun_and_an_attribute_of_another_library_are_accepted():
    source = "found_rows = 1\nleft, top = 0, 0\ndone = 3\nprint(match.found)\n"
    assert list(check_words.check_python(source, "a.py", TABLE)) == []


def test_module_names_are_checked():
    assert texts(check_words.check_python("", "app/talking.py", TABLE)) == ["talking"]
    assert texts(check_words.check_python("", "app/transcript.py", TABLE)) == []


def test_keys_of_a_recipe_are_checked():
    assert texts(check_words.check_text("model:\n  licence: MIT\n", "recipe.yaml", TABLE)) == ["licence"]


def test_the_table_can_allow_a_word_in_one_file(tmp_path):
    table = tmp_path / "words.toml"
    table.write_text(
        '[[word]]\npattern = "floor"\ninstead = "baseline"\nin = ["prose"]\n'
        '[[allow]]\npath = "log.md"\nword = "floor"\nreason = "the name of a published file"\n'
    )
    for name in ("log.md", "page.md"):
        (tmp_path / name).write_text("the floor\n")
    findings = check_words.check([tmp_path / "log.md", tmp_path / "page.md"], tmp_path, check_words.read_table(table))
    assert [(finding.path, finding.line, finding.text) for finding in findings] == [("page.md", 1, "floor")]


def test_the_command_lists_what_to_write_and_fails(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("first\nwhat came\n")
    result = subprocess.run([sys.executable, TOOL, page], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"{page}:2: 'what came': write received" in result.stdout
    page.write_text("what the server received\n")
    assert subprocess.run([sys.executable, TOOL, page], capture_output=True, text=True, check=False).returncode == 0
