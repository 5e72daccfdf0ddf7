from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medical_vqa.data.prepared.splits import split_by_group
from medical_vqa.errors import ConfigError, DataError
from medical_vqa.schema.records import Example


def rows(groups: list[str]) -> list[Example]:
    return [Example(f"x/train/{n}", f"x/{g}", "a?", ("b",), f"x/{g}") for n, g in enumerate(groups)]


@given(st.lists(st.integers(0, 60), min_size=1, max_size=80), st.floats(0.05, 0.95), st.integers(0, 5))
def test_a_group_is_never_parted_and_no_row_is_lost(groups: list[int], fraction: float, seed: int) -> None:
    examples = rows([str(group) for group in groups])
    try:
        train, validation = split_by_group(examples, fraction, seed)
    except DataError:
        return
    assert not {e.group for e in train} & {e.group for e in validation}
    assert sorted(e.id for e in train + validation) == sorted(e.id for e in examples)


def test_adding_rows_moves_no_group() -> None:
    few, many = rows([str(n) for n in range(50)]), rows([str(n) for n in range(100)])
    before = {e.group for e in split_by_group(few, 0.3)[1]}
    after = {e.group for e in split_by_group(list(reversed(many)), 0.3)[1]}
    assert before == after & {e.group for e in few}


def test_the_share_is_about_right_and_another_seed_chooses_others() -> None:
    examples = rows([str(n) for n in range(1000)])
    first, second = (split_by_group(examples, 0.2, seed)[1] for seed in (0, 1))
    assert 150 < len(first) < 250
    assert first != second


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_an_impossible_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match="above 0 and below 1"):
        split_by_group(rows(["a", "b"]), fraction)


def test_a_single_group_cannot_be_parted() -> None:
    with pytest.raises(DataError, match="1 groups of images cannot be split"):
        split_by_group(rows(["a", "a"]), 0.5)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_each_part_of_a_few_groups_has_one_at_least(fraction: float, seed: int) -> None:
    train, validation = split_by_group(rows(["a", "b", "c"]), fraction, seed)
    assert train
    assert validation
