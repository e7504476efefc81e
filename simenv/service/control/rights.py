"""Rights of a connection: those of its key's role, or fewer if it has requested fewer. Pure."""

from __future__ import annotations

import msgspec

from simenv.errors import NotAllowedError
from simenv.wire.auth import CLIENT_ROUTE, LOCAL, MAY_SEND, Identity, Role


def checked(peer: bytes, identity: Identity, message: object) -> Identity:
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
