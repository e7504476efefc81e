"""What Qiskit documents of V2 primitives, their jobs and results, beside Qiskit's own as reference.

A case is a function of a sampler or an estimator; the reference and ours must give the same value,
or raise the same error.
"""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from busy_circuits import ENDLESS
from failing import fails
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister, primitives
from qiskit.circuit import Clbit, Parameter, ParameterVector
from qiskit.circuit.classical import expr
from qiskit.circuit.library import PauliEvolutionGate, PauliGate, QFTGate, RYGate
from qiskit.exceptions import QiskitError
from qiskit.primitives.containers import BindingsArray
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit.providers import JobStatus
from qiskit.providers.exceptions import JobError, JobTimeoutError
from qiskit.quantum_info import Pauli, SparsePauliOp

from simenv.errors import SimenvError
from simenv.frontends.qiskit import (
    SimenvBackend,
    SimenvBatch,
    SimenvEstimator,
    SimenvSampler,
    SimenvSession,
)

WAIT_S = 60.0
Case = Callable[[Any], Any]


def flipped(name: str = "meas", size: int = 2) -> QuantumCircuit:
    """The last qubit is 1."""
    circuit = QuantumCircuit(QuantumRegister(size, "q"), ClassicalRegister(size, name))
    circuit.x(size - 1)
    circuit.measure(range(size), range(size))
    return circuit


def turned(measured: bool = True) -> QuantumCircuit:
    """One qubit, turned by `x`."""
    circuit = QuantumCircuit(1)
    circuit.rx(Parameter("x"), 0)
    return circuit.measure_all(inplace=False) if measured else circuit


def wide() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 70)
    circuit.x(0)
    for clbit in (3, 69):
        circuit.measure(0, clbit)
    circuit.measure(1, 64)
    return circuit


def sharing(size: int = 9) -> QuantumCircuit:
    """Registers that share bits: a wide one, its odd bits and a bit of its own, reversed."""
    every = ClassicalRegister(size, "every")
    odd = ClassicalRegister(name="odd", bits=[Clbit(), *every[::-2]])
    circuit = QuantumCircuit(QuantumRegister(size + 1, "q"), every, odd)
    circuit.x([0, 3, 4, size])
    circuit.measure(range(size), every)
    circuit.measure(size, odd[0])
    return circuit


def every_kind() -> QuantumCircuit:
    """Instructions that are definitions, matrices, or nothing at all."""
    circuit = QuantumCircuit(3)
    circuit.initialize([0, 1, 0, 0], [0, 1])
    circuit.append(QFTGate(2), [0, 1])
    circuit.append(QFTGate(2).inverse(), [0, 1])
    circuit.append(RYGate(np.pi).control(1), [0, 2])
    circuit.append(PauliGate("XY"), [0, 1])
    circuit.append(PauliEvolutionGate(SparsePauliOp(["ZZ"]), time=0.3), [0, 1])
    circuit.unitary(np.array([[0, 1], [1, 0]]), 2)
    circuit.barrier()
    circuit.delay(100, 0)
    circuit.id(1)
    circuit.measure_all()
    return circuit


def counts_of(sampler: Any, pub: Any, **options: Any) -> dict[str, Any]:
    (value,) = sampler.run([pub], **options).result()
    return {
        name: (bits.shape, bits.num_shots, bits.num_bits, bits.get_counts())
        for name, bits in value.data.items()
    }


def shots_of(sampler: Any, pub: Any, **options: Any) -> int:
    (value,) = sampler.run([pub], **options).result()
    return int(value.data.meas.num_shots)


def precision_of(estimator: Any, *more: Any, **options: Any) -> float:
    (value,) = estimator.run([(QuantumCircuit(2), "ZZ", *more)], **options).result()
    return float(value.metadata["target_precision"])


def values_of(estimator: Any, observables: Any, values: Any = (0.4,)) -> Any:
    (value,) = estimator.run([(turned(measured=False), observables, values)]).result()
    assert value.data.evs.shape == value.data.stds.shape == value.data.shape
    return np.round(value.data.evs, 12).tolist()


SAMPLED: dict[str, Case] = {
    "no PUB": lambda s: len(s.run([]).result()),
    "circuit": lambda s: counts_of(s, flipped()),
    "tuple": lambda s: counts_of(s, (flipped(),)),
    "list": lambda s: counts_of(s, [flipped()]),
    "no values": lambda s: counts_of(s, (flipped(), None, 7)),
    "empty values": lambda s: counts_of(s, (flipped(), [], 9)),
    "coerced": lambda s: counts_of(s, SamplerPub.coerce(flipped(), 11)),
    "generator": lambda s: len(s.run(flipped() for _ in range(3)).result()),
    "shots of run": lambda s: shots_of(s, flipped(), shots=13),
    "shots of PUB": lambda s: shots_of(s, (flipped(), None, 5), shots=13),
    "default shots": lambda s: shots_of(s, flipped()),
    "no shots": lambda s: shots_of(s, flipped(), shots=0),
    "negative shots": lambda s: shots_of(s, (flipped(), None, -3)),
    "shots and a half": lambda s: shots_of(s, flipped(), shots=1.5),
    "shots of words": lambda s: shots_of(s, flipped(), shots="many"),
    "one circuit for PUBs": lambda s: s.run(flipped()),
    "number for a PUB": lambda s: s.run([3]),
    "text for a PUB": lambda s: s.run(["OPENQASM"]),
    "nothing for PUBs": lambda s: s.run(None),
    "PUB of four": lambda s: s.run([(flipped(), None, 3, 3)]),
    "unbound": lambda s: s.run([turned()]),
    "scalar value": lambda s: counts_of(s, (turned(), np.pi)),
    "two for one": lambda s: counts_of(s, (turned(), [np.pi, 0.0])),
    "by name": lambda s: counts_of(s, (turned(), {"x": [[np.pi], [0.0]]})),
    "no set of values": lambda s: counts_of(s, (turned(), np.zeros((0, 1)))),
    "sets of none": lambda s: counts_of(s, (turned(), np.zeros((2, 0, 1)))),
    "complex value": lambda s: s.run([(turned(), [1j])]),
    "unknown and known name": lambda s: s.run([(turned(), {"x": 1.0, "y": 2.0})]),
    "bindings": lambda s: counts_of(s, (turned(), BindingsArray({"x": np.full((2, 3), np.pi)}))),
    "shared bits": lambda s: counts_of(s, sharing()),
    "shared bits, values": lambda s: counts_of(
        s, (sharing().compose(turned(measured=False), [0], front=True), [[np.pi], [0.0]])
    ),
    "wide register": lambda s: counts_of(s, wide()),
    "kinds of instructions": lambda s: counts_of(s, every_kind()),
    "types": lambda s: [type(each).__name__ for each in _chain(s.run([flipped()]))],
    "metadata": lambda s: s.run([QuantumCircuit(1, 1, metadata={"a": 1})]).result()[0].metadata,
    "version": lambda s: s.run([flipped()]).result().metadata["version"],
    **{
        f"register {name}": lambda s, name=name: counts_of(s, flipped(name))  # type: ignore[misc]
        for name in ("c", "my-reg", "class", "0a", "\u03b1", "data", "get")
    },
}
ESTIMATED: dict[str, Case] = {
    "no PUB": lambda e: len(e.run([]).result()),
    "coerced": lambda e: len(e.run([EstimatorPub.coerce((QuantumCircuit(1), "Z"))]).result()),
    "precision of run": lambda e: precision_of(e, precision=0.25),
    "precision of PUB": lambda e: precision_of(e, None, 0.5, precision=0.25),
    "default precision": precision_of,
    "negative precision": lambda e: precision_of(e, precision=-0.1),
    "precision of words": lambda e: precision_of(e, None, "fine"),
    "one PUB for PUBs": lambda e: e.run((QuantumCircuit(1), "Z")),
    "PUB of one": lambda e: e.run([(QuantumCircuit(1),)]),
    "PUB of five": lambda e: e.run([(QuantumCircuit(1), "Z", None, 0.1, 3)]),
    "unbound": lambda e: e.run([(turned(measured=False), "Z")]),
    "label": lambda e: values_of(e, "Z"), "Pauli": lambda e: values_of(e, Pauli("-Z")),
    "mapping": lambda e: values_of(e, {"Z": 2.0, "I": 1.0}),
    "mapping of Pauli": lambda e: values_of(e, {Pauli("Z"): 1.5}),
    "twice": lambda e: values_of(e, SparsePauliOp(["Z", "Z"])),
    "array": lambda e: values_of(e, [["Z", "X"], ["Y", "I"]]),
    "ObservablesArray": lambda e: values_of(e, ObservablesArray(["Z", "X"])),
    "no observable": lambda e: values_of(e, []),
    "no set of values": lambda e: values_of(e, "Z", np.zeros((0, 1))),
    "pairs": lambda e: values_of(e, [["Z"], ["Y"]], np.linspace(0, 1, 3)[:, None]),
    "not Hermitian": lambda e: values_of(e, SparsePauliOp("Z", [1j])),
    "too wide": lambda e: values_of(e, "ZZ"), "other letter": lambda e: values_of(e, "A"),
    "number": lambda e: values_of(e, 5),
    "names": lambda e: sorted(e.run([(QuantumCircuit(1), "Z")]).result()[0].data.keys()),
    "types": lambda e: [type(each).__name__ for each in _chain(e.run([(QuantumCircuit(1), "Z")]))],
}  # fmt: skip


def _chain(job: Any) -> list[Any]:
    result = job.result()
    return [result, result[0], result[0].data, job.job_id(), job.done(), job.cancelled()]


def outcome(case: Case, primitive: Any) -> Any:
    """Value of a case, or type and words of its error."""
    try:
        return case(primitive)
    except (TypeError, ValueError) as error:
        return type(error), str(error)


@pytest.mark.filterwarnings("ignore:.*no output classical registers:UserWarning")
@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")  # of the reference
@pytest.mark.parametrize("name", SAMPLED)
def test_sampler_gives_or_raises_what_the_reference_does(name: str, ideal: SimenvBackend) -> None:
    expected = outcome(SAMPLED[name], primitives.StatevectorSampler(default_shots=20))
    assert outcome(SAMPLED[name], SimenvSampler(ideal, default_shots=20)) == expected


@pytest.mark.parametrize(("value", "first"), [(41, "0"), (40, "1")])
def test_conditions_see_shared_registers(value: int, first: str, ideal: SimenvBackend) -> None:
    circuit = sharing()
    every, odd = circuit.cregs
    actual = circuit.add_var("seen", expr.lift(odd[3]))
    with circuit.if_test((odd, value)), circuit.if_test(expr.lift(actual)):
        circuit.x(0)
    circuit.measure(0, every[0])
    (result,) = SimenvSampler(ideal).run([circuit], shots=10).result()
    assert result.data.every.get_counts() == {f"00001100{first}": 10}
    assert result.data.odd.get_counts() == {f"{first}01001": 10}
    circuit.add_var("stored", expr.lift(odd))
    fails(QiskitError, r"share bits is stored.*odd", SimenvSampler(ideal).run, [circuit])


@pytest.mark.parametrize("name", ESTIMATED)
def test_estimator_gives_or_raises_what_the_reference_does(name: str, ideal: SimenvBackend) -> None:
    expected = outcome(ESTIMATED[name], primitives.StatevectorEstimator())
    assert outcome(ESTIMATED[name], SimenvEstimator(ideal)) == expected


def test_primitives_jobs_and_results_are_of_the_documented_classes(ideal: SimenvBackend) -> None:
    sampler, estimator = SimenvSampler(ideal), SimenvEstimator(ideal)
    assert isinstance(sampler, primitives.BaseSamplerV2)
    assert isinstance(estimator, primitives.BaseEstimatorV2)
    jobs = [sampler.run([flipped()]), estimator.run([(QuantumCircuit(1), "Z")])]
    assert all(isinstance(job, primitives.BasePrimitiveJob) for job in jobs)
    assert len({job.job_id() for job in jobs}) == 2
    for job, kind in zip(jobs, (primitives.SamplerPubResult, primitives.PubResult), strict=True):
        result = job.result()
        assert isinstance(result, primitives.PrimitiveResult)
        assert isinstance(result[0], kind)
        assert job.result() is result
        assert job.status() is JobStatus.DONE


def test_methods_of_bit_arrays_agree_with_each_other(ideal: SimenvBackend) -> None:
    angles = ParameterVector("a", 9)
    circuit = QuantumCircuit(9)
    for qubit, angle in enumerate(angles):
        circuit.ry(angle, qubit)
    circuit.measure_all()
    values = np.random.default_rng(2).uniform(0, 3, (2, 3, 9))
    bits = SimenvSampler(ideal, seed=4).run([(circuit, values)], shots=300).result()[0].data.meas
    assert (bits.shape, bits.ndim, bits.size) == ((2, 3), 2, 6)
    assert (bits.array.shape, bits.array.dtype) == ((2, 3, 300, 2), np.uint8)
    flags = bits.to_bool_array(order="little")
    assert flags.shape == (2, 3, 300, 9)
    assert primitives.BitArray.from_bool_array(flags, order="little") == bits
    spread = np.sqrt(0.25 / 300)
    assert np.abs(flags.mean(axis=2) - np.sin(values / 2) ** 2).max() < 5 * spread
    assert sum(bits.get_counts().values()) == 6 * 300
    int_counts = bits.get_int_counts((1, 2))
    assert {int(key, 2): n for key, n in bits.get_counts((1, 2)).items()} == int_counts
    strings = bits.get_bitstrings((1, 2))
    assert [int(text[::-1][4]) for text in strings] == flags[1, 2, :, 4].astype(int).tolist()
    np.testing.assert_array_equal(bits.bitcount(), flags.sum(axis=-1))
    assert bits.slice_bits([8, 0]).get_counts((0, 0)).keys() <= {"00", "01", "10", "11"}
    np.testing.assert_array_equal(bits.slice_bits(8).to_bool_array()[..., 0], flags[..., 8])
    assert (bits.slice_shots(range(10)).num_shots, bits[1].shape) == (10, (3,))
    assert (bits.reshape(6).shape, bits.transpose().shape) == ((6,), (3, 2))
    assert primitives.BitArray.concatenate_shots([bits, bits]).num_shots == 600
    assert primitives.BitArray.concatenate_bits([bits, bits]).num_bits == 18
    assert bits[0, 0].postselect([0], [1]).num_shots == flags[0, 0, :, 0].sum()
    means = bits.expectation_values("I" * 8 + "Z")
    np.testing.assert_allclose(means, 1 - 2 * flags[..., 0].mean(axis=2))


def test_joint_registers_of_a_pickled_result_keep_their_shots(ideal: SimenvBackend) -> None:
    first, second = ClassicalRegister(3, "first"), ClassicalRegister(9, "second")
    circuit = QuantumCircuit(QuantumRegister(3), first, second, metadata={"run": 4})
    circuit.h(range(3))
    circuit.measure(range(3), first)
    circuit.measure(range(3), second[6:])  # what was measured is measured again
    result = SimenvSampler(ideal, seed=1).run([circuit, (circuit, None, 50)], shots=400).result()
    again = pickle.loads(pickle.dumps(result))  # noqa: S301
    assert len(again) == 2
    for pub, copied in zip(result, again, strict=True):
        assert list(copied.data) == ["first", "second"]
        assert (copied.data["first"], copied.metadata) == (pub.data.first, pub.metadata)
        assert copied.metadata["circuit_metadata"] == {"run": 4}
        low, high = (copied.data[name].to_bool_array(order="little") for name in pub.data)
        np.testing.assert_array_equal(low, high[:, 6:])
        assert len(set(pub.data.first.get_int_counts())) == 8
        joined = copied.join_data(["second", "first"])
        assert joined.num_bits == 12
        np.testing.assert_array_equal(joined.slice_bits(range(9, 12)).array, pub.data.first.array)
    assert again.metadata == result.metadata


def test_job_tells_its_states_and_a_cancelled_one_raises(ideal: SimenvBackend) -> None:
    job = SimenvSampler(ideal).run([flipped(), endless()])
    fails(JobTimeoutError, "", job.result, timeout=0.2)
    assert job.status() in (JobStatus.QUEUED, JobStatus.RUNNING)
    assert not job.done()
    assert not job.in_final_state()
    assert job.cancel()
    error = fails(JobError, "cancelled", job.result, timeout=WAIT_S)
    assert isinstance(error.__cause__, SimenvError)
    assert job.status() is JobStatus.CANCELLED
    assert job.cancelled()
    assert job.in_final_state()


def test_error_after_submission_is_a_job_error_with_its_reason(ideal: SimenvBackend) -> None:
    job = SimenvSampler(ideal, run_timeout_s=0.2).run([endless()])
    job.wait_for_final_state(timeout=WAIT_S)
    assert job.status() is JobStatus.ERROR
    assert not job.done()
    assert isinstance(fails(JobError, "expired", job.result).__cause__, SimenvError)


@pytest.mark.parametrize("make", [SimenvSampler, SimenvEstimator])
def test_job_is_pickled_with_its_result_as_that_of_qiskit(ideal: SimenvBackend, make: Any) -> None:
    job = make(ideal).run([flipped() if make is SimenvSampler else (turned(False), "Z", 0)])
    copied = pickle.loads(pickle.dumps(job))  # noqa: S301 - of this test
    field = "meas" if make is SimenvSampler else "evs"
    assert copied.result()[0].data[field] == job.result()[0].data[field]
    assert copied.job_id() == job.job_id()
    assert job.metadata["tasks"] == [job.tasks[0].id]
    assert copied.status() is JobStatus.DONE
    assert copied.usage() == job.usage()
    assert not copied.cancel()


@pytest.mark.parametrize("precision", [float("nan"), float("inf"), 1e-9, 1e-200])
def test_precision_beyond_limits_is_refused(ideal: SimenvBackend, precision: float) -> None:
    with pytest.raises(ValueError, match=f"precision={precision:g}"):
        SimenvEstimator(ideal).run([(turned(False), "Z", 0)], precision=precision)


def test_session_closes_once_and_an_error_inside_it_cancels_its_jobs(ideal: SimenvBackend) -> None:
    with SimenvSession(ideal) as session:
        sampler, estimator = SimenvSampler(session), SimenvEstimator(session)
        pair = sampler.run([flipped()]).result(), estimator.run([(turned(False), "Z", 0)]).result()
        session.close()
    assert [len(each) for each in pair] == [1, 1]
    fails(QiskitError, "reservation", estimator.run, [(turned(False), "Z", 0)])
    jobs: list[Any] = []
    fails(ZeroDivisionError, "", interrupted, ideal, jobs)
    fails(JobError, "cancelled", jobs[0].result, timeout=WAIT_S)


def interrupted(backend: SimenvBackend, jobs: list[Any]) -> None:
    with SimenvBatch(backend) as batch:
        jobs.append(SimenvSampler(batch).run([endless()]))
        raise ZeroDivisionError


def endless() -> QuantumCircuit:
    return QuantumCircuit.from_qasm_str(ENDLESS)
