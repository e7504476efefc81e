"""How runs over ranks end that cannot go on, and what is left of them; see `among_ranks`."""

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from arrays import Arrays, measured
from both_ways import (
    DOUBLE,
    SINGLE,
    agree,
    alike,
    alone,
    chain,
    crowded,
    equal,
    histories,
    raised,
    width,
)

from simulators import errors
from simulators.catalog.costs import SHARE_QUBITS, ranks_used
from simulators.circuit.ir import bell
from simulators.engine import Request, RunControl, RunOptions
from simulators.simulate import counts_of, simulate
from simulators.statevector.engine import StatevectorEngine


def case_stop_on_one_rank_stops_all(comm: Any) -> None:
    n = width(comm)
    circuit = crowded(22, 20_000, 1, 1).add("measure", [0], [0]).circuit()
    for who in {0, comm.size - 1}:
        control = RunControl()
        timer = threading.Timer(0.3, control.stop)
        if comm.rank == who:
            timer.start()
        assert raised(comm, circuit, errors.Stopped, control=control) == "the run was stopped"
        if comm.rank == who:
            timer.join()
    control = RunControl()
    if comm.rank == comm.size - 1:
        control.stop()
    assert raised(comm, histories(n, 3), errors.Stopped, control=control)


@contextmanager
def little_memory(much: int) -> Iterator[None]:
    """No more than so many bytes beside what there is."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + much, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def case_out_of_memory_on_one_rank_is_raised_on_all(comm: Any) -> None:
    n = 24 + comm.size.bit_length() - 1  # 256 MiB of each, which nobody touches
    circuit = chain(n)
    if comm.rank == comm.size - 1:
        with little_memory(64 * 2**20):
            text = raised(comm, circuit, errors.OutOfMemory)
    else:
        text = raised(comm, circuit, errors.OutOfMemory)
    assert f"{n} qubits" in text
    equal(comm, measured(crowded(width(comm), 5, 1, width(comm))), Request(10, 1))


def case_state_larger_than_memory_is_refused_on_all_ranks(comm: Any) -> None:
    assert "39 qubits" in raised(comm, chain(39), errors.OutOfMemory)


def case_exception_on_one_rank_is_raised_on_all(comm: Any) -> None:
    from simulators.statevector.backend.local import LocalBackend

    block_sums = LocalBackend.block_sums
    calls = []

    def fails(self: LocalBackend, *given: Any, **named: Any) -> Any:
        calls.append(0)
        if len(calls) == 3:
            raise RuntimeError("a bit fell over")
        return block_sums(self, *given, **named)

    if comm.rank == comm.size - 1:
        LocalBackend.block_sums = fails  # type: ignore[method-assign]
    try:
        text = raised(comm, histories(width(comm), 4), errors.EngineError)
    finally:
        LocalBackend.block_sums = block_sums  # type: ignore[method-assign]
    assert text == f"rank {comm.size - 1} failed: RuntimeError: a bit fell over"


def case_errors_common_to_all_ranks_are_raised_on_all(comm: Any) -> None:
    n = width(comm)
    options = RunOptions(max_branches=3)
    circuit = histories(n, 4)
    text = raised(comm, circuit, errors.TooManyBranches, 0, ("probabilities",), options=options)
    assert "3 distinct states" in text
    assert "100" in raised(comm, circuit, errors.TooManySteps, options=RunOptions(max_steps=100))
    assert "0 shots" in raised(comm, circuit, errors.Unsupported, shots=0)


def case_surplus_ranks_stay_unused(comm: Any) -> None:
    """Fewer ranks than there are, down to the first one alone."""
    for n in (2, SHARE_QUBITS, SHARE_QUBITS + 2):
        used = ranks_used(n, comm.size)
        result = equal(
            comm, measured(crowded(n, 20, n, n) if n > 5 else Arrays(n, n)), Request(9, 1)
        )
        text = f"{used} of {comm.size} ranks" if used < comm.size else f"{used} ranks"
        assert agree(comm, result is None or result.remark == text)
    text = raised(comm, bell(), errors.Unsupported, shots=0)
    assert "0 shots" in text


def case_engine_instance_keeps_no_state_between_runs(comm: Any) -> None:
    n = width(comm)
    engine = StatevectorEngine(comm=comm)
    engine.warm_up()
    for circuit, options in (
        (measured(crowded(n, 30, 1, n)), DOUBLE),
        (bell(), DOUBLE),
        (measured(crowded(n + 1, 30, 1, n + 1)), SINGLE),
        (measured(crowded(n, 30, 1, n)), DOUBLE),
    ):
        plan = engine.plan(circuit, None, options)
        result = engine.run(plan, circuit, Request(50, 2), options, RunControl())
        same = result is None or alike(result, alone(circuit, Request(50, 2), options))
        assert agree(comm, same)
    engine.close()


def case_simulate_accepts_communicator_for_engines_over_ranks_only(comm: Any) -> None:
    n = width(comm)
    circuit = measured(crowded(n, 20, 2, n))
    result = simulate(circuit, comm=comm, shots=100, seed=5)
    outcome = simulate(circuit, shots=100, seed=5)
    same = (result is None) == (comm.rank > 0)
    if result is not None:
        same = same and counts_of(result.row(0)) == counts_of(outcome.row(0))
    assert agree(comm, same)
    with pytest.raises(errors.Unsupported, match=f"{comm.size} were given") as caught:
        simulate(bell(), comm=comm, engine="densitymatrix")
    assert "statevector, mps" in caught.value.hint
