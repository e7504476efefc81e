"""The keys that the service accepts: those of the file, and of certificates.

Invariants: an added key is in the key file before it is accepted; a revoked key is rejected before
the file is written, so that a full disk cannot keep it valid. The file is read and written under
its lock: no change of another process is lost.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from simenv import errors
from simenv.config import check_name
from simenv.service.journal import database
from simenv.wire import codec, key_list, keyfiles, rights
from simenv.wire.messages import client as m, credentials
from simenv.wire.transport.zmq_transport import Listener

LOCK_PATIENCE_S = 0.25  # longest wait of the loop while another process changes the list
EXPIRY_CHECK_S = 5.0  # between two looks at the ends of keys


def refusal_notice(message: str, hint: str) -> bytes:
    """Return the message with which a client hears that its key is no longer accepted."""
    refused = errors.KeyRefusedError(message, hint=hint)
    return codec.encode(m.Refused(0, [codec.refusal(refused)]))


_NEW_KEY = "ask an administrator of the environment for a new key file (made there by: simenv keys "
REVOKED_NOTICE = refusal_notice(
    "this key was revoked; tasks submitted with it continue",
    f"{_NEW_KEY}add NAME --role client)",
)
EXPIRED_NOTICE = refusal_notice(
    "this key has expired; tasks submitted with it continue",
    f"{_NEW_KEY}revoke NAME, then simenv keys add NAME --expires 30d)",
)


def _hint(error: errors.ConfigError) -> str:
    """Return the remedy for a file of keys that cannot be written."""
    cause = error.__cause__
    own = database.hint_of(cause) if isinstance(cause, OSError) else ""
    return error.hint or own or "let this user write that file, on a disk with free space"


class KeyCommands:
    """Changes of the accepted keys, which are stored in one file. Used from the loop's thread."""

    def __init__(
        self, path: Path, listener: Listener, own_key: str = "", *, enabled: bool = True
    ) -> None:
        """`own_key`: the public key of the environment's own user, which is not in the file.
        `enabled`: whether keys of the file are accepted; see `IdentitySettings.use`."""
        self.path = path
        self._listener = listener
        self._own_identity = {own_key: rights.LOCAL} if own_key else {}
        if path.exists():  # create the lock file now, because a full disk may prevent it later
            with suppress(errors.ConfigError), keyfiles.changing(path, LOCK_PATIENCE_S):
                pass
        self._keys = keyfiles.read_keys(path)
        self._unwritten: set[str] = set()  # revoked keys that may still be in the file
        self._enabled = enabled
        self._certified: dict[str, rights.Identity] = {}  # public keys of users' certificates
        self._checked_s = 0.0  # time of the last look at the ends of keys
        self._admit()

    @property
    def keys(self) -> list[credentials.KeyInfo]:
        """All accepted keys."""
        return self._keys

    @property
    def names(self) -> set[str]:
        """The names of the owners of all accepted keys."""
        return {key.name for key in self._keys}

    def answer(self, message: credentials.AddKey | credentials.GetKeys) -> credentials.Keys:
        """Add a key, or only list the keys; returns all keys. Raises KeyConflictError, OptionError,
        ConfigError."""
        if isinstance(message, credentials.AddKey):
            check_name(message.name, "key")
            self._check_enabled()
            with keyfiles.changing(self.path, LOCK_PATIENCE_S):
                fields = (message.name, message.role, message.public_key)
                info = credentials.KeyInfo(*fields, time.time(), message.expires_s)
                keys = key_list.added(self._stored(), info)
                keyfiles.write_keys(self.path, keys)
            self._keys = keys
            self._unwritten.clear()
            self._admit()
        return credentials.Keys(message.request, self._keys)

    def rotate(self, name: str, public_key: str, overlap_s: float) -> list[credentials.KeyInfo]:
        """Add a new key of a name; return all keys of that name. Raises like `key_list.rotated`,
        ConfigError."""
        self._check_enabled()
        with keyfiles.changing(self.path, LOCK_PATIENCE_S):
            now_s = time.time()
            keys = key_list.rotated(self._stored(), name, public_key, overlap_s, now_s)
            keyfiles.write_keys(self.path, keys)
        self._keys = keys
        self._unwritten.clear()
        self._admit()
        return [key for key in keys if key.name == name]

    def _check_enabled(self) -> None:
        if not self._enabled:
            hint = "use = ['keys', ...] in the table [identity]"
            raise errors.OptionError("this environment accepts no keys of files", hint=hint)

    def holder(self, public_key: str) -> rights.Identity | None:
        """Return whose key this is, expired or not; None if it is nobody's."""
        tables = (self._in_files, self._own_identity, self._certified)
        return next((table[public_key] for table in tables if public_key in table), None)

    def certify(self, public_key: str, identity: rights.Identity) -> None:
        """Accept the public key of a certificate until `withdraw`."""
        self._certified[public_key] = identity
        self._listener.admit_key(public_key, identity)

    def withdraw(self, public_key: str, notice: bytes = b"") -> None:
        """Accept the public key of a certificate no longer; its connections get `notice`, if it is
        not empty, and are closed."""
        self._certified.pop(public_key, None)
        self._listener.revoke_key(public_key, notice)

    def close_expired(self, now_s: float) -> None:
        """Close the connections of keys that have expired, every EXPIRY_CHECK_S. `now_s`: seconds
        since 1970."""
        if abs(now_s - self._checked_s) < EXPIRY_CHECK_S:
            return
        self._checked_s = now_s
        for key in self._keys:
            if key_list.has_expired(key, now_s):
                self._listener.revoke_key(key.public_key, EXPIRED_NOTICE)

    def revoke(self, name: str) -> errors.ConfigError | None:
        """Revoke a key at once. Returns an error if the file could not be written. Raises
        NotFoundError."""
        remaining = [key for key in self._keys if key.name != name]
        if len(remaining) < len(self._keys):
            self._keys = remaining
            self._unwritten.add(name)
            self._admit()
        try:
            with keyfiles.changing(self.path, LOCK_PATIENCE_S):
                keys = self._stored()
                if name not in self._unwritten:
                    keys = key_list.removed(keys, name)  # another process has added it
                keyfiles.write_keys(self.path, keys)
        except errors.ConfigError as error:
            if name not in self._unwritten:
                raise
            return errors.ConfigError(
                f"key {name!r} is revoked until the service ends; after that it would be "
                f"accepted again: {error.message}",
                hint=f"{_hint(error)}, then again: simenv keys revoke {name}",
            )
        self._keys = keys
        self._unwritten.clear()
        self._admit()
        return None

    def _stored(self) -> list[credentials.KeyInfo]:
        """Read the list in the file, which a command of the CLI may have changed, without the keys
        that were revoked here. The caller holds the lock. Raises ConfigError."""
        return [key for key in keyfiles.read_keys(self.path) if key.name not in self._unwritten]

    def _admit(self) -> None:
        self._in_files = key_list.identities(self._keys, 0.0)
        self._listener.admit(
            {
                **self._certified,
                **(key_list.identities(self._keys, time.time()) if self._enabled else {}),
                **self._own_identity,
            },
            REVOKED_NOTICE,
        )
