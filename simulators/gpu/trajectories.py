"""Trajectories of a wide circuit on a GPU: the walk of the engine `statevector`, over device
states.

Each shot's errors and outcome are draws of (seed, binding, shot), so counts are those of the
processor, up to rounding. A circuit that fits into a block of threads is run by the processor: its
states are in a core's cache, and a launch takes longer than its gates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.engine import RunOptions
from simulators.gpu.backend import DeviceBackend
from simulators.gpu.sweeps import DeviceState
from simulators.statevector.backend import protocol
from simulators.statevector.dynamic.noise_splitter import reduced_density
from simulators.statevector.planning.planner import SegmentPlan


class DeviceTrajectoryStates:
    """See `statevector.trajectories.states.TrajectoryStates`."""

    def __init__(self, backend: DeviceBackend) -> None:
        self.backend = backend
        self._scratch: DeviceState | None = None  # one of the `SCRATCH_STATES`

    def zero(self, state: DeviceState | None, num_qubits: int, options: RunOptions) -> DeviceState:
        """See `TrajectoryStates`."""
        if state is None:
            return self.backend.zero_state(num_qubits, options)
        state.set_zero()
        return state

    def copied(self, source: DeviceState, target: DeviceState | None) -> DeviceState:
        """See `TrajectoryStates`."""
        if target is None:
            target = self.backend.empty_like(source)
        if self.is_zero(source):
            target.set_zero()
        else:
            self.backend.copy_into(source, target)
        return target

    def is_zero(self, state: DeviceState) -> bool:
        """See `TrajectoryStates`."""
        return state.live == 0

    def sweep(
        self, state: DeviceState, segment: SegmentPlan, floats: NDArray[np.float64], *, last: bool
    ) -> None:
        """See `TrajectoryStates`."""
        del last
        self.backend.apply(state, segment, floats)

    def reduced(self, state: DeviceState, qubits: tuple[int, ...]) -> NDArray[np.complex128]:
        """See `TrajectoryStates`."""
        return reduced_density(self.backend, state, qubits)

    def sample(
        self, state: DeviceState, frame: int, key: tuple[int, int], shots: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """See `TrajectoryStates`."""
        if frame:
            if self._scratch is None:
                self._scratch = self.backend.empty_like(state)
            self.backend.invert(state, self._scratch, frame)
            state = self._scratch
        return protocol.sample(self.backend, state, key, shots)
