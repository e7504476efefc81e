"""Size of the sweeps of a circuit, by which they are priced before a run."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from simulators.catalog.costs import SWEEP_PARTS
from simulators.circuit.analysis.measurements import measurement_layout
from simulators.circuit.analysis.profile import SweepSize
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.components import active_part
from simulators.circuit.passes.light_cone import output_support
from simulators.errors import Unsupported
from simulators.lines.lowering import Structure, lines_of
from simulators.lines.order import order_of
from simulators.lines.program import Program, program_of
from simulators.trajectories.mid_circuit import MidCircuit

MOST_BITS = 30.0  # of the cost of an order, beyond which no program is made
_PASSES = 5.0  # log2 of the values of a program relative to the cost of its order, about
_MOST_OPERATIONS = 20_000  # of a circuit whose size is computed
_NO_NOISE = NoiseProgram(b"", frozenset(), np.zeros((0, 4), np.int64))


def sweep_size(
    circuit: Circuit,
    params: NDArray[np.float64],
    outputs: tuple[str, ...],
    labels: Iterable[str] = (),
) -> SweepSize | None:
    """Size of the sweeps of an admissible circuit without its noise; None if they cannot give these
    outputs, or if the circuit is too long."""
    is_counted = bool(outputs) and {*outputs} <= {"counts", "memory"}
    if not is_counted or circuit.ops.size > _MOST_OPERATIONS:
        return None
    part, _ = active_part(circuit, _NO_NOISE, output_support(outputs, labels, circuit))
    layout = measurement_layout(part.circuit)
    amid = MidCircuit.of(layout) if layout.branching else None
    try:
        lines = lines_of(part.circuit, params[part.params], amid=amid).structure
    except Unsupported:
        return None
    if lines.parts > SWEEP_PARTS:
        return SweepSize(0.0, lines.num_layers, parts=lines.parts)
    order, bits = order_of(lines)
    if bits > MOST_BITS:
        return SweepSize(round(bits + _PASSES, 1), lines.num_layers)
    return size_of(lines, program_of(lines, order))


def size_of(lines: Structure, program: Program) -> SweepSize:
    """Size of the sweeps of lines with their program."""
    return SweepSize(
        bits=round(math.log2(max(1.0, program.values)), 1),
        layers=lines.num_layers,
        axes=program.widest,
        kept=program.kept,
        steps=sum(len(layer.code) for layer in program.layers),
    )
