"""Parser of reservation requests: checks `request` field by field. Pure.

All keys are optional. Unknown keys are kept as text for people to read, except keys that are named
like a credential or a token.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from simenv.client.qpm.requests import arguments
from simenv.model import ReservationRequest, Workload
from simenv.model.reservations import APP, MAX_TEXT_CHARS
from simenv.model.task_rules import MAX_WORKERS
from simenv.qpm.errors import ExecutionError

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
        arguments.optional_table(name, request.get(name))
    if request.get("priority") is not None:
        arguments.integer("priority", request["priority"], -MOST, MOST)
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
    sizes = arguments.optional_table("task_class", request.get("task_class"))
    others = arguments.optional_table("workload", request.get("workload"))
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
                entries[ours] = arguments.integer(f"{where}{key}", table[key], least, MOST)
                break
    return Workload(**entries)


def _figure(what: str, value: Any, maximum: int = MOST) -> int:
    return 0 if value is None else arguments.integer(what, value, 0, maximum)


def _name(what: str, value: Any) -> str:
    """Read a short text, or a number as text."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST:
        return str(value)
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARS or not _travels(value):
        raise arguments.wrong(
            what, value, f"a text of up to {MAX_TEXT_CHARS} characters, or a number"
        )
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
    return arguments.table("request", request)
