"""Circuits of which much can be left out, and what is found of them where nothing is."""

from __future__ import annotations

import numpy as np
from arrays import Arrays

from simulators.base import BindingResult, Control, PauliSum, Request, RunOptions
from simulators.circuit import tokens as tk
from simulators.circuit.gates import ANY, GATES
from simulators.circuit.ir import Circuit
from simulators.crew import Crew
from simulators.statevector.run import Run
from simulators.statevector.schedules import Schedules
from simulators.statevector.states import LocalStates

_DIAGONAL = ["rz", "cz", "cp", "rzz", "t", "ccz"]
_PERMUTING = ["x", "cx", "ccx", "swap", "cy", "iswap", "cswap", "rccx", "dcx"]


def sparse(n: int, operations: int, seed: int, *, dynamic: bool = False) -> Circuit:
    """Few gates for each qubit, half of them phases and permutations; some qubits are measured, on
    the way too, or reset. `dynamic`: some gates are under conditions, in loops too."""
    rng = np.random.default_rng(seed)
    clbits = int(rng.integers(1, 11))
    arrays = Arrays(n, clbits)
    words = [_DIAGONAL, _PERMUTING, sorted(GATES)]
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
                arrays.begin((tk.CLBIT, written, 0))
            inside = int(rng.integers(1, 4))
            continue
        else:
            _gate(arrays, rng, words[int(rng.integers(3))])
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
    control, options = Control(), RunOptions()
    with Crew(1, control) as crew:
        states = LocalStates(crew, control)
        key = (request.seed, request.binding)
        made = Run(states, circuit, Schedules(), circuit.params, request, key, options)
        return made.result()
