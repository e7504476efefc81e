"""Fields of answers, and the tests of answers that all checks share.

A table of answer fields has the kind of each field, a type or a tuple of types; `int` excludes
bool, `float` includes int (YAML may write 3.0 as 3), `ANY` is any plain value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simenv.qpm_check.target import CheckFailed, expect, short_repr

if TYPE_CHECKING:
    from simenv.qpm_check.session import CheckSession


def expect_equal(what: str, actual: Any, expected: Any) -> None:
    """Raise CheckFailed if the two differ in value, or if only one is a bool."""
    if actual != expected or isinstance(actual, bool) != isinstance(expected, bool):
        raise CheckFailed(f"{what} is {short_repr(actual)}, not {short_repr(expected)}")


ANY: tuple[type, ...] = ()
Kind = type | tuple[type, ...]
Fields = Mapping[str, Kind]
NOTHING = type(None)

TIMES = (
    "creation_time", "resources_consumed_time", "launch_time", "exec_time", "completion_time",
    "cq_enqueue_time", "cq_dequeue_time",
)  # fmt: skip
NOT_REACHED = -1
OUTCOMES = {
    "created": "ACCEPTED", "capacity-held": "ACCEPTED", "pending-capacity": "DELAYED",
    "queued": "ACCEPTED", "selected": "ACCEPTED", "resources-consumed": "ACCEPTED",
    "submitted": "ACCEPTED", "completed": "COMPLETED", "failed": "FAILED", "cancelled": "CANCELLED",
    "unknown": "UNKNOWN", "invalid-reservation": "INVALID_RESERVATION",
    "missing-reservation": "MISSING_RESERVATION", "no-ready-completion": "IN_PROGRESS",
    "no-longer-retained": "NO_LONGER_RETAINED",
}  # fmt: skip
ORDER = (
    "created", "pending-capacity", "capacity-held", "queued", "selected", "resources-consumed",
    "submitted", "completed",
)  # fmt: skip
ENDS = ("completed", "failed", "cancelled")
RECORD: Fields = {"cid": str, "result": (dict, str), "rc": int, **dict.fromkeys(TIMES, float)}
COMPLETION: Fields = {
    **RECORD, "qtask_id": int, "completion_ready": bool, "qpm_cq_enqueue_time_ns": int,
    "qpm_cq_dequeue_time_ns": int,
}  # fmt: skip
ENVELOPE: Fields = {"outcome": str, "lifecycle_state": str, "state": str}
OF_A_TASK: Fields = {**ENVELOPE, "cid": str, "qtask_id": int, "telemetry": dict}
MAYBE: Fields = {
    "cid": str, "qtask_id": int, "reservation_id": int, "scheduler_task_id": (str, int),
    "provider_handle": ANY, "scheduler_state": (str, int), "wait_estimate": dict,
    "pending_queue_position": int, "reason": str, "message": str, "result": dict, "timeout": dict,
    "telemetry": dict, "completion_ready": bool, "poll_operation": str, "evicted_at_ns": int,
    "retention_reason": str, "provider_cancel_status": ANY,
}  # fmt: skip


def has(what: str, answer: Any, expected: Fields, maybe: Fields | None = None) -> dict[str, Any]:
    """Return the answer, a dict with the `expected` fields; fields of `maybe` are optional."""
    if not isinstance(answer, dict):
        raise CheckFailed(f"{what} is {short_repr(answer)}, not a dict")
    for name, kind in expected.items():
        if name not in answer:
            raise CheckFailed(f"{what} has no {name!r}: {short_repr(sorted(answer))}")
        _is(f"{what}[{name!r}]", answer[name], kind)
    for name, kind in (maybe or {}).items():
        if name in answer:
            _is(f"{what}[{name!r}]", answer[name], kind)
    return answer


def asked(session: CheckSession, method: str, expected: Fields, **arguments: Any) -> dict[str, Any]:
    """Return the answer of a method to these arguments; see `has`."""
    return has(method, getattr(session.q, method)(**arguments), expected)


def envelope(what: str, answer: Any, expected: Fields = OF_A_TASK) -> dict[str, Any]:
    """Test a status envelope: its fields, equal `state` and `lifecycle_state`, no None."""
    for name, value in answer.items() if isinstance(answer, dict) else ():
        expect(value is not None, f"{what}[{name!r}] is None: what is None is left out")
    result = has(what, answer, expected, MAYBE)
    state = result["lifecycle_state"]
    expect(state in OUTCOMES, f"{what}['lifecycle_state'] is {state!r}: there is no such state")
    expect(
        result["state"] == state, f"{what}: state {result['state']!r}, lifecycle_state {state!r}"
    )
    return result


def stands(what: str, answer: Any, *states: str) -> dict[str, Any]:
    """Test an envelope whose state is one of `states`, with the outcome of its state."""
    result = envelope(what, answer)
    state = result["lifecycle_state"]
    expect(state in states, f"{what} says {state!r}, not {' or '.join(states)}")
    outcome = result["outcome"]
    expect(
        outcome == OUTCOMES[state],
        f"{what}: outcome {outcome!r} with state {state!r}, not {OUTCOMES[state]!r}",
    )
    return result


def outcome(what: str, answer: Any, expected: str, reason: str | None = None) -> dict[str, Any]:
    """Test an envelope of any kind with this outcome and reason."""
    result = envelope(what, answer, ENVELOPE)
    expect(
        result["outcome"] == expected, f"{what}: outcome {result['outcome']!r}, not {expected!r}"
    )
    if reason is not None:
        values = result.get("reason")
        expect(values == reason, f"{what}: reason {values!r}, not {reason!r}")
    return result


def _is(what: str, value: Any, kind: Kind) -> None:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not kinds:
        return
    if float in kinds and type(value) is int:
        return
    if isinstance(value, bool) and bool not in kinds:
        raise CheckFailed(f"{what} is {value!r}, a bool, not {_names(kinds)}")
    if not isinstance(value, kinds):
        raise CheckFailed(f"{what} is {short_repr(value)}, not {_names(kinds)}")


def _names(kinds: tuple[type, ...]) -> str:
    return " or ".join("None" if kind is NOTHING else kind.__name__ for kind in kinds)
