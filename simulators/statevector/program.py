"""Program of one component: gate segments, matrices, noise, and the instructions of
`simulators.dynamic`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import SMALL_QUBITS
from simulators.circuit import gates
from simulators.circuit.analysis import measurements
from simulators.circuit.ir import Circuit
from simulators.dynamic.instructions import Assembler, ControlFlow, Measure, Reset, Store
from simulators.statevector.backend.gate_list import GateList, plan_gate_list
from simulators.statevector.backend.matrix import PlacedMatrix, by_columns, place
from simulators.statevector.planning import planner
from simulators.statevector.planning.lowering import MOST_QUBITS
from simulators.statevector.planning.tables import OperationRange
from simulators.trajectories.locations import LocatedError, LocatedFlag


class Gates(msgspec.Struct, frozen=True, eq=False):
    """Consecutive gates; `number` is the index of the segment in a program."""

    number: int
    passes: GateList | planner.SegmentPlan


class Unitary(msgspec.Struct, frozen=True, eq=False):
    """A matrix on some qubits."""

    dense: PlacedMatrix


class Noise(msgspec.Struct, frozen=True, eq=False):
    """Random error of a location."""

    location: LocatedError  # without its unitary part
    paulis: tuple[PlacedMatrix, ...]  # of its errors


class Flag(msgspec.Struct, frozen=True, eq=False):
    """Step of the flag of a qubit that leaks."""

    location: LocatedFlag
    stays: PlacedMatrix | None  # of the shots that do not leak; the norm is not kept
    leaked: Noise | None  # of the shots with the flag


Instruction = Gates | Unitary | Noise | Flag | Measure | Reset | Store | ControlFlow


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
    noise = noise or {}
    assembler = Assembler(circuit, layout.roles, operations)
    large = circuit.num_qubits > SMALL_QUBITS
    unitaries = assembler.codes == gates.UNITARY
    if large:
        unitaries &= circuit.table.rows[circuit.ops, 1] > MOST_QUBITS
    marks = assembler.marks() | unitaries
    full = keep or not large or bool(marks.any()) or bool(noise)
    # All qubits count, measured or not: the outcomes of a draw are ordered by all of them.
    measured = -1 if full else (1 << circuit.num_qubits) - 1
    goal = planner.SegmentContext(measured=measured, turns=traits.turns)
    width = planner.tile_width(circuit.num_qubits, precision, traits.tile_wires) if large else 0
    builder = _Builder(circuit, assembler, goal, width, layout.from_zero)
    builder.build(np.flatnonzero(marks).tolist(), noise)
    draw = 0
    if apart and layout.measured:
        first = int(np.flatnonzero(layout.roles == measurements.TERMINAL)[0])
        draw = 1 + (first if operations is None else int(operations[first]))
    return Program(
        tuple(assembler.items),
        tuple(builder.stretches),
        tuple(builder.matrices.values()),
        layout,
        full,
        draw,
    )


class _Builder(msgspec.Struct, eq=False):
    """Builder that reads the operations once."""

    circuit: Circuit
    assembler: Assembler
    ends: planner.SegmentContext
    width: int  # wires of the tiles of a large state; 0: it is small
    zero: bool  # the state begins as |0...0>
    stretches: list[GateList | planner.SegmentPlan] = []
    matrices: dict[int, NDArray[np.float64]] = {}  # by row of the table

    def build(self, marks: list[int], noise: Mapping[int, Sequence[Instruction]]) -> None:
        """Build the items. `marks`: the operations that end a segment of gates."""
        first, assembler = 0, self.assembler
        assembler.items += noise.get(-1, ())
        marked = set(marks)
        for k in sorted({*marks, *noise} - {-1}):
            self._gates(first, k if k in marked else k + 1)
            if k in marked and assembler.codes[k] == gates.UNITARY:
                self._unitary(k)
            elif k in marked:
                assembler.add(k)
            assembler.items += noise.get(k, ())
            first = k + 1
        self._gates(first, self.circuit.ops.size)

    def _gates(self, first: int, last: int) -> None:
        if first >= last:
            return
        at_qubit, _, at_param = self.assembler.begins[first].tolist()
        passes: GateList | planner.SegmentPlan
        if self.width:
            zero = self.zero and not self.assembler.items
            passes = planner.plan_segment(
                self.circuit,
                OperationRange(first, last, at_qubit, at_param),
                msgspec.structs.replace(self.ends, zero=zero),
                self.width,
            )
            empty = not passes.sweeps.live.size
        else:
            passes = plan_gate_list(self.circuit, first, last, at_qubit, at_param)
            empty = not len(passes.steps)
        if not empty:
            self.assembler.items.append(Gates(len(self.stretches), passes))
            self.stretches.append(passes)

    def _unitary(self, k: int) -> None:
        table, row = self.circuit.table, int(self.circuit.ops[k])
        width, at_qubit = int(table.rows[row, 1]), int(self.assembler.begins[k, 0])
        if row not in self.matrices:
            matrix = self.circuit.matrices[int(table.matrix[row])]
            self.matrices[row] = by_columns(matrix, width)
        qubits = self.circuit.qubits[at_qubit : at_qubit + width].tolist()
        self.assembler.items.append(Unitary(place(self.matrices[row], qubits)))
