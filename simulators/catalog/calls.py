"""Cards of the engines that run calls in place of circuits, and what calls cost."""

from __future__ import annotations

import msgspec

from simulators.catalog.cards import EngineCard
from simulators.catalog.costs import BASE_BYTES, CostQuery
from simulators.circuit.analysis.profile import Profile


class CallCost(msgspec.Struct, frozen=True):
    """Calls of functions: so much memory, and so much time for each operation of the profile.

    What a function takes is not known before; the scheduler corrects the time as it learns.
    """

    base_bytes: int
    operation_s: float

    def memory_bytes(self, _profile: Profile, _ask: CostQuery) -> int:
        """Libraries, arguments and what is returned, as far as anybody can tell."""
        return self.base_bytes

    def least_memory_bytes(self, _profile: Profile, _ask: CostQuery) -> int:
        """As expected."""
        return self.base_bytes

    def seconds(self, profile: Profile, _ask: CostQuery, _slots: int) -> float:
        """A call takes one slot."""
        return max(1, profile.operations) * self.operation_s


class DetectionCost(msgspec.Struct, frozen=True):
    """Detectors sampled in frames of Paulis, and matched: `num_clbits` counts them."""

    base_bytes: int = 4 * BASE_BYTES  # the text, read, and the largest result
    detector_bytes: int = 4_096  # of its errors in the decoder, and of a block's events
    qubit_bytes: int = 2_048  # of a block's frames
    call_s: float = 5e-3
    op_s: float = 5e-6  # read, and analysed for the decoder
    frame_s: float = 2e-11  # one operation in one shot
    decode_s: float = 5e-8  # one detector in one shot

    def memory_bytes(self, profile: Profile, _ask: CostQuery) -> int:
        """Of a block: shots run one block after the other."""
        frames = self.qubit_bytes * profile.num_qubits
        return self.base_bytes + frames + self.detector_bytes * profile.num_clbits

    def least_memory_bytes(self, profile: Profile, ask: CostQuery) -> int:
        """As expected."""
        return self.memory_bytes(profile, ask)

    def seconds(self, profile: Profile, ask: CostQuery, _slots: int) -> float:
        """One analysis; then frames and matching by shots."""
        shot = profile.operations * self.frame_s + profile.num_clbits * self.decode_s
        return self.call_s + profile.operations * self.op_s + ask.shots * shot


CALL_CARDS: tuple[EngineCard, ...] = (
    EngineCard(
        name="transpiler",
        module="",
        outputs=("value",),
        dynamic=False,
        reproducible=True,
        precisions=("double",),
        max_qubits=0,
        needs=("qiskit",),
        install="pip install simenv",
        summary="compiles circuits for devices, by Qiskit's transpiler; runs none",
        costs=CallCost(4 * BASE_BYTES, 0.02),
        calls=True,
        threads=False,
    ),
    EngineCard(
        name="detectors",
        module="",
        outputs=("value",),
        dynamic=False,
        reproducible=False,
        precisions=("double",),
        max_qubits=65_535,
        needs=("stim",),
        install="pip install 'simenv[qec]'",
        summary="samples detectors and observables of stim's circuits, and decodes them",
        costs=DetectionCost(),
        calls=True,
        threads=False,
    ),
    EngineCard(
        name="functions",
        module="",
        outputs=("value",),
        dynamic=False,
        reproducible=False,
        precisions=("double",),
        max_qubits=0,
        needs=("cloudpickle",),
        install="pip install 'simenv[functions]'",
        summary="calls Python functions of the environment's own user, and of nobody else",
        costs=CallCost(4 * BASE_BYTES, 0.02),
        in_default_pool=False,
        calls=True,
        owner_only=True,
        threads=False,
    ),
)
