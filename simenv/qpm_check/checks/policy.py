"""Checks of the bindings `admission-policy` and `scheduler`.

The binding `admission-policy`: profiles, policies, estimator, credits. The binding `scheduler`:
policies, pause, drain, limits, queue contents.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from simenv.qpm_check import check
from simenv.qpm_check.check import expect_equal, row
from simenv.qpm_check.checks.admission import decided, stands
from simenv.qpm_check.session import CheckSession
from simenv.qpm_check.target import FAMILY, CheckFailed, CheckSkipped, expect, named

PROFILE: check.Fields = {
    "device_id": int, "external_device_id": str, "baseline": dict,
    **dict.fromkeys(
        ("max_qubits", "max_shots", "time_span_ns", "one_q_gate_ns", "two_q_gate_ns",
         "measurement_ns", "one_q_transfer_ns", "two_q_transfer_ns", "measurement_transfer_ns",
         "compile_ns", "control_overhead_ns", "provider_overhead_ns", "total_credits",
         "device_rate", "concurrent_jobs", "default_ttl_ns", "max_provider_queue_depth"), int),
}  # fmt: skip
ONE_GATE = {"qubit_count": 1, "depth": 1, "one_q_gate_count": 1, "two_q_gate_count": 0,
            "measurement_count": 0, "shots": 1}  # fmt: skip
FREE = dict.fromkeys(
    ("two_q_gate_ns", "measurement_ns", "one_q_transfer_ns", "two_q_transfer_ns",
     "measurement_transfer_ns", "compile_ns", "control_overhead_ns", "provider_overhead_ns"), 0,
)  # fmt: skip
TURNS = 5
ESTIMATED_S = 100.0  # estimate of a long circuit that takes about 1 s
_REFUSED = tuple(FAMILY - {"DEFwNotReady", "DEFwInProgress", "DEFwCommError"})


def configuration(name: str, capacity: dict[str, int], **more: Any) -> dict[str, Any]:
    """Argument of set_admission_policy."""
    return {
        "policy": {"name": name, "options": {}},
        "estimator": {"name": "baseline", "options": {}},
        "baseline": ONE_GATE,
        "capacity": capacity,
        **more,
    }


def size(gates: int, shots: int = 1, count: int = 1) -> dict[str, Any]:
    """Request of a workload with this number of one-qubit gates."""
    return {"task_class": {
        "class_id": "c", "count": count, "qubit_count": 1, "depth": gates, "shots": shots,
        "one_q_gate_count": gates, "two_q_gate_count": 0, "measurement_count": 0,
    }}  # fmt: skip


@contextmanager
def ruled(
    session: CheckSession, name: str, capacity: dict[str, int], **profile: int
) -> Iterator[None]:
    """Set a policy and profile for the block, and restore the previous ones at its end."""
    before = session.q.get_device_profile()["device_profile"]
    asked = {**FREE, "one_q_gate_ns": 1_000, "baseline": ONE_GATE, **profile}
    session.q.configure_device_profile(profile={**before, **asked})
    try:
        session.q.set_admission_policy(configuration=configuration(name, capacity))
        yield
    finally:
        with suppress(Exception):
            session.clean_up()
        with suppress(Exception):
            session.q.set_admission_policy(configuration=configuration("unlimited", {}))
        with suppress(Exception):
            session.q.configure_device_profile(profile=before)


@row("policy.profile", "a device profile: its fields, whole numbers")
def profile(session: CheckSession) -> None:
    expected: check.Fields = {"version": int, "device_profile": dict}
    result = check.asked(session, "get_device_profile", expected)
    reported = check.has("device_profile", result["device_profile"], PROFILE)
    check.has("its baseline", reported["baseline"], dict.fromkeys(ONE_GATE, int))


@row("policy.profile-set", "configure_device_profile: accepted, then unchanged")
def profile_set(session: CheckSession) -> None:
    before = session.q.get_device_profile()
    changed = {**before["device_profile"], "compile_ns": 4_321}
    try:
        first = session.q.configure_device_profile(profile=changed)
        again = session.q.configure_device_profile(profile=changed)
        for answer, status in ((first, "accepted"), (again, "unchanged")):
            check.has("configure_device_profile", answer,
                       {"status": str, "version": int, "device_profile": dict})  # fmt: skip
            expect_equal("status", answer["status"], status)
        expect(first["version"] > before["version"], "the version does not grow with a change")
        expect_equal("version of what is unchanged", again["version"], first["version"])
        result = session.q.get_device_profile()["device_profile"]
        expect_equal("compile_ns", result["compile_ns"], 4_321)
    finally:
        session.q.configure_device_profile(profile=before["device_profile"])


@row("policy.unlimited", "by default admission is unlimited, with no capacity")
def unlimited(session: CheckSession) -> None:
    expected: check.Fields = {"version": int, "configuration": dict}
    result = check.asked(session, "get_admission_policy", expected)["configuration"]
    check.has("configuration", result, {"policy": dict, "estimator": dict, "baseline": dict})
    expect_equal("policy", result["policy"].get("name"), "unlimited")
    expect_equal("capacity", result.get("capacity", {}), {})
    check.has("its baseline", result["baseline"], dict.fromkeys(ONE_GATE, int))


@row("policy.set", "set_admission_policy: accepted, then unchanged; versions grow")
def policy_set(session: CheckSession) -> None:
    before = session.q.get_admission_policy()["version"]
    with ruled(session, "credit", {"total_credits": 77}):
        asked = configuration("credit", {"total_credits": 77})
        again = session.q.set_admission_policy(configuration=asked)
        expect_equal("status", again["status"], "unchanged")
        result = session.q.get_admission_policy()
        expect(result["version"] > before, f"version {before}, then {result['version']}")
        expect_equal("policy", result["configuration"]["policy"]["name"], "credit")
        expect_equal("capacity", result["configuration"]["capacity"], {"total_credits": 77})


@row("policy.refused", "a policy that is none is refused, and the old one stays")
def refused(session: CheckSession) -> None:
    before = session.q.get_admission_policy()
    wrong = {
        "an unknown policy": configuration("auction", {}),
        "an unknown estimator": configuration("unlimited", {}, estimator={"name": "oracle"}),
        "a baseline that lacks a field": configuration("unlimited", {}, baseline={"shots": 1}),
        "credit without credits": configuration("credit", {}),
        "credit of 0": configuration("credit", {"total_credits": 0}),
        "rate without a time span": configuration("rate", {"device_rate": 5}),
        "unlimited with a capacity": configuration("unlimited", {"total_credits": 5}),
        "another version": configuration(
            "credit", {"total_credits": 5}, expected_version=before["version"] + 1_000
        ),
    }
    for what, asked in wrong.items():
        ask = partial(session.q.set_admission_policy, configuration=asked)
        session.expect_refusal(what, ask, *_REFUSED)
        expect_equal(f"the policy after {what}", session.q.get_admission_policy(), before)


@row("policy.estimate", "the estimate is the contract's, to the nanosecond")
def estimate(session: CheckSession) -> None:
    times = {
        "one_q_gate_ns": 7, "two_q_gate_ns": 11, "measurement_ns": 13, "one_q_transfer_ns": 3,
        "two_q_transfer_ns": 5, "measurement_transfer_ns": 17, "compile_ns": 19,
        "control_overhead_ns": 23, "provider_overhead_ns": 29,
    }  # fmt: skip
    asked = {"task_class": {
        "class_id": "c", "count": 2, "qubit_count": 3, "depth": 5, "shots": 10,
        "one_q_gate_count": 4, "two_q_gate_count": 2, "measurement_count": 3,
    }}  # fmt: skip
    each = (4 * 7 + 2 * 11 + 3 * 13) * 10 + (4 * 3 + 2 * 5 + 3 * 17) + 19 + 23 + 29
    baseline = 7 + 3 + 19 + 23 + 29
    with ruled(session, "credit", {"total_credits": 1_000}, **times):
        result = decided("evaluate", session.q.evaluate(request=asked), "accepted")
        expect_equal("estimated_total_ns", result["estimated_total_ns"], 2 * each)
        expect_equal("credits_required", result["credits_required"], math.ceil(2 * each / baseline))


@row("policy.credit", "credits: what they do not suffice for is delayed or rejected, code 7")
def credit(session: CheckSession) -> None:
    with ruled(session, "credit", {"total_credits": 10}):
        result = decided("evaluate", session.q.evaluate(request=size(4)), "accepted")
        expect_equal("credits_required", result["credits_required"], 4)
        expect_equal("capacity_available", result["capacity_available"], 10)
        reservation_ids = [session.reserve(**size(4)) for _ in range(2)]
        for number in reservation_ids:
            record = stands(session, number, "active")
            expect_equal("credits_reserved", record["credits_reserved"], 4)
        short = decided("a third of 4", session.q.reserve(request=size(4)))
        expect(short["status"] != "accepted", "12 of 10 credits were handed out")
        expect_equal("reason_code", short["reason_code"], 7)
        expect_equal("reason", short["reason"], "reason-7")
        session.q.release(reservation_id=reservation_ids[0])
        decided("after one was released", session.q.evaluate(request=size(4)), "accepted")
        never = decided("40 of 10", session.q.evaluate(request=size(40)))
        expect_equal("status of 40 of 10", never["status"], "rejected")


@row("policy.rate", "rate: units over the time that is left for quantum work")
def rate(session: CheckSession) -> None:
    with ruled(session, "rate", {"device_rate": 30, "time_span_ns": 10**9}):
        asked = {**size(10), "walltime_ns": 7 * 10**8, "classical_runtime_ns": 10**8,
                 "overhead_ns": 10**8}  # fmt: skip
        result = decided("evaluate", session.q.evaluate(request=asked), "accepted")
        expect_equal("rate_required", result["rate_required"], 20)
        session.reserve(**asked)
        short = decided("a second one", session.q.reserve(request=asked))
        expect(short["status"] != "accepted", "40 of a rate of 30 were handed out")
        expect_equal("reason_code", short["reason_code"], 8)


@row("policy.walltime", "rate: no time left for quantum work is rejected, code 10")
def walltime(session: CheckSession) -> None:
    with ruled(session, "rate", {"device_rate": 30, "time_span_ns": 10**9}):
        asked = {**size(1), "walltime_ns": 10**8, "classical_runtime_ns": 10**8}
        result = decided("evaluate", session.q.evaluate(request=asked), "rejected")
        expect_equal("reason_code", result["reason_code"], 10)


@row("credits.returned", "what a task did not use of its estimate comes back")
def returned(session: CheckSession) -> None:
    gates = session.long_gates
    with _held(session, gates):
        cost = _cost(session, gates)
        number = session.reserve(**size(cost * 3 // 2))
        under = {"reservation_id": number}
        for turn in range(3):
            answer = session.q.sync_run(session.long_info(), timeout=session.wait_s, **under)
            expect_equal(f"outcome of task {turn + 1}, each two thirds of the credits",
                         answer["outcome"], "COMPLETED")  # fmt: skip
        record = stands(session, number, "active")
        used = record["credits_consumed"]
        expect(0 <= used < cost, f"{used} of {cost * 3 // 2} credits are gone after 3 short tasks")
        expect(record["actual_total_ns"] > 0, "actual_total_ns is 0 after 3 tasks")


@row("credits.cancelled", "a task cancelled before it ran gives back all it held")
def of_cancelled(session: CheckSession) -> None:
    gates = session.long_gates
    with _held(session, gates):
        cost = _cost(session, gates)
        number = session.reserve(**size(cost * 10))
        under = {"reservation_id": number}
        cids = [session.submit_long(under=under) for _ in range(6)]
        held = stands(session, number, "active")["credits_consumed"]
        expect(held >= 2 * cost, f"{held} credits are held for 6 tasks of {cost} each")
        for cid in reversed(cids):
            session.q.cancel_task(cid, **under)
        for cid in cids:
            session.completion(cid, reservation_id=number)
        left = stands(session, number, "active")["credits_consumed"]
        expect(left <= cost, f"{left} credits are gone for 6 tasks that were cancelled")


@row("credits.delayed", "a task that waits for credits: DELAYED, pending-capacity; then it runs")
def delayed(session: CheckSession) -> None:
    gates = session.long_gates
    with _held(session, gates):
        cost = _cost(session, gates)
        for _ in range(TURNS):
            under = {"reservation_id": session.reserve(**size(cost * 3 // 2))}
            first = session.submit_long(under=under)
            second, answer = session.accept(session.long_info(), under=under)
            state = session.q.get_scheduler_queue_state()
            if session.q.task_status(first, **under)["lifecycle_state"] == "completed":
                continue  # too late: the credits have been returned
            result = check.stands("async_run", answer, "pending-capacity")
            expect_equal("pending_queue_position", result.get("pending_queue_position"), 1)
            expect_equal("pending_capacity of the queue", len(state["pending_capacity"]), 1)
            for cid in (first, second):
                record = session.completion(cid, reservation_id=under["reservation_id"])
                expect_equal("rc", record["rc"], 0)
            return
    raise CheckSkipped(f"{TURNS} times a long circuit was done before another could wait for it")


@row("credits.never", "a task its reservation can never pay is refused")
def never(session: CheckSession) -> None:
    gates = session.long_gates
    with _held(session, gates):
        under = {"reservation_id": session.reserve(**size(_cost(session, gates) * 3 // 2))}
        info = session.info(session.long, num_shots=2 * session.long_shots)
        again = partial(session.q.async_run, info, **under)
        session.expect_refusal("async_run of twice the gates", again)


def _cost(session: CheckSession, gates: int) -> int:
    """Credits that one long circuit holds; they depend on the gates after the QPM's own
    compilation."""
    number = session.reserve(**size(gates * 40))
    under = {"reservation_id": number}
    for _ in range(TURNS):
        before = stands(session, number, "active")["credits_consumed"]
        cid = session.submit_long(under=under)
        held = int(stands(session, number, "active")["credits_consumed"] - before)
        session.q.cancel_task(cid, **under)
        session.completion(cid, reservation_id=number)
        if held > 0:
            return held
    raise CheckFailed(f"{TURNS} times a long circuit held no credits of its reservation")


def _held(session: CheckSession, gates: int) -> Any:
    """Credits for 100 long circuits, each of which is estimated to take ESTIMATED_S."""
    gate_ns = math.ceil(ESTIMATED_S * 1e9 / gates)
    return ruled(session, "credit", {"total_credits": gates * 100}, one_q_gate_ns=gate_ns)


STATUS: check.Fields = {
    "target_id": str, "state": str, "scheduler_available": bool, "threading_mode": str,
    "policy": dict, "control": dict, "versions": dict, "task_count": int,
    "pending_capacity_count": int, "runtime_task_count": int, "selected_task_count": int,
    "provider_inflight_count": int, "dispatch_limits": dict,
}  # fmt: skip
CONTROL = (
    "paused", "draining", "drain_mode", "drain_timeout_s", "drain_started_at_ns", "pause_reason",
    "dispatch_depth",
)  # fmt: skip
QUEUE: check.Fields = {
    "target_id": str, "include_restricted": bool, "pending_capacity": list,
    "scheduler_task_count": int, "selected_qtask_ids": list, "provider_inflight_qtask_ids": list,
    "dispatch_limits": dict, "runtime_tasks": list,
}  # fmt: skip
STEERED: check.Fields = {"status": str, "version": int, "target_id": str, "control": dict}
POLICIES = ("fifo", "priority", "ordered", "round_robin")
BEGUN = ("selected", "resources-consumed", "submitted", "completed")
QUIET_S = 0.4


@row("scheduler.status", "get_scheduler_status: active, its policy, its limits")
def status(session: CheckSession) -> None:
    result = check.has("get_scheduler_status", session.q.get_scheduler_status(), STATUS)
    expect_equal("state", result["state"], "active")
    for name in CONTROL:
        expect(name in result["control"], f"control has no {name!r}")
    expect_equal("paused", result["control"]["paused"], False)
    expect_equal("draining", result["control"]["draining"], False)
    check.has("dispatch_limits", result["dispatch_limits"], {"max_inflight": int})


@row("scheduler.policy", "the four policies, each accepted, then unchanged")
def policy(session: CheckSession) -> None:
    expected: check.Fields = {"version": int, "scheduler_policy": dict}
    before = check.asked(session, "get_scheduler_policy", expected)
    check.has("scheduler_policy", before["scheduler_policy"], {"policy_name": str, "options": dict})
    try:
        for name in POLICIES:
            rule = {"policy_name": name, "options": {}}
            session.q.configure_scheduler_policy(configuration=rule)
            expected = {"status": str, "version": int, "scheduler_policy": dict}
            again = check.asked(session, "configure_scheduler_policy", expected, configuration=rule)
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
                  *_REFUSED, "ValueError", "DEFwRemoteError")  # fmt: skip
    expect_equal("the policy afterwards", session.q.get_scheduler_policy(), before)


@row("scheduler.pause", "paused: nothing new begins; resumed: it does")
def pause(session: CheckSession) -> None:
    with _as_before(session):
        result = check.asked(session, "pause_execution_target", STEERED, reason="checked")
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
        cid = session.submit_long()
        result = check.asked(session, "drain_execution_target", STEERED)
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
        expected: check.Fields = {"status": str, "version": int, "dispatch_limits": dict}
        asked = {"max_inflight": 1}
        result = check.asked(session, "configure_dispatch_limits", expected, limits=asked)
        expect_equal("status", result["status"], "dispatch-limits-updated")
        again = session.q.configure_dispatch_limits(limits={"max_inflight": 1})
        expect_equal("status of what is so already", again["status"], "unchanged")
        cids = [session.submit_long() for _ in range(4)]
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
            is_typed = "ValueError" in text or named(error) in _REFUSED
            expect(is_typed, f"{asked} raised {text[-200:]}")
        else:
            expect(False, f"{asked} was not refused; it answered {answer}")
        result = session.q.get_scheduler_status()["dispatch_limits"]
        expect_equal(f"limits after {asked}", result, before)


@row("scheduler.queue", "get_scheduler_queue_state: what is under way, as envelopes")
def queue(session: CheckSession) -> None:
    cid = session.submit_long()
    number = session.status(cid)["qtask_id"]
    result = check.has("get_scheduler_queue_state", session.q.get_scheduler_queue_state(), QUEUE)
    expect_equal("include_restricted", result["include_restricted"], False)
    there = {task.get("qtask_id") for task in result["runtime_tasks"]}
    expect(number in there, f"runtime_tasks has {sorted(map(str, there))}, not {number}")
    for task in result["runtime_tasks"]:
        check.envelope("a runtime task", task)
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
