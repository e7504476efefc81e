"""Roles of connections, and the table of the messages that each role may send.

Pure values. Invariant: a message that is not in the table of its sender's role is refused, so that
no role can send a new kind of message until it is in the table.
"""

from __future__ import annotations

import enum

import msgspec

from simenv.wire.messages import admin, queries, reservations
from simenv.wire.messages import client as m


class Role(enum.StrEnum):
    """Role of a key, which determines the messages that its holder may send."""

    CLIENT = "client"  # submits, and sees its owner's tasks
    WORKER = "worker"  # runs the tasks that the service sends
    ADMIN = "admin"  # sees and controls all of the environment


USER_ROLES = (Role.CLIENT, Role.ADMIN)  # of keys that users get; no user gets a worker's key


class Identity(msgspec.Struct, frozen=True):
    """Identity of the peer of a connection.

    `owner`: the name of the key; "" for the environment's own user, who connects through a socket
    that nobody else can open. For the role worker: the name of the only worker that the peer may
    speak for; "" if it connects through such a socket.
    """

    owner: str
    role: Role

    @property
    def scope(self) -> str:
        """Owner of the tasks that the peer may see; "" if it may see those of all owners."""
        return "" if self.role is Role.ADMIN else self.owner


LOCAL = Identity("", Role.ADMIN)
# Route prefix of a connection that asks for no more rights than a client's, whatever the role of
# its key. It is part of every message's envelope, so it also holds after a restart of the service.
CLIENT_ROUTE = b"~client."
LOCAL_WORKER = Identity("", Role.WORKER)

_CLIENT: frozenset[type] = frozenset(
    {
        *(m.Hello, m.Ping, m.Submit, m.WatchResults, m.Cancel, m.GetStatus, m.GetQueue, m.GetTasks),
        *(m.GetWorkers, m.GetEvents, m.GetCompletions, m.Ack, m.GetCursor),
        *(queries.GetHistory, queries.GetSpec, queries.GetApp),
        *(queries.FetchResult, queries.VerifyResult),
        *(queries.GetEngines, queries.GetDevices, queries.StoreNoise, queries.Explain),
        *(admin.GetPools, admin.GetLimits),
        *(reservations.Reserve, reservations.Renew, reservations.Release),
        *(reservations.GetReservations, reservations.GetProfile, reservations.GetPolicy),
        reservations.GetTarget,
    }
)
_ADMIN: frozenset[type] = frozenset(
    {
        *(m.Shutdown, queries.CollectGarbage),
        *(admin.AddKey, admin.RevokeKey, admin.GetKeys, admin.SetLimits),
        *(admin.Scale, admin.DrainNode, admin.ResumeNode),
        *(reservations.SetProfile, reservations.SetPolicy, reservations.SteerTarget),
        *(reservations.SetDispatch, reservations.SetOrder),
    }
)
_WORKER: frozenset[type] = frozenset(
    {m.Join, m.Started, m.AttemptResults, m.Heartbeat, queries.DeviceDescribed}
)

MAY_SEND: dict[Role, frozenset[type]] = {
    Role.CLIENT: _CLIENT,
    Role.WORKER: _WORKER,
    Role.ADMIN: _CLIENT | _ADMIN,
}
