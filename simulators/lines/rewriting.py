"""Two controlled gates on a pair, with gates on one of its qubits between them, as one gate.

`cx rz cx` and `cz u cz` move amplitude along the target where the gate that they make together does
so once, or not at all, as `rzz` does. What is made of two is M = CZ U CZ, a gate under the control
of the other qubit. Pauli errors between them are carried out of it: before the first gate through
Clifford gates, where an X of one qubit adds a Z of the other, else behind the last one. Operators
that are drawn there are not: in the frame of M they move amplitude.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit import gates
from simulators.circuit.ir import Operation
from simulators.trajectories.noise_table import PAULI

Matrix = NDArray[np.complex128]
Letters = tuple[int, int]  # x and z

_ZERO = 1e-12
_CX, _CZ = gates.GATES["cx"].code, gates.GATES["cz"].code
_H = np.array([[1, 1], [1, -1]], np.complex128) / np.sqrt(2.0)
_ONE = np.eye(2, dtype=np.complex128)
_PAULIS = {
    (1, 0): np.array([[0, 1], [1, 0]], np.complex128), (0, 1): np.diag([1.0 + 0j, -1.0]),
    (1, 1): np.array([[0, -1j], [1j, 0]]),
}  # fmt: skip


class Merged(msgspec.Struct, eq=False):
    """Two gates at places `first` and `last` that become one, with the gates on `target` between
    them."""

    first: int
    last: int
    control: int
    target: int
    flipped: tuple[bool, bool]  # for each of the two: it is a cx with this target
    singles: list[tuple[int, Matrix]]  # on the target between them: place (of a cx too), matrix

    @property
    def matrix(self) -> Matrix:
        """The gate [4, 4] on target (bit 0) and control, without the outer parts of cx."""
        whole = _ONE
        for _, each in self.singles:
            whole = each @ whole
        sign = _PAULIS[0, 1]
        result = np.zeros((4, 4), np.complex128)
        result[:2, :2], result[2:, 2:] = whole, sign @ whole @ sign
        return result

    def carried(
        self, place: int, control: Letters, target: Letters
    ) -> tuple[tuple[Letters, Letters], tuple[Letters, Letters]] | None:
        """Pauli errors after an operation between the gates, carried before the first one and
        behind the last one: of control and target each. None if that makes other operators."""
        xa, za = control
        before, behind = (control, (0, xa)), ((0, 0), (0, 0))
        if target == (0, 0):
            return before, behind
        early, late = _ONE, _ONE
        for at, each in self.singles:
            if at <= place:
                early = each @ early
            else:
                late = each @ late
        moved = _conjugated(early.conj().T, target)
        if moved is not None:
            x, z = moved
            return ((xa, za ^ x), (x, z ^ xa)), behind
        moved = _conjugated(late, target)
        if moved is not None:
            return before, ((0, moved[0]), moved)
        return None


def _conjugated(unitary: Matrix, letters: Letters) -> Letters | None:
    """Pauli U P U^+, up to its sign; None if it is none."""
    result = unitary @ _PAULIS[letters] @ unitary.conj().T
    for each, matrix in _PAULIS.items():
        if abs(abs(np.vdot(matrix, result)) - 2.0) < _ZERO:
            return each
    return None


class _Wire:
    """A qubit while the operations are read: its last gate on two, and the gates after it."""

    __slots__ = ("before", "last", "singles", "turned")

    def __init__(self) -> None:
        self.last = -1
        self.singles: list[tuple[int, Matrix]] = []
        self.before = False  # amplitude moves between the last gate on two and the one before it
        self.turned = False  # it is the target of a merged gate, after which amplitude moves


def merged_gates(
    operations: Sequence[tuple[Operation, Matrix | None]], num_qubits: int, rows: list[list[int]]
) -> list[Merged]:
    """Gates that become one. `rows`: of the noise table."""
    if not any(each.code in (_CX, _CZ) for each, _ in operations):
        return []
    places: list[list[int]] = [[] for _ in range(num_qubits)]  # of the errors of each qubit
    errors: list[list[list[int]]] = [[] for _ in range(num_qubits)]
    for row in rows:
        for qubit in row[4:]:
            if qubit >= 0:
                places[qubit].append(row[0])
                errors[qubit].append(row)
    wires = [_Wire() for _ in range(num_qubits)]
    results: list[Merged] = []
    used = set[int]()
    depth = 0
    for at, (operation, matrix) in enumerate(operations):
        code, qubits = operation.code, operation.qubits
        if gates.IF <= code <= gates.STORE:
            depth += (code in (gates.IF, gates.SWITCH, gates.WHILE, gates.FOR)) - (
                code == gates.END_BLOCK
            )
            wires = [_Wire() for _ in range(num_qubits)]
        elif depth or code in (gates.BARRIER, gates.DELAY, gates.DELAY_DT) or not qubits:
            continue
        elif len(qubits) == 1 and matrix is not None:
            wires[qubits[0]].singles.append((at, matrix))
        elif code not in (_CX, _CZ):
            for qubit in qubits:
                wires[qubit] = _Wire()
        else:
            found = _merged(at, operation, operations, wires, used)
            if found is not None and not _is_clean(found, places, errors):
                found = None
            if found is not None:
                results.append(found)
                used |= {found.first, found.last}
            for qubit in qubits:
                wire, own = wires[qubit], _Wire()
                own.last = at
                turned = [(at, _H)] if code == _CX and qubit == qubits[1] else []
                own.before = wire.turned or _moves([*wire.singles, *turned])
                own.turned = found is not None and qubit == found.target
                own.singles += turned
                wires[qubit] = own
    return results


def _moves(singles: list[tuple[int, Matrix]]) -> bool:
    """Return whether the product of gates on a qubit moves amplitude."""
    whole = _ONE
    for _, each in singles:
        whole = each @ whole
    return bool(min(abs(whole[0, 0]), abs(whole[0, 1])) > _ZERO)


def _merged(
    at: int,
    operation: Operation,
    operations: Sequence[tuple[Operation, Matrix | None]],
    wires: list[_Wire],
    used: set[int],
) -> Merged | None:
    """Candidate that ends with this gate."""
    one, two = operation.qubits
    first = wires[one].last
    if first < 0 or first != wires[two].last or first in used:
        return None
    turned = {operation.qubits[1]} if operation.code == _CX else set()
    singles = {
        qubit: [*wires[qubit].singles, *([(at, _H)] if qubit in turned else [])]
        for qubit in (one, two)
    }
    for target, control in ((one, two), (two, one)):
        if not _moves(singles[target]) or not wires[target].before:
            continue
        if any(abs(each[0, 1]) > _ZERO or abs(each[1, 0]) > _ZERO for _, each in singles[control]):
            continue
        earlier = operations[first][0]
        flipped = tuple(
            each.code == _CX and each.qubits[1] == target for each in (earlier, operation)
        )
        return Merged(first, at, control, target, flipped, singles[target])  # type: ignore[arg-type]
    return None


def _is_clean(found: Merged, places: list[list[int]], errors: list[list[list[int]]]) -> bool:
    """Return whether all errors between the gates can be carried out."""
    for qubit in (found.control, found.target):
        own = places[qubit]
        for k in range(bisect_left(own, found.first), bisect_left(own, found.last)):
            place, which, *_ = row = errors[qubit][k]
            if which != PAULI or found.carried(place, *letters_of(found, row)) is None:
                return False
    return True


def letters_of(found: Merged, row: list[int]) -> tuple[Letters, Letters]:
    """Letters of a Pauli error on control and target."""
    _, _, x, z, *qubits = row
    result = []
    for qubit in (found.control, found.target):
        j = qubits.index(qubit) if qubit in qubits else -1
        result.append((x >> j & 1, z >> j & 1) if j >= 0 else (0, 0))
    return result[0], result[1]
