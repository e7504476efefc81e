"""Samples of the lines of a circuit, in blocks of shots over threads."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.compiler.simd import LANES, aligned
from simulators.engine import RunControl, ThreadPool
from simulators.errors import OutOfMemory
from simulators.lines.lowering import Lines
from simulators.lines.order import order_of
from simulators.lines.program import Program, program_of
from simulators.lines.size import MOST_BITS
from simulators.tensornetwork.sweep import kernel
from simulators.tensornetwork.sweep.kernel import Packed
from simulators.trajectories.noise_table import ErrorPatterns

FEWER = "take fewer layers, native rzz in place of two cx, or a narrower graph"
_GRAIN = 4 * LANES  # shots of a range


class Sweeps(msgspec.Struct, frozen=True, eq=False):
    """Lines of a circuit with the program that samples them."""

    lines: Lines
    program: Program
    packed: Packed

    @classmethod
    def of(cls, lines: Lines) -> Sweeps:
        """Compile the program. Raises OutOfMemory if no shot would end."""
        structure = lines.structure
        order, bits = order_of(structure)
        if bits > MOST_BITS:
            raise OutOfMemory(
                f"each shot of this circuit would pass over more than 2^{bits:.0f} values, in"
                f" {structure.num_layers} layers; a sweep passes over 2^{MOST_BITS:.0f}",
                hint=FEWER,
            )
        program = program_of(structure, order)
        return cls(lines, program, kernel.pack(lines, program))

    def memory_bytes(self, itemsize: int) -> int:
        """Bytes of the arrays of one thread. `itemsize`: of a real number of a tensor."""
        values = (1 << self.program.widest) + self.program.kept
        return 2 * LANES * itemsize * values + 8 * self.packed.rows


def sample(
    sweeps: Sweeps,
    patterns: ErrorPatterns | None,
    first: int,
    last: int,
    key: tuple[int, int],
    *,
    dtype: str,
    pool: ThreadPool,
    control: RunControl,
) -> NDArray[np.uint8]:
    """Bits of the qubits of shots first .. last - 1, and the columns of their records: uint8
    [shots, qubits + columns]. `patterns`: their errors, as rows of the noise table."""
    count = last - first
    entries, ends = _ranked(sweeps.packed, patterns, count)
    num_lines = len(sweeps.lines.first) - 1
    width = num_lines + sweeps.lines.columns
    out = np.zeros(count * width, np.uint8)
    real = np.float64 if dtype == "complex128" else np.float32
    run = kernel.double if real is np.float64 else kernel.single
    tensor_size = 2 * LANES << sweeps.program.widest
    buffers: dict[int, tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]] = {}

    def work(begin: int, end: int, thread: int) -> None:
        if thread not in buffers:
            size = tensor_size + 2 * LANES * sweeps.program.kept
            tensor = aligned(size * np.dtype(real).itemsize).view(real)
            rows = aligned(8 * sweeps.packed.rows).view(np.float64)
            lookups = np.zeros(256 + (1 << max(0, sweeps.program.widest - 8)), np.int64)
            buffers[thread] = tensor, rows, lookups
        tensor, rows, lookups = buffers[thread]
        span = np.array([first + begin, first + end, 0, 0, first, tensor_size], np.int64)
        span[2:4] = np.array(key, np.uint64).view(np.int64)
        run(
            sweeps.packed.ints, sweeps.packed.reals, entries, ends, span, tensor, rows, lookups,
            out, control.flag,
        )  # fmt: skip

    pool.run(work, count, _GRAIN)
    return out.reshape(count, width)[:, [*sweeps.lines.line_of, *range(num_lines, width)]]


def _ranked(
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
