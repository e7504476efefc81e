"""Checks of invalid input: each mutated field must give a typed error and change nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from simenv.qpm_check import circuits
from simenv.qpm_check.check import both, row
from simenv.qpm_check.checks.policy import ONE_GATE, configuration
from simenv.qpm_check.fields import expect_equal
from simenv.qpm_check.session import SHOTS, CheckSession
from simenv.qpm_check.target import FAMILY, CheckFailed, named, short_repr

WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 2**70, 1.5, float("nan"), "", "x", "\x00", "9" * 500, [], [None], {},
    {"a": {"b": []}}, [[[[]]]],
)  # fmt: skip
TYPED = FAMILY - {"DEFwCommError"}
Call = Callable[..., Any]


def _mutations(request: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Mutated requests: each field, also of nested tables, with each wrong value; each field left
    out."""
    results = []
    for name, value in request.items():
        without = {key: item for key, item in request.items() if key != name}
        results.append((f"without {name}", without))
        results += [(f"{name}={short_repr(wrong)}", {**request, name: wrong}) for wrong in WRONG]
        if isinstance(value, dict):
            results += [
                (f"{name}: {what}", {**request, name: inner}) for what, inner in _mutations(value)
            ]
    return results


def _answered(what: str, call: Call, value: Any, allowed: tuple[str, ...] = ()) -> bool:
    """Return whether the call accepted the value; False: it raised a typed error. Raises
    CheckFailed for any other error."""
    try:
        call(value)
    except Exception as error:
        if named(error) in (*TYPED, *allowed):
            return False
        raise CheckFailed(f"{what} raised {named(error)}: {str(error)[-200:]}") from error
    return True


@both("input.info", "each field of info mutated: a typed answer, and circuits still run")
def info(session: CheckSession) -> None:
    right = session.info(
        circuits.BELL, return_statevector=False, backend="b", method="m", circuit=None,
        priority=1, depth=2, deadline_ns=10**18, lib="x", qubit_mapping=[0, 1],
    )  # fmt: skip
    del right["circuit"], right["lib"]
    nested = {**right, "circuit": {"format": "openqasm2", "data": circuits.BELL}}
    for what, wrong in [*_mutations(right), *_mutations(nested)[len(_mutations(right)) :]]:
        taken: list[str] = []

        def call(value: Any, kept: list[str] = taken) -> None:
            kept.append(session.accept(value)[0])

        _answered(f"async_run with {what}", call, wrong)
        if taken:
            session.q.delete_circuit(taken[0], **session.under)
    for wrong_info in WRONG[:-4]:
        submit = partial(session.q.async_run, **session.under)
        _answered(f"async_run({short_repr(wrong_info)})", submit, wrong_info)
    _still_well(session)


@row("input.sync", "sync_run with mutated arguments: a typed answer")
def sync(session: CheckSession) -> None:
    for name in ("reservation_id", "token", "timeout", "cancel_on_timeout"):
        for wrong in WRONG:
            values = {**session.under, name: wrong}
            if name == "timeout" and not isinstance(wrong, float | int):
                values["cancel_on_timeout"] = True
            what = f"sync_run({name}={short_repr(wrong)})"
            _answered(what, lambda more: session.q.sync_run(session.info(), **more), values)
    _still_well(session)


@both("input.ids", "unknown ids of every kind: a typed answer")
def ids(session: CheckSession) -> None:
    names = ["read_cq", "peek_cq", "delete_circuit"]
    if session.revision == 2:
        names += ["task_status", "cancel_task"]
    for name in names:
        method = getattr(session.q, name)
        for wrong in WRONG:
            if name in ("read_cq", "peek_cq") and wrong is None:
                continue
            _answered(f"{name}({short_repr(wrong)})", method, wrong)
    if session.revision == 2:
        for name in ("get_task_timing", "get_task_metadata"):
            method = getattr(session.q, name)
            for wrong in WRONG:
                ask = partial(_of_task, method, session.under)
                _answered(f"{name}({short_repr(wrong)})", ask, wrong)
    _still_well(session)


@row("input.reserve", "each field of a reservation request mutated: a decision or a typed error")
def reserve(session: CheckSession) -> None:
    right = {
        "request_id": "r", "owner": {"user_id": "u"}, "job_id": "j", "scope_id": "s",
        "workload_kind": "quantum", "walltime_ns": 10**12, "ttl_ns": 10**12,
        "classical_runtime_ns": 10, "overhead_ns": 10, "priority": 1,
        "task_class": {"class_id": "c", "count": 1, **ONE_GATE},
        "num_qubits": 2, "num_shots": SHOTS, "policy": {}, "workload": {}, "run_context": {},
    }  # fmt: skip
    before = len(session.q.list_reservations())
    built = 0
    for what, wrong in _mutations(right):
        _answered(f"evaluate with {what}", lambda value: session.q.evaluate(request=value), wrong)
    for what, wrong in _mutations(right)[:: max(1, len(WRONG) // 4)]:
        ask = partial(session.q.reserve, request=wrong)
        decision = session.answers(f"reserve with {what}", ask)
        if isinstance(decision, dict) and decision.get("status") == "accepted":
            session.q.cancel(reservation_id=decision["reservation_id"])
            built += 1
    after = [record for record in session.q.list_reservations() if record["state"] == "active"]
    expect_equal("active reservations that were not there", max(0, len(after) - before), 0)


@row("input.policy", "policy and profile mutated: typed, and the old ones stay")
def policy(session: CheckSession) -> None:
    profile = session.q.get_device_profile()["device_profile"]
    rules = session.q.get_admission_policy()["configuration"]
    try:
        for what, wrong in _mutations(configuration("credit", {"total_credits": 5})):
            if not _answered(f"set_admission_policy with {what}",
                             lambda value: session.q.set_admission_policy(configuration=value),
                             wrong):  # fmt: skip
                result = session.q.get_admission_policy()["configuration"]
                expect_equal(f"the policy after {what}", result, rules)
            else:
                session.q.set_admission_policy(configuration=configuration("unlimited", {}))
                rules = session.q.get_admission_policy()["configuration"]
        for what, wrong in _mutations(profile):
            if not _answered(f"configure_device_profile with {what}",
                             lambda value: session.q.configure_device_profile(profile=value),
                             wrong):  # fmt: skip
                result = session.q.get_device_profile()["device_profile"]
                expect_equal(f"the profile after {what}", result, profile)
            else:
                session.q.configure_device_profile(profile=profile)
    finally:
        session.q.set_admission_policy(configuration=configuration("unlimited", {}))
        session.q.configure_device_profile(profile=profile)
    _still_well(session)


@row("input.steering", "arguments of scheduler and control mutated: a typed answer")
def steering(session: CheckSession) -> None:
    calls: dict[str, Call] = {
        "configure_scheduler_policy": lambda v: session.q.configure_scheduler_policy(
            configuration=v
        ),
        "configure_dispatch_limits": lambda v: session.q.configure_dispatch_limits(limits=v),
        "pause (device_id)": lambda v: session.q.pause_execution_target(device_id=v),
        "get_scheduler_status (device_id)": lambda v: session.q.get_scheduler_status(device_id=v),
        "drain (mode)": lambda v: session.q.drain_execution_target(mode=v),
        "drain (timeout_s)": lambda v: session.q.drain_execution_target(timeout_s=v),
        "list_reservations (filters)": lambda v: session.q.list_reservations(filters=v),
        "reconcile (reason)": lambda v: session.q.reconcile_runtime_state(reason=v),
        "shutdown (mode)": lambda v: session.q.shutdown(mode=v),
        "get_queue_metrics (device_id)": lambda v: session.q.get_queue_metrics(device_id=v),
    }
    before = session.q.get_scheduler_policy()["scheduler_policy"]
    limits = session.q.get_scheduler_status()["dispatch_limits"]["max_inflight"]
    try:
        for what, call in calls.items():
            for wrong in WRONG:
                remote = what.startswith("configure_dispatch")
                also = ("ValueError", "DEFwRemoteError") if remote else ()
                _answered(f"{what} = {short_repr(wrong)}", call, wrong, also)
            session.q.resume_execution_target()
    finally:
        session.q.configure_scheduler_policy(configuration=before)
        session.q.configure_dispatch_limits(limits={"max_inflight": limits})
        session.q.resume_execution_target()
    _still_well(session)


def _still_well(session: CheckSession) -> None:
    counts = session.counts(circuits.FIRST_BIT)
    expect_equal("the sum of the counts afterwards", sum(counts.values()), SHOTS)


def _of_task(method: Call, under: dict[str, Any], task_id: Any) -> None:
    method(task_id=task_id, **under)
