"""Sweep kernels, the work sharing of their threads, and their driver."""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from simulators.compiler.kernel import (
    I64,
    INT,
    Kernel,
    device_function,
    inline_function,
    kernel,
    record,
)
from simulators.compiler.simd import count
from simulators.statevector.planning.tables import LANE_WIRES, LANES, SweepTable
from simulators.statevector.state import BlockExecutor, State, room
from simulators.statevector.tiles.phase_ops import FACTORS, NOTES, PRODUCTS, fill, locate, spread
from simulators.statevector.tiles.tile_ops import PHASES, concerned, load, operate, store

# Work sharing between threads over the tiles of many sweeps, without barriers.
#
# Each thread owns a range of a sweep's tiles, so that it finds the same memory in its cache in each
# sweep, and then takes tiles that others have not begun. A sweep begins when all tiles of the one
# before are done, so a thread waits only for tiles in progress.

_SPINS = 4096  # polls before the processor is yielded to other threads
_X86 = platform.machine() in ("x86_64", "AMD64")


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = cgutils.create_struct_proxy(kind)(context, builder, array).data
    return builder.gep(data, [index])


@intrinsic  # type: ignore[untyped-decorator]
def fetch_add(_context: Any, marks: Any, _index: Any, _value: Any) -> Any:
    """Add value to marks[index] atomically; returns the previous value."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        return builder.atomic_rmw("add", pointer, args[2], "seq_cst")

    return types.int64(marks, types.int64, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_acquire(_context: Any, marks: Any, _index: Any) -> Any:
    """Load marks[index] with acquire semantics."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        return builder.load_atomic(pointer, "seq_cst", 8)

    return types.int64(marks, types.int64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _pause(_context: Any) -> Any:
    """Pause instruction for the other hardware thread of a core, if the processor has one."""

    def codegen(context: Any, builder: Any, _given: Any, _args: Any) -> Any:
        if _X86:
            shape = ir.FunctionType(ir.VoidType(), [])
            name = "llvm.x86.sse2.pause"
            builder.call(cgutils.get_or_insert_function(builder.module, shape, name), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _offer(_context: Any) -> Any:
    """Yield the processor to another thread."""

    def codegen(context: Any, builder: Any, _given: Any, _args: Any) -> Any:
        shape = ir.FunctionType(ir.IntType(32), [])
        call = cgutils.get_or_insert_function(builder.module, shape, "sched_yield")
        builder.call(call, [])
        return context.get_dummy_value()

    return types.void(), codegen


_NO_DENORMALS = 1 << 15 | 1 << 6  # of x86's MXCSR: results and operands that are denormal are 0


def _mxcsr(builder: Any, name: str, place: Any) -> None:
    byte = ir.IntType(8).as_pointer()
    shape = ir.FunctionType(ir.VoidType(), [byte])
    call = cgutils.get_or_insert_function(builder.module, shape, f"llvm.x86.sse.{name}")
    builder.call(call, [builder.bitcast(place, byte)])


@intrinsic  # type: ignore[untyped-decorator]
def flush_denormals(_context: Any) -> Any:
    """Compute with 0 in place of denormal numbers in this thread, and return the previous mode:
    amplitudes that cancel leave residues, whose products become denormal in single precision, and
    each operation on one takes a hundred cycles. Without effect on other processors than x86."""

    def codegen(_context: Any, builder: Any, _given: Any, _args: Any) -> Any:
        before = ir.Constant(ir.IntType(32), 0)
        if _X86:
            place = cgutils.alloca_once(builder, ir.IntType(32))
            _mxcsr(builder, "stmxcsr", place)
            before = builder.load(place)
            builder.store(builder.or_(before, ir.Constant(ir.IntType(32), _NO_DENORMALS)), place)
            _mxcsr(builder, "ldmxcsr", place)
        return builder.zext(before, ir.IntType(64))

    return types.int64(), codegen


@intrinsic  # type: ignore[untyped-decorator]
def restore_denormals(_context: Any, _before: Any) -> Any:
    """Restore the mode that `flush_denormals` returned."""

    def codegen(context: Any, builder: Any, _given: Any, args: Any) -> Any:
        if _X86:
            place = cgutils.alloca_once(builder, ir.IntType(32))
            builder.store(builder.trunc(args[0], ir.IntType(32)), place)
            _mxcsr(builder, "ldmxcsr", place)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@inline_function
def spin_wait(marks, index, value, control):  # type: ignore[no-untyped-def]
    """Wait until marks[index] has reached `value`; False if the control flag was set meanwhile."""
    spins = 0
    while load_acquire(marks, index) < value:
        if load_acquire(control, 0):
            return False
        spins += 1
        if spins < _SPINS:
            _pause()
        else:
            _offer()
    return True


# Sweep kernels of both precisions: cache-blocked, tile by tile, by any number of threads.


@device_function
def _arrange(places, p, width, offsets, tile_rows):  # type: ignore[no-untyped-def]
    """Order the rows of a pass's tiles by memory; returns the mask of the tile's wires."""
    inside = 0
    for j in range(width):
        inside |= 1 << places[p, j]
    above = inside >> LANE_WIRES << LANE_WIRES
    at = 0
    for k in range(offsets.size):
        offsets[k] = at
        number = 0
        for j in range(LANE_WIRES, width):
            number |= (at >> places[p, j] & 1) << (j - LANE_WIRES)
        tile_rows[k] = number
        at = (at - above) & above
    return inside


@record
class PassRange(NamedTuple):
    """Passes first .. last - 1 of a sweep table."""

    first: INT
    last: INT
    high: INT  # bits of all indices that are given by the rank number
    alive: INT  # wires that may be 1 in an amplitude that is not 0, before the passes


@record
class WorkShare(NamedTuple):
    """Thread among those that share the tiles of passes."""

    number: INT
    threads: INT
    marks: I64  # [(last - first) * (threads + 1)], initially 0
    control: I64  # control flag


@device_function
def _run(  # type: ignore[no-untyped-def]
    amplitudes, sweeps, rounded, passes, limit, share, scratch, int_scratch, products, norms
):
    """Run passes, shared with other threads; returns 0, or 1 if stopped.

    Each thread calls this with a share, scratch, words and products of its own, and the same other
    arguments; it returns when all passes are done. `rounded`: the sweeps' floats in the precision
    of the amplitudes. `limit`: see `tile_ops.operate`. norms: float64 [2**(n - LANE_WIRES)],
    written by the last pass; or empty.
    """
    n, width, starts, live = sweeps.num_qubits, sweeps.width, sweeps.starts, sweeps.live
    first, last, high, alive = passes
    me, threads, marks, control = share
    size = 1 << (width - LANE_WIRES)
    offsets, order = int_scratch[:size], int_scratch[size : 2 * size]
    which = int_scratch[2 * size : 3 * size]
    own = scratch.size - PHASES * (2 * size + FACTORS)
    tile, factors, notes = scratch[:own], scratch[own:], int_scratch[3 * size :]
    none = norms[:0]
    for p in range(first, last):
        inside = _arrange(sweeps.places, p, width, offsets, which)
        outside = live[p] & ~inside & ((1 << n) - 1)
        tiles = 1 << count(outside)
        if high & ~live[p]:
            tiles = 0
        filled = norms if p == last - 1 else none
        all_tiles = filled.size > 0 or live[p] & ~alive != 0  # new amplitudes must be written
        mark = (p - first) * (threads + 1)
        done = 0
        for turn in range(threads):
            owner = (me + turn) % threads
            begin, end = tiles * owner // threads, tiles * (owner + 1) // threads
            while True:
                mine = begin + fetch_add(marks, mark + owner, 1)
                if mine >= end:
                    break
                if load_acquire(control, 0):
                    return 1
                local_base = spread(mine, outside)
                base = local_base | high
                if all_tiles or concerned(sweeps.ops, starts[p], starts[p + 1], base):
                    load(amplitudes, local_base, offsets, which, alive, tile, order)
                    operate(
                        tile, order, limit, sweeps, starts[p], starts[p + 1], rounded, base,
                        factors, products, notes,
                    )  # fmt: skip
                    store(amplitudes, local_base, offsets, which, tile, order, filled)
                done += 1
        if threads > 1:
            fetch_add(marks, mark + threads, done)
            if not spin_wait(marks, mark + threads, tiles, control):
                return 1
        alive = live[p]
    return 0


@device_function
def run(  # type: ignore[no-untyped-def]
    amplitudes, sweeps, rounded, passes, limit, share, scratch, int_scratch, products, norms
):
    """Run passes as `_run` without denormal numbers."""
    before = flush_denormals()
    result = _run(
        amplitudes, sweeps, rounded, passes, limit, share, scratch, int_scratch, products, norms
    )
    restore_denormals(before)
    return result


run_double = kernel(
    "REALS SweepArrays REALS PassRange INT WorkShare REALS I64 REALS REALS -> INT",
    group="wide",
    precision="double",
)(run)
fill_double = kernel("REALS INT INT REALS", group="wide", precision="double")(fill)
locate_double = kernel(
    "REALS REALS INT I64 INT INT REALS I64 REALS I64", group="wide", precision="double"
)(locate)
run_single = kernel(
    "SINGLES SweepArrays SINGLES PassRange INT WorkShare SINGLES I64 REALS REALS -> INT",
    group="deferred",
    precision="single",
)(run)
fill_single = kernel("SINGLES INT INT REALS", group="deferred", precision="single")(fill)
locate_single = kernel(
    "SINGLES REALS INT I64 INT INT REALS I64 REALS I64", group="deferred", precision="single"
)(locate)


# Driver of sweeps over a state in memory, by the threads of a pool.

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
    return _KERNELS[state.amplitudes.dtype == np.complex128]


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
    """Apply passes first .. last - 1, by default all. Raises Stopped. `high`: the bits of all
    indices that are given by the rank number. `norms`: the last pass computes the norms of the
    state's rows, which sampling uses."""
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
        self._common = reals, plan.arrays(num_qubits, floats), rounded
        self._high = high
        self._type = "float64" if is_double else "float32"  # the conversion of a dtype is slow
        self._rows = 1 << (plan.width - LANE_WIRES)
        tiles = 1 << (num_qubits - plan.width)
        self._most = _strip(reals.itemsize)
        self._threads = min(sweeper.thread_pool.size, tiles) if 1 << num_qubits >= _ALONE else 1

    def __call__(self, first: int, last: int, initial: int, norms: NDArray[np.float64]) -> None:
        """Run passes first .. last - 1. Raises Stopped."""
        sweeper, rows, threads = self._sweeper, self._rows, self._threads
        passes = PassRange(first, last, self._high, initial)
        marks = np.zeros((last - first) * (threads + 1), np.int64)

        def work(_first: int, _last: int, me: int) -> None:
            size = 2 * LANES * (rows + rows // 8 + rows // 64)
            scratch = sweeper.aligned_scratch(me, self._type, size + PHASES * (2 * rows + FACTORS))
            int_scratch = sweeper.aligned_scratch(me, "int64", 3 * rows + PHASES * NOTES)
            products = sweeper.aligned_scratch(me, "float64", PRODUCTS)
            share = WorkShare(me, threads, marks, sweeper.flag)
            self._run(
                *self._common, passes, self._most, share, scratch, int_scratch, products, norms
            )

        sweeper.thread_pool.run(work, threads, 1)
