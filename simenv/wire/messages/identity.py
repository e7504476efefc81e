"""Messages of the credential broker: with users who want a certificate, and with its service.

A user sends one CertificateRequest and gets one UserCertificate or Denial, each as one line of
JSON; between the nodes of a site both travel as the payloads of MUNGE credentials. The broker and
its service exchange MessagePack over a socket pair. Secret keys are never sent.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

IDENTITY_FORMAT = 1
MAX_REQUEST_BYTES = 4_096  # of a line to the broker
MAX_REPLY_BYTES = 8_192
PUBLIC_KEY_CHARS = 40  # 32 bytes in ZeroMQ's base 85
PublicKey = Annotated[str, msgspec.Meta(min_length=PUBLIC_KEY_CHARS, max_length=PUBLIC_KEY_CHARS)]
Nonce = Annotated[str, msgspec.Meta(min_length=16, max_length=64)]
Name = Annotated[str, msgspec.Meta(max_length=64)]
Uid = Annotated[int, msgspec.Meta(ge=0, lt=2**32 - 1)]  # -1 is no user


RequestNumber = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Format = Annotated[int, msgspec.Meta(ge=0, le=2**16)]


class CertificateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Request a certificate for a public key, whose secret half stays with the sender. `nonce`:
    random text, which the answer repeats."""

    format: Format
    environment: Name
    public_key: PublicKey
    nonce: Nonce


class UserCertificate(msgspec.Struct, frozen=True, tag="certificate", tag_field="kind"):
    """The service accepts the public key as that of a user for `lifetime_s` seconds from now."""

    format: int
    environment: str
    nonce: str
    user: str  # name of the user's account; "": the environment's own user
    role: str
    address: str  # of the service: tcp://HOST:PORT
    server_key: str  # which the service proves
    lifetime_s: float


class Denial(msgspec.Struct, frozen=True, tag="denial", tag_field="kind"):
    """The request is refused. `code`: that of a SimenvError."""

    code: str
    message: str
    hint: str = ""


class UserRequest(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """A user, named by the kernel or by MUNGE, requests a certificate; answered by UserAnswer."""

    number: RequestNumber
    uid: Uid
    user: Name
    groups: tuple[str, ...]  # names of all groups of the user
    origin: str  # where the request came from, as text for the audit log
    request: CertificateRequest


class UserAccount(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The present account of a user, for CheckUsers. `user` "": there is none any more."""

    uid: Uid
    user: Name
    groups: tuple[str, ...] = ()


class UserAnswer(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """The answer to the request of this number, for its sender."""

    number: int
    reply: UserCertificate | Denial


class CheckUsers(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Request a UserAccount for each of these users, by uid, or by name: then there is no answer
    if no account has the name."""

    users: list[Uid | Name]


encode = msgspec.msgpack.Encoder().encode
from_broker = msgspec.msgpack.Decoder(UserRequest | UserAccount).decode
from_service = msgspec.msgpack.Decoder(UserAnswer | CheckUsers).decode
line = msgspec.json.Encoder().encode
request_of = msgspec.json.Decoder(CertificateRequest).decode
reply_of = msgspec.json.Decoder(UserCertificate | Denial).decode
