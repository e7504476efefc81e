"""Bases of messages, which say who may send them, and number types with bounds.

A message is one class, in this table by its base: the decoder, the rights of roles and the answers
that a client waits for follow from it.
"""

from __future__ import annotations

import enum
from typing import Annotated, ClassVar, TypeVar

import msgspec

M = TypeVar("M", bound=msgspec.Struct)
# Numbers that a query of the journal may contain: SQLite's integers have 64 bits, signed.
Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Role(enum.StrEnum):
    """Role of a key, which determines the messages that its holder may send."""

    CLIENT = "client"  # submits, and sees its owner's tasks
    WORKER = "worker"  # runs the tasks that the service sends
    ADMIN = "admin"  # sees and controls all of the environment


class ClientMessage(msgspec.Struct, frozen=True, array_like=True):
    """Base of messages to the service. `sender`: role that may send it; an admin may send all."""

    sender: ClassVar[Role] = Role.CLIENT


class ClientRequest(ClientMessage, frozen=True, array_like=True):
    """Base of messages with an answer."""

    request: Number


class AdminRequest(ClientRequest, frozen=True, array_like=True):
    """Base of messages of administrators."""

    sender: ClassVar[Role] = Role.ADMIN


class ServiceMessage(msgspec.Struct, frozen=True, array_like=True):
    """Base of messages to a client."""


class Reply(ServiceMessage, frozen=True, array_like=True):
    """Base of answers to the request of this number."""

    request: int


def kinds(base: type[M]) -> list[type[M]]:
    """Return the messages with this base, in the order of their definition."""
    results: list[type[M]] = []
    for kind in base.__subclasses__():
        results += kinds(kind) if kind.__struct_config__.tag is None else [kind]
    return results
