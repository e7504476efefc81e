"""Checks of the binding `scheduler`: policies, pause, drain, limits, queue contents."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from simenv.qpm_check import fields
from simenv.qpm_check.check import row
from simenv.qpm_check.fields import expect_equal
from simenv.qpm_check.session import CheckSession
from simenv.qpm_check.target import REFUSED, expect, named

STATUS: fields.Fields = {
    "target_id": str, "state": str, "scheduler_available": bool, "threading_mode": str,
    "policy": dict, "control": dict, "versions": dict, "task_count": int,
    "pending_capacity_count": int, "runtime_task_count": int, "selected_task_count": int,
    "provider_inflight_count": int, "dispatch_limits": dict,
}  # fmt: skip
CONTROL = (
    "paused", "draining", "drain_mode", "drain_timeout_s", "drain_started_at_ns", "pause_reason",
    "dispatch_depth",
)  # fmt: skip
QUEUE: fields.Fields = {
    "target_id": str, "include_restricted": bool, "pending_capacity": list,
    "scheduler_task_count": int, "selected_qtask_ids": list, "provider_inflight_qtask_ids": list,
    "dispatch_limits": dict, "runtime_tasks": list,
}  # fmt: skip
STEERED: fields.Fields = {"status": str, "version": int, "target_id": str, "control": dict}
POLICIES = ("fifo", "priority", "ordered", "round_robin")
BEGUN = ("selected", "resources-consumed", "submitted", "completed")
QUIET_S = 0.4


@row("scheduler.status", "get_scheduler_status: active, its policy, its limits")
def status(session: CheckSession) -> None:
    result = fields.has("get_scheduler_status", session.q.get_scheduler_status(), STATUS)
    expect_equal("state", result["state"], "active")
    for name in CONTROL:
        expect(name in result["control"], f"control has no {name!r}")
    expect_equal("paused", result["control"]["paused"], False)
    expect_equal("draining", result["control"]["draining"], False)
    fields.has("dispatch_limits", result["dispatch_limits"], {"max_inflight": int})


@row("scheduler.policy", "the four policies, each accepted, then unchanged")
def policy(session: CheckSession) -> None:
    expected: fields.Fields = {"version": int, "scheduler_policy": dict}
    before = fields.asked(session, "get_scheduler_policy", expected)
    fields.has(
        "scheduler_policy", before["scheduler_policy"], {"policy_name": str, "options": dict}
    )
    try:
        for name in POLICIES:
            rule = {"policy_name": name, "options": {}}
            session.q.configure_scheduler_policy(configuration=rule)
            expected = {"status": str, "version": int, "scheduler_policy": dict}
            again = fields.asked(
                session, "configure_scheduler_policy", expected, configuration=rule
            )
            expect_equal("status of what is so already", again["status"], "unchanged")
            result = session.q.get_scheduler_policy()
            expect_equal("policy_name", result["scheduler_policy"]["policy_name"], name)
        expect(result["version"] > before["version"], "the version does not grow with changes")
        expect_equal("rc of a circuit meanwhile", session.run()["rc"], 0)
    finally:
        session.q.configure_scheduler_policy(configuration=before["scheduler_policy"])


@row("scheduler.policy-unknown", "an unknown policy is refused, and the old one stays")
def policy_unknown(session: CheckSession) -> None:
    before = session.q.get_scheduler_policy()
    asked = {"policy_name": "by-mood", "options": {}}
    session.expect_refusal("policy by-mood",
                  lambda: session.q.configure_scheduler_policy(configuration=asked),
                  *REFUSED, "ValueError", "DEFwRemoteError")  # fmt: skip
    expect_equal("the policy afterwards", session.q.get_scheduler_policy(), before)


@row("scheduler.pause", "paused: nothing new begins; resumed: it does")
def pause(session: CheckSession) -> None:
    with _as_before(session):
        result = fields.asked(session, "pause_execution_target", STEERED, reason="checked")
        expect_equal("status", result["status"], "paused")
        expect_equal("paused", result["control"]["paused"], True)
        expect_equal("pause_reason", result["control"]["pause_reason"], "checked")
        expect_equal("state", session.q.get_scheduler_status()["state"], "paused")
        cid = session.submit()
        time.sleep(QUIET_S)
        state = session.status(cid)["lifecycle_state"]
        expect(state not in BEGUN, f"a task of a paused target is {state!r}")
        result = session.q.resume_execution_target()
        expect_equal("status", result["status"], "resumed")
        expect_equal("rc after resuming", session.completion(cid)["rc"], 0)


@row("scheduler.drain", "draining: what was accepted ends, nothing new is taken")
def drain(session: CheckSession) -> None:
    with _as_before(session):
        cid = session.long.submit()
        result = fields.asked(session, "drain_execution_target", STEERED)
        expect_equal("status", result["status"], "draining")
        expect_equal("draining", result["control"]["draining"], True)
        expect_equal("drain_mode", result["control"]["drain_mode"], "graceful")
        call = partial(session.q.async_run, session.info(), **session.under)
        refusals = ("DEFwExecutionError", "DEFwOutOfResources", "DEFwNotReady")
        session.expect_refusal("async_run", call, *refusals)
        expect_equal("rc of what was accepted", session.completion(cid)["rc"], 0)
    expect_equal("rc after resuming", session.run()["rc"], 0)


@row("scheduler.limits", "max_inflight: so many at once are with the machine")
def limits(session: CheckSession) -> None:
    before = session.q.get_scheduler_status()["dispatch_limits"]["max_inflight"]
    try:
        session.q.configure_dispatch_limits(limits={"max_inflight": 2})
        expected: fields.Fields = {"status": str, "version": int, "dispatch_limits": dict}
        asked = {"max_inflight": 1}
        result = fields.asked(session, "configure_dispatch_limits", expected, limits=asked)
        expect_equal("status", result["status"], "dispatch-limits-updated")
        again = session.q.configure_dispatch_limits(limits={"max_inflight": 1})
        expect_equal("status of what is so already", again["status"], "unchanged")
        cids = [session.long.submit() for _ in range(4)]
        max_running = 0
        for _ in range(20):
            begun = cids
            for _ in range(2):  # running in both polls: running all the time between them
                begun = [c for c in begun if session.status(c)["lifecycle_state"] in BEGUN[:-1]]
            max_running = max(max_running, len(begun))
            time.sleep(0.01)
        expect(max_running <= 1, f"{max_running} tasks at once, where max_inflight is 1")
    finally:
        session.q.configure_dispatch_limits(limits={"max_inflight": before})


@row("scheduler.limits-refused", "any other limit is refused and changes nothing")
def limits_refused(session: CheckSession) -> None:
    before = session.q.get_scheduler_status()["dispatch_limits"]
    for asked in ({"max_qubits": 3}, {"max_inflight": -1}, {"max_inflight": "two"},
                  {"max_inflight": 1, "other": 1}):  # fmt: skip
        try:
            answer = session.q.configure_dispatch_limits(limits=asked)
        except Exception as error:  # noqa: BLE001 - the check tests the class
            text = f"{named(error)}: {error}"
            is_typed = "ValueError" in text or named(error) in REFUSED
            expect(is_typed, f"{asked} raised {text[-200:]}")
        else:
            expect(False, f"{asked} was not refused; it answered {answer}")
        result = session.q.get_scheduler_status()["dispatch_limits"]
        expect_equal(f"limits after {asked}", result, before)


@row("scheduler.queue", "get_scheduler_queue_state: what is under way, as envelopes")
def queue(session: CheckSession) -> None:
    cid = session.long.submit()
    number = session.status(cid)["qtask_id"]
    result = fields.has("get_scheduler_queue_state", session.q.get_scheduler_queue_state(), QUEUE)
    expect_equal("include_restricted", result["include_restricted"], False)
    there = {task.get("qtask_id") for task in result["runtime_tasks"]}
    expect(number in there, f"runtime_tasks has {sorted(map(str, there))}, not {number}")
    for task in result["runtime_tasks"]:
        fields.envelope("a runtime task", task)
    expect(result["scheduler_task_count"] >= 1, "scheduler_task_count is 0")
    reported = session.q.get_scheduler_queue_state(include_restricted=True)
    expect_equal("include_restricted", reported["include_restricted"], True)


@contextmanager
def _as_before(session: CheckSession) -> Iterator[Any]:
    try:
        yield
    finally:
        with suppress(Exception):
            session.q.resume_execution_target()
