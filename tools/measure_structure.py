"""Measures how the package is divided: modules per package, function lengths, private functions, the language.

``python tools/measure_structure.py [SOURCE_ROOT]`` (by default ./src) reads the source with `ast` alone, so that it
measures any commit in any checkout. ``docs`` next to the source root is read for the language.
"""

from __future__ import annotations

import argparse
import ast
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import check_words

PACKAGE = "medical_vqa"
SHORT = 5
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Definition:
    """A function or method, where it is defined and how long it is."""

    module: str
    name: str
    method: bool
    lines: int
    """From ``def`` to the end, the docstring left out."""
    body_lines: int
    """The statements alone, without signature and docstring."""

    @property
    def private(self) -> bool:
        """Whether the name begins with one underscore and is not a dunder."""
        return self.name.startswith("_") and not (self.name.startswith("__") and self.name.endswith("__"))


@dataclass(frozen=True)
class Module:
    """One parsed module."""

    name: str
    """Its path below the package, with slashes."""
    tree: ast.Module

    @property
    def package(self) -> str:
        """The folder that it lies in, ``.`` for the top."""
        return self.name.rpartition("/")[0] or "."


def read_modules(package: Path) -> list[Module]:
    """Parse every module of a package."""
    return [
        Module(path.relative_to(package).as_posix(), ast.parse(path.read_text(encoding="utf-8")))
        for path in sorted(package.rglob("*.py"))
    ]


def body_without_docstring(function: Function) -> list[ast.stmt]:
    """The statements of a function, its docstring left out."""
    first = function.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return function.body[1:] if is_docstring and isinstance(first.value.value, str) else function.body  # type: ignore[attr-defined]


def definitions(module: Module) -> Iterator[Definition]:
    """Every function and method of a module, nested ones as well."""

    def walk(node: ast.AST, in_class: bool) -> Iterator[Definition]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                body = body_without_docstring(child)
                end = child.end_lineno or child.lineno
                docstring = sum((s.end_lineno or s.lineno) - s.lineno + 1 for s in child.body if s not in body)
                body_lines = end - body[0].lineno + 1 if body else 0
                yield Definition(module.name, child.name, in_class, end - child.lineno + 1 - docstring, body_lines)
                yield from walk(child, in_class=False)
            else:
                yield from walk(child, in_class=isinstance(child, ast.ClassDef))

    yield from walk(module.tree, in_class=False)


def references(module: Module) -> Counter[str]:
    """How often each name is read in a module, as a name or as an attribute."""
    names: Counter[str] = Counter()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            names[node.id] += 1
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            names[node.attr] += 1
    return names


def private_uses(modules: list[Module]) -> list[tuple[Definition, int]]:
    """How often each private function is referenced in the package.

    Uses in the defining module count, and uses in modules that define no function of the same name.
    """
    names_of = {module.name: references(module) for module in modules}
    defined = {module.name: [*definitions(module)] for module in modules}
    private_names = {name: {item.name for item in items if item.private} for name, items in defined.items()}
    counts = []
    for module in modules:
        for item in defined[module.name]:
            if item.private:
                elsewhere = (
                    counter[item.name]
                    for name, counter in names_of.items()
                    if name != module.name and item.name not in private_names[name]
                )
                counts.append((item, names_of[module.name][item.name] + sum(elsewhere)))
    return counts


def percentile(values: list[int], fraction: float) -> int:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


def report_packages(modules: list[Module], package: Path) -> Iterator[str]:
    """Modules and other files of each package."""
    yield f"modules: {len(modules)}"
    yield f"{'package':40} {'modules':>7} {'other files':>11}"
    for name, count in sorted(Counter(module.package for module in modules).items()):
        folder = package / name
        others = sum(1 for path in folder.iterdir() if path.is_file() and path.suffix not in {".py", ".pyc"})
        yield f"{name:40} {count:7} {others:11}"


def report_functions(modules: list[Module], *, list_short: bool) -> Iterator[str]:
    """Lengths of functions, and how the private ones are used; the short ones that are called once by name as well."""
    lengths = [item.lines for module in modules for item in definitions(module)]
    yield (
        f"functions and methods: {len(lengths)}; lines without docstring: median {statistics.median(lengths):g}, "
        f"p90 {percentile(lengths, 0.9)}, max {max(lengths)}"
    )
    uses = private_uses(modules)
    once = [item for item, count in uses if count == 1]
    short = [item for item in once if item.body_lines <= SHORT]
    yield f"private functions and methods: {len(uses)}"
    yield f"  referenced exactly once: {len(once)}"
    yield f"  of these with at most {SHORT} lines of body: {len(short)}"
    if list_short:
        yield from (f"    {item.module}: {item.name}" for item in short)


def report_language(source: Path) -> Iterator[str]:
    """Uses of the words that the project does not use, by word."""
    table = check_words.read_table()
    docs = source.parent / "docs"
    for folder in (source / PACKAGE, docs):
        findings = check_words.check([folder], source.parent, table)
        participles = [finding for finding in findings if finding.instead == check_words.PARTICIPLE_ADVICE]
        idioms = Counter(finding.instead for finding in findings if finding.instead != check_words.PARTICIPLE_ADVICE)
        yield f"{folder.name}: idioms of the word list: {idioms.total()}"
        for advice, count in idioms.most_common():
            yield f"  {count:5}  in place of: {advice}"
        yield f"{folder.name}: variables named by a bare participle: {len(participles)}"
        by_name = Counter(finding.text for finding in participles)
        if by_name:
            yield "  " + ", ".join(f"{name} {count}" for name, count in by_name.most_common())


def main() -> None:
    """Print the figures of one source tree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", nargs="?", type=Path, default=Path("src"), help="folder that holds the package")
    parser.add_argument(
        "--short", action="store_true", help="also list the short private functions that are called once"
    )
    arguments = parser.parse_args()
    source = arguments.source.resolve()
    modules = read_modules(source / PACKAGE)
    functions = report_functions(modules, list_short=arguments.short)
    for lines in (report_packages(modules, source / PACKAGE), functions, report_language(source)):
        print("\n".join(lines), end="\n\n")


if __name__ == "__main__":
    main()
