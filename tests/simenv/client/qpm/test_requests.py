"""Every field of every request, mutated: a typed answer, and nothing has changed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hosts import BELL, Endpoint, info

from simenv.client.qpm.provider import QPM
from simenv.client.qpm.runtime.notifications import MAX_REGISTRATIONS
from simenv.qpm.errors import ExecutionError, OutOfResourcesError, QPMError, UnknownObjectError


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
                with pytest.raises(QPMError):
                    run(info(**{field: value}))
    assert state(qpm) == before


@pytest.mark.parametrize("given", JUNK, ids=lambda value: type(value).__name__)
def test_invalid_info_is_refused_without_effect(qpm: QPM, given: Any) -> None:
    before = state(qpm)
    for run in (qpm.sync_run, qpm.async_run, qpm.revision1.sync_run, qpm.revision1.async_run):
        with pytest.raises(QPMError):
            run(given)
    assert state(qpm) == before


def test_additional_fields_of_host_are_ignored(qpm: QPM) -> None:
    extra = {
        "np": 4, "hosts": ["a"], "qfw_backend": None, "owner": "somebody", "policy": {"x": 1},
        "job_id": 5, "session_id": None, "run_context": [], "unheard": object(), "lib": None,
        "priority": None, "qubit_mapping": None,
    }  # fmt: skip
    assert qpm.sync_run(info(**extra))["outcome"] == "COMPLETED"


def test_width_is_taken_from_circuit_instead_of_num_qubits_field(qpm: QPM) -> None:
    for stated in (0, 1, 2, 60):
        done = qpm.sync_run(info(num_qubits=stated))
        assert set(done["result"]["result"]["counts"]) == {"00", "11"}
        assert qpm.revision1.sync_run(info(num_qubits=stated))["rc"] == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("noise", {"depolarizing": 0.01}),
        ("noise", True),
        ("noise", "on"),
        ("verbatim", True),
        ("qubit_mapping", [1, 0]),
    ],
)
def test_unsupported_option_is_refused_by_name(qpm: QPM, name: str, value: Any) -> None:
    for run in (qpm.sync_run, qpm.async_run, qpm.revision1.sync_run, qpm.revision1.async_run):
        with pytest.raises(ExecutionError, match=name) as caught:
            run(info(**{name: value}))
        assert caught.value.reason == "provider-unsupported"
    assert qpm.sync_run(info(**{name: None}))["outcome"] == "COMPLETED"
    assert qpm.sync_run(info(verbatim=False, noise={}))["outcome"] == "COMPLETED"
    assert qpm.sync_run(info(noise=False))["outcome"] == "COMPLETED"


def test_qasm_field_is_not_opened_as_path(qpm: QPM) -> None:
    for path in ("/etc/hostname", "examples/bell.qasm"):
        with pytest.raises(QPMError, match="no version line"):
            qpm.sync_run(info(path))


def test_text_that_is_not_circuit_gives_failed_record(qpm: QPM) -> None:
    for text in ("this is not qasm", "\x00"):
        refused = qpm.async_run(info(text))
        assert (refused["outcome"], refused["reason"]) == ("FAILED", "provider-submission-failed")
        assert qpm.read_cq(refused["cid"])["rc"] == 1
        record = qpm.revision1.read_cq(qpm.revision1.async_run(info(text)))
        assert record["rc"] == 1
        assert isinstance(record["result"], str)


def test_unsupported_circuit_format_is_named_in_error(qpm: QPM) -> None:
    with pytest.raises(QPMError, match=r"'pulse'.*cannot be read"):
        qpm.sync_run(info(circuit={"format": "pulse", "data": BELL}))
    for data in ("no base64 !", "AAAA", None, 7):
        with pytest.raises(QPMError):
            qpm.sync_run(info(circuit={"format": "qpy", "data": data}))


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
            with pytest.raises(QPMError):
                call(qpm, value)
    assert state(qpm) == before


def test_unknown_pool_or_calibration_raises_unknown_object_error(qpm: QPM) -> None:
    for call in (
        lambda: qpm.get_device_info(lib="elsewhere"),
        lambda: qpm.get_coupling_graph("cal-1"),
        lambda: qpm.get_queue_metrics(device_id="elsewhere"),
    ):
        with pytest.raises(UnknownObjectError) as raised:
            call()
        assert raised.value.defw_name == "DEFwNotFound"


def test_lookup_without_id_is_refused(qpm: QPM) -> None:
    for call in (qpm.task_status, qpm.cancel_task):
        with pytest.raises(QPMError, match="neither cid nor qtask_id"):
            call()
    with pytest.raises(QPMError, match="needs a reason"):
        qpm.reconcile_runtime_state()


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
        with pytest.raises(OutOfResourcesError, match="the limit is 1024"):
            qpm.register_event_notification(Endpoint(), evtype, "one more")
