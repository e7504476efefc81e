"""A circuit's structure as a short program: stretches of gates, and what happens between them."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.conditions import Condition, conditions_of
from simulators.circuit.flow import DROPPED, FINAL, LAST, needs_branching
from simulators.circuit.gates import ELSE, END_BLOCK, IF, MEASURE, RESET
from simulators.circuit.ir import Circuit
from simulators.statevector.passes import Passes, make


class Gates(msgspec.Struct, frozen=True, eq=False):
    """Gates without anything between them; `number` counts the stretches of a schedule."""

    number: int
    passes: Passes


class Measure(msgspec.Struct, frozen=True):
    """A measurement that cannot wait for the end."""

    op: int  # its number in the circuit: part of the random key
    qubit: int
    clbit: int
    clear: bool  # the qubit is not used again, and may be put back to |0>


class Reset(msgspec.Struct, frozen=True):
    """A reset that changes something."""

    op: int
    qubit: int


class If(msgspec.Struct, frozen=True, eq=False):
    """Two blocks and what decides between them."""

    condition: Condition
    then: tuple[Item, ...]
    otherwise: tuple[Item, ...]


Item = Gates | Measure | Reset | If


class Schedule(msgspec.Struct, frozen=True, eq=False):
    """What to do, and what the final measurements write: source[clbit] = qubit, or -1."""

    items: tuple[Item, ...]
    stretches: tuple[Passes, ...]
    source: NDArray[np.int64]  # [num_clbits]
    branching: bool
    measures: bool  # the circuit has at least one measurement

    @property
    def memory_bytes(self) -> int:
        """Bytes of its arrays."""
        return sum(passes.memory_bytes for passes in self.stretches) + self.source.nbytes

    @property
    def final_qubits(self) -> frozenset[int]:
        """Qubits that are measured at the end."""
        return frozenset(self.source[self.source >= 0].tolist())


def schedule(circuit: Circuit, *, keep: bool) -> Schedule:
    """The schedule of a circuit. `keep`: its final state is looked at, not its clbits alone."""
    roles = np.empty(circuit.ops.size, np.int64)
    branching = needs_branching(circuit, roles, keep=keep)
    rows = circuit.table.rows[circuit.ops]
    final = roles == FINAL
    source = np.full(circuit.num_clbits, -1, np.int64)
    ends = np.cumsum(rows[:, 1:], axis=0)
    begins = ends - rows[:, 1:]
    source[circuit.clbits[begins[final, 1]]] = circuit.qubits[begins[final, 0]]
    builder = _Builder(circuit, roles, rows[:, 0], begins)
    codes = rows[:, 0]
    marks = (codes == MEASURE) | (codes == RESET) | (codes == IF) | (codes == ELSE)
    marks |= codes == END_BLOCK
    marks &= (roles != FINAL) & (roles != DROPPED)
    builder.build(np.flatnonzero(marks).tolist())
    measures = bool((codes == MEASURE).any())
    return Schedule(tuple(builder.items), tuple(builder.stretches), source, branching, measures)


class _Builder:
    """Reads the operations once; `_open` holds the blocks not yet ended."""

    def __init__(
        self,
        circuit: Circuit,
        roles: NDArray[np.int64],
        codes: NDArray[np.int64],
        begins: NDArray[np.int64],
    ) -> None:
        self.items: list[Item] = []
        self.stretches: list[Passes] = []
        self._circuit = circuit
        self._roles = roles
        self._codes = codes
        self._begins = begins
        self._conditions = iter(conditions_of(circuit))
        self._open: list[tuple[list[Item], Condition, list[Item] | None]] = []

    def build(self, marks: list[int]) -> None:
        """`marks`: the operations that end a stretch of gates."""
        first = 0
        for k in marks:
            self._gates(first, k)
            self._mark(k, int(self._codes[k]))
            first = k + 1
        self._gates(first, self._circuit.ops.size)

    def _gates(self, first: int, last: int) -> None:
        if first >= last:
            return
        at_qubit, _, at_param = self._begins[first].tolist()
        passes = make(self._circuit, first, last, at_qubit, at_param)
        if passes.steps:
            self.items.append(Gates(len(self.stretches), passes))
            self.stretches.append(passes)

    def _mark(self, k: int, code: int) -> None:
        at_qubit, at_clbit, _ = self._begins[k].tolist()
        if code == MEASURE:
            qubit, clbit = int(self._circuit.qubits[at_qubit]), int(self._circuit.clbits[at_clbit])
            self.items.append(Measure(k, qubit, clbit, bool(self._roles[k] == LAST)))
        elif code == RESET:
            self.items.append(Reset(k, int(self._circuit.qubits[at_qubit])))
        elif code == IF:
            self._open.append((self.items, next(self._conditions), None))
            self.items = []
        elif code == ELSE:
            outer, condition, _ = self._open.pop()
            self._open.append((outer, condition, self.items))
            self.items = []
        else:
            outer, condition, then = self._open.pop()
            if then is None:
                block = If(condition, tuple(self.items), ())
            else:
                block = If(condition, tuple(then), tuple(self.items))
            self.items = outer
            if block.then or block.otherwise:
                self.items.append(block)
