"""What a deployment says in variables is what the plugin does."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import simenv
from simenv.client.client import Client
from simenv.frontends.qfw import PLUGIN, SERVICES
from simenv.qpm_check.fake_defw import errors
from simenv.qpm_check.fake_defw.client import Proxy
from simenv.qpm_check.targets.plugin import Plugin

PATIENCE_S = 60.0
WIDE = "OPENQASM 2.0;\nqreg q[5];\ncreg c[5];\nmeasure q -> c;\n"
INFO = {"qasm": WIDE, "num_qubits": 5, "num_shots": 10}


@pytest.fixture
def told(hosts: Any) -> Any:
    """One pool, names of a deployment's, bits of both kinds, reservations needed."""
    return hosts.subject(
        2, SIMENV_QPM_POOL="main", SIMENV_QPM_TYPE="3", SIMENV_QPM_STATEVECTOR_QUBITS="4",
        QFW_QPU_DEVICE_ID="q7", QFW_QPM_TARGET_ID="q7-target", QFW_QPM_SERVICE_ID="qpm:here:7",
    )  # fmt: skip


def test_it_is_found_under_other_names_or_bits(told: Any) -> None:
    (record,) = told.control.host("registered")
    properties = record["properties"]
    assert record["service_id"] == "qpm:here:7"
    assert (properties["device_id"], properties["target_id"]) == ("q7", "q7-target")
    assert record["qpm_type"] == told.card().types == 3
    assert properties["num_qubits"] > 4
    assert {"q7", "q7-target"} <= set(record["selector"]["resources"])
    assert "pool main" in told.card().description


def test_openqasm_3_is_among_the_formats_that_the_directory_and_the_device_record_list(
    told: Any,
) -> None:
    assert find_spec("qiskit_qasm3_import") is not None, "a dependency of the tests"
    (record,) = told.control.host("registered")
    formats = ["openqasm2", "openqasm3", "qpy"]
    assert record["properties"]["circuit_formats"] == formats
    device = told.connect().methods.get_device_info()
    assert device["metadata"]["circuit_formats"] == formats


def test_its_own_name_is_not_known_to_it(told: Any) -> None:
    methods = told.connect().methods
    named, target = methods.get_queue_metrics(device_id="q7"), methods.get_queue_metrics()
    assert named["device_id"] == target["device_id"]
    with pytest.raises(errors.DEFwNotFound, match="q8"):
        methods.get_queue_metrics(device_id="q8")


def test_a_circuit_runs_without_a_reservation_or_not_with_one(told: Any) -> None:
    methods = told.connect().methods
    with pytest.raises(errors.DEFwExecutionError, match="reservation-required"):
        methods.sync_run(INFO)
    decision = methods.reserve(request={"target_device_id": "q7", "num_qubits": 5})
    assert decision["status"] == "accepted"
    number = decision["reservation_id"]
    assert methods.sync_run(INFO, reservation_id=number)["outcome"] == "COMPLETED"
    assert methods.release(reservation_id=number)["status"] == "accepted"
    with pytest.raises(errors.DEFwExecutionError, match="released"):
        methods.sync_run(INFO, reservation_id=number)


def test_administrative_calls_are_refused_unless_the_role_admin_is_set(
    told: Any, hosts: Any
) -> None:
    methods = told.connect().methods
    with pytest.raises(errors.DEFwExecutionError, match="SIMENV_QPM_ROLE=admin"):
        methods.configure_device_profile(profile={"compile_ns": 1})
    with pytest.raises(errors.DEFwExecutionError, match="role client"):
        methods.pause_execution_target(reason="a test")
    admin = hosts.subject(2, SIMENV_QPM_ROLE="admin").connect().methods
    assert admin.pause_execution_target(reason="a test")["status"] == "paused"
    assert admin.resume_execution_target()["status"] == "resumed"


def test_a_statevector_is_sent_that_the_transport_does_not_carry(told: Any) -> None:
    methods = told.connect().methods
    number = methods.reserve(request={})["reservation_id"]
    with pytest.raises(errors.DEFwExecutionError, match="at most 4 qubits"):
        methods.sync_run({**INFO, "return_statevector": True}, reservation_id=number)
    less = {"qasm": "OPENQASM 2.0;\nqreg q[2];\nU(pi,0,pi) q[1];\n", "num_shots": 1}
    found = methods.sync_run({**less, "return_statevector": True}, reservation_id=number)
    vector = found["result"]["result"]["statevector"]
    assert [abs(complex(*pair)) for pair in vector["data"]] == pytest.approx([0, 0, 1, 0])
    methods.release(reservation_id=number)


def test_a_service_level_call_is_taken_for_a_reservation(told: Any) -> None:
    methods = told.connect().methods
    assert methods.release([{"a": "service"}]) is None
    with pytest.raises(errors.DEFwExecutionError):
        methods.reserve(request=["not", "a", "table"])


def test_a_call_without_the_token_comes_in(env: Client, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    path.chmod(0o600)
    environ = {"SIMENV_SERVICE": env.service, "SIMENV_QPM_TOKEN_FILE": str(path)}
    with Plugin("ours", PLUGIN, environ).process(2) as control:
        proxy = Proxy(control, bindings=True)
        deadline = time.monotonic() + PATIENCE_S
        while not proxy.call("control", "is_ready", ("s3cret",), {})["ready"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for given in ((), ("wrong",)):
            with pytest.raises(errors.DEFwExecutionError, match="credential-binding-failed"):
                proxy.call("control", "is_ready", given, {})


def test_a_file_of_the_wrong_mode_is_read_or_passed_over(env: Client, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    path.chmod(0o644)
    with pytest.raises(simenv.errors.ConfigError, match="read by others"):
        env.qpm_with(token_file=path)


def test_the_command_names_another_folder(capsys: pytest.CaptureFixture[str]) -> None:
    from simenv.cli.app import run

    assert run(["qfw", "path"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder == SERVICES
    assert (folder / "svc_simenv_qpm" / "__init__.py").is_file()
    assert run(["qfw", "path", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(SERVICES)
    assert run(["qfw", "path", "--export"]) == 0
    assert capsys.readouterr().out.startswith("export DEFW_EXTERNAL_SERVICES_PATH=")
