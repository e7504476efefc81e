"""The words of sites about hosts: lists, counts, names. Pure.

`a[1-3,07],b` stands for a1, a2, a3, a07, b; `2(x3),1` for 2, 2, 2, 1.
"""

from __future__ import annotations

import re

from launcher.base import AllocationError

MAX_HOSTS = 65_536
MAX_SLOTS = 2**20  # of a node
_DIGITS = re.compile(r"[0-9]{1,18}\Z")  # no more than 64 bits hold, and none of other scripts
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}\Z")
_GROUP = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?\Z")
_COUNT = re.compile(r"([0-9]{1,18})(?:\(x([0-9]{1,18})\))?\Z")
_COMMA = re.compile(r",(?![^\[]*\])")  # one that is not inside brackets


def hosts(text: str, variable: str) -> list[str]:
    """The hosts of a list, in its order; `variable` is where the list was found.

    Raises AllocationError.
    """
    found: list[str] = []
    for word in _COMMA.split(text.strip()):
        for name in _expanded(word.strip(), variable, text):
            found.append(checked(name, variable, text))
            if len(found) > MAX_HOSTS:
                raise _wrong(variable, text, f"it names more than {MAX_HOSTS} hosts")
    return found


def counts(text: str, variable: str, hosts: int) -> list[int]:
    """One number for each of `hosts` hosts; AllocationError if there are more or fewer."""
    found: list[int] = []
    for word in text.strip().split(","):
        match = _COUNT.match(word.strip())
        if not match or int(match[2] or 1) > MAX_HOSTS or int(match[1]) > MAX_SLOTS:
            raise _wrong(
                variable, text, f"{word[:80]!r} is not a number of slots such as 2 or 2(x3)"
            )
        found += [int(match[1])] * int(match[2] or 1)
    if len(found) != hosts:
        raise _wrong(variable, text, f"it has {len(found)} numbers for {hosts} hosts")
    return found


def whole_number(text: str, most: int = 2**60) -> int | None:
    """A number as sites write it, from 0 to `most`; None for anything else."""
    number = int(text) if _DIGITS.match(text) else None
    return None if number is None or number > most else number


def checked(name: str, variable: str, text: str) -> str:
    """A host's name, if it is one: never an option of a program, never a word for a shell."""
    if not _NAME.match(name):
        raise _wrong(variable, text, f"{name[:80]!r} is not the name of a host")
    return name


def same_host(one: str, other: str) -> bool:
    """Do two names mean one machine? A short name means what stands before the first dot."""
    one, other = one.lower().rstrip("."), other.lower().rstrip(".")
    if one == other:
        return True
    if _is_address(one) or _is_address(other) or ("." in one and "." in other):
        return False
    return one.partition(".")[0] == other.partition(".")[0]


def _is_address(name: str) -> bool:
    return ":" in name or name.replace(".", "").isdecimal()


def _expanded(word: str, variable: str, text: str) -> list[str]:
    """The names of one word; every bracket multiplies them."""
    names = [""]
    last = 0
    for match in _GROUP.finditer(word):
        endings = [
            end for part in match[1].split(",") for end in _numbers(part.strip(), variable, text)
        ]
        if len(names) * len(endings) > MAX_HOSTS:
            raise _wrong(variable, text, f"it names more than {MAX_HOSTS} hosts")
        between = word[last : match.start()]
        names = [name + between + ending for name in names for ending in endings]
        last = match.end()
    return [name + word[last:] for name in names]


def _numbers(part: str, variable: str, text: str) -> list[str]:
    match = _RANGE.match(part)
    if not match:
        raise _wrong(variable, text, f"{part[:80]!r} is not a range of numbers such as 1-3")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first or last - first >= MAX_HOSTS:
        raise _wrong(variable, text, f"the range {part} is empty, or longer than {MAX_HOSTS}")
    width = len(match[1])
    return [f"{number:0{width}d}" for number in range(first, last + 1)]


def _wrong(variable: str, text: str, why: str) -> AllocationError:
    return AllocationError(
        f"{variable} = {text[:200]!r}: {why}",
        hint="name the nodes yourself: --hosts node1:2,node2:2",
    )
