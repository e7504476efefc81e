"""The division of steps into passes over tiles."""

from typing import NamedTuple

import numpy as np
import pytest
from arrays import Arrays
from numpy.typing import NDArray

from simulators.circuit.gates import ANY, GATES
from simulators.circuit.ir import Circuit
from simulators.statevector.backend.gate_list import plan_gate_list
from simulators.statevector.gradient import reverse_kernel as kernel


class Passes(NamedTuple):
    starts: list[int]
    tiles: list[int]
    placed: NDArray[np.uint64]


def planned(circuit: Circuit) -> Passes:
    steps = plan_gate_list(circuit, 0, circuit.ops.size, 0, 0).steps
    count, room = len(steps), min(kernel.TILE_QUBITS, circuit.num_qubits)
    scratch, starts = np.empty(count + 1, np.int64), np.empty(count + 1, np.int64)
    tiles, placed = np.empty((count, 1), np.uint64), np.empty((count, 7), np.uint64)
    low = (1 << kernel.LOW_QUBITS) - 1
    passes = kernel.arrange(steps, circuit.num_qubits, room, low, scratch, starts, tiles, placed)
    return Passes(starts[: passes + 1].tolist(), tiles[:passes, 0].tolist(), placed)


def crowded(n: int, gates: int, seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    arrays = Arrays(n, 0)
    for name in rng.choice(sorted(GATES), gates):
        gate = GATES[str(name)]
        count = int(rng.integers(1, 6)) if gate.qubits == ANY else gate.qubits
        arrays.add(gate.name, rng.permutation(n)[:count].tolist(), (), [0.1] * gate.params)
    return arrays


@pytest.mark.parametrize("n", [1, 6, 13, 14, 20, 33])
def test_each_step_is_planned_once_within_its_tile(n: int) -> None:
    circuit = crowded(max(n, 6), 300, n).circuit()
    passes = planned(circuit)
    assert sorted(passes.placed[:, kernel.STEP].tolist()) == list(range(len(passes.placed)))
    assert passes.starts == sorted(set(passes.starts))
    assert passes.starts[-1] == len(passes.placed)
    smallest = min(kernel.TILE_QUBITS, circuit.num_qubits)
    low = (1 << min(kernel.LOW_QUBITS, smallest)) - 1
    for tile in passes.tiles:
        assert tile.bit_count() == smallest
        assert tile & low == low
        assert tile < 1 << circuit.num_qubits
    for row in passes.placed.tolist():
        assert row[kernel.MASK] < 1 << smallest
        assert row[kernel.ZERO] & row[kernel.MASK] == row[kernel.ZERO]
        assert row[kernel.ONE] & row[kernel.MASK] == row[kernel.ONE]
        assert row[kernel.OUTER] & row[kernel.OUTER + 1] == row[kernel.OUTER + 1]


def test_phases_need_no_sweeps_of_their_own() -> None:
    arrays = Arrays(20, 0)
    for q in range(20):
        arrays.add("h", [q])
        for other in range(q + 1, 20):
            arrays.add("cp", [other, q], (), [0.1])
    circuit = arrays.circuit()
    assert len(planned(circuit).tiles) == 2


def test_circuit_without_gates_has_no_sweeps() -> None:
    circuit = Arrays(20, 0).add("barrier", range(20)).add("id", [3]).circuit()
    passes = planned(circuit)
    assert (len(passes.placed), len(passes.tiles)) == (0, 0)
