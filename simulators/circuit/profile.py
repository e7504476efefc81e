"""What a circuit is made of, in numbers: all that choosing and estimating may look at."""

from __future__ import annotations

import msgspec
import numpy as np

from simulators.circuit import survey
from simulators.circuit.flow import needs_branching
from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit
from simulators.circuit.traits import traits


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
    mid_circuit: bool  # needs branching: a measurement or reset that is not final, or a condition
    conditions: int  # `if` and `switch`
    loops: int = 0  # `while` and `for`
    switches: int = 0  # counted among the conditions too
    variables: int = 0
    stores: int = 0  # into clbits or variables
    unitaries: int = 0  # operations given by a matrix; counted among the gates too
    clifford: bool = False  # the rest as in `traits.Traits`
    may_be_clifford: bool = False
    by_angles: bool = False
    bond_bits: int = -1
    longest: int = 0
    widest: int = 2  # qubits of its widest gate, where one has more than two


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
    more = traits(circuit)
    branching = needs_branching(circuit, np.empty(circuit.ops.size, np.int64))
    return Profile(
        num_qubits=circuit.num_qubits,
        num_clbits=circuit.num_clbits,
        operations=circuit.ops.size,
        gates_1q=int(found[survey.ONE_QUBIT]),
        gates_2q=int(found[survey.TWO_QUBIT]),
        gates_many=int(found[survey.MANY_QUBIT]),
        measurements=int(found[survey.MEASUREMENTS]),
        resets=int(found[survey.RESETS]),
        mid_circuit=branching,
        conditions=int(found[survey.IFS] + found[survey.SWITCHES]),
        loops=int(found[survey.LOOPS]),
        switches=int(found[survey.SWITCHES]),
        variables=len(circuit.variables),
        stores=int(found[survey.STORES]),
        unitaries=int(found[survey.UNITARIES]),
        clifford=more.clifford,
        may_be_clifford=more.may_be_clifford,
        by_angles=more.by_angles,
        bond_bits=more.bond_bits,
        longest=more.longest,
        widest=_widest(circuit) if found[survey.MANY_QUBIT] else 2,
    )


def _widest(circuit: Circuit) -> int:
    rows = circuit.table.rows[np.unique(circuit.ops)]
    return int(rows[rows[:, 0] >= UNITARY, 1].max())
