"""Host names: lists in the syntax of Slurm, and files of hosts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from launcher.base import Allocation, AllocationError, Node

# Host lists and counts in the syntax of Slurm, and host names. Pure.
#
# `a[1-3,07],b` stands for a1, a2, a3, a07, b; `2(x3),1` for 2, 2, 2, 1.

MAX_HOSTS = 65_536
MAX_SLOTS = 2**20  # of a node
_DIGITS = re.compile(r"[0-9]{1,18}\Z")  # ASCII digits that fit 64 bits
NAME_THE_NODES = "name the nodes yourself: hosts='node1:2,node2:2'"  # a hint of errors
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}\Z")
_GROUP = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?\Z")
_COUNT = re.compile(r"([0-9]{1,18})(?:\(x([0-9]{1,18})\))?\Z")
_COMMA = re.compile(r",(?![^\[]*\])")  # one that is not inside brackets


def expand_hosts(text: str, variable: str) -> list[str]:
    """Expand a host list, in its order; `variable` is where the list was read. Raises
    AllocationError."""
    names: list[str] = []
    for item in _COMMA.split(text.strip()):
        for name in _expand_item(item.strip(), variable, text):
            names.append(check_host_name(name, variable, text))
            if len(names) > MAX_HOSTS:
                raise _invalid(variable, text, f"it names more than {MAX_HOSTS} hosts")
    return names


def expand_counts(text: str, variable: str, hosts: int) -> list[int]:
    """Expand a list of counts, one for each of `hosts` hosts. Raises AllocationError if there are
    more or fewer."""
    counts: list[int] = []
    for item in text.strip().split(","):
        match = _COUNT.match(item.strip())
        if not match or int(match[2] or 1) > MAX_HOSTS or int(match[1]) > MAX_SLOTS:
            raise _invalid(
                variable, text, f"{item[:80]!r} is not a number of slots such as 2 or 2(x3)"
            )
        counts += [int(match[1])] * int(match[2] or 1)
    if len(counts) != hosts:
        raise _invalid(variable, text, f"it has {len(counts)} numbers for {hosts} hosts")
    return counts


def parse_uint(text: str, max_value: int = 2**60) -> int | None:
    """Parse a decimal number from 0 to `max_value`; None for anything else."""
    number = int(text) if _DIGITS.match(text) else None
    return None if number is None or number > max_value else number


def check_host_name(name: str, variable: str, text: str) -> str:
    """Return `name` if it is a host name: no option of a program and no syntax of a shell. Raises
    AllocationError."""
    if not _NAME.match(name):
        raise _invalid(variable, text, f"{name[:80]!r} is not the name of a host")
    return name


def same_host(name: str, other: str) -> bool:
    """Return whether two names mean one machine. A short name is the part before the first dot."""
    name, other = name.lower().rstrip("."), other.lower().rstrip(".")
    if name == other:
        return True
    if _is_address(name) or _is_address(other) or ("." in name and "." in other):
        return False
    return name.partition(".")[0] == other.partition(".")[0]


def _is_address(name: str) -> bool:
    return ":" in name or name.replace(".", "").isdecimal()


def _expand_item(item: str, variable: str, text: str) -> list[str]:
    """Expand the brackets of one item; every bracket multiplies the names."""
    names = [""]
    last = 0
    for match in _GROUP.finditer(item):
        endings = [
            end
            for part in match[1].split(",")
            for end in _expand_range(part.strip(), variable, text)
        ]
        if len(names) * len(endings) > MAX_HOSTS:
            raise _invalid(variable, text, f"it names more than {MAX_HOSTS} hosts")
        between = item[last : match.start()]
        names = [name + between + ending for name in names for ending in endings]
        last = match.end()
    return [name + item[last:] for name in names]


def _expand_range(part: str, variable: str, text: str) -> list[str]:
    match = _RANGE.match(part)
    if not match:
        raise _invalid(variable, text, f"{part[:80]!r} is not a range of numbers such as 1-3")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first or last - first >= MAX_HOSTS:
        raise _invalid(variable, text, f"the range {part} is empty, or longer than {MAX_HOSTS}")
    width = len(match[1])
    return [f"{number:0{width}d}" for number in range(first, last + 1)]


def _invalid(variable: str, text: str, reason: str) -> AllocationError:
    return AllocationError(f"{variable} = {text[:200]!r}: {reason}", hint=NAME_THE_NODES)


# Nodes that the user names: `--hosts node1:2,node[2-4]:2`, or a file with one host a line.
#
# Nodes without a number have 0 slots; all nodes have 0 bytes of memory.

_HINT = "write node1:2,node2:2 or node[1-2]:2"
_FILE_HINT = "one host a line: node1 slots=2"
_KEYS = ("slots", "max_slots", "max-slots")


def parse_hosts_option(text: str) -> Allocation:
    """Parse `--hosts`; a host named twice has the slots of both. Raises AllocationError."""
    slots: dict[str, int] = {}
    for item in _COMMA.split(text):
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


def _nodes(slots: Mapping[str, int]) -> tuple[Node, ...]:
    return tuple(Node(name, count, 0) for name, count in slots.items())
