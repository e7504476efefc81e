"""Decays of Paulis by layers, from counts of cycle benchmarking on an emulated device."""

import itertools

import msgspec
import numpy as np
import pytest

from noise_models.build import build
from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    LayerCalibration,
    LayerGate,
    NativeGate,
    PauliGenerator,
    QubitCalibration,
)
from simenv.calibration.certify import Claims, ClaimVerdict, compare
from simenv.calibration.experiments import layers, plans, programs
from simenv.calibration.experiments.clifford import native_set
from simenv.service.devices.registry import device_info
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.attach_noise import NoiseAttachment
from simulators.simulate import simulate

PAIRS = ((0, 1), (1, 2), (2, 3))


def device(seed: int, entangler: str = "cz") -> CalibrationSnapshot:
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


def measured(snapshot: CalibrationSnapshot, shots: int, seed: int) -> plans.Counts:
    """Counts of all circuits of the device's layer, drawn from their exact distributions."""
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
    snapshot = device(3, entangler)
    found = layers.estimates(measured(snapshot, 40_000, 1), snapshot.layers)
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
    snapshot = device(4)
    (layer,) = snapshot.layers
    largest = max(layer.generators, key=lambda each: each.rate)
    worse = tuple(
        msgspec.structs.replace(each, rate=1.5 * each.rate) if each is largest else each
        for each in layer.generators
    )
    changed = msgspec.structs.replace(
        snapshot, layers=(msgspec.structs.replace(layer, generators=worse),)
    )
    found = layers.estimates(measured(changed, 40_000, 2), snapshot.layers)
    outside, same = (
        [each for each in compare(found, Claims(one).value) if each.verdict is ClaimVerdict.OUTSIDE]
        for one in (snapshot, changed)
    )
    assert outside
    assert not same


def test_layers_are_measured_where_their_gates_and_qubits_are() -> None:
    snapshot = device(5)
    assert layers.measurable(snapshot.layers, "cz", range(4)) == snapshot.layers
    assert layers.measurable(snapshot.layers, "ecr", range(4)) == ()
    assert layers.measurable(snapshot.layers, "cz", range(3)) == ()
