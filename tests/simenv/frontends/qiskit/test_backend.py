"""SimenvBackend and its jobs against a real environment: Target, options, results, errors."""

import copy

import numpy as np
import pytest
from busy_circuits import ENDLESS
from failing import fails
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister, transpile
from qiskit.circuit import Clbit, Parameter
from qiskit.exceptions import QiskitError
from qiskit.primitives import BackendEstimatorV2, BackendSamplerV2
from qiskit.providers import BackendV2, JobStatus
from qiskit.providers.exceptions import JobError, JobTimeoutError, QiskitBackendNotFoundError
from qiskit.quantum_info import SparsePauliOp

from simenv.client.client import Client
from simenv.errors import NoServiceError, NotFoundError
from simenv.frontends.qiskit import SimenvBackend, SimenvEstimator, SimenvSampler


def ghz(width: int) -> QuantumCircuit:
    circuit = QuantumCircuit(width)
    circuit.h(0)
    for qubit in range(1, width):
        circuit.cx(0, qubit)
    circuit.measure_all()
    return circuit


def test_target_of_a_device_is_its_calibration(env: Client) -> None:
    backend = SimenvBackend("fez", env)
    info = env.device("fez")
    assert isinstance(backend, BackendV2)
    assert (backend.name, backend.num_qubits) == ("fez", 156)
    edges = set(backend.coupling_map.get_edges())
    assert edges <= set(info.coupling)  # less the pairs that are calibrated as broken
    assert len(edges) > 0.9 * len(info.coupling)
    assert {"cz", "rz", "sx", "x", "measure", "reset", "if_else"} <= set(backend.operation_names)
    item = next(each for each in info.operations if each.name == "cz")
    properties = backend.target["cz"][item.qubits]
    assert properties.error == pytest.approx(item.error)
    assert properties.duration == pytest.approx(item.duration_ns * 1e-9)
    assert SimenvBackend("fez", env).target is backend.target


@pytest.mark.parametrize("name", ["aachen", "brussels", "kingston", "strasbourg"])
def test_circuit_is_transpiled_where_qubits_lack_a_gate(env: Client, name: str) -> None:
    """Some qubits of these have a gate on two qubits, and none on one."""
    target = SimenvBackend(name, env).target
    whole = {place[0] for place in target["sx"]}
    pairs = {place for gate in ("cz", "ecr") if gate in target for place in target[gate]}
    assert {qubit for pair in pairs for qubit in pair} <= whole
    assert len(whole) < target.num_qubits
    width = len({qubit for pair in pairs for qubit in pair}) - 8
    circuit = QuantumCircuit(width)
    circuit.h(0)
    for qubit in range(1, width):
        circuit.cx(qubit - 1, qubit)
    circuit.measure_all()
    for level in (1, 2):
        found = transpile(circuit, target=target, optimization_level=level, seed_transpiler=7)
        assert found.num_qubits == target.num_qubits


@pytest.mark.parametrize("name", ["FakeFez", "fake_fez", "ibm_fez", "FEZ"])
def test_name_that_makes_a_backend_runs_circuits(env: Client, name: str) -> None:
    """The names that qiskit-ibm-runtime and IBM have for a device stand for it everywhere."""
    backend = SimenvBackend(name, env)
    assert backend.name == "fez"
    assert sum(backend.run(ghz(2), shots=20, seed=3).result().get_counts().values()) == 20
    assert env.run(ghz(2), device=name, shots=20, seed=3).device == "fez"


def test_qubits_of_a_device_have_calibrated_times(env: Client, ideal: SimenvBackend) -> None:
    backend, info = SimenvBackend("fez", env), env.device("fez")
    first, last = backend.qubit_properties([0, 155])
    assert first.t1 == pytest.approx(info.qubits[0].t1_us * 1e-6)
    assert last.t2 == pytest.approx(info.qubits[155].t2_us * 1e-6)
    assert first.frequency is None  # the snapshot has none
    assert backend.qubit_properties(155).t2 == last.t2
    assert backend.dt == pytest.approx(info.dt_ns * 1e-9)
    assert backend.instruction_durations.get("measure", 0, "s") == pytest.approx(1.56e-6)
    for qubit in (156, -1):
        fails(IndexError, f"qubit {qubit}: 'fez' has 0 to 155", backend.qubit_properties, qubit)
    with pytest.raises(RuntimeError):  # what BackendV2 raises
        ideal.qubit_properties(0)


def test_ideal_backend_has_any_width(ideal: SimenvBackend) -> None:
    assert ideal.target.num_qubits is None
    assert ideal.num_qubits == 65_535
    circuit = transpile(ghz(40), ideal, optimization_level=1)
    assert circuit.num_qubits == 40
    assert set(ideal.run(circuit, shots=100, seed=1).result().get_counts()) == {"0" * 40, "1" * 40}


def test_transpiled_circuit_runs_as_it_is_and_others_are_compiled(env: Client) -> None:
    backend = SimenvBackend("fez", env, shots=500)
    job = backend.run([transpile(ghz(3), backend, seed_transpiler=1), ghz(3)], seed=3)
    result = job.result()
    assert [task.result().compiled is None for task in job.tasks] == [True, False]
    for k in range(2):
        counts = result.get_counts(k)
        assert sum(counts.values()) == 500
        assert counts["000"] + counts["111"] > 400
        assert len(counts) > 2
        assert result.results[k].header["device"] == "fez"
    assert set(backend.run(ghz(3), noise="off").result().get_counts()) == {"000", "111"}
    scaled = backend.run(ghz(3), noise={"gate.depolarizing": 1e9}).result().results[0].header
    assert scaled["warnings"][0].startswith("gate.depolarizing * 1e+09 is above")
    assert result.results[0].header["warnings"] == []


def test_engine_options_reach_the_engine_and_unknown_ones_are_refused(env: Client) -> None:
    backend = SimenvBackend("fez", env, engine="stabilizer", engine_options={"twirl": 1})
    header = backend.run(ghz(3), shots=10).result().results[0].header
    assert (header["engine"], header["remark"]) == ("stabilizer", "noise twirled to Paulis")
    sampled = SimenvSampler(backend).run([ghz(3)], shots=10).result()
    assert sampled.metadata["simenv"][0]["remark"] == "noise twirled to Paulis"
    fails(QiskitError, "without its option twirl=1", backend.run, ghz(3), engine_options=None)
    fails(ValueError, "has no option 'twril'", backend.run, ghz(3), engine_options={"twril": 1})
    with pytest.raises(ValueError, match="engine_options: 'twirl' = 'yes'"):
        SimenvSampler(backend, engine_options={"twirl": "yes"}).run([ghz(3)])


def test_memory_and_registers_of_result(ideal: SimenvBackend) -> None:
    loose = Clbit()
    circuit = QuantumCircuit(QuantumRegister(3), [loose], ClassicalRegister(2, "a"))
    circuit.x([0, 2])
    circuit.measure(0, loose)
    circuit.measure([1, 2], [1, 2])
    circuit.metadata = {"k": 1}
    result = ideal.run(circuit, shots=4, memory=True).result()
    assert (result.data()["counts"], result.data()["memory"]) == ({"0x5": 4}, ["0x5"] * 4)
    header = result.results[0].header
    assert (header["creg_sizes"], header["metadata"]) == ([["a", 2]], {"k": 1})
    bell = ideal.run(ghz(2), shots=100, memory=True, seed=2).result()
    memory = bell.get_memory()
    assert {key: memory.count(key) for key in ("00", "11")} == bell.get_counts()
    assert "memory" not in ideal.run(ghz(2), shots=100).result().data()


def test_registers_that_share_bits_give_what_aer_gives(ideal: SimenvBackend) -> None:
    aer = pytest.importorskip("qiskit_aer")
    every, loose = ClassicalRegister(3, "every"), Clbit()
    odd = ClassicalRegister(name="odd", bits=[Clbit(), every[2]])
    circuit = QuantumCircuit(QuantumRegister(4, "q"), [loose], every, odd)
    x = Parameter("x")
    circuit.rx(x, 0)
    circuit.x(3)
    circuit.measure(range(3), every)
    circuit.measure(3, odd[0])
    with circuit.if_test((odd, 1)):
        circuit.x(1)
    circuit.measure(1, loose)
    binds = {x: [0.0, np.pi]}
    result = ideal.run(circuit, parameter_binds=binds, shots=4, memory=True).result()
    got = aer.AerSimulator().run(circuit, parameter_binds=[binds], shots=4, memory=True).result()
    for value, actual in zip(result.results, got.results, strict=True):
        assert value.data.to_dict() == actual.data.to_dict()
        assert {name: value.header[name] for name in ("creg_sizes", "memory_slots")} == {
            name: actual.header[name] for name in ("creg_sizes", "memory_slots")
        }
    assert result.get_counts() == got.get_counts()


def test_parameter_binds_give_an_entry_for_each_set(ideal: SimenvBackend) -> None:
    x, y = Parameter("x"), Parameter("y")
    circuit = QuantumCircuit(2)
    circuit.rx(y, 0)
    circuit.rx(x, 1)
    circuit.measure_all()
    binds = [{x: [0, np.pi, np.pi], "y": [np.pi, 0, np.pi]}, {}]
    job = ideal.run([circuit, ghz(1)], parameter_binds=binds, shots=10)
    counts = job.result().get_counts()
    assert counts[:3] == [{"01": 10}, {"10": 10}, {"11": 10}]
    assert len(counts) == len(job.tasks) == 4
    assert len(job.metadata["tasks"]) == 2


def test_options_have_defaults_and_unknown_ones_are_refused(env: Client) -> None:
    backend = SimenvBackend(env=env, shots=20, seed=9)
    first, second = (backend.run(ghz(2)).result() for _ in range(2))
    assert first.get_counts() == second.get_counts()
    named = [backend.run(ghz(2), **{key: 3}).result() for key in ("seed", "seed_simulator")]
    assert named[0].get_counts() == named[1].get_counts()
    assert SimenvBackend(env=env, seed_simulator=7).default_seed == 7
    assert sum(first.get_counts().values()) == 20
    backend.set_options(shots=30)
    assert sum(backend.run(ghz(2)).result().get_counts().values()) == 30
    assert sum(backend.run(ghz(2), shots=5).result().get_counts().values()) == 5
    fails(TypeError, "no option shot; did you mean `shots`", backend.run, ghz(2), shot=3)
    fails(AttributeError, "shot; did you mean `shots`", SimenvBackend, env=env, shot=3)
    fails(ValueError, "give one", backend.run, ghz(2), seed=4, seed_simulator=3)
    fails(ValueError, "shots", backend.run, ghz(2), shots=-3)
    fails(ValueError, r"shots=0: run\(\) takes 1 or more", backend.run, ghz(2), shots=0)
    assert sum(backend.run(ghz(2), shots=None).result().get_counts().values()) == 30


def test_unknown_device_is_refused_by_constructor_and_submission(env: Client) -> None:
    for name in ("FakeFz", "nowhere"):
        fails(NotFoundError, f"no device {name!r}", SimenvBackend, name, env)
        fails(NotFoundError, f"no device {name!r}", env.submit, ghz(2), device=name)


def test_faults_are_raised_before_submission(env: Client, ideal: SimenvBackend) -> None:
    before = env.queue(done=True)[0]
    free = QuantumCircuit(1)
    free.rx(Parameter("x"), 0)
    free.measure_all()
    fails(TypeError, "QuantumCircuits", ideal.run, ["OPENQASM 3;"])
    fails(TypeError, "got a int, and takes QuantumCircuits", ideal.run, 3)
    fails(ValueError, "parameter_binds", ideal.run, free)
    fails(ValueError, "its parameters are x", ideal.run, free, parameter_binds={"z": [1.0]})
    fails(ValueError, "one for each", ideal.run, [free, free], parameter_binds=[{"x": [1.0]}])
    error = fails(
        QiskitError, r"circuit 1: .*measures nothing", ideal.run, [ghz(2), QuantumCircuit(1, 1)]
    )
    assert "\\n" not in str(error)
    assert env.queue(done=True)[0] == before
    fails(NotFoundError, "nowhere", SimenvBackend, "nowhere", env)


def test_running_job_is_waited_for_and_cancelled(env: Client, ideal: SimenvBackend) -> None:
    job = ideal.run([QuantumCircuit.from_qasm_str(ENDLESS)])
    assert job.status() in (JobStatus.QUEUED, JobStatus.RUNNING)
    fails(JobTimeoutError, "", job.wait_for_final_state, timeout=0.05)
    fails(JobTimeoutError, "", job.result, timeout=0.05)
    assert job.cancel()
    job.wait_for_final_state(timeout=60)
    assert job.status() is JobStatus.CANCELLED
    assert job.cancelled()
    assert not job.cancel()
    fails(JobError, "cancel", job.result)
    assert "cancel" in (job.error_message() or "")


def test_backend_takes_the_name_of_an_environment() -> None:
    fails(NoServiceError, "no environment 'nowhere' is up", SimenvBackend, None, "nowhere")


def test_circuit_that_waits_too_long_makes_the_job_an_error(env: Client) -> None:
    [pool] = [each for each in env.pools().values() if each.name == "main"]
    backend = SimenvBackend(env=env, pool=pool.name)
    with env.reserve(pool.name, workers=pool.most):
        fails(JobError, "queue_timeout_s", backend.run(ghz(2), queue_timeout_s=0.5).result)


def test_backend_connects_by_itself(env: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMENV_SERVICE", env.service)
    backend = SimenvBackend("fez", shots=10, noise="off")
    assert set(backend.run(ghz(2)).result().get_counts()) <= {"00", "11"}
    backend.close()
    assert repr(backend.client).endswith("closed>")
    job = SimenvSampler(seed=1).run([ghz(2)], shots=10)
    assert job.result()[0].data.meas.num_shots == 10
    assert repr(job) == f"<SimenvPrimitiveJob {job.tasks[0].id}>"
    measured = SimenvEstimator().run([(ghz(2).remove_final_measurements(inplace=False), "ZZ")])
    assert measured.result()[0].data.evs == pytest.approx(1.0)


def test_finished_job_tells_its_times(ideal: SimenvBackend) -> None:
    job = ideal.run(ghz(3), shots=10)
    result = job.result(timeout=60)
    assert job.done()
    assert result.job_id == job.job_id()
    assert result.backend_name == ideal.name == job.backend().name
    usage = job.usage()
    assert 0 < usage["run_s"] <= usage["total_s"]
    assert job.error_message() is None
    assert job.metadata["shots"] == 10


def test_type_and_capability_choose_engine(env: Client) -> None:
    job = SimenvBackend(env=env, type="simulator", capability="statevector").run(ghz(3))
    assert job.result().results[0].header["engine"] == "statevector"
    chain = SimenvBackend(env=env, type="simulator", capability="tensornetwork")
    assert chain.run(ghz(3)).result().results[0].header["engine"] == "mps"
    fails(ValueError, "statevector, densitymatrix", SimenvBackend, env=env, capability="abacus")
    fails(ValueError, "simulator, emulator, hardware", SimenvBackend, env=env, type="abacus")
    fails(QiskitBackendNotFoundError, "of hardware kind", SimenvBackend, env=env, type="hardware")
    assert SimenvBackend("main", env).run(ghz(2), shots=3).result().results[0].shots == 3


def test_primitives_of_qiskit_run_on_the_backend(ideal: SimenvBackend) -> None:
    (value,) = BackendSamplerV2(backend=ideal).run([ghz(3)], shots=40).result()
    assert set(value.data.meas.get_counts()) <= {"000", "111"}
    bare = ghz(2).remove_final_measurements(inplace=False)
    (estimated,) = BackendEstimatorV2(backend=ideal).run([(bare, "ZZ")]).result()
    assert estimated.data.evs == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # in favour of others, not yet by name
@pytest.mark.parametrize("device", [None, "fez"])
def test_primitives_of_qiskit_ibm_runtime_run_here(env: Client, device: str | None) -> None:
    """In its local mode, which pennylane-qiskit uses too; it copies the backend."""
    runtime = pytest.importorskip("qiskit_ibm_runtime")
    backend = SimenvBackend(device, env)
    measured = transpile(ghz(3), backend, seed_transpiler=1)
    (value,) = runtime.SamplerV2(mode=backend).run([measured], shots=400).result()
    counts = value.data.meas.get_counts()
    assert counts["000"] + counts["111"] > 300
    bare = transpile(ghz(2).remove_final_measurements(inplace=False), backend, seed_transpiler=1)
    observable = SparsePauliOp("ZZ").apply_layout(bare.layout)
    (value,) = runtime.EstimatorV2(mode=backend).run([(bare, observable)], precision=0.1).result()
    assert value.data.evs > 0.8


def test_copy_of_a_backend_has_its_own_options_and_the_same_environment(env: Client) -> None:
    backend = SimenvBackend(env=env, shots=30)
    result = copy.deepcopy(backend)
    result.set_options(shots=40)
    assert (backend.options.shots, result.options.shots) == (30, 40)
    result.close()
    assert sum(backend.run(ghz(2)).result().get_counts().values()) == 30
