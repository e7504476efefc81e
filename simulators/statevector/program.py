"""Program of one component: gate segments and control-flow instructions, as nested blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import SMALL_QUBITS
from simulators.circuit import gates
from simulators.circuit.analysis import measurements
from simulators.circuit.expressions import Expression, expressions_of
from simulators.circuit.ir import Circuit
from simulators.statevector.backend.gate_list import GateList, plan_gate_list
from simulators.statevector.backend.matrix import PlacedMatrix, by_columns, place
from simulators.statevector.planning import planner
from simulators.statevector.planning.lowering import MOST_QUBITS
from simulators.trajectories.locations import LocatedError, LocatedFlag


class Gates(msgspec.Struct, frozen=True, eq=False):
    """Consecutive gates; `number` is the index of the segment in a program."""

    number: int
    passes: GateList | planner.SegmentPlan


class Unitary(msgspec.Struct, frozen=True, eq=False):
    """A matrix on some qubits."""

    dense: PlacedMatrix


class Measure(msgspec.Struct, frozen=True):
    """Measurement that is not deferred to the end."""

    op: int  # number in the circuit: part of the random key
    qubit: int
    clbit: int
    clear: bool  # the qubit is not used again, and may be put back to |0>


class Reset(msgspec.Struct, frozen=True):
    """Reset with an effect."""

    op: int
    qubit: int


class Noise(msgspec.Struct, frozen=True, eq=False):
    """Random error of a location."""

    location: LocatedError  # without its unitary part
    paulis: tuple[PlacedMatrix, ...]  # of its errors


class Flag(msgspec.Struct, frozen=True, eq=False):
    """Step of the flag of a qubit that leaks."""

    location: LocatedFlag
    stays: PlacedMatrix | None  # of the shots that do not leak; the norm is not kept
    leaked: Noise | None  # of the shots with the flag


class Store(msgspec.Struct, frozen=True, eq=False):
    """Assignment of a value to clbits or a variable."""

    expression: Expression


class If(msgspec.Struct, frozen=True, eq=False):
    """Two blocks with a condition."""

    condition: Expression
    then: tuple[Instruction, ...]
    otherwise: tuple[Instruction, ...]


class Switch(msgspec.Struct, frozen=True, eq=False):
    """Blocks with the values that select them; any other value selects the last block."""

    target: Expression
    chosen: dict[int, int]  # index of the block by value
    blocks: tuple[tuple[Instruction, ...], ...]


class While(msgspec.Struct, frozen=True, eq=False):
    """Block that is repeated while the condition holds."""

    condition: Expression
    body: tuple[Instruction, ...]


class For(msgspec.Struct, frozen=True, eq=False):
    """Block that is repeated a fixed number of times."""

    count: int
    body: tuple[Instruction, ...]


class Break(msgspec.Struct, frozen=True):
    """End of the innermost loop."""


class Continue(msgspec.Struct, frozen=True):
    """End of this pass of the innermost loop."""


Instruction = (
    Gates
    | Unitary
    | Measure
    | Reset
    | Noise
    | Flag
    | Store
    | If
    | Switch
    | While
    | For
    | Break
    | Continue
)


class Program(msgspec.Struct, frozen=True, eq=False):
    """Instructions of a circuit, and its measurements. Unless it is `full`, phases that affect no
    measurement are left out. `draw`: number of the draw that samples the final measurements."""

    items: tuple[Instruction, ...]
    stretches: tuple[GateList | planner.SegmentPlan, ...]
    matrices: tuple[NDArray[np.float64], ...]
    layout: measurements.MeasurementLayout
    full: bool
    draw: int

    @property
    def memory_bytes(self) -> int:
        total = sum(passes.memory_bytes for passes in self.stretches)
        total += self.layout.roles.nbytes + self.layout.source.nbytes
        return total + sum(matrix.nbytes for matrix in self.matrices)


class SweepTraits(NamedTuple):
    """See `planner.tile_width` and `planner.SegmentContext`."""

    tile_wires: int = 0
    turns: NDArray[np.int8] | None = None


def build_program(
    circuit: Circuit,
    *,
    keep: bool,
    precision: str = "double",
    operations: NDArray[np.int64] | None = None,
    apart: bool = False,
    layout: measurements.MeasurementLayout | None = None,
    noise: Mapping[int, Sequence[Instruction]] | None = None,
    traits: SweepTraits | None = None,
) -> Program:
    """Build the program of a circuit. `keep`: outputs need the final state, not the clbits alone.
    `operations`: numbers of its operations in the whole circuit, if it is a part; `apart`: it is
    one of several parts. `layout`: replaces the circuit's own; `noise`: by preceding operation.
    `traits`: of its sweeps."""
    traits = traits or SweepTraits()
    layout = layout or measurements.measurement_layout(circuit, keep=keep)
    roles = layout.roles
    noise = noise or {}
    rows = circuit.table.rows[circuit.ops]
    begins = np.cumsum(rows[:, 1:], axis=0) - rows[:, 1:]
    codes = rows[:, 0]
    large = circuit.num_qubits > SMALL_QUBITS
    marks = (
        (codes >= gates.MEASURE)
        & (codes <= gates.UNITARY)
        & (roles != measurements.TERMINAL)
        & (roles != measurements.NO_OP_RESET)
    )
    if large:
        marks &= (codes != gates.UNITARY) | (rows[:, 1] > MOST_QUBITS)
    full = keep or not large or bool(marks.any()) or bool(noise)
    # All qubits count, measured or not: the outcomes of a draw are ordered by all of them.
    measured = -1 if full else (1 << circuit.num_qubits) - 1
    goal = planner.SegmentContext(measured=measured, turns=traits.turns)
    width = planner.tile_width(circuit.num_qubits, precision, traits.tile_wires) if large else 0
    op_ids = np.arange(circuit.ops.size) if operations is None else operations
    zero, expressions = layout.from_zero, iter(expressions_of(circuit))
    builder = _Builder(circuit, roles, codes, begins, goal, width, op_ids, zero, expressions)
    builder.build(np.flatnonzero(marks).tolist(), noise)
    return Program(
        tuple(builder.items),
        tuple(builder.stretches),
        tuple(builder.matrices.values()),
        layout,
        full,
        1 + int(op_ids[roles == measurements.TERMINAL][0]) if apart and layout.measured else 0,
    )


class _Block(msgspec.Struct, eq=False):
    """Open block: its surrounding items, and its earlier branches."""

    code: int
    expression: Expression
    outer: list[Instruction]
    done: list[tuple[Instruction, ...]] = []  # `then`; the cases
    labels: list[tuple[int, ...] | None] = []  # labels of each case; None: default


class _Builder(msgspec.Struct, eq=False):
    """Builder that reads the operations once."""

    circuit: Circuit
    roles: NDArray[np.int64]
    codes: NDArray[np.int64]
    begins: NDArray[np.int64]
    ends: planner.SegmentContext
    width: int  # wires of the tiles of a large state; 0: it is small
    op_ids: NDArray[np.int64]  # numbers of the operations for their random numbers
    zero: bool  # the state begins as |0...0>
    expressions: Iterator[Expression]
    items: list[Instruction] = []
    stretches: list[GateList | planner.SegmentPlan] = []
    matrices: dict[int, NDArray[np.float64]] = {}  # by row of the table
    open: list[_Block] = []

    def build(self, marks: list[int], noise: Mapping[int, Sequence[Instruction]]) -> None:
        """Build the items. `marks`: the operations that end a segment of gates."""
        first = 0
        self.items += noise.get(-1, ())
        marked = set(marks)
        for k in sorted({*marks, *noise} - {-1}):
            if k in marked:
                self._gates(first, k)
                self._mark(k, int(self.codes[k]))
            else:
                self._gates(first, k + 1)
            self.items += noise.get(k, ())
            first = k + 1
        self._gates(first, self.circuit.ops.size)

    def _gates(self, first: int, last: int) -> None:
        if first >= last:
            return
        at_qubit, _, at_param = self.begins[first].tolist()
        passes: GateList | planner.SegmentPlan
        if self.width:
            zero = self.zero and not self.items and not self.open
            ends = msgspec.structs.replace(self.ends, zero=zero)
            passes = planner.plan_segment(
                self.circuit,
                planner.OperationRange(first, last, at_qubit, at_param),
                ends,
                self.width,
            )
            empty = not passes.sweeps.live.size
        else:
            passes = plan_gate_list(self.circuit, first, last, at_qubit, at_param)
            empty = not len(passes.steps)
        if not empty:
            self.items.append(Gates(len(self.stretches), passes))
            self.stretches.append(passes)

    def _mark(self, k: int, code: int) -> None:
        at_qubit, at_clbit, _ = self.begins[k].tolist()
        if code == gates.MEASURE:
            qubit, clbit = int(self.circuit.qubits[at_qubit]), int(self.circuit.clbits[at_clbit])
            last = bool(self.roles[k] == measurements.LAST_USE)
            self.items.append(Measure(int(self.op_ids[k]), qubit, clbit, last))
        elif code == gates.RESET:
            qubit = int(self.circuit.qubits[at_qubit])
            self.items.append(Reset(int(self.op_ids[k]), qubit))
        elif code == gates.UNITARY:
            self._unitary(int(self.circuit.ops[k]), at_qubit)
        elif code == gates.STORE:
            self.items.append(Store(next(self.expressions)))
        elif code == gates.BREAK:
            self.items.append(Break())
        elif code == gates.CONTINUE:
            self.items.append(Continue())
        elif code == gates.END_BLOCK:
            self._close()
        elif code in (gates.ELSE, gates.CASE, gates.DEFAULT):
            self._next(code)
        else:
            self.open.append(_Block(code, next(self.expressions), self.items))
            self.items = []

    def _unitary(self, row: int, at_qubit: int) -> None:
        table = self.circuit.table
        width = int(table.rows[row, 1])
        if row not in self.matrices:
            matrix = self.circuit.matrices[int(table.matrix[row])]
            self.matrices[row] = by_columns(matrix, width)
        qubits = self.circuit.qubits[at_qubit : at_qubit + width].tolist()
        self.items.append(Unitary(place(self.matrices[row], qubits)))

    def _next(self, code: int) -> None:
        """Begin the next block of an `if` or a `switch`."""
        block = self.open[-1]
        if code == gates.ELSE or block.labels:
            block.done.append(tuple(self.items))
        if code != gates.ELSE:
            block.labels.append(next(self.expressions).labels if code == gates.CASE else None)
        self.items = []

    def _close(self) -> None:
        block = self.open.pop()
        inner, self.items = tuple(self.items), block.outer
        if block.code == gates.IF:
            then, otherwise = (block.done[0], inner) if block.done else (inner, ())
            if then or otherwise:
                self.items.append(If(block.expression, then, otherwise))
        elif block.code == gates.WHILE:
            self.items.append(While(block.expression, inner))
        elif block.code == gates.FOR:
            if inner:
                self.items.append(For(block.expression.labels[0], inner))
        elif block.code == gates.SWITCH:
            self._switch(block, [*block.done, inner])

    def _switch(self, block: _Block, blocks: list[tuple[Instruction, ...]]) -> None:
        chosen: dict[int, int] = {}
        for number, labels in enumerate(block.labels):
            for label in labels or ():
                chosen.setdefault(label, number)
        if block.labels[-1] is not None:
            blocks.append(())  # no default
        if any(blocks):
            self.items.append(Switch(block.expression, chosen, tuple(blocks)))
