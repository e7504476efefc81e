"""Who the peer of a connection is, and which messages its role may send.

Invariant: a message is refused unless the role in its class is that of its sender, or its sender is
an admin.
"""

from __future__ import annotations

from typing import get_args

import msgspec

from simenv.errors import NotAllowedError
from simenv.wire.messages import admin, client as m, credentials, metrics, queries
from simenv.wire.messages.base import ClientMessage, Role as Role, kinds

USER_ROLES = (Role.CLIENT, Role.ADMIN)  # of users, who may submit
TOKEN_ROLES = (*USER_ROLES, Role.MONITOR)  # of bearer tokens
KEY_ROLES = (*USER_ROLES, Role.GATEWAY)  # of keys that are given away; never a worker's


class Identity(msgspec.Struct, frozen=True):
    """Identity of the peer of a connection. `owner`: the name of the key; "" for the environment's
    own user, who connects through a socket that nobody else can open. For the role worker: the name
    of the only worker that the peer may speak for; "" if it connects through such a socket. `via`:
    the key of the gateway that acts for the owner; "": the owner has connected. `reservation`: the
    one under which all tasks of the peer run, and which it may only end; 0: no such bound."""

    owner: str
    role: Role
    via: str = ""
    reservation: int = 0

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
    # Besides tokens, what has no owner: pools, nodes, devices, figures.
    Role.GATEWAY: frozenset(
        (
            *(m.Hello, m.Ping, m.GetStatus, admin.GetPools, queries.GetDevices),
            *(metrics.GetMetrics, metrics.GetSeries, credentials.ExchangeToken),
        )
    ),
    Role.MONITOR: frozenset((m.Hello, m.Ping, metrics.GetMetrics)),
}


def with_rights(peer: bytes, identity: Identity, message: object) -> Identity:
    """Return the identity with whose rights the message is handled. Raises NotAllowedError if they
    do not permit the message. `peer`: the connection's name, whose last part is the route that it
    chose. A route that begins with CLIENT_ROUTE lowers an admin to the role client for as long as
    the connection lives."""
    lowered = identity.role is Role.ADMIN and peer.rpartition(b"/")[2].startswith(CLIENT_ROUTE)
    if lowered:
        identity = msgspec.structs.replace(identity, role=Role.CLIENT)
    elif identity is LOCAL:
        return identity
    if type(message) in MAY_SEND[identity.role]:
        return identity
    text = f"{type(message).__name__} is not permitted for the role {identity.role}"
    if lowered:
        hint = "connect without role='client'; a QPM in a host: SIMENV_QPM_ROLE=admin"
        raise NotAllowedError(f"{text}, which this connection requested", hint=hint)
    raise NotAllowedError(
        f"{text} (key {identity.owner!r})",
        hint="ask the owner of the environment for a key with the role admin "
        "(made there by: simenv keys add NAME --role admin)",
    )


# Refused to a peer whose rights are bound to a reservation; so is a Reserve that is not dry.
_UNBOUND = (admin.Renew, admin.AddCalendarEntry, admin.RemoveCalendarEntry, credentials.RotateKey)


def check_bound(identity: Identity, message: object) -> None:
    """Check a message of a peer whose rights are bound to its reservation. Raises
    NotAllowedError."""
    own = named = identity.reservation
    if isinstance(message, m.Submit):
        named = message.terms.reservation
    elif isinstance(message, admin.Release | credentials.CreateToken):
        named = message.reservation
    refused = isinstance(message, _UNBOUND)
    refused = refused or (isinstance(message, admin.Reserve) and not message.dry)
    if refused or named != own:
        where = "" if refused else f" with reservation {named}" if named else " without one"
        raise NotAllowedError(
            f"{type(message).__name__}{where} is not permitted: this token is for work under "
            f"reservation {own}",
            hint="name its pool; or use a token without a reservation: simenv gateway tokens add",
        )
