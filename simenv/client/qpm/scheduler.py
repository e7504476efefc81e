"""Bindings `scheduler` and `admission-policy` of revision 2.

The first has the state, the dispatch limits and the queue policy of a device, the second the rules
by which reservations are decided. Every caller may read; changes need a client with an admin key. A
refused change leaves the rules as they were. Tasks are listed as envelopes; counts cover all
callers.

Device profiles and admission policies are converted from and to a host's tables. Invariant: a table
that is read is complete and has known names only, else an error.
"""

from __future__ import annotations

from typing import Any

import msgspec

from simenv.client.qpm import requests, status
from simenv.model import FINAL_STATES, TargetInfo, TaskInfo, task_number
from simenv.model.reservations import MAX_INFLIGHT, AdmissionPolicy, DeviceProfile, Workload
from simenv.model.task_rules import MAX_OPTIONS
from simenv.model.views import ON_DEMAND
from simenv.qpm import answers, contract, envelopes
from simenv.wire.messages import admin, client as m

POLICIES = ("priority", "fair_share", "fifo", "ordered", "round_robin")
MAX_OPTION_CHARS = 255
MOST_LISTED = 1_000  # of other callers' tasks

Plain = dict[str, Any]


class SchedulerBinding(status.QpmBinding):
    """Methods of the binding. Thread-safe."""

    def get_scheduler_status(
        self, token: str | None = None, device_id: contract.Device | None = None
    ) -> Plain:
        """State, queue policy, dispatch limits, and the number of tasks in each state."""
        device = self._targets.device(device_id)
        info = self._identity.target(device)
        rules = self._ask(admin.GetPolicy(0, device=device))
        profile = self._ask(admin.GetProfile(0, device=device))
        runtime = info.queued + info.sent + info.running
        answer = answers.SchedulerStatus(
            target_id=self._identity.contract_name(device), state=info.state,
            scheduler_available=True, threading_mode="service",
            policy=policy_of(info), control=control_of(info),
            versions={
                "scheduler": info.version, "admission_policy": rules.version,
                "device_profile": profile.version,
            },
            task_count=runtime + info.parked, pending_capacity_count=info.parked,
            runtime_task_count=runtime, selected_task_count=info.sent,
            provider_inflight_count=info.running,
            dispatch_limits=answers.DispatchLimits(info.max_inflight),
        )  # fmt: skip
        return envelopes.plain(answer)

    def get_scheduler_policy(
        self, token: str | None = None, device_id: contract.Device | None = None
    ) -> Plain:
        """Queue policy of the device, and its version."""
        info = self._identity.target(self._targets.device(device_id))
        return {"version": info.version, "scheduler_policy": envelopes.plain(policy_of(info))}

    def get_scheduler_queue_state(
        self,
        token: str | None = None,
        device_id: contract.Device | None = None,
        include_restricted: bool = False,
    ) -> Plain:
        """Unfinished tasks that came through this QPM. `include_restricted`: also up to MOST_LISTED
        other tasks that its client may see; these have no cid and no qtask id."""
        device = self._targets.device(device_id)
        restricted = requests.truth("include_restricted", include_restricted)
        info = self._identity.target(device)
        mine = self._own_tasks(device)
        shown = mine + (self._others(device) if restricted else [])
        pending = envelopes.Lifecycle.PENDING_CAPACITY
        parked = [each for each in shown if each.lifecycle_state is pending]
        answer = answers.QueueState(
            target_id=self._identity.contract_name(device),
            include_restricted=restricted,
            pending_capacity=[envelopes.plain(each) for each in parked],
            scheduler_task_count=info.queued + info.sent + info.running,
            selected_qtask_ids=_task_numbers(mine, envelopes.Lifecycle.SELECTED),
            provider_inflight_qtask_ids=_task_numbers(mine, envelopes.Lifecycle.SUBMITTED),
            dispatch_limits=answers.DispatchLimits(info.max_inflight),
            runtime_tasks=[envelopes.plain(each) for each in shown if each not in parked],
        )
        return envelopes.plain(answer)

    def configure_scheduler_policy(
        self,
        token: str | None = None,
        device_id: contract.Device | None = None,
        configuration: Plain | None = None,
    ) -> Plain:
        """Set the queue policy; waiting tasks are put into the new order. `configuration`:
        policy_name and options; the policy `ordered` has the option keys, a list or a text with
        commas."""
        device = self._targets.device(device_id)
        name, options = _order(configuration)
        answer = self._change(
            "configure_scheduler_policy", admin.SetOrder(0, device, name, options)
        )
        return {
            "status": "accepted" if answer.changed else "unchanged",
            "version": answer.info.version,
            "scheduler_policy": envelopes.plain(policy_of(answer.info)),
        }

    def pause_execution_target(
        self,
        token: str | None = None,
        device_id: contract.Device | None = None,
        reason: str | int | None = None,
    ) -> Plain:
        """Pause the device: no task is started; tasks are accepted and wait."""
        return self._steer(device_id, "pause", "paused", reason=requests.reason_text(reason))

    def resume_execution_target(
        self,
        token: str | None = None,
        device_id: contract.Device | None = None,
        reason: str | int | None = None,
    ) -> Plain:
        """Resume the device after a pause or a drain."""
        return self._steer(device_id, "resume", "resumed", reason=requests.reason_text(reason))

    def calibrate_execution_target(
        self,
        token: str | None = None,
        device_id: contract.Device | None = None,
        reason: str | int | None = None,
    ) -> Plain:
        """Calibrate a device that drifts. The outcome is an event `calibration-update`, put to the
        queues that are registered for it."""
        return self._steer(
            device_id, "calibrate", "calibrating", reason=requests.reason_text(reason)
        )

    def drain_execution_target(
        self,
        token: str | None = None,
        device_id: contract.Device | None = None,
        mode: str = "graceful",
        timeout_s: float | None = None,
    ) -> Plain:
        """Drain the device: no task is accepted. Accepted tasks may start within `timeout_s`, and
        no longer."""
        most_s = requests.seconds("timeout_s", timeout_s) or 0.0
        how = requests.travelling("mode", mode)[:MAX_OPTION_CHARS]
        return self._steer(device_id, "drain", "draining", mode=how, timeout_s=most_s)

    def configure_dispatch_limits(
        self,
        token: str | None = None,
        device_id: contract.Device | None = None,
        limits: Plain | None = None,
    ) -> Plain:
        """Set dispatch limits. `max_inflight`: largest number of tasks assigned to workers at a
        time; 0: no limit."""
        device = self._targets.device(device_id)
        table = requests.table_argument("limits", limits)
        if set(table) != {"max_inflight"}:
            raise requests.wrong("limits", None, "a table with max_inflight and nothing else")
        max_inflight = requests.integer("max_inflight", table["max_inflight"], 0, MAX_INFLIGHT)
        answer = self._change(
            "configure_dispatch_limits", admin.SetDispatch(0, device, max_inflight)
        )
        return {
            "status": "dispatch-limits-updated" if answer.changed else "unchanged",
            "version": answer.info.version,
            "dispatch_limits": envelopes.plain(answers.DispatchLimits(answer.info.max_inflight)),
        }

    def _steer(self, device_id: Any, verb: str, word: str, **more: Any) -> Plain:
        device = self._targets.device(device_id)
        method = f"{verb}_execution_target"
        info = self._change(method, admin.SteerTarget(0, device, verb, **more)).info
        self._audit.note(method, more.get("reason") or None)
        target = self._identity.contract_name(device)
        return envelopes.plain(answers.Steered(word, info.version, target, control_of(info)))

    def _own_tasks(self, device: str) -> list[envelopes.StatusEnvelope]:
        runs = self._registry.unfinished()
        by_number = {task_number(i.id): i for i in self._status_queries.task_infos(*runs)}
        results = []
        for run in runs:
            seen = [by_number.get(task.handle.number) for task in run.tasks]
            open_ones = [i for i in seen if i is not None and _is_of(i, device)]
            if open_ones:
                results.append(status.current_status(run, open_ones))
        return results

    def _others(self, device: str) -> list[envelopes.StatusEnvelope]:
        infos = self._ask(m.GetQueue(0, limit=MOST_LISTED)).tasks
        task_numbers = [number for i in infos if (number := task_number(i.id)) is not None]
        registered = self._registry.numbers_of(task_numbers)
        return [
            _foreign(info)
            for info in infos
            if _is_of(info, device) and task_number(info.id) not in registered
        ]


def control_of(info: TargetInfo) -> answers.SchedulerControl:
    """Pause, drain and dispatch state of the device."""
    draining = info.state == "draining"
    return answers.SchedulerControl(
        paused=info.state == "paused", draining=draining, drain_mode=info.drain_mode or None,
        drain_timeout_s=info.drain_timeout_s or None,
        drain_started_at_ns=info.drain_started_ns or None, pause_reason=info.pause_reason or None,
        dispatch_depth=info.sent + info.running,
    )  # fmt: skip


def policy_of(info: TargetInfo) -> answers.SchedulerPolicy:
    """Queue policy of the device."""
    return answers.SchedulerPolicy(info.policy, dict(info.options))


def _is_of(info: TaskInfo, device: str) -> bool:
    """Return whether a task is unfinished and its pool belongs to the device. The name of a pool
    made on demand begins with that of its base pool."""
    if info.state in FINAL_STATES:
        return False
    return device in ("", info.pool) or info.pool.startswith(f"{device}{ON_DEMAND}")


def _foreign(info: TaskInfo) -> envelopes.StatusEnvelope:
    """Envelope of a task that was not submitted through this QPM."""
    lifecycle = envelopes.under_way(info)
    begun = lifecycle is envelopes.Lifecycle.SUBMITTED
    return msgspec.structs.replace(
        envelopes.status(lifecycle),
        scheduler_task_id=info.id,
        reservation_id=info.reservation or None,
        scheduler_state=str(info.state),
        pending_queue_position=info.parked or None,
        wait_estimate=None if begun else envelopes.wait(info.wait_us),
    )


def _task_numbers(
    entries: list[envelopes.StatusEnvelope], lifecycle: envelopes.Lifecycle
) -> list[int]:
    return [
        entry.qtask_id for entry in entries if entry.lifecycle_state is lifecycle and entry.qtask_id
    ]


def _order(configuration: Any) -> tuple[str, tuple[tuple[str, str], ...]]:
    table = requests.table_argument("configuration", configuration)
    name = table.get("policy_name", table.get("name"))
    if not isinstance(name, str) or name not in POLICIES:
        raise requests.wrong("policy_name", name, f"one of: {', '.join(POLICIES)}")
    options = requests.optional_table("options", table.get("options"))
    if len(options) > MAX_OPTIONS:
        raise requests.wrong("options", None, f"at most {MAX_OPTIONS} options")
    return name, tuple((_option("options", key), _option(key, v)) for key, v in options.items())


def _option(what: str, value: Any) -> str:
    items = value if isinstance(value, list | tuple) else [value]
    text = ",".join(requests.travelling(what, item) for item in items)
    if len(text) > MAX_OPTION_CHARS:
        raise requests.wrong(what, text, f"a text of up to {MAX_OPTION_CHARS} characters")
    return text


class PolicyBinding(status.QpmBinding):
    """Methods of the binding. Thread-safe."""

    def configure_device_profile(
        self,
        token: str | None = None,
        device_id: contract.Device | None = None,
        profile: Plain | None = None,
    ) -> Plain:
        """Change a device profile. `profile`: the fields to change; others keep their values."""
        device = self._targets.device(device_id)
        now = self._ask(admin.GetProfile(0, device=device)).profile
        message = admin.SetProfile(0, device, read_profile(profile, now))
        answer = self._change("configure_device_profile", message)
        return {"status": _status(answer.changed), **_profile(answer)}

    def get_device_profile(
        self, token: str | None = None, device_id: contract.Device | None = None
    ) -> Plain:
        """Device profile from which estimates are computed; times in ns."""
        device = self._targets.device(device_id)
        return _profile(self._ask(admin.GetProfile(0, device=device)))

    def set_admission_policy(
        self,
        token: str | None = None,
        device_id: contract.Device | None = None,
        configuration: Plain | None = None,
    ) -> Plain:
        """Replace the admission policy, in whole or not at all. `device_id`: here or in the
        configuration. With `expected_version` only if that is the present version."""
        table = requests.table_argument("configuration", configuration)
        named = table.get("device_id") if device_id is None else device_id
        device = self._targets.device(named)
        policy, expected = read_policy(table)
        answer = self._change("set_admission_policy", admin.SetPolicy(0, device, policy, expected))
        return {"status": _status(answer.changed), **self._policy(answer, device)}

    def get_admission_policy(
        self, token: str | None = None, device_id: contract.Device | None = None
    ) -> Plain:
        """Configuration in the form of `set_admission_policy`, and its version."""
        device = self._targets.device(device_id)
        return self._policy(self._ask(admin.GetPolicy(0, device=device)), device)

    def _policy(self, answer: admin.PolicyReply, device: str) -> Plain:
        table = policy_table(answer.policy, self._identity.contract_name(device))
        return envelopes.plain(answers.Policy(answer.version, table))


def _profile(answer: admin.ProfileReply) -> Plain:
    return envelopes.plain(answers.ProfileRecord(answer.version, profile_table(answer.profile)))


def _status(changed: bool) -> str:
    return "accepted" if changed else "unchanged"


ESTIMATOR = "baseline"
CAPACITY: dict[str, tuple[str, ...]] = {
    "unlimited": (),
    "credit": ("total_credits",),
    "rate": ("device_rate", "time_span_ns"),
}
_CONFIGURATION = frozenset(
    {"device_id", "policy", "estimator", "baseline", "capacity", "expected_version"}
)


def profile_table(profile: DeviceProfile) -> dict[str, Any]:
    """Table of a device profile, with the contract's field names."""
    table: dict[str, Any] = msgspec.structs.asdict(profile)
    return table | {"baseline": baseline_table(profile.baseline)}


def read_profile(raw: Any, now: DeviceProfile) -> DeviceProfile:
    """Read the fields to change; others keep their values in `now`."""
    table = requests.table_argument("profile", raw)
    _check_fields("profile", table, DeviceProfile.__struct_fields__)
    settings: dict[str, Any] = {}
    for name, value in table.items():
        if name == "baseline":
            settings[name] = read_baseline(value)
        elif name == "external_device_id":
            settings[name] = "" if value == "" else requests.label(name, value)
        else:
            settings[name] = requests.integer(name, value, 0, requests.MOST)
    return msgspec.structs.replace(now, **settings)


def policy_table(policy: AdmissionPolicy, device_id: str) -> dict[str, Any]:
    """Configuration in the form of `set_admission_policy`."""
    return {
        "device_id": device_id,
        "policy": {"name": policy.name, "options": {}},
        "estimator": {"name": ESTIMATOR, "options": {}},
        "baseline": baseline_table(policy.baseline),
        "capacity": capacity_table(policy),
    }


def capacity_table(policy: AdmissionPolicy) -> dict[str, int]:
    """Capacity figures of the policy that reservations share."""
    return {name: getattr(policy, name) for name in CAPACITY[policy.name]}


def read_policy(raw: Any) -> tuple[AdmissionPolicy, int]:
    """Return the policy and the version that it replaces; -1: any version."""
    table = requests.table_argument("configuration", raw)
    _check_fields("configuration", table, _CONFIGURATION)
    name = _named("policy", table.get("policy"), tuple(CAPACITY))
    if table.get("estimator") is not None:
        _named("estimator", table["estimator"], (ESTIMATOR,))
    capacity = requests.optional_table("capacity", table.get("capacity"))
    wanted = CAPACITY[name]
    if set(capacity) != set(wanted):
        given = ", ".join(sorted(capacity))[:80] or "nothing"
        message = f"capacity of the policy {name} has {given}"
        raise contract.ExecutionError(message, hint=f"it takes {' and '.join(wanted) or 'nothing'}")
    figures = {
        key: requests.integer(f"capacity.{key}", capacity[key], 1, requests.MOST) for key in wanted
    }
    version = -1
    if table.get("expected_version") is not None:
        version = requests.integer("expected_version", table["expected_version"], 0, requests.MOST)
    return AdmissionPolicy(name, read_baseline(table.get("baseline")), **figures), version


def baseline_table(work: Workload) -> dict[str, int]:
    return {theirs: getattr(work, ours) for theirs, ours in requests.BASELINE.items()}


def read_baseline(raw: Any) -> Workload:
    """Read the baseline circuit; all six fields are required."""
    table = requests.table_argument("baseline", raw)
    _check_fields("baseline", table, requests.BASELINE)
    missing = [name for name in requests.BASELINE if name not in table]
    if missing:
        message = f"baseline lacks {', '.join(missing)}"
        raise contract.ExecutionError(message, hint=f"all of: {', '.join(requests.BASELINE)}")
    sizes = {
        ours: requests.integer(f"baseline.{theirs}", table[theirs], 0, requests.MOST)
        for theirs, ours in requests.BASELINE.items()
    }
    return Workload(**sizes)


def _named(what: str, raw: Any, allowed: tuple[str, ...]) -> str:
    """Read the name in a table {"name", "options"}; options must be empty."""
    table = requests.table_argument(what, raw)
    _check_fields(what, table, ("name", "options"))
    if requests.optional_table(f"{what}.options", table.get("options")):
        raise requests.wrong(f"{what}.options", table["options"], "empty: there are none")
    name = table.get("name")
    if not isinstance(name, str) or name not in allowed:
        raise requests.wrong(f"{what}.name", name, f"one of: {', '.join(allowed)}")
    return name


def _check_fields(what: str, table: dict[str, Any], names: Any) -> None:
    unknown = sorted(set(table) - set(names))
    if unknown:
        message = f"{what} has no field {unknown[0][:80]!r}"
        raise contract.ExecutionError(message, hint=f"some of: {', '.join(sorted(names))}")
