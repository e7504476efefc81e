"""Inserts at random, and circuits with them written in as gates."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from arrays import Arrays
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit
from simulators.engine import RunControl, ThreadPool
from simulators.execution.packing import gather
from simulators.simulate import simulate
from simulators.statevector.backend import protocol
from simulators.statevector.backend.local import LocalBackend
from simulators.statevector.state import State
from simulators.statevector.trajectories.walks import TrajectorySampler
from simulators.trajectories.noise_table import (
    COLUMNS,
    PAULI,
    ErrorPatterns,
    NoiseTable,
    SortedPatterns,
    operators,
)
from simulators.trajectories.pattern_order import sort_places
from simulators.trajectories.pattern_sampling import group_by_shot

Matrix = NDArray[np.complex128]


def unitary(size: int, random: np.random.Generator) -> Matrix:
    """One of this size, at random."""
    raw = random.normal(size=(size, size)) + 1j * random.normal(size=(size, size))
    return np.linalg.qr(raw)[0]


def channel(size: int, many: int, random: np.random.Generator) -> list[Matrix]:
    """So many Kraus operators: a unitary's columns, cut up."""
    raw = unitary(size * many, random)[:, :size]
    return [raw[size * k : size * (k + 1)] for k in range(many)]


def damping(gamma: float) -> list[Matrix]:
    """A qubit that decays."""
    return [np.diag([1, (1 - gamma) ** 0.5]).astype(complex), np.array([[0, gamma**0.5], [0, 0]])]


def made(
    circuit: Circuit, count: int, random: np.random.Generator, *, drawn: bool
) -> tuple[NoiseTable, list[list[Matrix]]]:
    """Inserts anywhere, of every kind, and their sets."""
    sets = [[unitary(2, random)], [unitary(4, random)], [np.array([[0, 1], [1, 0]], complex)]]
    if drawn:
        sets += [damping(0.4), channel(2, 3, random), channel(4, 5, random)]
    n = circuit.num_qubits
    rows = np.zeros((count, COLUMNS), np.int64)
    for row in rows:
        one, two = random.choice(max(n, 2), 2, replace=False)
        which = int(random.integers(-2, len(sets)))
        after = int(random.integers(-1, circuit.ops.size))
        if which < 0 or (n == 1 and len(sets[which][0]) == 4):
            x, z = random.integers(0, 1 << n, 2).tolist()
            row[:] = after, PAULI, x or (0 if z else 1), z, 0, 0
        else:
            two = two if len(sets[which][0]) == 4 else -1
            row[:] = after, which, 0, 0, min(one, n - 1), two
    return NoiseTable(rows, operators(sets)), sets


def patterns(count: int, instances: int, mean: float, random: np.random.Generator) -> ErrorPatterns:
    """So many instances, each insert in one with the same odds; some are alike."""
    lists = [np.flatnonzero(random.random(count) < mean / count) for _ in range(instances)]
    lists = [random.permutation(lists[int(random.integers(len(lists)))]) for _ in lists]
    ends = np.cumsum([0, *map(len, lists)])
    return ErrorPatterns(np.concatenate([np.zeros(0, np.int64), *lists]).astype(np.int64), ends)


def sort(patterns: ErrorPatterns, places: NDArray[np.int64]) -> SortedPatterns:
    """Inserts in any order, sorted as the patterns that are drawn."""
    shots = np.repeat(np.arange(patterns.count), np.diff(patterns.ends))
    ends, entries = np.empty_like(patterns.ends), np.empty_like(patterns.entries)
    group_by_shot(shots, patterns.entries, shots.size, 0, places, ends, entries)
    return sort_places(ErrorPatterns(entries, ends), places.size)


def written(
    circuit: Circuit, inserts: NoiseTable, sets: list[list[Matrix]], members: Sequence[int]
) -> Circuit:
    """The circuit with these inserts as gates; none of them is drawn."""
    arrays = Arrays(circuit.num_qubits, circuit.num_clbits, circuit.registers)
    table: dict[int, list[int]] = {}
    for member in sorted(members):
        table.setdefault(int(inserts.table[member, 0]), []).append(member)
    q = c = p = 0
    for k in range(-1, circuit.ops.size):
        if k >= 0:
            row = int(circuit.ops[k])
            _, count, bits, params = circuit.table.rows[row].tolist()
            wires = circuit.qubits[q : q + count].tolist()
            if circuit.table.names[row] == "unitary":
                data = circuit.matrices[int(circuit.table.matrix[row])]
                arrays.unitary(np.frombuffer(data, complex).reshape(1 << count, -1), wires)
            else:
                clbits = circuit.clbits[c : c + bits].tolist()
                numbers_ = circuit.params[p : p + params].tolist()
                arrays.add(circuit.table.names[row], wires, clbits, numbers_)
            q, c, p = q + count, c + bits, p + params
        for member in table.get(k, ()):
            _, which, x, z, one, two = inserts.table[member].tolist()
            if which == PAULI:
                for qubit in range(circuit.num_qubits):
                    name = "ixzy"[(x >> qubit & 1) + 2 * (z >> qubit & 1)]
                    if name != "i":
                        arrays.add(name, [qubit])
            else:
                arrays.unitary(sets[which][0], [one] if two < 0 else [one, two])
    return arrays.circuit()


def run_alone(circuit: Circuit, key: tuple[int, int], shot: int, precision: str = "double") -> int:
    """The basis state that one shot of a circuit without measurements finds."""
    result = simulate(circuit, outputs=("statevector",), seed=key[0], precision=precision)
    assert result.statevector is not None
    control = RunControl()
    with ThreadPool(1, control) as thread_pool:
        states = LocalBackend(thread_pool, control)
        state = State(result.statevector[0].copy())
        return int(protocol.sample(states, state, protocol.ShotDraws(key, np.array([shot])))[0])


class Outcomes(NamedTuple):
    """Basis states [bindings, instances], the qubit that each clbit reads, counters of the walk."""

    indices: NDArray[np.int64]
    source: NDArray[np.int64]
    operations: int
    least: int
    states: int

    def records(self, binding: int = 0) -> NDArray[np.uint64]:
        return gather(self.indices[binding], self.source)


def run(
    sampler: TrajectorySampler, patterns: ErrorPatterns, *, seed: int, binding: int = 0,
    first: int = 0, params: Sequence[NDArray[np.float64]] | None = None, threads: int = 1,
    most_states: int = 0, control: RunControl | None = None,
) -> Outcomes:  # fmt: skip
    """Outcomes of all instances, by rows of `params`, from shot `first` and number `binding` on."""
    rows = sort(patterns, sampler.places)
    control = control or RunControl()
    with ThreadPool(threads, control) as thread_pool:
        walk = sampler.open(thread_pool, control, most_states)
        indices = []
        for k, row in enumerate([sampler.circuit.params] if params is None else params):
            walk.bind(row, (seed, binding + k))
            indices.append(walk.indices(rows, first))
    return Outcomes(np.array(indices), sampler.source, walk.operations, walk.least, walk.states)
