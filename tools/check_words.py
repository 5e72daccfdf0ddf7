"""Checks the project's language: no idiom of the table in words.toml, no variable named by a bare participle.

``python tools/check_words.py`` checks the source, the documentation and the recipes and lists what to replace by what;
the exit status is 1 where there is anything. Paths as arguments check those files or folders alone.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "tools/words.toml"
CHECKED = ("src", "docs", "recipes", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")
SUFFIXES = frozenset({".py", ".md", ".yaml", ".yml", ".toml", ".html", ".j2", ".js", ".css", ".json"})
SKIPPED = ("/assets/", "/__pycache__/", ".schema.json", "/serving/page/")
"""Data sets, weights, and what is generated: schemas, the built page."""
GENERATED = "<!-- Written by "
"""Beginning of a page that a tool writes from the code."""

PARTICIPLES = frozenset(
    {"asked", "begun", "chosen", "come", "drawn", "found", "given", "gone", "held", "kept", "looked", "made", "ours",
     "said", "seen", "sent", "shown", "taken", "theirs", "told", "wanted"}
)  # fmt: skip
PARTICIPLE_ADVICE = "the name of what it holds"
"""Not among the participles: `done`, a count of progress, and `left`, a side or a coordinate."""

Place = Literal["prose", "names", "modules"]


@dataclass(frozen=True)
class Word:
    """One row of the table."""

    pattern: re.Pattern[str]
    instead: str
    places: frozenset[Place]
    whole_name: bool
    exception: re.Pattern[str] | None

    def matches(self, text: str) -> Iterator[re.Match[str]]:
        """Every use of the word in `text`, those inside an allowed phrase left out."""
        allowed = [match.span() for match in self.exception.finditer(text)] if self.exception else []
        for match in self.pattern.finditer(text):
            if not any(start <= match.start() and match.end() <= end for start, end in allowed):
                yield match


@dataclass(frozen=True, order=True)
class Finding:
    """One use of a word that the project does not use."""

    path: str
    line: int
    text: str
    instead: str

    def __str__(self) -> str:
        """A line that an editor can jump to."""
        return f"{self.path}:{self.line}: {self.text!r}: write {self.instead}"


@dataclass(frozen=True)
class Table:
    """The words, and the places where one of them is right."""

    words: tuple[Word, ...]
    allowed: frozenset[tuple[str, str]]

    def allows(self, finding: Finding) -> bool:
        """Whether the table names this word in this file."""
        return any(finding.path.endswith(path) and finding.text.lower() == word.lower() for path, word in self.allowed)


def read_table(path: Path = TABLE) -> Table:
    """Read the table of words."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    words = tuple(
        Word(
            re.compile(rf"(?<!\w)(?:{row['pattern'].replace(' ', ' +')})(?!\w)", re.IGNORECASE),
            row["instead"],
            frozenset(row["in"]),
            row.get("whole_name", False),
            re.compile(row["except"], re.IGNORECASE) if "except" in row else None,
        )
        for row in content["word"]
    )
    return Table(words, frozenset((row["path"], row["word"]) for row in content.get("allow", ())))


def name_parts(name: str) -> str:
    """An identifier as words: ``imageKinds`` and ``image_kinds`` become ``image kinds``."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return re.sub(r"[_\s]+", " ", spaced).strip()


def check_name(name: str, path: str, line: int, table: Table, place: Place = "names") -> Iterator[Finding]:
    """The words of the table in one identifier."""
    for word in table.words:
        if place not in word.places or (word.exception is not None and word.exception.search(name)):
            continue
        uses = [word.pattern.fullmatch(name)] if word.whole_name else word.matches(name_parts(name))
        if any(uses):
            yield Finding(path, line, name, word.instead)


def check_prose(text: str, path: str, first_line: int, table: Table) -> Iterator[Finding]:
    """The words of the table in a text; a phrase that a line break divides counts as well."""
    flat = re.sub(r"\n[ \t]*(?:#:? ?)?|\s", lambda space: " " * len(space.group()), text)
    for word in table.words:
        if "prose" in word.places:
            for match in word.matches(flat):
                line = first_line + text.count("\n", 0, match.start())
                yield Finding(path, line, " ".join(match.group().split()), word.instead)


def _identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a module defines or uses as a key: definitions, parameters, variables, attributes, keys."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 1)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, line
        elif isinstance(node, ast.arg):
            yield node.arg, line
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, line
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, line
        elif isinstance(node, ast.Dict):
            for key in node.keys:
                if isinstance(key, ast.Constant) and isinstance(key.value, str) and key.value.isidentifier():
                    yield key.value, key.lineno


def _variables(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every variable that a module assigns: names, parameters, fields, loop and comprehension targets."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name, node.lineno


def check_python(source: str, path: str, table: Table) -> Iterator[Finding]:
    """The words of the table in one Python module: its identifiers, comments, strings, and its own name."""
    tree = ast.parse(source)
    for place in ("names", "modules"):
        yield from check_name(Path(path).stem, path, 1, table, place)
    for name, line in _identifiers(tree):
        yield from check_name(name, path, line, table)
    for name, line in _variables(tree):
        if name.lower().strip("_") in PARTICIPLES:
            yield Finding(path, line, name, PARTICIPLE_ADVICE)
    comments: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.STRING or tokenize.tok_name[token.type].startswith("FSTRING"):
            yield from check_prose(token.string, path, token.start[0], table)
        elif token.type == tokenize.COMMENT:
            if comments and comments[-1][0] + comments[-1][1].count("\n") + 1 == token.start[0]:
                comments[-1] = (comments[-1][0], comments[-1][1] + "\n" + token.string)
            else:
                comments.append((token.start[0], token.string))
    for line, text in comments:
        yield from check_prose(text, path, line, table)


def check_text(text: str, path: str, table: Table) -> Iterator[Finding]:
    """The words of the table in a page, a template, a style sheet or a recipe."""
    yield from check_prose(text, path, 1, table)
    if path.endswith((".yaml", ".yml", ".toml", ".json")):
        for number, line in enumerate(text.splitlines(), 1):
            if key := re.match(r"""\s*(?:- )?["']?([A-Za-z_]\w*)["']?\s*[:=]""", line):
                yield from check_name(key.group(1), path, number, table)


def files_of(paths: Sequence[Path]) -> Iterator[Path]:
    """The text files among the paths and below them."""
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in SUFFIXES and not any(part in file.as_posix() for part in SKIPPED):
                yield file


def check(paths: Sequence[Path], root: Path, table: Table) -> list[Finding]:
    """Check files and folders.

    Args:
        paths: Files, and folders that are searched for text files.
        root: The folder that the paths of the findings are relative to.
        table: The words that the project does not use.

    Returns:
        The findings, by file and line.
    """
    findings: set[Finding] = set()
    for file in files_of([path for path in paths if path.exists()]):
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.as_posix()
        text = file.read_text(encoding="utf-8")
        if text.startswith(GENERATED):
            continue
        checker = check_python if file.suffix == ".py" else check_text
        findings.update(finding for finding in checker(text, name, table) if not table.allows(finding))
    return sorted(findings)


def main() -> None:
    """Print the findings; exit with status 1 where there are any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("paths", nargs="*", type=Path)
    arguments = parser.parse_args()
    paths = [path.resolve() for path in arguments.paths] or [ROOT / name for name in CHECKED]
    findings = check(paths, ROOT, read_table())
    for finding in findings:
        print(finding)
    if findings:
        print(f"{len(findings)} words to replace; the table is tools/words.toml")
        sys.exit(1)


if __name__ == "__main__":
    main()
