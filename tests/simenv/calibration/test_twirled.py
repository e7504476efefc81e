"""Counts of Pauli-twirled circuits: the randomisations of a circuit are one body, and coherent
errors of its gates act as their Pauli twirl in the mean."""

import itertools
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit, qasm2
from qiskit.quantum_info import Clifford, Pauli

from noise_models.build import build
from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    NativeGate,
    PauliRotation,
    QubitCalibration,
)
from noise_models.channel import from_unitary
from noise_models.gate_errors import coherent_error
from simenv.calibration.data import CountsRecord, read
from simulators.circuit.ir import Circuit
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.simulate import simulate

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
    assert len(records) == 16
    assert {each.body for each in records} == {"one"}
    assert len({each.source.body for each in records}) > 1, "by their texts they are several"
    mean = np.mean([distribution(each) for each in records], axis=0)

    h = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
    t = np.diag([1, np.exp(0.25j * np.pi)])
    error = coherent_error(DEVICE.gates[0], 2)
    assert error is not None
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
