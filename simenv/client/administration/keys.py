"""Keys for access from other machines: an admin adds, lists and revokes them.

Requests go to the service while it runs, else to the files of the environment. Invariant: the
secret half of a key is generated here and stored only in one new file; the service gets the public
half.
"""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Protocol

import msgspec

from simenv import config
from simenv.client.administration.accounts import EntitySettings
from simenv.client.connection.address import FileAddress, ended, find, read
from simenv.client.connection.session import ServiceSession
from simenv.config import EnvironmentPaths
from simenv.errors import ConfigError, NoServiceError, OptionError, SimenvError, TimedOutError
from simenv.model import OwnerReport
from simenv.model.accounts import Account
from simenv.wire import key_list, keyfiles
from simenv.wire.keyfiles import KEYS_FORMAT, UserKeyFile
from simenv.wire.messages import accounting, credentials
from simenv.wire.rights import KEY_ROLES

_LISTEN = "simenv up --listen tcp://HOST:PORT"


class KeyStore(Protocol):
    """Operations on keys, with or without a running service."""

    def add(self, name: str, role: str, expires_s: float = 0.0) -> UserKeyFile:
        """Add a key, which is accepted until `expires_s` (seconds since 1970; 0: for ever); return
        the key file of its owner, the secret key included. Raises OptionError, ConfigError (also if
        the environment does not listen for other machines), KeyConflictError, NotAllowedError."""

    def rotate(self, name: str, public_key: str, overlap_s: float) -> UserKeyFile:
        """Add a new key of a name, "" for that of this connection; the former one is accepted for
        `overlap_s` more seconds. Return the key file without the secret key. Raises NotFoundError,
        OptionError, ConfigError, NotAllowedError."""

    def listed(self) -> list[credentials.KeyInfo]:
        """Return all keys."""

    def accounts(self) -> dict[str, Account]:
        """Return the accounts by name; {} if there are none, or the service is down."""

    def reports(self) -> dict[str, OwnerReport]:
        """Return limits and use by owner; {} if the service is down."""

    def revoke(self, name: str) -> None:
        """Revoke a key at once. Raises NotFoundError if there is none of that name."""


class ServiceKeyStore(KeyStore):
    """Keys of a running service."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session

    def add(self, name: str, role: str, expires_s: float = 0.0) -> UserKeyFile:
        _check(name, role)
        channel = self._session.channel
        service, endpoint = channel.service, channel.address.remote_endpoint()
        user_key = _new_key_file(service.name, *endpoint, name, role)
        user_key = msgspec.structs.replace(user_key, standbys=service.standbys)
        added = self._session.request(
            credentials.AddKey(0, name, role, user_key.public_key, expires_s)
        )
        return msgspec.structs.replace(user_key, gateway=added.gateway)

    def rotate(self, name: str, public_key: str, overlap_s: float) -> UserKeyFile:
        answer = self._session.request(credentials.RotateKey(0, name, public_key, overlap_s))
        channel = self._session.channel
        service, endpoint = channel.service, channel.address.remote_endpoint()
        user_key = _key_file(service.name, *endpoint, answer.keys[-1])
        learned = {"standbys": service.standbys, "gateway": answer.gateway}
        return msgspec.structs.replace(user_key, **learned)

    def listed(self) -> list[credentials.KeyInfo]:
        return self._session.request(credentials.GetKeys(0)).keys

    def accounts(self) -> dict[str, Account]:
        return EntitySettings(self._session, Account).listed()

    def reports(self) -> dict[str, OwnerReport]:
        reports = self._session.request(accounting.GetLimits(0)).owners
        return {each.owner: each for each in reports}

    def revoke(self, name: str) -> None:
        config.check_name(name, "key")
        self._session.request(credentials.RevokeKey(0, name=name))


class OfflineKeyStore(KeyStore):
    """Keys in the files of an environment that is down."""

    def __init__(self, paths: EnvironmentPaths, name: str) -> None:
        self._paths = paths
        self._name = name

    def add(self, name: str, role: str, expires_s: float = 0.0) -> UserKeyFile:
        _check(name, role)
        user_key = _new_key_file(self._name, *self._endpoint(), name, role)
        info = credentials.KeyInfo(name, role, user_key.public_key, time.time(), expires_s)
        with keyfiles.changing(self._paths.keys):
            keyfiles.write_keys(self._paths.keys, key_list.added(self.listed(), info))
        return msgspec.structs.replace(user_key, gateway=self._gateway())

    def rotate(self, name: str, public_key: str, overlap_s: float) -> UserKeyFile:
        path = self._paths.keys
        with keyfiles.changing(path):
            keys = key_list.rotated(self.listed(), name, public_key, overlap_s, time.time())
            keyfiles.write_keys(path, keys)
        user_key = _key_file(self._name, *self._endpoint(), keys[-1])
        return msgspec.structs.replace(user_key, gateway=self._gateway())

    def _gateway(self) -> str:
        """Return the URL of the gateway of the configuration; "" if it has none."""
        if not self._paths.config.exists():
            return ""
        return config.known_gateway(config.read(self._paths.config).gateway, self._paths.home)

    def _endpoint(self) -> tuple[str, str]:
        """Return address and public key of the service at its last start; "" if it never
        listened."""
        if not self._paths.server_key.exists():
            return "", ""
        server = keyfiles.server_file(self._paths.server_key)
        return server.address, server.public_key

    def listed(self) -> list[credentials.KeyInfo]:
        return keyfiles.read_keys(self._paths.keys)

    def accounts(self) -> dict[str, Account]:
        return {}

    def reports(self) -> dict[str, OwnerReport]:
        return {}

    def revoke(self, name: str) -> None:
        with keyfiles.changing(self._paths.keys):
            keyfiles.write_keys(self._paths.keys, key_list.removed(self.listed(), name))


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


def issue_key(
    store: KeyStore, name: str, role: str, file: Path, expires_s: float = 0.0
) -> UserKeyFile:
    """Add a key and write the key file of its owner with mode 0600. If the file cannot be written,
    the key is revoked again."""
    if file.exists() or file.is_symlink():
        is_readable_by_others = file.exists() and file.stat().st_mode & 0o077
        problem = "is there already" + (
            " and can be opened by others" if is_readable_by_others else ""
        )
        raise ConfigError(f"{file} {problem}", hint="remove it, or name another file")
    user_key = store.add(name, role, expires_s)
    try:
        keyfiles.create_private(file, user_key)
    except BaseException:  # also an interrupt: no key without its file
        store.revoke(name)
        raise
    return user_key


def rotate_key(store: KeyStore, name: str, file: Path, overlap_s: float) -> UserKeyFile:
    """Rotate a key and write the key file of its owner with mode 0600, in place of an older one.
    The new secret key is on the disk before the service knows the public half, so that nothing
    can leave the owner without a key."""
    pair = keyfiles.new_pair()
    new = file.with_name(f".{file.name}.rotating")
    new.unlink(missing_ok=True)
    keyfiles.create_private(new, pair)
    try:
        user_key = store.rotate(name, pair.public, overlap_s)
    except SimenvError as error:
        if not isinstance(error, NoServiceError | TimedOutError):
            new.unlink(missing_ok=True)  # else the service may have accepted it
        raise
    user_key = msgspec.structs.replace(user_key, secret_key=pair.secret)
    with keyfiles.exclusive(file) if file.exists() else nullcontext():
        keyfiles.write_private(file, user_key)
    new.unlink(missing_ok=True)
    return user_key


def _check(name: str, role: str) -> None:
    config.check_name(name, "key")
    if role not in KEY_ROLES:
        raise OptionError(f"role {role!r:.80} is not known", hint=" or ".join(KEY_ROLES))


def _new_key_file(env: str, address: str, server_key: str, name: str, role: str) -> UserKeyFile:
    pair = keyfiles.new_pair()
    key_file = _key_file(
        env, address, server_key, credentials.KeyInfo(name, role, pair.public, 0.0)
    )
    return msgspec.structs.replace(key_file, secret_key=pair.secret)


def _key_file(env: str, address: str, server_key: str, key: credentials.KeyInfo) -> UserKeyFile:
    """Return the key file of a key, without its secret half."""
    if not address or not server_key:
        hint = f"{_LISTEN}; HOST is an interface or an address of its machine"
        raise ConfigError(f"environment {env!r} does not listen for other machines", hint=hint)
    fields = (env, address, server_key, key.name, key.role, key.public_key, "")
    return UserKeyFile(KEYS_FORMAT, *fields)
