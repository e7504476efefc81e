"""Observations of a pool through its QPM, their shapes, and the result of a comparison. Frozen, no
I/O.

A shape has the part of an answer on which a caller's code depends: its names and their types.
Values are data, not behaviour. Fields that depend on the moment of the call, or that the contract
leaves to the provider, are not part of a shape.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import msgspec


class CircuitSource(msgspec.Struct, frozen=True):
    """Circuit as a host sends it. `format`: openqasm2 or openqasm3."""

    name: str
    text: str
    format: str = "openqasm2"


class CallOutcome(msgspec.Struct, frozen=True):
    """Outcome of one call.

    `outcome`: outcome of the envelope, or class and reason of the error as a host of the transport
    sees them. `shape`: see `shape`. `words`: message for users.
    """

    call: str
    outcome: str
    shape: dict[str, str] = {}
    words: str = ""


class RunOutcome(msgspec.Struct, frozen=True):
    """Run of one circuit.

    - `states`: observed states of its envelope, which depend on the moments of observation
    - `reached`: its times that were set, in ascending order
    - `form`: form of its outcomes, such as "2+1 bits"
    - `words`: reason why it has no counts
    """

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


class PoolObservations(msgspec.Struct, frozen=True):
    """All observations of one pool. `facts`: description of its device, by name."""

    pool: str
    answers: tuple[CallOutcome, ...]
    runs: tuple[RunOutcome, ...]
    facts: dict[str, str]


class RowSubject(enum.StrEnum):
    """Subject of a row."""

    CALL = "call"
    STATES = "states"
    TIMES = "times"
    DEVICE = "device"
    COUNTS = "counts"
    ROUTE = "route"


class Difference(enum.StrEnum):
    """Kind of difference in a row."""

    SAME = "same"
    BEHAVIOUR = "behaviour"  # an application may fail because of it
    FACT = "fact"  # visible only in a query
    NOISE = "noise"  # counts that differ as two samples of one distribution
    COUNTS = "counts"  # counts that differ more than that
    BOUND = "bound"  # counts that differ more than the bound


class SampleDistance(msgspec.Struct, frozen=True):
    """Distances of two samples, and those of shot noise alone: mean, and `most`, mean plus five
    standard deviations."""

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
    """One subject compared on both pools."""

    aspect: RowSubject
    what: str
    first: str
    second: str
    finding: Difference
    distance: SampleDistance | None = None


class Comparison(msgspec.Struct, frozen=True):
    """All rows. Alike: an application cannot tell the pools apart, except by queries or
    statistics."""

    first: str
    second: str
    rows: tuple[Row, ...]

    def count(self, finding: Difference) -> int:
        return sum(row.finding is finding for row in self.rows)

    @property
    def alike(self) -> bool:
        return not self.count(Difference.BEHAVIOUR) and not self.count(Difference.BOUND)


OUTCOME = "*"  # replaces the outcomes of counts, which are data
NOTHING = "null"
ABSENT = "-"
# The contract leaves the content of these to the provider, and the presence of those to the moment.
_OPAQUE = {"extensions", "metadata", "raw", "calibration", "policy_context", "policy_state",
           "provider_metadata", "details", "properties"}  # fmt: skip
_MOMENTARY = {"wait_estimate", "pending_queue_position", "provider_handle", "estimated_start",
              "estimated_queued_device_time"}  # fmt: skip


def shape(value: Any) -> dict[str, str]:
    """Return path -> type for all values in `value`: {"result.counts.*": "int", ...}."""
    entries: dict[str, str] = {}
    _enter(entries, "", value)
    return entries


def differing_paths(
    first: Mapping[str, str], second: Mapping[str, str]
) -> list[tuple[str, str, str]]:
    """Return (path, first type, second type) for each difference on which a caller's code would
    fail.

    A null stands for "unknown" and fits every type; an empty list fits any list.
    """
    differences = []
    for path in sorted({*first, *second}):
        left, right = first.get(path), second.get(path)
        if left == right or NOTHING in (left, right):
            continue
        if (left is None and _covered(path, first)) or (right is None and _covered(path, second)):
            continue
        differences.append((path, left or ABSENT, right or ABSENT))
    return differences


def is_missing(differences: list[tuple[str, str, str]]) -> bool:
    """Return whether every difference is a field that one side lacks."""
    return all(ABSENT in (left, right) for _, left, right in differences)


def form(outcomes: Mapping[str, int]) -> str:
    """Return the form of outcomes: "2 bits"; with separate registers, "2+1 bits"."""
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


def _covered(path: str, shape: Mapping[str, str]) -> bool:
    """Return whether a value above the path is null, or is an empty list."""
    for end in range(len(path) - 1, 0, -1):
        if path[end] not in ".[":
            continue
        above = shape.get(path[:end])
        if above is not None:
            return above == NOTHING or (above == "list" and path[end] == "[")
    return False
