"""Answers of a QPM: devices, envelopes, snapshots."""

import importlib.util
import json
import math
from typing import Any

import msgspec
import pytest
from machines import ideal, noisy
from msgspec.structs import replace
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.transpiler import Target

from simenv import model
from simenv.client.qpm import devices, status
from simenv.client.qpm.circuit_run import CircuitRun
from simenv.client.qpm.devices import DeviceSnapshot
from simenv.model.devices import UNKNOWN, DeviceInfo, DeviceKind, OperationInfo, QubitInfo
from simenv.qpm.envelopes import Lifecycle, plain
from simenv.service.devices import registry as emulated
from simenv.worker.hardware import device_info
from simulators import registry
from simulators.engine import EngineContext
from tests.noise_models.snapshots import linked
from tests.noise_models.test_linked_modules import LOGICAL


def one_way() -> Any:
    """Three qubits, each coupled with the next, in that direction only."""
    return GenericBackendV2(3, coupling_map=[[0, 1], [1, 2]], seed=3)


def montreal() -> Any:
    return pytest.importorskip("qiskit_ibm_runtime.fake_provider").FakeMontrealV2()


def described(make: Any) -> tuple[Target, DeviceInfo]:
    """A machine's own Target, and what its worker says of it."""
    backend = make()
    return backend.target, device_info(
        registry.create("hardware", EngineContext(backend=backend)), "qpu"
    )


MACHINES = [noisy, ideal, one_way, montreal]


@pytest.mark.parametrize("make", MACHINES)
def test_calibration_figures_are_those_of_target(make: Any) -> None:
    target, told_of = described(make)
    record = plain(devices.calibration("env/qpu", told_of))
    assert json.loads(json.dumps(record)) == record, "NaN is no number to a host"
    result = record["extensions"].get("simenv", {"qubit_metrics": [], "gate_metrics": []})
    by_qubit = {each["qubit"]: each for each in result["qubit_metrics"]}
    by_gate = {(each["operation"], *each["locus"]): each for each in result["gate_metrics"]}
    count = 0

    def check(found: dict[str, Any], name: str, wanted: float | None) -> None:
        nonlocal count
        assert found.get(name) == (None if wanted is None else pytest.approx(wanted, rel=1e-9))
        count += wanted is not None

    for number, figures in enumerate(target.qubit_properties or []):
        found = by_qubit.get(str(number), {})
        check(found, "t1", figures.t1)
        check(found, "t2", figures.t2)
        check(found, "frequency", figures.frequency)
    for name in target.operation_names:
        for qubits, figures in target[name].items():
            error, duration = (getattr(figures, key, None) for key in ("error", "duration"))
            if name == "measure" and qubits is not None:
                found = by_qubit.get(str(qubits[0]), {})
                check(found, "readout_error", error)
                check(found, "readout_duration", duration)
            else:
                found = by_gate.get((name, *map(str, qubits or ())), {})
                check(found, "error", error)
                check(found, "duration", duration)
                assert error is None or found["fidelity"] == pytest.approx(1 - error)
    assert record["calibration"]["observation_count"] == count
    assert count > 10 or make is ideal
    if count:
        assert (result["duration_unit"], result["frequency_unit"]) == ("s", "Hz")


@pytest.mark.parametrize("make", MACHINES)
def test_coupling_and_operations_are_those_of_target(make: Any) -> None:
    target, told_of = described(make)
    record = plain(devices.coupling("env/qpu", told_of))
    graph = record["coupling"]
    assert graph["nodes"] == [str(qubit) for qubit in range(target.num_qubits)]
    pairs = {
        tuple(map(str, qubits))
        for name in target.operation_names
        for qubits in target[name]
        if qubits is not None and len(qubits) == 2
    }
    assert (graph["directed"], graph["source"]) == (make is one_way, ["target"])
    if not graph["directed"]:
        pairs = {(a, b) for a, b in pairs if int(a) < int(b)}
    assert sorted(map(tuple, graph["edges"])) == sorted(pairs)
    for gate in record["operations"]:
        placed = target[gate["name"]]
        wanted = sorted([str(qubit) for qubit in qubits] for qubits in placed if qubits)
        assert sorted(gate.get("supported_loci", [])) == wanted
        assert gate["arity"] == target.operation_from_name(gate["name"]).num_qubits
    names = {gate["name"] for gate in record["operations"]}
    assert {"measure", "cx"} <= names <= set(target.operation_names)


@pytest.mark.parametrize("figure", [UNKNOWN, 0.0])
def test_zero_figures_are_counted_and_unknown_ones_are_not(figure: float) -> None:
    outcome = DeviceInfo(
        "qpu", DeviceKind.HARDWARE, "lab", "fridge", "1", "trapped-ion", 2, 0,
        (model.GateInfo("cz", 2, 0),), all_to_all=True,
        operations=(OperationInfo("cz", (), error=figure),),
        qubits=(QubitInfo(t1_us=figure), QubitInfo()),
    )  # fmt: skip
    record = devices.calibration("qpu", outcome)
    value = 0 if math.isnan(figure) else 2
    assert record.calibration["observation_count"] == value
    assert record.calibration["quality_metric_count"] == value // 2
    assert bool(record.extensions) is bool(value)
    assert record.device["technology"] == "trapped-ion"
    assert "max_shots" not in devices.device("qpu", outcome, []).metadata
    graph = devices.coupling("qpu", outcome)
    assert graph.coupling["edges"] == [["0", "1"]]
    assert graph.operations == [{"name": "cz", "arity": 2}]


def test_records_of_devices_are_those_of_their_targets() -> None:
    silent = DeviceInfo("qpu", DeviceKind.HARDWARE, "", "", "", "", 0, 0, (), all_to_all=False)
    head = devices.device("qpu", silent, [])
    assert (head.device, head.qubits) == ({"id": "qpu", "name": "qpu", "num_qubits": 0}, [])
    assert devices.coupling("qpu", silent).coupling["edges"] == []
    assert devices.coupling("qpu", silent).operations == []
    assert devices.calibration("qpu", silent).calibration["observation_count"] == 0
    wide = DeviceInfo("c", DeviceKind.IDEAL, "simenv", "stabilizer", "1", "simulator", 65_535, 9,
                      (), all_to_all=True)  # fmt: skip
    record = devices.coupling("c", wide)
    assert record.coupling["edges"] == []
    assert record.extensions["simenv"] == {"topology": "all-to-all", "edges_listed": False}
    _, value = described(noisy)
    emulated = replace(value, kind=DeviceKind.EMULATED)
    record = devices.coupling("qpu", emulated)
    assert record.coupling["source"] == ["emulated-target"]
    assert record.metadata["ideal"] is False
    assert devices.calibration("qpu", emulated).extensions == (
        devices.calibration("qpu", value).extensions
    )


def test_openqasm_3_is_not_listed_without_its_importer(monkeypatch: pytest.MonkeyPatch) -> None:
    info = DeviceInfo(
        "d", DeviceKind.IDEAL, "simenv", "m", "1", "simulator", 2, 9, (), all_to_all=True
    )
    assert devices.formats(info) == ["openqasm2", "openqasm3", "qpy"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert devices.formats(info) == ["openqasm2", "qpy"]


def info(state: model.TaskState, worker: str = "") -> model.TaskInfo:
    return model.TaskInfo("t-1", "", "main", state, 1, 0.1, 2, 100, worker, "")


@pytest.mark.parametrize(
    "ended", [model.TaskState.DONE, model.TaskState.FAILED, model.TaskState.CANCELLED]
)
def test_circuit_of_two_tasks_has_state_of_unfinished_task(ended: model.TaskState) -> None:
    run = CircuitRun("cid", 7, 100, 1.0)
    for infos in (
        [info(ended), info(model.TaskState.QUEUED)],
        [info(model.TaskState.QUEUED), info(ended)],
    ):
        assert status.current_status(run, infos).lifecycle_state is Lifecycle.QUEUED
    result = status.current_status(run, [info(ended), info(model.TaskState.RUNNING, "main-0")])
    assert result.lifecycle_state is Lifecycle.SUBMITTED
    assert result.provider_handle == "main-0"


NODE = model.NodeInfo("n1", "up", "", 4, 1, 1_000, 300, 2, 2)
POOLS = (
    model.PoolInfo("main", "any", 2, 2, 1, 3, "up", "", held_us=250.0),
    model.PoolInfo("main.x2", "any", 0, 0, 0, 0, "quarantined", "broken", on_demand=True),
)
TARGET = model.TargetInfo(
    "main", "active", 3, "fifo", (), 5,
    queued=3, parked=2, sent=1, running=1, queued_ns=9_000, wait_ns=7_000_000,
    reservations=1, held=model.HeldCapacity(6, 6, 0), in_flight=model.HeldCapacity(2, 2, 0),
)  # fmt: skip
SERVICE = model.ServiceInfo(
    "env", "1", 1, "n1", 1, 1.0, "process", 5, 1, 0, 0, 0, 0, 0, 0, 0.0, 4, 1, 1_000, 20, 0, 0.0,
    POOLS, (), nodes=(NODE,),
)  # fmt: skip
SEEN = DeviceSnapshot(
    "env", "env/main", "operator", 1_000_000_000, SERVICE, POOLS, TARGET,
    {"name": "credit"}, 40, begins=True,
)  # fmt: skip


def test_wait_is_known_or_unavailable_with_reason() -> None:
    metrics = devices.queue(SEEN)
    assert (metrics.wait_estimate.available, metrics.wait_estimate.estimated_ns) == (True, 7e6)
    assert metrics.estimated_start.estimated_ns == 1_007_000_000
    assert metrics.estimated_start.reason is None
    assert metrics.estimated_queued_device_time.estimated_ns == 9_000
    lost = replace(SEEN, target=replace(TARGET, wait_ns=-1))
    for estimate in (devices.wait(lost), devices.start(lost)):
        assert (estimate.available, estimate.estimated_ns) == (False, None)
        assert estimate.reason == "telemetry-unavailable"


def test_held_in_flight_and_available_capacity_are_counted_apart() -> None:
    snapshot = devices.capacity(SEEN, "s")
    held, flying = snapshot.held_capacity, snapshot.in_flight_capacity
    assert (held.qtask_count, held.estimated_ns, held.baseline_units, held.credits) == (
        3, 9_000, 6, 6,
    )  # fmt: skip
    assert (flying.qtask_count, flying.estimated_ns, flying.credits) == (2, 250_000, 2)
    assert (snapshot.pending_qtask_count, snapshot.scheduler_task_count) == (2, 5)
    available_capacity = snapshot.available_capacity
    assert (
        available_capacity.slots,
        available_capacity.workers,
        available_capacity.memory_bytes,
        available_capacity.credits,
    ) == (3, 1, 700, 40)
    assert msgspec.to_builtins(available_capacity).keys() >= {"credits"}
    assert "rate_units" not in msgspec.to_builtins(available_capacity)


def test_device_that_starts_no_tasks_is_not_available() -> None:
    assert SEEN.is_available
    assert not replace(SEEN, begins=False).is_available
    assert not devices.begins(TARGET, replace(TARGET, state="paused"))
    assert not replace(SEEN, pools=POOLS[1:]).is_available


def test_records_have_modules_links_and_logical_qubits() -> None:
    info = emulated.device_info("duo", linked(), "")
    found = devices.coupling("duo", info).extensions["simenv"]
    assert [each["name"] for each in found["modules"]] == ["a", "b"]
    assert found["modules"][1] == {"name": "b", "nodes": ["3", "4", "5"], "communication": ["3"]}
    (link,) = found["links"]
    assert link["edge"] == ["1", "3"]
    assert (link["fidelity"], link["wait"], link["latency"]) == pytest.approx((0.95, 101e-6, 5e-6))
    coded = replace(linked(), modules=(), links=(), gates=(), coupling=(), logical=LOGICAL)
    record = devices.device("coded", emulated.device_info("coded", coded, ""), [])
    own = record.extensions["simenv"]["logical"]
    assert (own["code"], own["distance"], own["physical_qubits"]) == (LOGICAL.code, 3, 17)
    assert "logical" not in devices.device("duo", info, []).extensions["simenv"]


def test_paradigms_name_the_packages_that_pools_and_this_process_lack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gates = DeviceInfo("main", DeviceKind.IDEAL, "simenv", "", "", "", 3, 1, (), all_to_all=True)
    lacking = replace(gates, missing_formats=(("pulser-abstract", "pip install x"),))
    atoms = replace(gates, formats=("pulser-abstract",))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())
    table = devices.paradigms({"main": lacking, "atoms": atoms})
    assert (table["gate"]["libraries"], table["analog"]["libraries"]) == (["main"], ["atoms"])
    assert table["analog"]["missing"] == {"main": "pip install x"}
    assert "missing" not in table["gate"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert devices.formats(atoms) == []
    table = devices.paradigms({"atoms": atoms})
    assert (table["analog"]["libraries"], table["analog"]["formats"]) == ([], [])
    assert table["analog"]["missing"] == {"": "pip install 'simenv[analog]'"}
