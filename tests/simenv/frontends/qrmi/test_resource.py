"""A pool as QRMI's QuantumResource, against a real environment and the package's own types."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import live
import pytest
from failing import fails
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

import simenv
from simenv.errors import ConfigError, NotFoundError, OptionError, SimenvError
from simenv.frontends.qrmi import NAMES, Payload, QuantumResource, TaskStatus, resources, statuses

BELL = (
    'OPENQASM 3.0; include "stdgates.inc"; bit[2] a; bit[1] b; qubit[3] q;'
    " x q[0]; a[0] = measure q[0]; a[1] = measure q[1]; b[0] = measure q[2];"
)


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    with live.environment() as up:
        yield {
            "QRMI_JOB_QPU_RESOURCES": "main,ibm_x,gone",
            "QRMI_JOB_QPU_TYPES": "simenv,ibm-quantum-system,simenv",
            "main_QRMI_SIMENV_SERVICE": str(up.home / "connection.json"),
            "gone_QRMI_SIMENV_SERVICE": str(up.home / "connection.json"),
        }


@pytest.fixture
def resource(environ: dict[str, str]) -> Iterator[QuantumResource]:
    (value,) = resources(environ)
    yield value
    value.close()


def payload(*pubs: object, **more: object) -> Payload:
    return Payload(json.dumps({"pubs": pubs, "version": 2, **more}), "sampler")


def test_only_accessible_simenv_resources_are_listed(environ: dict[str, str]) -> None:
    result = resources(environ)
    assert [each.resource_id() for each in result] == ["main"]
    result[0].close()
    assert not QuantumResource("gone", environ=environ).is_accessible()
    nowhere = {"main_QRMI_SIMENV_SERVICE": "/none/connection.json"}
    assert not QuantumResource("main", environ=nowhere).is_accessible()


@pytest.mark.parametrize(
    "wrong",
    [
        {"QRMI_JOB_QPU_TYPES": "simenv"},
        {"main_QRMI_JOB_ACQUISITION_TOKEN": "abc"},
        {"main_QRMI_JOB_TIMEOUT_SECONDS": "-1"},
    ],
    ids=["types", "token", "timeout"],
)
def test_invalid_variable_is_refused(environ: dict[str, str], wrong: dict[str, str]) -> None:
    fails(ConfigError, "", resources, {**environ, **wrong})


def test_first_calls_of_several_threads_share_one_connection(
    resource: QuantumResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource.close()
    made, connect = [], simenv.connect

    def slowly(service: str | None = None) -> simenv.Client:
        made.append(service)
        time.sleep(0.1)  # a window for another thread
        return connect(service=service)

    monkeypatch.setattr(simenv, "connect", slowly)
    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(lambda _: resource.is_accessible(), range(4)))
    assert len(made) == 1


def test_every_state_of_a_task_has_a_status_without_the_package() -> None:
    assert {TaskStatus[name] for name in NAMES.values()} == set(TaskStatus)


def test_task_is_started_completed_logged_and_stopped(resource: QuantumResource) -> None:
    task = resource.task_start(payload([BELL, None, 40], [BELL, None, None], shots=10))
    results = json.loads(resource.task_result(task).value)["results"]
    assert resource.task_status(task) == statuses().Completed
    assert [pub["data"]["a"] for pub in results] == [
        {"samples": ["0x1"] * shots, "num_bits": 2} for shots in (40, 10)
    ]
    assert results[0]["data"]["b"] == {"samples": ["0x0"] * 40, "num_bits": 1}
    assert resource.task_logs(task).count(" DONE on ") == 2
    resource.task_stop(task)
    assert resource.task_status(task) == statuses().Completed


def test_tasks_run_under_acquired_reservation_until_release(resource: QuantumResource) -> None:
    token = resource.acquire()
    task = resource.task_start(payload([BELL, None, 10]))
    resource.task_result(task)
    env = resource._connected()
    assert env.tasks([task])[0].reservation == int(token)
    resource.release(token)
    assert env.reservation(int(token)).info().state == "released"
    assert env.tasks([resource.task_start(payload([BELL, None, 10]))])[0].reservation == 0
    fails(NotFoundError, "", resource.release, "none")


def test_reservation_is_renewed(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simenv.frontends.qrmi.LEASE_S", 4.0)
    quantum_resource = QuantumResource("main", environ=environ)
    token = quantum_resource.acquire()
    user = QuantumResource("main", environ={**environ, "main_QRMI_JOB_ACQUISITION_TOKEN": token})
    for holder in (quantum_resource, user):
        env = holder._connected()
        if holder is user:
            quantum_resource.close()  # from now on who runs under it renews it
        first = env.reservation(int(token)).info().expires_ns
        deadline = time.monotonic() + 60
        while env.reservation(int(token)).info().expires_ns < first + 10**9:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert holder.task_result(holder.task_start(payload([BELL, None, 10])))
    user.release(token)
    assert user._connected().reservation(int(token)).info().state == "released"
    user.close()


PAIR = (
    'OPENQASM 3.0; include "stdgates.inc"; bit[1] a; bit[2] b; qubit[3] q;'
    " h q[0]; cx q[0], q[1]; h q[2]; a[0] = measure q[0]; b[0] = measure q[1]; b[1] = measure q[2];"
)


def shots_of(resource: QuantumResource, *pubs: object) -> tuple[str, list[str]]:
    """Submit pubs; return the task's name, and the outcomes of the first one's shots."""
    task = resource.task_start(payload(*pubs))
    data = json.loads(resource.task_result(task).value)["results"][0]["data"]
    first, second = (data[name]["samples"] for name in "ab")
    pairs = zip(first, second, strict=True)
    return task, [f"{int(b, 16):02b} {int(a, 16):b}" for a, b in pairs]


def test_samples_are_in_order_of_shots(resource: QuantumResource, environ: dict[str, str]) -> None:
    task, outcomes = shots_of(resource, [PAIR, None, 300])
    with simenv.connect(service=environ["main_QRMI_SIMENV_SERVICE"]) as client:
        assert outcomes == client.task(task).result().memory_strings()
    assert outcomes != sorted(outcomes)
    assert all(outcome[1] == outcome[3] for outcome in outcomes)


def test_many_samples_sorted(resource: QuantumResource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simenv.frontends.qrmi.MAX_MEMORY_BYTES", 299)
    _, outcomes = shots_of(resource, [PAIR, None, 300])
    assert (outcomes, len(set(outcomes))) == (sorted(outcomes), 4)
    _, outcomes = shots_of(resource, [PAIR, None, 299])
    assert outcomes != sorted(outcomes)


TURNED = (
    'OPENQASM 3.0; include "stdgates.inc"; input float b; input float a; bit[2] c; qubit[2] q;'
    " rx(a) q[0]; rx(b) q[1]; c = measure q;"
)


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_parameter_values_are_bound_by_name(resource: QuantumResource, names: str) -> None:
    values = {"a": 3.141592653589793, "b": 0.0}
    swept = {"a": [3.141592653589793, 0.0, 0.0], "b": [0.0, 3.141592653589793, 0.0]}
    pubs = [[TURNED, {name: each[name] for name in names}, 5] for each in (values, swept)]
    results = json.loads(resource.task_result(resource.task_start(payload(*pubs))).value)["results"]
    assert [pub["data"]["c"]["samples"] for pub in results] == [
        ["0x1"] * 5,
        ["0x1"] * 5 + ["0x2"] * 5 + ["0x0"] * 5,
    ]


def test_second_acquire_is_refused_until_release(resource: QuantumResource) -> None:
    token = resource.acquire()
    fails(OptionError, token, resource.acquire)
    fails(NotFoundError, "", resource.release, "9" * 5_000)
    resource.release(token)
    resource.release(resource.acquire())


def test_target_and_metadata_describe_pool(resource: QuantumResource) -> None:
    target, result = json.loads(resource.target().value), resource.metadata()
    assert target["name"] == result["backend_name"] == "main"
    assert target["all_to_all"]
    assert (result["num_qubits"], result["kind"]) == (str(target["num_qubits"]), "ideal")


@pytest.mark.parametrize(
    "wrong",
    [
        Payload('{"pubs": [["OPENQASM 3.0;"]]}', "estimator"),
        Payload("{", "sampler"),
        Payload('{"pubs": []}', "sampler"),
        Payload("[]", "sampler"),
        Payload('{"pubs": [[7]]}', "sampler"),
        Payload('{"pubs": [["/etc/passwd"]]}', "sampler"),
        object(),
    ],
    ids=["estimator", "json", "empty", "list", "number", "path", "other"],
)
def test_invalid_payload_is_refused(resource: QuantumResource, wrong: object) -> None:
    fails(SimenvError, "", resource.task_start, wrong)


def test_unknown_tasks_and_types_are_refused(resource: QuantumResource) -> None:
    for call in (resource.task_status, resource.task_stop, resource.task_result):
        fails(NotFoundError, "", call, "t-zzzz")
    fails(OptionError, "", QuantumResource, "main", "ibm-quantum-system")


def test_qrmi_sampler_primitive_runs_on_resource(resource: QuantumResource) -> None:
    """The package's primitives over our resource, their result decoded by Qiskit's own client."""
    pytest.importorskip("qrmi", reason="pip install qrmi")
    from qrmi.primitives import QRMIBaseSamplerV2

    angle = Parameter("angle")
    turned = QuantumCircuit(2)
    turned.rx(angle, 0)
    turned.measure_all()
    flipped = QuantumCircuit(1, 1)
    flipped.x(0)
    flipped.measure(0, 0)
    pubs = [(turned, [[0.0], [3.141592653589793]]), (flipped,)]
    job = QRMIBaseSamplerV2(resource).run(pubs, shots=50)  # type: ignore[no-untyped-call]
    result = job.result()
    assert job.done()
    swept = result[0].data.meas
    assert swept.shape == (2,)
    assert [swept.get_counts(place) for place in range(2)] == [{"00": 50}, {"01": 50}]
    assert (result[1].data.c.get_counts(), result[1].data.c.num_shots) == ({"1": 50}, 50)
    del job  # as it goes it stops its task, which needs the connection
