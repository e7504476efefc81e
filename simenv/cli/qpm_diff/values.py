"""What was seen of one pool through its QPM, and what came of comparing two. Frozen, no I/O.

What of an answer a caller's code holds on to: the names in it and their types. Pure.

Values are data and no behaviour; nor is what depends on the moment at which was asked, or what is
the provider's own by contract.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import msgspec


class CircuitSource(msgspec.Struct, frozen=True):
    """A circuit as a host hands it over. `format`: openqasm2 or openqasm3."""

    name: str
    text: str
    format: str = "openqasm2"


class CallOutcome(msgspec.Struct, frozen=True):
    """How one call ended. `outcome`: of an envelope, or the error's class and reason as a host
    of the transport sees it; `shape`: see `shapes.shape`; `words`: for people."""

    call: str
    outcome: str
    shape: dict[str, str] = {}
    words: str = ""


class Ran(msgspec.Struct, frozen=True):
    """One circuit. `states`: those of its envelope that were seen, which depends on the moment;
    `reached`: its times that were reached, in the order of their clocks; `form`: of its outcomes,
    such as "2+1 bits"; `words`: why it has no counts."""

    circuit: str
    outcome: str
    states: tuple[str, ...] = ()
    reached: tuple[str, ...] = ()
    counts: dict[str, int] = {}
    form: str = ""
    engine: str = ""
    route: str = ""
    remark: str = ""
    words: str = ""


class Observed(msgspec.Struct, frozen=True):
    """All of one pool. `facts`: what it says of itself, by name."""

    pool: str
    answers: tuple[CallOutcome, ...]
    runs: tuple[Ran, ...]
    facts: dict[str, str]


class Aspect(enum.StrEnum):
    """What a row is about."""

    CALL = "call"
    STATES = "states"
    TIMES = "times"
    DEVICE = "device"
    COUNTS = "counts"
    ROUTE = "route"


class Difference(enum.StrEnum):
    """What a row says."""

    SAME = "same"
    BEHAVIOUR = "behaviour"  # an application can trip over it
    FACT = "fact"  # only who asks learns it
    NOISE = "noise"  # counts as different as two samples of one distribution are
    COUNTS = "counts"  # more than that
    BOUND = "bound"  # and more than was allowed


class Distance(msgspec.Struct, frozen=True):
    """How far two samples lie apart, beside what shot noise alone makes of one distribution: its
    mean, and `most`, mean plus five standard deviations."""

    total_variation: float
    hellinger: float
    noise_total_variation: float
    noise_hellinger: float
    most_total_variation: float
    most_hellinger: float

    @property
    def is_noise(self) -> bool:
        return (
            self.total_variation <= self.most_total_variation
            and self.hellinger <= self.most_hellinger
        )


class Row(msgspec.Struct, frozen=True):
    """One thing looked at on both pools."""

    aspect: Aspect
    what: str
    first: str
    second: str
    finding: Difference
    distance: Distance | None = None


class Comparison(msgspec.Struct, frozen=True):
    """All rows. Alike: no application can tell, except by asking or by statistics."""

    first: str
    second: str
    rows: tuple[Row, ...]

    def count(self, finding: Difference) -> int:
        return sum(row.finding is finding for row in self.rows)

    @property
    def alike(self) -> bool:
        return not self.count(Difference.BEHAVIOUR) and not self.count(Difference.BOUND)


OUTCOME = "*"  # stands for the outcomes of counts: they are data
NOTHING = "null"
ABSENT = "-"
# The contract leaves to each provider what these hold, and to each moment whether those are there.
_OPAQUE = {"extensions", "metadata", "raw", "calibration", "policy_context", "policy_state",
           "provider_metadata", "details", "properties"}  # fmt: skip
_MOMENTARY = {"wait_estimate", "pending_queue_position", "provider_handle", "estimated_start",
              "estimated_queued_device_time"}  # fmt: skip


def shape(value: Any) -> dict[str, str]:
    """Path -> type, for all that is in `value`: {"result.counts.*": "int", ...}."""
    entries: dict[str, str] = {}
    _enter(entries, "", value)
    return entries


def unlike(first: Mapping[str, str], second: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(path, type there, type here) where a caller of the one would trip over the other.

    A null stands for "not known" and fits all; an empty list fits any list.
    """
    apart = []
    for path in sorted({*first, *second}):
        left, right = first.get(path), second.get(path)
        if left == right or NOTHING in (left, right):
            continue
        if (left is None and _covered(path, first)) or (right is None and _covered(path, second)):
            continue
        apart.append((path, left or ABSENT, right or ABSENT))
    return apart


def is_missing(apart: list[tuple[str, str, str]]) -> bool:
    """Whether all that is unlike is there on one side only."""
    return all(ABSENT in (left, right) for _, left, right in apart)


def form(outcomes: Mapping[str, int]) -> str:
    """How outcomes are written: "2 bits"; with registers apart, "2+1 bits"."""
    forms = {"+".join(str(len(word)) for word in outcome.split(" ")) for outcome in outcomes}
    return f"{', '.join(sorted(forms))} bits" if forms else ""


def _enter(kinds: dict[str, str], path: str, value: Any) -> None:
    if isinstance(value, Mapping):
        kinds[path] = "table"
        name = path.rpartition(".")[2]
        if name in _OPAQUE:
            return
        if name in ("counts", "result") and all(set(str(key)) <= set("01 ") for key in value):
            value = dict.fromkeys((OUTCOME,), next(iter(value.values()))) if value else {}
        for key, each in value.items():
            if key not in _MOMENTARY:
                _enter(kinds, f"{path}.{key}" if path else str(key), each)
    elif isinstance(value, list | tuple):
        kinds[path] = "list"
        for each in value:
            _enter(kinds, f"{path}[]", each)
    else:
        kinds[path] = NOTHING if value is None else type(value).__name__


def _covered(path: str, there: Mapping[str, str]) -> bool:
    """Whether something above it is null, or a list that happens to be empty."""
    for end in range(len(path) - 1, 0, -1):
        if path[end] not in ".[":
            continue
        above = there.get(path[:end])
        if above is not None:
            return above == NOTHING or (above == "list" and path[end] == "[")
    return False
