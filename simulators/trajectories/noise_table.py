"""Noise of a circuit as arrays, and error patterns of shots."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import kernel
from simulators.errors import BadCircuit

# Noise table: the errors that may be inserted into a circuit, and their locations.
#
# A row acts after operation AFTER_OP of the circuit (-1: before all), by a Pauli string (masks X
# and Z of qubits) or by operator set SET on qubits Q0 and Q1 (-1: on Q0 alone). A set of one
# operator is a unitary. A set of several is a channel: an instance gets one Kraus operator, drawn
# by its norm.

AFTER_OP, SET, X, Z, Q0, Q1 = range(6)
COLUMNS = 6
PAULI = -1  # value of SET for a Pauli string

# Columns of a set: first index of its matrices among the floats, number of qubits, number of
# matrices.
FIRST, QUBITS, COUNT = range(3)

# Columns of the flag of an insert: kind, qubit, number of its step. LEAKS: sets the flag of the
# qubit by its operator 0, if it is not set; CONDITIONAL: acts if the flag is set; RETURNS: the
# same, is drawn from the state, and clears the flag. Their last operator is the identity, for all
# other shots.
FLAG, FLAG_QUBIT, FLAG_STEP = range(3)
FLAG_COLUMNS = 3
NO_FLAG, LEAKS, CONDITIONAL, RETURNS = range(4)

MOST_QUBITS = 63  # limit of a circuit: masks are signed
MOST_OPERATORS = 1024  # of a set
_TOLERANCE = 1e-6  # tolerance of a set's sum


class Operators(msgspec.Struct, frozen=True, eq=False):
    """Operator sets in the form of the kernels; matrices row by row, (re, im)."""

    sets: NDArray[np.int64]  # [sets, 3]
    matrices: NDArray[np.float64]  # those of drawn sets divided by their largest singular values
    effects: NDArray[np.float64]  # K^+ K of each operator, not scaled

    def probs(self, which: int, rho: NDArray[np.complex128]) -> NDArray[np.float64]:
        """Probability of each operator of a set if its qubits have this density matrix."""
        at, width, count = self.sets[which].tolist()
        effects = self.effects[at : at + count * (2 << 2 * width)].view(np.complex128)
        result: NDArray[np.float64] = (effects.reshape(count, -1) @ rho.T.ravel()).real
        return np.maximum(result, 0.0)


class NoiseTable(msgspec.Struct, frozen=True, eq=False):
    """Table of inserts. Inserts at one place act in the order of the table."""

    table: NDArray[np.int64]  # [inserts, COLUMNS]
    operators: Operators
    locations: NDArray[np.int64] | None = None  # [inserts]: numbers of draws; None: the row's
    flags: NDArray[np.int64] | None = None  # [inserts, FLAG_COLUMNS]; None: none has one

    @property
    def draw_locations(self) -> NDArray[np.int64]:
        """Location of each insert, which numbers its random draw: int64 [inserts]."""
        return np.arange(len(self.table)) if self.locations is None else self.locations

    @property
    def drawn(self) -> NDArray[np.bool_]:
        """Mask of the errors whose operator is drawn."""
        has_choice = np.append(self.operators.sets[:, COUNT] > 1, False)
        result: NDArray[np.bool_] = has_choice[self.table[:, SET]]
        if self.flags is not None:
            result &= self.flags[:, FLAG] != CONDITIONAL
        return result

    def unflagged(self, inserts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Operator that each of these inserts has until its flag says something else."""
        if self.flags is None:
            return np.zeros_like(inserts)
        kinds = self.flags[inserts, FLAG]
        return np.where(kinds >= CONDITIONAL, kinds - 1, 0)

    def acts(self, insert: int, choice: int) -> bool:
        """Return whether an operator is not the one of shots without the flag."""
        if self.flags is None or self.flags[insert, FLAG] == NO_FLAG:
            return True
        return choice + 1 < int(self.operators.sets[self.table[insert, SET], COUNT])

    @property
    def supports(self) -> NDArray[np.int64]:
        """Mask of the qubits that each insert touches: int64 [inserts]."""
        _, which, x, z, first, second = self.table.T
        low, high = np.maximum(first, 0), np.maximum(second, 0)
        pair = np.int64(1) << low | np.where(second >= 0, np.int64(1) << high, 0)
        result: NDArray[np.int64] = np.where(which == PAULI, x | z, pair)
        return result


def operators(sets: Sequence[Sequence[NDArray[np.complex128]]]) -> Operators:
    """Make operator sets from one unitary, or the Kraus operators of a channel, each on one or two
    qubits (the first qubit is bit 0 of an index). Raises BadCircuit."""
    rows, begins, floats = [], [], 0
    each: list[NDArray[np.complex128]] = []
    for number, members in enumerate(sets):
        values = [np.asarray(member, np.complex128) for member in members]
        size = len(values[0]) if values else 0
        if size not in (2, 4) or any(member.shape != (size, size) for member in values):
            hint = "give at least one matrix on one or two qubits"
            raise BadCircuit(f"the operators of set {number} are not all 2x2 or all 4x4", hint=hint)
        if len(values) > MOST_OPERATORS:
            hint = f"at most {MOST_OPERATORS}"
            raise BadCircuit(f"{len(values)} operators in set {number}", hint=hint)
        rows.append((floats, size.bit_length() - 1, len(values)))
        for value in values:
            begins.append(floats)
            each.append(value)
            floats += 2 * value.size
    table = np.array(rows, np.int64).reshape(-1, 3)
    owners = np.repeat(np.arange(len(rows)), table[:, COUNT])  # set of each matrix
    matrices, effects = np.zeros(floats), np.zeros(floats)
    for qubits in (1, 2):
        mine = np.flatnonzero(table[owners, QUBITS] == qubits)
        if not mine.size:
            continue
        stack, size = np.array([each[k] for k in mine.tolist()]), 1 << qubits
        squares = stack.conj().transpose(0, 2, 1) @ stack
        sums = np.zeros((len(rows), size, size), np.complex128)
        np.add.at(sums, owners[mine], squares)
        own = np.unique(owners[mine])
        off = np.abs(sums[own] - np.eye(size)).max(axis=(1, 2))
        if not (off <= _TOLERANCE).all():
            worst = int(np.argmax(~(off <= _TOLERANCE)))
            text = f"the operators of set {own[worst]} keep no trace: off by {off[worst]:.1g}"
            hint = "sum K^+ K is the identity, for a unitary and for a channel"
            raise BadCircuit(text, hint=hint)
        largest = np.linalg.norm(stack, 2, axis=(1, 2))
        largest[(table[owners[mine], COUNT] == 1) | (largest == 0.0)] = 1.0
        places = np.array(begins)[mine, None] + np.arange(2 * size * size)
        for target, found in ((matrices, stack / largest[:, None, None]), (effects, squares)):
            target[places] = np.ascontiguousarray(found).view(np.float64).reshape(mine.size, -1)
    return Operators(table, matrices, effects)


# Error patterns of instances, sorted so that common prefixes are adjacent.
#
# A pattern is the list of errors of an instance. In sorted rows an error is its number in circuit
# order, so a row ascends; rows are in lexicographic order, with a row after its own extensions.


class ErrorPatterns(msgspec.Struct, frozen=True, eq=False):
    """Patterns of instances: instance i has the inserts entries[ends[i] : ends[i + 1]], in any
    order, without repetition."""

    entries: NDArray[np.int64]
    ends: NDArray[np.int64]  # [instances + 1], from 0

    @property
    def count(self) -> int:
        """Number of instances."""
        return self.ends.size - 1


class SortedPatterns(msgspec.Struct, frozen=True, eq=False):
    """Sorted rows for the walk: row r of `entries` begins at begins[r] and ends with `end`."""

    entries: NDArray[np.int64]
    begins: NDArray[np.int64]  # [rows]
    order: NDArray[np.int64]  # [rows]: numbers of rows, sorted
    deepest: int  # largest number of inserts of a row
    end: int  # greater than any place
    # [rows]: set of parameters of each row, by which `order` is sorted first; empty: one set
    sets: NDArray[np.int64] = msgspec.field(default_factory=lambda: np.zeros(0, np.int64))

    def of_sets(self, sets: NDArray[np.int64]) -> SortedPatterns:
        """The rows of each set together. `sets` [rows]."""
        order = self.order[np.argsort(sets[self.order], kind="stable")]
        return msgspec.structs.replace(self, order=order, sets=sets)


def row_work(rows: SortedPatterns, done: NDArray[np.int64]) -> NDArray[np.int64]:
    """Operations that each sorted row adds to those of the rows before it, 0 for one that equals
    its neighbour, all of them for the first one of a set: int64 [rows]. done[place]: number of
    operations before it; done[-1]: all."""
    result = np.zeros(rows.order.size, np.int64)
    _row_work(rows.order, rows.begins, rows.entries, rows.sets, done, result)
    return result


@kernel("I64 I64 I64 I64 I64 I64", group="trajectories")
def _row_work(order, begins, entries, sets, done, work):  # type: ignore[no-untyped-def]
    """Compiled `row_work`."""
    end = done.size - 1
    for k in range(order.size):
        if k == 0 or (sets.size and sets[order[k]] != sets[order[k - 1]]):
            work[k] = done[end]
            continue
        # At the first difference of two rows, the error of the first row comes earlier, because
        # rows are sorted. Up to there the second row shares its states.
        a, b = begins[order[k - 1]], begins[order[k]]
        while entries[a] == entries[b] and entries[a] != end:
            a += 1
            b += 1
        work[k] = 0 if entries[a] == entries[b] else done[end] - done[entries[a]]
