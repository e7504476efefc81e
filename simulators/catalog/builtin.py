"""Cards of the engines of this distribution."""

from __future__ import annotations

from simulators.catalog.cards import EngineCard, EngineOption
from simulators.catalog.costs import (
    BASE_BYTES,
    DeviceCost,
    MpsCost,
    StabilizerCost,
    StatevectorCost,
)

_ALL_OUTPUTS = ("counts", "probabilities", "statevector", "expectation")
_WITH_GRADIENT = (*_ALL_OUTPUTS, "gradient")
_BOTH = ("double", "single")

# Amplitudes are numbered by signed 64-bit integers, and 2**50 of them in double precision are
# 16 PiB: memory and ranks are the limit, see `simenv.scheduler.routing.ranks`.
_WIDEST_STATE = 50

CARDS: tuple[EngineCard, ...] = (
    EngineCard(
        name="statevector",
        module="simulators.statevector.engine:StatevectorEngine",
        outputs=_WITH_GRADIENT,
        dynamic=True,
        noise=False,
        reproducible=True,
        precisions=_BOTH,
        max_qubits=_WIDEST_STATE,
        needs=("numba",),
        install="pip install simenv",
        automatic=True,
        summary="all amplitudes, exact; dynamic circuits by branching and merging",
        costs=StatevectorCost(passes=True),
        uses_light_cone=True,
        resizable=True,
        ranks=True,
    ),
    EngineCard(
        name="stabilizer",
        module="simulators.stabilizer.engine:StabilizerEngine",
        outputs=("counts", "probabilities", "expectation"),
        dynamic=True,
        noise=False,
        reproducible=False,
        precisions=_BOTH,  # it has no amplitudes to round
        max_qubits=65_535,
        needs=("stim",),
        install="pip install 'simenv[stabilizer]'",
        automatic=True,
        summary="Clifford circuits of any width, by stim; Paulis may depend on parities of clbits",
        costs=StabilizerCost(),
        clifford=True,
        loops=False,
        variables=False,
        gate_qubits=4,
        threads=False,
    ),
    EngineCard(
        name="mps",
        module="simulators.tensornetwork.engine:MpsEngine",
        outputs=_ALL_OUTPUTS,
        dynamic=False,
        noise=False,
        reproducible=False,
        precisions=_BOTH,
        max_qubits=4_096,
        needs=("quimb", "cotengra"),
        install="pip install 'simenv[tn]'",
        automatic=True,
        summary="a matrix product state, by quimb: any width, little entanglement",
        costs=MpsCost(bond=256),
        loops=False,
        variables=False,
        gate_qubits=10,
        threads=False,
        dense_qubits=24,
        options=(
            EngineOption("bond", 256, 1, 4_096, "the largest bond that is kept"),
            EngineOption("cutoff", 1e-14, 0.0, 0.1, "weight that may be cut off at a gate"),
        ),
    ),
    EngineCard(
        name="aer",
        module="simulators.aer.engine:AerEngine",
        outputs=_ALL_OUTPUTS,
        dynamic=True,
        noise=False,
        reproducible=False,
        precisions=("double",),
        max_qubits=40,
        needs=("qiskit_aer",),
        install="pip install 'simenv[aer]'",
        automatic=False,
        summary="all amplitudes, by Qiskit Aer; dynamic circuits shot by shot",
        costs=StatevectorCost(
            base_bytes=3 * BASE_BYTES, copies=2, branches=2, call_s=3e-3, shot_s=30e-6
        ),
        loops=False,
        variables=False,
    ),
    EngineCard(
        name="hardware",
        module="simulators.hardware.engine:HardwareEngine",
        outputs=("counts",),
        dynamic=True,  # where its Target says so
        noise=False,
        reproducible=False,
        precisions=_BOTH,  # it has no amplitudes to round
        max_qubits=65_535,
        needs=("qiskit",),
        install="pip install simenv",
        automatic=False,
        summary="a machine behind Qiskit's BackendV2; counts are its own",
        costs=DeviceCost(),
        in_default_pool=False,
        loops=False,
        variables=False,
        threads=False,
        is_device=True,
    ),
    EngineCard(
        name="fault",
        module="simulators.fault.engine:FaultEngine",
        outputs=_WITH_GRADIENT,
        dynamic=True,
        noise=False,
        reproducible=True,
        precisions=_BOTH,
        max_qubits=_WIDEST_STATE,
        needs=("numba",),
        install="pip install simenv",
        automatic=False,
        summary="misbehaves on request, for drills; else as statevector",
        costs=StatevectorCost(passes=True),
        in_default_pool=False,
        uses_light_cone=True,
        resizable=True,
        ranks=True,
    ),
)


def card(name: str) -> EngineCard | None:
    """The card of that name; None if the catalog has none."""
    return next((entry for entry in CARDS if entry.name == name), None)
