"""Experiments of single terms on random devices: estimates are within their intervals."""

import itertools

import numpy as np
import pytest
from exact_runner import ExactRunner
from msgspec.structs import replace

from noise_models.build import build
from noise_models.calibration import (
    CalibrationSnapshot,
    CorrelatedReadout,
    GateCalibration,
    LayerCalibration,
    LayerGate,
    Link,
    MeasurementCrosstalk,
    NativeGate,
    PauliGenerator,
    PauliRotation,
    QubitCalibration,
    T1Jumps,
    ZZCoupling,
)
from noise_models.confusion import independent_confusion
from noise_models.options import COMPONENTS
from simenv.calibration import certify
from simenv.calibration.certify import Claims, ClaimVerdict, compare
from simenv.calibration.experiments import (
    estimators,
    layers,
    plans,
    procedure as experiments,
    programs,
)
from simenv.calibration.experiments.clifford import native_set
from simenv.calibration.experiments.estimators import Estimate, Place
from simenv.calibration.untested import QUANTITIES, UntestedTerm, untested
from simenv.service.devices.registry import device_info
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.attach_noise import NoiseAttachment
from simulators.simulate import simulate

DEVICES = 20
Z = 5.0  # standard errors


def device(rng: np.random.Generator, entangler: str = "cz") -> CalibrationSnapshot:
    """A pair of qubits with random times and readout."""
    sizes = {"rz": (1, 1), "sx": (1, 0), "x": (1, 0), entangler: (2, 0)}
    qubits = tuple(
        QubitCalibration(
            t1_us=rng.uniform(60.0, 200.0), t2_us=rng.uniform(40.0, 100.0),
            p01=rng.uniform(0.005, 0.03), p10=rng.uniform(0.01, 0.05), readout_ns=1000.0,
        )
        for _ in range(2)
    )  # fmt: skip
    gates = (
        GateCalibration("rz", (), 0.0, 0.0), GateCalibration("sx", (), 8e-4, 35.0),
        GateCalibration("x", (), 1.5e-3, 35.0), GateCalibration(entangler, (0, 1), 0.012, 100.0),
    )  # fmt: skip
    return CalibrationSnapshot(
        "random", 2, dynamic=True, qubits=qubits, gates=gates, coupling=((0, 1),),
        native_gates=tuple(NativeGate(name, *each) for name, each in sizes.items()),
    )  # fmt: skip


def measured(
    truth: CalibrationSnapshot, names: dict[str, list[Place]], seed: int
) -> list[Estimate]:
    """Estimates from the counts of some experiments, planned for what the device claims."""
    info = device_info("random", truth, "")
    tested = experiments.choose(info, None)
    runner = ExactRunner(truth, seed)
    procedure = experiments.Procedure(
        info, tested, runner, seed, experiments.ExperimentShots(),
        stated=certify._stated(info, truth, tested),
    )  # fmt: skip
    qubits = range(truth.num_qubits)
    times = {k: 1e3 * (truth.qubits[k].t1_us or 0.0) for k in qubits}
    scales = experiments.RoughEstimates(
        times, times, times, {(k,): 1e-3 for k in qubits}, dict.fromkeys(tested.pairs, 0.02), ()
    )
    settings = experiments._Settings(experiments.ExperimentShots(), scales)
    singles: list[Place] = [(k,) for k in qubits]
    circuits = list(procedure._experiment(settings, experiments.READOUT, singles))
    for name, places in names.items():
        circuits += procedure._experiment(settings, name, places)
    return list(procedure.estimates(runner.run(circuits)))


def wrong(
    truth: CalibrationSnapshot, found: list[Estimate], quantities: set[str]
) -> list[tuple[Estimate, float | None]]:
    """Estimates whose interval of Z standard errors excludes the value of the device; at least one
    of each quantity has to be there."""
    claims = certify.Claims(truth, ("x",))
    chosen = [(each, claims.value(each)) for each in found if each.quantity in quantities]
    assert {each.quantity for each, _ in chosen} == quantities
    return [
        (each, claim)
        for each, claim in chosen
        if claim is None or abs(each.value - claim) > Z * each.std_error
    ]


@pytest.mark.parametrize("entangler", ["cz", "ecr"])
def test_leakage_of_pairs_and_half_turns_is_recovered(entangler: str) -> None:
    rng = np.random.default_rng(1)
    resolved = 0
    for seed in range(DEVICES // 2):
        plain = device(rng, entangler)
        leaks = {"x": 10 ** rng.uniform(-4.0, -3.0), entangler: 10 ** rng.uniform(-3.5, -2.5)}
        gates = tuple(
            replace(each, leakage=leaks[each.name], seepage=rng.uniform(3e-3, 0.03))
            if each.name in leaks else each
            for each in plain.gates
        )  # fmt: skip
        truth = replace(plain, gates=gates)
        if seed % 2:
            qubits = tuple(replace(q, leaked_readout=0.8) for q in truth.qubits)
            truth = replace(truth, qubits=qubits)
        places: dict[str, list[Place]] = {
            experiments.LEAKAGE_HALF: [(0,), (1,)], experiments.LEAKAGE_2Q: [(0, 1)],
        }  # fmt: skip
        found = measured(truth, places, seed)
        assert not wrong(truth, found, {"leakage", "seepage", "leakage_2q", "seepage_2q"})
        (pair,) = [each for each in found if each.quantity == "leakage_2q"]
        resolved += pair.std_error < 0.3 * pair.value
    assert resolved >= DEVICES // 4


@pytest.mark.parametrize("entangler", ["cx", "ecr", "cz"])
def test_rotations_of_entangling_gates_are_recovered(entangler: str) -> None:
    """Also beside an over-rotation of the gate and of half turns."""
    rng = np.random.default_rng(2)
    for seed in range(DEVICES // 2):
        plain = device(rng, entangler)
        angles = dict(zip(("ZZ", "IZ", "ZI"), rng.uniform(-0.08, 0.08, 3).tolist(), strict=True))
        turns = tuple(PauliRotation(*each) for each in angles.items())
        over = {"x": 0.01, "sx": 0.005, entangler: rng.uniform(-0.03, 0.03)}
        gates = tuple(
            replace(
                each, over_rotation_rad=over.get(each.name), rotations=turns if each.qubits else ()
            )
            for each in plain.gates
        )
        truth = replace(plain, gates=gates)
        found = measured(truth, {experiments.ROTATIONS: [(0, 1)]}, seed)
        assert not wrong(truth, found, {"zz_angle_rad", "z_angle_rad"})
        assert max([each.std_error for each in found if "angle" in each.quantity]) < 1e-3


def test_populations_at_the_start_after_a_reset_and_in_equilibrium_are_recovered() -> None:
    """Beside transitions by measurements and the errors of readout of each qubit."""
    rng = np.random.default_rng(3)
    for seed in range(DEVICES):
        plain = device(rng)
        qubits = tuple(
            replace(
                qubit, excited=rng.uniform(0.0, 0.05), preparation_error=rng.uniform(0.0, 0.03),
                reset_error=rng.uniform(0.0, 0.03), reset_ns=1000.0,
                measure_decay=rng.uniform(0.03, 0.06) if seed % 2 else None,
            )
            for qubit in plain.qubits
        )  # fmt: skip
        truth = replace(plain, qubits=qubits)
        found = measured(truth, {experiments.POPULATIONS: [(0,), (1,)]}, seed)
        assert not wrong(truth, found, {"preparation_error", "reset_error", "excited"})
        assert max([each.std_error for each in found if each.quantity == "excited"]) < 1.2e-3


@pytest.mark.parametrize("size", [2, 3, 4])
def test_joint_flips_of_groups_are_recovered(size: int) -> None:
    """Flips of each set of qubits with a probability of its own, beside the errors of each."""
    rng = np.random.default_rng(size)
    for seed in range(DEVICES):
        flips = {mask: rng.uniform(0.0, 0.02) for mask in estimators.subsets(tuple(range(size)))}
        confusion = independent_confusion(rng.uniform(0.005, 0.05, (size, 2)))
        index = np.arange(1 << size)
        for mask, p in flips.items():
            confusion = (1.0 - p) * confusion + p * confusion[index ^ mask]
        counts: plans.Counts = {
            plans.ExperimentSetting("together", tuple(range(size)), 0.0, true): rng.multinomial(
                24_000, confusion[:, true]
            )
            for true in index.tolist()
        }
        found = estimators.joint_flips(counts, "together")
        assert len(found) == len(flips)
        exact = estimators.flips_together(confusion)
        for mask, place in estimators.subsets(tuple(range(size))).items():
            (each,) = [estimate for estimate in found if estimate.qubits == place]
            assert exact[mask] == pytest.approx(flips[mask], abs=2e-4)
            assert abs(each.value - exact[mask]) < Z * each.std_error, seed
            assert each.std_error < 1e-3


def test_an_interaction_during_half_turns_makes_angles_uncertain() -> None:
    """No culprit beside a ZZ interaction whose time of action in a half turn is not known."""
    rng = np.random.default_rng(6)
    plain = device(rng, "cx")
    turns = (PauliRotation("ZZ", 0.05), PauliRotation("IZ", -0.03))
    gates = tuple(replace(each, rotations=turns) if each.qubits else each for each in plain.gates)
    truth = replace(plain, gates=gates, zz=(ZZCoupling((0, 1), 60.0),))
    places: dict[str, list[Place]] = {name: [(0, 1)] for name in ("zz", experiments.ROTATIONS)}
    found = measured(truth, places, 1)
    assert not wrong(truth, found, {"zz_angle_rad", "z_angle_rad", "zz_khz"})
    (angle,) = [each for each in found if each.quantity == "zz_angle_rad"]
    claims = certify.Claims(truth)
    assert angle.systematic > 1e-3
    assert "during half turns" in claims.unresolved(angle, found)[0]
    assert experiments._width_ratio(angle, 4.0) == 0.0


PAIRS = ((0, 1), (1, 2), (2, 3))


def layered_device(seed: int, entangler: str = "cz") -> CalibrationSnapshot:
    """Four qubits in a line, and a layer with random rates of Paulis on neighbours."""
    rng = np.random.default_rng(seed)
    places = [*((q,) for q in range(4)), *PAIRS]
    generators = tuple(
        PauliGenerator("".join(letters), place, float(rng.exponential(4e-3)))
        for place in places
        for letters in itertools.product("XYZ", repeat=len(place))
        if rng.random() < 0.7
    )
    gates = (LayerGate(entangler, (0, 1)), LayerGate(entangler, (3, 2)))
    sizes = {"rz": (1, 1), "sx": (1, 0), "x": (1, 0), entangler: (2, 0)}
    return CalibrationSnapshot(
        "layered", 4, native_gates=tuple(NativeGate(k, *each) for k, each in sizes.items()),
        coupling=(*PAIRS, (3, 2)), layers=(LayerCalibration(gates, (0, 1, 2, 3), generators),),
        qubits=(QubitCalibration(t1_us=100.0, t2_us=80.0, p01=0.02, p10=0.04),) * 4,
        gates=(
            GateCalibration("sx", (), 1e-3, 40.0), GateCalibration("rz", (), 0.0, 0.0),
            GateCalibration(entangler, (0, 1), 0.03, 200.0),
            GateCalibration(entangler, (3, 2), 0.03, 350.0),
        ),
    )  # fmt: skip


def layer_counts(snapshot: CalibrationSnapshot, shots: int, seed: int) -> plans.Counts:
    """Counts of all circuits of the layer, drawn from their exact distributions."""
    alphabet = programs.NativeGateRows(native_set(device_info("layered", snapshot, "")))
    attachment = NoiseAttachment(build(snapshot))
    rng = np.random.default_rng(seed)
    counts: plans.Counts = {}
    for planned in layers.circuits(0, snapshot.layers[0], alphabet, 4, shots):
        circuit = Circuit.from_program(planned.program)
        result = simulate(
            circuit, noise=attachment.attach(circuit), engine="densitymatrix",
            outputs=("probabilities",), shots=0,
        ).row(0)  # fmt: skip
        read = np.frombuffer(result.probability_outcomes, np.uint8)[:: result.probability_width]
        probs = np.frombuffer(result.probabilities)
        drawn = rng.multinomial(planned.shots, probs / probs.sum()).astype(np.uint32)
        plans.add(counts, planned.points, read.astype(np.uint64), drawn)
    return counts


@pytest.mark.parametrize("entangler", ["cz", "ecr"])
def test_decays_and_rates_of_a_layer_are_recovered(entangler: str) -> None:
    snapshot = layered_device(3, entangler)
    found = layers.estimates(layer_counts(snapshot, 40_000, 1), snapshot.layers)
    assert len(found) == 4 * 3 + 3 * 9
    (layer,) = snapshot.layers
    rates = layers.recovered_rates(layer, found)
    for each in found:
        claim, again = (layers.claimed((one,), each) for one in (layer, rates))
        assert abs(each.value - claim) < 5.0 * each.std_error, each
        assert each.std_error < max(0.03 * claim, 1e-4)
        assert again == pytest.approx(claim, abs=5.0 * each.std_error)
    total = sum(each.rate for each in layer.generators)
    assert sum(each.rate for each in rates.generators) == pytest.approx(total, rel=0.05)


def test_a_layer_with_another_rate_is_outside_its_claim() -> None:
    snapshot = layered_device(4)
    (layer,) = snapshot.layers
    largest = max(layer.generators, key=lambda each: each.rate)
    worse = tuple(
        replace(each, rate=1.5 * each.rate) if each is largest else each
        for each in layer.generators
    )
    changed = replace(snapshot, layers=(replace(layer, generators=worse),))
    found = layers.estimates(layer_counts(changed, 40_000, 2), snapshot.layers)
    outside, same = (
        [each for each in compare(found, Claims(one).value) if each.verdict is ClaimVerdict.OUTSIDE]
        for one in (snapshot, changed)
    )
    assert outside
    assert not same


def test_layers_are_measured_where_their_gates_and_qubits_are() -> None:
    snapshot = layered_device(5)
    assert layers.measurable(snapshot.layers, "cz", range(4)) == snapshot.layers
    assert layers.measurable(snapshot.layers, "ecr", range(4)) == ()
    assert layers.measurable(snapshot.layers, "cz", range(3)) == ()


QUBITS, COUPLED = range(3), ((0, 1),)
# What every certificate measures of every qubit and pair, or says to be without a signal.
ALWAYS = {
    "gate.leakage", "qubit.relaxation", "qubit.idle", "qubit.quasistatic", "qubit.readout",
}  # fmt: skip


def claimed_device(*, dynamic: bool) -> CalibrationSnapshot:
    """Three qubits with a value of each component."""
    qubit = QubitCalibration(
        t1_us=80.0, t2_us=60.0, t2_star_us=40.0, p01=0.01, p10=0.02, excited=0.01,
        preparation_error=0.005, reset_error=0.01, memory_error=1e-3, measure_decay=0.05,
        measure_excitation=0.02, readout_decided=0.5, t1_jumps=T1Jumps(2.0, 600.0, 0.2),
    )  # fmt: skip
    confusion = independent_confusion(np.array([(0.01, 0.02)] * 3))
    sizes = {"rz": (1, 1), "sx": (1, 0), "x": (1, 0), "cx": (2, 0), "id": (1, 0)}
    turned = (PauliRotation("ZX", 0.08), PauliRotation("ZZ", 0.03))
    return CalibrationSnapshot(
        "full", 3, dynamic=dynamic, qubits=(qubit,) * 3, coupling=((0, 1),),
        native_gates=tuple(NativeGate(name, *each) for name, each in sizes.items()),
        gates=(
            GateCalibration("rz", (), 0.0), GateCalibration("sx", (), 1e-3, leakage=1e-4),
            GateCalibration("x", (), 1e-3), GateCalibration("id", (), 1e-3),
            GateCalibration("cx", (0, 1), 0.01, rotations=turned),
        ),
        zz=(ZZCoupling((1, 2), 20.0),),
        measurement_crosstalk=(MeasurementCrosstalk((0, 1), 0.01),),
        correlated_readout=(CorrelatedReadout((0, 1, 2), tuple(map(tuple, confusion.tolist()))),),
        layers=(
            LayerCalibration(
                (LayerGate("cz", (0, 1)),), (0, 1), (PauliGenerator("X", (0,), 1e-3),)
            ),
        ),
        links=(Link((1, 2), fidelity=0.9, rate_hz=1e4),),
    )  # fmt: skip


def untested_terms(snapshot: CalibrationSnapshot, estimates: list[Estimate]) -> list[UntestedTerm]:
    gates = native_set(device_info("full", snapshot, ""))
    return untested(snapshot, gates, estimates, (QUBITS, COUPLED), 2e4)


def test_each_component_has_quantities_and_is_named_where_nothing_was_measured() -> None:
    # Those of neutral atoms: tests/simenv/calibration/atoms/.
    assert set(QUANTITIES) == {each for each in COMPONENTS if not each.startswith("atom.")}
    found = untested_terms(claimed_device(dynamic=False), [])
    assert {each.component for each in found} == set(QUANTITIES) - ALWAYS
    assert all(each.reason for each in found)
    leaking = Claims(claimed_device(dynamic=False)).not_measured(
        [Estimate("error_1q", (0,), 1e-3, 1e-5, gate="sx")]
    )
    assert {each.quantity for each in leaking} == {"leakage"}


def test_measured_terms_are_not_named() -> None:
    snapshot = claimed_device(dynamic=True)
    measured = {
        name: [(k,) for k in QUBITS]
        for name in (
            "memory_error", "measure_decay", "measure_excitation", "excited", "reset_error",
            "preparation_error",
        )
    }  # fmt: skip
    measured |= {"joint_flip": [(0, 1), (0, 1, 2)], "measurement_crosstalk": [(0, 1)]}
    estimates = [
        Estimate(name, place, 0.0, 1e-3) for name, places in measured.items() for place in places
    ]
    left = {(each.quantity, each.by_parts) for each in untested_terms(snapshot, estimates)}
    assert left == {
        ("readout_decided", False), ("t1_jumps", True), ("over_rotation_rad", False),
        ("error_other", True), ("zz_khz", False), ("layer_decay", False), ("pair_error", False),
        ("link_wait_ns", False),
    }  # fmt: skip


def test_a_small_rotation_is_a_part_of_the_measured_error() -> None:
    snapshot = claimed_device(dynamic=True)
    gates = tuple(
        replace(each, rotations=(PauliRotation("ZX", 0.01),))
        if each.name == "cx" else each
        for each in snapshot.gates
    )  # fmt: skip
    (angle,) = [
        each
        for each in untested_terms(replace(snapshot, gates=gates), [])
        if each.component == "gate.coherent"
    ]
    assert (angle.qubits, angle.gate, angle.claimed, angle.by_parts) == ((0, 1), "cx", 0.01, True)
