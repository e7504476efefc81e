"""Messages about the keys and tokens of users. Secret keys are never sent."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from simenv.wire.messages.base import AdminRequest, ClientRequest, Number, Reply, Role
from simenv.wire.messages.identity import PublicKey

Time = Annotated[float, msgspec.Meta(ge=0.0, le=1e11)]  # seconds
KeyName = Annotated[str, msgspec.Meta(max_length=64)]


class KeyInfo(msgspec.Struct, frozen=True):
    """One key. `at_s`, `expires_s`: times at which it was added and will no longer be accepted, in
    seconds since 1970; 0: it does not expire."""

    name: str  # of its owner
    role: str  # client, admin, worker
    public_key: PublicKey
    at_s: float
    expires_s: float = 0.0


class AddKey(AdminRequest["Keys"], frozen=True, tag=20):
    """Accept a key from now on, until `expires_s` (see KeyInfo)."""

    name: KeyName
    role: KeyName
    public_key: PublicKey
    expires_s: Time = 0.0


class RevokeKey(AdminRequest["Keys"], frozen=True, tag=21):
    """Revoke a key; its connections are closed at once."""

    name: KeyName


class RotateKey(ClientRequest["Keys"], frozen=True, tag=29):
    """Accept a new key of a name, with the role and the end of the present one, which is accepted
    for `overlap_s` more seconds. `name` "": that of the sender, who must be an admin for another
    one. Answered by Keys: those of that name."""

    name: KeyName
    public_key: PublicKey
    overlap_s: Time


class GetKeys(AdminRequest["Keys"], frozen=True, tag=22):
    """Request all accepted keys."""


class Keys(Reply, frozen=True, tag=20):
    """Accepted keys. `gateway`: with a new key, URL of the gateway for users elsewhere; "": there
    is none."""

    keys: list[KeyInfo]
    gateway: str = ""


# Bearer tokens of HTTP clients, of which the service stores a hash. A gateway, whose key has the
# role gateway, may do nothing for a user before that user has presented a token: it sends the token
# with a public key of its own, which the service then accepts as the user's for a while.
Secret = Annotated[str, msgspec.Meta(min_length=40, max_length=100)]


class TokenInfo(msgspec.Struct, frozen=True):
    """One token. `number`: eight characters by which it is listed and revoked. `at_s`, `expires_s`:
    when it was made and ends, `used_s`: last use (to ten minutes; 0: never); seconds since 1970.
    `reservation`: that of its user's work on `pool`, under which all of its tasks run, and with
    which it ends; 0: none. `parent`: number of a token with which it ends too; "": none."""

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
    parent: str = ""


class CreateToken(ClientRequest["TokenCreated"], frozen=True, tag=56):
    """Make a token for a user; "" the sender, who must be an admin for another one. `role`: not
    above the sender's, and "" that of the user. `once`: it ends with its first exchange, as a link
    of `simenv web` does. `reservation`: a live one of the user, to which the token's rights are
    bound, and with which it ends; 0: none. A repeat by the user returns the same token. `parent`:
    number of a token of the user with which it ends; "": none."""

    user: KeyName
    account: KeyName
    role: KeyName
    purpose: KeyName
    lifetime_s: Time
    once: bool = False
    reservation: Number = 0
    parent: KeyName = ""


class RevokeToken(ClientRequest["Tokens"], frozen=True, tag=57):
    """Revoke a token: its certificates and connections end at once."""

    number: KeyName


class GetTokens(ClientRequest["Tokens"], frozen=True, tag=58):
    """Request the tokens of the sender, or all for an admin."""


class TokenCreated(Reply, frozen=True, tag=56):
    """The token, 256 random bits, which is shown once. `authority`: PEM certificate of the
    authority by which its user checks the gateway's; "": the gateway has none of its own.
    `gateway`: URL of the gateway for users elsewhere; "": there is none."""

    secret: str
    token: TokenInfo
    authority: str = ""
    gateway: str = ""


class Tokens(Reply, frozen=True, tag=57):
    """Tokens without their secrets."""

    tokens: list[TokenInfo]


class ExchangeToken(ClientRequest["TokenCertificate"], frozen=True, tag=59):
    """Of a gateway: accept this public key as that of the token's user for `lifetime_s` seconds, or
    until the token ends. Sent again before that time has passed."""

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
