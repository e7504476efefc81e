"""Gate lists: gates of a narrow state as placed factors, applied tile by tile.

A tile is the 2**k amplitudes that k chosen qubits span. Factors of a tile's sweep move amplitude
only within tiles; controls and phases may be on any qubit. Factors that share no qubit, or share it
only diagonally, may be reordered. The order depends on the structure alone.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.gates import FIRST_GATE
from simulators.circuit.ir import Circuit
from simulators.compiler.kernel import (
    F64,
    I64,
    INT,
    NAMES,
    REALS,
    REALS2,
    SINGLES,
    U16,
    WORD,
    WORDS2,
    device_function,
    kernel,
)
from simulators.compiler.simd import LANES
from simulators.statevector.checkpoint import arrays_of
from simulators.statevector.small.gate_kernels import COUNTS, apply, place
from simulators.statevector.state import BlockExecutor, State, load, spread, store

_WINDOW = 1000  # skipped steps before a pass is closed: keeps planning linear
_0 = np.uint64(0)
_1 = np.uint64(1)


@kernel(NAMES, U16, U16, F64, INT, INT, INT, INT, WORDS2, REALS2, returns=INT, group="deferred")
def place_all(  # type: ignore[no-untyped-def]
    rows, ops, qubits, params, first, last, at_qubit, at_param, ints, floats
):
    """Write the steps of operations first .. last - 1 in order; returns their number."""
    row = first - first
    for k in range(first, last):
        op = ops[k]
        if rows[op, 0] >= FIRST_GATE:
            row = place(
                rows[op, 0], qubits, at_qubit, rows[op, 1], params, at_param, ints, floats, row
            )
        at_qubit += rows[op, 1]
        at_param += rows[op, 3]
    return row


@device_function
def compress(word, tile):  # type: ignore[no-untyped-def]
    """Bits of `word` at the positions of `tile`, packed together."""
    result = _0
    at = _0
    while tile:
        low = tile & (~tile + _1)
        if word & low:
            result |= _1 << at
        at += _1
        tile ^= low
    return result


@device_function
def _count(word):  # type: ignore[no-untyped-def]
    total = 0
    while word:
        word &= word - _1
        total += 1
    return total


@kernel(WORDS2, INT, INT, WORD, I64, I64, WORDS2, WORDS2, returns=INT, group="deferred")
def arrange(ints, n, room, low, next_, starts, tiles, placed):  # type: ignore[no-untyped-def]
    """Divide steps into passes; returns the number of passes.

    Pass p is rows starts[p] .. starts[p + 1] - 1 of `placed` (int columns above; STEP is the row of
    `ints` of its origin), with the qubits tiles[p, 0]. `next_`: scratch, int64 [steps + 1].
    """
    steps = ints.shape[0]
    everything = (_1 << np.uint64(n)) - _1
    for k in range(steps + 1):
        next_[k] = k  # a list of the steps not yet taken: next_[k + 1] follows k
    out = 0
    passes = 0
    while next_[0] < steps:
        tile = low & everything
        moved = seen = _0  # qubits of skipped steps: moved along; acted on
        left = 0
        before = -1
        k = next_[0]
        starts[passes] = out
        while k < steps and (moved != everything or not n) and left < _WINDOW:
            mask = ints[k, 1]
            moves = ints[k, 2] ^ ints[k, 3]
            fits = not (moves & seen) and not (mask & moved)
            if fits and moves & ~tile:
                fits = _count(tile | moves) <= room
            if fits:
                tile |= moves
                placed[out, STEP] = k
                out += 1
                next_[before + 1] = next_[k + 1]
            else:
                moved |= moves
                seen |= mask
                left += 1
                before = k
            k = next_[k + 1]
        for q in range(n):
            if _count(tile) < room:
                tile |= _1 << np.uint64(q)
        tiles[passes, 0] = tile
        passes += 1
    starts[passes] = out
    for p in range(passes):
        tile = tiles[p, 0]
        for r in range(starts[p], starts[p + 1]):
            k = placed[r, STEP]
            placed[r, KIND] = ints[k, 0]
            placed[r, MASK] = compress(ints[k, 1], tile)
            placed[r, ZERO] = compress(ints[k, 2], tile)
            placed[r, ONE] = compress(ints[k, 3], tile)
            placed[r, OUTER] = ints[k, 1] & ~tile
            placed[r, VALUE] = ints[k, 2] & ~tile
    return passes


@kernel(REALS, SINGLES, INT, WORD, WORDS2, INT, INT, REALS2, INT, INT, I64, REALS, group="deferred")
def sweep_kernel(  # type: ignore[no-untyped-def]
    reals, singles, n, tile, placed, first_step, last_step, floats, first, last, control, scratch
):
    """Apply steps first_step .. last_step - 1 of a pass to tiles first .. last - 1.

    `scratch`: float64 [2 * tile size], at least 2 * LANES; the control flag is read before each
    step.
    """
    room = scratch.size // 2
    re, im = scratch[:room], scratch[room:]
    size = min(room, np.int64(1) << n)
    stretch = np.int64(~tile & (tile + _1))  # the tile's lowest qubits, without a gap
    if stretch > size or stretch == 0:
        stretch = np.int64(size)
    outside = ((_1 << np.uint64(n)) - _1) & ~tile
    above = tile & ~np.uint64(stretch - 1)
    for number in range(first, last):
        base = spread(np.uint64(number), outside)
        for at in range(0, size, stretch):
            start = np.int64(base | spread(np.uint64(at // stretch), above))
            load(reals, singles, start, stretch, re, im, at)
        for s in range(first_step, last_step):
            if control[0]:
                return
            if base & placed[s, 4] == placed[s, 5]:
                kind, mask, zero_bits, one_bits = (
                    placed[s, 0],
                    placed[s, 1],
                    placed[s, 2],
                    placed[s, 3],
                )
                apply(re, im, size, kind, mask, zero_bits, one_bits, floats, np.int64(placed[s, 6]))
        for at in range(0, size, stretch):
            start = np.int64(base | spread(np.uint64(at // stretch), above))
            store(reals, singles, start, stretch, re, im, at)


TILE_QUBITS = 13  # 2**13 amplitudes in double are 128 kB: second cache
LOW_QUBITS = 5  # always in the tile, so that memory accesses are 512 consecutive bytes

# Columns of a placed step.
KIND, MASK, ZERO, ONE, OUTER, VALUE, STEP = range(7)


class GateList(msgspec.Struct, frozen=True, eq=False):
    """Steps of a range of operations, in passes; a binding supplies the numbers (`floats`)."""

    first: int  # operations first .. last - 1
    last: int
    at_qubit: int  # index of their first qubit and parameter
    at_param: int
    steps: int
    starts: NDArray[np.int64]  # [passes + 1]: rows of `placed`
    tiles: NDArray[np.uint64]  # [passes]: qubits of each tile, as a mask
    placed: NDArray[np.uint64]  # [steps, 7]
    num_sweeps: int = 0  # the state is small
    num_steps: int = 0

    @property
    def operations(self) -> int:
        """Number of the circuit's operations in it."""
        return self.last - self.first

    @property
    def memory_bytes(self) -> int:
        """Bytes of its arrays."""
        return self.starts.nbytes + self.tiles.nbytes + self.placed.nbytes

    def arrays(self) -> list[NDArray[Any]]:
        """See `CompiledSegment`."""
        return arrays_of(self)

    def floats(self, circuit: Circuit, params: NDArray[np.float64]) -> NDArray[np.float64]:
        """The matrices of all steps for these parameters: float64 [steps, 8]."""
        floats = np.empty((self.steps, 8))
        _place(circuit, params, self, np.empty((self.steps, 4), np.uint64), floats)
        return floats


def _place(
    circuit: Circuit,
    params: NDArray[np.float64],
    where: GateList,
    ints: NDArray[np.uint64],
    floats: NDArray[np.float64],
) -> None:

    place_all(
        circuit.table.rows,
        circuit.ops,
        circuit.qubits,
        params,
        where.first,
        where.last,
        where.at_qubit,
        where.at_param,
        ints,
        floats,
    )


def plan_gate_list(
    circuit: Circuit, first: int, last: int, at_qubit: int, at_param: int
) -> GateList:
    """Plan the passes of the gates among operations first .. last - 1; other operations have no
    effect."""

    rows = circuit.table.rows
    steps = int(COUNTS[rows[circuit.ops[first:last], 0]].sum())
    ints = np.empty((steps, 4), np.uint64)
    none = np.empty(0, np.int64)
    draft = GateList(first, last, at_qubit, at_param, steps, none, none.view(np.uint64), ints)
    _place(circuit, circuit.params, draft, ints, np.empty((steps, 8)))
    room = min(TILE_QUBITS, circuit.num_qubits)
    scratch, starts = np.empty(steps + 1, np.int64), np.empty(steps + 1, np.int64)
    tiles, placed = np.empty((steps, 1), np.uint64), np.empty((steps, 7), np.uint64)
    low = (1 << LOW_QUBITS) - 1
    entry = arrange(ints, circuit.num_qubits, room, low, scratch, starts, tiles, placed)
    return GateList(
        first,
        last,
        at_qubit,
        at_param,
        steps,
        starts[: entry + 1].copy(),
        tiles[:entry, 0].copy(),
        placed,
    )


def apply_gates(
    sweeper: BlockExecutor, state: State, passes: GateList, floats: NDArray[np.float64]
) -> None:
    """Apply all passes to the state, tile by tile. Raises Stopped."""

    state.changed()
    starts = passes.starts.tolist()
    unit = min(TILE_QUBITS, state.num_qubits)
    for number, tile in enumerate(passes.tiles):
        first_step, last_step = starts[number], starts[number + 1]

        def work(
            first: int,
            last: int,
            thread: int,
            tile: np.uint64 = tile,
            first_step: int = first_step,
            last_step: int = last_step,
        ) -> None:
            sweep_kernel(
                state.reals,
                state.singles,
                state.num_qubits,
                tile,
                passes.placed,
                first_step,
                last_step,
                floats,
                first,
                last,
                sweeper.flag,
                sweeper.scratch(thread, max(2 << unit, 2 * LANES)),
            )

        sweeper.parallel_for(state.num_qubits, unit, work)
