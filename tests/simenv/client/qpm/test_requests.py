"""Requests of a QPM, and a service that answers by script."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from client_peer import Peer
from failing import fails
from hosts import BELL, Endpoint, completion, info
from qiskit import QuantumCircuit
from qiskit.quantum_info import Statevector, random_unitary
from waiting import until

import simenv
from simenv.client.circuits import load
from simenv.client.qpm import completion_queues, programs, requests, status, telemetry
from simenv.client.qpm.notifications import MAX_REGISTRATIONS
from simenv.client.qpm.provider import QPM, SingleQPM
from simenv.errors import ProgramError
from simenv.model import TaskInfo, TaskState, task_name
from simenv.qpm import contract
from simenv.qpm.contract import ExecutionError
from simenv.wire.messages import client as m


def aliased(depth: int) -> list[Any]:
    """Nine lists that each hold the next one ten times, as YAML of 100 bytes a list can say it."""
    result: list[Any] = [1] * 10
    for _ in range(depth):
        result = [result] * 10
    return result


def nested(depth: int) -> list[Any]:
    result: list[Any] = []
    for _ in range(depth):
        result = [result]
    return result


ALIASED, NESTED, HUGE = aliased(40), nested(50_000), 10**5_000
JUNK: list[Any] = [
    True, 0, -1, 2**70, 1.5, math.nan, math.inf, "", "\x00", "x" * 10_000, b"bytes", [], [1],
    {}, {1: 2}, {"a": {}}, HUGE, -HUGE, ALIASED, {"a": ALIASED}, NESTED, {HUGE: [HUGE]},
    object(), Endpoint(),
]  # fmt: skip
FINE: dict[str, list[Any]] = {  # of the junk, what the field allows
    "num_qubits": [0],
    "num_shots": [],
    "seed": [0],
    "priority": [0, -1],
    "deadline_ns": [0],
    "depth": [0],
    "one_q_gate_count": [0],
    "two_q_gate_count": [0],
    "measurement_count": [0],
    "return_statevector": [True],
    "compiler": ["\x00"],
    "backend": ["\x00"],
    "method": ["\x00"],
    "lib": ["\x00"],
    "qubit_mapping": [[], {}],
    "noise": [[], {}],
    "verbatim": [[], {}],
    "qasm": ["\x00", "x" * 10_000],  # texts, though no circuits
    "circuit": [],
}


def allowed(field: str, value: Any) -> bool:
    return any(type(value) is type(fine) and value == fine for fine in FINE[field])


def state(qpm: QPM) -> tuple[Any, ...]:
    status, queue = qpm.get_service_status(), qpm.get_queue_metrics()
    summary = qpm.get_service_summary()
    counts = [summary[name] for name in ("done", "failed", "cancelled", "expired")]
    return status, queue["scheduler_task_count"], counts, qpm.read_cq()["outcome"]


@pytest.mark.parametrize("field", sorted(FINE))
def test_invalid_field_of_info_is_refused_without_effect(qpm: QPM, field: str) -> None:
    before = state(qpm)
    for value in JUNK:
        if not allowed(field, value):
            for run in (qpm.sync_run, qpm.async_run, qpm.revision1.sync_run):
                fails(contract.QPMError, "", run, info(**{field: value}))
    assert state(qpm) == before


@pytest.mark.parametrize("given", JUNK, ids=lambda value: type(value).__name__)
def test_invalid_info_is_refused_without_effect(qpm: QPM, given: Any) -> None:
    before = state(qpm)
    for run in (qpm.sync_run, qpm.async_run, qpm.revision1.sync_run, qpm.revision1.async_run):
        fails(contract.QPMError, "", run, given)
    assert state(qpm) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("noise", {"depolarizing": 0.01}), ("noise", True), ("noise", "on"), ("verbatim", True),
        ("qubit_mapping", [1, 0]),
    ],
)  # fmt: skip
def test_unsupported_option_is_refused_by_name(qpm: QPM, name: str, value: Any) -> None:
    for run in (qpm.sync_run, qpm.async_run, qpm.revision1.sync_run, qpm.revision1.async_run):
        error = fails(contract.ExecutionError, name, run, info(**{name: value}))
        assert error.reason == "provider-unsupported"
    assert qpm.sync_run(info(**{name: None}))["outcome"] == "COMPLETED"
    assert qpm.sync_run(info(verbatim=False, noise={}))["outcome"] == "COMPLETED"
    assert qpm.sync_run(info(noise=False))["outcome"] == "COMPLETED"


def test_circuits_are_no_paths_and_of_known_formats(qpm: QPM) -> None:
    for path in ("/etc/hostname", "examples/bell.qasm"):
        fails(contract.QPMError, "no version line", qpm.sync_run, info(path))
    with pytest.raises(contract.QPMError, match=r"'pulse'.*cannot be read"):
        qpm.sync_run(info(circuit={"format": "pulse", "data": BELL}))
    for data in ("no base64 !", "AAAA", None, 7):
        fails(contract.QPMError, "", qpm.sync_run, info(circuit={"format": "qpy", "data": data}))


Call = Callable[[QPM, Any], Any]
CALLS: dict[str, tuple[Call, list[Any]]] = {
    "sync timeout": (lambda q, v: q.sync_run(info(), timeout=v), [0, 1.5, None]),
    "cancel_on_timeout": (lambda q, v: q.sync_run(info(), cancel_on_timeout=v), [True]),
    "token": (lambda q, v: q.task_status("x", token=v), ["\x00"]),
    "reservation": (lambda q, v: q.async_run(info(), reservation_id=v), []),
    "read cid": (lambda q, v: q.read_cq(v), ["\x00"]),
    "peek cid": (lambda q, v: q.peek_cq(v), ["\x00"]),
    "status cid": (lambda q, v: q.task_status(v), ["\x00"]),
    "status qtask": (lambda q, v: q.task_status(qtask_id=v), []),
    "cancel cid": (lambda q, v: q.cancel_task(v), ["\x00"]),
    "cancel reason": (lambda q, v: q.cancel_task("x", reason=v), ["\x00", 0]),
    "release reason": (lambda q, v: q.release(reservation_id=1, reason=v), []),
    "timing": (lambda q, v: q.get_task_timing(task_id=v), []),
    "metadata": (lambda q, v: q.get_task_metadata(task_id=v), []),
    "endpoint": (lambda q, v: q.register_event_notification(v, 1, "c"), [JUNK[-1]]),
    "evtype": (lambda q, v: q.register_event_notification(Endpoint(), v, "c"),
               [0, "", "\x00", "x" * 10_000]),
    "class_id": (lambda q, v: q.register_event_notification(Endpoint(), 1, v), ["\x00"]),
    "filters": (lambda q, v: q.register_event_notification(Endpoint(), 1, "c", filters=v),
                [{}]),
    "delete": (lambda q, v: q.delete_circuit(v), ["\x00"]),
    "lib": (lambda q, v: q.get_device_info(lib=v), []),
    "calibration": (lambda q, v: q.get_calibration_snapshot(v), []),
    "device": (lambda q, v: q.get_capacity_snapshot(device_id=v), []),
    "scope": (lambda q, v: q.get_capacity_snapshot(scope_id=v), ["\x00"]),
    "access": (lambda q, v: q.get_queue_metrics(access_class=v), ["\x00"]),
    "allocations": (lambda q, v: q.list_scheduler_allocations(filters=v),
                    [{}, {"a": {}}, {"a": ALIASED}]),
    "mode": (lambda q, v: q.shutdown(mode=v), []),
    "shutdown timeout": (lambda q, v: q.shutdown(timeout_s=v), [0, 1.5]),
    "reconcile": (lambda q, v: q.reconcile_runtime_state(reason=v), ["\x00"]),
    "R1 read": (lambda q, v: q.revision1.read_cq(v), []),
    "R1 delete": (lambda q, v: q.revision1.delete_circuit(v), ["\x00"]),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CALLS))
def test_invalid_argument_is_refused_without_effect(qpm: QPM, name: str) -> None:
    call, fine = CALLS[name]
    before = state(qpm)
    for value in JUNK:
        if not any(type(value) is type(each) and value == each for each in fine):
            fails(contract.QPMError, "", call, qpm, value)
    assert state(qpm) == before


def test_unknown_objects_and_missing_ids_are_refused(qpm: QPM) -> None:
    for call in (
        lambda: qpm.get_device_info(lib="elsewhere"),
        lambda: qpm.get_coupling_graph("cal-1"),
        lambda: qpm.get_queue_metrics(device_id="elsewhere"),
    ):
        assert fails(contract.UnknownObjectError, "", call).defw_name == "DEFwNotFound"
    for call in (qpm.task_status, qpm.cancel_task):
        fails(contract.QPMError, "neither cid nor qtask_id", call)
    fails(contract.QPMError, "needs a reason", qpm.reconcile_runtime_state)


@pytest.mark.parametrize("value", [HUGE, ALIASED, NESTED, {"a": ALIASED}, "\ud800"], ids=type)
def test_reservation_requests_with_huge_values_are_answered(qpm: QPM, value: Any) -> None:
    for field in ("request_id", "scope_id", "owner", "workload_kind", "ttl_ns", "workers"):
        assert qpm.evaluate(request={field: value})["status"] in ("rejected", "accepted")
    for table in ({"task_class": {"shots": value}}, {"workload": {"shots": value}}):
        assert qpm.evaluate(request=table)["status"] == "rejected"
    decision = qpm.reserve(request={"note": value, "launcher": {"allocation_id": value}})
    assert decision["status"] == "accepted"
    (record,) = qpm.list_reservations(filters={"reservation_id": decision["reservation_id"]})
    assert all(len(text) <= 256 for text in record["request_metadata"].values())
    assert qpm.list_reservations(filters={"request_metadata": value, "job_id": value}) == []
    qpm.release(reservation_id=decision["reservation_id"])


def test_number_of_registrations_is_limited(qpm: QPM) -> None:
    for number in range(MAX_REGISTRATIONS):
        qpm.register_event_notification(Endpoint(), 1, f"c{number}")
    for evtype in (1, "completion"):
        with pytest.raises(contract.OutOfResourcesError, match="the limit is 1024"):
            qpm.register_event_notification(Endpoint(), evtype, "one more")


@pytest.fixture
def played(peer: Peer) -> Iterator[QPM]:
    peer.finishes = False  # no result is sent before it is asked for
    with simenv.Client(peer) as client:
        yield client.qpm


@pytest.fixture
def impatient(impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (telemetry, status):
        monkeypatch.setattr(module, "HEARING_S", 0.3)
    monkeypatch.setattr(completion_queues, "REPEAT_S", 0.05)


def says(peer: Peer, state: TaskState | None) -> None:
    """The service's answer to how tasks stand; None: it knows none of them."""

    def stand(message: m.FromClient) -> list[m.ToClient]:
        assert isinstance(message, m.GetTasks)
        infos = [
            TaskInfo(task_name(number), "", "main", state, 1, 0.0, 2, 200, "", "")
            for number in message.tasks
            if state is not None
        ]
        return [m.Queue(message.request, len(infos), infos)]

    peer.on(m.GetTasks, stand)


@pytest.mark.usefixtures("impatient")
def test_lost_result_is_requested_again_by_polling(played: QPM, peer: Peer) -> None:
    says(peer, TaskState.RUNNING)
    assert completion(played, played.async_run(info(BELL))["cid"])["rc"] == 0


@pytest.mark.usefixtures("impatient")
def test_lost_result_is_requested_again_and_pushed(played: QPM) -> None:
    endpoint = Endpoint()
    played.register_event_notification(endpoint, 1, "q")
    cid = played.async_run(info(BELL))["cid"]
    assert endpoint.get().payload["cid"] == cid


@pytest.mark.usefixtures("impatient")
def test_circuit_unknown_to_service_is_reconciled_as_failed(played: QPM, peer: Peer) -> None:
    says(peer, None)
    peer.on(m.WatchResults, lambda message: [])
    number = played.async_run(info(BELL))["qtask_id"]
    result = played.reconcile_runtime_state(reason="after a loss")
    assert result["provider_handle_faults"] == [number]
    (fault,) = played._audit.faults()
    assert (fault.kind, fault.qtask_id) == ("provider-handle", number)
    answer = played.task_status(qtask_id=number)
    assert (answer["outcome"], answer["reason"]) == ("UNKNOWN", "not-found")
    peer.on(m.WatchResults, lambda message: [m.UnknownTasks(message.request, list(message.tasks))])
    answer = played.task_status(qtask_id=number)
    assert answer["outcome"] == "FAILED"
    assert "does not know task" in answer["error"]


@pytest.mark.usefixtures("impatient")
def test_polling_returns_all_completions_after_service_restart(played: QPM, peer: Peer) -> None:
    single = played.revision1
    names = [single.async_run(info(BELL)) for _ in range(3)]
    values = {played.async_run(info(BELL))["qtask_id"] for _ in range(3)}
    peer.restart()
    assert {until(lambda: polled(single, None))["cid"] for _ in names} == set(names)
    assert {completion(played)["qtask_id"] for _ in values} == values


@pytest.mark.usefixtures("impatient")
def test_polling_silent_service_raises_not_ready_error(played: QPM, peer: Peer) -> None:
    single = played.revision1
    cid = single.async_run(info(BELL))
    assert polled(single, cid) is None
    peer.silent = True

    def refused() -> bool:
        try:
            return bool(polled(single, cid))
        except contract.NotReadyError:
            return True

    until(refused)
    fails(contract.NotReadyError, "", played.read_cq)
    peer.silent, peer.finishes = False, True
    peer.restart()

    def back() -> Any:
        try:
            return polled(single, cid)
        except contract.NotReadyError:
            return None

    assert until(back)["rc"] == 0


@pytest.mark.usefixtures("impatient")
def test_completion_that_arrives_during_poll_is_returned_by_it(played: QPM, peer: Peer) -> None:
    says(peer, TaskState.DONE)
    answer = played.read_cq(played.async_run(info(BELL))["cid"])
    assert (answer["outcome"], answer["completion_ready"]) == ("COMPLETED", True)


def polled(single: SingleQPM, cid: str | None) -> Any:
    try:
        return single.read_cq(cid)
    except contract.InProgressError:
        return None


@pytest.mark.usefixtures("impatient")
def test_reconciliation_finds_circuit_that_ended_without_notice(played: QPM, peer: Peer) -> None:
    says(peer, TaskState.DONE)
    number = played.async_run(info(BELL))["qtask_id"]
    assert played.reconcile_runtime_state(reason="after a pause")["stale_runtime_tasks"] == [number]
    assert played.task_status(qtask_id=number)["lifecycle_state"] == "completed"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("word", "outcome", "reason"),
    [
        ("final", "COMPLETED", "already-completed"),
        ("cancelling", "CANCEL_PENDING", None),
        ("cancelled", "CANCELLED", None),
        ("unknown", "UNKNOWN", "not-found"),
    ],
)
def test_cancel_reply(played: QPM, peer: Peer, word: str, outcome: str, reason: str | None) -> None:
    if word == "unknown":
        peer.on(m.WatchResults, lambda message: [m.UnknownTasks(message.request, [])])
    peer.on(m.Cancel, lambda message: [m.Cancelled(message.request, [word] * len(message.tasks))])
    answer = played.cancel_task(played.async_run(info(BELL))["cid"])
    assert (answer["outcome"], answer.get("reason")) == (outcome, reason)


def test_polling_asks_once(played: QPM, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "SEEN_S", 60.0)
    says(peer, TaskState.RUNNING)
    cid = played.async_run(info(BELL))["cid"]
    answers = [played.read_cq(cid) for _ in range(100)]
    assert {answer["lifecycle_state"] for answer in answers} == {"submitted"}
    assert len(peer.of(m.GetTasks)) == 1


def prepared() -> QuantumCircuit:
    circuit = QuantumCircuit(3, 3)
    circuit.h(0)
    circuit.unitary(random_unitary(4, seed=3), [1, 2])
    circuit.cx(0, 1)
    circuit.barrier()
    circuit.rz(0.3, 2)
    return circuit


def test_only_final_measurements_are_removed(env: simenv.Client) -> None:
    circuit = prepared()
    expected = Statevector(circuit).data
    circuit.measure([2, 0], [0, 1])
    circuit.barrier()
    circuit.measure(1, 2)
    stripped = programs.without_final_measurements(load(circuit).program)
    assert "measure" not in stripped.names
    vector = env.run(stripped, shots=None, outputs=("statevector",)).statevector
    assert abs(np.vdot(vector, expected)) == pytest.approx(1.0)


def test_removal_of_mid_circuit_or_conditional_measurement_is_refused() -> None:
    used_again = prepared()
    used_again.measure(0, 0)
    used_again.x(0)
    with pytest.raises(ProgramError, match="qubit 0, which is used again"):
        programs.without_final_measurements(load(used_again).program)
    conditional = QuantumCircuit(1, 1)
    conditional.measure(0, 0)
    with conditional.if_test((conditional.clbits[0], 1)):
        conditional.x(0)
    with pytest.raises(ProgramError, match="under a condition"):
        programs.without_final_measurements(load(conditional).program)


def test_unwritten_clbits_are_counted_as_zero() -> None:
    assert programs.unwritten(load(QuantumCircuit(2)).program, 7) == {}
    assert programs.unwritten(load(QuantumCircuit(2, 2)).program, 7) == {"00": 7}


X = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; x q[0]; measure q -> c;'


def test_factor_that_is_no_number_is_refused_with_its_component() -> None:
    info = {"qasm": X, "num_shots": 10, "noise": {"gate.depolarizing": "a"}}
    fails(ExecutionError, r"gate.depolarizing = 'a'", requests.read_run, info)


@pytest.mark.parametrize("value", [np.float64(0.5), np.zeros(2), [0.5], b"{}", {1: 2.0}, ""])
def test_value_of_another_type_is_refused_with_those_that_a_host_can_send(value: object) -> None:
    with pytest.raises(ExecutionError, match='a recipe such as "aer"') as caught:
        requests.read_run({"qasm": X, "num_shots": 10, "noise": value})
    assert "bytes" not in caught.value.hint


def test_noise_model_of_a_host_is_refused_by_name() -> None:
    document = {"kind": "channels", "name": "mine", "channels": []}
    with pytest.raises(ExecutionError, match="noise models of your own are not taken here"):
        requests.read_run({"qasm": X, "num_shots": 10, "noise": document})
