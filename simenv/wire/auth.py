"""Roles of connections, and the messages that each role, or a connection, may send.

Pure values. Invariant: a message is refused unless the role in its class is that of its sender, or
its sender is an admin.
"""

from __future__ import annotations

from typing import get_args

import msgspec

from simenv.errors import NotAllowedError
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


def with_rights(peer: bytes, identity: Identity, message: object) -> Identity:
    """Return the identity with whose rights the message is handled. Raises NotAllowedError if they
    do not permit the message.

    `peer`: the connection's name, whose last part is the route that it chose. A route that begins
    with CLIENT_ROUTE lowers an admin to the role client for as long as the connection lives.
    """
    lowered = identity.role is Role.ADMIN and peer.rpartition(b"/")[2].startswith(CLIENT_ROUTE)
    if lowered:
        identity = msgspec.structs.replace(identity, role=Role.CLIENT)
    elif identity is LOCAL:
        return identity
    if type(message) in MAY_SEND[identity.role]:
        return identity
    text = f"{type(message).__name__} is not permitted for the role {identity.role}"
    if lowered:
        raise NotAllowedError(
            f"{text}, which this connection requested",
            hint="connect without role='client'; a QPM in a host: SIMENV_QPM_ROLE=admin",
        )
    raise NotAllowedError(
        f"{text} (key {identity.owner!r})",
        hint="ask the owner of the environment for a key with the role admin "
        "(made there by: simenv keys add NAME --role admin)",
    )
