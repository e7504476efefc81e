"""Numbers of the light cone of a circuit's clbits, in one kernel call.

The steps are those of `components.partition`, for cones whose qubits are all connected.
"""

from __future__ import annotations

import numpy as np

from simulators.circuit.analysis.profile import LightConeSize
from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit, register_starts
from simulators.circuit.passes import light_cone
from simulators.circuit.passes.light_cone import GATE_KINDS, walk_components, walk_cone
from simulators.compiler.arrays import as_numbers
from simulators.compiler.kernel import I32, I64, INT, INTS2, NAMES, U8, U16, kernel

_GONE, _SEVERAL, _NEEDED, _OPERATIONS, _ONE, _TWO, _MANY = range(7)  # of `totals`


def cone_size(circuit: Circuit) -> tuple[LightConeSize | None, bool]:
    """Return the size of the light cone of all clbits, None if it is the whole circuit; and whether
    an admissible circuit has several independent parts, which are not measured."""
    if not light_cone.is_loaded():  # load now, not at the first circuit of several parts
        light_cone.load()
    wires, bits, size = circuit.num_qubits, circuit.num_clbits, circuit.ops.size
    totals = np.empty(7, np.int64)
    num_bytes = 8 * (wires + bits + 1 + size) + 3 * wires + bits + size
    _measure_cone(
        circuit.table.rows, GATE_KINDS, circuit.ops, circuit.qubits, circuit.clbits,
        circuit.conditions, register_starts(circuit), int(bool(circuit.conditions_data)), wires,
        bits, light_cone.NO_PLACES, np.empty(num_bytes, np.uint8), totals,
    )  # fmt: skip
    gone, several, needed, *counts = totals.tolist()
    if several or (needed == wires and not gone):
        return None, bool(several)
    width = max(1, needed)
    return LightConeSize(width, width, *counts), False


def is_loaded() -> bool:
    """Return whether the kernels that profile wide circuits are loaded.

    The first call of `cone_size` loads them, which takes seconds if they must be compiled.
    """
    return _measure_cone.is_loaded and light_cone.is_loaded()


@kernel(
    NAMES, NAMES, U16, U16, U16, I32, I64, INT, INT, INT, INTS2, U8, I64, group="light_cone"
)  # fmt: skip
def _measure_cone(  # type: ignore[no-untyped-def]
    rows, kinds, ops, qubits, clbits, tokens, starts, blocks, num_qubits, num_clbits, places,
    scratch, totals,
):  # fmt: skip
    """Fill `totals`, by the names above; `blocks`: there are conditions. `places`: empty.
    `scratch`: bytes."""
    first_op = num_qubits + num_clbits + 1
    parent = as_numbers(scratch, 0, first_op + ops.size)
    at = 8 * (first_op + ops.size)
    levels = scratch[at : at + num_qubits]
    turned = scratch[at + num_qubits : at + 2 * num_qubits]
    needed = scratch[at + 2 * num_qubits : at + 3 * num_qubits]
    at += 3 * num_qubits
    written = scratch[at : at + num_clbits]
    kept = scratch[at + num_clbits :]
    levels[:] = turned[:] = 0
    written[:] = 0
    totals[:] = 0
    totals[_GONE] = walk_cone(
        rows, kinds, ops, qubits, clbits, 1, blocks, blocks, places, scratch[:0], levels, turned,
        written, kept, scratch[:0], needed,
    )  # fmt: skip
    totals[_SEVERAL] = walk_components(
        rows, ops, qubits, clbits, tokens, starts, num_qubits, first_op, kept, needed, parent
    )
    for q in range(num_qubits):
        totals[_NEEDED] += needed[q]
    for k in range(ops.size):
        if kept[k]:
            totals[_OPERATIONS] += 1
            if rows[ops[k], 0] >= UNITARY:
                width = rows[ops[k], 1]
                totals[_ONE if width <= 1 else _TWO if width == 2 else _MANY] += 1
