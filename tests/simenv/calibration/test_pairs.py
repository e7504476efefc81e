"""Terms of pairs in counts: records flipped together, angles, and what twirling leaves of them."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from changed_devices import changed_qubit
from msgspec.structs import replace
from numpy.typing import NDArray
from qiskit import QuantumCircuit, qasm2
from qiskit.quantum_info import Clifford, Pauli

from noise_models.build import build
from noise_models.calibration import (
    CalibrationSnapshot,
    CorrelatedReadout,
    GateCalibration,
    NativeGate,
    PauliRotation,
    QubitCalibration,
)
from noise_models.channel import from_unitary
from noise_models.confusion import independent_confusion
from noise_models.gate_errors import coherent_error
from simenv.calibration.data import CountsData, CountsRecord, read
from simenv.calibration.fit.attempt import MANY_BODIES
from simenv.calibration.fit.calibrate import calibrate
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.simulate import simulate
from testbed.drawn_devices import changed, circuits, counts_of, device, loss

JOINT = 0.02  # probability that the records of qubits 0, 1 are both flipped


def flipped_together(snapshot: CalibrationSnapshot, pair: tuple[int, int]) -> CalibrationSnapshot:
    """Device on which the records of a pair are both flipped with the probability JOINT, after the
    errors of each."""
    flips = np.array([snapshot.qubits[qubit].confusion for qubit in pair])
    alone = independent_confusion(flips)
    confusion = (1.0 - JOINT) * alone + JOINT * alone[::-1]
    for qubit, (p01, p10) in zip(pair, flips.tolist(), strict=True):
        own = (p + JOINT * (1.0 - 2.0 * p) for p in (p01, p10))
        snapshot = changed_qubit(snapshot, qubit, **dict(zip(("p01", "p10"), own, strict=True)))
    group = CorrelatedReadout(pair, tuple(map(tuple, confusion.tolist())))
    return replace(snapshot, correlated_readout=(group,))


def drawn(
    truth: CalibrationSnapshot, random: np.random.Generator, count: int, shots: int = 8_000
) -> CountsData:
    return counts_of(truth, circuits(random, truth.num_qubits, count), shots, random)


def test_records_that_are_flipped_together_do_not_bend_errors_of_gates() -> None:
    random = np.random.default_rng(2)
    snapshot = device(random, 3)
    truth = flipped_together(snapshot, (0, 1))
    result = calibrate(drawn(truth, random, 24), snapshot, "fitted")
    assert result.prior.joint or result.prior.joint_own
    assert result.share == 1.0
    (group,) = result.snapshot.correlated_readout
    assert group.qubits == (0, 1)
    np.testing.assert_allclose(group.confusion, truth.correlated_readout[0].confusion, atol=0.006)
    assert group.joint_flip == pytest.approx(JOINT, abs=0.004)
    (estimate,) = (
        each for each in result.identification.parameters if each.name == "joint flip 0-1"
    )
    assert (estimate.calibrated, estimate.mark) == (0.0, "")
    assert estimate.fitted == pytest.approx(group.joint_flip)
    assert (estimate.low or 0.0) < JOINT < (estimate.high or 0.0)
    found = {(gate.name, gate.qubits): gate.error for gate in result.snapshot.gates}
    for gate in truth.gates:
        if len(gate.qubits) == 2:
            assert found[gate.name, gate.qubits] == pytest.approx(gate.error, rel=0.2)
    judged = drawn(truth, random, 8, 100)
    assert loss(result.snapshot, truth, judged) < 0.05 * loss(snapshot, truth, judged)


def test_a_device_whose_qubits_are_read_together_is_fitted_around_that() -> None:
    """One with three times the readout errors of qubit 2: the calibrated group stays as it is."""
    random = np.random.default_rng(3)
    snapshot = flipped_together(device(random, 3), (0, 1))
    p01, p10 = snapshot.qubits[2].confusion or (0.0, 0.0)
    truth = changed_qubit(snapshot, 2, p01=3.0 * p01, p10=3.0 * p10)
    result = calibrate(drawn(truth, random, 20), snapshot, "fitted")
    assert result.observed.left_out == ()
    assert result.snapshot.qubits[2].p10 == pytest.approx(3.0 * p10, rel=0.2)
    before, after = snapshot.correlated_readout, result.snapshot.correlated_readout
    assert [each.qubits for each in after] == [(0, 1)]
    np.testing.assert_allclose(after[0].confusion, before[0].confusion, atol=0.006)


@pytest.mark.parametrize("seed", range(2))
def test_no_joint_flips_are_stored_for_a_device_without_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    snapshot = device(random, 3)
    result = calibrate(drawn(changed(snapshot, random), random, 16), snapshot, "fitted")
    assert any(each.prior.joint_own for each in result.scores)  # they were tried
    assert result.snapshot.correlated_readout == ()


TURNS = {"ZZ": 0.08, "IZ": 0.06}


def rotated(snapshot: CalibrationSnapshot) -> CalibrationSnapshot:
    """Device whose gates on pairs turn by TURNS as well; their errors contain that."""
    left = math.prod(math.cos(angle / 2.0) ** 2 for angle in TURNS.values())
    turns = tuple(PauliRotation(*each) for each in TURNS.items())
    gates = tuple(
        replace(gate, rotations=turns, error=(gate.error or 0.0) + 0.8 * (1 - left))
        if len(gate.qubits) == 2
        else gate
        for gate in snapshot.gates
    )
    return replace(snapshot, gates=gates)


def test_angles_of_all_pairs_are_found_with_few_circuits() -> None:
    random = np.random.default_rng(1)
    snapshot = device(random, 4)
    truth = rotated(snapshot)
    data = counts_of(truth, circuits(random, 4, MANY_BODIES), 8_000, random)
    result = calibrate(data, snapshot, "fitted")
    assert result.prior.angle_common > 0.0
    assert result.share == 1.0
    pairs = [gate for gate in result.snapshot.gates if len(gate.qubits) == 2]
    errors = {gate.qubits: gate.error for gate in truth.gates if len(gate.qubits) == 2}
    for gate in pairs:
        angles = {each.pauli: each.angle_rad for each in gate.rotations}
        assert angles == pytest.approx(TURNS | {"ZI": 0.0}, abs=0.01)
        assert gate.error == pytest.approx(errors[gate.qubits], rel=0.2)
    judged = counts_of(truth, circuits(random, 4, 8), 100, random)
    assert loss(result.snapshot, truth, judged) < 0.02 * loss(snapshot, truth, judged)


LETTERS = "IXYZ"
DEVICE = CalibrationSnapshot(
    "turned", 2, coupling=((0, 1),), qubits=(QubitCalibration(),) * 2,
    native_gates=(NativeGate("h", 1), NativeGate("t", 1), NativeGate("cz", 2)),
    gates=(
        GateCalibration(
            "cz", (0, 1), rotations=(PauliRotation("ZZ", 0.3), PauliRotation("IX", 0.2))
        ),
    ),
)  # fmt: skip


def twirled() -> list[QuantumCircuit]:
    """All 16 randomisations of two turned qubits with a cz."""
    gate = QuantumCircuit(2)
    gate.cz(0, 1)
    clifford = Clifford(gate)
    circuits = []
    for label in map("".join, itertools.product(LETTERS, repeat=2)):
        after = Pauli(label).evolve(clifford, frame="s").to_label().lstrip("-i")
        circuit = QuantumCircuit(2, 2)
        circuit.h([0, 1])
        circuit.t(0)
        circuit.h(0)
        for paulis in (label, None, after):
            if paulis is None:
                circuit.cz(0, 1)
                continue
            for qubit, letter in enumerate(reversed(paulis)):
                if letter != "I":
                    getattr(circuit, letter.lower())(qubit)
        circuit.h([0, 1])
        circuit.measure([0, 1], [0, 1])
        circuits.append(circuit)
    return circuits


def distribution(record: CountsRecord) -> NDArray[np.float64]:
    circuit = Circuit.from_program(record.source.loaded.program)
    noise = attach_noise(circuit, build(DEVICE))
    run = simulate(
        circuit, noise=noise, engine="densitymatrix", outputs=("probabilities",), shots=0
    ).row(0)
    result = np.zeros(4)
    result[list(run.probability_outcomes[:: run.probability_width])] = np.frombuffer(
        run.probabilities
    )
    return result


def test_randomisations_without_a_body_are_named(tmp_path: Path) -> None:
    path = tmp_path / "twirled.jsonl"
    for body, rows in (("", 16), ("one", 0)):
        lines = [{"kind": "simenv-counts", "format": 1}]
        lines += [
            {"qasm": qasm2.dumps(each), "counts": {"00": 10}, "body": body} for each in twirled()
        ]
        path.write_text("".join(json.dumps(each) + "\n" for each in lines))
        found = [n for text, n in read(path).warnings if "same `body`" in text]
        assert found == [rows] * bool(rows)


def test_randomisations_are_one_body_and_turn_coherent_errors_into_paulis(tmp_path: Path) -> None:
    path = tmp_path / "twirled.jsonl"
    lines = [{"kind": "simenv-counts", "format": 1, "device": "turned"}]
    lines += [
        {"qasm": qasm2.dumps(each), "counts": {"00": 10, "01": 6}, "body": "one"}
        for each in twirled()
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    records = read(path).records
    assert (len(records), {each.body for each in records}) == (16, {"one"})
    assert len({each.source.body for each in records}) > 1, "by their texts they are several"
    mean = np.mean([distribution(each) for each in records], axis=0)

    h = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
    t = np.diag([1, np.exp(0.25j * np.pi)])
    error = coherent_error(DEVICE.gates[0], 2)
    state = np.zeros(16)
    state[[0, 3, 12, 15]] = 1.0  # |00>
    parts = [
        from_unitary(np.kron(h, h @ t @ h)), from_unitary(np.diag([1, 1, 1, -1])),
        error.twirled(), from_unitary(np.kron(h, h)),
    ]  # fmt: skip
    for part in parts:
        state = part.ptm @ state
    signs = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
    expected = signs @ state[[0, 3, 12, 15]] / 4.0
    assert np.abs(mean - expected).max() < 1e-12
    assert np.abs(distribution(records[0]) - expected).max() > 0.01, "one of them is coherent"
