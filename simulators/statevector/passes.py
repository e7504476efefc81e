"""Which steps are applied together: a pass sweeps the state once, tile by tile.

A tile is the 2**k amplitudes that k chosen qubits span. All steps of a pass that move amplitude do
so within tiles; controls and phases may look at any qubit. Steps that commute because they share no
qubit, or share it only diagonally, may change places. The choice depends on the structure alone.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit
from simulators.statevector.state import State, Sweeper
from simulators.statevector.steps import COUNTS
from simulators.vectors import LANES

TILE_QUBITS = 13  # 2**13 amplitudes in double are 128 kB: second cache
LOW_QUBITS = 5  # always in the tile, so that memory is touched in stretches of 512 bytes

# Columns of a placed step.
KIND, MASK, ZERO, ONE, OUTER, VALUE, STEP = range(7)


class Passes(msgspec.Struct, frozen=True, eq=False):
    """The steps of a stretch of operations, in passes; numbers (`floats`) come with a binding."""

    first: int  # operations first .. last - 1
    last: int
    at_qubit: int  # where their qubits and parameters begin
    at_param: int
    steps: int
    starts: NDArray[np.int64]  # [passes + 1]: rows of `placed`
    tiles: NDArray[np.uint64]  # [passes]: qubits of each tile, as a mask
    placed: NDArray[np.uint64]  # [steps, 7]

    @property
    def table(self) -> Passes:
        """What goes to `States.apply`."""
        return self

    @property
    def operations(self) -> int:
        """Operations of the circuit in it."""
        return self.last - self.first

    @property
    def memory_bytes(self) -> int:
        """Bytes of its arrays."""
        return self.starts.nbytes + self.tiles.nbytes + self.placed.nbytes

    def floats(self, circuit: Circuit, params: NDArray[np.float64]) -> NDArray[np.float64]:
        """The matrices of all steps for these parameters: float64 [steps, 8]."""
        floats = np.empty((self.steps, 8))
        _place(circuit, params, self, np.empty((self.steps, 4), np.uint64), floats)
        return floats


def _place(
    circuit: Circuit,
    params: NDArray[np.float64],
    where: Passes,
    ints: NDArray[np.uint64],
    floats: NDArray[np.float64],
) -> None:
    from simulators.statevector.kernels.passes import place_all

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


def make(circuit: Circuit, first: int, last: int, at_qubit: int, at_param: int) -> Passes:
    """Passes of the gates among operations first .. last - 1; other operations do nothing."""
    from simulators.statevector.kernels.passes import arrange

    rows = circuit.table.rows
    steps = int(COUNTS[rows[circuit.ops[first:last], 0]].sum())
    ints = np.empty((steps, 4), np.uint64)
    none = np.empty(0, np.int64)
    draft = Passes(first, last, at_qubit, at_param, steps, none, none.view(np.uint64), ints)
    _place(circuit, circuit.params, draft, ints, np.empty((steps, 8)))
    room = min(TILE_QUBITS, circuit.num_qubits)
    scratch, starts = np.empty(steps + 1, np.int64), np.empty(steps + 1, np.int64)
    tiles, placed = np.empty((steps, 1), np.uint64), np.empty((steps, 7), np.uint64)
    low = (1 << LOW_QUBITS) - 1
    found = arrange(ints, circuit.num_qubits, room, low, scratch, starts, tiles, placed)
    return Passes(
        first,
        last,
        at_qubit,
        at_param,
        steps,
        starts[: found + 1].copy(),
        tiles[:found, 0].copy(),
        placed,
    )


def apply(sweeper: Sweeper, state: State, passes: Passes, floats: NDArray[np.float64]) -> None:
    """Apply all passes to the state, tile by tile. Raises Stopped."""
    from simulators.statevector.kernels.sweep import sweep

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
            sweep(
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

        sweeper.over(state.num_qubits, unit, work)
