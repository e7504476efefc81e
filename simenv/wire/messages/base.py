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

M = TypeVar("M", bound=msgspec.Struct)
# Numbers that a query of the journal may contain: SQLite's integers have 64 bits, signed.
Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


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
