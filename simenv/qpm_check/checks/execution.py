"""Checks of the binding `execution`: run, status, cancellation."""

from __future__ import annotations

import time
from typing import Any

from simenv.qpm_check.contract.outcomes import CheckSkipped, expect, short_repr
from simenv.qpm_check.harness import circuits, shapes
from simenv.qpm_check.harness.check import expect_equal, row
from simenv.qpm_check.harness.clients import counts_of
from simenv.qpm_check.harness.session import LENGTHENED, CheckSession

AT_ONCE_S = 1.0
LATE_S = 0.05
_CANCELLING = ("CANCELLED", "CANCEL_PENDING", "COMPLETED")


@row("execution.sync", "sync_run: COMPLETED, with the record under result")
def sync(session: CheckSession) -> None:
    answer = session.q.sync_run(session.info(circuits.FIRST_BIT), **session.reservation_kwargs)
    envelope = shapes.stands("sync_run", answer, "completed")
    record = shapes.has("its result", envelope.get("result"), shapes.COMPLETION)
    expect_equal("cid of the record", record["cid"], envelope["cid"])
    expect_equal("qtask_id of the record", record["qtask_id"], envelope["qtask_id"])
    counts_of(record)


@row("execution.async", "async_run: ACCEPTED, with cid and qtask_id")
def accepted(session: CheckSession) -> None:
    _, answer = session.accept(session.info())
    envelope = shapes.stands("async_run", answer, *shapes.ORDER[:-1], "completed")
    expect(envelope["qtask_id"] >= 1, f"qtask_id is {envelope['qtask_id']}: they count from 1")


@row("execution.at-once", "async_run answers before a long circuit is done")
def at_once(session: CheckSession) -> None:
    text = session.long
    begun = time.monotonic()
    _, answer = session.accept(session.info(text, num_shots=session.long_shots))
    elapsed_s = time.monotonic() - begun
    state = answer.get("lifecycle_state")
    expect(
        state not in shapes.ENDS, f"async_run answered {state!r} after {elapsed_s:.2f} s: it waited"
    )


@row("execution.envelope", "envelopes: the contract's fields, state said twice, None left out")
def envelopes(session: CheckSession) -> None:
    shapes.envelope("sync_run", session.q.sync_run(session.info(), **session.reservation_kwargs))
    cid, answer = session.accept(session.info())
    seen = shapes.envelope("async_run", answer)
    access = shapes.has(
        "telemetry", seen["telemetry"],
        {"access_class": str, "object": str, "field_visibility": dict},
    )  # fmt: skip
    expect_equal("access_class", access["access_class"], "caller-owned")
    expect_equal("object", access["object"], "managed-qtask")
    shapes.envelope("task_status", session.status(cid))
    if "wait_estimate" in seen:
        shapes.has("wait_estimate", seen["wait_estimate"], {"available": bool})
    if session.reservation is not None:
        expect_equal("reservation_id", seen.get("reservation_id"), session.reservation)


@row("execution.ids", "cids and qtask ids are never given twice")
def ids(session: CheckSession) -> None:
    answers = [session.accept(session.info())[1] for _ in range(8)]
    for name in ("cid", "qtask_id"):
        seen = {answer[name] for answer in answers}
        expect(len(seen) == len(answers), f"{len(answers)} circuits have {len(seen)} {name}s")


@row("execution.order", "states come in the contract's order")
def state_order(session: CheckSession) -> None:
    cid = session.submit(session.long, num_shots=session.long_shots)
    seen: list[str] = []

    def ended() -> bool:
        state = shapes.stands("task_status", session.status(cid), *shapes.ORDER)["lifecycle_state"]
        if not seen or seen[-1] != state:
            seen.append(state)
        return bool(state == "completed")

    session.until(ended, "completed")
    places = [shapes.ORDER.index(state) for state in seen]
    expect(places == sorted(places), f"the states came as {' -> '.join(seen)}")
    expect("submitted" in seen, f"a long circuit was never 'submitted': {' -> '.join(seen)}")


@row("execution.queued", "what waits says so, and runs later")
def queued(session: CheckSession) -> None:
    cid = session.waiting()
    shapes.stands("task_status", session.status(cid), *shapes.ORDER)


@row("execution.retained", "what has ended can be asked for until it is read")
def retained(session: CheckSession) -> None:
    envelope = session.completed()
    for _ in range(2):
        answer = session.q.task_status(qtask_id=envelope["qtask_id"], **session.reservation_kwargs)
        shapes.stands("task_status", answer, "completed")
    session.completion(envelope["cid"])


@row("execution.status-after-read", "task_status of a task whose completion was read: COMPLETED")
def status_after_read(session: CheckSession) -> None:
    cid = session.submit()
    session.completion(cid)
    answer = session.status(cid)
    if answer.get("outcome") == "UNKNOWN":
        return  # the QPM keeps no ended tasks
    shapes.stands("task_status", answer, "completed")


@row("execution.unknown", "task_status of an unknown cid: UNKNOWN")
def unknown(session: CheckSession) -> None:
    answer = session.q.task_status("no-such-circuit", **session.reservation_kwargs)
    shapes.outcome("task_status", answer, "UNKNOWN")


def _late(session: CheckSession, **how: bool) -> Any:
    """Answer of a run that exceeds its timeout; the circuit is lengthened while it ends in time."""
    for _ in range(LENGTHENED):
        info = session.info(session.long, num_shots=session.long_shots)
        answer = session.q.sync_run(info, timeout=LATE_S, **how, **session.reservation_kwargs)
        done = isinstance(answer, dict) and answer.get("outcome") == "COMPLETED"
        if not (done and session.lengthen()):
            break
    return answer


@row("execution.sync-timeout", "sync_run beyond its timeout: TIMEOUT; the task stays")
def sync_timeout(session: CheckSession) -> None:
    answer = _late(session)
    envelope = shapes.outcome("sync_run", answer, "TIMEOUT", "sync-timeout")
    late = shapes.has(
        "timeout", envelope.get("timeout"), {"reason": str, "message": str, "timestamp_ns": int}
    )
    expect_equal("reason of the timeout", late["reason"], "sync-timeout")
    record = session.completion(envelope["cid"])
    expect_equal("rc of the task that stayed", record["rc"], 0)


@row("execution.cancel-on-timeout", "sync_run with cancel_on_timeout: CANCELLED")
def cancel_on_timeout(session: CheckSession) -> None:
    envelope = shapes.envelope("sync_run", _late(session, cancel_on_timeout=True))
    expect_equal("outcome of sync_run", envelope["outcome"], "CANCELLED")
    _is_cancelled(session, envelope["cid"])


@row("execution.cancel-queued", "cancel_task of what waits: CANCELLED, and it never runs")
def cancel_queued(session: CheckSession) -> None:
    cid = session.waiting()
    answer = session.q.cancel_task(cid, reason="checked", **session.reservation_kwargs)
    shapes.outcome("cancel_task", answer, "CANCELLED")
    record = _is_cancelled(session, cid)
    expect_equal("exec_time of what never ran", float(record["exec_time"]), -1.0)


@row(
    "execution.cancel-running",
    "cancel_task of what runs: CANCELLED, or CANCEL_PENDING first",
)
def cancel_running(session: CheckSession) -> None:
    for _ in range(2 * LENGTHENED):
        cid = session.running()
        envelope = shapes.envelope(
            "cancel_task", session.q.cancel_task(cid, **session.reservation_kwargs)
        )
        message = envelope["outcome"]
        expect(message in _CANCELLING, f"cancel_task: outcome {message!r}")
        if message == "CANCEL_PENDING":
            expect(
                "provider_cancel_status" in envelope,
                "CANCEL_PENDING without provider_cancel_status",
            )
        record = _ended(session, cid)
        if record["rc"] != 0 or not session.lengthen():  # it may have ended just before
            break
    if message == "COMPLETED":
        raise CheckSkipped("it was done before the cancel came")
    _says_cancelled(record)


@row("execution.cancel-completed", "cancel_task of what is done: COMPLETED, already-completed")
def cancel_completed(session: CheckSession) -> None:
    cid = session.submit()
    session.await_state(cid, "completed")
    answer = session.q.cancel_task(cid, **session.reservation_kwargs)
    shapes.outcome("cancel_task", answer, "COMPLETED", "already-completed")
    expect_equal("rc of what was done before", session.completion(cid)["rc"], 0)


@row("execution.cancel-cancelled", "cancel_task twice: CANCELLED, already-cancelled")
def cancel_cancelled(session: CheckSession) -> None:
    cid = session.waiting()
    session.q.cancel_task(cid, **session.reservation_kwargs)
    session.await_state(cid, "cancelled")
    answer = session.q.cancel_task(cid, **session.reservation_kwargs)
    shapes.outcome("cancel_task", answer, "CANCELLED", "already-cancelled")


@row("execution.cancel-unknown", "cancel_task of an unknown cid: UNKNOWN, not-found")
def cancel_unknown(session: CheckSession) -> None:
    answer = session.q.cancel_task("no-such-circuit", **session.reservation_kwargs)
    shapes.outcome("cancel_task", answer, "UNKNOWN", "not-found")


@row("execution.cancel-by-number", "cancel_task finds a task by its qtask_id too")
def cancel_by_number(session: CheckSession) -> None:
    number = session.status(session.waiting())["qtask_id"]
    answer = session.q.cancel_task(qtask_id=number, **session.reservation_kwargs)
    shapes.outcome("cancel_task", answer, "CANCELLED")


@row("execution.bad-sync", "an unreadable circuit: sync_run raises DEFwExecutionError")
def bad_sync(session: CheckSession) -> None:
    session.expect_refusal(
        "sync_run",
        lambda: session.q.sync_run(session.info(circuits.UNREADABLE), **session.reservation_kwargs),
    )


@row("execution.bad-async", "an unreadable circuit: a completion with rc not 0, no counts")
def bad_async(session: CheckSession) -> None:
    for text in (circuits.UNREADABLE, circuits.NO_QASM):
        record = session.completion(session.submit(text))
        expect(record["rc"] != 0, "rc is 0, though nothing could be run")
        expect_equal("outcome", record.get("outcome"), "FAILED")
        expect(
            isinstance(record.get("reason"), str), f"reason is {short_repr(record.get('reason'))}"
        )
        expect_equal("counts of a failure", counts_of(record), {})


@row("execution.formats", "circuit {format, data} wins over qasm; QPY is read")
def formats(session: CheckSession) -> None:
    text = {"format": "openqasm2", "data": circuits.FIRST_BIT}
    _gives(session, text, "001")
    offered = session.subject.card().properties or {}
    if "qpy" in offered.get("circuit_formats", ("qpy",)):
        _gives(session, {"format": "qpy", "data": circuits.FIRST_BIT_QPY}, "001")


@row("execution.unknown-format", "an unknown format: DEFwExecutionError that names it")
def unknown_format(session: CheckSession) -> None:
    info = session.info(circuit={"format": "quil-9", "data": "X 0"})
    error = session.expect_refusal(
        "async_run", lambda: session.q.async_run(info, **session.reservation_kwargs)
    )
    expect("quil-9" in str(error), f"the error does not name the format: {error}")


@row("execution.scope", "who asks is not taken from info: those keys are dropped")
def scope(session: CheckSession) -> None:
    foreign = ("owner", "job_id", "allocation_id", "project_id", "session_id", "scope_id",
               "target_device_id", "workload", "policy", "run_context", "token")  # fmt: skip
    record = session.run(**dict.fromkeys(foreign, "somebody-else"))
    expect_equal("rc", record["rc"], 0)


@row("execution.timing", "get_task_timing: the seven times of a qtask")
def timing(session: CheckSession) -> None:
    envelope = session.completed()
    answer = session.q.get_task_timing(task_id=envelope["qtask_id"], **session.reservation_kwargs)
    result = shapes.has(
        "get_task_timing", answer, {"task_id": int, "lifecycle_state": str, "timing": dict}
    )
    expect("reservation_id" in result, "get_task_timing has no 'reservation_id'")
    expect_equal("task_id", result["task_id"], envelope["qtask_id"])
    expect(bool(result["timing"]), "timing of what has run is empty")


@row("execution.metadata", "get_task_metadata: an envelope with provider_metadata")
def metadata(session: CheckSession) -> None:
    envelope = session.completed()
    answer = session.q.get_task_metadata(task_id=envelope["qtask_id"], **session.reservation_kwargs)
    result = shapes.envelope("get_task_metadata", answer)
    shapes.has("get_task_metadata", result, {"task_id": int, "provider_metadata": dict})
    if result["provider_metadata"].get("available") is False:
        shapes.has("provider_metadata", result["provider_metadata"], {"reason": str})


@row("execution.delete", "delete_circuit: None, also of an unknown one")
def delete(session: CheckSession) -> None:
    cid = session.submit(session.long, num_shots=session.long_shots)
    for what in (cid, "no-such-circuit"):
        answer = session.q.delete_circuit(what, **session.reservation_kwargs)
        expect(answer is None, f"delete_circuit answered {short_repr(answer)}, not None")
    answer = session.q.read_cq(cid, **session.reservation_kwargs)
    expect(answer["completion_ready"] is False, "a deleted circuit has a completion")


def _gives(session: CheckSession, circuit: dict[str, Any], key: str) -> None:
    record = session.run(circuits.BELL, num_qubits=3, circuit=circuit)
    counts = counts_of(record)
    expect(counts.get(key, 0) > 0, f"circuit in {circuit['format']}: {counts}, not {key}")


def _ended(session: CheckSession, cid: str) -> dict[str, Any]:
    expected = f"the completion of a cancelled task {cid}"
    entries: dict[str, Any] = session.until(lambda: session.poll(cid), expected)
    return entries


def _is_cancelled(session: CheckSession, cid: str) -> dict[str, Any]:
    """Return the completion of a circuit; it must state the cancellation."""
    record = _ended(session, cid)
    _says_cancelled(record)
    return record


def _says_cancelled(record: dict[str, Any]) -> None:
    expect(record["rc"] != 0, "rc of what was cancelled is 0")
    expect_equal("outcome of what was cancelled", record.get("outcome", "CANCELLED"), "CANCELLED")
