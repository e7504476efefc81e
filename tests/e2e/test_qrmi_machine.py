"""Two environments in a row: the second's hardware is the first, through QRMI."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from failing import fails
from live import Live, environment
from qiskit import QuantumCircuit
from waiting import until

import simenv
from simenv import errors
from simenv.cli.admin.gateway import variables
from simenv.client.client import Client
from simenv.client.environments import await_gateway
from simenv.config import GatewayFile
from simenv.model import TaskState
from simenv.wire.messages.credentials import TokenCreated

POOLS = [{"name": "emu", "min": 1, "max": 1, "device": "fez"}]
PASSED = "emu_QRMI_*,QRMI_*"
QPU = {"name": "qpu", "engine": "hardware", "provider": "qrmi:emu", "environ": PASSED}
PATIENCE_S = 60.0


def bell() -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure_all()
    return circuit


@pytest.fixture(scope="module")
def provider() -> Iterator[Live]:
    with environment(pools=POOLS, gateway={"listen": "127.0.0.1:0"}) as live:
        yield live


@pytest.fixture(scope="module")
def far(provider: Live) -> Iterator[Client]:
    """The provider's operator."""
    with provider.client() as client:
        yield client


def gateway_of(live: Live) -> GatewayFile:
    found = await_gateway(live.home)
    assert found is not None, (live.home / "logs" / "gateway.log").read_text()
    return found


@pytest.fixture(scope="module")
def made(far: Client) -> TokenCreated:
    return far.tokens.add(purpose="qrmi")


@pytest.fixture(scope="module")
def secret(made: TokenCreated) -> str:
    return made.secret


@pytest.fixture(scope="module")
def env(provider: Live, far: Client, made: TokenCreated) -> Iterator[Client]:
    """The environment with the resource; its starter alone has the variables."""
    with pytest.MonkeyPatch.context() as patch:
        url = gateway_of(provider).url
        assert url.startswith("https:")
        values = variables(url, far.name, made.secret, ["emu"], made.authority)
        for name, value in values.items():
            patch.setenv(name, value)
        with simenv.local(pools=[{"name": "main"}, QPU]) as client:
            yield client


def test_counts_come_from_the_device_behind_the_resource(env: Client, far: Client) -> None:
    result = env.run(bell(), pool="qpu", shots=400)
    assert sum(result.counts.values()) == 400
    assert result.counts["00"] + result.counts["11"] > 340
    assert set(result.counts) - {"00", "11"}  # the errors of the emulated device
    assert result.remark.startswith("emu: transpiled")
    device, original = env.devices()["qpu"], far.device("fez")
    assert device.provider == "qrmi ibm-quantum-compute-service"
    assert device.num_qubits == original.num_qubits == 156
    assert device.qubits[3].t1_us == pytest.approx(original.qubits[3].t1_us)
    assert [lease.running for lease in far.reservations()].count(True) <= 1


def test_order_of_registers_and_placement_survive_the_way(env: Client) -> None:
    text = """OPENQASM 3.0; include "stdgates.inc"; qubit[4] q; bit[1] a; bit[2] b;
    x q[3]; a[0] = measure q[0]; b[0] = measure q[1]; b[1] = measure q[3];"""
    result = env.run(text, pool="qpu", shots=200, outputs=("counts", "memory"))
    assert max(result.counts, key=lambda outcome: result.counts[outcome]) == "10 0"
    assert len(result.memory_strings()) == 200


@contextmanager
def paused(far: Client) -> Iterator[None]:
    """Let the provider accept tasks of its device and start none."""
    far.qpm.pause_execution_target(device_id="emu", reason="a drill")
    try:
        yield
    finally:
        far.qpm.resume_execution_target(device_id="emu")


def await_start(far: Client, task: simenv.Task) -> None:
    """Wait until the provider has the task."""
    until(lambda: far.queue()[1] or task.done(), PATIENCE_S, message=lambda: list(far.events()))
    assert not task.done(), task.exception()


def test_time_limit_stops_the_task_at_the_provider(env: Client, far: Client) -> None:
    with paused(far):
        task = env.submit(bell(), pool="qpu", shots=10, run_timeout_s=15.0)
        await_start(far, task)
        until(lambda: task.state is TaskState.EXPIRED, PATIENCE_S)
        until(lambda: not far.queue()[1], PATIENCE_S)
    assert sum(env.run(bell(), pool="qpu", shots=20).counts.values()) == 20


def test_cancelled_task_is_stopped_at_the_provider(env: Client, far: Client) -> None:
    with paused(far):
        task = env.submit(bell(), pool="qpu", shots=10)
        await_start(far, task)
        task.cancel()
        until(lambda: not far.queue()[1], PATIENCE_S)
        until(lambda: task.state is TaskState.CANCELLED, PATIENCE_S)


def test_task_runs_again_after_the_death_of_its_worker(env: Client, far: Client) -> None:
    with paused(far):
        task = env.submit(bell(), pool="qpu", shots=30)
        await_start(far, task)
        psutil.Process(worker_pid(env)).kill()
    assert sum(task.result().counts.values()) == 30


def test_task_survives_the_death_of_the_gateway(env: Client, far: Client, provider: Live) -> None:
    first = gateway_of(provider)
    with paused(far):
        task = env.submit(bell(), pool="qpu", shots=10)
        await_start(far, task)
        psutil.Process(first.pid).kill()
        until(lambda: gateway_of(provider).pid != first.pid, PATIENCE_S)
    assert sum(task.result().counts.values()) == 10


def worker_pid(env: Client) -> int:
    return next(worker.pid for worker in env.workers() if worker.pool == "qpu")


def test_credentials_are_in_the_worker_alone_and_in_no_file(env: Client, secret: str) -> None:
    assert psutil.Process(worker_pid(env)).environ()["emu_QRMI_IBM_QCS_IAM_APIKEY"] == secret
    others = [psutil.Process(each.pid) for each in env.workers() if each.pool == "main"]
    assert others
    assert not any("QRMI" in name for process in others for name in process.environ())
    files = [path for path in Path(env.service).parent.rglob("*") if path.is_file()]
    assert any(path.name == "config.json" for path in files)
    assert not [path for path in files if secret.encode() in path.read_bytes()]


def test_missing_variables_degrade_pool_with_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if "QRMI_" in each]:
        monkeypatch.delenv(name)
    with simenv.local(pools=[{"name": "main"}, QPU]) as client:
        until(lambda: state(client) in ("degraded", "quarantined"), PATIENCE_S)
        pool = next(each for each in client.status().pools if each.name == "qpu")
        assert "provider qrmi:emu: RuntimeError: " in pool.reason
        assert "QRMI_JOB_QPU_RESOURCES" in pool.reason
        assert client.run(bell(), shots=10).counts


def state(client: Client) -> str:
    return next(each.state for each in client.status().pools if each.name == "qpu")


def test_lost_provider_fails_task_by_typed_error(env: Client, far: Client, provider: Live) -> None:
    far.qpm.pause_execution_target(device_id="emu", reason="a drill")
    task = env.submit(bell(), pool="qpu", shots=10)
    await_start(far, task)
    gateway = psutil.Process(gateway_of(provider).pid)
    provider.kill_service()  # first: it would start the gateway again
    gateway.kill()
    error = fails(errors.TaskFailedError, "machine 'emu'", task.result, PATIENCE_S)
    assert error.reason == "machine_failed"
