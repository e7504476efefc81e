"""Exact results are those of default.qubit: every measurement, broadcasting, wires of any label."""

from typing import Any

import numpy as np
import pytest

qml = pytest.importorskip("pennylane")

MATRIX = np.array([[0.5, 0.1 - 0.2j], [0.1 + 0.2j, -1.3]])
WIDE = np.kron(np.kron(MATRIX, MATRIX), np.kron(MATRIX, np.kron(MATRIX, MATRIX)))


def layers(x: Any, y: Any, wires: Any = (0, 1, 2)) -> None:
    """A state without symmetries."""
    a, b, c = wires
    qml.RX(x, a)
    qml.CNOT([a, b])
    qml.Rot(y, x, 0.3, wires=c)
    qml.IsingXY(y, [b, c])
    qml.SingleExcitation(x, [a, c])
    qml.CRot(0.2, y, x, wires=[c, b])


def same(found: Any, wanted: Any) -> None:
    """Equal values in equal nesting."""
    assert isinstance(found, tuple) == isinstance(wanted, tuple)
    if isinstance(wanted, tuple):
        assert len(found) == len(wanted)
        for value, other in zip(found, wanted, strict=True):
            same(value, other)
    else:
        assert np.shape(found) == np.shape(wanted)
        np.testing.assert_allclose(found, wanted, atol=1e-10)


def agrees(circuit: Any, device: Any, wires: Any, *arguments: Any) -> None:
    wanted = qml.QNode(circuit, qml.device("default.qubit", wires=wires))(*arguments)
    same(qml.QNode(circuit, device(wires))(*arguments), wanted)


def measurements() -> list[Any]:
    dense = qml.Hermitian(MATRIX, wires=1)
    return [
        qml.expval(qml.Z(0)),
        qml.expval(qml.X(0) @ qml.Y(2)),
        qml.expval(
            qml.Hamiltonian([0.5, -1.5, 2.0], [qml.X(0) @ qml.Z(1), qml.Y(2), qml.Identity(0)])
        ),
        qml.expval(2 * qml.X(1) - 0.3 * (qml.Y(0) @ qml.Y(1) @ qml.Y(2))),
        qml.expval(qml.Hadamard(2)),
        qml.expval(dense),
        qml.expval(dense @ qml.Z(0)),
        qml.expval(0.5 * qml.Hadamard(0) + dense + qml.X(2)),
        qml.expval(qml.Hermitian(WIDE, wires=[2, 0, 1, 3, 4])),
        qml.expval(qml.Projector([1, 0], wires=[2, 0])),
        qml.expval(qml.Projector(np.array([0.6, 0.8j]), wires=[1])),
        qml.expval(qml.SparseHamiltonian(qml.Z(0).sparse_matrix([0, 1, 2]), wires=[0, 1, 2])),
        qml.expval(qml.Identity(1)),
        qml.expval(qml.prod(qml.X(1), qml.Y(1))),  # not Hermitian
        qml.expval(1j * qml.Hadamard(0) + qml.X(2)),
        qml.var(qml.Z(0)),
        qml.var(qml.X(0) @ qml.Z(1)),
        qml.var(0.5 * qml.X(0) + 1.5 * qml.Z(0) - qml.Y(1)),
        qml.var(dense),
        qml.var(qml.Hermitian(WIDE, wires=[2, 0, 1, 3, 4])),
        qml.probs(wires=[2, 0]),
        qml.probs(wires=range(5)),
        qml.probs(),
        qml.probs(op=qml.X(0) @ qml.Y(1)),
        qml.probs(op=qml.Hadamard(1)),
        qml.state(),
        qml.density_matrix([2, 0]),
        qml.purity([0]),
        qml.vn_entropy([1, 2]),
        qml.mutual_info([0], [2]),
    ]


@pytest.mark.parametrize("measurement", measurements(), ids=str)
def test_measurement_has_the_value_of_default_qubit(measurement: Any, device: Any) -> None:
    def circuit(x: float, y: float) -> Any:
        layers(x, y)
        qml.Hadamard(3)
        qml.CRY(x, [3, 4])
        return qml.apply(measurement)

    agrees(circuit, device, 5, 0.7, -0.4)


def test_measurements_in_conflicting_bases_share_a_tape(device: Any) -> None:
    def circuit(x: float) -> Any:
        layers(x, 0.2)
        return qml.probs(op=qml.X(0)), qml.expval(qml.Z(0)), qml.probs(wires=[0]), qml.state()

    agrees(circuit, device, 3, 0.7)


@pytest.mark.parametrize("wires", [3, ["q", 7, "anc"], [2, 0, 1]], ids=str)
def test_wires_have_any_labels_in_any_order(wires: Any, device: Any) -> None:
    labels = list(range(wires)) if isinstance(wires, int) else wires

    def circuit() -> Any:
        layers(0.3, 0.9, labels)
        return qml.state(), qml.probs(wires=labels[1:]), qml.expval(qml.X(labels[2]))

    agrees(circuit, device, wires)


@pytest.mark.parametrize("labels", [("b", "a", "c"), (2, 1, 0), (4, 1, 9)], ids=str)
def test_device_without_wires_takes_those_of_the_tape(labels: Any, device: Any) -> None:
    def circuit() -> Any:
        layers(0.3, 0.9, labels)
        return qml.state(), qml.probs()

    agrees(circuit, device, None)


def test_broadcast_angles_are_bindings_of_one_program(device: Any) -> None:
    def circuit(x: Any, y: float) -> Any:
        layers(x, y)
        return qml.expval(qml.Z(0) + 0.5 * qml.X(1)), qml.var(qml.Y(2)), qml.probs(wires=[2, 0])

    xs = np.linspace(0.0, 2.0, 5)
    wanted = qml.QNode(circuit, qml.device("default.qubit", wires=3))(xs, 0.4)
    dev = device(3)
    same(qml.QNode(circuit, dev)(xs, 0.4), wanted)
    (newest, *_) = dev.client.queue(done=True, limit=1)[1]
    assert len(dev.client.task(newest.id).results()) == 5


def test_broadcast_matrices_and_states_are_expanded(device: Any) -> None:
    states = np.eye(4)[[0, 3]]
    matrices = np.stack([qml.RX(0.3, 0).matrix(), qml.RY(0.8, 0).matrix()])

    def circuit() -> Any:
        qml.StatePrep(states, wires=[0, 1])
        qml.QubitUnitary(matrices, wires=0)
        return qml.probs(wires=[0, 1])

    agrees(circuit, device, 2)


def test_batch_of_tapes_of_several_structures_is_run_at_once(device: Any) -> None:
    def tape(x: float, longer: bool, measured: Any) -> Any:
        operations = [qml.RX(x, 0), qml.CNOT([0, 1])] + ([qml.RY(x, 1)] if longer else [])
        return qml.tape.QuantumScript(operations, [measured])

    tapes = [
        tape(0.1 * k, bool(k % 2), qml.expval(qml.Z(k % 2)) if k % 3 else qml.probs(wires=[1]))
        for k in range(12)
    ]
    wanted = qml.execute(tapes, qml.device("default.qubit", wires=2))
    same(tuple(qml.execute(tapes, device(2))), tuple(wanted))


def test_many_different_observables_are_not_computed_for_all_tapes(device: Any) -> None:
    rng = np.random.default_rng(3)
    tapes = [
        qml.tape.QuantumScript(
            [qml.RX(0.1 * k, 0), qml.RY(0.2, 1)],
            [qml.expval(qml.Hamiltonian(rng.normal(size=2), [qml.Z(0), qml.X(1)]))],
        )
        for k in range(20)
    ]
    wanted = qml.execute(tapes, qml.device("default.qubit", wires=2))
    same(tuple(qml.execute(tapes, device(2))), tuple(wanted))


def test_global_phase_and_single_precision(device: Any) -> None:
    def circuit() -> Any:
        layers(0.5, 0.6)
        qml.GlobalPhase(0.8)
        return qml.state()

    wanted = qml.QNode(circuit, qml.device("default.qubit", wires=3))()
    same(qml.QNode(circuit, device(3))(), wanted)
    result = qml.QNode(circuit, device(3, precision="single"))()
    assert result.dtype == np.complex64
    np.testing.assert_allclose(result, wanted, atol=1e-6)


def test_snapshots_barriers_and_allocated_wires(device: Any) -> None:
    def circuit() -> Any:
        qml.Hadamard(0)
        qml.Snapshot("here")
        qml.Barrier([0, 1])
        return qml.expval(qml.X(0))

    same(qml.QNode(circuit, device(2))(), np.float64(1.0))

    def circuit() -> Any:
        with qml.allocate(1) as wires:
            qml.X(wires[0])
            qml.CNOT([wires[0], 0])
        return qml.probs(wires=[0])

    same(qml.QNode(circuit, device(3))(), np.array([0.0, 1.0]))


def test_wire_that_the_device_lacks_is_refused(device: Any) -> None:
    with pytest.raises(qml.exceptions.WireError, match="not found on the device"):
        qml.QNode(lambda: qml.expval(qml.Z(4)), device(2))()
