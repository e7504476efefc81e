"""Cards of the engines of this distribution."""

from __future__ import annotations

import functools

from simulators.catalog import preference
from simulators.catalog.calls import CALL_CARDS
from simulators.catalog.cards import EngineCard, EngineOption, NoiseKind, Options
from simulators.catalog.costs import (
    BASE_BYTES,
    ContractionCost,
    DensityMatrixCost,
    DeviceCost,
    MpsCost,
    StabilizerCost,
    StatevectorCost,
)
from simulators.catalog.gpu_costs import GpuCost
from simulators.errors import Unsupported

_ALL_OUTPUTS = ("counts", "probabilities", "statevector", "expectation", "memory")
_WITH_AMPLITUDES = (*_ALL_OUTPUTS, "amplitudes")
_WITH_GRADIENT = (*_ALL_OUTPUTS, "gradient", "amplitudes")
_BOTH = ("double", "single")

# Amplitudes are numbered by signed 64-bit integers, and 2**50 of them in double precision are
# 16 PiB: memory and ranks are the limit, see `simenv.scheduler.routing.ranks`.
_WIDEST_STATE = 50

DEFAULT_ENGINE = "statevector"  # runs any circuit
ENTRY_POINTS = "simenv.engines"  # group of entry points; each names an EngineCard
_ALL_NOISE: frozenset[NoiseKind] = frozenset({"kraus", "pauli", "readout"})
_LATER_KERNELS = ("light_cone", "wide", "deferred")

CARDS: tuple[EngineCard, ...] = (
    EngineCard(
        name="statevector",
        module="simulators.statevector.engine:StatevectorEngine",
        outputs=_WITH_GRADIENT,
        dynamic=True,
        reproducible=True,
        precisions=_BOTH,
        max_qubits=_WIDEST_STATE,
        needs=("numba",),
        install="pip install simenv",
        auto_rank=preference.statevector_rank,
        summary="all amplitudes, exact; dynamic circuits by branching and merging",
        costs=StatevectorCost(passes=True),
        noise=_ALL_NOISE,
        uses_light_cone=True,
        resizable=True,
        ranks=True,
        keeps_states=True,
        start_kernels=("small",),
        later_kernels=_LATER_KERNELS,
    ),
    EngineCard(
        name="stabilizer",
        module="simulators.stabilizer.engine:StabilizerEngine",
        outputs=("counts", "probabilities", "expectation", "memory"),
        dynamic=True,
        reproducible=False,
        precisions=_BOTH,  # it has no amplitudes to round
        max_qubits=65_535,
        needs=("stim",),
        install="pip install 'simenv[stabilizer]'",
        auto_rank=preference.stabilizer_rank,
        summary="Clifford circuits of any width, by stim; Paulis may depend on parities of clbits",
        costs=StabilizerCost(),
        noise=frozenset({"pauli", "readout"}),
        conditional_noise=False,
        noisy_expectation=False,
        options=(
            EngineOption(
                "twirl",
                0,
                0,
                1,
                "1: other noise becomes its Pauli twirl, not refused",
                noise=frozenset({"kraus"}),
            ),
        ),
        clifford=True,
        loops=False,
        variables=False,
        gate_qubits=4,
        threads=False,
    ),
    EngineCard(
        name="mps",
        module="simulators.tensornetwork.mps.engine:MpsEngine",
        outputs=_WITH_AMPLITUDES,
        dynamic=True,
        reproducible=False,
        precisions=_BOTH,
        max_qubits=4_096,
        needs=("numba",),
        install="pip install simenv",
        auto_rank=preference.mps_rank,
        auto_objection=preference.mps_objection,
        auto_reason=preference.mps_reason,
        tensor_network=True,
        summary="a matrix product state: any width, little entanglement",
        costs=MpsCost(bond=256),
        noise=_ALL_NOISE,
        dynamic_noise=False,
        loops=False,
        variables=False,
        gate_qubits=10,
        threads=False,
        dense_qubits=24,
        options=(
            EngineOption("bond", 256, 1, 4_096, "the largest bond that is kept"),
            EngineOption("cutoff", 1e-14, 0.0, 0.1, "weight that may be cut off at a gate"),
            EngineOption("tolerance", 1.0, 0.0, 1.0, "weight cut off in all, beyond it: an error"),
        ),
        auto_options=(("tolerance", preference.AUTO_TOLERANCE),),
    ),
    EngineCard(
        name="contraction",
        module="simulators.tensornetwork.contraction.engine:ContractionEngine",
        outputs=_WITH_AMPLITUDES,
        dynamic=False,
        reproducible=False,
        precisions=_BOTH,
        max_qubits=4_096,
        needs=("cotengra",),
        install="pip install 'simenv[contraction]'",
        auto_rank=preference.contraction_rank,
        auto_objection=preference.contraction_objection,
        auto_reason=preference.contraction_reason,
        tensor_network=True,
        summary="contraction of tensor networks, by cotengra: any width, shallow circuits",
        costs=ContractionCost(),
        loops=False,
        variables=False,
        gate_qubits=10,
        threads=False,
        ranks=True,
        dense_qubits=24,
        options=(
            EngineOption("width", 26, 4, 34, "log2 of the values of the largest tensor"),
            EngineOption("slices", 4_096, 1, 2**20, "parts that a contraction may be cut into"),
            EngineOption("trials", 16, 1, 4_096, "searches for a contraction's path"),
            EngineOption("shares", 1, 1, 1_024, "tasks that share the slices of exact values"),
            EngineOption("share", 0, 0, 1_023, "number of this task among them: a partial sum"),
        ),
    ),
    EngineCard(
        name="densitymatrix",
        module="simulators.densitymatrix.engine:DensityMatrixEngine",
        outputs=("counts", "probabilities", "expectation", "memory"),
        dynamic=True,
        reproducible=True,
        precisions=("double",),
        max_qubits=14,
        needs=("numba",),
        install="pip install simenv",
        auto_rank=preference.densitymatrix_rank,
        summary="density matrix in the Pauli basis, exact with noise; dynamic circuits by record",
        costs=DensityMatrixCost(),
        noise=_ALL_NOISE,
        exact_noise=True,
        only_noise=True,
        uses_light_cone=True,
        noisy_components=True,
        loops=False,
        variables=False,
        gate_qubits=4,
        later_kernels=("attachment", "noise"),
    ),
    EngineCard(
        name="gpu",
        module="simulators.gpu.engine:GpuEngine",
        outputs=_WITH_GRADIENT,
        dynamic=True,
        reproducible=True,
        precisions=_BOTH,
        max_qubits=_WIDEST_STATE,
        needs=("numba", "cupy"),
        install="pip install 'simenv[gpu-cu13]'",  # gpu-cu12 for a driver older than 580
        summary="all amplitudes on one GPU; batches of bindings in one launch",
        ranks=True,
        costs=GpuCost(),
        auto_rank=preference.gpu_rank,
        noise=_ALL_NOISE,
        in_default_pool=False,
        uses_light_cone=True,
        threads=False,
        gpus=True,
        start_kernels=("small",),
        later_kernels=_LATER_KERNELS,
    ),
    EngineCard(
        name="aer",
        module="simulators.aer.engine:AerEngine",
        outputs=_ALL_OUTPUTS,
        dynamic=True,
        reproducible=False,
        precisions=("double",),
        max_qubits=40,
        needs=("qiskit_aer",),
        install="pip install 'simenv[aer]'",
        summary="all amplitudes, by Qiskit Aer; dynamic circuits shot by shot",
        costs=StatevectorCost(
            base_bytes=3 * BASE_BYTES, copies=2, branches=2, call_s=3e-3, shot_s=30e-6
        ),
        loops=False,
        variables=False,
    ),
    EngineCard(
        name="quimb",
        module="simulators.quimb.engine:QuimbEngine",
        outputs=_WITH_AMPLITUDES,
        dynamic=False,
        reproducible=False,
        precisions=_BOTH,
        max_qubits=4_096,
        needs=("quimb",),
        install="pip install 'simenv[quimb]'",
        tensor_network=True,
        summary="a matrix product state by quimb, whose order of sites follows the circuit",
        costs=MpsCost(bond=256, base_bytes=2 * BASE_BYTES, tensor_bytes=16 * 2 * 8, gate_s=1.5e-3),
        loops=False,
        variables=False,
        gate_qubits=10,
        threads=False,
        dense_qubits=24,
        options=(
            EngineOption("bond", 256, 1, 4_096, "the largest bond that is kept"),
            EngineOption("cutoff", 1e-14, 0.0, 0.1, "weight that may be cut off at a gate"),
            EngineOption("permute", 1, 0, 1, "1: qubits that met stay neighbours; 0: swapped back"),
        ),
    ),
    EngineCard(
        name="hardware",
        module="simulators.hardware.engine:HardwareEngine",
        outputs=("counts", "memory"),  # memory if the machine's results have it
        dynamic=True,  # if its Target states it
        reproducible=False,
        precisions=_BOTH,  # it has no amplitudes to round
        max_qubits=65_535,
        needs=("qiskit",),
        install="pip install simenv",
        summary="a machine behind Qiskit's BackendV2; counts are its own",
        costs=DeviceCost(),
        in_default_pool=False,
        loops=False,
        variables=False,
        threads=False,
        is_device=True,
    ),
    EngineCard(
        name="external",
        module="simulators.external.engine:ExternalEngine",
        outputs=("counts",),
        dynamic=False,
        reproducible=False,
        precisions=_BOTH,  # of the program, whatever it has
        max_qubits=65_535,
        needs=("qiskit",),
        install="pip install simenv",
        summary="a simulator's program that its pool names, one process a circuit",
        costs=DeviceCost(shot_s=1e-6),
        in_default_pool=False,
        loops=False,
        variables=False,
        has_program=True,
    ),
    *CALL_CARDS,
    EngineCard(
        name="fault",
        module="simulators.fault.engine:FaultEngine",
        outputs=_WITH_GRADIENT,
        dynamic=True,
        reproducible=True,
        precisions=_BOTH,
        max_qubits=_WIDEST_STATE,
        needs=("numba",),
        install="pip install simenv",
        summary="misbehaves on request, for drills; else as statevector",
        costs=StatevectorCost(passes=True),
        in_default_pool=False,
        noise=_ALL_NOISE,
        uses_light_cone=True,
        resizable=True,
        ranks=True,
        start_kernels=("small",),
        later_kernels=_LATER_KERNELS,
    ),
)
_BY_NAME = {entry.name: entry for entry in CARDS}


def builtin_card(name: str) -> EngineCard:
    """Card of an engine of this distribution."""
    return _BY_NAME[name]


@functools.cache
def engine_cards() -> tuple[EngineCard, ...]:
    """Cards of this distribution, then of the entry points, each group by name.

    Raises Unsupported for an entry point that names no card, or whose name is taken.
    """
    from importlib.metadata import entry_points  # here: importing it takes 10 ms

    cards = list(CARDS)
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda each: each.name):
        result = entry.load()
        if not isinstance(result, EngineCard) or result.name != entry.name:
            raise Unsupported(
                f"entry point {entry.name!r} of {ENTRY_POINTS!r} is not an EngineCard of that name",
                hint=f"let it name one, or remove the distribution that has {entry.value}",
            )
        if any(each.name == result.name for each in cards):
            raise Unsupported(
                f"there are two engines {result.name!r}", hint=f"remove the one of {entry.value}"
            )
        cards.append(result)
    return tuple(cards)


def card(name: str) -> EngineCard | None:
    """Card with this name; None if there is none. Entry points are read only if necessary."""
    built_in = _BY_NAME.get(name)
    return built_in or next((entry for entry in engine_cards() if entry.name == name), None)


def settings_of(engine: str, options: Options, *, auto: bool) -> Options:
    """Options of a run: the given ones; if `auto` chose the engine and none are given, its
    card's."""
    engine_card = card(engine)
    return options if options or engine_card is None or not auto else engine_card.auto_options
