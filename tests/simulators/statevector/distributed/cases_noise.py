"""Noise over ranks: the counts of one process, whether ranks divide patterns among them or split
branches of states that they share; see `among_ranks`."""

from typing import Any

import numpy as np
from arrays import Arrays
from both_ways import agree, width
from noisy import program
from noisy_runs import device_noise, run, run_branched

from simulators.catalog.costs import state_bytes
from simulators.circuit import ir
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.engine import EngineResult, PauliSum, Request, RunControl, RunOptions
from simulators.simulate import counts_of
from simulators.statevector.engine import StatevectorEngine

SHOTS = 12


def _circuit(n: int, *, dynamic: bool, measured: bool = True) -> Circuit:
    random = np.random.default_rng(3)
    arrays = Arrays(n, n)
    for q in range(n):
        arrays.add("u", [q], (), random.uniform(0, 6, 3).tolist())
    for q in range(n - 1):
        arrays.add("cx", [q, q + 1])
    if dynamic:
        arrays.add("measure", [n - 1], [n - 1]).begin((ir.CLBIT, n - 1, 0))
        arrays.add("u", [0], (), [1.0, 0.3, 0.2]).add("reset", [n - 1]).add("end")
    return arrays.measure(range(n - 1 if dynamic else n * measured)).circuit()


def _over_ranks(
    comm: Any, circuit: Circuit, noise: NoiseProgram, request: Request, memory_bytes: int = 0
) -> EngineResult | None:
    engine = StatevectorEngine(comm=comm)
    options = RunOptions(memory_bytes=memory_bytes)
    plan = engine.plan(circuit, noise, options)
    try:
        return engine.run(plan, circuit, request, options, RunControl())
    finally:
        engine.close()


def case_noisy_counts_equal_single_rank(comm: Any) -> None:
    """Errors on qubits that stand in the rank's number, and Kraus operators drawn there."""
    n = width(comm)
    for dynamic in (False, True):
        circuit = _circuit(n, dynamic=dynamic)
        noise = program(device_noise(circuit, 1.9, 0.1))
        little = state_bytes(n)  # a rank has no room for states of its own
        result = _over_ranks(comm, circuit, noise, Request(SHOTS, 4), little)
        same = True
        if result is not None:
            same = counts_of(result) == counts_of(run_branched(circuit, noise, SHOTS, seed=4))
        assert agree(comm, same)


def case_ranks_divide_error_patterns(comm: Any) -> None:
    """Each with whole states; more shots than one rank alone would take."""
    circuit = _circuit(6, dynamic=False)
    noise = program(device_noise(circuit, 1.9, 0.1))
    result = _over_ranks(comm, circuit, noise, Request(2_000, 4))
    same = True
    if result is not None:
        alone = run(circuit, noise, 2_000, seed=4)
        same = (result.outcomes, result.counts) == (alone.outcomes, alone.counts)
        same = same and f"{comm.size} ranks" in result.remark
    assert agree(comm, same)


def case_noisy_expectation_values_have_standard_errors(comm: Any) -> None:
    n = width(comm)
    circuit = _circuit(n, dynamic=False, measured=False)
    noise = program(device_noise(circuit, 1.0))
    sums = (PauliSum(("Z" + "I" * (n - 1), "I" * (n - 1) + "X"), np.ones(2)),)
    result = _over_ranks(comm, circuit, noise, Request(SHOTS, 4, ("expectation",), sums))
    near = True
    if result is not None:
        value, error = np.frombuffer(result.expectations).tolist()
        near = abs(value) <= 2.0 and 0.0 < error < 1.0
    assert agree(comm, near)
