"""Who is let in through the far door, changed while the service runs.

Invariant: a key that is added is in the file before it is let in; one that is revoked is shut out
before the file is written, so that a full disk cannot keep it in. The file is read anew and written
under its lock, so that no change of another process is lost.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from simenv.config import check_name
from simenv.errors import ConfigError, KeyRefused
from simenv.service.inquiry import refusal
from simenv.wire import codec
from simenv.wire import messages as m
from simenv.wire.auth import LOCAL
from simenv.wire.connection import Doors
from simenv.wire.keyfiles import added, changing, identities, read_keys, removed, write_keys
from simenv.wire.people import AddKey, GetKeys, KeyInfo, Keys

LOCK_PATIENCE_S = 0.25  # the loop waits so long while another process changes the list
_REVOKED = KeyRefused(
    "this key was revoked; tasks submitted with it go on",
    hint="ask an administrator of the environment for a new key file "
    "(made there by: simenv keys add NAME --role client)",
)
FAREWELL = codec.encode(m.Refused(0, [refusal(_REVOKED)]))


def _way_out(error: ConfigError) -> str:
    return error.hint or "free space on that disk"


class People:
    """The keys in one file. Used from the loop's thread."""

    def __init__(self, path: Path, doors: Doors, own: str = "") -> None:
        """`own`: the public key of the environment's own user; it stands in no list."""
        self._path = path
        self._doors = doors
        self._own = {own: LOCAL} if own else {}
        if path.exists():  # the lock's file is made now: a full disk cannot prevent it later
            with suppress(ConfigError), changing(path, LOCK_PATIENCE_S):
                pass
        self._keys = read_keys(path)
        self._unwritten: set[str] = set()  # revoked, and perhaps still in the file
        self._admit()

    @property
    def keys(self) -> list[KeyInfo]:
        """All keys that are let in."""
        return self._keys

    @property
    def names(self) -> set[str]:
        """The names of their owners."""
        return {key.name for key in self._keys}

    def answer(self, q: AddKey | GetKeys) -> Keys:
        """Do it; KeyConflict, OptionError, ConfigError where it cannot be done."""
        if isinstance(q, AddKey):
            check_name(q.name, "key")
            with changing(self._path, LOCK_PATIENCE_S):
                keys = added(self._stored(), KeyInfo(q.name, q.role, q.public_key, time.time()))
                write_keys(self._path, keys)
            self._keys = keys
            self._unwritten.clear()
            self._admit()
        return Keys(q.request, self._keys)

    def revoke(self, name: str) -> ConfigError | None:
        """Shut a key out at once; the error if the file could not be written. NotFound."""
        known = [key for key in self._keys if key.name != name]
        if len(known) < len(self._keys):
            self._keys = known
            self._unwritten.add(name)
            self._admit()
        try:
            with changing(self._path, LOCK_PATIENCE_S):
                keys = self._stored()
                if name not in self._unwritten:
                    keys = removed(keys, name)  # another process has added it
                write_keys(self._path, keys)
        except ConfigError as error:
            if name not in self._unwritten:
                raise
            return ConfigError(
                f"key {name!r} is shut out until the service ends; after that it would be let in "
                f"again: {error.message}",
                hint=f"{_way_out(error)}, then again: simenv keys revoke {name}",
            )
        self._keys = keys
        self._unwritten.clear()
        self._admit()
        return None

    def _stored(self) -> list[KeyInfo]:
        """The list in the file, which a command of the CLI may have changed, without keys that
        were revoked here. Called with its lock held. ConfigError if it cannot be read."""
        return [key for key in read_keys(self._path) if key.name not in self._unwritten]

    def _admit(self) -> None:
        self._doors.admit({**identities(self._keys), **self._own}, FAREWELL)
