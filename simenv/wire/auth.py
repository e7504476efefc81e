"""Who may say what: roles, and the one table of messages each role may send.

Pure values. Invariant: a message that is not in the table of its sender's role goes no further, so
a new kind of message is closed to everybody but the environment's admin until it is named here.
"""

from __future__ import annotations

import enum

import msgspec

from simenv.wire.messages import admin as p
from simenv.wire.messages import admin as q
from simenv.wire.messages import client as m
from simenv.wire.messages import queries as h
from simenv.wire.messages import queries as k
from simenv.wire.messages import reservations as r
from simenv.wire.messages.queries import DeviceDescribed, Explain, GetDevices, GetEngines


class Role(enum.StrEnum):
    """What a key is for."""

    CLIENT = "client"  # submits, and sees its owner's tasks
    WORKER = "worker"  # runs what it is sent
    ADMIN = "admin"  # sees and steers all of the environment


PERSON_ROLES = (Role.CLIENT, Role.ADMIN)  # of keys that are handed out; workers get none


class Identity(msgspec.Struct, frozen=True):
    """Who is behind a connection. `owner`: the name of the key, "" for the environment's own user,
    who comes through a socket that nobody else can open. For the role worker: the one worker that
    it may speak for, "" where it comes through such a socket."""

    owner: str
    role: Role

    @property
    def scope(self) -> str:
        """Whose tasks this one may see: "" for everybody's."""
        return "" if self.role is Role.ADMIN else self.owner


LOCAL = Identity("", Role.ADMIN)
# The route of a connection that wants no more rights than a client's, whatever its key has. It is
# part of every message's envelope, so it holds after a restart of the service too.
CLIENT_ROUTE = b"~client."
LOCAL_WORKER = Identity("", Role.WORKER)

_CLIENT: frozenset[type] = frozenset(
    {
        *(m.Hello, m.Ping, m.Submit, m.WatchResults, m.Cancel, m.GetStatus, m.GetQueue, m.GetTasks),
        *(m.GetWorkers, m.GetEvents, m.GetCompletions, m.Ack, m.GetCursor),
        *(h.GetHistory, h.GetSpec, h.GetApp, k.FetchResult, k.VerifyResult, GetEngines, Explain),
        *(q.GetPools, GetDevices, p.GetLimits),
        *(r.Reserve, r.Renew, r.Release, r.GetReservations),
        *(r.GetProfile, r.GetPolicy, r.GetTarget),
    }
)
_ADMIN: frozenset[type] = frozenset(
    {
        *(m.Shutdown, k.CollectGarbage, p.AddKey, p.RevokeKey, p.GetKeys, p.SetLimits),
        *(q.Scale, q.DrainNode, q.ResumeNode),
        *(r.SetProfile, r.SetPolicy, r.SteerTarget, r.SetDispatch, r.SetOrder),
    }
)
_WORKER: frozenset[type] = frozenset(
    {m.Join, m.Started, m.AttemptResults, m.Heartbeat, DeviceDescribed}
)

MAY_SEND: dict[Role, frozenset[type]] = {
    Role.CLIENT: _CLIENT,
    Role.WORKER: _WORKER,
    Role.ADMIN: _CLIENT | _ADMIN,
}
