"""Administration of an environment: policies of pools, accounts, classes of service, and keys.

All clients can read the policies and their own accounts, admins set them. Keys are for access from
other machines: an admin adds, lists and revokes them. Requests go to the service while it runs,
else to the files of the environment. Invariant: the secret half of a key is generated here and
stored only in one new file; the service gets the public half.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from simenv import config
from simenv.client.connection.address import FileAddress, ended, find, read
from simenv.client.connection.session import ServiceSession
from simenv.config import EnvironmentPaths, check_name
from simenv.config.load import limit_values
from simenv.errors import ConfigError, NoServiceError, OptionError, SimenvError, TimedOutError
from simenv.model import AdmissionPolicy, OwnerReport
from simenv.model.accounts import Account, Qos
from simenv.model.views import base_of
from simenv.wire import keyfiles
from simenv.wire.keyfiles import KEY_ROLES, KEYS_FORMAT, UserKeyFile
from simenv.wire.messages import accounting, admin
from simenv.wire.messages.admin import (
    CreateToken,
    GetTokens,
    RevokeToken,
    TokenCreated,
    TokenInfo,
    Tokens,
)  # fmt: skip

TOKEN_S = 30 * 86_400.0  # lifetime of a token by default
ALL = "all"  # the whole environment, in place of a pool


class PoolPolicies(msgspec.Struct, frozen=True):
    """The policies of one pool, or of "all". A figure that the policy does not have is 0."""

    pool: str
    queue: str
    keys: tuple[str, ...]
    max_inflight: int  # tasks with workers at a time; 0: no limit
    admission: str
    credits: int
    rate: int
    span_s: float


class PolicySettings:
    """Requests for the policies of pools. Thread-safe."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session

    def listed(self) -> list[PoolPolicies]:
        """Return the policies of the whole environment, then of each pool."""
        pools = self._session.request(admin.Pools, admin.GetPools).pools
        names = (pool.name for pool in pools if not base_of(pool.name))
        return [self.of(name) for name in (ALL, *names)]

    def of(self, pool: str) -> PoolPolicies:
        """Return the policies of one pool, or of "all". Raises NotFoundError."""
        device = _device(pool)
        target = self._session.request(admin.TargetReply, admin.GetTarget, device=device).info
        policy = self._session.request(admin.PolicyReply, admin.GetPolicy, device=device).policy
        keys = dict(target.options).get("keys", "")
        return PoolPolicies(
            pool,
            target.policy,
            tuple(key.strip() for key in keys.split(",")) if keys else (),
            target.max_inflight,
            policy.name,
            policy.total_credits,
            policy.device_rate,
            policy.time_span_ns / 1e9,
        )

    def set_queue(self, pool: str, policy: str, keys: Sequence[str] = ()) -> PoolPolicies:
        """Set the queue policy, for waiting tasks too: priority, fair_share, fifo, round_robin,
        or ordered by `keys`. Raises NotFoundError, OptionError, NotAllowedError."""
        options = (("keys", ",".join(keys)),) if keys else ()
        settings = {"device": _device(pool), "policy": policy, "options": options}
        self._session.request(admin.TargetReply, admin.SetOrder, **settings)
        return self.of(pool)

    def set_admission(
        self, pool: str, policy: str, *, total_credits: int = 0, rate: int = 0, span_s: float = 0.0
    ) -> PoolPolicies:
        """Set the admission policy: "unlimited" accepts all reservations, "credit" up to
        `total_credits` units, "rate" up to `rate` units in each `span_s` seconds.

        Raises NotFoundError, OptionError, NotAllowedError, and InsufficientError if live
        reservations exceed the new limit.
        """
        if min(total_credits, rate, span_s) < 0:
            message = f"total_credits={total_credits}, rate={rate}, span_s={span_s}"
            raise OptionError(message, hint="0 or more")
        device = _device(pool)
        old = self._session.request(admin.PolicyReply, admin.GetPolicy, device=device).policy
        new = AdmissionPolicy(policy, old.baseline, total_credits, rate, round(span_s * 1e9))
        self._session.request(admin.PolicyReply, admin.SetPolicy, device=device, policy=new)
        return self.of(pool)


def _device(pool: str) -> str:
    return "" if pool == ALL else pool


class AccountSettings:
    """Requests for accounts. Thread-safe."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session

    def listed(self) -> dict[str, Account]:
        """Return accounts by name: all for an admin, else those that the caller may use or
        coordinates."""
        return self._session.request(accounting.Accounts, accounting.GetAccounts).accounts

    def set(self, name: str, **changes: Any) -> Account:
        """Add an account, or change some fields of `simenv.model.accounts.Account`; sizes in
        `limits` may be texts. It persists over restarts, until `simenv.toml` changes it. Raises
        OptionError, ConfigError, NotAllowedError."""
        account = _with_changes(self.listed().get(name, Account()), changes)
        fields = {"name": check_name(name, "account"), "account": account}
        result = self._session.request(accounting.Accounts, accounting.SetAccount, **fields)
        return result.accounts[name]

    def remove(self, name: str) -> None:
        """Remove an account that has none below it; its tasks stay. Raises NotFoundError,
        OptionError, NotAllowedError."""
        fields = {"name": name, "account": None}
        self._session.request(accounting.Accounts, accounting.SetAccount, **fields)


class QosSettings:
    """Requests for classes of service. Thread-safe."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session

    def listed(self) -> dict[str, Qos]:
        """Return classes of service by name: all for an admin, else those that the caller may
        use."""
        return self._session.request(accounting.Accounts, accounting.GetAccounts).qos

    def set(self, name: str, **changes: Any) -> Qos:
        """Add a class of service, or change some fields of `simenv.model.accounts.Qos`. Persists
        and raises as for accounts."""
        qos = _with_changes(self.listed().get(name, Qos()), changes)
        fields = {"name": check_name(name, "class of service"), "qos": qos}
        result = self._session.request(accounting.Accounts, accounting.SetQos, **fields)
        return result.qos[name]

    def remove(self, name: str) -> None:
        """Remove a class of service that no account names; its tasks stay. Raises NotFoundError,
        OptionError, NotAllowedError."""
        fields = {"name": name, "qos": None}
        self._session.request(accounting.Accounts, accounting.SetQos, **fields)


S = TypeVar("S", Account, Qos)


def _with_changes(value: S, changes: dict[str, Any]) -> S:
    """Return an account or a class with some fields changed. Raises OptionError."""
    fields = value.__struct_fields__
    for name in changes:
        if name not in fields:
            raise OptionError(f"there is no setting {name!r:.80}", hint=f"of: {', '.join(fields)}")
    try:
        if "limits" in changes:
            changes = {**changes, "limits": limit_values(changes["limits"], "limits")}
        return msgspec.convert({**msgspec.structs.asdict(value), **changes}, type(value))
    except msgspec.ValidationError as error:
        raise OptionError(str(error)) from error
    except ConfigError as error:
        raise OptionError(error.message, hint=error.hint) from error


class TokenSettings:
    """Requests for bearer tokens of HTTP clients. Thread-safe."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session

    def listed(self) -> list[TokenInfo]:
        """Return the tokens of the caller, or all for an admin, without their secrets."""
        return self._session.request(Tokens, GetTokens).tokens

    def add(
        self,
        user: str = "",
        *,
        account: str = "",
        role: str = "client",
        purpose: str = "",
        lifetime_s: float = TOKEN_S,
        once: bool = False,
        reservation: int = 0,
        parent: str = "",
    ) -> TokenCreated:
        """Make a token of `user`, "" the caller, which ends after `lifetime_s` or, with `once`,
        with its first use. `role`: client, admin, or monitor, which may read the metrics alone
        and is an admin's to give; not above the caller's; "": that of the user.
        `reservation`: number of one of the user, under which all work of the token runs, and with
        which it ends; a repeat by its user returns the same token. `parent`: number of a token of
        `user`, with which it ends. The answer alone has its secret. Raises NotAllowedError,
        OptionError, LimitExceededError, NotReservedError, NotFoundError."""
        fields = {"user": user, "account": account, "role": role, "purpose": purpose}
        ends = {"lifetime_s": lifetime_s, "once": once, "reservation": reservation}
        return self._session.request(TokenCreated, CreateToken, parent=parent, **fields, **ends)

    def revoke(self, number: str) -> None:
        """Revoke a token at once. Raises NotFoundError."""
        self._session.request(Tokens, RevokeToken, number=number)


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

    def listed(self) -> list[admin.KeyInfo]:
        """Return all keys."""

    def reports(self) -> dict[str, OwnerReport]:
        """Return limits and use by owner; {} if the service is down."""

    def revoke(self, name: str) -> None:
        """Revoke a key at once. Raises NotFoundError if there is none of that name."""


class ServiceKeyStore:
    """Keys of a running service."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session

    def add(self, name: str, role: str, expires_s: float = 0.0) -> UserKeyFile:
        _check(name, role)
        channel = self._session.channel
        user_key = _new_key_file(channel.name, *channel.address.remote_endpoint(), name, role)
        user_key = msgspec.structs.replace(user_key, standbys=channel.standbys)
        fields = {"name": name, "role": role, "public_key": user_key.public_key}
        added = self._session.request(admin.Keys, admin.AddKey, **fields, expires_s=expires_s)
        return msgspec.structs.replace(user_key, gateway=added.gateway)

    def rotate(self, name: str, public_key: str, overlap_s: float) -> UserKeyFile:
        fields = {"name": name, "public_key": public_key, "overlap_s": overlap_s}
        answer = self._session.request(admin.Keys, admin.RotateKey, **fields)
        channel = self._session.channel
        user_key = _key_file(channel.name, *channel.address.remote_endpoint(), answer.keys[-1])
        learned = {"standbys": channel.standbys, "gateway": answer.gateway}
        return msgspec.structs.replace(user_key, **learned)

    def listed(self) -> list[admin.KeyInfo]:
        return self._session.request(admin.Keys, admin.GetKeys).keys

    def reports(self) -> dict[str, OwnerReport]:
        reports = self._session.request(admin.OwnerReports, admin.GetLimits).owners
        return {each.owner: each for each in reports}

    def revoke(self, name: str) -> None:
        self._session.request(admin.Keys, admin.RevokeKey, name=name)


class OfflineKeyStore:
    """Keys in the files of an environment that is down."""

    def __init__(self, paths: EnvironmentPaths, name: str) -> None:
        self._paths = paths
        self._name = name

    def add(self, name: str, role: str, expires_s: float = 0.0) -> UserKeyFile:
        _check(name, role)
        user_key = _new_key_file(self._name, *self._endpoint(), name, role)
        info = admin.KeyInfo(name, role, user_key.public_key, time.time(), expires_s)
        with keyfiles.changing(self._paths.keys):
            keyfiles.write_keys(self._paths.keys, keyfiles.added(self.listed(), info))
        return msgspec.structs.replace(user_key, gateway=self._gateway())

    def rotate(self, name: str, public_key: str, overlap_s: float) -> UserKeyFile:
        path = self._paths.keys
        with keyfiles.changing(path):
            keys = keyfiles.rotated(self.listed(), name, public_key, overlap_s, time.time())
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

    def listed(self) -> list[admin.KeyInfo]:
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
    key_file = _key_file(env, address, server_key, admin.KeyInfo(name, role, pair.public, 0.0))
    return msgspec.structs.replace(key_file, secret_key=pair.secret)


def _key_file(env: str, address: str, server_key: str, key: admin.KeyInfo) -> UserKeyFile:
    """Return the key file of a key, without its secret half."""
    if not address or not server_key:
        hint = f"{_LISTEN}; HOST is an interface or an address of its machine"
        raise ConfigError(f"environment {env!r} does not listen for other machines", hint=hint)
    fields = (env, address, server_key, key.name, key.role, key.public_key, "")
    return UserKeyFile(KEYS_FORMAT, *fields)
