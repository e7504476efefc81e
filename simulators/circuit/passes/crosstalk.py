"""Static ZZ interaction of coupled qubits: its times, and its places in a circuit.

The interaction commutes with diagonal gates. So the time since the last operation that is not
diagonal acts in one piece, right before the next such operation on one of the two qubits. It has no
effect before both qubits had an operation, and none is added during a gate on both, whose error was
measured with it. During an echoed cross-resonance gate on one of them there is none either: the
half turn of the control reverses its interaction with its neighbours, and the rotary tone on the
target turns the target about X (Sheldon et al., arXiv 1603.04821; Sundaresan et al., arXiv
2007.02925, which measures what is left). A Z rotation of the neighbour, which the echo leaves and
which depends on no state, is omitted. Operations are visited in the order of the circuit, which may
differ from the order of their start times: a piece then acts before an operation that starts
earlier. Inside a block there is none.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit import gates
from simulators.circuit.ir import Circuit
from simulators.circuit.operands import Operands
from simulators.circuit.schedule import Schedule
from simulators.compiler.kernel import I64, INT, INTS2, REAL, REALS, device_function, kernel

_LEAST_NS = 1e-6
_SCALE = 1e6  # scale of times that are rounded, so that equal times share a channel
# Gates that are made of echoed cross-resonance pulses where they are native.
_ECHOED = ("cx", "ecr", "rzx")
_DIAGONAL, _REFOCUSED = 1, 2  # kinds of operations; 0: all others
KINDS = np.zeros(gates.FIRST_GATE + len(gates.GATES), np.int64)
KINDS[[gate.code for gate in gates.GATES.values() if gate.diagonal]] = _DIAGONAL
KINDS[[gates.GATES[name].code for name in _ECHOED]] = _REFOCUSED

Pair = tuple[int, int]


class InteractionTimes(msgspec.Struct, frozen=True, eq=False):
    """Pieces of interaction, in the order of the circuit."""

    after: NDArray[np.int64]  # [pieces]: the operation that each follows
    pair: NDArray[np.int64]  # [pieces]: its number among the given pairs
    time_ns: NDArray[np.float64]  # [pieces]


@device_function
def _piece(k, pair, start, pairs, active, since, after, which, time, count):  # type: ignore[no-untyped-def]
    """Add the interaction of a pair before operation k; returns the number of pieces."""
    if active[pairs[pair, 0]] and active[pairs[pair, 1]] and start - since[pair] > _LEAST_NS:
        after[count], which[count] = k - 1, pair
        time[count] = np.rint((start - since[pair]) * _SCALE) / _SCALE
        return count + 1
    return count


@device_function
def interaction_pieces(  # type: ignore[no-untyped-def]
    codes, kinds, first, wires, start, length, total, pairs, begins, mine, active, since, after,
    which, time,
):  # fmt: skip
    """Fill `after`, `which` and `time`; returns the number of pieces.

    `kinds`: by code. Pairs of qubit q: `mine[begins[q] : begins[q + 1]]`. `active` [qubits]: zeros.
    `since` [pairs]: infinity, until an operation on the pair.
    """
    depth = count = 0
    for k in range(codes.size):
        code = codes[k]
        if code == gates.END_BLOCK:
            depth -= 1
        elif code in (gates.IF, gates.WHILE, gates.FOR, gates.SWITCH):
            depth += 1
            if depth == 1:
                for p in range(since.size):
                    count = _piece(k, p, start[k], pairs, active, since, after, which, time, count)
                    if since[p] < np.inf:
                        since[p] = start[k] + length[k]
        elif depth:
            if code >= gates.MEASURE:
                for j in range(first[k], first[k + 1]):
                    active[wires[j]] = 1
        elif code in (gates.MEASURE, gates.RESET) or code >= gates.UNITARY:
            low, high = first[k], first[k + 1]
            if kinds[code] == _DIAGONAL:
                if high - low == 2:
                    for m in range(begins[wires[low]], begins[wires[low] + 1]):
                        p = mine[m]
                        if pairs[p, 0] == wires[low + 1] or pairs[p, 1] == wires[low + 1]:
                            since[p] += length[k]
            else:
                for j in range(low, high):
                    for m in range(begins[wires[j]], begins[wires[j] + 1]):
                        p = mine[m]
                        other = pairs[p, 0] + pairs[p, 1] - wires[j]
                        seen = both = False
                        for i in range(low, high):
                            both |= wires[i] == other
                            seen |= wires[i] == other and i < j
                        if seen:
                            continue
                        count = _piece(
                            k, p, start[k], pairs, active, since, after, which, time, count
                        )
                        free = both or kinds[code] == _REFOCUSED
                        end = start[k] + (length[k] if free else 0.0)
                        since[p] = end if since[p] == np.inf else max(since[p], end)
            for j in range(low, high):
                active[wires[j]] = 1
    for p in range(since.size):
        count = _piece(
            np.int64(codes.size), p, total, pairs, active, since, after, which, time, count
        )
    return count


_pieces = kernel(
    I64, I64, I64, I64, REALS, REALS, REAL, INTS2, I64, I64, I64, REALS, I64, I64, REALS,
    returns=INT, group="attachment",
)(interaction_pieces)  # fmt: skip


class CoupledPairs(msgspec.Struct, frozen=True, eq=False):
    """Coupled pairs, by number and by qubit."""

    ends: NDArray[np.int64]  # [pairs, 2]
    first: NDArray[np.int64]  # [pairs]: first column of `ends`
    second: NDArray[np.int64]
    begins: NDArray[np.int64]  # [qubits + 1]
    mine: NDArray[np.int64]  # pairs of qubit q: mine[begins[q] : begins[q + 1]]
    max_degree: int  # largest number of pairs of one qubit

    @classmethod
    def of(cls, pairs: Sequence[Pair], num_qubits: int) -> CoupledPairs:
        """Make the table; pairs among the first `num_qubits` qubits keep their numbers, others
        belong to no qubit."""
        ends = np.array(pairs, np.int64).reshape(-1, 2)
        owners = ends.ravel()
        inside = np.flatnonzero((ends < num_qubits).all(axis=1).repeat(2))
        mine = inside[np.argsort(owners[inside], kind="stable")]
        begins = np.zeros(num_qubits + 1, np.int64)
        degrees = np.bincount(owners[inside], minlength=num_qubits)
        np.cumsum(degrees, out=begins[1:])
        first, second = ends.T.copy()
        return cls(ends, first, second, begins, mine >> 1, int(degrees.max(initial=0)))


def interaction_times(
    circuit: Circuit, operands: Operands, schedule: Schedule, pairs: CoupledPairs
) -> InteractionTimes:
    """Pieces of interaction of a circuit. `pairs`: for at least as many qubits as the circuit
    has."""
    codes, first, wires = operands.codes, operands.first, operands.wires
    heads = (
        np.isin(codes, (gates.IF, gates.WHILE, gates.FOR, gates.SWITCH)).sum()
        if circuit.conditions_data
        else 0
    )
    number = len(pairs.ends)
    room = int(wires.size * pairs.max_degree + (1 + heads) * number)
    (after, which), time = np.empty((2, room), np.int64), np.empty(room)
    count = _pieces(
        codes, KINDS, first, wires, schedule.start_ns, schedule.length_ns,
        schedule.duration_ns, pairs.ends, pairs.begins, pairs.mine,
        np.zeros(pairs.begins.size - 1, np.int64), np.full(number, np.inf), after, which, time,
    )  # fmt: skip
    return InteractionTimes(after[:count], which[:count], time[:count])
