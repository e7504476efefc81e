"""Cards and cost models of the engines that run calls in place of circuits."""

from __future__ import annotations

import msgspec

from simulators.catalog.cards import EngineCard, Package
from simulators.catalog.costs import BASE_BYTES, CostQuery
from simulators.circuit.analysis.profile import Profile


class CallCost(msgspec.Struct, frozen=True):
    """Cost of function calls: fixed memory, and a fixed time for each operation of the profile. The
    cost of a function is not known before; the scheduler corrects the time as it learns."""

    base_bytes: int
    operation_s: float
    entry_bytes: int = 0  # of a compiler's table, whose entries `gates_2q` counts
    entry_s: float = 0.0

    def memory_bytes(self, profile: Profile, _ask: CostQuery) -> int:
        """Memory of libraries, arguments and results, as a rough estimate."""
        return self.base_bytes + self.entry_bytes * profile.gates_2q

    def least_memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Minimum memory, equal to the expected one."""
        return self.memory_bytes(profile, ask)

    def seconds(self, profile: Profile, _ask: CostQuery, _slots: int) -> float:
        """Expected time; a call uses one slot."""
        return max(1, profile.operations) * self.operation_s + self.entry_s * profile.gates_2q


class DetectionCost(msgspec.Struct, frozen=True):
    """Cost of sampling detectors in Pauli frames and of matching: `num_clbits` counts the
    detectors."""

    base_bytes: int = 4 * BASE_BYTES  # the text, the parsed circuit, and the largest result
    detector_bytes: int = 4_096  # for its errors in the decoder, and a block's events
    qubit_bytes: int = 2_048  # frames of a block
    call_s: float = 5e-3
    op_s: float = 5e-6  # to parse, and to analyse for the decoder
    frame_s: float = 2e-11  # one operation in one shot
    decode_s: float = 5e-8  # one detector in one shot

    def memory_bytes(self, profile: Profile, _ask: CostQuery) -> int:
        """Memory of one block: blocks of shots run one after the other."""
        frames = self.qubit_bytes * profile.num_qubits
        return self.base_bytes + frames + self.detector_bytes * profile.num_clbits

    def least_memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """Minimum memory, equal to the expected one."""
        return self.memory_bytes(profile, ask)

    def seconds(self, profile: Profile, ask: CostQuery, _slots: int) -> float:
        """Expected time: one analysis; then frames and matching by shots."""
        shot = profile.operations * self.frame_s + profile.num_clbits * self.decode_s
        return self.call_s + profile.operations * self.op_s + ask.shots * shot


CALL_CARDS: tuple[EngineCard, ...] = (
    EngineCard(
        name="transpiler",
        module="",
        outputs=("value",),
        max_qubits=0,
        summary="compiles circuits for devices, by Qiskit's transpiler; runs none",
        costs=CallCost(4 * BASE_BYTES, 0.02, 1_200, 5e-5),
        package=Package(("qiskit",)),
        precisions=("double",),
        reproducible=True,
        pool="calls",
    ),
    EngineCard(
        name="detectors",
        module="",
        outputs=("value",),
        max_qubits=65_535,
        summary="samples detectors and observables of stim's circuits, and decodes them",
        costs=DetectionCost(),
        package=Package(("stim",), "pip install 'simenv[qec]'"),
        precisions=("double",),
        pool="calls",
    ),
    EngineCard(
        name="functions",
        module="",
        outputs=("value",),
        max_qubits=0,
        summary="calls Python functions of the environment's own user, and of nobody else",
        costs=CallCost(4 * BASE_BYTES, 0.02),
        package=Package(("cloudpickle",), "pip install 'simenv[functions]'"),
        precisions=("double",),
        pool="functions",
    ),
)
