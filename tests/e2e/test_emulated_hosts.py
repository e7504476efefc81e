"""Emulated devices through QPM hosts of both revisions and QRMI."""

import json
from typing import Any

import live
import pytest
from emulated import DEVICE, ghz
from failing import fails
from qiskit import qasm2
from waiting import until

from simenv.client.client import Client
from simenv.errors import OptionError
from simenv.frontends.qrmi import Payload, QuantumResource
from simenv.qpm.contract import ExecutionError, InProgressError, QPMCapability
from simenv.qpm.envelopes import Reason


def request(**more: Any) -> dict[str, Any]:
    return {"qasm": qasm2.dumps(ghz(2)), "num_shots": 500, "seed": 3, "num_qubits": 2, **more}


def through(qpm: Any, revision: int, info: dict[str, Any]) -> dict[str, int]:
    """Counts of one run of a host."""
    if revision == 1:
        done = qpm.revision1.sync_run(info)
        assert done["rc"] == 0, done
        return dict(done["result"])
    counts: dict[str, int] = qpm.sync_run(info)["result"]["result"]["counts"]
    return counts


@pytest.mark.parametrize("revision", [1, 2])
@pytest.mark.parametrize("pool", ["main", "lattice", "qpu"])
def test_host_program_runs_on_all_kinds_of_pools(env: Client, pool: str, revision: int) -> None:
    counts = through(env.qpm_with(pool=pool), revision, request())
    assert sum(counts.values()) == 500
    assert counts["00"] + counts["11"] > 400
    assert (set(counts) == {"00", "11"}) is (pool != "lattice")


@pytest.mark.parametrize("revision", [1, 2])
def test_host_options_act_on_emulated_device(env: Client, revision: int) -> None:
    qpm = env.qpm_with(pool="lattice")
    ideal = through(env.qpm_with(pool="main"), revision, request())
    assert through(qpm, revision, request(noise=False)) == ideal
    assert through(qpm, revision, request(noise={"all": 0.0})) == ideal
    assert through(qpm, revision, request(noise=True)) == through(qpm, revision, request())
    mapped = through(qpm, revision, request(qubit_mapping=[5, 4]))
    assert mapped != through(qpm, revision, request(qubit_mapping=[0, 1]))
    with pytest.raises(ExecutionError, match=r"no native gate[^=]*verbatim=False compiles"):
        through(qpm, revision, request(verbatim=True))
    with pytest.raises(ExecutionError, match=r"noise=\['loud'\]\n.*a recipe such as") as caught:
        through(qpm, revision, request(noise=["loud"]))
    assert "bytes" not in str(caught.value)


UNSUPPORTED = [("noise", {"gate": 0.5}), ("verbatim", True), ("qubit_mapping", [0, 1])]


@pytest.mark.parametrize("revision", [1, 2])
@pytest.mark.parametrize("pool", ["main", "qpu"])
@pytest.mark.parametrize(("name", "value"), UNSUPPORTED)
def test_host_option_that_needs_device_is_refused_by_name(
    env: Client, pool: str, revision: int, name: str, value: Any
) -> None:
    with pytest.raises(ExecutionError, match=name) as caught:
        through(env.qpm_with(pool=pool), revision, request(**{name: value}))
    assert caught.value.reason == Reason.UNSUPPORTED


def completed(qpm: Any, revision: int, info: dict[str, Any], *, queued: bool) -> dict[str, Any]:
    """The record of one run: of `sync_run`, or read from the queue."""
    if revision == 1:
        record: dict[str, Any] = qpm.revision1.sync_run(info)
        if queued:
            cid = qpm.revision1.async_run(info)
            record = until(lambda: _read(qpm, cid))
        return record
    record = qpm.sync_run(info)["result"]
    if queued:
        accepted = qpm.async_run(info)
        record = until(
            lambda: (result := qpm.read_cq(accepted["cid"]))["completion_ready"] and result
        )
    return record


def _read(qpm: Any, cid: str) -> Any:
    try:
        return qpm.revision1.read_cq(cid)
    except InProgressError:
        return None


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("revision", [1, 2])
def test_record_of_host_has_device_and_layouts(env: Client, revision: int, queued: bool) -> None:
    result = completed(env.qpm_with(pool="lattice"), revision, request(), queued=queued)
    same = env.run(ghz(2), pool="lattice", shots=500, seed=3)
    metadata = result["metadata"]
    assert (metadata["device"], metadata["snapshot"]) == (DEVICE, same.snapshot)
    assert tuple(metadata["layout"]) == same.layout
    assert tuple(metadata["initial_layout"]) == same.initial_layout
    assert metadata["gates"] == same.gates
    assert "warnings" not in metadata
    json.dumps(metadata)
    assert "metadata" not in completed(env.qpm_with(pool="main"), revision, request(), queued=False)


@pytest.mark.parametrize("revision", [1, 2])
def test_record_of_host_has_the_warnings_of_the_result(env: Client, revision: int) -> None:
    info = request(noise={"gate.depolarizing": 1e9})
    result = completed(env.qpm_with(pool="lattice"), revision, info, queued=True)
    (text,) = result["metadata"]["warnings"]
    assert text.startswith("gate.depolarizing * 1e+09 is above")


def test_task_metadata_of_host_has_device_before_and_after_completion_is_read(env: Client) -> None:
    qpm = env.qpm_with(pool="lattice")
    accepted = qpm.async_run(request(loudness=3))
    until(lambda: qpm.peek_cq(accepted["cid"])["completion_ready"])
    for read in (False, True):
        if read:
            qpm.read_cq(accepted["cid"])
        provider_metadata = qpm.get_task_metadata(task_id=accepted["qtask_id"])["provider_metadata"]
        assert provider_metadata["device"] == DEVICE
        assert provider_metadata["gates"]
        assert "loudness" in provider_metadata["warnings"][0]


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("revision", [1, 2])
def test_field_that_changes_nothing_is_in_record(env: Client, revision: int, queued: bool) -> None:
    info = request(
        loudness=3, method="density_matrix", compiler="staq", owner="me", prefer=["emulator"]
    )
    result = completed(env.qpm_with(pool="main"), revision, info, queued=queued)
    hint, unknown, placed = result["metadata"]["warnings"]
    assert "method" in hint
    assert unknown.endswith("loudness")
    assert placed == "info: prefer has no effect: the pool is the QPM's"


@pytest.mark.parametrize("revision", [1, 2])
def test_record_of_refused_names_fields_that_change_nothing(env: Client, revision: int) -> None:
    qpm = env.qpm_with(pool="lattice")
    info = request(loudness=3, verbatim=True)
    if revision == 1:
        record = qpm.revision1.read_cq(qpm.revision1.async_run(info))
    else:
        record = qpm.read_cq(qpm.async_run(info)["cid"])
    assert record["rc"] == 1
    assert "loudness" in record["metadata"]["warnings"][0]


def test_host_reads_calibration_coupling_and_gates_of_device(env: Client) -> None:
    qpm, info = env.qpm_with(pool="lattice"), env.device(DEVICE)
    calibration = qpm.get_calibration_snapshot()
    assert calibration["metadata"]["calibration_set_id"] == info.calibration_id
    assert calibration["calibration"]["observation_count"] > info.num_qubits
    edges = qpm.get_coupling_graph()["coupling"]["edges"]
    assert {(int(a), int(b)) for a, b in edges} <= {
        pair for a, b in info.coupling for pair in ((a, b), (b, a))
    }
    record = qpm.query()
    assert record.qpm_capabilities == QPMCapability.SUPERCONDUCTING, "it has no statevector"
    assert qpm.revision1.query().qpm_capabilities == 0
    assert record.properties["simulator"]
    assert record.properties["num_qubits"] == info.num_qubits


def test_qrmi_runs_on_device_and_refuses_unsupported_options(up: live.Live) -> None:
    resource = QuantumResource(
        "lattice", environ={"lattice_QRMI_SIMENV_SERVICE": str(up.home / "connection.json")}
    )
    text = 'OPENQASM 3.0;include "stdgates.inc"; bit[1] c; qubit[1] q; x q[0]; c[0] = measure q[0];'

    def payload(**more: Any) -> Payload:
        return Payload(json.dumps({"pubs": [[text, None, 300]], "version": 2, **more}), "sampler")

    def ones(**more: Any) -> int:
        result = resource.task_result(resource.task_start(payload(**more)))
        samples = json.loads(result.value)["results"][0]["data"]["c"]["samples"]
        return sum(int(sample, 16) for sample in samples)

    try:
        assert json.loads(resource.target().value)["kind"] == "emulated"
        unused = {"kind": "channels", "name": "h", "channels": [{"gate": "h", "depolarizing": 0.1}]}
        result = resource.task_result(
            resource.task_start(payload(options={"simenv": {"noise": unused}}))
        )
        metadata = json.loads(result.value)["results"][0]["metadata"]
        assert (metadata["shots"], metadata["device"]) == (300, DEVICE)
        assert metadata["gates"] == {"x": 1}
        assert "channels of h" in metadata["warnings"][0]
        assert ones(options={"simenv": {"noise": "off"}}) == 300
        assert ones() < 300
        for wrong, value in (
            ({"options": {"twirling": {"enable_gates": True}}}, "twirling"),
            ({"options": {"simulator": {"noise_model": {}}}}, "'simulator.noise_model'"),
            ({"options": {"simenv": {"loudness": 3}}}, "loudness"),
            ({"options": {"simenv": "off"}}, "options: simenv = 'off'"),
            ({"options": ["noise"]}, r"options = \['noise'\]"),
            ({"options": {"default_shots": "many"}}, "default_shots = 'many'"),
            ({"options": {"default_shots": -1}}, "default_shots = -1"),
            ({"loudness": 3}, "loudness"),
        ):
            fails(OptionError, value, resource.task_start, payload(**wrong))
        idle = {"twirling": {"enable_gates": False}, "simulator": {"noise_model": None}}
        assert ones(options={**idle, "default_shots": 10}) > 0
    finally:
        resource.close()
