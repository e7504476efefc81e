"""Cards of the engines of this distribution."""

import functools

from msgspec import structs

from simulators.catalog import cards as catalog_cards, costs, emulators, preference
from simulators.catalog.cards import EngineCard, EngineOption, NoiseSupport
from simulators.catalog.installed import installed

_ALL_OUTPUTS = ("counts", "probabilities", "statevector", "expectation", "memory")
_WITH_AMPLITUDES = (*_ALL_OUTPUTS, "amplitudes")
_WITH_GRADIENT = (*_ALL_OUTPUTS, "gradient", "amplitudes")
_MIXED = ("counts", "probabilities", "expectation", "memory")

# Amplitudes are numbered by signed 64-bit integers, and 2**50 of them in double precision are
# 16 PiB: memory and ranks are the limit, see `simenv.scheduler.routing.ranks`.
_WIDEST_STATE = 50

DEFAULT_ENGINE = "statevector"  # runs any circuit
ENTRY_POINTS = "simenv.engines"  # group of entry points; each names an EngineCard
_ALL_NOISE: frozenset[catalog_cards.NoiseKind] = frozenset({"kraus", "pauli", "readout"})
_DETUNED: frozenset[catalog_cards.NoiseKind] = _ALL_NOISE | frozenset({"quasistatic"})
_LEAKING: frozenset[catalog_cards.NoiseKind] = _DETUNED | frozenset({"leakage"})
_ALL_CONTROL = catalog_cards.Control(dynamic=True, loops=True, switches=True, variables=True)
_STATE_KERNELS = catalog_cards.Kernels(("small",), ("light_cone", "wide", "deferred"))
_QISKIT = catalog_cards.Package(("qiskit",))
_BOND = EngineOption("bond", 256, 1, 4_096, "the largest bond that is kept")
_CUTOFF = EngineOption("cutoff", 1e-14, 0.0, 0.1, "weight that may be cut off at a gate")

_STATEVECTOR = EngineCard(
    name="statevector", module="simulators.statevector.engine:StatevectorEngine",
    outputs=_WITH_GRADIENT, max_qubits=_WIDEST_STATE,
    summary="all amplitudes, exact; dynamic circuits by branching and merging",
    costs=costs.StatevectorCost(passes=True), reproducible=True,
    control=structs.replace(_ALL_CONTROL, parts=True), noise=NoiseSupport(_LEAKING),
    parallel=catalog_cards.Parallelism(threads=True, resizable=True, ranks=True),
    auto=catalog_cards.AutoChoice(preference.statevector_rank), light_cone="ideal",
    kernels=_STATE_KERNELS,
)  # fmt: skip
_MPS = EngineCard(
    name="mps", module="simulators.tensornetwork.mps.engine:MpsEngine", outputs=_WITH_AMPLITUDES,
    max_qubits=4_096, summary="a matrix product state: any width, little entanglement",
    costs=costs.MpsCost(bond=256), control=catalog_cards.Control(dynamic=True),
    noise=NoiseSupport(_LEAKING),
    parallel=catalog_cards.Parallelism(ranks=True, divides_state=False),
    auto=catalog_cards.AutoChoice(
        preference.mps_rank, preference.mps_objection, preference.mps_reason,
        options=(("tolerance", preference.AUTO_TOLERANCE),),
    ),
    options=(
        _BOND, _CUTOFF,
        EngineOption("tolerance", 1.0, 0.0, 1.0, "weight cut off in all, beyond it: an error"),
    ),
    method="tensor_network", gate_qubits=10, dense_qubits=24,
)  # fmt: skip

_STABILIZER = EngineCard(
    name="stabilizer", module="simulators.stabilizer.engine:StabilizerEngine", outputs=_MIXED,
    max_qubits=65_535,
    summary="Clifford circuits of any width, by stim; Paulis may depend on parities of clbits",
    costs=costs.StabilizerCost(),
    package=catalog_cards.Package(("stim",), "pip install 'simenv[stabilizer]'"),
    control=catalog_cards.Control(dynamic=True),
    noise=NoiseSupport(frozenset({"pauli", "readout"}), conditional=False, expectation=False),
    auto=catalog_cards.AutoChoice(preference.stabilizer_rank),
    options=(EngineOption(
        "twirl", 0, 0, 1, "1: other noise becomes its Pauli twirl, not refused",
        noise=frozenset({"kraus"}), conditional=True,
    ),),
    method="clifford", gate_qubits=4,
)  # fmt: skip

CARDS: tuple[EngineCard, ...] = (
    _STATEVECTOR,
    _STABILIZER,
    structs.replace(
        _STABILIZER, name="near_clifford",
        module="simulators.stabilizer.near_clifford:NearCliffordEngine",
        outputs=("counts", "expectation", "memory"), max_qubits=4_096,
        summary="Clifford circuits with few other gates, by ticit: amplitudes of few active qubits",
        costs=costs.NearCliffordCost(),
        package=catalog_cards.Package(("stim", "ticit"), "pip install 'simenv[near-clifford]'"),
        precisions=("double",),
        noise=NoiseSupport(frozenset({"pauli", "readout"}), conditional=False),
        parallel=catalog_cards.Parallelism(threads=True),
        auto=catalog_cards.AutoChoice(
            preference.near_clifford_rank, preference.near_clifford_objection,
            preference.near_clifford_reason,
        ),
        options=(structs.replace(_STABILIZER.options[0], conditional=False),),
        method="near_clifford",
    ),
    _MPS,
    EngineCard(
        name="contraction", module="simulators.tensornetwork.contraction.engine:ContractionEngine",
        outputs=_WITH_AMPLITUDES, max_qubits=4_096,
        summary="contraction of tensor networks, by cotengra: any width, shallow circuits",
        costs=costs.ContractionCost(),
        package=catalog_cards.Package(("cotengra",), "pip install 'simenv[contraction]'"),
        parallel=catalog_cards.Parallelism(ranks=True, divides_state=False),
        auto=catalog_cards.AutoChoice(
            preference.contraction_rank, preference.contraction_objection,
            preference.contraction_reason,
        ),
        options=(
            EngineOption("width", 26, 4, 34, "log2 of the values of the largest tensor"),
            EngineOption("slices", 4_096, 1, 2**20, "parts that a contraction may be cut into"),
            EngineOption("trials", 64, 1, 4_096, "searches for a contraction's path"),
            EngineOption("shares", 1, 1, 1_024, "tasks that share the slices of exact values"),
            EngineOption("share", 0, 0, 1_023, "number of this task among them: a partial sum"),
        ),
        method="tensor_network", gate_qubits=10, dense_qubits=24,
    ),
    EngineCard(
        name="sweep", module="simulators.tensornetwork.sweep.engine:SweepEngine",
        outputs=("counts", "memory"), max_qubits=4_096,
        summary="exact counts of wide shallow circuits with noise, by sweeps over their graph",
        costs=costs.SweepCost(), noise=NoiseSupport(_ALL_NOISE),
        control=catalog_cards.Control(dynamic=True, switches=True, variables=True),
        parallel=catalog_cards.Parallelism(threads=True, ranks=True, divides_state=False),
        auto=catalog_cards.AutoChoice(
            preference.sweep_rank, preference.sweep_objection, preference.sweep_reason
        ),
        method="tensor_network", gate_qubits=5,
        kernels=catalog_cards.Kernels(later=("sweeps",)),
    ),
    EngineCard(
        name="peps", module="simulators.tensornetwork.peps.engine:PepsEngine",
        outputs=("counts", "expectation", "memory"), max_qubits=4_096,
        summary="tensors on the circuit's graph, by belief propagation, with an estimated error",
        costs=costs.PepsCost(bond=32), precisions=("double",),
        noise=NoiseSupport(frozenset({"pauli", "readout"}), dynamic=False),
        options=(
            structs.replace(_BOND, default=32), _CUTOFF,
            EngineOption("tolerance", 0.05, 0.0, 1.0, "estimated error, beyond it: an error"),
        ),
        method="tensor_network", gate_qubits=2,
    ),
    EngineCard(
        name="pauli", module="simulators.pauli.engine:PauliEngine", outputs=("expectation",),
        max_qubits=4_096,
        summary="expectation values of wide circuits with noise, by Pauli propagation, with errors",
        costs=costs.PauliCost(), precisions=("double",),
        control=catalog_cards.Control(dynamic=True, conditions=False),
        noise=NoiseSupport(_ALL_NOISE, conditional=False, exact=True),
        parallel=catalog_cards.Parallelism(threads=True, ranks=True, divides_state=False),
        auto=catalog_cards.AutoChoice(
            preference.pauli_rank, preference.pauli_objection, preference.pauli_reason
        ),
        options=(
            EngineOption(
                "tolerance", 1e-3, 1e-12, 1.0, "error of an observable, of the sum of its weights"
            ),
            EngineOption("strings", 2**20, 1_024, 2**24, "strings held at once, at most"),
            EngineOption(
                "uncertified", 0, 0, 1, "1: values whose error is above the tolerance, too"
            ),
        ),
        method="tensor_network", gate_qubits=2,
        kernels=catalog_cards.Kernels(later=("pauli",)),
    ),
    EngineCard(
        name="densitymatrix", module="simulators.densitymatrix.engine:DensityMatrixEngine",
        outputs=_MIXED, max_qubits=14,
        summary="density matrix in the Pauli basis, exact with noise; dynamic circuits by record",
        costs=costs.DensityMatrixCost(), precisions=("double",), reproducible=True,
        control=catalog_cards.Control(dynamic=True), noise=NoiseSupport(_LEAKING, exact=True),
        parallel=catalog_cards.Parallelism(threads=True),
        auto=catalog_cards.AutoChoice(preference.densitymatrix_rank, only_noise=True),
        light_cone="noisy", gate_qubits=4,
        kernels=catalog_cards.Kernels(later=("attachment", "noise")),
    ),
    EngineCard(
        name="dmt", module="simulators.densitymatrix.dmt.engine:DmtEngine",
        outputs=("counts", "expectation", "memory"), max_qubits=4_096,
        summary="truncated density operators on the circuit's graph, with a measured error",
        costs=costs.DmtCost(), precisions=("double",), noise=NoiseSupport(_ALL_NOISE, exact=True),
        control=catalog_cards.Control(dynamic=True),
        parallel=catalog_cards.Parallelism(threads=True),
        options=(
            EngineOption(
                "bond", 0, 0, 1_024, "the largest bond that is kept; 0: 64 on lines, else 32"
            ),
            EngineOption(
                "tolerance", 0.05, 0.0, 1.0, "measured error of values, beyond it: an error"
            ),
        ),
        auto=catalog_cards.AutoChoice(
            preference.dmt_rank, preference.dmt_objection, preference.dmt_reason,
            only_noise=True, advantage=preference.DMT_ADVANTAGE,
        ),
        method="tensor_network", gate_qubits=2,
        kernels=catalog_cards.Kernels(later=("attachment", "noise")),
    ),
    EngineCard(
        name="gpu", module="simulators.gpu.engine:GpuEngine", outputs=_WITH_GRADIENT,
        max_qubits=_WIDEST_STATE,
        summary="all amplitudes on one GPU; batches of bindings in one launch",
        costs=costs.GpuCost(),
        # gpu-cu12 for a driver older than 580
        package=catalog_cards.Package(("numba", "cupy"), "pip install 'simenv[gpu-cu13]'"),
        reproducible=True, pool="gpu", control=_ALL_CONTROL, noise=NoiseSupport(_ALL_NOISE),
        parallel=catalog_cards.Parallelism(ranks=True),
        auto=catalog_cards.AutoChoice(preference.gpu_rank), light_cone="ideal",
        kernels=_STATE_KERNELS,
    ),
    EngineCard(
        name="gpu_sweep", module="simulators.gpu.gate_by_gate:GpuSweepEngine",
        outputs=("counts", "memory"), max_qubits=4_096,
        summary="exact counts of wide shallow circuits with noise, by sweeps on one GPU",
        costs=costs.GpuSweepCost(),
        package=catalog_cards.Package(("numba", "cupy"), "pip install 'simenv[gpu-cu13]'"),
        pool="gpu", noise=NoiseSupport(_ALL_NOISE),
        control=catalog_cards.Control(dynamic=True, switches=True, variables=True),
        auto=catalog_cards.AutoChoice(
            preference.gpu_sweep_rank, preference.sweep_objection, preference.sweep_reason
        ),
        method="tensor_network", gate_qubits=5,
        kernels=catalog_cards.Kernels(later=("sweeps",)),
    ),
    EngineCard(
        name="aer", module="simulators.aer.engine:AerEngine", outputs=_ALL_OUTPUTS, max_qubits=40,
        summary="all amplitudes, by Qiskit Aer; dynamic circuits shot by shot",
        costs=costs.StatevectorCost(
            base_bytes=3 * costs.BASE_BYTES, copies=2, branches=2, call_s=3e-3, shot_s=30e-6
        ),
        package=catalog_cards.Package(("qiskit_aer",), "pip install 'simenv[aer]'"),
        precisions=("double",), control=catalog_cards.Control(dynamic=True),
        parallel=catalog_cards.Parallelism(threads=True),
    ),
    EngineCard(
        name="quimb", module="simulators.quimb.engine:QuimbEngine", outputs=_WITH_AMPLITUDES,
        max_qubits=_MPS.max_qubits,
        summary="a matrix product state by quimb, whose order of sites follows the circuit",
        costs=costs.MpsCost(
            bond=256, base_bytes=2 * costs.BASE_BYTES, tensor_bytes=16 * 2 * 8, gate_s=1.5e-3
        ),
        package=catalog_cards.Package(("quimb",), "pip install 'simenv[quimb]'"),
        options=(
            _BOND, _CUTOFF,
            EngineOption("permute", 1, 0, 1, "1: qubits that met stay neighbours; 0: swapped back"),
        ),
        method=_MPS.method, gate_qubits=_MPS.gate_qubits, dense_qubits=_MPS.dense_qubits,
    ),
    EngineCard(
        name="hardware", module="simulators.hardware.engine:HardwareEngine",
        outputs=("counts", "memory"),  # memory if the machine's results have it
        max_qubits=65_535, summary="a machine behind Qiskit's BackendV2; counts are its own",
        costs=costs.DeviceCost(), package=_QISKIT, pool="device",
        control=catalog_cards.Control(dynamic=True),  # if its Target states it
    ),
    EngineCard(
        name="external", module="simulators.external.engine:ExternalEngine", outputs=("counts",),
        max_qubits=65_535,
        summary="a simulator's program that its pool names, one process a circuit",
        costs=costs.DeviceCost(shot_s=1e-6), package=_QISKIT, pool="program",
        parallel=catalog_cards.Parallelism(threads=True),
    ),
    *catalog_cards.CALL_CARDS,
    *emulators.EMULATOR_CARDS,
    structs.replace(
        _STATEVECTOR, name="fault", module="simulators.fault.engine:FaultEngine",
        summary="misbehaves on request, for drills; else as statevector", pool="named",
        control=_ALL_CONTROL, auto=None,
    ),
)  # fmt: skip
_BY_NAME = {entry.name: entry for entry in CARDS}


def builtin_card(name: str) -> EngineCard:
    return _BY_NAME[name]


@functools.cache
def engine_cards() -> tuple[EngineCard, ...]:
    """Cards of this distribution, then of the entry points, each group by name. Raises Unsupported
    for an entry point that names no card, or whose name is taken."""
    return installed(CARDS, EngineCard, ENTRY_POINTS, things="engines", no="not an")


def card(name: str) -> EngineCard | None:
    """Card with this name; None if there is none. Entry points are read only if necessary."""
    built_in = _BY_NAME.get(name)
    return built_in or next((entry for entry in engine_cards() if entry.name == name), None)


def settings_of(
    engine: str, options: catalog_cards.Options, *, auto: bool
) -> catalog_cards.Options:
    """Options of a run: the given ones; if `auto` chose the engine and none are given, its
    card's."""
    engine_card = card(engine)
    if options or not auto or engine_card is None or engine_card.auto is None:
        return options
    return engine_card.auto.options
