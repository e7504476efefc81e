"""Conversion of device profiles and admission policies from and to a host's tables. Pure.

Invariant: a table that is read is complete and has known names only, else ExecutionError.
"""

from __future__ import annotations

from typing import Any

import msgspec

from simenv.client.qpm.requests import arguments
from simenv.model import AdmissionPolicy, DeviceProfile, Workload
from simenv.model.reservations import MAX_TEXT_CHARS
from simenv.qpm.errors import ExecutionError

MOST = 2**62
ESTIMATOR = "baseline"
CAPACITY: dict[str, tuple[str, ...]] = {
    "unlimited": (),
    "credit": ("total_credits",),
    "rate": ("device_rate", "time_span_ns"),
}
BASELINE = {
    "qubit_count": "qubits",
    "depth": "depth",
    "one_q_gate_count": "gates_1q",
    "two_q_gate_count": "gates_2q",
    "measurement_count": "measurements",
    "shots": "shots",
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
    table = arguments.table("profile", raw)
    _check_fields("profile", table, DeviceProfile.__struct_fields__)
    settings: dict[str, Any] = {}
    for name, value in table.items():
        if name == "baseline":
            settings[name] = read_baseline(value)
        elif name == "external_device_id":
            settings[name] = "" if value == "" else _short(name, value)
        else:
            settings[name] = arguments.integer(name, value, 0, MOST)
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
    table = arguments.table("configuration", raw)
    _check_fields("configuration", table, _CONFIGURATION)
    name = _named("policy", table.get("policy"), tuple(CAPACITY))
    if table.get("estimator") is not None:
        _named("estimator", table["estimator"], (ESTIMATOR,))
    capacity = arguments.optional_table("capacity", table.get("capacity"))
    wanted = CAPACITY[name]
    if set(capacity) != set(wanted):
        raise ExecutionError(
            f"capacity of the policy {name} has {', '.join(sorted(capacity))[:80] or 'nothing'}",
            hint=f"it takes {' and '.join(wanted) or 'nothing'}",
        )
    figures = {key: arguments.integer(f"capacity.{key}", capacity[key], 1, MOST) for key in wanted}
    expected = table.get("expected_version")
    version = -1 if expected is None else arguments.integer("expected_version", expected, 0, MOST)
    return AdmissionPolicy(name, read_baseline(table.get("baseline")), **figures), version


def baseline_table(work: Workload) -> dict[str, int]:
    return {theirs: getattr(work, ours) for theirs, ours in BASELINE.items()}


def read_baseline(raw: Any) -> Workload:
    """Read the baseline circuit; all six fields are required."""
    table = arguments.table("baseline", raw)
    _check_fields("baseline", table, BASELINE)
    missing = [name for name in BASELINE if name not in table]
    if missing:
        raise ExecutionError(
            f"baseline lacks {', '.join(missing)}", hint=f"all of: {', '.join(BASELINE)}"
        )
    return Workload(
        **{
            ours: arguments.integer(f"baseline.{theirs}", table[theirs], 0, MOST)
            for theirs, ours in BASELINE.items()
        }
    )


def _named(what: str, raw: Any, allowed: tuple[str, ...]) -> str:
    """Read the name in a table {"name", "options"}; options must be empty."""
    table = arguments.table(what, raw)
    _check_fields(what, table, ("name", "options"))
    if arguments.optional_table(f"{what}.options", table.get("options")):
        raise arguments.wrong(f"{what}.options", table["options"], "empty: there are none")
    name = table.get("name")
    if not isinstance(name, str) or name not in allowed:
        raise arguments.wrong(f"{what}.name", name, f"one of: {', '.join(allowed)}")
    return name


def _check_fields(what: str, table: dict[str, Any], names: Any) -> None:
    unknown = sorted(set(table) - set(names))
    if unknown:
        raise ExecutionError(
            f"{what} has no field {unknown[0][:80]!r}", hint=f"some of: {', '.join(sorted(names))}"
        )


def _short(what: str, value: Any) -> str:
    text = arguments.travelling(what, value)
    if len(text) > MAX_TEXT_CHARS:
        raise arguments.wrong(what, value, f"a text of up to {MAX_TEXT_CHARS} characters")
    return text
