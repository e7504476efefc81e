"""Noise models of Qaptiva as devices."""

import json
import math

import numpy as np
import pytest
from failing import fails
from simenv_myqlm.errors import UnsupportedError
from simenv_myqlm.hardware import HardwareModel, KrausChannel, infidelity, snapshot_of

from noise_models.importers import import_snapshot

PAULIS = [np.eye(2), np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1])]


def depolarizing(p: float, qubits: int) -> KrausChannel:
    """With probability p, a random Pauli operator other than the identity."""
    every = PAULIS if qubits == 1 else [np.kron(a, b) for a in PAULIS for b in PAULIS]
    weights = [1 - p] + [p / (len(every) - 1)] * (len(every) - 1)
    return channel(*(math.sqrt(w) * each for w, each in zip(weights, every, strict=True)))


def channel(*operators: np.ndarray) -> KrausChannel:
    return KrausChannel(
        tuple(tuple(tuple(map(complex, row)) for row in each) for each in operators)
    )


DAMPING = channel(np.diag([1, math.sqrt(0.9)]), np.array([[0, math.sqrt(0.1)], [0, 0]]))
MODEL = HardwareModel(
    3, {"H": 35.0, "CNOT": 300.0, "RZ": 0.0, "measure": 4_000.0},
    {"H": depolarizing(0.003, 1), "CNOT": depolarizing(0.015, 2), "CCNOT": depolarizing(0.1, 2)},
    t1_ns=50_000.0, t_phi_ns=100_000.0, readout_error=0.02, coupling=((0, 1), (1, 2)),
)  # fmt: skip


def test_average_infidelity_of_pauli_errors() -> None:
    """d / (d + 1) times the probability of an error."""
    assert infidelity(depolarizing(0.003, 1)) == pytest.approx(0.002)
    assert infidelity(depolarizing(0.015, 2)) == pytest.approx(0.012)


def test_snapshot_is_imported_with_its_errors_and_times() -> None:
    document = json.dumps(snapshot_of(MODEL, "qaptiva")).encode()
    device, _ = import_snapshot({"qaptiva.json": document}, name="qaptiva")
    assert (device.num_qubits, len(device.coupling), device.all_to_all) == (3, 2, False)
    gates = {gate.name: gate for gate in device.gates}
    assert gates["cx"].error == pytest.approx(0.012)
    assert gates["h"].duration_ns == 35.0
    assert device.qubits[2].t1_us == 50.0
    assert device.qubits[2].t2_us == pytest.approx(50.0)  # 1 / (1 / 2 T1 + 1 / Tphi)
    assert device.qubits[0].readout_ns == 4_000.0


def test_remarks_name_what_a_device_does_not_keep() -> None:
    assert MODEL.remarks == ["gates that a device cannot have are left out: CCNOT"]
    (remark,) = HardwareModel(1, gate_noise={"X": DAMPING}).remarks
    assert "not depolarizing" in remark
    assert "X" in remark


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (HardwareModel(0), "0 qubits"), (HardwareModel(2), "no gate"),
        (HardwareModel(1, {"H": 1.0}, t1_ns=-1.0), "T_1 is -1.0"),
        (HardwareModel(1, gate_noise={"H": channel(np.eye(2), np.eye(2))}), "'H' does not keep"),
        (HardwareModel(1, gate_noise={"H": KrausChannel(())}), "gate 'H' has no Kraus operators"),
    ],
)  # fmt: skip
def test_models_without_a_meaning_are_refused(model: HardwareModel, text: str) -> None:
    assert text in fails(UnsupportedError, "", snapshot_of, model, "x").message
