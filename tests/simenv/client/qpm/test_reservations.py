"""Reservations of a host, end to end over a real service."""

from pathlib import Path
from typing import Any

import pytest
from failing import fails
from hosts import BAD, LONG, Endpoint, completion, info
from live import Live
from waiting import until

import simenv
from simenv.client.qpm.provider import QPM
from simenv.qpm.contract import ExecutionError, QPMError
from simenv.qpm.methods import revision2_methods

NOBODYS = 2**63 + 7


def reserve(qpm: QPM, **request: Any) -> int:
    decision = qpm.reserve(request=request)
    assert decision["status"] == "accepted", decision
    number: int = decision["reservation_id"]
    return number


def read(qpm: QPM, cid: str | None, number: int) -> dict[str, Any]:
    def ready() -> dict[str, Any] | None:
        answer = qpm.read_cq(cid, reservation_id=number)
        assert answer["outcome"] != "INVALID_RESERVATION"
        return answer if answer["completion_ready"] else None

    table: dict[str, Any] = until(ready)
    return table


def test_reservation_record_holds_requested_fields_without_secrets(qpm: QPM) -> None:
    table = {
        "request_id": "r-1", "owner": {"username": "ada"}, "job_id": 17, "ttl_ns": 10**12,
        "workload_kind": "hybrid", "priority": 3, "unheard": {"a": [1]}, "num_shots": 9,
        "credential_ref": "hidden", "run_context": {"api_token": "hidden", "a": [{"Password": 1}]},
        "task_class": {"count": 2, "qubit_count": 3},
    }  # fmt: skip
    assert qpm.evaluate(request=table)["reservation_id"] is None
    decision = qpm.reserve(request=table)
    number = decision["reservation_id"]
    assert qpm.reserve(request=table)["reservation_id"] == number, "a repeat is a repeat"
    record = qpm.get_reservation(reservation_id=number)
    metadata = {"priority": "3", "unheard": '{"a": [1]}', "run_context": '{"a": [{}]}'}
    assert record["request_metadata"] == metadata
    assert record["device_id"] == decision["device_id"] == qpm.get_backend_info()["target_id"]
    cases = (
        ({"job_id": 17}, [number]),
        ({"device_id": "nowhere"}, []),
        ({"state": "released"}, []),
    )
    for filters, value in cases:
        listed = qpm.list_reservations(filters={"user_id": "ada", **filters})
        assert [each["reservation_id"] for each in listed] == value
    qpm.release(reservation_id=number)
    fails(ExecutionError, "is over", qpm.renew, reservation_id=number)


def test_completions_are_read_only_under_their_own_reservation(qpm: QPM) -> None:
    got, other = reserve(qpm), reserve(qpm)
    endpoint = Endpoint()
    qpm.register_event_notification(endpoint, 1, "q", reservation_id=other)
    cids = {number: qpm.async_run(info(), reservation_id=number)["cid"] for number in (got, other)}
    assert read(qpm, None, other)["cid"] == cids[other]
    assert endpoint.get().payload["reservation_id"] == other
    for poll in (qpm.read_cq, qpm.peek_cq, qpm.task_status, qpm.cancel_task, qpm.delete_circuit):
        answer = poll(cids[got], reservation_id=other)
        assert (answer["outcome"], answer["reason"]) == (
            "INVALID_RESERVATION", "reservation-mismatch",
        )  # fmt: skip
    assert qpm.read_cq()["outcome"] == "IN_PROGRESS", "it runs under one: nobody else reads it"
    qpm.release(reservation_id=got)
    record = read(qpm, cids[got], got)
    assert (record["reservation_id"], record["rc"]) == (got, 0)
    assert endpoint.empty()


def test_cancel_and_delete_require_reservation_id(env: simenv.Client, busy: None) -> None:
    qpm = env.qpm_with(reservations="required")
    number = reserve(qpm)
    cid = qpm.async_run(info(), reservation_id=number)["cid"]
    for end in (qpm.cancel_task, qpm.delete_circuit):
        for name in (cid, "nobody"):
            answer = end(name)
            assert (answer["outcome"], answer["reason"]) == (
                "INVALID_RESERVATION", "reservation-required",
            )  # fmt: skip
    assert qpm.task_status(cid, reservation_id=number)["lifecycle_state"] == "queued"
    assert qpm.cancel_task(cid, reservation_id=number)["outcome"] == "CANCELLED"
    assert qpm.delete_circuit(cid, reservation_id=number) is None


@pytest.mark.parametrize("end", ["release", "cancel", "expiry"])
def test_released_cancelled_or_expired_reservation_is_refused(qpm: QPM, end: str) -> None:
    number = reserve(qpm, ttl_ns=10**7 if end == "expiry" else 0)
    if end == "expiry":
        until(lambda: qpm.get_reservation(reservation_id=number)["state"] == "expired")
    else:
        getattr(qpm, end)(reservation_id=number)
    before = qpm.get_service_summary()["done"], qpm.get_service_status()
    for call in (
        lambda: qpm.sync_run(info(), reservation_id=number),
        lambda: qpm.async_run(info(), reservation_id=number),
        lambda: qpm.async_run(info(BAD), reservation_id=number),
        lambda: qpm.cancel_task("x", reservation_id=number),
        lambda: qpm.delete_circuit("x", reservation_id=number),
        lambda: qpm.register_event_notification(Endpoint(), 1, "q", reservation_id=number),
    ):
        assert fails(ExecutionError, "", call).reason == "reservation-not-active"
    answer = qpm.read_cq(reservation_id=number)
    assert (answer["outcome"], answer["reason"]) == (
        "INVALID_RESERVATION", "reservation-not-active",
    )  # fmt: skip
    assert (qpm.get_service_summary()["done"], qpm.get_service_status()) == before


def test_release_cancels_running_and_queued_circuits_of_reservation(qpm: QPM) -> None:
    number = reserve(qpm)
    first = qpm.async_run(info(LONG), reservation_id=number)
    assert (first["lifecycle_state"], first["reservation_id"]) == ("capacity-held", number)
    until(
        lambda: (
            qpm.task_status(first["cid"], reservation_id=number)["outcome"] == "ACCEPTED"
            and qpm.task_status(first["cid"])["lifecycle_state"] == "submitted"
        )
    )
    second = qpm.async_run(info(LONG), reservation_id=number)["cid"]
    answer = qpm.release(reservation_id=number, reason="over")
    assert answer == {
        "status": "pending", "reservation_id": number, "reason": "provider-cancel-pending",
        "pending_qtask_ids": [first["qtask_id"]],
    }  # fmt: skip
    assert read(qpm, second, number)["outcome"] == "CANCELLED"
    assert qpm.cancel(reservation_id=number)["status"] == "pending"
    assert read(qpm, first["cid"], number)["outcome"] == "CANCELLED"
    assert qpm.cancel(reservation_id=number)["status"] == "accepted"


def test_release_with_a_scheduler_s_code_stops_what_runs(qpm: QPM) -> None:
    """QFw's gateway for Slurm takes no other answer than accepted, when a job is over."""
    number = reserve(qpm, job_id="17")
    cid = qpm.async_run(info(LONG), reservation_id=number)["cid"]
    until(lambda: qpm.task_status(cid, reservation_id=number)["lifecycle_state"] == "submitted")
    assert qpm.release(reservation_id=number, reason=1) == {
        "status": "accepted",
        "reservation_id": number,
    }
    assert read(qpm, cid, number)["outcome"] == "CANCELLED"
    assert qpm.get_reservation(reservation_id=number)["state"] == "released"


def test_reservation_is_named_as_text_and_in_info(qpm: QPM) -> None:
    number, other = reserve(qpm), reserve(qpm)
    assert qpm.sync_run(info(), reservation_id=str(number))["result"]["reservation_id"] == number
    table = {**info(), "reservation_id": other}
    refused = fails(ExecutionError, "and the call has", qpm.sync_run, table, reservation_id=number)
    assert refused.reason == "reservation-mismatch"
    for wrong in ("", "1.0", "-1", "0", "9" * 21, "\u0661", "x"):
        fails(ExecutionError, "reservation_id", qpm.sync_run, info(), reservation_id=wrong)


def test_circuit_without_reservation_is_refused_where_one_is_required(env: simenv.Client) -> None:
    qpm = env.qpm_with(reservations="required")
    for call in (lambda: qpm.sync_run(info()), lambda: qpm.async_run(info())):
        assert fails(ExecutionError, "no reservation_id", call).reason == "reservation-required"
    number = reserve(qpm)
    cid = qpm.async_run(info(), reservation_id=number)["cid"]
    for poll in (qpm.read_cq, qpm.peek_cq, qpm.task_status):
        answer = poll(cid)
        assert (answer["outcome"], answer["reason"]) == (
            "INVALID_RESERVATION", "reservation-required",
        )  # fmt: skip
    assert read(qpm, cid, number)["rc"] == 0
    assert qpm.sync_run(info(), reservation_id=number)["outcome"] == "COMPLETED"
    fails(simenv.errors.OptionError, "", env.qpm_with, reservations="perhaps")


def test_reservation_of_pool_names_that_pool_as_device(qpm: QPM) -> None:
    target = qpm.get_backend_info()["target_id"]
    for device in ("main", f"{target}/main"):
        number = reserve(qpm, target_device_id=device)
        assert qpm.get_reservation(reservation_id=number)["device_id"] == f"{target}/main"
        assert qpm.sync_run(info(), reservation_id=number)["outcome"] == "COMPLETED"
    for device in ("elsewhere", 99):
        decision = qpm.evaluate(request={"device_id": device})
        assert (decision["status"], decision["reason"]) == ("rejected", "reason-2")


def test_worker_of_bounded_reservation_serves_no_other_circuits(qpm: QPM) -> None:
    table = {"device_id": "main", "workers": 1, "bound_ns": 50_000_000}
    unsound = qpm.evaluate(request={"device_id": "main", "bound_ns": 50_000_000})
    assert (unsound["status"], unsound["reason_code"]) == ("rejected", 14)
    decision = qpm.reserve(request=table)
    assert (decision["status"], decision["bound_ns"]) == ("accepted", 50_000_000)
    number = decision["reservation_id"]
    assert qpm.reserve(request=table)["status"] != "accepted"
    cid = qpm.async_run(info())["cid"]
    assert qpm.sync_run(info(), reservation_id=number)["outcome"] == "COMPLETED"
    assert qpm.task_status(cid)["lifecycle_state"] == "queued"
    qpm.release(reservation_id=number)
    assert completion(qpm, cid)["rc"] == 0


def test_two_qpms_of_one_owner_share_reservations(qpm: QPM, live: Live) -> None:
    number = reserve(qpm, job_id="shared")
    with live.client() as client:
        other = client.qpm_with(pool="main", reservations="required")
        assert other.list_reservations(filters={"job_id": "shared"})[0]["reservation_id"] == number
        assert read(other, other.async_run(info(), reservation_id=number)["cid"], number)["rc"] == 0
        assert qpm.read_cq(reservation_id=number)["outcome"] == "IN_PROGRESS"
        assert other.release(reservation_id=number)["status"] == "accepted"
    fails(ExecutionError, "released", qpm.sync_run, info(), reservation_id=number)


FIELDS: dict[str, Any] = {
    "request_id": "r", "user_id": "u", "job_id": "j", "scope_id": "s", "device_id": None,
    "workload_kind": "quantum", "walltime_ns": 10**12, "ttl_ns": 10**12, "overhead_ns": 1,
    "classical_runtime_ns": 1, "policy": {}, "run_context": {}, "workload": {}, "workers": 0,
    "bound_ns": 0, "task_class": {}, "num_qubits": 2, "num_shots": 3,
}  # fmt: skip
WRONG: list[Any] = [True, -1, 2**63, 1.5, "x" * 300, "\ud800", b"", object(), ["a"]]


@pytest.mark.parametrize("field", [*FIELDS, "owner", "expiration_ttl_ns", "target_device_id"])
def test_invalid_field_of_reservation_request_is_rejected(qpm: QPM, field: str) -> None:
    before = len(qpm.list_reservations())
    rest = {key: value for key, value in FIELDS.items() if key not in (field, "user_id", "ttl_ns")}
    assert qpm.evaluate(request=rest | {field: FIELDS.get(field)})["status"] == "accepted"
    for wrong in WRONG:
        decision = qpm.reserve(request=rest | {field: wrong})
        assert (decision["status"], decision["decision"]) == ("rejected", 3), wrong
        assert decision["reason_code"] in (2, 4)
    assert len(qpm.list_reservations()) == before


@pytest.mark.parametrize("key", ["num_qubits", "qubits", "one_q_gates"])
def test_unknown_size_of_task_class_is_rejected_with_the_known_ones(qpm: QPM, key: str) -> None:
    decision = qpm.evaluate(request={"task_class": {key: 60, "shots": 3}})
    assert (decision["status"], decision["reason_code"]) == ("rejected", 4)
    assert key in decision["message"]
    assert "qubit_count" in decision["message"]


@pytest.mark.parametrize("given", [None, "svc", 7, [], [{}], {1: 2}, object()])
def test_request_that_is_not_mapping_is_refused(qpm: QPM, given: Any) -> None:
    for call in (qpm.evaluate, qpm.reserve):
        fails(ExecutionError, "", call, request=given)


@pytest.mark.parametrize("number", [None, 0, -1, NOBODYS, 2**64, "seven", 1.0, True, [1]])
def test_invalid_reservation_id_is_refused(qpm: QPM, number: Any) -> None:
    for name in ("get_reservation", "renew", "release", "cancel"):
        fails(QPMError, "", getattr(qpm, name), reservation_id=number)


def test_each_call_with_no_or_wrong_token_is_refused(env: simenv.Client, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("open sesame\n")
    file.chmod(0o644)
    fails(simenv.errors.ConfigError, "read by others", env.qpm_with, token_file=file)
    file.chmod(0o600)
    qpm = env.qpm_with(token_file=file)
    before = env.qpm.get_scheduler_status()
    needed = {"info": info(), "cid": "x", "ep": Endpoint(), "evtype": 1, "class_id": "q"}
    for name, arguments in revision2_methods().items():
        table = {key: needed[key] for key, _ in arguments if key in needed}
        for token in (None, "open", "open sesame "):
            error = fails(ExecutionError, "", getattr(qpm, name), **table, token=token)
            assert error.reason == "credential-binding-failed", name
    assert env.qpm.get_scheduler_status() == before
    assert qpm.is_ready(token="open sesame")["ready"]
    assert qpm.revision1.is_ready() is True
