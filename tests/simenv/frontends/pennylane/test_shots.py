"""Results from shots: shapes of every measurement, statistics at five sigma, seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

qml = pytest.importorskip("pennylane")

SHOTS = 40_000
SIGMAS = 5


def state(x: Any) -> None:
    """Correlated wires, no symmetry."""
    qml.RX(x, 0)
    qml.CNOT([0, 1])
    qml.RY(0.7, 1)
    qml.CRX(1.1, [1, 2])


def measured(device: Any, measurement: Any, shots: Any = SHOTS, wires: Any = 3) -> Any:
    def circuit(x: Any) -> Any:
        state(x)
        return qml.apply(measurement)

    return qml.set_shots(qml.QNode(circuit, device(wires)), shots)(0.9)


def exact(measurement: Any) -> Any:
    def circuit(x: Any) -> Any:
        state(x)
        return qml.apply(measurement)

    return qml.QNode(circuit, qml.device("default.qubit", wires=3))(0.9)


@pytest.mark.parametrize(
    "observable",
    [
        qml.Z(0),
        qml.Z(0) @ qml.X(2),
        qml.Hamiltonian([0.5, -1.2, 0.4], [qml.X(0), qml.Z(0) @ qml.Z(1), qml.Identity(1)]),
        qml.Hadamard(1),
        qml.Hermitian(np.array([[0.5, 0.2j], [-0.2j, -1.3]]), wires=2),
        0.5 * qml.Hadamard(0) + qml.X(2),
        qml.Projector([1, 0], wires=[0, 2]),
    ],
    ids=str,
)
def test_mean_of_shots_is_the_expectation_value(observable: Any, device: Any) -> None:
    result = measured(device, qml.expval(observable))
    spread = np.ptp(np.linalg.eigvalsh(qml.matrix(observable)))  # no value varies by more
    assert abs(result - exact(qml.expval(observable))) < SIGMAS * spread / np.sqrt(SHOTS)


@pytest.mark.parametrize(
    "observable", [qml.Z(0), qml.X(0) @ qml.Y(1), 0.3 * qml.X(0) + qml.Z(0)], ids=str
)
def test_variance_of_shots(observable: Any, device: Any) -> None:
    result = measured(device, qml.var(observable))
    largest = np.max(np.linalg.eigvalsh(qml.matrix(observable)) ** 2)
    assert abs(result - exact(qml.var(observable))) < SIGMAS * 2 * largest / np.sqrt(SHOTS)


@pytest.mark.parametrize(
    "measurement",
    [qml.probs(wires=[2, 0]), qml.probs(), qml.probs(op=qml.X(1))],
    ids=["wires", "all", "op"],
)
def test_frequencies_are_the_probabilities(measurement: Any, device: Any) -> None:
    result, wanted = measured(device, measurement), exact(measurement)
    assert result.shape == wanted.shape
    assert np.all(
        np.abs(result - wanted) <= SIGMAS * np.sqrt((wanted * (1 - wanted) + 1e-9) / SHOTS)
    )


def test_counts_and_samples_have_the_forms_of_default_qubit(device: Any) -> None:
    def circuit(x: Any) -> Any:
        state(x)
        return (
            qml.counts(wires=[2, 0]),
            qml.counts(qml.Z(0) @ qml.Z(1)),
            qml.counts(wires=[0, 1], all_outcomes=True),
            qml.counts(qml.Hermitian(np.diag([0.5, 2.0]), wires=1), all_outcomes=True),
            qml.sample(wires=[2, 0]),
            qml.sample(qml.Z(1)),
            qml.sample(wires=[1], dtype="int8"),
            qml.sample(),
        )

    result = qml.set_shots(qml.QNode(circuit, device(3)), 50)(0.9)
    wanted = qml.set_shots(qml.QNode(circuit, qml.device("default.qubit", wires=3)), 50)(0.9)
    for value, other in zip(result, wanted, strict=True):
        if isinstance(other, dict):
            assert sum(value.values()) == 50
            assert {type(key) for key in value} <= {str, np.float64}
            assert {isinstance(key, str) for key in value} == {isinstance(k, str) for k in other}
        else:
            assert (value.shape, value.dtype) == (other.shape, other.dtype)
    assert set(result[2]) == set(wanted[2])
    assert set(result[3]) == set(wanted[3])


def test_values_of_operators_that_are_not_hermitian_are_complex(device: Any) -> None:
    def circuit() -> Any:
        qml.PauliX(0)
        return (
            qml.expval(1j * qml.Z(0) + qml.Z(1)),
            qml.sample(1j * qml.Z(0)),
            qml.var(1j * qml.Z(0)),
        )

    result = qml.set_shots(qml.QNode(circuit, device(2)), 10)()
    wanted = qml.set_shots(qml.QNode(circuit, qml.device("default.qubit", wires=2)), 10)()
    for value, other in zip(result, wanted, strict=True):
        assert (np.shape(value), np.asarray(value).dtype) == (np.shape(other), other.dtype)
        np.testing.assert_array_equal(value, other)


@pytest.mark.parametrize("shots", [None, 10])
@pytest.mark.parametrize("operator", [qml.S(0), qml.RX(0.4, 0) @ qml.Z(1), 2 * qml.T(0)], ids=str)
def test_operator_that_is_no_observable_is_refused_by_name(
    operator: Any, shots: int | None, device: Any
) -> None:
    for measurement in (qml.expval(operator), qml.var(operator)):
        with pytest.raises(qml.exceptions.DeviceError, match=r"Measurement .* not accepted"):
            measured(device, measurement, shots)


def test_measurements_of_one_basis_are_of_the_same_shots(device: Any) -> None:
    def circuit(x: Any) -> Any:
        state(x)
        return (
            qml.expval(qml.Z(0)),
            qml.counts(wires=[0]),
            qml.sample(wires=[0, 1]),
            qml.expval(qml.Z(0) @ qml.Z(1)),
        )

    mean, counts, samples, both = qml.set_shots(qml.QNode(circuit, device(3)), 500)(0.9)
    signs = 1 - 2 * samples
    assert mean == pytest.approx(np.mean(signs[:, 0]))
    assert counts.get("1", 0) == samples[:, 0].sum()
    assert both == pytest.approx(np.mean(signs[:, 0] * signs[:, 1]))


def test_samples_are_in_random_order(device: Any) -> None:
    samples = measured(device, qml.sample(wires=[0]), 1_000)[:, 0]
    changes = np.count_nonzero(np.diff(samples))
    share = samples.mean()
    assert abs(changes - 2 * share * (1 - share) * 999) < SIGMAS * np.sqrt(999)


def test_shot_vector_cuts_the_shots_into_parts(device: Any) -> None:
    def circuit(x: Any) -> Any:
        state(x)
        return qml.expval(qml.Z(0)), qml.counts(wires=[0, 1]), qml.sample(wires=[0])

    result = qml.set_shots(qml.QNode(circuit, device(3)), [7, (20, 2)])(0.9)
    assert [sum(part[1].values()) for part in result] == [7, 20, 20]
    for mean, counts, samples in result:
        assert mean == pytest.approx(np.mean(1 - 2 * samples))
        assert sum(n for bits, n in counts.items() if bits[0] == "1") == samples.sum()


def test_broadcast_shots(device: Any) -> None:
    def circuit(x: Any) -> Any:
        state(x)
        return qml.expval(qml.Z(0)), qml.probs(wires=[0]), qml.sample(wires=[0, 1]), qml.counts()

    xs = np.array([0.0, 0.9, np.pi])
    mean, odds, samples, counts = qml.set_shots(qml.QNode(circuit, device(3)), 200)(xs)
    assert mean.shape == (3,)
    assert odds.shape == (3, 2)
    assert samples.shape == (3, 200, 2)
    assert [sum(each.values()) for each in counts] == [200] * 3
    assert (mean[0], mean[2]) == (1.0, -1.0)


def test_same_seed_gives_the_same_shots_and_others_differ(device: Any) -> None:
    entries = [measured(lambda wires, s=s: device(wires, seed=s), qml.counts()) for s in (3, 3, 4)]
    assert entries[0] == entries[1] != entries[2]


def test_executions_of_one_device_differ(device: Any) -> None:
    dev = device(3)
    entries = [measured(lambda _: dev, qml.counts()) for _ in range(2)]
    assert entries[0] != entries[1]


def test_exact_measurement_without_shots_is_refused_by_name(device: Any) -> None:
    with pytest.raises(qml.exceptions.DeviceError, match="sample"):
        measured(device, qml.sample(), None)
    with pytest.raises(qml.exceptions.DeviceError, match="finite shots"):
        measured(device, qml.state(), 10)


def test_classical_shadow_estimates_expectation_values(device: Any) -> None:
    bits, recipes = measured(device, qml.classical_shadow(wires=[0, 1], seed=3), 20_000)
    assert bits.shape == recipes.shape == (20_000, 2)
    assert recipes.dtype == np.int8
    drawn = np.random.RandomState(3).randint(0, 3, size=(20_000, 2))
    assert np.array_equal(recipes, drawn)
    shadow = qml.ClassicalShadow(bits, recipes)
    for observable in (qml.Z(0), qml.X(0) @ qml.Y(1), qml.Z(0) @ qml.Z(1)):
        wanted = exact(qml.expval(observable))
        weight = 3 ** len(observable.wires)
        assert abs(shadow.expval(observable) - wanted) < SIGMAS * weight / np.sqrt(20_000 / 3)


def test_shadow_expectation_value(device: Any) -> None:
    observable = qml.Hamiltonian([1.0, 0.5], [qml.Z(0) @ qml.Z(1), qml.X(2)])
    result = measured(device, qml.shadow_expval(observable, seed=4), 20_000)
    wanted = exact(qml.expval(observable))
    assert abs(result - wanted) < SIGMAS * (9 + 1.5) / np.sqrt(20_000 / 3)


def test_shadow_of_many_wires_takes_a_basis_for_each_shot(device: Any) -> None:
    def circuit() -> Any:
        for wire in range(9):
            qml.X(wire)
        return qml.classical_shadow(wires=range(9), seed=1)

    bits, recipes = qml.set_shots(qml.QNode(circuit, device(9)), 300)()
    assert np.all(bits[recipes == 2] == 1)  # measured in Z
    assert 0.3 < bits[recipes == 0].mean() < 0.7
