"""The same call on many items by several threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from medical_vqa.runtime.threads import in_threads


def test_results_come_in_the_order_of_the_items() -> None:
    later = threading.Event()

    def call(number: int) -> int:
        if number == 0:
            assert later.wait(60)  # the first ends after the second
        else:
            later.set()
        return number * 2

    assert list(in_threads(call, range(100), threads=2)) == [number * 2 for number in range(100)]


def test_few_items_are_read_before_their_results_are_used() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            read.append(number)
            yield number

    results = in_threads(str, items(), threads=2)
    assert next(results) == "0"
    assert len(read) < 100
    results.close()
    assert len(read) < 100


def test_an_exception_comes_in_place_of_the_result() -> None:
    results = in_threads(lambda number: 1 // (number - 2), range(5), threads=2)
    assert [next(results), next(results)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
