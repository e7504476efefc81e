"""Statevector in memory, its allocation, and per-thread scratch memory.

The state is one complex array, aligned to cache lines and in huge pages where available; kernels
see it as real numbers. No second array of its size is made. Mapping memory takes longer than a few
sweeps, so the memory of a released state is reused for the next one of the same size. A process
keeps at most 1 / (32 * cores) of the physical memory.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import weakref
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from simulators.catalog import state_bytes
from simulators.compiler.kernel import device_function
from simulators.compiler.simd import aligned
from simulators.engine import PASSES, RunControl, RunOptions, ThreadPool, ThreadWork
from simulators.errors import OutOfMemory
from simulators.statevector.planning.tables import LANES as ROW

PHYSICAL_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
_MAPPED = 1 << 22  # bytes: larger arrays are mapped, and get pages when they are touched
_KEPT_BYTES = PHYSICAL_BYTES // (32 * (os.cpu_count() or 1))
_kept: list[mmap.mmap] = []


def room(count: int, dtype: DTypeLike) -> tuple[NDArray[Any], bool]:
    """Allocate `count` numbers; returns them, and whether all are 0. Raises MemoryError. New memory
    is not touched here: each page is placed near the thread that first uses it."""
    size = count * np.dtype(dtype).itemsize
    if size < _MAPPED:
        return aligned(size).view(dtype), True
    entry = next((block for block in _kept if len(block) == size), None)
    if entry is not None:
        with contextlib.suppress(ValueError):  # another thread has taken it
            _kept.remove(entry)
            return _as_array(entry, dtype), False
    release()
    try:
        new = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError, ValueError) as error:
        raise MemoryError(f"no memory for {size} bytes") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without huge pages
            new.madvise(mmap.MADV_HUGEPAGE)
    return _as_array(new, dtype), True


def zeros(count: int, dtype: DTypeLike) -> NDArray[Any]:
    """Allocate `count` numbers, all 0. Raises MemoryError."""
    entry, clean = room(count, dtype)
    if not clean:
        entry.fill(0)
    return entry


def like(array: NDArray[Any]) -> NDArray[Any]:
    """Allocate as many numbers as `array` has, with undefined values. Raises MemoryError."""
    return room(array.size, array.dtype)[0]


def release() -> None:
    """Free the kept memory."""
    _kept.clear()


def _as_array(block: mmap.mmap, dtype: DTypeLike) -> NDArray[Any]:
    """Block as an array; it is kept for reuse once the array and its views are gone."""
    entry = np.frombuffer(block, dtype)
    if len(block) <= _KEPT_BYTES:
        weakref.finalize(entry, _keep, block).atexit = False
    return entry


def _keep(block: mmap.mmap) -> None:
    if sum(map(len, _kept)) + len(block) <= _KEPT_BYTES:
        _kept.append(block)


BLOCK_QUBITS = 12  # sums run over separate blocks of this number of lowest qubits
_GRAIN = 1 << 20  # amplitudes of a thread's share: some 10 ms, for quick stops
_ALONE = 1 << 15  # smaller states are not worth a second thread
_NO_REALS = np.empty(0)
_NO_SINGLES = np.empty(0, np.float32)
_0, _1 = np.uint64(0), np.uint64(1)


@device_function
def load(reals, singles, start, count, re, im, at):  # type: ignore[no-untyped-def]
    """Load amplitude start + k into re, im[at + k], for k < count."""
    if reals.size:
        for k in range(count):
            re[at + k] = reals[2 * (start + k)]
            im[at + k] = reals[2 * (start + k) + 1]
    else:
        for k in range(count):
            re[at + k] = singles[2 * (start + k)]
            im[at + k] = singles[2 * (start + k) + 1]


@device_function
def store(reals, singles, start, count, re, im, at):  # type: ignore[no-untyped-def]
    """Store amplitudes; the inverse of `load`."""
    if reals.size:
        for k in range(count):
            reals[2 * (start + k)] = re[at + k]
            reals[2 * (start + k) + 1] = im[at + k]
    else:
        for k in range(count):
            singles[2 * (start + k)] = re[at + k]
            singles[2 * (start + k) + 1] = im[at + k]


@device_function
def spread(number, mask):  # type: ignore[no-untyped-def]
    """Move the lowest bits of `number` to the positions of `mask`."""
    result = _0
    while mask:
        low = mask & (~mask + _1)
        if number & _1:
            result |= low
        number >>= _1
        mask ^= low
    return result


@functools.lru_cache(maxsize=2)
def _in_order(blocks: int) -> NDArray[np.int64]:
    return np.arange(blocks)


def _too_large(num_qubits: int, need: int) -> OutOfMemory:
    text = f"{num_qubits} qubits need {need / 2**30:,.1f} GiB for the state; this machine has"
    text += f" {PHYSICAL_BYTES / 2**30:,.1f} GiB"
    return OutOfMemory(text, hint="take fewer qubits, precision 'single', or a larger machine")


def out_of_memory(num_bytes: int) -> OutOfMemory:
    """Error for one more state of this size."""
    hint = "give RunOptions.memory_bytes, so that the shots run in groups that fit"
    return OutOfMemory(f"no memory for another state of {num_bytes / 2**30:.2f} GiB", hint=hint)


class State:
    """State of 2**n amplitudes; complex128 or complex64."""

    __slots__ = ("_amplitudes", "_dirty", "live", "norms", "num_qubits")

    def __init__(self, amplitudes: NDArray[np.complexfloating], *, dirty: bool = False) -> None:
        """Wrap an array. `dirty`: the state is |0...0>, but elements after the first row are
        undefined."""
        self._amplitudes = amplitudes
        self._dirty = dirty
        self.num_qubits = amplitudes.size.bit_length() - 1
        self.live = -1  # mask of the wires that may be 1 in an amplitude that is not 0
        self.norms: NDArray[np.float64] | None = None  # norms of its rows, if known

    @property
    def amplitudes(self) -> NDArray[np.complexfloating]:
        """All amplitudes, all written."""
        if self._dirty:
            self._amplitudes[ROW:] = 0.0
            self._dirty = False
        return self._amplitudes

    @property
    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Amplitudes as real numbers in double and in single precision; one of the two is empty."""
        entry = self.amplitudes
        if entry.dtype == np.complex128:
            return entry.view(np.float64), _NO_SINGLES
        return _NO_REALS, entry.view(np.float32)

    def overwritten(self) -> NDArray[np.complexfloating]:
        """Amplitudes for a caller that writes all and before reads at most the first row."""
        self._dirty = False
        return self._amplitudes

    def changed(self) -> None:
        """Drop cached norms and live masks; call it before threads change amplitudes."""
        _ = self.amplitudes  # zeros are written before threads work on the state
        self.live = -1
        self.norms = None

    @property
    def basis_indices(self) -> NDArray[np.int64]:
        """Positions of its blocks of 2**BLOCK_QUBITS amplitudes in the full state: int64 [blocks].
        A smaller state is one block."""
        return _in_order(1 << max(0, self.num_qubits - BLOCK_QUBITS))

    @classmethod
    def zero(cls, num_qubits: int, options: RunOptions) -> State:
        """Allocate the state |0...0>. Raises OutOfMemory."""
        need = state_bytes(num_qubits, options.precision)
        if need > PHYSICAL_BYTES:  # some systems overcommit, and kill the process later
            raise _too_large(num_qubits, need)
        try:
            amplitudes, clean = room(1 << num_qubits, options.dtype)
        except MemoryError as error:
            raise _too_large(num_qubits, need) from error
        amplitudes[:ROW] = 0.0
        amplitudes[0] = 1.0
        state = cls(amplitudes, dirty=not clean)
        state.live = 0
        return state


class BlockExecutor:
    """Runs passes over states; holds the scratch of each thread of a pool."""

    def __init__(self, thread_pool: ThreadPool, control: RunControl) -> None:
        self.thread_pool = thread_pool
        self.check = control.check
        self.flag = control.flag
        self._advance = control.advance
        self._scratch: dict[tuple[int, int], NDArray[np.float64]] = {}
        self._rooms: dict[tuple[int, str, int], NDArray[Any]] = {}

    def passed(self, passes: int = 1, *, before: bool = False) -> None:
        """Count finished passes; `before`: an earlier attempt has done them."""
        self._advance(PASSES, passes, before=before)

    def scratch(self, number: int, size: int) -> NDArray[np.float64]:
        """Scratch float64 [size], for thread `number` alone."""
        entry = self._scratch.get((number, size))
        if entry is None:
            entry = self._scratch[number, size] = np.empty(size)
        return entry

    def aligned_scratch(self, number: int, dtype: str, size: int) -> NDArray[Any]:
        """Scratch of any type, aligned to a cache line."""
        entry = self._rooms.get((number, dtype, size))
        if entry is None:
            entry = self._rooms[number, dtype, size] = zeros(size, dtype)
        return entry

    def parallel_for(self, num_qubits: int, unit: int, work: ThreadWork) -> None:
        """Call work(first, last, thread) over the state's units of 2**unit amplitudes."""
        total = 1 << (num_qubits - unit)
        grain = max(1, _GRAIN >> unit) if (1 << num_qubits) > _ALONE else total
        if total > grain:
            grain = min(grain, max(1, total // (4 * self.thread_pool.size)))
        self.thread_pool.run(work, total, grain)
