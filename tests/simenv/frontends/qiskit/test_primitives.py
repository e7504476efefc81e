"""SamplerV2 and EstimatorV2 over a real environment, against Qiskit's own as the reference."""

from typing import Any

import numpy as np
import pytest
from circuits import tangled
from failing import fails
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.classical import expr, types
from qiskit.exceptions import QiskitError
from qiskit.primitives import StatevectorEstimator, StatevectorSampler
from qiskit.primitives.containers import BindingsArray
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import Operator, Pauli, SparseObservable, SparsePauliOp

from simenv.client.client import Client
from simenv.frontends.qiskit import (
    SimenvBackend,
    SimenvBatch,
    SimenvEstimator,
    SimenvSampler,
    SimenvSession,
)


def ansatz() -> QuantumCircuit:
    """Two qubits, four parameters whose order in the circuit is not that of their names."""
    x = ParameterVector("x", 4)
    circuit = QuantumCircuit(2, metadata={"body": "ansatz"})
    circuit.ry(x[2], 0)
    circuit.rx(x[0] + 0.1, 1)
    circuit.cx(0, 1)
    circuit.rz(x[3], 1)
    circuit.ry(2 * x[1], 1)
    return circuit


def measured() -> QuantumCircuit:
    circuit = ansatz()
    circuit.measure_all()
    return circuit


def teleportation() -> QuantumCircuit:
    """`end` agrees with no bit of `mid`, and with `copy` in each shot; registers of odd sizes."""
    mid, copy, end = (
        ClassicalRegister(2, "mid"), ClassicalRegister(9, "copy"), ClassicalRegister(1, "end"),
    )  # fmt: skip
    circuit = QuantumCircuit(QuantumRegister(3, "q"), mid, copy, end)
    circuit.ry(1.1, 0)
    circuit.h(1)
    circuit.cx(1, 2)
    circuit.cx(0, 1)
    circuit.h(0)
    circuit.measure([0, 1], mid)
    with circuit.if_test((mid[1], 1)):
        circuit.x(2)
    with circuit.if_test((mid[0], 1)):
        circuit.z(2)
    circuit.measure(2, end)
    circuit.measure(2, copy[8])
    circuit.measure(0, copy[0])
    return circuit


@pytest.mark.parametrize(
    "observable", ["0+", {"1-": 0.5, "rl": 2.0}, SparseObservable.from_list([("0I", 1.5)]), "ZX"]
)
def test_estimates_of_projectors_are_exact(ideal: SimenvBackend, observable: object) -> None:
    values = [0.3, 0.4, 0.5, 0.6]
    evs = SimenvEstimator(ideal).run([(ansatz(), observable, values)]).result()[0].data.evs
    result = observable
    if isinstance(result, str):
        result = SparseObservable.from_label(result)
    elif isinstance(result, dict):
        result = SparseObservable.from_list(list(result.items()))
    matrix = Operator(SparsePauliOp.from_sparse_observable(result)).data
    state = Operator(ansatz().assign_parameters(values)).data[:, 0]
    assert evs == pytest.approx((state.conj() @ matrix @ state).real, abs=1e-12)


def test_precision_becomes_shots_and_standard_errors(ideal: SimenvBackend) -> None:
    values = np.random.default_rng(2).uniform(0, 6, (20, 4))
    pub = (ansatz(), [["ZZ"], ["XI"]], values)
    exact = SimenvEstimator(ideal).run([pub]).result()[0].data.evs
    estimator = SimenvEstimator(ideal, seed=5, default_precision=0.05)
    value, finer = estimator.run([pub, (*pub, 0.01)]).result()
    assert value.metadata["shots"] == 400
    assert (finer.metadata["shots"], finer.metadata["target_precision"]) == (10_000, 0.01)
    for each, precision in ((value, 0.05), (finer, 0.01)):
        assert 0 < each.data.stds.max() <= 1.01 * precision
        assert (np.abs(each.data.evs - exact) < 5 * precision).all()
        assert np.abs(each.data.evs - exact).max() > 0
    again = estimator.run([pub, (*pub, 0.01)]).result()
    np.testing.assert_array_equal(again[1].data.evs, finer.data.evs)
    assert estimator.run([pub], precision=0.1).result()[0].metadata["shots"] == 100


def test_all_pubs_in_one_message(ideal: SimenvBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    session, sizes = ideal.client.session, list[int]()
    send = session.submits.send

    def counting(*arguments: Any) -> Any:
        sizes.append(sum(spec.count for spec in arguments[3]))
        return send(*arguments)

    monkeypatch.setattr(session.submits, "send", counting)
    values = np.random.default_rng(5).uniform(0, 6, (200, 4))
    listed = [[SparsePauliOp("ZZ", k + 1.0)] for k in range(50)]
    job = SimenvEstimator(ideal).run([(ansatz(), listed, values)])
    assert job.result()[0].data.evs.shape == (50, 200)
    assert sizes == [200]
    pubs = [(measured(), values[:3]), teleportation(), (measured(), values[3], 7)]
    SimenvSampler(ideal).run(pubs).result()
    assert sizes == [200, 5]


def test_pair_of_long_arrays_is_computed_in_groups(ideal: SimenvBackend) -> None:
    rng = np.random.default_rng(3)
    circuit = ansatz()
    observables = [SparsePauliOp("ZZ", k + 1.0) for k in range(80)]
    values = rng.uniform(0, 6, (80, 4))
    expected = StatevectorEstimator().run([(circuit, observables, values)]).result()[0].data.evs
    job = SimenvEstimator(ideal).run([(circuit, observables, values)])
    np.testing.assert_allclose(job.result()[0].data.evs, expected, atol=1e-10)


def test_values_by_name_and_array_shape_without_parameters(ideal: SimenvBackend) -> None:
    x, y = Parameter("x"), Parameter("y")
    circuit = QuantumCircuit(2)
    circuit.rx(y, 0)
    circuit.rx(x, 1)
    circuit.measure_all()
    sampler = SimenvSampler(ideal, default_shots=50)
    (value,) = sampler.run([(circuit, {"y": [np.pi, 0.0], ("x",): [[0.0], [0.0]]})]).result()
    assert [value.data.meas.get_counts(k) for k in range(2)] == [{"01": 50}, {"00": 50}]
    plain = QuantumCircuit(1)
    plain.h(0)
    plain.measure_all()
    (value,) = sampler.run([(plain, BindingsArray({}, shape=(3,)))]).result()
    assert value.data.meas.shape == (3,)
    assert len({value.data.meas[k].array.tobytes() for k in range(3)}) == 3


def test_registers_keep_their_joint_shots(ideal: SimenvBackend) -> None:
    (value,) = SimenvSampler(ideal, seed=8).run([teleportation()], shots=4000).result()
    mid, copy, end = value.data.mid, value.data.copy, value.data.end
    assert list(value.data) == ["mid", "copy", "end"]
    assert (mid.num_bits, copy.num_bits, end.num_bits, copy.array.shape) == (2, 9, 1, (4000, 2))
    bits = copy.to_bool_array(order="little")
    np.testing.assert_array_equal(bits[:, 8], end.to_bool_array()[:, 0])
    np.testing.assert_array_equal(bits[:, 0], mid.to_bool_array(order="little")[:, 0])
    assert not bits[:, 1:8].any()
    assert abs(end.get_counts()["1"] - 4000 * np.sin(0.55) ** 2) < 5 * np.sqrt(1000)
    item = end.to_bool_array()[:, 0][mid.to_bool_array()[:, 0]]
    assert abs(item.mean() - np.sin(0.55) ** 2) < 5 * 0.5 / np.sqrt(item.size)
    assert value.join_data().num_bits == 12
    assert len(set(value.join_data(["mid", "end"]).get_counts())) == 8


def test_same_seed_gives_same_bits_and_pubs_differ(ideal: SimenvBackend) -> None:
    sampler = SimenvSampler(ideal, seed=3)
    values = [0.3, 0.4, 0.5, 0.6]
    one, two = sampler.run([(measured(), values), (measured(), values)], shots=200).result()
    assert one.data.meas == sampler.run([(measured(), values)], shots=200).result()[0].data.meas
    assert one.data.meas != two.data.meas
    drawn = SimenvSampler(ideal).run([(measured(), values)], shots=200).result()[0]
    assert drawn.data.meas != one.data.meas


def test_faults_of_pubs_precede_submission(env: Client, ideal: SimenvBackend) -> None:
    before = env.queue(done=True)[0]
    fails(ValueError, "parameter", SimenvSampler(ideal).run, [measured()])
    with pytest.raises(ValueError, match=r"shots|larger|positive"):
        SimenvSampler(ideal).run([(measured(), [0.0] * 4)], shots=-1)
    fails(ValueError, "qubits", SimenvEstimator(ideal).run, [(ansatz(), "ZZZ", [0.0] * 4)])
    with pytest.raises(ValueError, match=r"broadcast|shape"):
        SimenvEstimator(ideal).run([(ansatz(), ["ZZ", "XX"], np.zeros((3, 4)))])
    fails(TypeError, "mode", SimenvSampler, "fez")
    fails(TypeError, "no option shot", SimenvSampler, ideal, shot=3)
    fails(QiskitError, "circuit 1", SimenvSampler(ideal).run, [(measured(), [0.0] * 4), tangled()])
    assert env.queue(done=True)[0] == before


def test_primitives_on_a_device_are_noisy_and_follow_layouts(env: Client) -> None:
    from qiskit import transpile

    device = SimenvBackend("fez", env)
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    isa = transpile(circuit, device, optimization_level=1, seed_transpiler=3)
    observable = SparsePauliOp(["ZZ", "XX"]).apply_layout(isa.layout)
    estimator = SimenvEstimator(device, seed=2)
    result = estimator.run([(isa, observable), (circuit, ["ZZ", "XX"])]).result()
    assert result[0].metadata["shots"] == 4096
    assert 1.8 < result[0].data.evs < 2.0
    assert (result[1].data.evs < 1.0).all() and (result[1].data.evs > 0.9).all()  # noqa: PT018
    assert 0.9 < estimator.run([(circuit, "ZZ")], precision=0.0).result()[0].data.evs < 1.0
    ideal = SimenvEstimator(device, noise="off").run([(circuit, "ZZ")], precision=0.0).result()
    assert ideal[0].data.evs == pytest.approx(1.0, abs=1e-12)


def test_noise_that_does_not_act_is_in_the_metadata_of_both_primitives(env: Client) -> None:
    device = SimenvBackend("fez", env, noise={"gate.crosstalk": 2.0})
    circuit = QuantumCircuit(1)
    circuit.x(0)
    estimates = SimenvEstimator(device).run([(circuit, ["Z", "X"])]).result()
    circuit.measure_all()
    samples = SimenvSampler(device).run([circuit, QuantumCircuit(1, 1)], shots=5).result()
    for result in (estimates, samples):
        (text,) = result.metadata["simenv"][0]["warnings"]
        assert text.startswith("gate.crosstalk * 2 changes nothing")
    assert samples.metadata["simenv"][1]["warnings"] == []


@pytest.mark.parametrize("value", [-1, 0, "60"])
def test_invalid_time_of_a_session_is_refused(ideal: SimenvBackend, value: Any) -> None:
    fails(ValueError, "max_time=", SimenvSession, ideal, max_time=value)


@pytest.mark.parametrize("kind", [SimenvSession, SimenvBatch])
def test_reservation(env: Client, ideal: SimenvBackend, kind: type[SimenvSession]) -> None:
    with kind(ideal, workers=1) as session:
        number = int(session.session_id)
        assert env.reservation(number).id == number
        assert session.details()["workers"] == 1
        job = SimenvSampler(mode=session).run([teleportation()], shots=10)
        run = session.run(teleportation(), shots=10)
        assert session.backend() == ideal.name
    assert job.done() and run.done()  # noqa: PT018
    assert session.status() not in ("active", "open")
    fails(QiskitError, "reservation", SimenvSampler(mode=session).run, [teleportation()])


PARAMETERS = [Parameter(name) for name in "cab"]  # not in the order of their names


def shape(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(rng.choice([1, 2, 3, 4], size=rng.integers(0, 4)).tolist())


def part(rng: np.random.Generator, target: tuple[int, ...]) -> tuple[int, ...]:
    """Shape that broadcasts to another one."""
    kept = target[(rng.integers(0, len(target) + 1) if rng.random() < 0.4 else 0) :]
    return tuple(1 if rng.random() < 0.3 else size for size in kept)


def rotated(rng: np.random.Generator) -> QuantumCircuit:
    circuit = QuantumCircuit(3, metadata={"number": int(rng.integers(9))})
    for layer in range(2):
        for qubit in rng.permutation(3).tolist():
            parameter = PARAMETERS[rng.integers(3)] if layer else PARAMETERS[qubit]
            circuit.ry(parameter, qubit) if layer else circuit.rx(2 * parameter + 0.1, qubit)
        circuit.cx(0, 1)
        circuit.cz(1, 2)
    return circuit


def observable(rng: np.random.Generator) -> Any:
    labels = ["".join(rng.choice(list("IXYZ"), 3)) for _ in range(3)]
    weights = rng.normal(size=3)
    kind = rng.integers(5)
    if kind == 0:
        return labels[0]
    if kind == 1:
        return Pauli(labels[0])
    if kind == 2:
        return dict(zip(labels, weights.tolist(), strict=True))
    if kind == 3:
        return SparseObservable.from_list([(labels[0], 0.5), ("ZZI", -1.5)])
    return SparsePauliOp(labels, weights)


def observables(rng: np.random.Generator, size: tuple[int, ...]) -> Any:
    listed = np.empty(size, object)
    for place in np.ndindex(*size):
        listed[place] = observable(rng)
    nested = listed.tolist()
    return ObservablesArray.coerce(nested) if rng.random() < 0.5 else nested


def bindings(rng: np.random.Generator, values: np.ndarray) -> Any:
    """Values [..., 3] of the parameters in the order of their names, in several forms."""
    kind = rng.integers(3)
    if kind == 0:
        return values
    settings = {("a", "b"): values[..., :2], ("c",): values[..., 2:]}
    return settings if kind == 1 else BindingsArray(settings, shape=values.shape[:-1])


@pytest.mark.parametrize("seed", range(30))
def test_estimates_of_random_shapes_equal_reference(seed: int, ideal: SimenvBackend) -> None:
    rng = np.random.default_rng(seed)
    pubs = []
    for _ in range(3):
        size = shape(rng)
        values = rng.uniform(-3, 3, (*part(rng, size), 3))
        pubs.append((rotated(rng), observables(rng, part(rng, size)), bindings(rng, values)))
    expected = StatevectorEstimator().run(pubs).result()
    result = SimenvEstimator(ideal).run(pubs).result()
    assert result.metadata["version"] == expected.metadata["version"] == 2
    for actual, reference in zip(result, expected, strict=True):
        assert list(actual.data) == list(reference.data)
        assert actual.data.shape == reference.data.shape
        for name in reference.data:
            field = actual.data[name]
            assert type(field) is type(reference.data[name])
            assert (field.shape, field.dtype) == (reference.data[name].shape, np.float64)
            np.testing.assert_allclose(field, reference.data[name], atol=1e-12)
        assert actual.metadata == {**reference.metadata, "shots": 0}


@pytest.mark.parametrize("seed", range(30))
def test_bits_of_random_shapes_equal_reference(seed: int, ideal: SimenvBackend) -> None:
    rng = np.random.default_rng(seed)
    pubs = []
    for _ in range(3):
        registers = [
            ClassicalRegister(int(size), f"r{number}")
            for number, size in enumerate(rng.integers(1, 12, rng.integers(1, 4)))
        ]
        circuit = QuantumCircuit(QuantumRegister(3), *registers, metadata={"seed": seed})
        for qubit in range(3):
            circuit.rx(PARAMETERS[qubit], qubit)
        for clbit in rng.permutation(circuit.num_clbits)[:6].tolist():
            circuit.measure(rng.integers(3), clbit)
        values = rng.choice([0.0, np.pi], (*shape(rng), 3))  # outcomes without chance
        pubs.append((circuit, bindings(rng, values), int(rng.integers(1, 9))))
    expected = StatevectorSampler().run(pubs).result()
    result = SimenvSampler(ideal).run(pubs).result()
    for actual, reference in zip(result, expected, strict=True):
        assert list(actual.data) == list(reference.data)
        assert (actual.data.shape, actual.metadata) == (reference.data.shape, reference.metadata)
        assert dict(actual.data) == dict(reference.data)
        reversed_names = list(actual.data)[::-1]
        joined, outcome = (item.join_data(reversed_names) for item in (actual, reference))
        assert joined == outcome
        assert (joined.shape, joined.num_bits, joined.num_shots) == (
            outcome.shape, outcome.num_bits, outcome.num_shots,
        )  # fmt: skip
        assert joined.get_counts() == outcome.get_counts()


def read_into(name: str) -> QuantumCircuit:
    circuit = QuantumCircuit(QuantumRegister(1), ClassicalRegister(1, name))
    circuit.measure(0, 0)
    return circuit


@pytest.mark.parametrize("name", ["keys", "values", "items", "size", "ndim", "shape", "__class__"])
def test_register_no_result_can_have_is_refused_by_name(name: str, ideal: SimenvBackend) -> None:
    with pytest.raises((TypeError, ValueError)) as expected:
        StatevectorSampler().run([read_into(name)]).result()
    error = fails(expected.type, "", SimenvSampler(ideal).run, [read_into("c"), read_into(name)])
    text = f"{expected.value}: rename the register {name!r} of circuit 1"
    assert str(error) == text


@pytest.mark.parametrize("precision", [0.0, 0.1])
def test_estimates_without_qubits_are_coefficients(precision: float, ideal: SimenvBackend) -> None:
    empty = QuantumCircuit(global_phase=Parameter("x"))
    pub = (empty, [SparsePauliOp([""], [2.5]), SparsePauliOp([""], [-1.0])], [[[0.3]], [[0.4]]])
    plain = (QuantumCircuit(), {"": 0.5})
    expected = StatevectorEstimator().run([pub, plain]).result()
    result = SimenvEstimator(ideal).run([pub, plain], precision=precision).result()
    for actual, reference in zip(result, expected, strict=True):
        assert actual.data.evs.shape == reference.data.evs.shape
        np.testing.assert_array_equal(actual.data.evs, reference.data.evs)
        np.testing.assert_array_equal(actual.data.stds, 0.0)


def test_samples_without_qubits_are_zeros(ideal: SimenvBackend) -> None:
    with pytest.warns(UserWarning, match="no output classical registers"):
        bits, empty = SimenvSampler(ideal).run([QuantumCircuit(0, 2), QuantumCircuit()]).result()
    assert bits.data.c.get_counts() == {"00": 1024}
    assert len(empty.data) == 0


def boxed() -> QuantumCircuit:
    circuit = QuantumCircuit(1, 1)
    with circuit.box():
        circuit.x(0)
    return circuit


def with_input() -> QuantumCircuit:
    variable = expr.Var.new("angle", types.Uint(2))
    circuit = QuantumCircuit(1, 1, inputs=[variable])
    with circuit.if_test(expr.equal(variable, 2)):
        circuit.x(0)
    return circuit


def stretched() -> QuantumCircuit:
    circuit = QuantumCircuit(1, 1)
    circuit.delay(circuit.add_stretch("wait"), 0)
    return circuit


@pytest.mark.parametrize(
    ("circuit", "text"),
    [
        (boxed(), "control flow 'box'"),
        (with_input(), "input variable 'angle'"),
        (stretched(), "duration in an expression or stretch"),
    ],
)
def test_refused_pub_is_numbered(circuit: QuantumCircuit, text: str, ideal: SimenvBackend) -> None:
    before = ideal.client.queue(done=True)[0]
    with pytest.raises(QiskitError, match=f"circuit 2: .*{text}"):
        SimenvEstimator(ideal).run(
            [(QuantumCircuit(), {"": 1.0}), (read_into("c"), "Z"), (circuit, "Z")]
        )
    circuit.measure(0, 0)
    with pytest.raises(QiskitError, match=f"circuit 2: .*{text}"):
        SimenvSampler(ideal).run([QuantumCircuit(1, 1), read_into("c"), circuit])
    fails(QiskitError, f"circuit 1: .*{text}", ideal.run, [read_into("c"), circuit])
    assert ideal.client.queue(done=True)[0] == before
