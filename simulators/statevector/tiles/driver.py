"""Driver of sweeps over a state in memory, by the threads of a pool."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import Kernel
from simulators.statevector.planning.tables import LANE_WIRES, LANES, SweepTable
from simulators.statevector.state import BlockExecutor, State, room
from simulators.statevector.tiles.phase_ops import FACTORS, NOTES, PRODUCTS
from simulators.statevector.tiles.sweep_kernel import (
    fill_double,
    fill_single,
    locate_double,
    locate_single,
    run_double,
    run_single,
)
from simulators.statevector.tiles.tile_ops import PHASES

_ALONE = 1 << 16  # states with fewer amplitudes are not worth a second thread
_AT_ONCE = 1 << 23  # amplitudes processed between two reads of the control flag
_MOST_PASSES = 256  # passes of one call
_FIRST_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index0/size")
_NO_NORMS = np.empty(0)


@functools.lru_cache(maxsize=2)
def _strip(itemsize: int) -> int:
    """Number of row bits of a strip: 2**n rows take at most two thirds of the first cache. Results
    do not depend on it."""
    try:
        size = int(_FIRST_CACHE.read_text().strip().removesuffix("K")) << 10
    except (OSError, ValueError):
        size = 1 << 15
    return (2 * size // (3 * 2 * LANES * itemsize)).bit_length() - 1


class TileKernels(NamedTuple):
    """Kernels of one precision."""

    sweep: Kernel
    row_norms: Kernel
    locate: Kernel


_KERNELS = {
    True: TileKernels(run_double, fill_double, locate_double),
    False: TileKernels(run_single, fill_single, locate_single),
}


def kernels(state: State) -> TileKernels:
    """The kernels of the state's precision."""
    return _KERNELS[state.reals.size > 0]


def apply(
    sweeper: BlockExecutor,
    state: State,
    plan: SweepTable,
    floats: NDArray[np.float64],
    *,
    first: int = 0,
    last: int | None = None,
    high: int = 0,
    norms: bool = True,
) -> None:
    """Apply passes first .. last - 1, by default all. Raises Stopped.

    `high`: the bits of all indices that are given by the rank number. `norms`: the last pass
    computes the norms of the state's rows, which sampling uses.
    """
    end = len(plan.starts) - 1 if last is None else last
    if first >= end:
        return
    alive = state.live
    all_wires = (1 << state.num_qubits) - 1 | high
    full = int(plan.live[end - 1]) & all_wires == all_wires  # the last pass visits all tiles
    # If it does, the passes together write all amplitudes before they read them.
    all_written = full and first == 0 and end == len(plan.starts) - 1
    amplitudes = state.overwritten() if all_written else state.amplitudes
    state.changed()
    filled = _NO_NORMS
    if norms:
        filled, clean = room(1 << (state.num_qubits - LANE_WIRES), np.float64)
        if not clean and not full:
            filled.fill(0.0)
    call = _Call(sweeper, amplitudes, plan, floats, high)
    step = max(1, min(_MOST_PASSES, _AT_ONCE >> state.num_qubits))
    for begin in range(first, end, step):
        stop = min(begin + step, end)
        call(begin, stop, alive, filled if stop == end else _NO_NORMS)
        alive = int(plan.live[stop - 1])
        sweeper.passed(stop - begin)
    state.live = alive
    state.norms = filled if norms else None


class _Call:
    """Kernel with the common arguments of its calls."""

    def __init__(
        self,
        sweeper: BlockExecutor,
        amplitudes: NDArray[np.complexfloating],
        plan: SweepTable,
        floats: NDArray[np.float64],
        high: int,
    ) -> None:
        self._sweeper = sweeper
        is_double = amplitudes.dtype == np.complex128
        self._run = _KERNELS[is_double].sweep
        reals = amplitudes.view(np.float64 if is_double else np.float32)
        rounded = floats if is_double else floats.astype(np.float32)
        num_qubits = amplitudes.size.bit_length() - 1
        ints = (plan.starts, plan.places, plan.live, plan.ops, plan.terms)
        self._plan = (
            reals,
            num_qubits,
            plan.width,
            *(table.view(np.int64) for table in ints),
            floats,
            rounded,
        )
        self._high = high
        self._type = "float64" if is_double else "float32"  # the conversion of a dtype is slow
        self._rows = 1 << (plan.width - LANE_WIRES)
        tiles = 1 << (num_qubits - plan.width)
        self._most = _strip(reals.itemsize)
        self._threads = min(sweeper.thread_pool.size, tiles) if 1 << num_qubits >= _ALONE else 1

    def __call__(self, first: int, last: int, initial: int, norms: NDArray[np.float64]) -> None:
        """Run passes first .. last - 1. Raises Stopped."""
        sweeper, rows, threads = self._sweeper, self._rows, self._threads
        marks = np.zeros((last - first) * (threads + 1), np.int64)

        def work(_first: int, _last: int, me: int) -> None:
            size = 2 * LANES * (rows + rows // 8 + rows // 64)
            scratch = sweeper.aligned_scratch(me, self._type, size + PHASES * (2 * rows + FACTORS))
            int_scratch = sweeper.aligned_scratch(me, "int64", 3 * rows + PHASES * NOTES)
            products = sweeper.aligned_scratch(me, "float64", PRODUCTS)
            self._run(
                *self._plan, first, last, self._high, initial, self._most, me, threads, marks,
                sweeper.flag, scratch, int_scratch, products, norms,
            )  # fmt: skip

        sweeper.thread_pool.run(work, threads, 1)
