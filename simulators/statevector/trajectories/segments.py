"""Segments of a wide circuit: ranges of operations of about one sweep, planned once.

A sweep changes only its tile's qubits, so a segment takes all operations that move amplitude along
these, also past others that wait. Operations that share a qubit never change their order, and
neither do errors and operations.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.gates import BARRIER, DELAY, DELAY_DT, GATES, UNITARY
from simulators.circuit.ir import Circuit
from simulators.statevector.planning.lowering import MOST_QUBITS
from simulators.statevector.planning.tables import LANE_WIRES
from simulators.trajectories import noise_table


class Segments(msgspec.Struct, frozen=True, eq=False):
    """Operations in execution order, and the bounds of segments. Positions are indices into this
    order."""

    order: NDArray[np.int64]  # operations of the circuit
    bounds: NDArray[np.int64]  # [segments + 1] positions
    place_at: NDArray[np.int64]  # [inserts + 1]: of each insert of the table; then the end

    @property
    def floor(self) -> NDArray[np.int64]:
        """Begin of the segment of each position; the end is a segment of its own."""
        return self.bounds[self._number]

    @property
    def ceil(self) -> NDArray[np.int64]:
        """End of the segment of each position."""
        last = self.bounds.size - 1
        return self.bounds[np.minimum(self._number + 1, last)]

    @property
    def _number(self) -> NDArray[np.intp]:
        return np.searchsorted(self.bounds, np.arange(self.order.size + 1), side="right") - 1


class _Site(msgspec.Struct, frozen=True):
    """Operation, or a place of inserts that need qubits together."""

    operation: int  # -1: none
    wires: int
    moves: int = 0  # wires along which it moves amplitudes
    alone: bool = False
    after: int = -1  # of a place


def divide(circuit: Circuit, inserts: noise_table.NoiseTable, width: int) -> Segments:
    """Divide a circuit into segments. `width`: wires of a tile."""
    # Operations in order. If the inserts after an operation touch further qubits, a place follows
    # that needs all of these together; its position is computed later.
    rows = circuit.table.rows[circuit.ops]
    begins = np.cumsum(rows[:, 1]) - rows[:, 1]
    touched: dict[int, int] = {}
    after_ops, supports = inserts.table[:, noise_table.AFTER_OP].tolist(), inserts.supports.tolist()
    for after, support in zip(after_ops, supports, strict=True):
        touched[after] = touched.get(after, 0) | support
    sites = [_Site(-1, touched[-1])] if -1 in touched else []
    behind = dict.fromkeys([-1], 0)
    for k, (code, count, _, _) in enumerate(rows.tolist()):
        qubits = circuit.qubits[begins[k] : begins[k] + count].tolist()
        wires = 0 if code in _IDLE else sum(1 << q for q in qubits)
        moves = sum(1 << q for q in _moved(code, qubits))
        sites.append(_Site(k, wires, moves, code == UNITARY and count > MOST_QUBITS))
        if touched.get(k, 0) & ~wires:
            sites.append(_Site(-1, touched[k], after=k))
            behind[k] = 0
    order: list[int] = []
    bounds = [0]
    lanes = (1 << LANE_WIRES) - 1
    while sites:
        tile, blocked = lanes, 0
        waiting: list[_Site] = []
        for site in sites:
            wide = site.alone or (tile | site.moves).bit_count() > width
            wide = wide and len(order) > bounds[-1]
            if site.wires & blocked or wide:
                blocked |= site.wires
                waiting.append(site)
            elif site.operation < 0:
                behind[site.after] = len(order)
            else:
                tile |= 0 if site.alone else site.moves
                order.append(site.operation)
                behind.setdefault(site.operation, -len(order))
                blocked = -1 if site.alone else blocked
        sites = waiting
        if len(order) > bounds[-1]:
            bounds.append(len(order))
    place_at = [abs(behind[after]) for after in inserts.table[:, noise_table.AFTER_OP].tolist()]
    return Segments(
        np.array(order, np.int64),
        np.array(bounds, np.int64),
        np.array([*place_at, len(order)], np.int64),
    )


def _moved(code: int, qubits: list[int]) -> set[int]:
    if code == UNITARY:
        return set(qubits)
    result = set()
    for piece in _PIECES.get(code, ()):
        targets = qubits[len(qubits) - piece.targets :]
        moves = piece.low ^ piece.high
        result |= {q for j, q in enumerate(targets) if moves >> j & 1}
    return result


_IDLE = {BARRIER, DELAY, DELAY_DT}
_PIECES = {gate.code: gate.pieces for gate in GATES.values()}


def ranges(
    floor: list[int], ceil: list[int], begin: int, end: int, positions: list[int], drawn: list[bool]
) -> list[tuple[int, int, int, int]]:
    """Ranges (first, last, low, high): operations first .. last - 1 are executed together, with
    inserts low .. high - 1 among them. The ranges of a row do not depend on how much of it is
    executed at once: they end with segments, and before a channel. `positions`, `drawn`: of each
    insert."""
    results: list[tuple[int, int, int, int]] = []
    at, low = begin, 0
    for k, position in enumerate(positions):
        while floor[position] > floor[at]:
            results.append((at, ceil[at], low, k))
            at, low = ceil[at], k
        if drawn[k] and (position > at or low < k):
            results.append((at, position, low, k))
            at, low = position, k
    while at < end:
        stop = min(ceil[at], end)
        results.append((at, stop, low, len(positions)))
        at, low = stop, len(positions)
    if low < len(positions):
        results.append((at, at, low, len(positions)))
    return results
