"""Who is let in through the far door, changed while the service runs.

Invariant: what the file says, what the doors hold and what a question is answered are one list; the
file is written first.
"""

from __future__ import annotations

import time
from pathlib import Path

from simenv.config import check_name
from simenv.errors import KeyRefused
from simenv.service.inquiry import refusal
from simenv.wire import codec
from simenv.wire import messages as m
from simenv.wire.auth import LOCAL
from simenv.wire.connection import Doors
from simenv.wire.keyfiles import added, identities, read_keys, removed, write_keys
from simenv.wire.people import AddKey, GetKeys, KeyInfo, Keys, RevokeKey

_REVOKED = KeyRefused(
    "this key was revoked; tasks submitted with it go on",
    hint="ask an administrator of the environment for a new key file "
    "(made there by: simenv keys add NAME --role client)",
)
FAREWELL = codec.encode(m.Refused(0, [refusal(_REVOKED)]))


class People:
    """The keys in one file. Used from the loop's thread."""

    def __init__(self, path: Path, doors: Doors, own: str = "") -> None:
        """`own`: the public key of the environment's own user; it stands in no list."""
        self._path = path
        self._doors = doors
        self._own = {own: LOCAL} if own else {}
        self._keys = read_keys(path)
        self._admit()

    def answer(self, q: AddKey | RevokeKey | GetKeys) -> Keys:
        """Do it; KeyConflict, NotFound, OptionError, ConfigError where it cannot be done."""
        if isinstance(q, AddKey):
            check_name(q.name, "key")
            self._change(added(self._keys, KeyInfo(q.name, q.role, q.public_key, time.time())))
        elif isinstance(q, RevokeKey):
            self._change(removed(self._keys, q.name))
        return Keys(q.request, self._keys)

    def _change(self, keys: list[KeyInfo]) -> None:
        write_keys(self._path, keys)
        self._keys = keys
        self._admit()

    def _admit(self) -> None:
        self._doors.admit({**identities(self._keys), **self._own}, FAREWELL)
