"""Checks of the binding `execution`, of completion queues, and of events.

The binding: run, status, cancellation. Completion queues of revision 2: ready, pending and removed
completions. Events of revision 2: each is sent once to every matching registration.
"""

from __future__ import annotations

import time
from typing import Any

from simenv.qpm_check import circuits, fields
from simenv.qpm_check.check import row
from simenv.qpm_check.checks.records import EVENT, QUIET_S, listening
from simenv.qpm_check.fields import expect_equal
from simenv.qpm_check.session import LENGTHENED, CheckSession, counts_of
from simenv.qpm_check.target import CheckSkipped, expect, short_repr

LATE_S = 0.05
_CANCELLING = ("CANCELLED", "CANCEL_PENDING", "COMPLETED")


@row("execution.sync", "sync_run: COMPLETED, with the record under result")
def sync(session: CheckSession) -> None:
    answer = session.q.sync_run(session.info(circuits.FIRST_BIT), **session.under)
    envelope = fields.stands("sync_run", answer, "completed")
    record = fields.has("its result", envelope.get("result"), fields.COMPLETION)
    expect_equal("cid of the record", record["cid"], envelope["cid"])
    expect_equal("qtask_id of the record", record["qtask_id"], envelope["qtask_id"])
    counts_of(record)


@row("execution.async", "async_run: ACCEPTED, with cid and qtask_id")
def accepted(session: CheckSession) -> None:
    _, answer = session.accept(session.info())
    envelope = fields.stands("async_run", answer, *fields.ORDER[:-1], "completed")
    expect(envelope["qtask_id"] >= 1, f"qtask_id is {envelope['qtask_id']}: they count from 1")


@row("execution.at-once", "async_run answers before a long circuit is done")
def at_once(session: CheckSession) -> None:
    info = session.long.info()
    begun = time.monotonic()
    _, answer = session.accept(info)
    elapsed_s = time.monotonic() - begun
    state = answer.get("lifecycle_state")
    message = f"async_run answered {state!r} after {elapsed_s:.2f} s: it waited"
    expect(state not in fields.ENDS, message)


@row("execution.envelope", "envelopes: the contract's fields, state said twice, None left out")
def envelopes(session: CheckSession) -> None:
    fields.envelope("sync_run", session.q.sync_run(session.info(), **session.under))
    cid, answer = session.accept(session.info())
    seen = fields.envelope("async_run", answer)
    access = fields.has(
        "telemetry", seen["telemetry"],
        {"access_class": str, "object": str, "field_visibility": dict},
    )  # fmt: skip
    expect_equal("access_class", access["access_class"], "caller-owned")
    expect_equal("object", access["object"], "managed-qtask")
    fields.envelope("task_status", session.status(cid))
    if "wait_estimate" in seen:
        fields.has("wait_estimate", seen["wait_estimate"], {"available": bool})
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
    cid = session.long.submit()
    seen: list[str] = []

    def ended() -> bool:
        state = fields.stands("task_status", session.status(cid), *fields.ORDER)["lifecycle_state"]
        if not seen or seen[-1] != state:
            seen.append(state)
        return bool(state == "completed")

    session.until(ended, "completed")
    places = [fields.ORDER.index(state) for state in seen]
    expect(places == sorted(places), f"the states came as {' -> '.join(seen)}")
    expect("submitted" in seen, f"a long circuit was never 'submitted': {' -> '.join(seen)}")


@row("execution.queued", "what waits says so, and runs later")
def queued(session: CheckSession) -> None:
    cid = session.long.waiting()
    fields.stands("task_status", session.status(cid), *fields.ORDER)


@row("execution.retained", "what has ended can be asked for until it is read")
def retained(session: CheckSession) -> None:
    envelope = session.completed()
    for _ in range(2):
        answer = session.q.task_status(qtask_id=envelope["qtask_id"], **session.under)
        fields.stands("task_status", answer, "completed")
    session.completion(envelope["cid"])


@row("execution.status-after-read", "task_status of a task whose completion was read: COMPLETED")
def status_after_read(session: CheckSession) -> None:
    cid = session.submit()
    session.completion(cid)
    answer = session.status(cid)
    if answer.get("outcome") == "UNKNOWN":
        return  # the QPM keeps no ended tasks
    fields.stands("task_status", answer, "completed")


@row("execution.unknown", "task_status of an unknown cid: UNKNOWN")
def unknown(session: CheckSession) -> None:
    answer = session.q.task_status("no-such-circuit", **session.under)
    fields.outcome("task_status", answer, "UNKNOWN")


def _late(session: CheckSession, **how: bool) -> Any:
    """Answer of a run that exceeds its timeout; the circuit is lengthened while it ends in time."""
    for _ in range(LENGTHENED):
        info = session.long.info()
        answer = session.q.sync_run(info, timeout=LATE_S, **how, **session.under)
        done = isinstance(answer, dict) and answer.get("outcome") == "COMPLETED"
        if not (done and session.long.lengthen()):
            break
    return answer


@row("execution.sync-timeout", "sync_run beyond its timeout: TIMEOUT; the task stays")
def sync_timeout(session: CheckSession) -> None:
    answer = _late(session)
    envelope = fields.outcome("sync_run", answer, "TIMEOUT", "sync-timeout")
    expected: fields.Fields = {"reason": str, "message": str, "timestamp_ns": int}
    late = fields.has("timeout", envelope.get("timeout"), expected)
    expect_equal("reason of the timeout", late["reason"], "sync-timeout")
    record = session.completion(envelope["cid"])
    expect_equal("rc of the task that stayed", record["rc"], 0)


@row("execution.cancel-on-timeout", "sync_run with cancel_on_timeout: CANCELLED")
def cancel_on_timeout(session: CheckSession) -> None:
    envelope = fields.envelope("sync_run", _late(session, cancel_on_timeout=True))
    expect_equal("outcome of sync_run", envelope["outcome"], "CANCELLED")
    _is_cancelled(session, envelope["cid"])


@row("execution.cancel-queued", "cancel_task of what waits: CANCELLED, and it never runs")
def cancel_queued(session: CheckSession) -> None:
    cid = session.long.waiting()
    answer = session.q.cancel_task(cid, reason="checked", **session.under)
    fields.outcome("cancel_task", answer, "CANCELLED")
    record = _is_cancelled(session, cid)
    expect_equal("exec_time of what never ran", float(record["exec_time"]), -1.0)


@row("execution.cancel-running", "cancel_task of what runs: CANCELLED, or CANCEL_PENDING first")
def cancel_running(session: CheckSession) -> None:
    for _ in range(2 * LENGTHENED):
        cid = session.long.running()
        envelope = fields.envelope("cancel_task", session.q.cancel_task(cid, **session.under))
        message = envelope["outcome"]
        expect(message in _CANCELLING, f"cancel_task: outcome {message!r}")
        if message == "CANCEL_PENDING":
            is_stated = "provider_cancel_status" in envelope
            expect(is_stated, "CANCEL_PENDING without provider_cancel_status")
        record = _ended(session, cid)
        if record["rc"] != 0 or not session.long.lengthen():  # it may have ended just before
            break
    if message == "COMPLETED":
        raise CheckSkipped("it was done before the cancel came")
    _says_cancelled(record)


@row("execution.cancel-completed", "cancel_task of what is done: COMPLETED, already-completed")
def cancel_completed(session: CheckSession) -> None:
    cid = session.submit()
    session.await_state(cid, "completed")
    answer = session.q.cancel_task(cid, **session.under)
    fields.outcome("cancel_task", answer, "COMPLETED", "already-completed")
    expect_equal("rc of what was done before", session.completion(cid)["rc"], 0)


@row("execution.cancel-cancelled", "cancel_task twice: CANCELLED, already-cancelled")
def cancel_cancelled(session: CheckSession) -> None:
    cid = session.long.waiting()
    session.q.cancel_task(cid, **session.under)
    session.await_state(cid, "cancelled")
    answer = session.q.cancel_task(cid, **session.under)
    fields.outcome("cancel_task", answer, "CANCELLED", "already-cancelled")


@row("execution.cancel-unknown", "cancel_task of an unknown cid: UNKNOWN, not-found")
def cancel_unknown(session: CheckSession) -> None:
    answer = session.q.cancel_task("no-such-circuit", **session.under)
    fields.outcome("cancel_task", answer, "UNKNOWN", "not-found")


@row("execution.cancel-by-number", "cancel_task finds a task by its qtask_id too")
def cancel_by_number(session: CheckSession) -> None:
    number = session.status(session.long.waiting())["qtask_id"]
    answer = session.q.cancel_task(qtask_id=number, **session.under)
    fields.outcome("cancel_task", answer, "CANCELLED")


@row("execution.bad-sync", "an unreadable circuit: sync_run raises DEFwExecutionError")
def bad_sync(session: CheckSession) -> None:
    info = session.info(circuits.UNREADABLE)
    session.expect_refusal("sync_run", lambda: session.q.sync_run(info, **session.under))


@row("execution.bad-async", "an unreadable circuit: a completion with rc not 0, no counts")
def bad_async(session: CheckSession) -> None:
    for text in (circuits.UNREADABLE, circuits.NO_QASM):
        record = session.completion(session.submit(text))
        expect(record["rc"] != 0, "rc is 0, though nothing could be run")
        expect_equal("outcome", record.get("outcome"), "FAILED")
        reason = record.get("reason")
        expect(isinstance(reason, str), f"reason is {short_repr(reason)}")
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
    error = session.expect_refusal("async_run", lambda: session.q.async_run(info, **session.under))
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
    asked = {"task_id": envelope["qtask_id"], **session.under}
    expected: fields.Fields = {"task_id": int, "lifecycle_state": str, "timing": dict}
    result = fields.asked(session, "get_task_timing", expected, **asked)
    expect("reservation_id" in result, "get_task_timing has no 'reservation_id'")
    expect_equal("task_id", result["task_id"], envelope["qtask_id"])
    expect(bool(result["timing"]), "timing of what has run is empty")


@row("execution.metadata", "get_task_metadata: an envelope with provider_metadata")
def metadata(session: CheckSession) -> None:
    envelope = session.completed()
    answer = session.q.get_task_metadata(task_id=envelope["qtask_id"], **session.under)
    result = fields.envelope("get_task_metadata", answer)
    fields.has("get_task_metadata", result, {"task_id": int, "provider_metadata": dict})
    if result["provider_metadata"].get("available") is False:
        fields.has("provider_metadata", result["provider_metadata"], {"reason": str})


@row("execution.delete", "delete_circuit: None, also of an unknown one")
def delete(session: CheckSession) -> None:
    cid = session.long.submit()
    for what in (cid, "no-such-circuit"):
        answer = session.q.delete_circuit(what, **session.under)
        expect(answer is None, f"delete_circuit answered {short_repr(answer)}, not None")
    answer = session.q.read_cq(cid, **session.under)
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


_MANY = 8


@row("polling.not-ready", "read_cq before the end: the task's envelope, completion-not-ready")
def not_ready(session: CheckSession) -> None:
    cid = session.long.submit()
    for operation in ("read_cq", "peek_cq"):
        answer = getattr(session.q, operation)(cid, **session.under)
        result = fields.stands(operation, answer, *fields.ORDER[:-1])
        _polled(operation, result, ready=False)
        expect_equal("reason", result.get("reason"), "completion-not-ready")
        expect_equal("cid", result["cid"], cid)


@row("polling.unknown", "read_cq of an unknown cid: IN_PROGRESS")
def unknown_queue(session: CheckSession) -> None:
    for operation in ("read_cq", "peek_cq"):
        answer = getattr(session.q, operation)("no-such-circuit", **session.under)
        _polled(operation, fields.outcome(operation, answer, "IN_PROGRESS"), ready=False)


@row("polling.read", "read_cq: the record, and off the queue")
def read(session: CheckSession) -> None:
    cid = session.submit()
    record = fields.has("read_cq", session.completion(cid), fields.COMPLETION)
    _polled("read_cq", record, ready=True)
    again = session.q.read_cq(cid, **session.under)
    expect(again.get("completion_ready") is False, "read_cq gave the same completion twice")


@row("polling.peek", "peek_cq: the record, and it stays")
def peek(session: CheckSession) -> None:
    cid = session.submit()
    seen = session.until(lambda: _peeked(session, cid), "peek_cq")
    fields.has("peek_cq", seen, fields.COMPLETION)
    _polled("peek_cq", seen, ready=True)
    expect(_peeked(session, cid), "a second peek_cq has nothing")
    expect_equal("rc of what was peeked at before", session.completion(cid)["rc"], 0)


@row("polling.gone", "what was read: NO_LONGER_RETAINED, since when and why")
def gone(session: CheckSession) -> None:
    cid = session.submit()
    session.completion(cid)
    answer = session.q.read_cq(cid, **session.under)
    reason = "completion-no-longer-retained"
    result = fields.outcome("read_cq", answer, "NO_LONGER_RETAINED", reason)
    _polled("read_cq", result, ready=False)
    fields.has("read_cq", result, {"evicted_at_ns": int, "retention_reason": str})


@row("polling.oldest", "read_cq without a cid: the oldest completion")
def oldest(session: CheckSession) -> None:
    _drain(session)
    cids = {session.submit() for _ in range(_MANY)}
    records = [session.completion() for _ in range(_MANY)]
    expect_equal("what was read", sorted(record["cid"] for record in records), sorted(cids))
    queued = [record["qpm_cq_enqueue_time_ns"] for record in records]
    expect(queued == sorted(queued), "completions were not read in the order they were queued in")


@row("polling.times", "times in ns agree with those in seconds")
def times(session: CheckSession) -> None:
    record = session.completion(session.submit())
    for name in ("enqueue", "dequeue"):
        seconds, ns = record[f"cq_{name}_time"], record[f"qpm_cq_{name}_time_ns"]
        expect(abs(seconds - ns / 1e9) < 1.0, f"cq_{name}_time {seconds}, in ns {ns}")
    peeked = session.submit(circuits.FIRST_BIT)
    seen = session.until(lambda: _peeked(session, peeked), "peek_cq")
    expect_equal("qpm_cq_dequeue_time_ns of peek_cq", seen["qpm_cq_dequeue_time_ns"], -1)


def _polled(operation: str, answer: dict[str, Any], *, ready: bool) -> None:
    result = answer.get("completion_ready")
    expect(result is ready, f"completion_ready of {operation} is {result!r}, not {ready}")
    expect_equal("poll_operation", answer.get("poll_operation"), operation)


def _peeked(session: CheckSession, cid: str) -> dict[str, Any] | None:
    answer: dict[str, Any] = session.q.peek_cq(cid, **session.under)
    return answer if answer.get("completion_ready") else None


def _drain(session: CheckSession) -> None:
    while session.q.read_cq(**session.under).get("completion_ready"):
        pass


@row("events.register", "register_event_notification: accepted, and how many there are")
def register(session: CheckSession) -> None:
    counts = []
    for _ in range(2):
        listener = session.listener()
        result = fields.has(
            "register_event_notification", listener.register(EVENT, **session.under),
            {"status": str, "class_id": str, "registration_count": int},
        )  # fmt: skip
        expect_equal("status", result["status"], "accepted")
        expect_equal("class_id", result["class_id"], listener.sink.class_id)
        counts.append(result["registration_count"])
    expect_equal("registration_count after one more", counts[1], counts[0] + 1)


@row("events.pushed", "a completion is pushed and queued; the event carries the record")
def pushed(session: CheckSession) -> None:
    listener = listening(session)
    cid = session.submit()
    event = listener.taken()
    expect_equal("event type", event.evtype, EVENT)
    record = fields.has("the payload", event.payload, fields.COMPLETION)
    expect_equal("cid of the payload", record["cid"], cid)
    queued = session.completion(cid)
    expect_equal("counts of what was queued", queued["result"], record["result"])


@row("events.once", "each completion once to each registration")
def once(session: CheckSession) -> None:
    listeners = [listening(session), listening(session)]
    cids = sorted(session.submit() for _ in range(_MANY))
    for listener in listeners:
        seen = sorted(listener.taken().payload["cid"] for _ in range(_MANY))
        expect_equal("cids that were pushed", seen, cids)
    time.sleep(QUIET_S)
    for listener in listeners:
        expect_equal("events in all", listener.seen, _MANY)


@row("events.failed", "what failed or was cancelled has an event too")
def of_failures(session: CheckSession) -> None:
    listener = listening(session)
    bad = session.submit(circuits.UNREADABLE)
    seen = {listener.taken().payload["cid"]}
    waits = session.long.waiting()
    session.q.cancel_task(waits, **session.under)
    deadline = time.monotonic() + session.wait_s
    while waits not in seen and time.monotonic() < deadline:
        event = listener.sink.take(1.0)
        if event is not None:
            seen.add(event.payload["cid"])
    expect(bad in seen, "a failed task had no event")
    expect(waits in seen, "a cancelled task had no event")


@row("events.filters", "filters: a value, or one of several; what does not fit is not pushed")
def filters(session: CheckSession) -> None:
    first = session.status(session.submit())["qtask_id"]
    single, several, none = session.listener(), session.listener(), session.listener()
    ahead = [first + step for step in (1, 2, 3)]
    single.register(EVENT, filters={"qtask_id": ahead[1]}, **session.under)
    several.register(EVENT, filters={"qtask_id": [ahead[0], ahead[2]]}, **session.under)
    none.register(EVENT, filters={"cid": "no-such-circuit"}, **session.under)
    qtask_ids = [session.q.async_run(session.info(), **session.under)["qtask_id"] for _ in ahead]
    if qtask_ids != ahead:
        raise CheckSkipped(f"qtask ids cannot be foreseen here: {first}, then {qtask_ids}")
    expect_equal("pushed to the one", single.taken().payload["qtask_id"], ahead[1])
    seen = sorted(several.taken().payload["qtask_id"] for _ in range(2))
    expect_equal("pushed to the several", seen, [ahead[0], ahead[2]])
    time.sleep(QUIET_S)
    expect_equal("events of all", (single.seen, several.seen, none.seen), (1, 2, 0))


@row("events.type", "another event type gets nothing")
def other_type(session: CheckSession) -> None:
    right, other = session.listener(), session.listener()
    other.register(977, **session.under)
    right.register(EVENT, **session.under)
    session.submit()
    right.taken()
    time.sleep(QUIET_S)
    expect_equal("events of the other type", other.seen, 0)


@row("events.reservation", "a registration under a reservation hears of its tasks only")
def by_reservation(session: CheckSession) -> None:
    mine, other = session.reserve(), session.reserve()
    listener = session.listener()
    listener.register(EVENT, reservation_id=mine)
    elsewhere = session.submit(under={"reservation_id": other})
    own_cid = session.submit(under={"reservation_id": mine})
    session.completion(elsewhere, reservation_id=other)
    expect_equal("cid of the event", listener.taken().payload["cid"], own_cid)
    time.sleep(QUIET_S)
    expect_equal("events in all", listener.seen, 1)


@row("events.put-fails", "a put that raises ends that registration only")
def put_fails(session: CheckSession) -> None:
    broken, sound = listening(session), listening(session)
    broken.sink.fail()
    session.submit()
    sound.taken()
    session.until(lambda: broken.seen, "a put to the broken one")
    for _ in range(3):
        session.completion(session.submit())
        sound.taken()
    time.sleep(QUIET_S)
    expect_equal("puts to the broken one", broken.seen, 1)
