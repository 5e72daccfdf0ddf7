"""Names that are linked directly or through others, as sets that have no name in common (union-find)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class DisjointSets:
    """Sets of linked names, each represented by its first name in order; one that was never linked is its own set."""

    def __init__(self, order: Callable[[str], Any] | None = None) -> None:
        """Begin without links; `order` gives what names are ordered by, themselves by default."""
        self._order = order
        self._parents: dict[str, str] = {}

    def first(self, name: str) -> str:
        """The name that represents the set of `name`."""
        path = []
        while (parent := self._parents.get(name, name)) != name:
            path.append(name)
            name = parent
        self._parents.update(dict.fromkeys(path, name))
        return name

    def join(self, first: str, second: str) -> None:
        """Link two names, and with them their sets."""
        low, high = sorted((self.first(first), self.first(second)), key=self._order)
        if low != high:
            self._parents[high] = low
