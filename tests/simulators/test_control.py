"""Control of a run, and results."""

import struct
import threading

import numpy as np
import pytest

from simulators.engine import BindingResult, EngineResult, RunControl, ThreadPool
from simulators.errors import Stopped


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("total", "grain"), [(1, 1), (10, 3), (10, 100), (1000, 1)])
def test_each_range_is_processed_exactly_once(threads: int, total: int, grain: int) -> None:
    done: list[int] = []
    with ThreadPool(threads, RunControl()) as thread_pool:
        for _ in range(3):
            thread_pool.run(lambda first, last, _: done.extend(range(first, last)), total, grain)
    assert sorted(done) == sorted(list(range(total)) * 3)


def test_threads_end_with_their_pool() -> None:
    before = threading.active_count()
    agreement = threading.Barrier(3, timeout=30)
    with ThreadPool(3, RunControl()) as thread_pool:
        thread_pool.run(lambda *_: agreement.wait(), 3, 1)  # passes only if three threads come
        assert threading.active_count() == before + 2
    assert threading.active_count() == before


@pytest.mark.parametrize("bad", [0, 7, 99])
def test_exception_in_thread_is_raised_in_caller(bad: int) -> None:
    def work(first: int, _last: int, _number: int) -> None:
        if first == bad:
            raise ZeroDivisionError

    with ThreadPool(2, RunControl()) as thread_pool, pytest.raises(ZeroDivisionError):
        thread_pool.run(work, 100, 1)


def test_stop_is_honoured_between_chunks() -> None:
    control = RunControl()
    done: list[int] = []

    def work(first: int, _last: int, _number: int) -> None:
        done.append(first)
        control.stop()

    with ThreadPool(2, control) as thread_pool, pytest.raises(Stopped):
        thread_pool.run(work, 10_000, 1)
    assert len(done) <= 2


@pytest.mark.parametrize("threads", [1, 2])
def test_stop_in_last_chunk_raises_stopped(threads: int) -> None:
    control = RunControl()
    with ThreadPool(threads, control) as thread_pool, pytest.raises(Stopped):
        thread_pool.run(lambda *_: control.stop(), threads, 1)


def test_threads_have_distinct_numbers() -> None:
    agreement = threading.Barrier(4, timeout=30)
    entries: list[int] = []

    def work(_first: int, _last: int, number: int) -> None:
        agreement.wait()
        entries.append(number)

    with ThreadPool(4, RunControl()) as thread_pool:
        thread_pool.run(work, 4, 1)
    assert sorted(entries) == [0, 1, 2, 3]


def test_pool_uses_no_more_threads_than_control_allows() -> None:
    control = RunControl()
    names: set[int] = set()
    with ThreadPool(4, control) as thread_pool:
        control.threads = 1
        thread_pool.run(lambda _first, _last, number: names.add(number), 100, 1)
        assert names == {0}
        control.threads = 3
        agreement = threading.Barrier(3, timeout=30)
        thread_pool.run(lambda *_: agreement.wait(), 3, 1)
        control.clear()
        agreement = threading.Barrier(4, timeout=30)
        thread_pool.run(lambda *_: agreement.wait(), 4, 1)


def row(outcomes: bytes, *counts: int, value: float = 0.0, remark: str = "") -> BindingResult:
    return BindingResult(
        outcome_width=1, outcomes=outcomes, counts=struct.pack(f"<{len(counts)}I", *counts),
        probability_outcomes=outcomes[:1], probability_width=1,
        probabilities=struct.pack("<d", 1.0), expectations=((value, 0.1), (-value, 0.2)),
        remark=remark,
    )  # fmt: skip


ROWS = [row(b"\0", 5, value=0.5), row(b"\0\1\3", 1, 2, 2, value=0.25), row(b"\2", 5)]


def test_joined_rows_are_split_correctly_and_one_stores_no_sizes() -> None:
    joined = EngineResult.joined(ROWS)
    assert joined.count == 3
    assert [joined.row(k) for k in range(3)] == ROWS
    assert np.frombuffer(joined.rows, np.uint32).tolist() == [1, 3, 1]
    single = EngineResult.joined(ROWS[1:2])
    assert (single.count, single.rows, single.probability_rows) == (1, b"", b"")
    assert single.row(0) == ROWS[1]


def test_statevectors_of_rows_are_joined_and_single_one_is_shared() -> None:
    states = [np.array([1, 0], np.complex64), np.array([0, 1j], np.complex64)]
    joined = EngineResult.joined([BindingResult(statevector=state) for state in states])
    assert joined.statevector is not None
    assert joined.statevector.dtype == np.complex64
    np.testing.assert_array_equal(joined.row(1).statevector, states[1])
    alone = EngineResult.joined([BindingResult(statevector=states[0])]).statevector
    assert np.shares_memory(alone, states[0])


def test_joined_result_has_largest_truncation_and_all_remarks() -> None:
    joined = EngineResult.joined(
        [
            BindingResult(truncation=1e-9, remark="2 branches"),
            BindingResult(truncation=1e-7, remark="3 branches"),
            BindingResult(remark="2 branches"),
        ]
    )
    assert (joined.truncation, joined.remark) == (1e-7, "2 branches, 3 branches")


def test_missing_row_raises_index_error() -> None:
    with pytest.raises(IndexError):
        EngineResult.joined(ROWS).row(3)
