"""Nodes that somebody named: `--hosts node1:2,node[2-4]:2`, or a file with a host a line.

Nodes come with 0 slots where no number was said, and 0 bytes of memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from launcher.allocation.hostlist import MAX_SLOTS, checked, hosts, whole_number
from launcher.base import Allocation, AllocationError, Node

_HINT = "write node1:2,node2:2 or node[1-2]:2"
_FILE_HINT = "one host a line: node1 slots=2"
_KEYS = ("slots", "max_slots", "max-slots")


def from_words(text: str) -> Allocation:
    """Of `--hosts`; a host named twice has the slots of both. AllocationError."""
    slots: dict[str, int] = {}
    for word in _words(text):
        names, colon, count = word.strip().rpartition(":")
        if not colon:
            names, count = word.strip(), "0"
        number = whole_number(count, MAX_SLOTS)
        if number is None or (colon and not number):
            raise AllocationError(f"hosts = {text[:200]!r}: {word!r} has no number of slots", _HINT)
        for name in hosts(names, "hosts"):
            slots[name] = slots.get(name, 0) + number
    return Allocation(_nodes(slots), "--hosts")


def from_file(path: Path) -> Allocation:
    """Open MPI's form, "node slots=2", and MPICH's, "node:2"; a host that stands there alone,
    and more than once, has a slot for each time. AllocationError."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", "") or str(error)
        raise AllocationError(f"the hostfile {path} cannot be read: {why}", _FILE_HINT) from error
    slots: Counter[str] = Counter()
    alone: Counter[str] = Counter()  # lines with nothing but the name
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        name, count = _entry(words, f"hostfile {path}, line {number}")
        slots[name] += count
        alone[name] += not count
    if not slots:
        raise AllocationError(f"the hostfile {path} names no host", _FILE_HINT)
    for name, lines_of_it in alone.items():
        if slots[name] or lines_of_it > 1:
            slots[name] += lines_of_it
    return Allocation(_nodes(slots), f"hostfile {path}")


def _entry(words: list[str], where: str) -> tuple[str, int]:
    """The host of a line and its slots; 0 where none are said."""
    name, said, count = words[0].partition(":")
    checked(name, where, " ".join(words))
    for word in words[1:]:
        key, _, value = word.partition("=")
        if key not in _KEYS:
            raise AllocationError(f"{where}: {word[:80]!r} is not known", _FILE_HINT)
        if key == "slots":
            said, count = "=", value
    number = whole_number(count or "0", MAX_SLOTS)
    if number is None or (said and not number):
        raise AllocationError(f"{where}: {count[:80]!r} is not a number of slots", _FILE_HINT)
    return name, number


def _words(text: str) -> list[str]:
    """Split at commas outside brackets."""
    words, depth = [""], 0
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and not depth:
            words.append("")
        else:
            words[-1] += letter
    return words


def _nodes(slots: Mapping[str, int]) -> tuple[Node, ...]:
    return tuple(Node(name, count, 0) for name, count in slots.items())
