"""Circuits of which much can be left out, and what is found of them where nothing is."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from arrays import Arrays
from engine_runs import probabilities

from simulators.circuit import ir
from simulators.circuit.gates import ANY, GATES
from simulators.circuit.ir import Circuit
from simulators.circuit.passes import components
from simulators.engine import BindingResult, PauliSum, Request, RunControl, RunOptions, ThreadPool
from simulators.execution.requests import BindingRun
from simulators.statevector.backend.local import LocalBackend
from simulators.statevector.execute import ComponentRun
from simulators.statevector.plan import program_cache

_DIAGONAL = ["rz", "cz", "cp", "rzz", "t", "ccz"]
_PERMUTING = ["x", "cx", "ccx", "swap", "cy", "iswap", "cswap", "rccx", "dcx"]


def sparse(n: int, operations: int, seed: int, *, dynamic: bool = False) -> Circuit:
    """Few gates for each qubit, half of them phases and permutations; some qubits are measured, on
    the way too, or reset. `dynamic`: some gates are under conditions, in loops too."""
    rng = np.random.default_rng(seed)
    clbits = int(rng.integers(1, 11))
    arrays = Arrays(n, clbits)
    entries = [_DIAGONAL, _PERMUTING, sorted(GATES)]
    for q in rng.permutation(n)[: n - 3].tolist():
        arrays.add("ry", [q], (), [float(rng.uniform(-3, 3))])
    inside = written = 0
    for _ in range(operations):
        kind = rng.random()
        qubit = int(rng.integers(n))
        if kind < 0.05:
            arrays.add("reset", [qubit])
        elif kind < 0.13:
            written = int(rng.integers(clbits))
            arrays.add("measure", [qubit], [written])
        elif kind < 0.16:
            arrays.add("barrier", list(range(n)))
        elif dynamic and kind < 0.3 and inside <= 0:
            if kind < 0.19:
                arrays.repeat(2)
            else:
                arrays.begin((ir.CLBIT, written, 0))
            inside = int(rng.integers(1, 4))
            continue
        else:
            _gate(arrays, rng, entries[int(rng.integers(3))])
        inside -= 1
        if inside == 0:
            arrays.add("end")
    if inside > 0:
        arrays.add("end")
    for q in rng.permutation(n)[: int(rng.integers(1, n))].tolist():
        arrays.add("measure", [q], [int(rng.integers(clbits))])
    return arrays.circuit()


def _gate(arrays: Arrays, rng: np.random.Generator, names: list[str]) -> None:
    if rng.random() < 0.05:
        width = int(rng.integers(1, 4))
        matrix = np.linalg.qr(rng.normal(size=(1 << width, 1 << width, 2)) @ [1, 1j])[0]
        arrays.unitary(matrix, rng.permutation(arrays.num_qubits)[:width].tolist())
        return
    gate = GATES[str(rng.choice(names))]
    count = int(rng.integers(1, 4)) if gate.qubits == ANY else gate.qubits
    near = int(rng.integers(arrays.num_qubits)) + rng.permutation(5)[:count]
    angles = rng.uniform(-3, 3, gate.params).tolist()
    arrays.add(gate.name, (near % arrays.num_qubits).tolist(), (), angles)


def strings(circuit: Circuit, many: int, seed: int) -> tuple[PauliSum, ...]:
    """Pauli sums; X and Y on qubits that no measurement touches."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(circuit.table.rows[circuit.ops, 1])
    measured = {
        int(circuit.qubits[end - 1])
        for end, op in zip(ends.tolist(), circuit.ops.tolist(), strict=True)
        if circuit.table.names[op] == "measure"
    }
    labels = []
    for _ in range(many):
        letters = ["I"] * circuit.num_qubits
        for q in rng.permutation(circuit.num_qubits)[: int(rng.integers(0, 4))].tolist():
            letters[-1 - q] = "Z" if q in measured else str(rng.choice(list("XYZ")))
        labels.append("".join(letters))
    return (PauliSum(tuple(labels), rng.normal(size=many)),)


def untouched(circuit: Circuit, request: Request) -> BindingResult:
    """All of the circuit, run as it is."""
    control, options = RunControl(), RunOptions()
    with ThreadPool(1, control) as thread_pool:
        states = LocalBackend(thread_pool, control)
        key = (request.seed, request.binding)
        run = BindingRun(circuit, circuit.params, request, key, options, control)
        return ComponentRun(states, program_cache(), run).result()


def assert_same_odds(one: BindingResult, two: BindingResult) -> None:
    left, right = probabilities(one), probabilities(two)
    for key in left.keys() | right.keys():
        assert abs(left.get(key, 0.0) - right.get(key, 0.0)) < 1e-12


@contextmanager
def narrow_parts(most: int) -> Iterator[None]:
    """Qubits share a part if it has no more: circuits fall into many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "SMALL_QUBITS", most)
        yield


def two_rings(n: int) -> Arrays:
    """Two times n qubits in turn, which nothing connects: all measured."""
    arrays = Arrays(2 * n, 2 * n)
    for q in range(2 * n):
        arrays.add("ry", [q], (), [0.3 + 0.2 * q])
    for q in range(2 * n):
        arrays.add("cx", [q, (q + 2) % (2 * n)])
        arrays.add("ry", [q], (), [1.1])
    for q in range(2 * n):
        arrays.add("measure", [q], [2 * n - 1 - q])
    return arrays


def ladder(n: int, measured: list[int]) -> Circuit:
    """Layers of turns and of neighbours' phases, so that a bit depends on some near ones."""
    arrays = Arrays(n, len(measured))
    for layer in range(3):
        for q in range(n):
            arrays.add("rx", [q], (), [0.3 + q + layer])
        for q in range(n - 1):
            arrays.add("cz", [q, q + 1])
    for k, q in enumerate(measured):
        arrays.add("measure", [q], [k])
    return arrays.circuit()
