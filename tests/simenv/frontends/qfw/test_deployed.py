"""What a deployment says in variables is what the plugin does."""

import json
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from busy_circuits import busy
from failing import fails
from waiting import until

import simenv
from simenv.client.client import Client
from simenv.frontends.qfw import PLUGIN, SERVICES, STARTUP
from simenv.qpm_check.fake_defw import fakes
from simenv.qpm_check.fake_defw.host import Proxy
from simenv.qpm_check.plugin import PluginTarget

WIDE = "OPENQASM 2.0;\nqreg q[5];\ncreg c[5];\nmeasure q -> c;\n"
INFO = {"qasm": WIDE, "num_qubits": 5, "num_shots": 10}


@pytest.fixture
def told(hosts: Any) -> Any:
    """One pool, names of a deployment's, bits of both kinds, reservations needed."""
    return hosts.subject(
        2, SIMENV_QPM_POOL="main", SIMENV_QPM_TYPE="3", SIMENV_QPM_STATEVECTOR_QUBITS="4",
        QFW_QPU_DEVICE_ID="q7", QFW_QPM_TARGET_ID="q7-target", QFW_QPM_SERVICE_ID="qpm:here:7",
    )  # fmt: skip


def test_service_is_registered_as_deployed(told: Any) -> None:
    (record,) = told.control.host("registered")
    properties = record["properties"]
    assert record["service_id"] == "qpm:here:7"
    assert (properties["device_id"], properties["target_id"]) == ("q7", "q7-target")
    assert record["qpm_type"] == told.card().types == 3
    assert properties["num_qubits"] > 4
    assert {"q7", "q7-target"} <= set(record["selector"]["resources"])
    assert "pool main" in told.card().description
    assert find_spec("qiskit_qasm3_import") is not None, "a dependency of the tests"
    (record,) = told.control.host("registered")
    formats = [
        "openqasm2",
        "openqasm3",
        "qpy",
        *["pulser-abstract"] * (find_spec("pulser") is not None),
    ]
    assert record["properties"]["circuit_formats"] == formats
    assert told.connect().methods.get_device_info()["metadata"]["circuit_formats"] == formats
    methods = told.connect().methods
    named, target = methods.get_queue_metrics(device_id="q7"), methods.get_queue_metrics()
    assert named["device_id"] == target["device_id"]
    fails(fakes.DEFwNotFound, "q8", methods.get_queue_metrics, device_id="q8")


def test_circuit_runs_only_under_active_reservation(told: Any) -> None:
    methods = told.connect().methods
    fails(fakes.DEFwExecutionError, "reservation-required", methods.sync_run, INFO)
    decision = methods.reserve(request={"target_device_id": "q7", "num_qubits": 5})
    assert decision["status"] == "accepted"
    number = decision["reservation_id"]
    assert methods.sync_run(INFO, reservation_id=number)["outcome"] == "COMPLETED"
    assert methods.release(reservation_id=number)["status"] == "accepted"
    fails(fakes.DEFwExecutionError, "released", methods.sync_run, INFO, reservation_id=number)


def test_administrative_calls_require_role_admin(told: Any, hosts: Any) -> None:
    methods = told.connect().methods
    with pytest.raises(fakes.DEFwExecutionError, match="SIMENV_QPM_ROLE=admin"):
        methods.configure_device_profile(profile={"compile_ns": 1})
    refused = "pause_execution_target needs the role admin; this QPM has the role client"
    fails(fakes.DEFwExecutionError, refused, methods.pause_execution_target, reason="a test")
    refused = "shutdown needs the role admin.*delete_circuit"
    fails(fakes.DEFwExecutionError, refused, methods.shutdown, mode="cancel")
    assert methods.is_ready()["ready"]
    admin = hosts.subject(2, SIMENV_QPM_ROLE="admin").connect().methods
    assert admin.pause_execution_target(reason="a test")["status"] == "paused"
    assert admin.resume_execution_target()["status"] == "resumed"


def completed(methods: Any, cid: str) -> Any:
    answer = methods.read_cq(cid)
    return answer if answer["completion_ready"] else None


def test_shutdown_by_one_application_leaves_the_circuits_of_another(hosts: Any) -> None:
    subject = hosts.subject(2, SIMENV_QPM_RESERVATIONS="optional")
    mine, other = subject.connect().methods, subject.connect().methods
    long = {"qasm": busy(60), "num_qubits": 20, "num_shots": 10}
    cids = [mine.async_run(long)["cid"] for _ in range(3)]
    for mode in ("graceful", "cancel"):
        fails(fakes.DEFwExecutionError, "shutdown needs the role admin", other.shutdown, mode=mode)
    for cid in cids:
        assert until(partial(completed, mine, cid))["rc"] == 0
    assert other.async_run(INFO)["cid"]


def test_statevector_over_qubit_limit_is_refused(told: Any) -> None:
    methods = told.connect().methods
    number = methods.reserve(request={})["reservation_id"]
    with pytest.raises(fakes.DEFwExecutionError, match="at most 4 qubits"):
        methods.sync_run({**INFO, "return_statevector": True}, reservation_id=number)
    less = {"qasm": "OPENQASM 2.0;\nqreg q[2];\nU(pi,0,pi) q[1];\n", "num_shots": 1}
    result = methods.sync_run({**less, "return_statevector": True}, reservation_id=number)
    vector = result["result"]["result"]["statevector"]
    assert [abs(complex(*pair)) for pair in vector["data"]] == pytest.approx([0, 0, 1, 0])
    methods.release(reservation_id=number)


def test_service_level_release_is_not_taken_for_release_of_reservation(told: Any) -> None:
    methods = told.connect().methods
    assert methods.release([{"a": "service"}]) is None
    fails(fakes.DEFwExecutionError, "", methods.reserve, request=["not", "a", "table"])


def test_call_with_missing_or_wrong_token_is_refused(env: Client, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    path.chmod(0o600)
    environ = {"SIMENV_SERVICE": env.service, "SIMENV_QPM_TOKEN_FILE": str(path)}
    with PluginTarget("ours", PLUGIN, environ).process(2) as control:
        proxy = Proxy(control, bindings=True)
        until(lambda: proxy.call("control", "is_ready", ("s3cret",), {})["ready"])
        for each in ((), ("wrong",)):
            with pytest.raises(fakes.DEFwExecutionError, match="credential-binding-failed"):
                proxy.call("control", "is_ready", each, {})


def test_token_file_readable_by_others_is_refused(env: Client, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    path.chmod(0o644)
    fails(simenv.errors.ConfigError, "read by others", env.qpm_with, token_file=path)


def test_qfw_path_prints_folder_of_services(capsys: pytest.CaptureFixture[str]) -> None:
    from simenv.cli.app import run

    assert run(["qfw", "path"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder == SERVICES
    assert (folder / "svc_simenv_qpm" / "__init__.py").is_file()
    assert run(["qfw", "path", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(SERVICES)
    assert run(["qfw", "path", "--export"]) == 0
    services, lock = capsys.readouterr().out.splitlines()
    assert services.startswith("export DEFW_EXTERNAL_SERVICES_PATH=")
    assert lock == f'export PYTHONPATH={STARTUP}"${{PYTHONPATH:+:$PYTHONPATH}}"'


PATIENCE_S = 60.0


EVENT = 1


BELL = (
    'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\ncreg c[2];\n'
    "h q[0];\ncx q[0],q[1];\nmeasure q -> c;\n"
)


MANY, THREADS = 500, 8


def info(text: str, qubits: int, shots: int = 100, **more: Any) -> dict[str, Any]:
    return {"qasm": text, "num_qubits": qubits, "num_shots": shots, "compiler": "staq", **more}


def test_same_seed_gives_same_counts_in_both_revisions(single: Any, bound: Any) -> None:
    result = info(BELL, 2, 1000, seed=7)
    first = single.methods.sync_run(result)["result"]
    assert first == single.methods.sync_run(result)["result"]
    assert first == bound.methods.sync_run(result)["result"]["result"]["counts"]


def test_invalid_calls_raise_execution_error(bound: Any) -> None:
    fails(fakes.DEFwExecutionError, "nonsense", bound.methods.sync_run, info(BELL, 2), nonsense=1)
    fails(fakes.DEFwExecutionError, "info", bound.methods.sync_run, "a text")
    with pytest.raises(fakes.DEFwExecutionError, match="endpoint"):
        bound.methods.register_event_notification("me", EVENT, "a queue")


def test_queue_registered_twice_gets_each_event_once(bound: Any) -> None:
    sink = bound.sink()
    first = bound.methods.register_event_notification(sink.ep, EVENT, sink.class_id)
    again = bound.methods.register_event_notification(sink.ep, EVENT, sink.class_id)
    assert first["registration_count"] == again["registration_count"]
    cid = bound.methods.async_run(info(BELL, 2))["cid"]
    assert sink.take(PATIENCE_S).payload["cid"] == cid
    assert sink.take(0.1) is None


def test_plugin_without_environment_is_not_ready_and_starts_none(tmp_path: Any) -> None:
    table = {"SIMENV_HOME": str(tmp_path), "SIMENV_QPM_PRIVATE": "no"}
    plugin = PluginTarget("ours", PLUGIN, table)
    with plugin.process(1) as control:
        control.host("hello", 1)
        proxy = Proxy(control, bindings=False)
        assert "not ready" in proxy.call("", "test", (), {})
        fails(fakes.DEFwNotReady, "no environment", proxy.call, "", "is_ready", (), {})
        assert control.host("left")["children"] == []


def test_private_environment_is_started_and_ends_with_plugin(tmp_path: Any) -> None:
    table = {
        "SIMENV_HOME": str(tmp_path), "SIMENV_QPM_PRIVATE": "yes", "SIMENV_PYTHON": sys.executable,
    }  # fmt: skip
    with PluginTarget("ours", PLUGIN, table).open(1) as subject:
        assert subject.connect().methods.sync_run(info(BELL, 2))["rc"] == 0
        (service,) = subject.control.host("left")["children"]
    until(lambda: not _runs(service))


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"simenv" in file.read()
    except OSError:
        return False
