"""Messages about the bearer tokens of HTTP clients, and the certificates that a gateway gets for
them.

The service stores a hash of each token. A gateway, whose key has the role gateway, may do nothing
for a user before that user has presented a token: it sends the token with a public key of its own,
which the service then accepts as the user's for a while.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from simenv.wire.messages.admin import Time
from simenv.wire.messages.identity import PublicKey
from simenv.wire.messages.queries import ClientRequest, Number, Reply, Role

Name = Annotated[str, msgspec.Meta(max_length=64)]
Secret = Annotated[str, msgspec.Meta(min_length=40, max_length=100)]


class TokenInfo(msgspec.Struct, frozen=True):
    """One token. `number`: eight characters by which it is listed and revoked. `at_s`, `expires_s`:
    when it was made and ends, `used_s`: last use (to ten minutes; 0: never); seconds since 1970.
    `reservation`: that of its user's work on `pool`, under which all of its tasks run, and with
    which it ends; 0: none."""

    number: str
    user: str  # "": the environment's own user
    account: str  # charged by default; "": the user's default
    role: str  # client, admin or monitor
    purpose: str  # text of its maker: "notebook"
    at_s: float
    expires_s: float
    used_s: float = 0.0
    reservation: int = 0
    pool: str = ""


class CreateToken(ClientRequest, frozen=True, tag=56):
    """Make a token for a user; "" the sender, who must be an admin for another one. `role`: not
    above the sender's, and "" that of the user. `once`: it ends with its first exchange, as a link
    of `simenv web` does. `reservation`: a live one of the user, to which the token's rights are
    bound, and with which it ends; 0: none. A repeat by the user returns the same token. Answered by
    TokenCreated."""

    user: Name
    account: Name
    role: Name
    purpose: Name
    lifetime_s: Time
    once: bool = False
    reservation: Number = 0


class RevokeToken(ClientRequest, frozen=True, tag=57):
    """Revoke a token: its certificates and connections end at once. Answered by Tokens."""

    number: Name


class GetTokens(ClientRequest, frozen=True, tag=58):
    """Request the tokens of the sender, or all for an admin; answered by Tokens."""


class TokenCreated(Reply, frozen=True, tag=56):
    """The token, 256 random bits, which is shown once."""

    secret: str
    token: TokenInfo


class Tokens(Reply, frozen=True, tag=57):
    """Tokens without their secrets."""

    tokens: list[TokenInfo]


class ExchangeToken(ClientRequest, frozen=True, tag=59):
    """Of a gateway: accept this public key as that of the token's user for `lifetime_s` seconds, or
    until the token ends. Sent again before that time has passed. Answered by TokenCertificate."""

    sender: ClassVar[Role] = Role.GATEWAY

    secret: Secret
    public_key: PublicKey


class TokenCertificate(Reply, frozen=True, tag=58):
    """The service accepts the public key for `lifetime_s` seconds from now at `address` ("": it
    listens for its own user alone, who is the user of the token: the connection file serves)."""

    token: TokenInfo
    address: str
    server_key: str
    lifetime_s: float
    once: bool = False  # the token was one for a link, and has ended now
