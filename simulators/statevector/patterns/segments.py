"""Where a large circuit is cut: ranges of operations of which each is one pass, about.

A pass may change a tile's wires alone, so a segment takes all operations that move amplitudes along
these, past others that have to wait. Operations that share a qubit never change their order, and
neither do inserts and operations: what an insert stands behind in the circuit is before it here.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.gates import BARRIER, DELAY, DELAY_DT, GATES, UNITARY
from simulators.circuit.ir import Circuit
from simulators.statevector.patterns.inserts import AFTER, Inserts
from simulators.statevector.planning.lower import MOST_QUBITS
from simulators.statevector.sweeps import LANE_WIRES


class Segments(msgspec.Struct, frozen=True, eq=False):
    """Operations in the order they are done, and where segments begin. Positions count these."""

    order: NDArray[np.int64]  # operations of the circuit
    bounds: NDArray[np.int64]  # [segments + 1] positions
    place_at: NDArray[np.int64]  # [inserts + 1]: of each insert of the table; then the end

    @property
    def floor(self) -> NDArray[np.int64]:
        """Of each position, where its segment begins; the end is one of its own."""
        return self.bounds[self._number]

    @property
    def ceil(self) -> NDArray[np.int64]:
        """Where it ends."""
        last = self.bounds.size - 1
        return self.bounds[np.minimum(self._number + 1, last)]

    @property
    def _number(self) -> NDArray[np.intp]:
        return np.searchsorted(self.bounds, np.arange(self.order.size + 1), side="right") - 1


class _Site(msgspec.Struct, frozen=True):
    """An operation, or a place of inserts that must hold qubits together."""

    operation: int  # -1: none
    wires: int
    moves: int = 0  # wires along which it moves amplitudes
    alone: bool = False
    after: int = -1  # of a place


def divide(circuit: Circuit, inserts: Inserts, width: int) -> Segments:
    """`width`: wires of a tile."""
    sites, behind = _sites(circuit, inserts)
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
    place_at = [abs(behind[after]) for after in inserts.table[:, AFTER].tolist()]
    return Segments(
        np.array(order, np.int64),
        np.array(bounds, np.int64),
        np.array([*place_at, len(order)], np.int64),
    )


def _sites(circuit: Circuit, inserts: Inserts) -> tuple[list[_Site], dict[int, int]]:
    """Operations in order. Behind one whose inserts touch qubits that it does not is a place that
    holds all of these together, and where it stands is to be found out."""
    rows = circuit.table.rows[circuit.ops]
    begins = np.cumsum(rows[:, 1]) - rows[:, 1]
    touched: dict[int, int] = {}
    for row, after in enumerate(inserts.table[:, AFTER].tolist()):
        touched[after] = touched.get(after, 0) | inserts.support(row)
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
    return sites, behind


def _moved(code: int, qubits: list[int]) -> set[int]:
    if code == UNITARY:
        return set(qubits)
    found = set()
    for piece in _PIECES.get(code, ()):
        targets = qubits[len(qubits) - piece.targets :]
        moves = piece.zero ^ piece.one
        found |= {q for j, q in enumerate(targets) if moves >> j & 1}
    return found


_IDLE = {BARRIER, DELAY, DELAY_DT}
_PIECES = {gate.code: gate.pieces for gate in GATES.values()}


def ranges(
    floor: list[int],
    ceil: list[int],
    begin: int,
    end: int,
    positions: list[int],
    drawn: list[bool],
) -> list[tuple[int, int, int, int]]:
    """(first, last, low, high): operations first .. last - 1 are done in one go, with inserts
    low .. high - 1 among them. These are the same for a row however much of it is done at once:
    they end with segments, and before a channel. `positions`, `drawn`: of each insert."""
    found: list[tuple[int, int, int, int]] = []
    at, low = begin, 0
    for k, position in enumerate(positions):
        while floor[position] > floor[at]:
            found.append((at, ceil[at], low, k))
            at, low = ceil[at], k
        if drawn[k] and (position > at or low < k):
            found.append((at, position, low, k))
            at, low = position, k
    while at < end:
        stop = min(ceil[at], end)
        found.append((at, stop, low, len(positions)))
        at, low = stop, len(positions)
    if low < len(positions):
        found.append((at, at, low, len(positions)))
    return found
