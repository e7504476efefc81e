"""Bad input: each field of each request mutated. A typed answer, and nothing has changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from simenv.qpm_check.checks.policy import ONE_GATE, configuration
from simenv.qpm_check.contract.outcomes import Broken, shown
from simenv.qpm_check.harness import circuits
from simenv.qpm_check.harness.check import BOTH, expect_equal, row
from simenv.qpm_check.harness.session import SHOTS, CheckSession
from simenv.qpm_check.targets.target import FAMILY, named

WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 2**70, 1.5, float("nan"), "", "x", "\x00", "9" * 500, [], [None], {},
    {"a": {"b": []}}, [[[[]]]],
)  # fmt: skip
TYPED = FAMILY - {"DEFwCommError"}
Call = Callable[..., Any]


def _mutations(request: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each field, also of tables inside, with each wrong value; each field left out."""
    found = []
    for name, value in request.items():
        without = {key: item for key, item in request.items() if key != name}
        found.append((f"without {name}", without))
        found += [(f"{name}={shown(wrong)}", {**request, name: wrong}) for wrong in WRONG]
        if isinstance(value, dict):
            found += [
                (f"{name}: {what}", {**request, name: inner}) for what, inner in _mutations(value)
            ]
    return found


def _answered(what: str, call: Call, given: Any, allowed: tuple[str, ...] = ()) -> bool:
    """Was it taken? False: refused by a typed error."""
    try:
        call(given)
    except Exception as error:
        if named(error) in (*TYPED, *allowed):
            return False
        raise Broken(f"{what} raised {named(error)}: {str(error)[-200:]}") from error
    return True


@row(
    "input.info",
    "each field of info mutated: a typed answer, and circuits still run",
    revisions=BOTH,
)
def info(bench: CheckSession) -> None:
    right = bench.info(
        circuits.BELL, return_statevector=False, backend="b", method="m", circuit=None,
        priority=1, depth=2, deadline_ns=10**18, lib="x", qubit_mapping=[0, 1],
    )  # fmt: skip
    del right["circuit"], right["lib"]
    nested = {**right, "circuit": {"format": "openqasm2", "data": circuits.BELL}}
    for what, wrong in [*_mutations(right), *_mutations(nested)[len(_mutations(right)) :]]:
        taken: list[str] = []

        def call(given: Any, kept: list[str] = taken) -> None:
            kept.append(bench.accept(given)[0])

        _answered(f"async_run with {what}", call, wrong)
        if taken:
            _delete(bench, taken[0])
    for wrong_info in WRONG[:-4]:
        _answered(
            f"async_run({shown(wrong_info)})", lambda given: _submit(bench, given), wrong_info
        )
    _still_well(bench)


@row("input.sync", "sync_run with mutated arguments: a typed answer")
def sync(bench: CheckSession) -> None:
    for name in ("reservation_id", "token", "timeout", "cancel_on_timeout"):
        for wrong in WRONG:
            given = {**bench.under, name: wrong}
            if name == "timeout" and not isinstance(wrong, float | int):
                given["cancel_on_timeout"] = True
            what = f"sync_run({name}={shown(wrong)})"
            _answered(what, lambda more: bench.q.sync_run(bench.info(), **more), given)
    _still_well(bench)


@row("input.ids", "ids of nobody, of every kind: a typed answer", revisions=BOTH)
def ids(bench: CheckSession) -> None:
    names = ["read_cq", "peek_cq", "delete_circuit"]
    if bench.revision == 2:
        names += ["task_status", "cancel_task"]
    for name in names:
        method = getattr(bench.q, name)
        for wrong in WRONG:
            if name in ("read_cq", "peek_cq") and wrong is None:
                continue
            _answered(f"{name}({shown(wrong)})", method, wrong)
    if bench.revision == 2:
        for name in ("get_task_timing", "get_task_metadata"):
            method = getattr(bench.q, name)
            for wrong in WRONG:
                ask = partial(_of_task, method, bench.under)
                _answered(f"{name}({shown(wrong)})", ask, wrong)
    _still_well(bench)


@row("input.reserve", "each field of a reservation request mutated: a decision or a typed error")
def reserve(bench: CheckSession) -> None:
    right = {
        "request_id": "r", "owner": {"user_id": "u"}, "job_id": "j", "scope_id": "s",
        "workload_kind": "quantum", "walltime_ns": 10**12, "ttl_ns": 10**12,
        "classical_runtime_ns": 10, "overhead_ns": 10, "priority": 1,
        "task_class": {"class_id": "c", "count": 1, **ONE_GATE},
        "num_qubits": 2, "num_shots": SHOTS, "policy": {}, "workload": {}, "run_context": {},
    }  # fmt: skip
    before = len(bench.q.list_reservations())
    made = 0
    for what, wrong in _mutations(right):
        _answered(f"evaluate with {what}", lambda given: bench.q.evaluate(request=given), wrong)
    for what, wrong in _mutations(right)[:: max(1, len(WRONG) // 4)]:
        decision = bench.answers(
            f"reserve with {what}",
            partial(bench.q.reserve, request=wrong),
        )
        if isinstance(decision, dict) and decision.get("status") == "accepted":
            bench.q.cancel(reservation_id=decision["reservation_id"])
            made += 1
    after = [one for one in bench.q.list_reservations() if one["state"] == "active"]
    expect_equal("active reservations that were not there", max(0, len(after) - before), 0)


@row("input.policy", "policy and profile mutated: typed, and the old ones stay")
def policy(bench: CheckSession) -> None:
    profile = bench.q.get_device_profile()["device_profile"]
    rules = bench.q.get_admission_policy()["configuration"]
    try:
        for what, wrong in _mutations(configuration("credit", {"total_credits": 5})):
            if not _answered(f"set_admission_policy with {what}",
                             lambda given: bench.q.set_admission_policy(configuration=given),
                             wrong):  # fmt: skip
                found = bench.q.get_admission_policy()["configuration"]
                expect_equal(f"the policy after {what}", found, rules)
            else:
                bench.q.set_admission_policy(configuration=configuration("unlimited", {}))
                rules = bench.q.get_admission_policy()["configuration"]
        for what, wrong in _mutations(profile):
            if not _answered(f"configure_device_profile with {what}",
                             lambda given: bench.q.configure_device_profile(profile=given),
                             wrong):  # fmt: skip
                found = bench.q.get_device_profile()["device_profile"]
                expect_equal(f"the profile after {what}", found, profile)
            else:
                bench.q.configure_device_profile(profile=profile)
    finally:
        bench.q.set_admission_policy(configuration=configuration("unlimited", {}))
        bench.q.configure_device_profile(profile=profile)
    _still_well(bench)


@row("input.steering", "arguments of scheduler and control mutated: a typed answer")
def steering(bench: CheckSession) -> None:
    calls: dict[str, Call] = {
        "configure_scheduler_policy": lambda v: bench.q.configure_scheduler_policy(configuration=v),
        "configure_dispatch_limits": lambda v: bench.q.configure_dispatch_limits(limits=v),
        "pause (device_id)": lambda v: bench.q.pause_execution_target(device_id=v),
        "get_scheduler_status (device_id)": lambda v: bench.q.get_scheduler_status(device_id=v),
        "drain (mode)": lambda v: bench.q.drain_execution_target(mode=v),
        "drain (timeout_s)": lambda v: bench.q.drain_execution_target(timeout_s=v),
        "list_reservations (filters)": lambda v: bench.q.list_reservations(filters=v),
        "reconcile (reason)": lambda v: bench.q.reconcile_runtime_state(reason=v),
        "shutdown (mode)": lambda v: bench.q.shutdown(mode=v),
        "get_queue_metrics (device_id)": lambda v: bench.q.get_queue_metrics(device_id=v),
    }
    before = bench.q.get_scheduler_policy()["scheduler_policy"]
    limits = bench.q.get_scheduler_status()["dispatch_limits"]["max_inflight"]
    try:
        for what, call in calls.items():
            for wrong in WRONG:
                _answered(f"{what} = {shown(wrong)}", call, wrong, ("ValueError", "DEFwRemoteError")
                          if what.startswith("configure_dispatch") else ())  # fmt: skip
            bench.q.resume_execution_target()
    finally:
        bench.q.configure_scheduler_policy(configuration=before)
        bench.q.configure_dispatch_limits(limits={"max_inflight": limits})
        bench.q.resume_execution_target()
    _still_well(bench)


def _still_well(bench: CheckSession) -> None:
    counts = bench.counts(circuits.FIRST_BIT)
    expect_equal("the sum of the counts afterwards", sum(counts.values()), SHOTS)


def _of_task(method: Call, under: dict[str, Any], given: Any) -> None:
    method(task_id=given, **under)


def _submit(bench: CheckSession, given: Any) -> None:
    bench.q.async_run(given, **(bench.under if bench.revision == 2 else {}))


def _delete(bench: CheckSession, cid: str) -> None:
    bench.q.delete_circuit(cid, **(bench.under if bench.revision == 2 else {}))
