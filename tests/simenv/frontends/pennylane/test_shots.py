"""Shots and mid-circuit measurements for PennyLane."""

from typing import Any

import numpy as np
import pytest
from failing import fails

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


@pytest.mark.parametrize("op", [qml.Z(0), qml.X(0) @ qml.Y(1), 0.3 * qml.X(0) + qml.Z(0)], ids=str)
def test_variance_of_shots(op: Any, device: Any) -> None:
    result = measured(device, qml.var(op))
    largest = np.max(np.linalg.eigvalsh(qml.matrix(op)) ** 2)
    assert abs(result - exact(qml.var(op))) < SIGMAS * 2 * largest / np.sqrt(SHOTS)


@pytest.mark.parametrize(
    "measurement",
    [qml.probs(wires=[2, 0]), qml.probs(), qml.probs(op=qml.X(1))],
    ids=["wires", "all", "op"],
)
def test_frequencies_are_the_probabilities(measurement: Any, device: Any) -> None:
    got, wanted = measured(device, measurement), exact(measurement)
    assert got.shape == wanted.shape
    assert np.all(np.abs(got - wanted) <= SIGMAS * np.sqrt((wanted * (1 - wanted) + 1e-9) / SHOTS))


def test_counts_and_samples_have_the_forms_of_default_qubit(device: Any) -> None:
    def circuit(x: Any) -> Any:
        state(x)
        return (
            qml.counts(wires=[2, 0]), qml.counts(qml.Z(0) @ qml.Z(1)),
            qml.counts(wires=[0, 1], all_outcomes=True),
            qml.counts(qml.Hermitian(np.diag([0.5, 2.0]), wires=1), all_outcomes=True),
            qml.sample(wires=[2, 0]), qml.sample(qml.Z(1)), qml.sample(wires=[1], dtype="int8"),
            qml.sample(),
        )  # fmt: skip

    result = qml.set_shots(qml.QNode(circuit, device(3)), 50)(0.9)
    wanted = qml.set_shots(qml.QNode(circuit, qml.device("default.qubit", wires=3)), 50)(0.9)
    for value, other in zip(result, wanted, strict=True):
        if isinstance(other, dict):
            assert sum(value.values()) == 50
            assert {type(key) for key in value} <= {str, np.float64}
            assert {isinstance(key, str) for key in value} == {isinstance(k, str) for k in other}
        else:
            assert (value.shape, value.dtype) == (other.shape, other.dtype)
    assert (set(result[2]), set(result[3])) == (set(wanted[2]), set(wanted[3]))


def test_values_of_operators_that_are_not_hermitian_are_complex(device: Any) -> None:
    def circuit() -> Any:
        qml.PauliX(0)
        return (
            qml.expval(1j * qml.Z(0) + qml.Z(1)), qml.sample(1j * qml.Z(0)), qml.var(1j * qml.Z(0)),
        )  # fmt: skip

    result = qml.set_shots(qml.QNode(circuit, device(2)), 10)()
    wanted = qml.set_shots(qml.QNode(circuit, qml.device("default.qubit", wires=2)), 10)()
    for value, other in zip(result, wanted, strict=True):
        assert (np.shape(value), np.asarray(value).dtype) == (np.shape(other), other.dtype)
        np.testing.assert_array_equal(value, other)


@pytest.mark.parametrize("shots", [None, 10])
@pytest.mark.parametrize("operator", [qml.S(0), qml.RX(0.4, 0) @ qml.Z(1), 2 * qml.T(0)], ids=str)
def test_no_observable_is_refused_by_name(operator: Any, shots: int | None, device: Any) -> None:
    for measurement in (qml.expval(operator), qml.var(operator)):
        with pytest.raises(qml.exceptions.DeviceError, match=r"Measurement .* not accepted"):
            measured(device, measurement, shots)


def test_measurements_of_one_basis_are_of_the_same_shots(device: Any) -> None:
    def circuit(x: Any) -> Any:
        state(x)
        return (
            qml.expval(qml.Z(0)), qml.counts(wires=[0]), qml.sample(wires=[0, 1]),
            qml.expval(qml.Z(0) @ qml.Z(1)),
        )  # fmt: skip

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
    assert (mean.shape, odds.shape, samples.shape) == ((3,), (3, 2), (3, 200, 2))
    assert ([sum(each.values()) for each in counts], mean[0], mean[2]) == ([200] * 3, 1.0, -1.0)


def test_seeds_repeat_shots_and_exact_measurements_need_none(device: Any) -> None:
    entries = [measured(lambda wires, s=s: device(wires, seed=s), qml.counts()) for s in (3, 3, 4)]
    assert entries[0] == entries[1] != entries[2]
    dev = device(3)
    entries = [measured(lambda _: dev, qml.counts()) for _ in range(2)]
    assert entries[0] != entries[1]
    fails(qml.exceptions.DeviceError, "sample", measured, device, qml.sample(), None)
    fails(qml.exceptions.DeviceError, "finite shots", measured, device, qml.state(), 10)


def test_shadows_estimate_expectation_values(device: Any) -> None:
    bits, recipes = measured(device, qml.classical_shadow(wires=[0, 1], seed=3), 20_000)
    assert bits.shape == recipes.shape == (20_000, 2)
    assert recipes.dtype == np.int8
    assert np.array_equal(recipes, np.random.RandomState(3).randint(0, 3, size=(20_000, 2)))
    shadow = qml.ClassicalShadow(bits, recipes)
    for observable in (qml.Z(0), qml.X(0) @ qml.Y(1), qml.Z(0) @ qml.Z(1)):
        wanted = exact(qml.expval(observable))
        weight = 3 ** len(observable.wires)
        assert abs(shadow.expval(observable) - wanted) < SIGMAS * weight / np.sqrt(20_000 / 3)
    observable = qml.Hamiltonian([1.0, 0.5], [qml.Z(0) @ qml.Z(1), qml.X(2)])
    result = measured(device, qml.shadow_expval(observable, seed=4), 20_000)
    assert abs(result - exact(qml.expval(observable))) < SIGMAS * (9 + 1.5) / np.sqrt(20_000 / 3)


def test_shadow_of_many_wires_takes_a_basis_for_each_shot(device: Any) -> None:
    def circuit() -> Any:
        for wire in range(9):
            qml.X(wire)
        return qml.classical_shadow(wires=range(9), seed=1)

    bits, recipes = qml.set_shots(qml.QNode(circuit, device(9)), 300)()
    assert np.all(bits[recipes == 2] == 1)  # measured in Z
    assert 0.3 < bits[recipes == 0].mean() < 0.7


NATIVE = ("device", "tree-traversal", None)


def teleported(x: float) -> Any:
    """Conditions on one outcome, on several and on their sum; a reset."""
    qml.RX(x, 0)
    first = qml.measure(0, reset=True)
    qml.cond(first, qml.RY, qml.RX)(0.7, wires=1)
    second = qml.measure(1)
    qml.cond(first + second == 1, qml.X)(2)
    qml.cond(first & second, qml.RY)(x, wires=2)
    qml.cond(~second, qml.CNOT)([2, 0])
    return (
        qml.expval(qml.Z(0)), qml.expval(qml.X(1) @ qml.Z(2)), qml.probs(wires=[2, 0]),
        qml.expval(first), qml.var(first + 2 * second), qml.probs(op=[second, first]),
        qml.probs(op=first),
    )  # fmt: skip


def reference(circuit: Any, *arguments: Any) -> Any:
    return qml.QNode(circuit, qml.device("default.qubit"), mcm_method="deferred")(*arguments)


@pytest.mark.parametrize("method", NATIVE)
def test_exact_values_are_those_of_deferred_measurements(method: Any, device: Any) -> None:
    result = qml.QNode(teleported, device(3), mcm_method=method)(0.8)
    for value, other in zip(result, reference(teleported, 0.8), strict=True):
        np.testing.assert_allclose(value, other, atol=1e-10)


@pytest.mark.parametrize("method", ["device", "tree-traversal", "deferred", None])
def test_single_expectation_value_after_a_measurement(method: Any, device: Any) -> None:
    def circuit(x: float) -> Any:
        qml.RX(x, 0)
        qml.cond(qml.measure(0), qml.RY)(0.7, wires=1)
        return qml.expval(qml.Z(1))

    node = qml.QNode(circuit, device(3), mcm_method=method)
    x = qml.numpy.array(0.8, requires_grad=True)
    assert node(x) == pytest.approx(reference(circuit, x))
    assert qml.grad(node)(x) == pytest.approx(qml.grad(lambda y: reference(circuit, y))(x))


@pytest.mark.parametrize("method", ["device", "one-shot", "tree-traversal", "deferred"])
def test_shots_have_the_distribution_of_deferred_measurements(method: str, device: Any) -> None:
    wires = 6 if method == "deferred" else 3
    node = qml.set_shots(qml.QNode(teleported, device(wires), mcm_method=method), SHOTS)
    for value, other in zip(node(0.8), reference(teleported, 0.8), strict=True):
        assert np.shape(value) == np.shape(other)
        assert np.max(np.abs(value - other)) < 5 * 3 / np.sqrt(SHOTS)  # values up to 3


def test_counts_and_samples_of_outcomes(device: Any) -> None:
    def circuit() -> Any:
        qml.Hadamard(0)
        first = qml.measure(0)
        qml.cond(first, qml.X)(1)
        second = qml.measure(1)
        return (
            qml.counts(first), qml.counts([first, second]), qml.sample([first, second]),
            qml.sample(first), qml.sample(wires=[1]), qml.counts(first + second, all_outcomes=True),
        )  # fmt: skip

    single, joint, samples, alone, wire, total = qml.set_shots(qml.QNode(circuit, device(2)), 400)()
    assert (set(single), set(joint), samples.shape) == ({0.0, 1.0}, {"00", "11"}, (400, 2))
    assert np.array_equal(samples[:, 0], samples[:, 1])
    assert np.array_equal(samples[:, 0], alone)
    assert np.array_equal(samples[:, :1], wire)
    assert joint["11"] == samples[:, 0].sum() == single[1.0]
    assert total[1.0] == 0


def test_all_shots_of_a_dynamic_circuit_are_one_task(device: Any) -> None:
    dev = device(3)
    qml.set_shots(qml.QNode(teleported, dev), 1_000)(0.8)
    assert dev.client.queue(done=True, limit=4)[1][0].shots == 1_000


@pytest.mark.parametrize("shots", [None, SHOTS])
def test_postselection_keeps_the_wanted_outcomes_alone(shots: Any, device: Any) -> None:
    def circuit() -> Any:
        qml.RY(1.0, 0)
        qml.CNOT([0, 1])
        qml.RY(0.5, 1)
        first = qml.measure(0, postselect=1)
        return qml.expval(qml.Z(1)), qml.probs(wires=[1]), qml.expval(first), qml.var(qml.X(1))

    result = qml.set_shots(qml.QNode(circuit, device(2)), shots)()
    wanted = reference(circuit)
    outcome = np.sin(0.5) ** 2 * (shots or 1e24)
    for value, other in zip(result, wanted, strict=True):
        assert np.max(np.abs(value - other)) < 5 * 2 / np.sqrt(outcome)


def test_postselected_samples_are_fewer(device: Any) -> None:
    def circuit() -> Any:
        qml.RY(1.0, 0)
        first = qml.measure(0, postselect=1)
        return qml.sample(wires=[0]), qml.counts(wires=[0]), qml.sample(first)

    samples, counts, outcomes = qml.set_shots(qml.QNode(circuit, device(1)), 1_000)()
    assert 0 < len(samples) < 500
    assert samples.all()
    assert (counts, len(outcomes)) == ({"1": len(samples)}, len(samples))


def test_postselection_counts_shots_that_pass(device: Any) -> None:
    def circuit() -> Any:
        qml.cond(qml.measure(0, postselect=1), qml.X)(0)
        return qml.expval(qml.Z(0)), qml.probs(wires=[0])

    mean, odds = qml.set_shots(qml.QNode(circuit, device(1)), 10)()
    assert np.isnan(mean)
    assert np.isnan(odds).all()
    mode = "pad-invalid-samples"  # JAX's transformations set it for every tape with shots
    config = qml.devices.ExecutionConfig(mcm_config=qml.devices.MCMConfig(postselect_mode=mode))
    kept, postselected = (
        qml.tape.QuantumScript([qml.ops.MidMeasure(0, postselect=value)], [qml.probs(wires=1)], 9)
        for value in (None, 1)
    )
    device(3).setup_execution_config(config, kept)
    fails(qml.exceptions.DeviceError, mode, device(3).setup_execution_config, config, postselected)


def test_state_after_deferred_measurements(device: Any) -> None:
    def circuit() -> Any:
        qml.Hadamard(0)
        qml.cond(qml.measure(0), qml.RY)(0.4, wires=1)
        return qml.purity([1]), qml.density_matrix([1])

    result = qml.QNode(circuit, device(3))()
    for value, other in zip(result, reference(circuit), strict=True):
        np.testing.assert_allclose(value, other, atol=1e-10)


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize("method", ["parameter-shift", "adjoint", "best"])
def test_gradient_through_a_mid_circuit_measurement(method: str, device: Any) -> None:
    def circuit(x: Any) -> Any:
        qml.RX(x, 0)
        qml.cond(qml.measure(0), qml.RY)(0.4, wires=1)
        qml.RX(x, 1)
        return qml.expval(qml.Z(1))

    at = qml.numpy.array(0.8, requires_grad=True)
    result = qml.grad(qml.QNode(circuit, device(3), diff_method=method))(at)
    reference_node = qml.QNode(circuit, qml.device("default.qubit"), mcm_method="deferred")
    assert result == pytest.approx(float(qml.grad(reference_node)(at)), abs=1e-8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"postselect_mode": "fill-shots"}, "fill-shots"),
        ({"mcm_method": "single-branch-statistics"}, "single-branch-statistics"),
    ],
)
def test_unknown_ways_are_refused_by_name(options: dict[str, str], words: str, device: Any) -> None:
    config = qml.devices.ExecutionConfig(mcm_config=qml.devices.MCMConfig(**options))
    fails(qml.exceptions.DeviceError, words, device(3).setup_execution_config, config)


def test_one_shot_method_needs_shots(device: Any) -> None:
    config = qml.devices.ExecutionConfig(mcm_config=qml.devices.MCMConfig(mcm_method="one-shot"))
    tape = qml.tape.make_qscript(teleported)(0.8)
    fails(qml.exceptions.DeviceError, "needs shots", device(3).setup_execution_config, config, tape)


def test_samples_of_mid_circuit_measurements_have_the_types_of_their_values(device: Any) -> None:
    def circuit() -> Any:
        qml.Hadamard(0)
        first, second = qml.measure(0), qml.measure(1)
        values = (first, first + second, first == second, first / 2)
        return tuple(qml.sample(value) for value in values)

    kinds = [each.dtype.kind for each in qml.set_shots(qml.QNode(circuit, device(2)), 5)()]
    assert kinds == ["i", "i", "b", "f"]
