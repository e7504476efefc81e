"""Checks, and the shapes of the answers that they test.

A check is one promise of the contract and the function that tests it. The function returns if the
promise holds, and raises `CheckFailed` if it does not, `CheckSkipped` if it cannot be tested here,
`CheckNotApplicable` if the plugin does not make the promise. Any other exception counts as
`CheckFailed`: a host would have received it.

A table of answer fields has the kind of each field, a type or a tuple of types; `int` excludes
bool, `float` includes int (YAML may write 3.0 as 3), `ANY` is any plain value.

The shape of an answer is the part on which a caller's code depends, its names and their types.
Values are data, not behaviour. Fields that depend on the moment of the call, or that the contract
leaves to the provider, are not part of a shape.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from simenv.qpm_check.target import CheckFailed, expect, short_repr

if TYPE_CHECKING:
    from simenv.qpm_check.session import CheckSession

    CheckFunction = Callable[[CheckSession], None]

BOTH = (1, 2)


class VerdictState(enum.StrEnum):
    """Outcome of a check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_APPLICABLE = "not applicable"


class TargetProperty(enum.StrEnum):
    """Property of a target that a check needs."""

    PACKAGE = "a plugin folder"
    TRANSPORT = "a client in another process"
    OUTAGE = "a plugin whose backend can be restarted"


class CheckNotApplicable(Exception):
    """The plugin rightly lacks this behaviour; the text states the reason."""


class Verdict(msgspec.Struct, frozen=True):
    """Outcome of one check in one revision; `why` is empty if it passed."""

    id: str
    title: str
    revision: int
    state: VerdictState
    why: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Check:
    """A check with its requirements. `alone`: it gets its own QPM, which it may damage. `opens`: it
    needs a running QPM."""

    id: str
    title: str
    revisions: tuple[int, ...]
    needs: frozenset[TargetProperty]
    alone: bool
    opens: bool
    check: CheckFunction

    def verdict(
        self, revision: int, state: VerdictState, why: str = "", seconds: float = 0.0
    ) -> Verdict:
        return Verdict(self.id, self.title, revision, state, why, seconds)


def row(
    id: str,  # noqa: A002 - the id of a row in reports
    title: str,
    *,
    revisions: tuple[int, ...] = (2,),
    needs: tuple[TargetProperty, ...] = (),
    alone: bool = False,
    opens: bool = True,
) -> Callable[[CheckFunction], Check]:
    """Make a Check of a function."""

    def decorate(check: CheckFunction) -> Check:
        return Check(id, title, revisions, frozenset(needs), alone, opens, check)

    return decorate


def row_with(**settings: Any) -> Callable[..., Callable[[CheckFunction], Check]]:
    """Return `row` with these settings by default."""
    return functools.partial(row, **settings)


both, alone = row_with(revisions=BOTH), row_with(alone=True)


def of_the_newest(session: CheckSession, name: str) -> None:
    """Raise CheckNotApplicable if the plugin lacks a method that only the newest hosts call."""
    if name not in session.subject.signatures():
        raise CheckNotApplicable(f"there is no {name}: the newest hosts alone ask for it")


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


ANY_OUTCOME = "*"  # replaces the outcomes of counts, which are data
ABSENT, NULL = "-", "null"
# The contract leaves the content of these to the provider, and the presence of those to the moment.
_OPAQUE = {"extensions", "metadata", "raw", "calibration", "policy_context", "policy_state",
           "provider_metadata", "details", "properties"}  # fmt: skip
_MOMENTARY = {"wait_estimate", "pending_queue_position", "provider_handle", "estimated_start",
              "estimated_queued_device_time"}  # fmt: skip


def shape(value: Any) -> dict[str, str]:
    """Return path -> type for all values in `value`: {"result.counts.*": "int", ...}."""
    return dict(_types("", value))


def _types(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        yield path, "table"
        name = path.rpartition(".")[2]
        if name in _OPAQUE:
            return
        if name in ("counts", "result") and all(set(str(key)) <= set("01 ") for key in value):
            value = dict.fromkeys((ANY_OUTCOME,), next(iter(value.values()))) if value else {}
        for key, each in value.items():
            if key not in _MOMENTARY:
                yield from _types(f"{path}.{key}" if path else str(key), each)
    elif isinstance(value, list | tuple):
        yield path, "list"
        for each in value:
            yield from _types(f"{path}[]", each)
    else:
        yield path, NULL if value is None else type(value).__name__


def differing_paths(
    first: Mapping[str, str], second: Mapping[str, str]
) -> list[tuple[str, str, str]]:
    """Return (path, first type, second type) for each difference on which a caller's code would
    fail. A null stands for "unknown" and fits every type; an empty list fits any list."""
    differences = []
    for path in sorted({*first, *second}):
        left, right = first.get(path), second.get(path)
        if left == right or NULL in (left, right):
            continue
        if (left is None and _covered(path, first)) or (right is None and _covered(path, second)):
            continue
        differences.append((path, left or ABSENT, right or ABSENT))
    return differences


def _covered(path: str, shape: Mapping[str, str]) -> bool:
    """Return whether a value above the path is null, or is an empty list."""
    for end in range(len(path) - 1, 0, -1):
        above = shape.get(path[:end]) if path[end] in ".[" else None
        if above is not None:
            return above == NULL or (above == "list" and path[end] == "[")
    return False


def form(outcomes: Mapping[str, int]) -> str:
    """Return the form of outcomes: "2 bits"; with separate registers, "2+1 bits"."""
    forms = {"+".join(str(len(word)) for word in outcome.split(" ")) for outcome in outcomes}
    return f"{', '.join(sorted(forms))} bits" if forms else ""
