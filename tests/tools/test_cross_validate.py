"""Folds of `tools/cross_validate.py`."""

import runpy
from pathlib import Path

TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "cross_validate.py"))


def test_images_that_are_nearly_equal_are_in_one_fold():
    linked = {"a": "a", "b": "a", "c": "c", "d": "d", "e": "d", "f": "f"}
    fold_of = TOOL["balanced_folds"](linked, 2)
    assert fold_of["a"] == fold_of["b"]
    assert fold_of["d"] == fold_of["e"]
    assert sorted(fold_of.values()) == [0, 0, 0, 1, 1, 1]


def test_folds_do_not_depend_on_the_order_of_the_images():
    groups = {name: name for name in "abcdefgh"}
    reverse = dict(reversed(groups.items()))
    assert TOOL["balanced_folds"](groups, 3) == TOOL["balanced_folds"](reverse, 3)
