"""SamplerV2 and EstimatorV2 over a real environment, against Qiskit's own as the reference."""

import pickle
from typing import Any

import numpy as np
import pytest
from circuits import tangled
from failing import fails
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Parameter, ParameterVector
from qiskit.exceptions import QiskitError
from qiskit.primitives import StatevectorEstimator, StatevectorSampler
from qiskit.primitives.containers import BindingsArray
from qiskit.providers import JobStatus
from qiskit.quantum_info import Operator, SparseObservable, SparsePauliOp

import simenv
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


SHAPES = [
    ((), ()), ((3,), ()), ((), (4,)), ((4,), (4,)), ((3, 1), (4,)), ((2, 1, 3), (5, 1)),
    ((1,), (2, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("observables", "sets"), SHAPES)
def test_estimates_of_broadcast_pub_equal_reference(
    ideal: SimenvBackend, observables: tuple[int, ...], sets: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(1)
    labels = ["ZZ", "XI", "IY", "XY"]
    listed = np.empty(observables, object)
    for place in np.ndindex(*observables):
        listed[place] = SparsePauliOp(labels, rng.normal(size=4))
    result = listed.tolist()
    pub = (ansatz(), result, rng.uniform(0, 6, (*sets, 4)))
    expected = StatevectorEstimator().run([pub]).result()[0]
    item = SimenvEstimator(ideal).run([pub]).result()[0]
    assert item.data.evs.shape == expected.data.evs.shape == item.data.shape
    np.testing.assert_allclose(item.data.evs, expected.data.evs, atol=1e-12)
    np.testing.assert_array_equal(item.data.stds, np.zeros(item.data.shape))
    assert item.metadata == {
        "target_precision": 0.0, "shots": 0, "circuit_metadata": {"body": "ansatz"},
    }  # fmt: skip


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
    send = session.send_submit

    def counting(*arguments: Any) -> Any:
        sizes.append(sum(spec.count for spec in arguments[3]))
        return send(*arguments)

    monkeypatch.setattr(session, "send_submit", counting)
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


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (2, 1, 2)])
def test_sampler_result_has_reference_shape(ideal: SimenvBackend, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(4).uniform(0, 6, (*shape, 4))
    pub = (measured(), values, 2000)
    (expected,) = StatevectorSampler(seed=1).run([pub]).result()
    (value,) = SimenvSampler(ideal, seed=1).run([pub]).result()
    meas, outcome = value.data.meas, expected.data.meas
    assert meas.shape == outcome.shape == shape
    assert (meas.array.shape, meas.num_bits, meas.num_shots) == (outcome.array.shape, 2, 2000)
    assert value.metadata == expected.metadata
    for place in np.ndindex(*shape):
        one, two = meas.get_counts(place), outcome.get_counts(place)
        for key in ("00", "01", "10", "11"):
            assert abs(one.get(key, 0) - two.get(key, 0)) < 5 * np.sqrt(2 * 2000 * 0.25)


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


def test_circuit_without_measurement_reads_zeros_or_warns(ideal: SimenvBackend) -> None:
    circuit = QuantumCircuit(1, 3)
    circuit.x(0)
    (value,) = SimenvSampler(ideal).run([circuit], shots=7).result()
    assert value.data.c.get_counts() == {"000": 7}
    with pytest.warns(UserWarning, match="no output classical registers"):
        (value,) = SimenvSampler(ideal).run([QuantumCircuit(1)], shots=7).result()
    assert not list(value.data)


def test_faults_of_pubs_precede_submission(env: simenv.Client, ideal: SimenvBackend) -> None:
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


def test_results_are_pickled_and_jobs_tell_their_state(ideal: SimenvBackend) -> None:
    job = SimenvSampler(ideal, seed=1).run([teleportation()], shots=20)
    result = job.result(timeout=60)
    assert job.status() is JobStatus.DONE
    assert job.done() and job.in_final_state()  # noqa: PT018
    assert not job.running()
    assert not job.cancelled()
    assert not job.cancel()
    again = pickle.loads(pickle.dumps(result))  # noqa: S301
    assert (again[0].data.mid, job.metadata["tasks"]) == (result[0].data.mid, [job.tasks[0].id])
    estimated = SimenvEstimator(ideal).run([(ansatz(), "ZZ", [0.1] * 4)]).result()
    again = pickle.loads(pickle.dumps(estimated))  # noqa: S301
    assert again[0].data.evs == estimated[0].data.evs


def test_primitives_on_a_device_are_noisy_and_follow_layouts(env: simenv.Client) -> None:
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


def test_noise_that_does_not_act_is_in_the_metadata_of_both_primitives(env: simenv.Client) -> None:
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
def test_reservation(env: simenv.Client, ideal: SimenvBackend, kind: type[SimenvSession]) -> None:
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
