"""A rank's share of a state, and the memory for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import state_bytes
from simulators.engine import RunOptions
from simulators.errors import OutOfMemory
from simulators.statevector import memory
from simulators.statevector.ranks.layout import Layout
from simulators.statevector.state import PHYSICAL_BYTES, State
from simulators.statevector.sweeps import LANES


class Share(State):
    """2**num_local amplitudes; `num_qubits` counts those of the share alone."""

    __slots__ = ("fresh", "layout", "rank")

    def __init__(
        self,
        amplitudes: NDArray[np.complexfloating],
        layout: Layout,
        rank: int,
        *,
        dirty: bool = False,
    ) -> None:
        super().__init__(amplitudes, dirty=dirty)
        self.layout = layout
        self.rank = rank
        self.fresh = False  # |0...0>, wherever its wires stand

    @property
    def dtype(self) -> np.dtype[np.complexfloating]:
        """Of its amplitudes, which may not be there yet."""
        return self._amplitudes.dtype

    def begin(self) -> None:
        """Its first amplitude is that of |0...0>."""
        self._amplitudes[0] = 1.0

    @property
    def numbers(self) -> NDArray[np.int64]:
        """See `State.numbers`; blocks must be whole."""
        return self.layout.numbers(self.rank)

    @classmethod
    def empty_handed(cls, layout: Layout, rank: int, neighbours: int, options: RunOptions) -> Share:
        """Amplitudes that are all 0. Raises OutOfMemory.

        `neighbours`: ranks on this machine, this one included.
        """
        num_qubits, ranks_log2 = len(layout.qubits), len(layout.qubits) - layout.num_local
        need = state_bytes(layout.num_local, options.precision)
        dtype = np.complex128 if options.precision == "double" else np.complex64
        if need * neighbours > PHYSICAL_BYTES:
            raise _too_large(num_qubits, ranks_log2, need, neighbours)
        try:
            amplitudes, clean = memory.room(1 << layout.num_local, dtype)
        except MemoryError as error:
            raise _too_large(num_qubits, ranks_log2, need, neighbours) from error
        amplitudes[:LANES] = 0.0
        return cls(amplitudes, layout, rank, dirty=not clean)


def _too_large(num_qubits: int, ranks_log2: int, need: int, neighbours: int) -> OutOfMemory:
    return OutOfMemory(
        f"{num_qubits} qubits over {1 << ranks_log2} ranks need {need / 2**30:,.2f} GiB in each;"
        f" a machine with {neighbours} of them has {PHYSICAL_BYTES / 2**30:,.1f} GiB",
        hint="take more ranks on more machines, fewer qubits, or precision 'single'",
    )
