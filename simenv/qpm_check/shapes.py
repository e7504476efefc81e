"""Shape of an answer: the part on which a caller's code depends, its names and their types.

Values are data, not behaviour. Fields that depend on the moment of the call, or that the contract
leaves to the provider, are not part of a shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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
