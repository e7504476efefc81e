"""Cost model of the engine `gpu`. Pure and light, like the catalog."""

from __future__ import annotations

import msgspec

from simulators.catalog.costs import (
    RANK_BYTES,
    SMALL_QUBITS,
    CostQuery,
    StatevectorCost,
    state_bytes,
    trajectory_work,
)
from simulators.circuit.analysis.profile import Profile

_PLANNED_BYTES = 700  # for an operation while it is planned, as on the processor
_PROBABILITY_BYTES = 40  # for one outcome on the host: table, index, value, record, packed
_LIVE_BRANCHES = 8  # expected states of a dynamic circuit at once
_SHOT_S = 5e-9
_TWO_STATES = 2  # for a gradient of one observable, and for a walk through trajectories
_HOST = StatevectorCost(passes=True)
RESERVED_BYTES = 3 * 2**29  # of the device's memory: context, tables and results
BANDWIDTH = 4.9e12  # bytes a second to and from memory, of an H200
STAGED_BYTES = 2**26  # largest message from the GPU of one rank to that of another
_STAGED_S = 4e-11  # one byte sent and one received, through the memory of the host
_EXCHANGE_GATES = 100  # gates between two exchanges of one qubit
_COPIED = 0.87  # part of the bandwidth that a copy reaches: 4.3e12 of an H200


def widest_state(memory_bytes: int, precision: str) -> int:
    """Qubits of the widest state in a device's memory."""
    room = max(0, memory_bytes - RESERVED_BYTES)
    return max(0, (room // state_bytes(0, precision)).bit_length() - 1)


class GpuCost(msgspec.Struct, frozen=True):
    """Cost of all amplitudes in the memory of a GPU, or of one GPU for each rank: `device_bytes`
    there, the other bytes on its host.

    The seconds are computed from plans and the bandwidth of the device's memory, as its driver
    states it (an H200's by default); they are not measured.
    """

    base_bytes: int = 768 * 2**20  # the CUDA context and its libraries
    call_s: float = 200e-6
    launch_s: float = 6e-6
    gates_each: float = 20.0  # gates of a sweep
    walk_s: float = 150e-6  # the host's part of a sweep of a trajectory
    location_s: float = 1e-3  # an error's sweeps, planned once
    noisy_shot_s: float = 100e-9

    def memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Memory on the host: plans, and outputs that are copied there."""
        need = self.base_bytes + _PLANNED_BYTES * profile.operations
        if "statevector" in ask.outputs:
            need += 3 * state_bytes(profile.num_qubits, ask.precision)
        if "probabilities" in ask.outputs:
            need += _PROBABILITY_BYTES << profile.num_qubits
        if ask.ranks > 1:
            need += RANK_BYTES + 2 * STAGED_BYTES
        return need

    def least_memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Minimum memory, equal to the expected one."""
        return self.memory_bytes(profile, ask)

    def seconds(self, profile: Profile, ask: CostQuery, slots: int) -> float:
        """Expected time: launches, and sweeps over all amplitudes; threads of the host do not
        shorten it. Error patterns of small circuits run on the host."""
        noise = profile.noise
        if noise is not None and profile.num_qubits <= SMALL_QUBITS:
            return self.call_s + _HOST.seconds(profile, ask, slots)
        gates = profile.gates_1q + profile.gates_2q + profile.gates_many
        sweeps = 2.0 + gates / self.gates_each
        if "gradient" in ask.outputs:
            sweeps *= 3.0
        if profile.mid_circuit:
            sweeps *= _LIVE_BRANCHES
        moved = 2.0 * state_bytes(profile.num_qubits, ask.precision) / ask.ranks
        sweep_s = moved / (_COPIED * (ask.bandwidth or BANDWIDTH))
        if noise is not None and noise.kinds - {"readout"}:
            drawn = 1.0 + noise.drawn_weight / max(1.0, noise.error_weight)
            walked = sweeps * drawn * trajectory_work(noise, ask.shots)
            planned_s = self.location_s * noise.locations
            return planned_s + walked * (self.walk_s + sweep_s) + ask.shots * self.noisy_shot_s
        divided = ask.ranks.bit_length() - 1
        exchanges_s = divided * (1 + gates // _EXCHANGE_GATES) * moved / 4 * _STAGED_S
        return self.call_s + sweeps * (self.launch_s + sweep_s) + exchanges_s + ask.shots * _SHOT_S

    def device_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Minimum memory of the device of each rank for states held at once: a dynamic circuit runs
        with one."""
        states = 1
        if "gradient" in ask.outputs or profile.noise is not None:
            states = _TWO_STATES
        return states * state_bytes(profile.num_qubits, ask.precision) // ask.ranks
