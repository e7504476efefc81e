"""Time spent on kernels is counted, and left out of the clock that runs are measured with."""

from __future__ import annotations

import time

from simulators.compiler import kernel
from simulators.compiler.kernel_time import booked, busy_ns, spent_ns, working_ns

WORK_NS = 5_000_000


def test_compile_time_is_counted_and_excluded_from_working_clock() -> None:
    spent, begin, working = spent_ns(), time.perf_counter_ns(), working_ns()

    @kernel.kernel(kernel.INT, returns=kernel.INT, group="small")
    def added(number):  # type: ignore[no-untyped-def]
        return number + 1

    assert spent_ns() == spent  # nothing is compiled before it is needed
    added.load()
    took = time.perf_counter_ns() - begin
    booked_ns = spent_ns() - spent
    assert added(1) == 2
    assert 0 < booked_ns <= took
    assert working_ns() - working <= time.perf_counter_ns() - begin - booked_ns


def test_nested_booked_blocks_are_counted_once() -> None:
    begin, spent = time.perf_counter_ns(), spent_ns()
    with booked(), booked():
        while time.perf_counter_ns() - begin < WORK_NS:  # booked twice, it is more than passes
            pass
    assert spent_ns() - spent <= time.perf_counter_ns() - begin


def test_time_of_kernel_that_is_being_loaded_is_known_meanwhile() -> None:
    assert busy_ns() == 0
    with booked():
        first = busy_ns()
        with booked():
            assert busy_ns() >= first
        assert busy_ns() > 0
    assert busy_ns() == 0
