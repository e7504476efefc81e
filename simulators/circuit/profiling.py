"""What a circuit is made of, found out: one walk over it by each of a few kernels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from simulators.catalog import SMALL_QUBITS
from simulators.circuit import survey
from simulators.circuit.asked import asked
from simulators.circuit.flow import needs_branching
from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit
from simulators.circuit.profile import Kept, Profile
from simulators.circuit.reduced import split
from simulators.circuit.traits import traits


def profile(circuit: Circuit, outputs: tuple[str, ...] = (), labels: Iterable[str] = ()) -> Profile:
    """The profile of an admissible circuit. `outputs`: what is asked of it, `labels` are those of
    all Pauli strings; without any, what is left of it is not looked for."""
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
        kept=_kept(circuit, outputs, labels)
        if circuit.num_qubits > SMALL_QUBITS and outputs
        else None,
    )


def _kept(circuit: Circuit, outputs: tuple[str, ...], labels: Iterable[str]) -> Kept | None:
    found = split(circuit, asked(outputs, labels, circuit))
    if not found.parts:
        return None
    rows = circuit.table.rows[circuit.ops[found.kept]]
    wires = rows[rows[:, 0] >= UNITARY, 1]
    return Kept(
        num_qubits=found.num_qubits,
        widest=found.widest,
        operations=len(rows),
        gates_1q=int(np.count_nonzero(wires <= 1)),
        gates_2q=int(np.count_nonzero(wires == 2)),
        gates_many=int(np.count_nonzero(wires > 2)),
    )


def _widest(circuit: Circuit) -> int:
    rows = circuit.table.rows[np.unique(circuit.ops)]
    return int(rows[rows[:, 0] >= UNITARY, 1].max())
