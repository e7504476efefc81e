"""Counts in one call: the same bits as a run, or none at all."""

import numpy as np
import pytest
from arrays import Arrays
from engine_runs import run
from hypothesis import given, settings
from random_circuits import unitary_circuits

from simulators.catalog import COUNTS_QUBITS
from simulators.circuit.ir import Circuit
from simulators.compiler import simd
from simulators.engine import FastCounts, Request, RunControl
from simulators.registry import create
from simulators.statevector.engine import StatevectorEngine
from simulators.statevector.small.batch import Batch
from simulators.statevector.small.counts import CACHED_QUBITS
from simulators.statevector.small.merged_evolution import is_merged

ENGINE = StatevectorEngine()
SEED, BINDING, SHOTS = 2**64 - 3, 7, 333


def measured(gates: Circuit) -> Circuit:
    """With all qubits read, in falling order."""
    arrays = Arrays(gates.num_qubits, gates.num_qubits)
    qubits, params = iter(gates.qubits.tolist()), iter(gates.params.tolist())
    for op in gates.ops.tolist():
        _, width, _, number = gates.table.rows[op].tolist()
        wires = [next(qubits) for _ in range(width)]
        arrays.add(gates.table.names[op], wires, (), [next(params) for _ in range(number)])
    for qubit in range(gates.num_qubits):
        arrays.add("measure", [qubit], [gates.num_qubits - 1 - qubit])
    return arrays.circuit()


def test_fast_counts_equal_counts_of_run() -> None:
    @settings(derandomize=True, deadline=None)
    @given(gates=unitary_circuits(6, 10))
    def other(gates: Circuit) -> None:
        circuit = measured(gates)
        result = ENGINE.fast_counts(circuit, SHOTS, SEED, BINDING, RunControl())
        assert result == run(ENGINE, circuit, Request(SHOTS, SEED, binding=BINDING))

    other()


def test_halves_of_a_large_state_have_the_bits_of_eight_states_side_by_side() -> None:
    n = CACHED_QUBITS + 1
    arrays = Arrays(n, n)
    for layer in range(2):
        for q in (layer, 4 + layer, n - 2 + layer):
            arrays.add("ry", [q], (), [0.3 + q + layer]).add("rz", [q], (), [0.7 * q - layer])
        for q in (layer, 5 - layer):
            arrays.add("cx", [q, (q + 5) % n])
        arrays.add("mcx", [*range(1, n), 0])
    for q in range(n):
        arrays.add("measure", [q], [q])
    circuit = arrays.circuit()
    assert not is_merged(n, circuit.ops.size)
    result = ENGINE.fast_counts(circuit, 50_000, SEED, BINDING, RunControl())
    request = Request(50_000, SEED, binding=BINDING)
    assert result == Batch().run(circuit, request, RunControl())


@pytest.mark.parametrize(
    ("cpu", "features", "size"),
    [
        ("rocketlake", "+avx2,+avx512f,+sse", 64), ("x86-64-v4", "-prefer-256-bit", 64),
        ("znver3", "+avx2,-avx512f", 32), ("x86-64-v3", "+avx2", 32),
        ("x86-64", "", 16), ("neoverse-n1", "+neon", 16),
    ],
)  # fmt: skip
def test_blocks_are_made_side_by_side_where_registers_are_large(
    cpu: str, features: str, size: int
) -> None:
    assert simd.bytes_of_registers(cpu, features) == size


def test_random_numbers_of_eight_blocks_are_those_of_numpy() -> None:
    for shots in (28, 32, 95, 4 * 64 + 33):
        for n in (3, 9):  # one table of outcomes, and one of groups
            arrays = Arrays(n, n)
            for q in range(n):
                arrays.add("h", [q]).add("measure", [q], [q])
            result = ENGINE.fast_counts(arrays.circuit(), shots, SEED, BINDING, RunControl())
            words = np.random.Philox(key=np.array([SEED, BINDING], np.uint64)).random_raw(shots)
            expected = np.bincount((words >> np.uint64(64 - n)).astype(np.int64), minlength=1 << n)
            assert result is not None
            kind = "u1" if n < 9 else "<u2"
            assert (
                np.frombuffer(result.outcomes, kind).tolist() == np.flatnonzero(expected).tolist()
            )
            assert np.frombuffer(result.counts, "<u4").tolist() == expected[expected > 0].tolist()


def _bell() -> Arrays:
    return Arrays(2, 2).add("h", [0]).add("cx", [0, 1])


def _free() -> Arrays:
    arrays = Arrays(1, 1).add("ry", [0], (), [0.0])
    arrays.free(0)
    return arrays.add("measure", [0], [0])


def _wide() -> Arrays:
    return Arrays(13, 13).add("h", [12]).add("measure", [12], [0])


def _branching() -> Arrays:
    return Arrays(1, 1).add("h", [0]).add("measure", [0], [0]).add("h", [0])


def _read() -> Arrays:
    return _bell().add("measure", [0], [0])


@pytest.mark.parametrize(
    ("arrays", "shots"),
    [(_free(), 10), (_wide(), 10), (_branching(), 10), (_bell(), 10), (_read(), 0)],
    ids=["free parameters", "wide", "branching", "measures nothing", "no shots"],
)
def test_fast_counts_are_unavailable_where_run_is_needed(arrays: Arrays, shots: int) -> None:
    assert ENGINE.fast_counts(arrays.circuit(), shots, 1, 0, RunControl()) is None


def test_fast_counts_are_unavailable_after_stop() -> None:
    control = RunControl()
    control.stop()
    assert ENGINE.fast_counts(_read().circuit(), 10, 1, 0, control) is None


def test_statevector_engine_has_fast_counts_and_fault_engine_has_not() -> None:
    assert isinstance(ENGINE, FastCounts)
    assert not isinstance(create("fault"), FastCounts)


@pytest.mark.parametrize("num_qubits", [13, COUNTS_QUBITS])
@pytest.mark.parametrize(("depth", "num_clbits"), [(2, 14), (30, 14), (30, 6), (2, 64), (30, 64)])
def test_counts_beyond_small_states_equal_those_of_sweeps(
    monkeypatch: pytest.MonkeyPatch, num_qubits: int, depth: int, num_clbits: int
) -> None:
    """Few gates and many, which are merged; clbits in any order, some qubits in two of them."""
    rng = np.random.default_rng([num_qubits, depth, num_clbits])
    arrays = Arrays(num_qubits, num_clbits)
    for _ in range(depth):
        order = rng.permutation(num_qubits).tolist()
        for qubit in order:
            arrays.add("ry", [qubit], (), [rng.normal()]).add("rz", [qubit], (), [rng.normal()])
        for k in range(num_qubits - 1):
            arrays.add("cz" if k % 4 else "cx", order[k : k + 2])
    clbits = rng.permutation(num_clbits)[: num_qubits + 1].tolist()
    for k, clbit in enumerate(clbits):
        arrays.add("measure", [order[k % num_qubits]], [clbit])
    circuit, request = arrays.circuit(), Request(5_000, 3)
    in_sweeps = run(StatevectorEngine(small=False), circuit, request)
    monkeypatch.setattr("simulators.statevector.engine._in_states", None)
    assert run(ENGINE, circuit, request) == in_sweeps
