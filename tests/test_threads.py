"""The same call on many items by several threads."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from medical_vqa.runtime.threads import DaemonThreads, in_threads

PATIENCE = 60.0  # longest wait in seconds for an event


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


def test_a_pool_makes_as_many_calls_at_once_as_it_has_threads_and_returns_results_and_exceptions() -> None:
    pool = DaemonThreads(2, "test")
    both = threading.Barrier(2)
    waiting = [pool.submit(both.wait, PATIENCE) for _ in range(2)]
    assert sorted(future.result(PATIENCE) for future in waiting) == [0, 1]
    assert [future.result(PATIENCE) for future in [pool.submit(int, "12", base=number) for number in (3, 8)]] == [5, 10]
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result(PATIENCE)
    names = {pool.submit(lambda: threading.current_thread().name).result(PATIENCE) for _ in range(20)}
    assert names <= {"test-0", "test-1"}
    pool.shutdown()


def test_a_pool_that_is_shut_down_finishes_what_it_accepted_and_accepts_no_more() -> None:
    pool = DaemonThreads(2, "test")
    futures = [pool.submit(str, number) for number in range(50)]
    pool.shutdown()
    assert [future.result(0) for future in futures] == [str(number) for number in range(50)]
    with pytest.raises(RuntimeError, match="expected an open pool"):
        pool.submit(str, 1)


def test_calls_that_have_not_begun_can_be_canceled_with_the_pool() -> None:
    pool = DaemonThreads(1, "test")
    began, release = threading.Event(), threading.Event()

    def call() -> bool:
        began.set()
        return release.wait(PATIENCE)

    running, waiting = pool.submit(call), pool.submit(call)
    assert began.wait(PATIENCE)
    pool.shutdown(wait=False, cancel_futures=True)
    release.set()
    assert running.result(PATIENCE) and waiting.cancelled()
    pool.shutdown()


def test_the_threads_of_a_pool_that_is_forgotten_end() -> None:
    pool = DaemonThreads(2, "test")
    both = threading.Barrier(3)
    for _ in range(2):
        pool.submit(both.wait, PATIENCE)
    both.wait(PATIENCE)
    threads = pool._threads
    del pool
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)


def test_an_interpreter_ends_in_the_middle_of_a_call_of_a_pool_that_nobody_has_shut_down() -> None:
    script = (
        "import threading\n"
        "from medical_vqa.runtime.threads import DaemonThreads\n"
        "pool = DaemonThreads(1, 'test')\n"
        "began = threading.Event()\n"
        "pool.submit(lambda: (began.set(), threading.Event().wait()))\n"
        "began.wait()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE)
