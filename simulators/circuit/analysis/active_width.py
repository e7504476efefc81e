"""Active qubits of a circuit of Clifford gates and others: what the engine `near_clifford` holds.

In the picture of the beginning, where Clifford gates change operators and not the state, a circuit
is a list of Pauli rotations and Pauli measurements. Qubits are *dormant* while they are in a state
that stabilizers describe. A rotation whose string anticommutes with one of these makes a qubit
active, a measurement of a string on active qubits makes one dormant again. Amplitudes are held of
active qubits alone, in parts that nothing has joined. Paulis, as errors and under conditions,
change signs and no string (arXiv:2607.28600).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simulators.catalog.costs import ACTIVE_QUBITS
from simulators.circuit import gates
from simulators.circuit.analysis.profile import ActiveSize
from simulators.circuit.ir import Circuit, Operation, operations
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.pauli_rotations import Rotation, rotations_of

MOST_OPERATIONS = 20_000  # of a circuit whose size is computed
_MOST_PAIRS = 60  # active qubits of all parts
_MOST_TARGETS = 512  # measurements and resets that are put into another order
_STEP = 32.0  # overhead of a step, in amplitudes
_BLOCKS = frozenset({gates.IF, gates.ELSE, gates.END_BLOCK})
_PASSIVE = frozenset({gates.BARRIER, gates.DELAY, gates.DELAY_DT})
_MEASURED = Rotation(0, 1, 0.0)


def active_size(
    circuit: Circuit, params: NDArray[np.float64], noise: NoiseProgram | None = None
) -> ActiveSize | None:
    """Size of the active qubits of an admissible circuit, in the order of `measured_early`; None if
    it is too long, or has loops, `switch`, stores or gates on more than four qubits. Counted as far
    as the limit of active qubits. `noise`: Paulis, which matter for the order alone."""
    if circuit.ops.size > MOST_OPERATIONS:
        return None
    strings = _Strings(circuit.num_qubits)
    known: dict[tuple[int, tuple[float, ...]], tuple[Rotation, ...] | None] = {}
    depth = 0
    for operation in measured_early(circuit, params, noise):
        code = operation.code
        if code in (gates.MEASURE, gates.RESET):
            strings.measure(strings.image(_MEASURED, operation.qubits))
        elif code in _BLOCKS:
            depth += (code == gates.IF) - (code == gates.END_BLOCK)
        elif operation.is_gate:
            key = operation.row, operation.params
            if key not in known:
                known[key] = rotations_of(circuit, operation)
            found = known[key]
            if found is None:
                return None
            for rotation in found:
                strings.take(rotation, operation.qubits, is_certain=not depth)
            if strings.widest > ACTIVE_QUBITS or len(strings.pairs) > _MOST_PAIRS:
                return ActiveSize(max(strings.widest, _MOST_PAIRS), math.inf, strings.rotations)
        elif code not in _PASSIVE:
            return None
    return ActiveSize(strings.widest, strings.work, strings.rotations)


def measured_early(
    circuit: Circuit, params: NDArray[np.float64], noise: NoiseProgram | None = None
) -> list[Operation]:
    """Operations in an order in which qubits are measured, and reset, before gates that their
    outcome does not depend on: first those that depend on the fewest gates that are no Clifford
    gates. Noise after an operation keeps its place among those of its qubits, too. A circuit with
    conditions keeps its order."""
    all_operations = list(operations(circuit, params))
    if circuit.conditions_data:
        return all_operations
    more: dict[int, set[int]] = {}  # qubits of the noise after an operation
    for after, _, first, second in [] if noise is None else noise.locations.tolist():
        more.setdefault(after, set()).update((first, second))
    last: dict[int, int] = {}  # operation of each qubit, and of each clbit as a negative number
    before: list[set[int]] = []
    needs: dict[int, int] = {}  # of each qubit and clbit: the gates that it depends on, as bits
    targets: dict[int, int] = {}
    count = 0
    for place, operation in enumerate(all_operations):
        wires = {*operation.qubits, *(~clbit for clbit in operation.clbits)}
        if operation.code == gates.BARRIER:
            wires = set()
        wires |= more.get(place, set()) - {-1}
        before.append({last[wire] for wire in wires if wire in last})
        mask = 0
        for wire in wires:
            mask |= needs.get(wire, 0)
        if operation.is_gate and not is_clifford(circuit, operation):
            mask |= 1 << count
            count += 1
        if operation.code in (gates.MEASURE, gates.RESET):
            targets[place] = mask
        for wire in wires:
            last[wire], needs[wire] = place, mask
    if not 0 < len(targets) <= _MOST_TARGETS:
        return all_operations
    result: list[int] = []
    is_done = [False] * len(all_operations)
    done = 0
    while targets:
        target = min(targets, key=lambda place: ((targets[place] & ~done).bit_count(), place))
        done |= targets.pop(target)
        own, waiting = [], [target]
        while waiting:
            place = waiting.pop()
            if not is_done[place]:
                is_done[place] = True
                own.append(place)
                waiting += before[place]
        result += sorted(own)
    result += [place for place, ended in enumerate(is_done) if not ended]
    return [all_operations[place] for place in result]


def is_clifford(circuit: Circuit, operation: Operation) -> bool:
    """Return whether all rotations of a gate are quarter turns; False where they are not known."""
    found = rotations_of(circuit, operation)
    return found is not None and all(rotation.quarters >= 0 for rotation in found)


class _Strings:
    """Stabilizers of the dormant qubits, and a pair of anticommuting strings for each active one.
    A string is a number: bit q for X of qubit q, bit n + q for Z."""

    def __init__(self, num_qubits: int) -> None:
        self._n = num_qubits
        self._low = (1 << num_qubits) - 1
        self._x = [1 << q for q in range(num_qubits)]  # images of the letters
        self._z = [1 << num_qubits + q for q in range(num_qubits)]
        self._dormant = list(self._z)
        self.pairs: list[list[int]] = []
        self._part: list[int] = []  # of each pair
        self._parts = 0
        self.rotations = self.widest = 0
        self.work = 0.0  # amplitudes that a shot passes over

    def image(self, rotation: Rotation, qubits: tuple[int, ...]) -> int:
        result = 0
        for j, qubit in enumerate(qubits):
            if rotation.x >> j & 1:
                result ^= self._x[qubit]
            if rotation.z >> j & 1:
                result ^= self._z[qubit]
        return result

    def take(self, rotation: Rotation, qubits: tuple[int, ...], *, is_certain: bool) -> None:
        """Apply a rotation, which is not certain under a condition."""
        quarters = rotation.quarters
        if quarters % 2 == 0:
            return
        string = self.image(rotation, qubits)
        if quarters < 0 or not is_certain:
            self._rotate(string)
            return
        for j, qubit in enumerate(qubits):
            if rotation.z >> j & 1:
                self._x[qubit] ^= string
            if rotation.x >> j & 1:
                self._z[qubit] ^= string

    def _rotate(self, string: int) -> None:
        probe = self._exchanged(string)
        place = next((k for k, s in enumerate(self._dormant) if (s & probe).bit_count() & 1), -1)
        if place < 0:
            touched = self._touched(probe)
            if touched:
                self.rotations += 1
                self._count(self._join(touched), 1.0)
            return
        self.rotations += 1
        picked = self._dormant.pop(place)
        self._dormant = [s ^ picked if (s & probe).bit_count() & 1 else s for s in self._dormant]
        self._multiply(probe, picked)
        self.pairs.append([string, picked])
        self._part.append(self._parts)
        self._parts += 1
        self._count(self._parts - 1, 2.0)

    def measure(self, string: int) -> None:
        """Measure a string: by a fair coin, by what is known, or by amplitudes."""
        probe = self._exchanged(string)
        place = next((k for k, s in enumerate(self._dormant) if (s & probe).bit_count() & 1), -1)
        if place >= 0:
            picked = self._dormant[place]
            self._dormant = [
                s ^ picked if (s & probe).bit_count() & 1 else s for s in self._dormant
            ]
            self._multiply(probe, picked)
            self._dormant[place] = string
            return
        touched = self._touched(probe)
        if not touched:
            return
        self._count(self._join(touched), 2.0)
        first, second = self.pairs.pop(touched[-1])
        del self._part[touched[-1]]
        self._multiply(probe, first if (first & probe).bit_count() & 1 else second)
        self._dormant.append(string)

    def _exchanged(self, string: int) -> int:
        return (string >> self._n) | (string & self._low) << self._n

    def _multiply(self, probe: int, factor: int) -> None:
        """Multiply the strings of pairs that anticommute with the probed one."""
        for pair in self.pairs:
            for side in (0, 1):
                if (pair[side] & probe).bit_count() & 1:
                    pair[side] ^= factor

    def _touched(self, probe: int) -> list[int]:
        """Places of the pairs of which one string anticommutes with the probed one."""
        return [
            place
            for place, (first, second) in enumerate(self.pairs)
            if ((first & probe).bit_count() | (second & probe).bit_count()) & 1
        ]

    def _join(self, places: list[int]) -> int:
        """Join the parts of these pairs; return the part."""
        parts = {self._part[place] for place in places}
        target = min(parts)
        if len(parts) > 1:
            self._part = [target if part in parts else part for part in self._part]
            self.work += 2.0 * 2.0 ** self._part.count(target)
        return target

    def _count(self, part: int, weight: float) -> None:
        size = self._part.count(part)
        self.widest = max(self.widest, size)
        self.work += weight * 2.0**size + _STEP
