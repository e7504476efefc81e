"""The list of accepted keys, and its changes: a key is added, rotated or removed.

Pure: `keyfiles` reads and writes the list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from simenv.errors import KeyConflictError, NotFoundError, OptionError
from simenv.wire.messages import credentials
from simenv.wire.messages.base import Role
from simenv.wire.rights import KEY_ROLES, Identity

MAX_KEYS = 1_000
# Time in which the former key of a name is accepted after its rotation. The least one lets the
# answer reach a client that rotates its own key.
MIN_OVERLAP_S, MAX_OVERLAP_S = 5.0, 30 * 86_400.0
MAX_OVERLAPPING = 3  # such keys of one name


def added(
    keys: Sequence[credentials.KeyInfo], key: credentials.KeyInfo
) -> list[credentials.KeyInfo]:
    """Return the list with one more key. Raises KeyConflictError if the name or the key is in use,
    OptionError for a role that users cannot have, an end in the past or a full list."""
    if key.role not in KEY_ROLES:
        hint = " or ".join(KEY_ROLES)
        raise OptionError(f"a key cannot have the role {key.role!r:.80}", hint=hint)
    if key.expires_s and not key.expires_s > key.at_s:
        raise OptionError(f"key {key.name!r} would have expired before it is added")
    _check_room(keys)
    for existing in keys:
        if key.name == existing.name:
            message = f"there is a key named {key.name!r} already (role {existing.role})"
            raise KeyConflictError(
                message, hint=f"another name, or first: simenv keys revoke {key.name}"
            )
        if key.public_key == existing.public_key:
            hint = "make a new one"
            raise KeyConflictError(f"this key is known already, as {existing.name!r}", hint=hint)
    return [*keys, key]


def _check_room(keys: Sequence[credentials.KeyInfo]) -> None:
    if len(keys) >= MAX_KEYS:
        raise OptionError(f"there are {len(keys)} keys, which is the limit", hint="revoke some")


def rotated(
    keys: Sequence[credentials.KeyInfo], name: str, public_key: str, overlap_s: float, now_s: float
) -> list[credentials.KeyInfo]:
    """Return the list with a new key of that name, which has the role and the end of its newest
    one. Earlier keys of the name are accepted for `overlap_s` more seconds at most, MAX_OVERLAPPING
    of them. `now_s`: seconds since 1970. Raises NotFoundError, KeyConflictError, OptionError."""
    others = removed(keys, name)
    last = [key for key in keys if key.name == name][-1]
    if last.public_key == public_key:  # the request was repeated
        return list(keys)
    if has_expired(last, now_s):
        hint = f"simenv keys revoke {name}, then simenv keys add {name}"
        raise OptionError(f"the key {name!r} has expired", hint=hint)
    if not MIN_OVERLAP_S <= overlap_s <= MAX_OVERLAP_S:
        text = f"overlap_s = {overlap_s} is outside {MIN_OVERLAP_S:.0f} .. {MAX_OVERLAP_S:.0f}"
        raise OptionError(text, hint=f"to end a key at once: simenv keys revoke {name}")
    if any(key.public_key == public_key for key in keys):
        raise KeyConflictError("this key is known already", hint="make a new one")
    _check_room(keys)
    ending = [
        msgspec.structs.replace(key, expires_s=min(key.expires_s or math.inf, now_s + overlap_s))
        for key in keys
        if key.name == name
    ]
    ending = [key for key in ending if not has_expired(key, now_s)][-MAX_OVERLAPPING:]
    return [
        *others,
        *ending,
        credentials.KeyInfo(name, last.role, public_key, now_s, last.expires_s),
    ]


def has_expired(key: credentials.KeyInfo, now_s: float) -> bool:
    """Return whether a key is no longer accepted. `now_s`: seconds since 1970."""
    return bool(key.expires_s) and key.expires_s <= now_s


def removed(keys: Sequence[credentials.KeyInfo], name: str) -> list[credentials.KeyInfo]:
    """Return the list without the key of that name. Raises NotFoundError if it has none."""
    remaining = [key for key in keys if key.name != name]
    if len(remaining) == len(keys):
        names = ", ".join(list(dict.fromkeys(key.name for key in keys))[:10]) or "none"
        raise NotFoundError(f"no key named {name[:80]!r}", hint=f"there are: {names}")
    return remaining


def identities(keys: Sequence[credentials.KeyInfo], now_s: float) -> Mapping[str, Identity]:
    """Return owner and role by public key. Expired keys and those with other roles than KEY_ROLES
    are left out: they are not accepted. `now_s`: seconds since 1970."""
    return {
        key.public_key: Identity(key.name, Role(key.role))
        for key in keys
        if key.role in KEY_ROLES and not has_expired(key, now_s)
    }
