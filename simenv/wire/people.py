"""Messages about keys and their owners' limits: a part of `messages`. Secret keys never travel."""

from __future__ import annotations

from typing import Annotated

import msgspec

from simenv.model import OwnerReport
from simenv.model.bounds import FEW
from simenv.wire.numbers import Number

PUBLIC_KEY_CHARS = 40  # 32 bytes in ZeroMQ's base 85
Name = Annotated[str, msgspec.Meta(max_length=64)]
PublicKey = Annotated[str, msgspec.Meta(min_length=PUBLIC_KEY_CHARS, max_length=PUBLIC_KEY_CHARS)]


class KeyInfo(msgspec.Struct, frozen=True):
    """One key the service knows. `at_s`: when it was added, seconds since 1970."""

    name: str  # of its owner
    role: str  # client, admin, worker
    public_key: PublicKey
    at_s: float


class AddKey(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """Let the holder of this key in; answered by Keys."""

    request: Number
    name: Name
    role: Name
    public_key: PublicKey


class RevokeKey(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """Shut the holder of this key out, at once; answered by Keys."""

    request: Number
    name: Name


class GetKeys(msgspec.Struct, frozen=True, array_like=True, tag=22):
    request: Number


class Keys(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """All keys there are now."""

    request: int
    keys: list[KeyInfo]


class GetLimits(msgspec.Struct, frozen=True, array_like=True, tag=44):
    """Limits and use of one's own, or of all owners for an admin; answered by OwnerReports."""

    request: Number


class SetLimits(msgspec.Struct, frozen=True, array_like=True, tag=45):
    """Replace some limits of the owner of a key; answered by OwnerReports, when stored.

    `values`: names of OwnerLimits and their values, added to those that were set before. `reset`:
    forget what was set before, so that the configuration's limits hold again.
    """

    request: Number
    owner: Name
    values: Annotated[dict[Name, Number], FEW] = {}
    reset: bool = False


class OwnerReports(msgspec.Struct, frozen=True, array_like=True, tag=44):
    request: int
    owners: list[OwnerReport]
