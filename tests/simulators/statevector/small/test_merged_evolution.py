"""Merged gates: the same results as gates one by one, and the same bits for each row of a sweep."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from arrays import Arrays

from simulators.circuit.gates import ANY, GATES
from simulators.circuit.ir import Circuit
from simulators.control import RunControl
from simulators.engine import PauliSum, Request, RunOptions
from simulators.errors import Stopped
from simulators.results import BindingResult
from simulators.statevector.engine import StatevectorEngine
from simulators.statevector.small.merge_rules import MIN_OPERATIONS, MIN_QUBITS, is_merged

MERGED, ONE_BY_ONE = StatevectorEngine(), StatevectorEngine(small=False)
SHOTS, SEED, BINDING = 500, 11, 3
HERON, IONS = ("rz", "sx", "x", "cz"), ("r", "rz", "rzz", "rxx")
EAGLE, ANY_GATE = ("rz", "sx", "x", "ecr"), tuple(GATES)
REAL, DIAGONAL = ("ry", "h", "x", "cx", "cz"), ("rz", "cz", "cp", "rzz", "h", "t")


def circuit(
    names: tuple[str, ...], num_qubits: int, seed: int, *, free: bool = False, measured: bool = True
) -> Circuit:
    """Random gates of these names, enough to be merged; pairs are often the same or neighbours."""
    random = np.random.default_rng(seed)
    arrays = Arrays(num_qubits, num_qubits)
    while len(arrays.ops) < 2 * MIN_OPERATIONS:
        gate = GATES[names[int(random.integers(len(names)))]]
        count = gate.qubits if gate.qubits != ANY else int(random.integers(1, 5))
        first = int(random.integers(num_qubits - count + 1))
        wires = (first + random.permutation(count)).tolist()
        if random.random() < 0.3:
            wires = random.permutation(num_qubits)[:count].tolist()
        for _ in range(int(random.integers(1, 4))):
            angles = random.uniform(-3, 3, gate.params).tolist()
            arrays.add(gate.name, wires, (), angles)
            if free and gate.params and random.random() < 0.5:
                arrays.free(int(random.integers(4)))
        if random.random() < 0.02:
            arrays.add("barrier", wires)
    for qubit in range(num_qubits if measured else 0):
        arrays.add("measure", [qubit], [qubit])
    result = arrays.circuit()
    assert is_merged(num_qubits, result.ops.size)
    return result


def run(engine: StatevectorEngine, given: Circuit, request: Request) -> list[BindingResult]:
    """Results of all rows, without remarks, which concern the path taken."""
    options = RunOptions()
    plan = engine.plan(given, None, options)
    result = engine.run(plan, given, request, options, RunControl())
    return [msgspec.structs.replace(result.row(k), remark="") for k in range(result.count)]


@pytest.mark.parametrize(
    "names", [HERON, EAGLE, IONS, REAL, DIAGONAL, ANY_GATE], ids=lambda names: "-".join(names[:4])
)
@pytest.mark.parametrize("num_qubits", [MIN_QUBITS, 10, 12])
def test_counts_equal_those_of_gates_one_by_one(names: tuple[str, ...], num_qubits: int) -> None:
    for seed in range(4):
        result = circuit(names, num_qubits, seed)
        request = Request(SHOTS, SEED + seed, binding=BINDING)
        expected = run(ONE_BY_ONE, result, request)
        assert run(MERGED, result, request) == expected
        fast = MERGED.fast_counts(result, SHOTS, SEED + seed, BINDING, RunControl())
        assert fast is not None
        assert msgspec.structs.replace(fast.row(0), remark="") == expected[0]


@pytest.mark.parametrize("names", [HERON, EAGLE, IONS, ANY_GATE])
def test_exact_outputs_equal_those_of_gates_one_by_one(names: tuple[str, ...]) -> None:
    n = MIN_QUBITS
    labels = ("Z" * n, "XY" + "I" * (n - 2), "I" * (n - 1) + "Y", "ZX" * (n // 2))
    sums = (PauliSum(labels, np.array([0.5, -2.0, 1.0, 3.0])),)
    request = Request(0, SEED, ("expectation", "probabilities"), sums)
    for seed in range(3):
        result = circuit(names, n, seed, measured=False)
        ((found,), (expected,)) = (run(engine, result, request) for engine in (MERGED, ONE_BY_ONE))
        np.testing.assert_allclose(found.expectations, expected.expectations, atol=1e-12)
        assert found.probability_outcomes == expected.probability_outcomes
        np.testing.assert_allclose(
            np.frombuffer(found.probabilities), np.frombuffer(expected.probabilities), atol=1e-13
        )


@pytest.mark.parametrize("names", [HERON, IONS, ANY_GATE])
@pytest.mark.parametrize("outputs", [("counts",), ("counts", "probabilities")])
def test_row_of_sweep_has_the_bits_of_the_row_alone(
    names: tuple[str, ...], outputs: tuple[str, ...]
) -> None:
    result = circuit(names, 9, 5, free=True)
    rows = np.random.default_rng(1).normal(size=(11, result.num_slots))
    together = run(MERGED, result, Request(SHOTS, SEED, outputs, (), rows, BINDING))
    for k in range(len(rows)):
        request = Request(SHOTS, SEED, outputs, (), rows[k : k + 1], BINDING + k)
        assert run(MERGED, result, request) == [together[k]]
        bound = run(
            ONE_BY_ONE, result, Request(SHOTS, SEED, ("counts",), (), rows[k : k + 1], BINDING + k)
        )
        assert bound[0].outcomes == together[k].outcomes
        assert bound[0].counts == together[k].counts


def test_runs_beyond_the_table_of_costs_are_merged() -> None:
    arrays = Arrays(MIN_QUBITS, MIN_QUBITS)
    for k in range(5_000):
        arrays.add("ry", [k % MIN_QUBITS], (), [0.1 * k])
        arrays.add("cz", [k % MIN_QUBITS, (k + 1 + k % 3) % MIN_QUBITS])
    for qubit in range(MIN_QUBITS):
        arrays.add("measure", [qubit], [qubit])
    result, request = arrays.circuit(), Request(SHOTS, SEED)
    assert run(MERGED, result, request) == run(ONE_BY_ONE, result, request)


def test_stopped_evolution_raises() -> None:
    result, options, control = circuit(HERON, MIN_QUBITS, 1), RunOptions(), RunControl()
    control.stop()
    plan = MERGED.plan(result, None, options)
    with pytest.raises(Stopped):
        MERGED.run(plan, result, Request(SHOTS, SEED), options, control)
    assert MERGED.fast_counts(result, SHOTS, SEED, 0, control) is None


def test_circuit_with_mid_circuit_operations_takes_the_general_path() -> None:
    arrays = Arrays(MIN_QUBITS, MIN_QUBITS)
    for k in range(MIN_OPERATIONS):
        arrays.add("ry", [k % MIN_QUBITS], (), [0.1 * k])
    arrays.add("measure", [0], [0]).add("h", [0]).add("measure", [0], [1])
    result, request = arrays.circuit(), Request(SHOTS, SEED)
    assert MERGED.fast_counts(result, SHOTS, SEED, 0, RunControl()) is None
    assert run(MERGED, result, request) == run(ONE_BY_ONE, result, request)
