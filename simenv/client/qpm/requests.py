"""Parsers of requests of hosts: reservations, policies and single arguments. Pure."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from simenv.model import AdmissionPolicy, DeviceProfile, ReservationRequest, Workload
from simenv.model.reservations import APP, MAX_LABEL_CHARS
from simenv.model.task_rules import MAX_REASON_CHARS, MAX_SECONDS, MAX_WORKERS
from simenv.qpm.contract import ExecutionError
from simenv.text import short_repr

# Checks of single arguments of hosts; an invalid argument raises ExecutionError and changes
# nothing.
#
# Values come from a host's transport, so every type and value must be expected.

MAX_TEXT_CHARS = 4_096  # of an id, a name, a reason
MAX_RESERVATION = 2**64 - 1
MAX_REASON_CODE = 2**32 - 1
MAX_FILTER_VALUES = 4_096


def wrong(what: str, value: Any, wanted: str) -> ExecutionError:
    """Make the error of one invalid argument."""
    return ExecutionError(f"{what}={short_repr(value)}", hint=f"{what} is {wanted}")


def text(what: str, value: Any) -> str:
    """Check a text that is not empty."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT_CHARS:
        raise wrong(what, value, f"a text of 1 to {MAX_TEXT_CHARS} characters")
    return value


def optional_text(what: str, value: Any) -> str | None:
    """Check None or a text that is not empty."""
    return None if value is None else text(what, value)


def reason_text(value: Any) -> str:
    """Read a `reason` as text for the service, cut to MAX_REASON_CHARS; "" for None. A reason code,
    which schedulers send, becomes `code N`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"code {integer('reason', value, 0, MAX_REASON_CODE)}"
    result = "" if value is None else text("reason", value)
    return result[:MAX_REASON_CHARS].encode("utf-8", "replace").decode()


def travelling(what: str, value: Any) -> str:
    """Check a text as `text` does, and that it can be encoded as UTF-8 for the service."""
    result = text(what, value)
    try:
        result.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise wrong(what, value, "text in Unicode") from error
    return result


def integer(what: str, value: Any, low: int, high: int) -> int:
    """Check a whole number in low .. high; bool and float are refused."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise wrong(what, value, f"a whole number from {low} to {high}")
    return int(value)


def truth(what: str, value: Any) -> bool:
    """Check a bool; no other type is accepted."""
    if not isinstance(value, bool):
        raise wrong(what, value, "true or false")
    return value


def seconds(what: str, value: Any) -> float | None:
    """Check None or a time in 0 .. MAX_SECONDS."""
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= MAX_SECONDS:
        raise wrong(what, value, f"seconds from 0 to {MAX_SECONDS}, or nothing")
    return float(value)


def table_argument(what: str, value: Any) -> dict[str, Any]:
    """Check a dict with text keys."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise wrong(what, value, "a table with names for keys")
    return value


def optional_table(what: str, value: Any) -> dict[str, Any]:
    """Check a dict as `table` does; {} for None."""
    return {} if value is None else table_argument(what, value)


def filters(value: Any) -> dict[str, Any]:
    """Check a table of single values and lists of them; {} for None. Tables that are nested would
    take any time to compare."""
    result = optional_table("filters", value)
    for wanted in result.values():
        items = wanted if isinstance(wanted, list) else [wanted]
        scalars = all(isinstance(each, str | int | float | None) for each in items)
        if not scalars or len(items) > MAX_FILTER_VALUES:
            raise wrong("filters", value, "a table of values, or lists of values")
    return dict(result)


def reservation(value: Any) -> int | None:
    """Check None or a possible reservation number."""
    return None if value is None else integer("reservation_id", value, 1, MAX_RESERVATION)


# Parser of reservation requests: checks `request` field by field. Pure.
#
# All keys are optional. Unknown keys are kept as text for people to read, except keys that are
# named like a credential or a token.

MOST = 2**62  # of any size or time
MAX_WORDS = 32  # kept of a request, with so many characters each
MAX_WORD_CHARS = 256
MAX_VALUES = 1_000  # of one table that is kept as text
_OWNER = ("user_id", "user", "username", "account")
_SIZES = {
    "count": "count",
    "qubits": "qubit_count",
    "depth": "depth",
    "gates_1q": "one_q_gate_count",
    "gates_2q": "two_q_gate_count",
    "measurements": "measurement_count",
    "shots": "shots",
}
_CLASS_ID = "class_id"  # the host's own name of the class
ALLOCATION = ("scheduler", "cluster_name", "allocation_id")  # identity of a batch allocation
_READ = frozenset(
    {
        "request_id", "owner", "user_id", "job_id", "scope_id", "target_device_id", "device_id",
        "workload_kind", "walltime_ns", "ttl_ns", "expiration_ttl_ns", "classical_runtime_ns",
        "overhead_ns", "task_class", "workload", "num_qubits", "num_shots", "workers", "bound_ns",
        "token", APP, *ALLOCATION,
    }
)  # fmt: skip
_SECRET = ("credential", "token", "passw", "secret", "api_key", "apikey", "authorization")


def device_of(request: Mapping[str, Any]) -> Any:
    """Device id of the request, as the host wrote it."""
    target = request.get("target_device_id")
    return request.get("device_id") if target is None else target


def read(request: Mapping[str, Any], device: str, app: str) -> ReservationRequest:
    """Parse a request. `device`: the service's name of the device; `app`: the application run that
    asks.

    Raises ExecutionError with the field, its value and the expected value.
    """
    for name in ("policy", "run_context"):
        optional_table(name, request.get(name))
    if request.get("priority") is not None:
        integer("priority", request["priority"], -MOST, MOST)
    ttl = "ttl_ns" if request.get("ttl_ns") is not None else "expiration_ttl_ns"
    kind = request.get("workload_kind")
    return ReservationRequest(
        request_id=_name("request_id", request.get("request_id")),
        device=device,
        scope=_name("scope_id", request.get("scope_id")),
        user=_user(request),
        job=_name("job_id", request.get("job_id")),
        workload_kind="quantum" if kind is None else _name("workload_kind", kind),
        ttl_ns=_figure(ttl, request.get(ttl)),
        walltime_ns=_figure("walltime_ns", request.get("walltime_ns")),
        classical_ns=_figure("classical_runtime_ns", request.get("classical_runtime_ns")),
        overhead_ns=_figure("overhead_ns", request.get("overhead_ns")),
        workload=_workload(request),
        workers=_figure("workers", request.get("workers"), MAX_WORKERS),
        bound_ns=_figure("bound_ns", request.get("bound_ns")),
        metadata=_unknown_fields(request, app),
    )


def _user(request: Mapping[str, Any]) -> str:
    if request.get("user_id") is not None:
        return _name("user_id", request["user_id"])
    owner = request.get("owner")
    if not isinstance(owner, dict):
        return _name("owner", owner)
    return next((_name(f"owner.{k}", owner[k]) for k in _OWNER if owner.get(k) is not None), "")


def _workload(request: Mapping[str, Any]) -> Workload:
    """Read the workload from `task_class`, else from `workload`, else from num_qubits and
    num_shots."""
    sizes = optional_table("task_class", request.get("task_class"))
    others = optional_table("workload", request.get("workload"))
    size_keys = (_CLASS_ID, *_SIZES.values())
    unknown = [key for key in sizes if key not in size_keys]
    if unknown:
        raise ExecutionError(
            f"task_class has the key {unknown[0][:64]!r}, which is not known",
            hint=f"one of: {', '.join(size_keys)}",
        )
    last = {"qubits": "num_qubits", "shots": "num_shots"}
    entries: dict[str, int] = {}
    for ours, theirs in _SIZES.items():
        for where, table, key in (
            ("task_class.", sizes, theirs),
            ("workload.", others, theirs),
            ("", request, last.get(ours, "")),
        ):
            if table.get(key) is not None:
                least = 1 if ours == "count" else 0
                entries[ours] = integer(f"{where}{key}", table[key], least, MOST)
                break
    return Workload(**entries)


def _figure(what: str, value: Any, maximum: int = MOST) -> int:
    return 0 if value is None else integer(what, value, 0, maximum)


def _name(what: str, value: Any) -> str:
    """Read a short text, or a number as text."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST:
        return str(value)
    if not isinstance(value, str) or len(value) > MAX_LABEL_CHARS or not _travels(value):
        raise wrong(what, value, f"a text of up to {MAX_LABEL_CHARS} characters, or a number")
    return value


def _travels(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _unknown_fields(request: Mapping[str, Any], app: str) -> tuple[tuple[str, str], ...]:
    """Keep the identity of the allocation and the unknown fields as short texts."""
    settings = [(APP, app)] if app else []
    launcher = request.get("launcher")
    tables = (request, launcher) if isinstance(launcher, dict) else (request,)
    for name in ALLOCATION:
        values = (table[name] for table in tables if table.get(name) is not None)
        settings += [(name, _short(_text(value))) for value in itertools.islice(values, 1)]
    for key, value in request.items():
        if key in _READ or value is None or _is_secret(key):
            continue
        if len(settings) == MAX_WORDS:
            break
        settings.append((_short(key), _short(_text(value))))
    return tuple(settings)


def _text(value: Any) -> str:
    """Return a text as it is, and other values as JSON without secrets; the type of a value that is
    nested too deeply or has too many entries."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(_open(value, iter(range(MAX_VALUES))), default=_kind)
    except (TypeError, ValueError, RecursionError):
        return _kind(value)


def _is_secret(key: object) -> bool:
    name = key.lower() if isinstance(key, str) else ""
    return any(word in name for word in _SECRET)


def _open(value: Any, left: Iterator[int]) -> Any:
    """Copy of a value without keys that are named like a secret, at any depth. `left`: one number
    for each value that may still be copied, since lists can hold one another many times. Raises
    ValueError for more."""
    if next(left, None) is None:
        raise ValueError
    if isinstance(value, Mapping):
        return {key: _open(item, left) for key, item in value.items() if not _is_secret(key)}
    if isinstance(value, list | tuple):
        return [_open(item, left) for item in value]
    return value


def _kind(value: object) -> str:
    return f"<{type(value).__name__}>"


def _short(text: str) -> str:
    return text[:MAX_WORD_CHARS].encode("utf-8", "replace").decode()


def request_of(request: Any) -> dict[str, Any]:
    """Check that the request is a table. The error tells hosts of revision 1, whose `reserve` has
    another first argument, what is missing."""
    if request is None:
        raise ExecutionError("request is missing", hint="request={...}; every key may be left out")
    return table_argument("request", request)


# Conversion of device profiles and admission policies from and to a host's tables. Pure.
#
# Invariant: a table that is read is complete and has known names only, else ExecutionError.

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
    table = table_argument("profile", raw)
    _check_fields("profile", table, DeviceProfile.__struct_fields__)
    settings: dict[str, Any] = {}
    for name, value in table.items():
        if name == "baseline":
            settings[name] = read_baseline(value)
        elif name == "external_device_id":
            settings[name] = "" if value == "" else _short_text(name, value)
        else:
            settings[name] = integer(name, value, 0, MOST)
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
    table = table_argument("configuration", raw)
    _check_fields("configuration", table, _CONFIGURATION)
    name = _named("policy", table.get("policy"), tuple(CAPACITY))
    if table.get("estimator") is not None:
        _named("estimator", table["estimator"], (ESTIMATOR,))
    capacity = optional_table("capacity", table.get("capacity"))
    wanted = CAPACITY[name]
    if set(capacity) != set(wanted):
        raise ExecutionError(
            f"capacity of the policy {name} has {', '.join(sorted(capacity))[:80] or 'nothing'}",
            hint=f"it takes {' and '.join(wanted) or 'nothing'}",
        )
    figures = {key: integer(f"capacity.{key}", capacity[key], 1, MOST) for key in wanted}
    expected = table.get("expected_version")
    version = -1 if expected is None else integer("expected_version", expected, 0, MOST)
    return AdmissionPolicy(name, read_baseline(table.get("baseline")), **figures), version


def baseline_table(work: Workload) -> dict[str, int]:
    return {theirs: getattr(work, ours) for theirs, ours in BASELINE.items()}


def read_baseline(raw: Any) -> Workload:
    """Read the baseline circuit; all six fields are required."""
    table = table_argument("baseline", raw)
    _check_fields("baseline", table, BASELINE)
    missing = [name for name in BASELINE if name not in table]
    if missing:
        raise ExecutionError(
            f"baseline lacks {', '.join(missing)}", hint=f"all of: {', '.join(BASELINE)}"
        )
    return Workload(
        **{
            ours: integer(f"baseline.{theirs}", table[theirs], 0, MOST)
            for theirs, ours in BASELINE.items()
        }
    )


def _named(what: str, raw: Any, allowed: tuple[str, ...]) -> str:
    """Read the name in a table {"name", "options"}; options must be empty."""
    table = table_argument(what, raw)
    _check_fields(what, table, ("name", "options"))
    if optional_table(f"{what}.options", table.get("options")):
        raise wrong(f"{what}.options", table["options"], "empty: there are none")
    name = table.get("name")
    if not isinstance(name, str) or name not in allowed:
        raise wrong(f"{what}.name", name, f"one of: {', '.join(allowed)}")
    return name


def _check_fields(what: str, table: dict[str, Any], names: Any) -> None:
    unknown = sorted(set(table) - set(names))
    if unknown:
        raise ExecutionError(
            f"{what} has no field {unknown[0][:80]!r}", hint=f"some of: {', '.join(sorted(names))}"
        )


def _short_text(what: str, value: Any) -> str:
    text = travelling(what, value)
    if len(text) > MAX_LABEL_CHARS:
        raise wrong(what, value, f"a text of up to {MAX_LABEL_CHARS} characters")
    return text
