"""What the launcher and its PMIx helper say to one another: one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Order:
    """To the helper. `do`: spawn, grow (both answered under their key), kill, ask."""

    do: str
    key: int = 0
    namespace: str = ""
    argv: tuple[str, ...] = ()
    env: tuple[str, ...] = ()  # "NAME=value"
    hosts: tuple[str, ...] = ()  # spawn: of each rank; grow: "name:slots"


@dataclass(frozen=True, slots=True)
class Answer:
    """From the helper. `tells`: ready; spawned, failed or unasked (there was no DVM to ask) under
    the order's key; ended; listed; lost."""

    tells: str
    key: int = 0
    namespace: str = ""
    code: int = 0  # failed: PMIx's; ended: PRTE's, 128 + n for signal n
    words: str = ""
    alive: tuple[str, ...] = ()


def order_line(order: Order) -> bytes:
    return json.dumps(asdict(order)).encode() + b"\n"


def read_order(line: bytes) -> Order:
    return Order(**_fields(json.loads(line)))


def answer_line(answer: Answer) -> bytes:
    return json.dumps(asdict(answer)).encode() + b"\n"


def read_answer(line: bytes) -> Answer:
    """ValueError or TypeError if the line is none of the helper's."""
    values = json.loads(line)
    if not isinstance(values, dict):
        raise TypeError(f"no object: {line[:80]!r}")
    return Answer(**_fields(values))


def _fields(values: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists are tuples here."""
    return {key: tuple(one) if isinstance(one, list) else one for key, one in values.items()}
