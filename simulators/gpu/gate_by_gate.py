"""Engine `gpu_sweep`: exact counts of wide and shallow circuits with noise, by sweeps on a GPU.

A block of threads has one shot at a time; thousands of them run at once. The draws are those of the
engine `sweep`, so the counts of a seed are its counts, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import builtin_card
from simulators.engine import SHOTS, RunControl, RunOptions
from simulators.execution.outputs import SeedKey
from simulators.gpu.devices.device import COMPLEX, Buffer, Device, MemoryLedger
from simulators.tensornetwork.sweep.engine import SweepEngine
from simulators.tensornetwork.sweep.sampling import SampleBlock, Sampler, Sweeps, ranked
from simulators.trajectories.noise_table import ErrorPatterns

MOST_BLOCKS = 2_048  # of threads at once: sixteen for each multiprocessor of the largest GPUs
LAUNCHED = 1 << 37  # values that the shots of a launch pass over: about a second
SHARED_BYTES = 1 << 15  # the largest tensor that is in shared memory: several blocks have room
_SCRATCH_BYTES = 16 * 64 + 8 * 32  # see kernels/gate_by_gate.cuh
_LEAST_THREADS, _MOST_THREADS = 32, 256
_VALUES_EACH = 8  # values of the widest tensor for each thread


class GpuSweepEngine(SweepEngine):
    """Gate-by-gate sampling on one GPU of this process. `device`: None: the first one that CUDA
    shows."""

    card = builtin_card("gpu_sweep")

    def __init__(self, device: Device | None = None) -> None:
        """Open the device. Raises UnknownEngine with the reason if no GPU can be used."""
        super().__init__()
        if device is None:
            from simulators.gpu.devices.cupy_device import open_device  # the only import of cupy

            device = open_device()
        self._device = device

    def sampler(self, sweeps: Sweeps, options: RunOptions, control: RunControl) -> Sampler:
        return DeviceSampler(self._device, sweeps, options, control)


class DeviceSampler:
    """Sampler on a GPU, see `Sampler`."""

    def __init__(
        self, device: Device, sweeps: Sweeps, options: RunOptions, control: RunControl
    ) -> None:
        self._device, self._control = device, control
        self.sweeps = self._sweeps = sweeps
        self._precision = options.precision
        packed, program = sweeps.packed, sweeps.program
        size, itemsize = 1 << program.widest, COMPLEX[self._precision].itemsize
        self._is_shared = size * itemsize <= SHARED_BYTES
        self._shared_bytes = _SCRATCH_BYTES + self._is_shared * size * itemsize
        self._stride = program.kept + (not self._is_shared) * size
        self._own = packed.own
        threads = size // _VALUES_EACH
        self._threads = min(_MOST_THREADS, max(_LEAST_THREADS, threads))
        self._each = max(1, int(LAUNCHED / max(1.0, program.values)))
        bytes_each = self._stride * itemsize + 8 * self._own
        # The memory may be shared with states of the engine `gpu` in this process.
        ledger = MemoryLedger(device.free_bytes, device.name)
        ledger.reserve(bytes_each, f"a shot with tensors of 2^{program.widest} values")
        self._blocks = min(MOST_BLOCKS, ledger.capacity_bytes // 2 // bytes_each or 1)

    @contextmanager
    def opened(self) -> Iterator[SampleBlock]:
        device, packed = self._device, self._sweeps.packed
        program = device.upload(packed.ints), device.upload(packed.reals)
        own = device.empty(self._blocks * self._own, np.float64)
        tensors = device.empty(max(1, self._blocks * self._stride), COMPLEX[self._precision])

        def sample(
            patterns: ErrorPatterns | None, first: int, last: int, key: SeedKey
        ) -> NDArray[np.uint8]:
            return self._sample((*program, own, tensors), patterns, (first, last), key)

        yield sample

    def _sample(
        self,
        buffers: tuple[Buffer, Buffer, Buffer, Buffer],
        patterns: ErrorPatterns | None,
        shots: tuple[int, int],
        key: SeedKey,
    ) -> NDArray[np.uint8]:
        device, sweeps = self._device, self._sweeps
        ints, reals, own, tensors = buffers
        first, last = shots
        entries, ends = ranked(sweeps.packed, patterns, last - first)
        errors = device.upload(entries if entries.size else np.zeros(1, np.int64))
        begins = device.upload(ends)
        out = device.empty((last - first) * sweeps.width, np.uint8)
        numbers: Any = np.uint64
        for begin in range(first, last, self._each):
            self._control.check()
            end = min(last, begin + self._each)
            blocks = min(self._blocks, end - begin)
            device.launch(
                f"sample_lines_{self._precision}", blocks, self._threads, self._shared_bytes,
                ints, reals, errors, begins, numbers(first), numbers(begin), numbers(end),
                np.int32(blocks), numbers(key[0]), numbers(key[1]), own, numbers(self._own),
                tensors, numbers(self._stride), numbers(sweeps.program.kept),
                np.int32(self._is_shared), out,
            )  # fmt: skip
            device.download(own[:1])  # wait, so that the next check is in time
            self._control.advance(SHOTS, end - begin)
        return sweeps.ordered(device.download(out))
