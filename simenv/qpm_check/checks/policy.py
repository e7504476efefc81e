"""Checks of the binding `admission-policy`: profiles, policies, estimator, credits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from simenv.qpm_check import fields
from simenv.qpm_check.check import row
from simenv.qpm_check.checks.admission import decided, stands
from simenv.qpm_check.fields import expect_equal
from simenv.qpm_check.session import CheckSession
from simenv.qpm_check.target import REFUSED, CheckFailed, CheckSkipped, expect

PROFILE: fields.Fields = {
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
    expected: fields.Fields = {"version": int, "device_profile": dict}
    result = fields.asked(session, "get_device_profile", expected)
    reported = fields.has("device_profile", result["device_profile"], PROFILE)
    fields.has("its baseline", reported["baseline"], dict.fromkeys(ONE_GATE, int))


@row("policy.profile-set", "configure_device_profile: accepted, then unchanged")
def profile_set(session: CheckSession) -> None:
    before = session.q.get_device_profile()
    changed = {**before["device_profile"], "compile_ns": 4_321}
    try:
        first = session.q.configure_device_profile(profile=changed)
        again = session.q.configure_device_profile(profile=changed)
        for answer, status in ((first, "accepted"), (again, "unchanged")):
            fields.has("configure_device_profile", answer,
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
    expected: fields.Fields = {"version": int, "configuration": dict}
    result = fields.asked(session, "get_admission_policy", expected)["configuration"]
    fields.has("configuration", result, {"policy": dict, "estimator": dict, "baseline": dict})
    expect_equal("policy", result["policy"].get("name"), "unlimited")
    expect_equal("capacity", result.get("capacity", {}), {})
    fields.has("its baseline", result["baseline"], dict.fromkeys(ONE_GATE, int))


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
        session.expect_refusal(what, ask, *REFUSED)
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
    gates = session.long.gates
    with _held(session, gates):
        cost = _cost(session, gates)
        number = session.reserve(**size(cost * 3 // 2))
        under = {"reservation_id": number}
        for turn in range(3):
            answer = session.q.sync_run(session.long.info(), timeout=session.wait_s, **under)
            expect_equal(f"outcome of task {turn + 1}, each two thirds of the credits",
                         answer["outcome"], "COMPLETED")  # fmt: skip
        record = stands(session, number, "active")
        used = record["credits_consumed"]
        expect(0 <= used < cost, f"{used} of {cost * 3 // 2} credits are gone after 3 short tasks")
        expect(record["actual_total_ns"] > 0, "actual_total_ns is 0 after 3 tasks")


@row("credits.cancelled", "a task cancelled before it ran gives back all it held")
def of_cancelled(session: CheckSession) -> None:
    gates = session.long.gates
    with _held(session, gates):
        cost = _cost(session, gates)
        number = session.reserve(**size(cost * 10))
        under = {"reservation_id": number}
        cids = [session.long.submit(under=under) for _ in range(6)]
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
    gates = session.long.gates
    with _held(session, gates):
        cost = _cost(session, gates)
        for _ in range(TURNS):
            under = {"reservation_id": session.reserve(**size(cost * 3 // 2))}
            first = session.long.submit(under=under)
            second, answer = session.accept(session.long.info(), under=under)
            state = session.q.get_scheduler_queue_state()
            if session.q.task_status(first, **under)["lifecycle_state"] == "completed":
                continue  # too late: the credits have been returned
            result = fields.stands("async_run", answer, "pending-capacity")
            expect_equal("pending_queue_position", result.get("pending_queue_position"), 1)
            expect_equal("pending_capacity of the queue", len(state["pending_capacity"]), 1)
            for cid in (first, second):
                record = session.completion(cid, reservation_id=under["reservation_id"])
                expect_equal("rc", record["rc"], 0)
            return
    raise CheckSkipped(f"{TURNS} times a long circuit was done before another could wait for it")


@row("credits.never", "a task its reservation can never pay is refused")
def never(session: CheckSession) -> None:
    gates = session.long.gates
    with _held(session, gates):
        under = {"reservation_id": session.reserve(**size(_cost(session, gates) * 3 // 2))}
        info = session.info(session.long.text, num_shots=2 * session.long.shots)
        again = partial(session.q.async_run, info, **under)
        session.expect_refusal("async_run of twice the gates", again)


def _cost(session: CheckSession, gates: int) -> int:
    """Credits that one long circuit holds; they depend on the gates after the QPM's own
    compilation."""
    number = session.reserve(**size(gates * 40))
    under = {"reservation_id": number}
    for _ in range(TURNS):
        before = stands(session, number, "active")["credits_consumed"]
        cid = session.long.submit(under=under)
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
