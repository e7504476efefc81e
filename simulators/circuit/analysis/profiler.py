"""Computation of a circuit's `Profile`: gate counts, Clifford structure, entanglement bound.

`bond_bits` is an upper bound on log2 of the MPS bond dimension: at each cut between neighbours,
every gate across the cut multiplies the bond dimension by at most the operator Schmidt rank, and no
bond is larger than the smaller side allows. Only for circuits that `admission.validation_error`
admitted; loop bodies are counted once. Where `qubit_order` puts qubits into another order, the
bound is that of this order.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import DENSE_QUBITS, LIGHT_BITS, SMALL_QUBITS
from simulators.circuit import gates
from simulators.circuit.analysis.cone_size import cone_size
from simulators.circuit.analysis.interaction_width import contraction_width
from simulators.circuit.analysis.measurements import has_mid_circuit_ops
from simulators.circuit.analysis.profile import LightConeSize, Profile
from simulators.circuit.analysis.qubit_order import chain_order
from simulators.circuit.gates import ANY, FIRST_GATE, GATES, UNITARY
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.components import partition
from simulators.circuit.passes.light_cone import output_support
from simulators.circuit.validation import operations
from simulators.compiler.kernel import F64, I32, I64, INT, NAMES, U16, kernel

_MAX_STEPS = 10**7  # limit of examined cuts; beyond it the bound is unknown

# Findings of `_look`: a gate that never is Clifford, one whose angle decides, one that has angles.
# `_OPEN`: one with a free parameter or a matrix, which is not examined.
_OTHER, _BETWEEN, _OPEN, _ANGLED, _BITS, _LONGEST = range(6)

_RANK_TWO = {"rxx", "ryy", "rzz", "rzx", "ecr"}  # in addition to gates with controls


def _kinds() -> NDArray[np.int64]:
    """Clifford kind of each code, and log2 of its operator's Schmidt rank; 0: it depends on the
    qubits."""
    table = np.zeros((FIRST_GATE + len(GATES), 2), np.int64)
    for gate in GATES.values():
        # One target under controls: the projector on the controls, and the rest.
        single = all(piece.targets == 1 for piece in gate.pieces)
        controlled = (gate.controls == ANY or gate.controls > 0) and single
        table[gate.code] = gate.clifford_angles, int(controlled or gate.name in _RANK_TWO)
    return table


_KINDS = _kinds()
_MCX, _MCPHASE = GATES["mcx"].code, GATES["mcphase"].code


class CircuitTraits(msgspec.Struct, frozen=True):
    """Clifford structure and entanglement bound of a circuit."""

    clifford: bool  # all gates are Clifford gates
    may_be_clifford: bool  # no known gate is non-Clifford; free parameters and matrices are open
    by_angles: bool  # both values depend on angles
    bond_bits: int  # log2 of a bound on any bond in qubit order; -1: unknown
    longest: int  # largest distance of two qubits of a gate


@kernel(NAMES, NAMES, U16, U16, F64, I32, INT, I64, I64, group="admission")
def _count_features(rows, kinds, ops, qubits, params, slots, num_qubits, bits, features):  # type: ignore[no-untyped-def]
    """Fill `features`, by the names below; `bits`: int64 [cuts], zeros."""
    q = p = slot = steps = 0
    features[:] = 0
    for k in range(ops.size):
        code, nq, np_ = rows[ops[k], 0], rows[ops[k], 1], rows[ops[k], 3]
        if code >= UNITARY:
            kind = gates.ALWAYS if code == UNITARY else kinds[code, 0]
            if code == UNITARY:
                features[_OPEN] = 1
            if code == _MCX and nq <= 2:
                kind = gates.ALWAYS
            elif code == _MCPHASE and nq <= 2:
                kind = gates.QUARTERS if nq == 1 else gates.HALVES
            if kind == gates.NEVER:
                features[_OTHER] = 1
            elif kind != gates.ALWAYS:
                features[_ANGLED] = 1
                unit = gates.QUARTER_TURN if kind == gates.QUARTERS else 2.0 * gates.QUARTER_TURN
                while slot < slots.size and slots[slot] < p:
                    slot += 2
                for j in range(p, p + np_):
                    if slot < slots.size and slots[slot] == j:
                        features[_OPEN] = 1
                        slot += 2
                        continue
                    if features[_BETWEEN]:
                        continue
                    count = np.round(params[j] / unit)
                    gap = abs(params[j] - count * unit)
                    if gap > min(
                        gates.LARGEST_TOLERANCE, gates.ANGLE_TOLERANCE * max(1.0, abs(count))
                    ):
                        features[_BETWEEN] = 1
            if nq > 1 and features[_BITS] >= 0:
                low = high = np.int64(qubits[q])
                for j in range(q + 1, q + nq):
                    low = min(low, np.int64(qubits[j]))
                    high = max(high, np.int64(qubits[j]))
                features[_LONGEST] = max(features[_LONGEST], high - low)
                steps += (high - low) * nq
                if steps > _MAX_STEPS:
                    features[_BITS] = -1
                else:
                    rank = np.int64(1) if code > UNITARY and kinds[code, 1] else np.int64(0)
                    for cut in range(low, high):
                        more = rank
                        if more == 0:
                            left = np.int64(0)
                            for j in range(q, q + nq):
                                if qubits[j] <= cut:
                                    left += 1
                            more = 2 * min(left, nq - left)
                        limit = min(cut + 1, num_qubits - cut - 1)
                        bits[cut] = min(bits[cut] + more, limit)
                        features[_BITS] = max(features[_BITS], bits[cut])
        q += nq
        p += np_


def traits(circuit: Circuit) -> CircuitTraits:
    """Traits of an admissible circuit."""
    other, between, unknown, angled, bond_bits, longest = _looked(circuit, circuit.qubits)
    # A chain of neighbours is in the best order already.
    order = chain_order(circuit) if bond_bits > 1 and longest > 1 else None
    if order is not None:
        sites = np.array(order, np.uint16)[circuit.qubits]
        *_, ordered_bits, ordered_longest = _looked(circuit, sites)
        bond_bits, longest = ordered_bits, ordered_longest
    may_be = not (other or between)
    return CircuitTraits(
        may_be and not unknown, may_be, bool(angled and not other), bond_bits, longest
    )


def _looked(circuit: Circuit, qubits: NDArray[np.uint16]) -> list[int]:
    """Findings of `_look`; `qubits`: places in a chain of the operations' qubits."""
    result = np.empty(6, np.int64)
    _count_features(
        circuit.table.rows,
        _KINDS,
        circuit.ops,
        qubits,
        circuit.params,
        circuit.slots,
        circuit.num_qubits,
        np.zeros(max(1, circuit.num_qubits), np.int64),
        result,
    )
    return result.tolist()


def non_clifford_gates(circuit: Circuit) -> int:
    """Number of non-Clifford gates, by the rules of `traits`: free parameters and matrices are
    open, and not counted."""
    rows = circuit.table.rows[circuit.ops]
    codes, widths = rows[:, 0], rows[:, 1]
    kinds = np.where(codes > UNITARY, _KINDS[np.minimum(codes, len(_KINDS) - 1), 0], gates.ALWAYS)
    kinds[(codes == _MCX) & (widths <= 2)] = gates.ALWAYS
    phases = (codes == _MCPHASE) & (widths <= 2)
    kinds[phases] = np.where(widths[phases] == 1, gates.QUARTERS, gates.HALVES)
    unit = np.where(kinds == gates.QUARTERS, gates.QUARTER_TURN, 2.0 * gates.QUARTER_TURN)
    owner = np.repeat(np.arange(len(rows)), rows[:, 3])  # of each angle
    count = np.round(circuit.params / unit[owner])
    gap = np.abs(circuit.params - count * unit[owner])
    between = gap > np.minimum(
        gates.LARGEST_TOLERANCE, gates.ANGLE_TOLERANCE * np.maximum(1.0, np.abs(count))
    )
    between[circuit.slots[::2]] = False
    between &= (kinds[owner] == gates.QUARTERS) | (kinds[owner] == gates.HALVES)
    return int(np.count_nonzero(kinds == gates.NEVER) + np.unique(owner[between]).size)


def profile(circuit: Circuit, outputs: tuple[str, ...] = (), labels: Iterable[str] = ()) -> Profile:
    """Profile of an admissible circuit. `outputs`: requested outputs, with the `labels` of all
    Pauli strings; without outputs the light cone is not computed."""
    _, result = operations.checked(circuit)
    more = traits(circuit)
    branching = has_mid_circuit_ops(circuit, np.empty(circuit.ops.size, np.int64))
    return Profile(
        num_qubits=circuit.num_qubits,
        num_clbits=circuit.num_clbits,
        operations=circuit.ops.size,
        gates_1q=int(result[operations.ONE_QUBIT]),
        gates_2q=int(result[operations.TWO_QUBIT]),
        gates_many=int(result[operations.MANY_QUBIT]),
        measurements=int(result[operations.MEASUREMENTS]),
        resets=int(result[operations.RESETS]),
        mid_circuit=branching,
        conditions=int(result[operations.IFS] + result[operations.SWITCHES]),
        loops=int(result[operations.LOOPS]),
        switches=int(result[operations.SWITCHES]),
        variables=len(circuit.variables),
        stores=int(result[operations.STORES]),
        unitaries=int(result[operations.UNITARIES]),
        clifford=more.clifford,
        may_be_clifford=more.may_be_clifford,
        by_angles=more.by_angles,
        bond_bits=more.bond_bits,
        longest=more.longest,
        contraction_width=-1 if more.clifford else _width(circuit, more.bond_bits),
        widest=_widest(circuit) if result[operations.MANY_QUBIT] else 2,
        kept=_light_cone_size(circuit, outputs, labels)
        if circuit.num_qubits > SMALL_QUBITS and outputs
        else None,
    )


def _light_cone_size(
    circuit: Circuit, outputs: tuple[str, ...], labels: Iterable[str]
) -> LightConeSize | None:
    support = output_support(outputs, labels, circuit)
    if support is not None and support.clbits and not support.levels:
        kept, several = cone_size(circuit)
        if not several:
            return kept
    result = partition(circuit, support)
    if not result.parts:
        return None
    rows = circuit.table.rows
    counts = np.bincount(circuit.ops[result.kept], minlength=len(rows)).tolist()
    widths = [0, 0, 0]  # by number of qubits: up to 1, 2, more
    for number, (code, wires, _, _) in zip(counts, rows.tolist(), strict=True):
        if code >= UNITARY:
            widths[min(2, max(0, wires - 1))] += number
    return LightConeSize(
        num_qubits=result.num_qubits,
        widest=result.widest,
        operations=sum(counts),
        gates_1q=widths[0],
        gates_2q=widths[1],
        gates_many=widths[2],
    )


def _width(circuit: Circuit, bond_bits: int) -> int:
    """Width of a contraction, for circuits that are unsuited to amplitudes and to small bonds; else
    -1."""
    if circuit.num_qubits <= DENSE_QUBITS or 0 <= bond_bits <= LIGHT_BITS:
        return -1
    return contraction_width(circuit)


def _widest(circuit: Circuit) -> int:
    rows = circuit.table.rows[np.unique(circuit.ops)]
    return int(rows[rows[:, 0] >= UNITARY, 1].max())
