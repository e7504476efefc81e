"""Nodes that the user names: `--hosts node1:2,node[2-4]:2`, or a file with one host a line.

Nodes without a number have 0 slots; all nodes have 0 bytes of memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from launcher.allocation.hostlist import MAX_SLOTS, check_host_name, expand_hosts, parse_uint
from launcher.base import Allocation, AllocationError, Node

_HINT = "write node1:2,node2:2 or node[1-2]:2"
_FILE_HINT = "one host a line: node1 slots=2"
_KEYS = ("slots", "max_slots", "max-slots")


def parse_hosts_option(text: str) -> Allocation:
    """Parse `--hosts`; a host named twice has the slots of both. Raises AllocationError."""
    slots: dict[str, int] = {}
    for item in _split_items(text):
        names, colon, count = item.strip().rpartition(":")
        if not colon:
            names, count = item.strip(), "0"
        number = parse_uint(count, MAX_SLOTS)
        if number is None or (colon and not number):
            raise AllocationError(f"hosts = {text[:200]!r}: {item!r} has no number of slots", _HINT)
        for name in expand_hosts(names, "hosts"):
            slots[name] = slots.get(name, 0) + number
    return Allocation(_nodes(slots), "--hosts")


def read_hostfile(path: Path) -> Allocation:
    """Read a hostfile of Open MPI, "node slots=2", or of MPICH, "node:2". Raises AllocationError.

    A host that is listed several times without a number has one slot for each line.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "") or str(error)
        message = f"the hostfile {path} cannot be read: {reason}"
        raise AllocationError(message, _FILE_HINT) from error
    slots: Counter[str] = Counter()
    bare: Counter[str] = Counter()  # lines with nothing but the name
    for number, line in enumerate(lines, 1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        name, count = _entry(fields, f"hostfile {path}, line {number}")
        slots[name] += count
        bare[name] += not count
    if not slots:
        raise AllocationError(f"the hostfile {path} names no host", _FILE_HINT)
    for name, times in bare.items():
        if slots[name] or times > 1:
            slots[name] += times
    return Allocation(_nodes(slots), f"hostfile {path}")


def _entry(fields: list[str], location: str) -> tuple[str, int]:
    """Return the host of a line and its slots; 0 if the line has no number."""
    name, separator, count = fields[0].partition(":")
    check_host_name(name, location, " ".join(fields))
    for field in fields[1:]:
        key, _, value = field.partition("=")
        if key not in _KEYS:
            raise AllocationError(f"{location}: {field[:80]!r} is not known", _FILE_HINT)
        if key == "slots":
            separator, count = "=", value
    number = parse_uint(count or "0", MAX_SLOTS)
    if number is None or (separator and not number):
        raise AllocationError(f"{location}: {count[:80]!r} is not a number of slots", _FILE_HINT)
    return name, number


def _split_items(text: str) -> list[str]:
    """Split at commas outside brackets."""
    items, depth = [""], 0
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and not depth:
            items.append("")
        else:
            items[-1] += letter
    return items


def _nodes(slots: Mapping[str, int]) -> tuple[Node, ...]:
    return tuple(Node(name, count, 0) for name, count in slots.items())
