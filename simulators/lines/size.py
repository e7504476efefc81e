"""Size of the sweeps of a circuit, by which they are priced before a run."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import builtin_card
from simulators.catalog.costs import SWEEP_BITS, SWEEP_PARTS
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.analysis.profile import SweepSize
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.components import active_part
from simulators.circuit.passes.light_cone import output_support
from simulators.errors import Unsupported
from simulators.lines.lowering import Structure, lines_of
from simulators.lines.order import order_of
from simulators.lines.program import Program, program_of
from simulators.trajectories.locations import NoisyCircuit, locate, locate_amid
from simulators.trajectories.noise_table import PAULI, SET, NoiseTable, X, Z

_PASSES = 5.0  # log2 of the values of a program relative to the cost of its order, about
_MOST_OPERATIONS = 20_000  # of a circuit whose size is computed, with the locations of its noise
_NO_NOISE = NoiseProgram(b"", frozenset(), np.zeros((0, 4), np.int64))
_KINDS = builtin_card("sweep").noise.kinds


def sweep_size(
    circuit: Circuit,
    params: NDArray[np.float64],
    outputs: tuple[str, ...],
    labels: Iterable[str] = (),
    noise: NoiseProgram | None = None,
) -> SweepSize | None:
    """Size of the sweeps of an admissible circuit with its noise, as they run; None if they cannot
    give these outputs, or if the circuit is too long. `params`: of the circuit, bound."""
    is_counted = bool(outputs) and {*outputs} <= {"counts", "memory"}
    program = _NO_NOISE if noise is None else noise
    if not is_counted or not program.kinds <= _KINDS:
        return None
    if circuit.ops.size + len(program.locations) > _MOST_OPERATIONS:
        return None
    part, program = active_part(circuit, program, output_support(outputs, labels, circuit))
    layout = MeasurementLayouts.of(part.circuit, program).clbits
    located: NoisyCircuit | None = None
    if not layout.branching:
        located = locate(part.circuit, program, local=True, separate=True)
    try:
        if located is None:
            located = locate_amid(part.circuit, program, layout, part.operations)
        bound = params[part.params]
        table = _decisive(located.table)
        lines = lines_of(located.circuit, bound, table, located.amid).structure
    except Unsupported:
        return None
    return sweep_program(lines)[0]


def _decisive(noise: NoiseTable) -> NoiseTable:
    """Rows of a noise table that decide the structure of lines: of a location with operators that
    are drawn these, which divide a line wherever a Pauli error of the same location does; of
    others, of the Pauli strings that have a letter of a qubit one."""
    table, places = noise.table, noise.draw_locations
    which, x, z = table[:, SET], table[:, X], table[:, Z]
    is_drawn = which != PAULI
    wanted = is_drawn.copy()
    others = np.flatnonzero(~is_drawn & ~np.isin(places, places[is_drawn]))
    for bit in range(2):
        letters = (x[others] >> bit & 1) + 2 * (z[others] >> bit & 1)
        _, first = np.unique(4 * places[others] + letters, return_index=True)
        wanted[others[first]] = True
    return NoiseTable(table[wanted], noise.operators, places[wanted])


def sweep_program(lines: Structure) -> tuple[SweepSize, Program | None]:
    """Size of the sweeps of lines, and their program; None if the size without it is above the
    limits of `costs.sweep_refusal`."""
    if lines.parts > SWEEP_PARTS:
        return SweepSize(0.0, lines.num_layers, parts=lines.parts), None
    order, bits = order_of(lines)
    if bits > SWEEP_BITS:
        runnable = _runnable(lines)
        return SweepSize(round(bits + _PASSES, 1), lines.num_layers, runnable=runnable), None
    program = program_of(lines, order)
    size = SweepSize(
        bits=round(math.log2(max(1.0, program.values)), 1),
        layers=lines.num_layers,
        axes=program.widest,
        kept=program.kept,
        steps=sum(len(layer.code) for layer in program.layers),
        runnable=0 if program.values <= 2.0**SWEEP_BITS else _runnable(lines),
    )
    return size, program


def _runnable(lines: Structure) -> int:
    """Number of the first layers of lines whose sweeps are expected to be within the limit."""
    low, high = 0, lines.num_layers  # `high` is beyond it
    while high - low > 1:
        middle = (low + high) // 2
        if order_of(_first_layers(lines, middle))[1] + _PASSES <= SWEEP_BITS:
            low = middle
        else:
            high = middle
    return low


def _first_layers(lines: Structure, count: int) -> Structure:
    """The segments of the first layers, and the gates between them."""
    kept = np.array(lines.layers) <= count
    number = np.cumsum(kept) - 1
    first = np.append(0, np.cumsum(kept))[list(lines.first)]
    return Structure(
        tuple(first.tolist()),
        tuple(layer for layer in lines.layers if layer <= count),
        tuple((int(number[a]), int(number[b])) for a, b in lines.pairs if kept[a] and kept[b]),
    )
