"""Cost model of the engine `gpu`. Pure and light, like the catalog."""

from __future__ import annotations

import msgspec

from simulators.catalog.costs import CostQuery, state_bytes
from simulators.circuit.analysis.profile import Profile

_PLANNED_BYTES = 700  # of an operation while it is planned, as on the processor
_PROBABILITY_BYTES = 40  # of one outcome on the host: table, index, value, record, packed
_LIVE_BRANCHES = 8  # states a dynamic circuit is expected to hold at once
_SHOT_S = 5e-9


class GpuCost(msgspec.Struct, frozen=True):
    """All amplitudes in the memory of a GPU: bytes are those of the host, beside it. The engine
    itself compares its states with the device's memory.

    The seconds are counted from plans and a copy's bandwidth of one H200; nothing was measured.
    """

    base_bytes: int = 768 * 2**20  # the CUDA context and its libraries
    call_s: float = 200e-6
    launch_s: float = 6e-6
    gates_each: float = 20.0  # gates that a sweep does
    amplitude_s: float = 16 * 2 / 4.3e12  # of a sweep

    def memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Plans, and outputs that are copied to the host."""
        need = self.base_bytes + _PLANNED_BYTES * profile.operations
        if "statevector" in ask.outputs:
            need += 3 * state_bytes(profile.num_qubits, ask.precision)
        if "probabilities" in ask.outputs:
            need += _PROBABILITY_BYTES << profile.num_qubits
        return need

    def least_memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """The same."""
        return self.memory_bytes(profile, ask)

    def seconds(self, profile: Profile, ask: CostQuery, slots: int) -> float:
        """Launches, and sweeps over all amplitudes; threads of the host make none faster."""
        del slots
        gates = profile.gates_1q + profile.gates_2q + profile.gates_many
        sweeps = 2.0 + gates / self.gates_each
        if "gradient" in ask.outputs:
            sweeps *= 3.0
        if profile.mid_circuit:
            sweeps *= _LIVE_BRANCHES
        amplitudes = 2.0**profile.num_qubits * self.amplitude_s
        if ask.precision == "single":
            amplitudes *= 0.5
        return self.call_s + sweeps * (self.launch_s + amplitudes) + ask.shots * _SHOT_S
