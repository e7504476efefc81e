"""Roles of connections, and the messages that each role may send.

Pure values. Invariant: a message is refused unless the role in its class is that of its sender, or
its sender is an admin.
"""

from __future__ import annotations

from typing import get_args

import msgspec

from simenv.wire.messages import client as m
from simenv.wire.messages.common import ClientMessage, kinds
from simenv.wire.messages.common import Role as Role

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

MAY_SEND: dict[Role, frozenset[type]] = {
    Role.CLIENT: frozenset(kind for kind in kinds(ClientMessage) if kind.sender is Role.CLIENT),
    Role.WORKER: frozenset(get_args(m.FromWorker)),
    Role.ADMIN: frozenset(kinds(ClientMessage)),
}
