"""Binding `execution`: to run, to be told how it stands, to stop."""

from __future__ import annotations

import time
from typing import Any

from simenv.qpm_check.contract.outcomes import Omitted, expect, shown
from simenv.qpm_check.harness import circuits, shapes
from simenv.qpm_check.harness.check import expect_equal, row
from simenv.qpm_check.harness.clients import counts_of
from simenv.qpm_check.harness.session import LENGTHENED, CheckSession

AT_ONCE_S = 1.0
LATE_S = 0.05
_CANCELLING = ("CANCELLED", "CANCEL_PENDING", "COMPLETED")


@row("execution.sync", "sync_run: COMPLETED, with the record under result")
def sync(bench: CheckSession) -> None:
    answer = bench.q.sync_run(bench.info(circuits.FIRST_BIT), **bench.under)
    envelope = shapes.stands("sync_run", answer, "completed")
    record = shapes.has("its result", envelope.get("result"), shapes.COMPLETION)
    expect_equal("cid of the record", record["cid"], envelope["cid"])
    expect_equal("qtask_id of the record", record["qtask_id"], envelope["qtask_id"])
    counts_of(record)


@row("execution.async", "async_run: ACCEPTED, with cid and qtask_id")
def accepted(bench: CheckSession) -> None:
    _, answer = bench.accept(bench.info())
    envelope = shapes.stands("async_run", answer, *shapes.ORDER[:-1], "completed")
    expect(envelope["qtask_id"] >= 1, f"qtask_id is {envelope['qtask_id']}: they count from 1")


@row("execution.at-once", "async_run answers before a long circuit is done")
def at_once(bench: CheckSession) -> None:
    text = bench.long
    begun = time.monotonic()
    _, answer = bench.accept(bench.info(text, num_shots=bench.long_shots))
    took_s = time.monotonic() - begun
    state = answer.get("lifecycle_state")
    expect(
        state not in shapes.ENDS, f"async_run answered {state!r} after {took_s:.2f} s: it waited"
    )


@row("execution.envelope", "envelopes: the contract's fields, state said twice, None left out")
def envelopes(bench: CheckSession) -> None:
    shapes.envelope("sync_run", bench.q.sync_run(bench.info(), **bench.under))
    cid, answer = bench.accept(bench.info())
    seen = shapes.envelope("async_run", answer)
    access = shapes.has(
        "telemetry", seen["telemetry"],
        {"access_class": str, "object": str, "field_visibility": dict},
    )  # fmt: skip
    expect_equal("access_class", access["access_class"], "caller-owned")
    expect_equal("object", access["object"], "managed-qtask")
    shapes.envelope("task_status", bench.status(cid))
    if "wait_estimate" in seen:
        shapes.has("wait_estimate", seen["wait_estimate"], {"available": bool})
    if bench.reservation is not None:
        expect_equal("reservation_id", seen.get("reservation_id"), bench.reservation)


@row("execution.ids", "cids and qtask ids are never given twice")
def ids(bench: CheckSession) -> None:
    answers = [bench.accept(bench.info())[1] for _ in range(8)]
    for name in ("cid", "qtask_id"):
        seen = {answer[name] for answer in answers}
        expect(len(seen) == len(answers), f"{len(answers)} circuits have {len(seen)} {name}s")


@row("execution.order", "states come in the contract's order")
def state_order(bench: CheckSession) -> None:
    cid = bench.submit(bench.long, num_shots=bench.long_shots)
    seen: list[str] = []

    def ended() -> bool:
        state = shapes.stands("task_status", bench.status(cid), *shapes.ORDER)["lifecycle_state"]
        if not seen or seen[-1] != state:
            seen.append(state)
        return bool(state == "completed")

    bench.until(ended, "completed")
    places = [shapes.ORDER.index(state) for state in seen]
    expect(places == sorted(places), f"the states came as {' -> '.join(seen)}")
    expect("submitted" in seen, f"a long circuit was never 'submitted': {' -> '.join(seen)}")


@row("execution.queued", "what waits says so, and runs later")
def queued(bench: CheckSession) -> None:
    cid = bench.waiting()
    shapes.stands("task_status", bench.status(cid), *shapes.ORDER)


@row("execution.retained", "what has ended can be asked for until it is read")
def retained(bench: CheckSession) -> None:
    envelope = bench.q.async_run(bench.info(), **bench.under)
    number = envelope["qtask_id"]
    bench.until(
        lambda: bench.status(envelope["cid"])["lifecycle_state"] == "completed", "completed"
    )
    for _ in range(2):
        shapes.stands(
            "task_status", bench.q.task_status(qtask_id=number, **bench.under), "completed"
        )
    bench.completion(envelope["cid"])


@row("execution.status-after-read", "task_status of a task whose completion was read: COMPLETED")
def status_after_read(bench: CheckSession) -> None:
    cid = bench.submit()
    bench.completion(cid)
    answer = bench.status(cid)
    if answer.get("outcome") == "UNKNOWN":
        return  # a host that keeps no ended tasks
    shapes.stands("task_status", answer, "completed")


@row("execution.unknown", "task_status of an unknown cid: UNKNOWN")
def unknown(bench: CheckSession) -> None:
    answer = bench.q.task_status("no-such-circuit", **bench.under)
    shapes.outcome("task_status", answer, "UNKNOWN")


def _late(bench: CheckSession, **how: bool) -> Any:
    """The answer of a run that takes too long: a longer one where it was done in time."""
    for _ in range(LENGTHENED):
        info = bench.info(bench.long, num_shots=bench.long_shots)
        answer = bench.q.sync_run(info, timeout=LATE_S, **how, **bench.under)
        done = isinstance(answer, dict) and answer.get("outcome") == "COMPLETED"
        if not (done and bench.lengthen()):
            break
    return answer


@row("execution.sync-timeout", "sync_run beyond its timeout: TIMEOUT; the task stays")
def sync_timeout(bench: CheckSession) -> None:
    answer = _late(bench)
    envelope = shapes.outcome("sync_run", answer, "TIMEOUT", "sync-timeout")
    late = shapes.has(
        "timeout", envelope.get("timeout"), {"reason": str, "message": str, "timestamp_ns": int}
    )
    expect_equal("reason of the timeout", late["reason"], "sync-timeout")
    record = bench.completion(envelope["cid"])
    expect_equal("rc of the task that stayed", record["rc"], 0)


@row("execution.cancel-on-timeout", "sync_run with cancel_on_timeout: CANCELLED")
def cancel_on_timeout(bench: CheckSession) -> None:
    envelope = shapes.envelope("sync_run", _late(bench, cancel_on_timeout=True))
    expect_equal("outcome of sync_run", envelope["outcome"], "CANCELLED")
    _is_cancelled(bench, envelope["cid"])


@row("execution.cancel-queued", "cancel_task of what waits: CANCELLED, and it never runs")
def cancel_queued(bench: CheckSession) -> None:
    cid = bench.waiting()
    answer = bench.q.cancel_task(cid, reason="checked", **bench.under)
    shapes.outcome("cancel_task", answer, "CANCELLED")
    record = _is_cancelled(bench, cid)
    expect_equal("exec_time of what never ran", float(record["exec_time"]), -1.0)


@row(
    "execution.cancel-running",
    "cancel_task of what runs: CANCELLED, or CANCEL_PENDING first",
)
def cancel_running(bench: CheckSession) -> None:
    for _ in range(LENGTHENED + 1):
        cid = bench.running()
        envelope = shapes.envelope("cancel_task", bench.q.cancel_task(cid, **bench.under))
        words = envelope["outcome"]
        expect(words in _CANCELLING, f"cancel_task: outcome {words!r}")
        if words == "CANCEL_PENDING":
            expect(
                "provider_cancel_status" in envelope,
                "CANCEL_PENDING without provider_cancel_status",
            )
        record = _ended(bench, cid)
        if record["rc"] != 0 or not bench.lengthen():  # it may have been done just before
            break
    if words == "COMPLETED":
        raise Omitted("it was done before the cancel came")
    _says_cancelled(record)


@row("execution.cancel-completed", "cancel_task of what is done: COMPLETED, already-completed")
def cancel_completed(bench: CheckSession) -> None:
    cid = bench.submit()
    bench.until(lambda: bench.status(cid)["lifecycle_state"] == "completed", "completed")
    answer = bench.q.cancel_task(cid, **bench.under)
    shapes.outcome("cancel_task", answer, "COMPLETED", "already-completed")
    expect_equal("rc of what was done before", bench.completion(cid)["rc"], 0)


@row("execution.cancel-cancelled", "cancel_task twice: CANCELLED, already-cancelled")
def cancel_cancelled(bench: CheckSession) -> None:
    cid = bench.waiting()
    bench.q.cancel_task(cid, **bench.under)
    bench.until(lambda: bench.status(cid)["lifecycle_state"] == "cancelled", "cancelled")
    answer = bench.q.cancel_task(cid, **bench.under)
    shapes.outcome("cancel_task", answer, "CANCELLED", "already-cancelled")


@row("execution.cancel-unknown", "cancel_task of an unknown cid: UNKNOWN, not-found")
def cancel_unknown(bench: CheckSession) -> None:
    answer = bench.q.cancel_task("no-such-circuit", **bench.under)
    shapes.outcome("cancel_task", answer, "UNKNOWN", "not-found")


@row("execution.cancel-by-number", "cancel_task finds a task by its qtask_id too")
def cancel_by_number(bench: CheckSession) -> None:
    number = bench.status(bench.waiting())["qtask_id"]
    answer = bench.q.cancel_task(qtask_id=number, **bench.under)
    shapes.outcome("cancel_task", answer, "CANCELLED")


@row("execution.bad-sync", "a circuit nobody can read: sync_run raises DEFwExecutionError")
def bad_sync(bench: CheckSession) -> None:
    bench.refuses(
        "sync_run", lambda: bench.q.sync_run(bench.info(circuits.UNREADABLE), **bench.under)
    )


@row("execution.bad-async", "a circuit nobody can read: a completion with rc not 0, no counts")
def bad_async(bench: CheckSession) -> None:
    for text in (circuits.UNREADABLE, circuits.NO_QASM):
        record = bench.completion(bench.submit(text))
        expect(record["rc"] != 0, "rc is 0, though nothing could be run")
        expect_equal("outcome", record.get("outcome"), "FAILED")
        expect(isinstance(record.get("reason"), str), f"reason is {shown(record.get('reason'))}")
        expect_equal("counts of a failure", counts_of(record), {})


@row("execution.formats", "circuit {format, data} wins over qasm; QPY is read")
def formats(bench: CheckSession) -> None:
    text = {"format": "openqasm2", "data": circuits.FIRST_BIT}
    _gives(bench, text, "001")
    offered = bench.subject.card().properties or {}
    if "qpy" in offered.get("circuit_formats", ("qpy",)):
        _gives(bench, {"format": "qpy", "data": circuits.FIRST_BIT_QPY}, "001")


@row("execution.unknown-format", "a format nobody reads: DEFwExecutionError that names it")
def unknown_format(bench: CheckSession) -> None:
    info = bench.info(circuit={"format": "quil-9", "data": "X 0"})
    error = bench.refuses("async_run", lambda: bench.q.async_run(info, **bench.under))
    expect("quil-9" in str(error), f"the error does not name the format: {error}")


@row("execution.scope", "who asks is not taken from info: those keys are dropped")
def scope(bench: CheckSession) -> None:
    foreign = ("owner", "job_id", "allocation_id", "project_id", "session_id", "scope_id",
               "target_device_id", "workload", "policy", "run_context", "token")  # fmt: skip
    record = bench.run(**dict.fromkeys(foreign, "somebody-else"))
    expect_equal("rc", record["rc"], 0)


@row("execution.timing", "get_task_timing: the seven times of a qtask")
def timing(bench: CheckSession) -> None:
    envelope = bench.q.async_run(bench.info(), **bench.under)
    bench.until(
        lambda: bench.status(envelope["cid"])["lifecycle_state"] == "completed", "completed"
    )
    answer = bench.q.get_task_timing(task_id=envelope["qtask_id"], **bench.under)
    found = shapes.has(
        "get_task_timing", answer, {"task_id": int, "lifecycle_state": str, "timing": dict}
    )
    expect("reservation_id" in found, "get_task_timing has no 'reservation_id'")
    expect_equal("task_id", found["task_id"], envelope["qtask_id"])
    expect(bool(found["timing"]), "timing of what has run is empty")


@row("execution.metadata", "get_task_metadata: an envelope with provider_metadata")
def metadata(bench: CheckSession) -> None:
    envelope = bench.q.async_run(bench.info(), **bench.under)
    bench.until(
        lambda: bench.status(envelope["cid"])["lifecycle_state"] == "completed", "completed"
    )
    answer = bench.q.get_task_metadata(task_id=envelope["qtask_id"], **bench.under)
    found = shapes.envelope("get_task_metadata", answer)
    shapes.has("get_task_metadata", found, {"task_id": int, "provider_metadata": dict})
    if found["provider_metadata"].get("available") is False:
        shapes.has("provider_metadata", found["provider_metadata"], {"reason": str})


@row("execution.delete", "delete_circuit: None, also of an unknown one")
def delete(bench: CheckSession) -> None:
    cid = bench.submit(bench.long, num_shots=bench.long_shots)
    for what in (cid, "no-such-circuit"):
        answer = bench.q.delete_circuit(what, **bench.under)
        expect(answer is None, f"delete_circuit answered {shown(answer)}, not None")
    answer = bench.q.read_cq(cid, **bench.under)
    expect(answer["completion_ready"] is False, "a deleted circuit has a completion")


def _gives(bench: CheckSession, circuit: dict[str, Any], key: str) -> None:
    record = bench.run(circuits.BELL, num_qubits=3, circuit=circuit)
    counts = counts_of(record)
    expect(counts.get(key, 0) > 0, f"circuit in {circuit['format']}: {counts}, not {key}")


def _ended(bench: CheckSession, cid: str) -> dict[str, Any]:
    wanted = f"the completion of a cancelled task {cid}"
    found: dict[str, Any] = bench.until(lambda: bench.poll(cid), wanted)
    return found


def _is_cancelled(bench: CheckSession, cid: str) -> dict[str, Any]:
    """Its completion, which says that it was cancelled."""
    record = _ended(bench, cid)
    _says_cancelled(record)
    return record


def _says_cancelled(record: dict[str, Any]) -> None:
    expect(record["rc"] != 0, "rc of what was cancelled is 0")
    expect_equal("outcome of what was cancelled", record.get("outcome", "CANCELLED"), "CANCELLED")
