"""Requirements of applications of revision 2, one row each, through DEFw's directory."""

import time
from collections.abc import Callable
from typing import Any

from application import FLIP, run_rows, wide_text
from defw import me
from defw_app_util import defw_connect_service_by_name, defw_get_directory_service
from defw_event_baseapi import BaseEventAPI
from defw_exception import DEFwExecutionError

INFO = {"qasm": FLIP, "num_qubits": 2, "num_shots": 10}
directory = defw_get_directory_service()


def bound(name: str) -> Any:
    (result,) = defw_connect_service_by_name(
        directory, "QPM", service_type="qfw.qpm", binding_name=name
    )
    return result


execution, control, admission = bound("execution"), bound("control"), bound("admission")
telemetry, scheduler, policy = bound("telemetry"), bound("scheduler"), bound("admission-policy")


def read(cid: str | None, **more: Any) -> dict[str, Any]:
    end = time.monotonic() + 30
    while True:
        answer = execution.read_cq(cid, **more)
        if answer["completion_ready"]:
            return answer
        assert time.monotonic() < end, answer
        time.sleep(0.02)


def ready() -> None:
    assert control.is_ready()["ready"] is True
    assert control.test()["status"] == "ok"


def sync_run() -> None:
    answer = execution.sync_run(INFO)
    assert answer["outcome"] == "COMPLETED", answer
    assert answer["result"]["result"]["counts"] == {"01": 10}


def async_and_read() -> None:
    cid = execution.async_run(INFO)["cid"]
    assert read(cid)["cid"] == cid


def under_a_reservation() -> None:
    number = admission.reserve(request={"num_qubits": 2})["reservation_id"]
    cid = execution.async_run(INFO, number)["cid"]
    assert read(cid, reservation_id=number)["reservation_id"] == number
    assert admission.release(reservation_id=number)["status"] == "accepted"
    try:
        execution.async_run(INFO, number)
    except DEFwExecutionError:
        return
    raise AssertionError("it ran under a released reservation")


def unknown_device_is_rejected_by_code() -> None:
    answer = admission.evaluate(request={"target_device_id": "nowhere"})
    assert (answer["status"], answer["reason"]) == ("rejected", "reason-2"), answer


def fifty_events() -> None:
    events = BaseEventAPI()
    events.register_external()
    execution.register_event_notification(me.my_endpoint(), 1, events.class_id())
    cids = {execution.async_run(INFO)["cid"] for _ in range(50)}
    names: set[str] = set()
    end = time.monotonic() + 60
    while names != cids and time.monotonic() < end:
        names |= {event.get_event()["cid"] for event in events.get()} & cids
        time.sleep(0.05)
    assert names == cids, f"{len(names)} of 50"
    assert all(read(cid)["cid"] == cid for cid in cids)


def status_after_reading() -> None:
    cid = execution.async_run(INFO)["cid"]
    read(cid)
    assert execution.task_status(cid)["outcome"] == "COMPLETED"
    result = execution.read_cq(cid)
    assert result["reason"] == "completion-no-longer-retained", result


def late_and_cancelled() -> None:
    info = {**INFO, "qasm": wide_text(24, 40), "num_qubits": 24}
    answer = execution.sync_run(info, timeout=0.3, cancel_on_timeout=True)
    assert answer["outcome"] == "CANCELLED", answer


def bad_circuit_is_a_record() -> None:
    for text in ("this is not qasm", "OPENQASM 2.0;\nnothing;\n"):
        answer = execution.async_run({**INFO, "qasm": text})
        assert answer["outcome"] == "FAILED", answer
        assert read(answer["cid"])["rc"] != 0


def errors_carry_no_stack() -> None:
    try:
        execution.sync_run({**INFO, "noise": {"p": 0.1}})
    except DEFwExecutionError as error:
        message = str(error)
    else:
        raise AssertionError("noise was ignored")
    assert "noise" in message, message
    assert "simenv/" not in message, message


def width_is_an_estimate() -> None:
    assert execution.sync_run({**INFO, "num_qubits": 0})["outcome"] == "COMPLETED"


def device_records() -> None:
    device = telemetry.get_device_info()
    assert device["schema"] == "qhw-device-v1", device
    assert "openqasm2" in device["metadata"]["circuit_formats"]


def scheduler_and_policy() -> None:
    assert scheduler.get_scheduler_status()["scheduler_available"] is True
    assert policy.get_admission_policy()["configuration"]["policy"]["name"]


def timing() -> None:
    answer = execution.async_run(INFO)
    read(answer["cid"])
    settings = execution.get_task_timing(task_id=answer["qtask_id"])
    assert settings["timing"]["completion_time"] >= settings["timing"]["creation_time"] > 0


ROWS: list[Callable[[], None]] = [
    ready, sync_run, async_and_read, under_a_reservation, unknown_device_is_rejected_by_code,
    fifty_events, status_after_reading, late_and_cancelled, bad_circuit_is_a_record,
    errors_carry_no_stack, width_is_an_estimate, device_records, scheduler_and_policy, timing,
]  # fmt: skip


def run() -> None:
    run_rows(ROWS)
