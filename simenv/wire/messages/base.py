"""Bases of messages, which say who may send them and what answers them.

A message is one class, in the module of its subject by its base: the decoder, the rights of roles
and the answers that a client waits for follow from it. Messages that change something have their
handler in `CHANGES` of the service, others in `QUERIES`.
"""

from __future__ import annotations

import enum
import sys
from typing import Annotated, Any, ClassVar, Generic, TypeVar, get_args

import msgspec

from simenv.errors import ProtocolError

M = TypeVar("M", bound=msgspec.Struct)
# Numbers that a query of the journal may contain: SQLite's integers have 64 bits, signed.
Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
# Quantities, bounded so that sums over all tasks and nodes of an environment stay below 2**63.
LONGEST_S = 366 * 86_400  # of a time that a peer measured or asks for
Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=LONGEST_S)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=LONGEST_S * 10**3)]
Microseconds = Annotated[int, msgspec.Meta(ge=0, le=LONGEST_S * 10**6)]
Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=LONGEST_S * 10**9)]
Memory = Annotated[int, msgspec.Meta(ge=0, le=2**50)]  # bytes
Crc32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Pid = Annotated[int, msgspec.Meta(ge=0, le=2**22)]  # the largest of Linux
Ranks = Annotated[int, msgspec.Meta(ge=1, le=2**16)]
MAX_TIME_S = 1e11  # of a time in seconds since 1970: the year 5138
WallClock = Annotated[float, msgspec.Meta(ge=0.0, le=MAX_TIME_S)]
Name = Annotated[str, msgspec.Meta(max_length=255)]
Names = Annotated[str, msgspec.Meta(max_length=2**16)]  # of all nodes of a worker, with commas


MAX_MAGNITUDE = 1e18  # of figures whose unit is not looked at
MAX_ITEMS = 10**6  # of one description


def check_magnitudes(
    value: object, most: float = MAX_MAGNITUDE, *, has_unknown: bool = False
) -> None:
    """Check that all numbers of a decoded value are finite and at most `most`. `has_unknown`: NaN
    stands for what was not measured. Raises ProtocolError with the number's place."""
    pending, count = [("", msgspec.to_builtins(value))], 0
    while pending:
        place, each = pending.pop()
        count += 1
        if isinstance(each, dict):
            pending += [(f"{place}.{key}", item) for key, item in each.items()]
        elif isinstance(each, list | tuple):
            pending += [(f"{place}[]", item) for item in each]
        elif has_unknown and each != each:
            continue
        elif isinstance(each, int | float) and not abs(each) <= most:
            bound = f"finite, and at most {most:g}"
            raise ProtocolError(f"{place[1:]} = {each!r:.40}: every number must be {bound}")
        if count > MAX_ITEMS:
            raise ProtocolError(f"a description has more than {MAX_ITEMS} values")


class Role(enum.StrEnum):
    """Role of a key, which determines the messages that its holder may send."""

    CLIENT = "client"  # submits, and sees its owner's tasks
    WORKER = "worker"  # runs the tasks that the service sends
    ADMIN = "admin"  # sees and controls all of the environment
    GATEWAY = "gateway"  # exchanges tokens of users for certificates, and sees what has no owner
    MONITOR = "monitor"  # reads the metrics


class ClientMessage(msgspec.Struct, frozen=True, array_like=True):
    """Base of messages to the service. `sender`: role that may send it; an admin may send all."""

    sender: ClassVar[Role] = Role.CLIENT


class ServiceMessage(msgspec.Struct, frozen=True, array_like=True):
    """Base of messages to a client."""


class Reply(ServiceMessage, frozen=True, array_like=True):
    """Base of answers to the request of this number."""

    request: int


A = TypeVar("A", bound=Reply)


class ClientRequest(ClientMessage, Generic[A], frozen=True, array_like=True):
    """Base of messages that a message of the kind A answers, or Refused. `request`: its number on
    its connection; 0 in one that `ServiceSession.request` is to send, which sets it."""

    request: Number


class AdminRequest(ClientRequest[A], Generic[A], frozen=True, array_like=True):
    """Base of messages of administrators."""

    sender: ClassVar[Role] = Role.ADMIN


def answer_of(kind: type[ClientRequest[A]]) -> type[A]:
    """Return the kind of the answer to a kind of message: `ClientRequest["Status"]` names it."""
    base: Any = kind.__orig_bases__[0]  # type: ignore[attr-defined]
    (name,) = get_args(base)
    answer: type[A] = getattr(sys.modules[kind.__module__], name.__forward_arg__)
    return answer


def kinds(base: type[M]) -> list[type[M]]:
    """Return the messages with this base, in the order of their definition."""
    results: list[type[M]] = []
    for kind in base.__subclasses__():
        results += kinds(kind) if kind.__struct_config__.tag is None else [kind]
    return results
