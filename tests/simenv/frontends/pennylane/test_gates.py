"""Each gate of the table does to a random state what its matrix in PennyLane does."""

from typing import Any

import numpy as np
import pytest
from failing import fails

qml = pytest.importorskip("pennylane")

from simenv.frontends.pennylane.encoder import CONTROLLED, GATES, is_carried, is_gate  # noqa: E402 - needs pennylane

ANGLES = (0.3, -1.1, 0.7)
RNG = np.random.default_rng(5)
NO_MATRIX = {"Barrier", "Snapshot", "Adjoint(Barrier)", "Adjoint(Snapshot)"}


def random_state(wires: int) -> Any:
    state = RNG.normal(size=(2, 1 << wires))
    item = state[0] + 1j * state[1]
    return item / np.linalg.norm(item)


def random_unitary(wires: int) -> Any:
    matrix = RNG.normal(size=(2, 1 << wires, 1 << wires))
    return np.linalg.qr(matrix[0] + 1j * matrix[1])[0]


def built(name: str) -> Any:
    """An operator of this name, with fixed angles, on the last wires of four."""
    inverse = name.startswith("Adjoint(")
    kind = getattr(qml, name.removeprefix("Adjoint(").removesuffix(")"))
    op = kind(*ANGLES[: kind.num_params or 0], wires=[3, 1, 2][: (kind.num_wires or 1)])
    return qml.adjoint(op) if inverse else op


def operators() -> list[Any]:
    """One of each kind that is carried."""
    with qml.QueuingManager.stop_recording():
        entries = [built(name) for name in GATES if name not in NO_MATRIX]
        entries += [
            qml.ctrl(qml.S(2), control=[1]), qml.ctrl(qml.SX(2), control=[1]),
            qml.ctrl(qml.S(2), control=[1], control_values=[0]),
            qml.ctrl(qml.PhaseShift(0.4, 2), control=[1, 3]),
            qml.ctrl(qml.PhaseShift(0.4, 2), control=[1, 3], control_values=[0, 1]),
            qml.MultiControlledX([3, 0, 2], control_values=[0, 1]),
            qml.MultiControlledX([3, 0, 1, 2], control_values=[1, 0, 1]),
            qml.MultiControlledX([1, 2], control_values=[0]), qml.MultiRZ(0.8, [2, 0, 3]),
            qml.MultiRZ(0.8, [2]), qml.QubitUnitary(random_unitary(1), [2]),
            qml.QubitUnitary(random_unitary(2), [3, 1]),
            qml.QubitUnitary(random_unitary(4), [3, 1, 0, 2]),
            qml.ControlledQubitUnitary(random_unitary(2), [0, 3, 1], control_values=[0]),
            qml.SISWAP([1, 3]), qml.QubitCarry([0, 1, 2, 3]), qml.PauliRot(0.6, "XYZ", [3, 0, 1]),
            qml.DoubleExcitation(0.6, [0, 1, 2, 3]), qml.QFT([0, 2, 3]), qml.PSWAP(0.3, [2, 0]),
            qml.DiagonalQubitUnitary(np.exp(1j * np.arange(4)), [1, 2]), qml.Barrier([0, 1]),
        ]  # fmt: skip
    return entries


OPERATORS = operators()


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_operator_does_to_a_state_what_its_matrix_does(op: Any, device: Any) -> None:
    state = random_state(4)

    @qml.qnode(device(4))
    def circuit() -> Any:
        qml.StatePrep(state, wires=range(4))
        qml.apply(op)
        return qml.state()

    wanted = state if op.name == "Barrier" else qml.matrix(op, wire_order=range(4)) @ state
    np.testing.assert_allclose(circuit(), wanted, atol=1e-12)


def test_all_entries_of_the_tables_are_compared() -> None:
    names = {op.name for op in OPERATORS}
    assert set(GATES) - NO_MATRIX <= names
    assert set(CONTROLLED) <= names
    assert all(is_carried(op) for op in OPERATORS if op.name in GATES)
    assert not any(is_gate(op) for op in OPERATORS if op.name == "QubitUnitary")


@pytest.mark.parametrize("wires", [1, 3, 6, 7])  # by one matrix, and beyond it decomposed
def test_state_is_prepared_with_its_phases(wires: int, device: Any) -> None:
    state = random_state(wires)

    @qml.qnode(device(wires))
    def circuit() -> Any:
        qml.StatePrep(state, wires=range(wires))
        return qml.state()

    np.testing.assert_allclose(np.abs(np.vdot(circuit(), state)), 1.0, atol=1e-12)


def test_basis_state_sets_the_bits_of_its_wires(device: Any) -> None:
    @qml.qnode(device(["a", "b", "c"]))
    def circuit(bits: Any) -> Any:
        qml.BasisState(np.array(bits), wires=["c", "a"])
        return qml.probs(wires=["a", "b", "c"])

    assert circuit([1, 0]).tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    assert circuit([0, 1]).tolist() == [0, 0, 0, 0, 1, 0, 0, 0]


def test_operator_without_a_decomposition_is_refused_by_name(device: Any) -> None:
    @qml.qnode(device(1))
    def circuit() -> Any:
        qml.BitFlip(0.1, wires=0)
        return qml.expval(qml.Z(0))

    fails(qml.exceptions.DeviceError, "BitFlip", circuit)


def prepared_late() -> None:
    qml.RX(0.4, 0)
    qml.RY(0.9, 1)
    qml.StatePrep(np.array([1, 1j, 0, -1]) / np.sqrt(3), [0, 2])


def embedded_late() -> None:
    qml.RX(0.4, 0)
    qml.AmplitudeEmbedding(np.arange(1.0, 9.0), [0, 1, 2], normalize=True)


def prepared_conditionally() -> None:
    qml.Hadamard(2)
    qml.RX(0.4, 1)
    qml.cond(qml.measure(2), qml.StatePrep)(np.array([1, 1j]) / np.sqrt(2), [1])


def block_encoded() -> None:
    """`StatePrep`, selected unitaries, `Adjoint(StatePrep)`: inverse of one another."""
    qml.RX(0.4, 0)
    qml.PrepSelPrep(qml.dot([0.3, 0.1], [qml.X(1), qml.Z(2)]), [0])
    qml.RX(0.7, 1)


@pytest.mark.parametrize(
    "circuit", [prepared_late, embedded_late, prepared_conditionally, block_encoded]
)
def test_preparation_on_qubits_that_are_not_zero(device: Any, circuit: Any) -> None:
    def probabilities() -> Any:
        circuit()
        return qml.probs(wires=[0, 1, 2])

    own = qml.QNode(probabilities, device(wires=3))()
    reference = qml.QNode(probabilities, qml.device("default.qubit", wires=4))()  # defers to one
    np.testing.assert_allclose(own, reference, atol=1e-12)
