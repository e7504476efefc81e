"""Samples of the lines of a circuit, in blocks of shots over threads."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog.costs import SWEEP_BYTES, WHAT_HELPS, sweep_refusal
from simulators.compiler.simd import LANES, aligned
from simulators.engine import SHOTS, RunControl, RunOptions, ThreadPool
from simulators.errors import OutOfMemory
from simulators.execution.outputs import SeedKey
from simulators.lines.lowering import Lines
from simulators.lines.order import order_of
from simulators.lines.program import Program, program_of
from simulators.lines.size import sweep_program
from simulators.tensornetwork.sweep import kernel
from simulators.tensornetwork.sweep.kernel import Packed
from simulators.trajectories.noise_table import ErrorPatterns

_GRAIN = 4 * LANES  # shots of a range


class Sweeps(msgspec.Struct, frozen=True, eq=False):
    """Lines of a circuit with the program that samples them."""

    lines: Lines
    program: Program
    packed: Packed

    @classmethod
    def of(cls, lines: Lines) -> Sweeps:
        """Compile the program. Raises OutOfMemory if no shot would end."""
        size, program = sweep_program(lines.structure)
        if program is None or sweep_refusal(size):
            raise OutOfMemory(f"engine 'sweep': {sweep_refusal(size)}", hint=WHAT_HELPS)
        return cls(lines, program, kernel.pack(lines, program))

    def sliced(self, itemsize: int, memory_bytes: int) -> Sweeps:
        """The same in slices of a shot, at most as many as there are lanes, such that the tensors
        of a thread fit into this memory. `itemsize`: of a real number of a tensor."""
        structure, program = self.lines.structure, self.program
        while (
            program.tensor_bytes(LANES * itemsize) > memory_bytes and 2 << program.slices <= LANES
        ):
            program = program_of(structure, order_of(structure)[0], program.slices + 1)
        if program is self.program:
            return self
        return Sweeps(self.lines, program, kernel.pack(self.lines, program))

    @property
    def width(self) -> int:
        """Bytes of a shot: of its lines, and of the columns of its record."""
        return len(self.lines.first) - 1 + self.lines.columns

    def ordered(self, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bits of the qubits of all shots, and the columns of their records: uint8 [shots, qubits +
        columns]. `out`: of the lines, and the columns."""
        begin = self.width - self.lines.columns
        columns = [*self.lines.line_of, *range(begin, self.width)]
        return out.reshape(-1, self.width)[:, columns]


# Bits of the qubits of shots first .. last - 1, and the columns of their records: uint8 [shots,
# qubits + columns]. Of their errors, as rows of the noise table; first; last; the key of the draws.
SampleBlock = Callable[[ErrorPatterns | None, int, int, SeedKey], NDArray[np.uint8]]


class Sampler(Protocol):
    """Samples of one circuit."""

    sweeps: Sweeps  # those that it runs

    def opened(self) -> AbstractContextManager[SampleBlock]:
        """Hold the memory of the tensors."""


class ThreadSampler:
    """Sampler over threads of the processor, see `Sampler`."""

    def __init__(self, sweeps: Sweeps, options: RunOptions, control: RunControl) -> None:
        self._control = control
        self._real: type[np.floating[Any]] = (
            np.float64 if options.dtype == "complex128" else np.float32
        )
        size = np.dtype(self._real).itemsize
        room = min(SWEEP_BYTES, options.memory_bytes or SWEEP_BYTES)
        self.sweeps = self._sweeps = sweeps = sweeps.sliced(size, room)
        self._tensor_size = 2 * LANES << sweeps.program.widest
        self._size = self._tensor_size + 2 * LANES * sweeps.program.kept
        each = self._size * size + 8 * sweeps.packed.rows
        self._threads = max(1, min(options.threads, room // each))
        if each > SWEEP_BYTES:
            raise OutOfMemory(
                f"a sweep of this circuit has tensors of 2^{sweeps.program.widest} values for each"
                f" of {LANES} slices of a shot; all tensors have {SWEEP_BYTES >> 20} MiB",
                hint=WHAT_HELPS,
            )

    @contextmanager
    def opened(self) -> Iterator[SampleBlock]:
        with ThreadPool(self._threads, self._control) as pool:
            yield functools.partial(self._sample, pool, {})

    def _sample(
        self,
        pool: ThreadPool,
        buffers: dict[int, tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]],
        patterns: ErrorPatterns | None,
        first: int,
        last: int,
        key: SeedKey,
    ) -> NDArray[np.uint8]:
        packed, widest = self._sweeps.packed, self._sweeps.program.widest
        entries, ends = ranked(packed, patterns, last - first)
        out = np.zeros((last - first) * self._sweeps.width, np.uint8)
        run = kernel.double if self._real is np.float64 else kernel.single

        def work(begin: int, end: int, thread: int) -> None:
            if thread not in buffers:
                tensor = aligned(self._size * np.dtype(self._real).itemsize).view(self._real)
                rows = aligned(8 * packed.rows).view(np.float64)
                lookups = np.zeros(256 + (1 << max(0, widest - 8)), np.int64)
                buffers[thread] = tensor, rows, lookups
            tensor, rows, lookups = buffers[thread]
            span = np.array([first + begin, first + end, 0, 0, first, self._tensor_size], np.int64)
            span[2:4] = np.array(key, np.uint64).view(np.int64)
            run(
                packed.ints, packed.reals, entries, ends, span, tensor, rows, lookups, out,
                self._control.flag,
            )  # fmt: skip

        pool.run(work, last - first, _GRAIN, SHOTS)
        return self._sweeps.ordered(out)


def ranked(
    packed: Packed, patterns: ErrorPatterns | None, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ranks of the errors of each shot, ascending, and the begins of the shots."""
    certain = packed.certain
    rows, ranks = np.repeat(np.arange(count), certain.size), np.tile(certain, count)
    if patterns is not None:
        sizes = np.diff(packed.ranks)[patterns.entries]
        own = np.repeat(np.repeat(np.arange(count), np.diff(patterns.ends)), sizes)
        firsts = np.repeat(packed.ranks[patterns.entries] - (np.cumsum(sizes) - sizes), sizes)
        rows = np.concatenate((rows, own))
        ranks = np.concatenate((ranks, packed.errors[firsts + np.arange(own.size)]))
    span = max(1, packed.span)
    ordered = np.sort(rows * span + ranks)
    ends = np.searchsorted(ordered, np.arange(count + 1) * span)
    return ordered % span, ends
