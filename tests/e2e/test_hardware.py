"""Machines beside simulators: held by one worker each, asked for by name, believed in nothing."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from failing import fails
from machines import QUBITS
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.exceptions import QiskitError
from qiskit.qasm2 import dumps
from qiskit.quantum_info import SparsePauliOp
from waiting import until

import simenv
from simenv import errors
from simenv.client.client import Client
from simenv.frontends.qiskit import SimenvBackend, SimenvEstimator, SimenvSampler
from simenv.model import TaskState
from simenv.qpm.contract import ExecutionError

SUPPORT = str(Path(__file__).parents[1] / "support")
POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "qpu", "engine": "hardware", "provider": "machines:ideal"},
    {"name": "bad", "engine": "hardware", "provider": "machines:faulty"},
    {"name": "gone", "engine": "hardware", "provider": "machines:absent"},
]


def bell(qubits: int = 2) -> QuantumCircuit:
    circuit = QuantumCircuit(qubits, 2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure([0, 1], [0, 1])
    return circuit


def asking_for(fault: str) -> QuantumCircuit:
    """The machine of pool `bad` does wrong what a circuit's width says."""
    width = QUBITS[fault]
    circuit = QuantumCircuit(width, width)
    circuit.h(0)
    circuit.measure(0, 0)
    return circuit


@pytest.fixture(scope="module")
def env() -> Iterator[Client]:
    with simenv.local(pools=POOLS, import_from=(SUPPORT,)) as client:
        yield client


def test_hardware_pool_returns_counts_route_and_remark(env: Client) -> None:
    result = env.run(bell(), pool="qpu", shots=1000)
    assert set(result.counts) == {"00", "11"}
    assert (sum(result.counts.values()), result.engine) == (1000, "hardware")
    assert result.engine_reason == "asked for pool qpu (generic_backend_5q)"
    assert result.remark.startswith("generic_backend_5q: transpiled (level 1")


def test_sampler_of_qiskit_runs_on_hardware_and_memory_is_that_of_counts(env: Client) -> None:
    result = env.run(bell(), pool="qpu", shots=300, outputs=("counts", "memory"))
    assert Counter(result.memory_strings()) == result.counts
    (pub,) = SimenvSampler(SimenvBackend("qpu", env)).run([bell()], shots=200).result()
    counts = pub.data.c.get_counts()
    assert set(counts) == {"00", "11"}
    assert sum(counts.values()) == 200


def test_estimator_measures_the_bases_of_observables_on_hardware(env: Client) -> None:
    angle = Parameter("a")
    circuit = QuantumCircuit(2)
    circuit.ry(angle, 0)
    circuit.cx(0, 1)
    values = np.array([[0.3], [1.2], [2.5]])
    sum_ = SparsePauliOp(["ZZ", "XX", "IZ", "YY", "II"], [0.5, 1.0, -0.7, 0.2, 0.1])
    observables = [["ZI"], [sum_]]
    exact = SimenvEstimator(SimenvBackend(env=env)).run([(circuit, observables, values)]).result()
    estimator = SimenvEstimator(SimenvBackend("qpu", env), seed=3, priority=1)
    before = len(env.queue(done=True)[1])
    (pub,) = estimator.run([(circuit, observables, values)], precision=0.02).result()
    assert (pub.data.shape, pub.metadata["shots"]) == ((2, 3), 2_500)
    assert (np.abs(pub.data.evs - exact[0].data.evs) <= 5 * pub.data.stds + 1e-12).all()
    assert len(env.queue(done=True)[1]) - before == 9  # three sets, in the bases Z, X and Y
    (pub,) = estimator.run([(circuit, "ZZ", [0.4])]).result()
    assert pub.metadata["shots"] == 4_096
    assert pub.data.evs == pytest.approx(1.0)
    with pytest.raises(QiskitError, match="PUB 0 has the precision 0"):
        estimator.run([(circuit, "ZZ", [0.4])], precision=0.0)
    with pytest.raises(QiskitError, match="has 5"):
        estimator.run([(QuantumCircuit(6), "ZIIIII")]).result()


def test_circuit_wider_than_hardware_is_refused(env: Client) -> None:
    with pytest.raises(errors.InfeasibleError, match=r"6 qubits; pool qpu \(generic_.*\) has 5"):
        env.submit(bell(6), pool="qpu")


def test_preference_uses_first_feasible_pool_and_route_explains_skipped_ones(env: Client) -> None:
    result = env.run(bell(), prefer=["gone", "qpu"])
    assert result.engine == "hardware"
    assert result.engine_reason == (
        f"gone: pool gone is {state_of(env, 'gone')}; preferred qpu: pool qpu (generic_backend_5q)"
    )
    assert env.explain(bell(), prefer="hardware").engines[0].pool == "qpu"
    assert (
        env.explain(bell(6), prefer=["qpu", "simulator"])
        .engines[0]
        .why.startswith(
            "qpu: pool qpu: this program has 6 qubits; pool qpu (generic_backend_5q) has 5; "
            "preferred simulator: pool main"
        )
    )


def state_of(env: Client, pool: str) -> str:
    return next(each.state for each in env.status().pools if each.name == pool)


def test_unavailable_provider_degrades_only_its_pool_and_reason_is_reported(env: Client) -> None:
    pools = {each.name: each for each in env.status().pools}
    assert pools["gone"].state in ("degraded", "quarantined")
    text = "provider machines:absent: ConnectionError: the machine room is locked"
    assert text in pools["gone"].reason
    assert any(text in warning for warning in env.status().warnings)
    assert {pools[name].state for name in ("main", "qpu")} == {"up"}
    assert (pools["qpu"].max_qubits, pools["gone"].max_qubits) == (5, 0)


def test_scaling_hardware_pool_above_one_worker_is_refused(env: Client) -> None:
    fails((errors.OptionError, errors.LimitExceededError), "it has one worker", env.scale, "qpu", 2)


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        ("refuse", "machine_refused", "did not take the job: RuntimeError: closed"),
        ("error", "machine_failed", "ended job job-17 with ERROR: the fridge is warm"),
        ("lose shots", "bad_answer", "99 shots, and 100 were asked for"),
        ("no result", "bad_answer", "a dict instead of a Result"),
    ],
)
def test_provider_fault_fails_with_reason(env: Client, fault: str, reason: str, words: str) -> None:
    caught = fails(errors.TaskFailedError, words, env.run, asking_for(fault), pool="bad", shots=100)
    assert caught.reason == reason
    assert caught.hint


def test_running_hardware_job_can_be_cancelled_and_expires_after_run_timeout(env: Client) -> None:
    task = env.submit(asking_for("slow"), pool="bad")
    waiting = env.submit(bell(), pool="bad")
    until(lambda: task.state is TaskState.RUNNING)
    task.cancel()
    fails(errors.SimenvError, "cancelled", task.result, 120)
    late = env.submit(asking_for("slow"), pool="bad", run_timeout_s=0.2)
    fails(errors.SimenvError, "run_timeout_s", late.result, 120)
    assert late.state is TaskState.EXPIRED
    assert set(waiting.result(120).counts) <= {"00", "11"}


LAB = """
from pathlib import Path
from machines import Faulty

def one():
    made = Faulty()
    made.when_seen = Path(__file__).with_name("begun").touch
    made.when_cancelled = Path(__file__).with_name("cancelled").touch
    return made
"""


@pytest.mark.parametrize("how", ["down", "terminated", "alone"])
def test_hardware_job_is_cancelled_when_worker_or_service_ends(tmp_path: Path, how: str) -> None:
    (tmp_path / "lab.py").write_text(LAB)
    pool = {"name": "bad", "engine": "hardware", "provider": "lab:one"}
    with simenv.local(pools=[pool], import_from=(str(tmp_path), SUPPORT)) as env:
        task = env.submit(asking_for("slow"), pool="bad")
        until((tmp_path / "begun").exists)
        assert task.state is TaskState.RUNNING
        worker = psutil.Process(pid_of(env, "bad"))
        if how == "down":
            env.shutdown(now=True)
        else:
            os.kill(worker.pid if how == "terminated" else env.status().pid, END[how])
        until((tmp_path / "cancelled").exists)
        worker.wait(60)


END = {"terminated": signal.SIGTERM, "alone": signal.SIGKILL}


def pid_of(env: Client, pool: str) -> int:
    return next(worker.pid for worker in env.workers() if worker.pool == pool)


def test_worker_of_hanging_provider_is_replaced_and_queue_continues(env: Client) -> None:
    before = pid_of(env, "bad")
    for patience_s in (0.5, 2.0, 8.0):  # until it is with the machine when its time is over
        task = env.submit(asking_for("hang"), pool="bad", run_timeout_s=patience_s)
        after = env.submit(bell(), pool="bad")
        fails(errors.SimenvError, "run_timeout_s", task.result, 120)
        assert task.state is TaskState.EXPIRED
        assert sum(after.result(120).counts.values()) == 1024
        if pid_of(env, "bad") != before:
            break
    assert pid_of(env, "bad") != before
    assert env.run(bell()).engine == "statevector"


def test_task_that_kills_hardware_worker_fails_as_poison(env: Client) -> None:
    with pytest.raises(errors.TaskFailedError, match=r"died|poison|ended") as caught:
        env.submit(asking_for("die"), pool="bad").result(240)
    assert caught.value.reason == "poison"
    assert psutil.pid_exists(pid_of(env, "qpu"))


def test_qpm_requests_honour_prefer_and_refuse_invalid_values(env: Client) -> None:
    text = dumps(bell())
    for each in ("hardware,simulator", ["gone", "qpu"]):
        ended = env.qpm.sync_run({"qasm": text, "num_shots": 50, "prefer": each})
        assert sum(ended["result"]["result"]["counts"].values()) == 50
        provider_metadata = env.qpm.get_task_metadata(task_id=ended["qtask_id"])[
            "provider_metadata"
        ]
        assert provider_metadata["engine"] == "hardware"
        assert provider_metadata["route"].endswith("pool qpu (generic_backend_5q)")
    for wrong in (7, ["a b"], "x" * 5000, ["q"] * 17):
        with pytest.raises(ExecutionError, match="prefer="):
            env.qpm.sync_run({"qasm": text, "num_shots": 50, "prefer": wrong})


def test_hardware_sweep_gives_each_task_its_own_counts(env: Client) -> None:
    from qiskit.circuit import Parameter

    angle = Parameter("angle")
    circuit = QuantumCircuit(1, 1)
    circuit.rx(angle, 0)
    circuit.measure(0, 0)
    tasks = env.submit_many((circuit, [[0.0], [3.141592653589793], [0.0]]), pool="qpu", shots=20)
    assert [task.result(120).counts for task in tasks] == [{"0": 20}, {"1": 20}, {"0": 20}]


def test_provider_module_in_working_directory_is_imported(tmp_path: Path) -> None:
    (tmp_path / "lab.py").write_text("from machines import noisy as one\n")
    (tmp_path / "simulators.py").write_text("raise SystemExit('a file of the user is in the way')")
    environ = {**os.environ, "PYTHONPATH": SUPPORT, "SIMENV_HOME": str(tmp_path / "home")}

    def said(*words: str) -> str:
        command = [sys.executable, "-P", "-c", "from simenv.cli.entry import main; main()", *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stderr
        return done.stdout

    (tmp_path / "bell.qasm").write_text(
        'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2];\n'
        "h q[0]; cx q[0],q[1]; measure q -> c;"
    )
    said("up", "--pool", "main:workers=0", "--pool", "qpu:engine=hardware,provider=lab:one")
    try:
        assert "11" in said("submit", "bell.qasm", "--prefer", "hardware,simulator", "--wait")
        assert "preferred hardware: pool qpu" in said(
            "explain", "bell.qasm", "--prefer", "hardware"
        )
    finally:
        said("down", "--now")
