"""Keys for access from other machines: an admin adds, lists and revokes them.

Requests go to the service while it runs, else to the files of the environment. Invariant: the
secret half of a key is generated here and stored only in one new file; the service gets the public
half.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from simenv import config
from simenv.client.connection.address import FileAddress, ended, find, read
from simenv.config import EnvironmentPaths
from simenv.errors import ConfigError, NoServiceError, OptionError
from simenv.model import OwnerReport
from simenv.wire import keyfiles
from simenv.wire.auth import USER_ROLES
from simenv.wire.keyfiles import KEYS_FORMAT, UserKeyFile
from simenv.wire.messages.admin import (
    AddKey,
    GetKeys,
    GetLimits,
    KeyInfo,
    Keys,
    OwnerReports,
    RevokeKey,
)

if TYPE_CHECKING:
    from simenv.client.connection.session import ServiceSession

_LISTEN = "simenv up --listen tcp://HOST:PORT"


class KeyStore(Protocol):
    """Operations on keys, with or without a running service."""

    def add(self, name: str, role: str) -> UserKeyFile:
        """Add a key; return the key file of its owner, the secret key included.

        Raises OptionError, ConfigError (also if the environment does not listen for other
        machines), KeyConflictError, NotAllowedError.
        """

    def listed(self) -> list[KeyInfo]:
        """Return all keys."""

    def reports(self) -> dict[str, OwnerReport]:
        """Return limits and use by owner; {} if the service is down."""

    def revoke(self, name: str) -> None:
        """Revoke a key at once. Raises NotFoundError if there is none of that name."""


class ServiceKeyStore:
    """Keys of a running service."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session

    def add(self, name: str, role: str) -> UserKeyFile:
        _check(name, role)
        channel = self._session.channel
        user_key = _new_key_file(channel.name, *channel.address.remote_endpoint(), name, role)
        key = user_key.public_key
        self._session.request(Keys, partial(AddKey, name=name, role=role, public_key=key))
        return user_key

    def listed(self) -> list[KeyInfo]:
        return self._session.request(Keys, GetKeys).keys

    def reports(self) -> dict[str, OwnerReport]:
        return {each.owner: each for each in self._session.request(OwnerReports, GetLimits).owners}

    def revoke(self, name: str) -> None:
        self._session.request(Keys, partial(RevokeKey, name=name))


class OfflineKeyStore:
    """Keys in the files of an environment that is down."""

    def __init__(self, paths: EnvironmentPaths, name: str) -> None:
        self._paths = paths
        self._name = name

    def add(self, name: str, role: str) -> UserKeyFile:
        _check(name, role)
        paths = self._paths
        server = keyfiles.server_file(paths.server_key) if paths.server_key.exists() else None
        address, server_key = (
            (server.address, server.public_key) if server is not None else ("", "")
        )
        user_key = _new_key_file(self._name, address, server_key, name, role)
        info = KeyInfo(name, role, user_key.public_key, time.time())
        with keyfiles.changing(paths.keys):
            keyfiles.write_keys(paths.keys, keyfiles.added(self.listed(), info))
        return user_key

    def listed(self) -> list[KeyInfo]:
        return keyfiles.read_keys(self._paths.keys)

    def reports(self) -> dict[str, OwnerReport]:
        return {}

    def revoke(self, name: str) -> None:
        with keyfiles.changing(self._paths.keys):
            keyfiles.write_keys(self._paths.keys, keyfiles.removed(self.listed(), name))


def offline_key_store(name: str | None, service: Path | None) -> OfflineKeyStore | None:
    """Return the key store of an environment that is on this machine and certainly down; else
    None."""
    address = find(name, service)
    if not isinstance(address, FileAddress):
        return None
    with suppress(NoServiceError):
        if not ended(read(address.path)):
            return None
    home = address.path.parent
    if address.path.name != "connection.json" or not home.is_dir():
        return None
    return OfflineKeyStore(EnvironmentPaths(home, home), home.name)


def issue_key(store: KeyStore, name: str, role: str, file: Path) -> UserKeyFile:
    """Add a key and write the key file of its owner with mode 0600. If the file cannot be written,
    the key is revoked again."""
    if file.exists() or file.is_symlink():
        is_readable_by_others = file.exists() and file.stat().st_mode & 0o077
        problem = "is there already" + (
            " and can be opened by others" if is_readable_by_others else ""
        )
        raise ConfigError(f"{file} {problem}", hint="remove it, or name another file")
    user_key = store.add(name, role)
    try:
        keyfiles.create_private(file, user_key)
    except BaseException:  # also an interrupt: no key without its file
        store.revoke(name)
        raise
    return user_key


def _check(name: str, role: str) -> None:
    config.check_name(name, "key")
    if role not in USER_ROLES:
        raise OptionError(f"role {role!r:.80} is not known", hint=" or ".join(USER_ROLES))


def _new_key_file(env: str, address: str, server_key: str, name: str, role: str) -> UserKeyFile:
    if not address or not server_key:
        raise ConfigError(
            f"environment {env!r} does not listen for other machines",
            hint=f"{_LISTEN}; HOST is an interface or an address of its machine",
        )
    pair = keyfiles.new_pair()
    return UserKeyFile(KEYS_FORMAT, env, address, server_key, name, role, pair.public, pair.secret)
