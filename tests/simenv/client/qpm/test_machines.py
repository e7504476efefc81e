"""A machine's pool as a device: its figures are those of its own Target; a QPM may be it alone."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from failing import fails
from hosts import BELL, completion, info
from linked_devices import PERFECT, install_linked
from live import Live, environment
from waiting import until

import simenv
from simenv.client.qpm.provider import QPM
from simenv.errors import NotFoundError
from simenv.qpm.contract import QPMCapability, QPMType, UnknownObjectError

ROOT = Path(__file__).parents[4]
POOLS = [
    {"name": "main", "min": 1, "max": 1},
    {"name": "qpu", "engine": "hardware", "provider": "examples.machine:montreal"},
]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    pytest.importorskip("qiskit_ibm_runtime.fake_provider")
    with environment(pools=POOLS, durability="process", import_from=(str(ROOT),)) as result:
        with result.client() as client:
            until(lambda: all(device.num_qubits for device in client.devices().values()))
        yield result


def montreal() -> Any:
    from qiskit_ibm_runtime.fake_provider import FakeMontrealV2

    return FakeMontrealV2()


def test_calibration_has_time_of_backend_and_its_own_id(qpm: QPM) -> None:
    last = montreal().properties().last_update_date
    assert qpm.get_calibration_snapshot(lib="qpu")["calibration"]["observation_count"] > 27 * 5
    record = qpm.get_calibration_snapshot(lib="qpu")["calibration"]
    when = datetime.fromisoformat(record["timestamp"])
    assert (when.tzinfo, when) == (UTC, last)
    name = record["calibration_set_id"]
    for call in (
        qpm.get_calibration_snapshot, qpm.get_dynamic_backend_info, qpm.get_coupling_graph,
    ):  # fmt: skip
        answer = call(calibration_set_id=name, lib="qpu")
        assert answer == call(lib="qpu") or call == qpm.get_dynamic_backend_info
        with pytest.raises(UnknownObjectError, match="no calibration set 'old' here"):
            call(calibration_set_id="old", lib="qpu")
        fails(UnknownObjectError, "no calibration set", call, calibration_set_id=name, lib="main")
    assert qpm.get_dynamic_backend_info(lib="qpu")["calibration_set_id"] == name
    assert "timestamp" not in qpm.get_calibration_snapshot(lib="main")["calibration"]


def test_hardware_pool_is_described_by_its_target(qpm: QPM, env: simenv.Client) -> None:
    record = qpm.get_device_info(lib="qpu")
    device = record["device"]
    assert (device["id"], device["name"]) == (f"{env.name}/qpu", "fake_montreal")
    assert device["num_qubits"] == record["num_qubits"] == len(record["qubits"]) == 27
    gates = {each.name for each in env.devices()["qpu"].gates}
    assert set(record["metadata"]["basis_gates"]) == gates >= {"cx", "sx", "rz"}
    assert record["metadata"]["ideal"] is False
    assert record["extensions"]["simenv"]["kind"] == "hardware"
    assert record["provider"] == env.devices()["qpu"].provider != "simenv"
    backend = qpm.get_backend_info(lib="qpu")
    assert backend["active_qubits"] == [str(number) for number in range(27)]
    assert backend["qhw_device"]["device"] == device


def test_qpm_of_one_pool_runs_and_describes_only_that_pool(env: simenv.Client) -> None:
    qpu = env.qpm_with(pool="qpu")
    record = qpu.query()
    assert record.qpm_type == QPMType.HARDWARE
    assert not record.qpm_capabilities & QPMCapability.STATEVECTOR
    properties = record.properties
    assert (properties["target_id"], properties["device_id"]) == ("qpu", "qpu")
    assert (properties["num_qubits"], properties["hardware"]) == (27, True)
    assert properties["simulator"] is False
    assert qpu.get_device_info() == qpu.get_device_info(lib="qpu")
    assert qpu.get_device_info()["device"]["id"] == "qpu"
    assert qpu.get_service_summary()["target_id"] == "qpu"
    assert [pool["name"] for pool in qpu.get_service_summary()["pools"]] == ["qpu"]
    for each in ("main", env.name):
        fails(UnknownObjectError, "", qpu.get_device_info, lib=each)
        fails(UnknownObjectError, "", qpu.get_queue_metrics, device_id=each)
    accepted = qpu.async_run(info(BELL))
    until(lambda: qpu.peek_cq(accepted["cid"])["completion_ready"])
    facts = qpu.get_task_metadata(task_id=accepted["qtask_id"])["provider_metadata"]
    assert facts["engine"] == "hardware"
    assert sum(completion(qpu, accepted["cid"])["result"]["counts"].values()) == 200
    assert qpu.capability_map()["get_device_info"] == ["qpu"]
    metrics = qpu.get_queue_metrics()
    assert (metrics["target_id"], metrics["device_id"]) == ("qpu", "qpu")
    assert metrics["wait_estimate"]["available"] is True
    env.qpm.reserve(request={"job_id": "of-main", "device_id": "main"})
    qpu.reserve(request={"job_id": "of-qpu"})
    (entry,) = qpu.list_scheduler_allocations()["allocations"]
    assert entry["job_id"] == "of-qpu"
    assert sum(qpu.revision1.sync_run(info(BELL))["result"].values()) == 200


def test_circuit_of_qpm_on_linked_qpus_is_distributed() -> None:
    device = install_linked("qpm-linked", {"east": PERFECT, "west": PERFECT}, links=1, qubits=3)
    ghz = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[4]; creg c[4]; h q[0]; '
    ghz += "".join(f"cx q[{k}],q[{k + 1}]; " for k in range(3)) + "measure q -> c;"
    pools = [{"name": "duo", "device": device, "min": 1, "max": 1}]
    with environment(pools=pools, durability="process") as live, live.client() as client:
        qpm = client.qpm_with(pool="duo")
        accepted = qpm.async_run(info(ghz, num_qubits=4))
        until(lambda: qpm.peek_cq(accepted["cid"])["completion_ready"])
        counts = completion(qpm, accepted["cid"])["result"]["counts"]
        assert counts.keys() == {"0000", "1111"}


def test_qpm_of_unknown_pool_is_refused(env: simenv.Client) -> None:
    fails(NotFoundError, "no pool 'qpus' here", env.qpm_with, pool="qpus")
