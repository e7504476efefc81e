"""What a circuit is made of, in numbers: all that choosing and estimating may look at."""

from __future__ import annotations

import msgspec
import numpy as np

from simulators.circuit import survey
from simulators.circuit.flow import needs_branching
from simulators.circuit.ir import Circuit
from simulators.circuit.table import FINDINGS


class Profile(msgspec.Struct, frozen=True):
    """Sizes of one circuit."""

    num_qubits: int
    num_clbits: int
    operations: int  # all rows, markers and barriers included
    gates_1q: int
    gates_2q: int
    gates_many: int
    measurements: int
    resets: int
    mid_circuit: bool  # needs branching: a measurement or reset that is not final, or an `if`
    conditions: int


def profile(circuit: Circuit) -> Profile:
    """The profile of an admissible circuit."""
    found = np.empty(circuit.table.found_size, np.int64)
    survey.bounds(
        circuit.table.rows,
        circuit.ops,
        circuit.qubits,
        circuit.clbits,
        circuit.params,
        circuit.slots,
        circuit.num_slots,
        circuit.num_qubits,
        circuit.num_clbits,
        found,
    )
    branching = needs_branching(circuit, np.empty(circuit.ops.size, np.int64))
    _, _, operations, one, two, many, measurements, resets, ifs = found[:FINDINGS].tolist()
    return Profile(
        circuit.num_qubits,
        circuit.num_clbits,
        operations,
        one,
        two,
        many,
        measurements,
        resets,
        branching,
        ifs,
    )
