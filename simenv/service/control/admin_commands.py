"""Commands of administrators about pools, nodes, keys and limits of owners.

Invariants: a change of a pool or node that was answered is stored and is applied again before the
first tick of the next start, unless `up` configures that pool otherwise. An added key is in the
key file before it is accepted; a revoked key is rejected before the file is written, so that a
full disk cannot keep it valid. The file is read and written under its lock: no change of another
process is lost. The policies of the configuration are applied once, and again only when the
configuration changes, so that the settings of an administrator (`simenv policy`) survive a restart.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from simenv import errors
from simenv.config import Config, Limits, Policies, check_name
from simenv.config.model import ALL
from simenv.model import UNLIMITED, AdmissionPolicy, OwnerLimits, OwnerReport, PoolSpec
from simenv.model.task_rules import merged
from simenv.scheduler.core import Action
from simenv.scheduler.scheduler import Scheduler
from simenv.scheduler.state import owner_quotas, scheduler_state
from simenv.service.journal import database, tables, writer
from simenv.service.workers import processes
from simenv.wire import codec, keyfiles
from simenv.wire.messages import admin, client as m
from simenv.wire.transport.zmq_transport import Listener

REFUSED_MESSAGES = 10  # as many messages as a refused Submit counts
Statement = tuple[str, tuple[Any, ...]]

log = logging.getLogger("simenv.service")


def apply(config: Config, scheduler: Scheduler, prior: dict[str, bytes]) -> list[Statement]:
    """Apply new policies of the configuration. `prior`: packed policies that were applied before,
    by pool. Returns the statements that store the change. Raises ConfigError."""
    results: list[Statement] = []
    for name, policies in config.policies.items():
        body = msgspec.msgpack.encode(policies)
        if prior.get(name) != body:
            try:
                _apply(scheduler, "" if name == ALL else name, policies)
            except errors.OptionError as error:
                message = f"policies.{name}: {error.message}"
                raise errors.ConfigError(message, hint=error.hint) from error
            except errors.InsufficientError as error:
                # Live reservations hold more than the new policy.
                log.warning("policies.%s is not applied: %s", name, error)
                continue
            results.append(("insert or replace into policy_told values(?,?)", (name, body)))
    for name in prior:
        if name not in config.policies:
            results.append(("delete from policy_told where pool = ?", (name,)))
    return results


def _apply(scheduler: Scheduler, device: str, policies: Policies) -> None:
    if policies.queue:
        options = (("keys", ",".join(policies.keys)),) if policies.keys else ()
        scheduler.set_queue_policy(device, policies.queue, options)
    if policies.admission:
        baseline = scheduler.state.reservations.terms(device).profile.baseline
        name, span_ns = policies.admission, round(policies.span_s * 1e9)
        policy = AdmissionPolicy(name, baseline, policies.credits, policies.rate, span_ns)
        scheduler.set_admission_policy(device, policy, -1)


class PoolCommands:
    """Changes of pools and nodes. Used from the loop's thread."""

    def __init__(
        self,
        config: Config,
        scheduler: Scheduler,
        journal: writer.Journal,
        recheck_node: Callable[[str], bool],
    ) -> None:
        """`recheck_node`: returns whether a lost node can be used again."""
        self._config = config
        self._configured = {pool.name: pool for pool in config.pools}
        self._scheduler = scheduler
        self._state = scheduler.state
        self._journal = journal
        self._recheck_node = recheck_node

    def apply(self, message: admin.Scale | admin.DrainNode | admin.ResumeNode) -> list[Action]:
        """Apply a change, which the next commit stores. Raises OptionError, NotFoundError,
        LimitExceededError."""
        now_ns = time.monotonic_ns()
        match message:
            case admin.Scale():
                forced = self._check_capacity(message)
                size = message.pool, message.least, message.most
                actions = self._scheduler.scale(*size, overcommit=forced)
                configured = self._configured[message.pool]
                self._journal.scaled(*size, configured.min, configured.max)
            case admin.DrainNode():
                actions = self._scheduler.drain_node(message.node, message.reason, now_ns)
                if self._state.nodes.hosts[message.node].job is None:  # else: until its job ends
                    self._journal.drained(message.node, message.reason)
            case admin.ResumeNode():
                actions = self._scheduler.resume(message.name, self._recheck_node(message.name))
                self._journal.resumed(message.name)
        return actions

    def restore(self) -> None:
        """Apply the stored changes of earlier services again. Called before the first tick."""
        now_ns = time.monotonic_ns()
        for name, lower, upper, *bounds in self._journal.records.scaled():
            configured = self._configured.get(name)
            if configured is not None and [configured.min, configured.max] == bounds:
                # A size that was forced then does not fit: it is forced again.
                fitting = processes.workers_that_fit(configured, self._state.limits, upper)
                self._scheduler.scale(name, lower, upper, overcommit=fitting < upper)
                log.info("pool %s is scaled to %d to %d workers", name, lower, upper)
        applied = self._journal.records.applied_policies()
        self._journal.put(apply(self._config, self._scheduler, applied), forced=False)
        for name, reason in self._journal.records.drained():
            with suppress(errors.NotFoundError):  # a node of another allocation
                self._scheduler.drain_node(name, reason, now_ns)
                log.info("node %s is drained: %s", name, reason)

    def _check_capacity(self, message: admin.Scale) -> bool:
        """Return whether the requested size exceeds the nodes and is forced. Raises
        LimitExceededError if it exceeds them and is not forced, OptionError for hardware."""
        spec = self._configured.get(message.pool)
        if spec is None or message.least > message.most:
            return False  # the scheduler raises the error
        if spec.provider and (message.least, message.most) != (1, 1):
            text = f"pool {message.pool!r} holds a machine: it has one worker"
            hint = "simenv down, and up without it; others are not touched by a pool that waits"
            raise errors.OptionError(text, hint=hint)
        others = [
            p.spec for name, p in self._state.pools.items() if name != message.pool and not p.base
        ]
        return self._is_forced(spec, message, others)

    def _is_forced(self, spec: PoolSpec, message: admin.Scale, others: list[PoolSpec]) -> bool:
        limits = self._state.limits
        fitting = processes.workers_that_fit(spec, limits, message.most)
        besides = processes.workers_that_fit_besides(spec, others, limits, message.least)
        minimum_fit = min(fitting, besides)
        if fitting >= message.most and minimum_fit >= message.least:
            return False
        if message.force and processes.can_place(spec, limits):
            return True
        limited_by_others = fitting >= message.most
        wanted, available = (
            (message.least, minimum_fit) if limited_by_others else (message.most, fitting)
        )
        suffix = " beside those of the other pools" if limited_by_others else ""
        capacity = processes.capacity_text(spec, limits, available, all_nodes=limited_by_others)
        raise errors.LimitExceededError(
            f"pool {spec.name!r}: {wanted} workers{processes.worker_text(spec)} do not fit,"
            f" {available} do{suffix}: {capacity}",
            hint=f"{available} at most; force=True starts them all the same",
        )


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
        self._own_identity = {own_key: keyfiles.LOCAL} if own_key else {}
        if path.exists():  # create the lock file now, because a full disk may prevent it later
            with suppress(errors.ConfigError), keyfiles.changing(path, LOCK_PATIENCE_S):
                pass
        self._keys = keyfiles.read_keys(path)
        self._unwritten: set[str] = set()  # revoked keys that may still be in the file
        self._enabled = enabled
        self._certified: dict[str, keyfiles.Identity] = {}  # public keys of users' certificates
        self._checked_s = 0.0  # time of the last look at the ends of keys
        self._admit()

    @property
    def keys(self) -> list[admin.KeyInfo]:
        """All accepted keys."""
        return self._keys

    @property
    def names(self) -> set[str]:
        """The names of the owners of all accepted keys."""
        return {key.name for key in self._keys}

    def answer(self, message: admin.AddKey | admin.GetKeys) -> admin.Keys:
        """Add a key, or only list the keys; returns all keys. Raises KeyConflictError, OptionError,
        ConfigError."""
        if isinstance(message, admin.AddKey):
            check_name(message.name, "key")
            self._check_enabled()
            with keyfiles.changing(self.path, LOCK_PATIENCE_S):
                fields = (message.name, message.role, message.public_key)
                info = admin.KeyInfo(*fields, time.time(), message.expires_s)
                keys = keyfiles.added(self._stored(), info)
                keyfiles.write_keys(self.path, keys)
            self._keys = keys
            self._unwritten.clear()
            self._admit()
        return admin.Keys(message.request, self._keys)

    def rotate(self, name: str, public_key: str, overlap_s: float) -> list[admin.KeyInfo]:
        """Add a new key of a name; return all keys of that name. Raises like `keyfiles.rotated`,
        ConfigError."""
        self._check_enabled()
        with keyfiles.changing(self.path, LOCK_PATIENCE_S):
            now_s = time.time()
            keys = keyfiles.rotated(self._stored(), name, public_key, overlap_s, now_s)
            keyfiles.write_keys(self.path, keys)
        self._keys = keys
        self._unwritten.clear()
        self._admit()
        return [key for key in keys if key.name == name]

    def _check_enabled(self) -> None:
        if not self._enabled:
            hint = "use = ['keys', ...] in the table [identity]"
            raise errors.OptionError("this environment accepts no keys of files", hint=hint)

    def holder(self, public_key: str) -> keyfiles.Identity | None:
        """Return whose key this is, expired or not; None if it is nobody's."""
        tables = (self._in_files, self._own_identity, self._certified)
        return next((table[public_key] for table in tables if public_key in table), None)

    def certify(self, public_key: str, identity: keyfiles.Identity) -> None:
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
            if keyfiles.has_expired(key, now_s):
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
                    keys = keyfiles.removed(keys, name)  # another process has added it
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

    def _stored(self) -> list[admin.KeyInfo]:
        """Read the list in the file, which a command of the CLI may have changed, without the keys
        that were revoked here. The caller holds the lock. Raises ConfigError."""
        return [key for key in keyfiles.read_keys(self.path) if key.name not in self._unwritten]

    def _admit(self) -> None:
        self._in_files = keyfiles.identities(self._keys, 0.0)
        self._listener.admit(
            {
                **self._certified,
                **(keyfiles.identities(self._keys, time.time()) if self._enabled else {}),
                **self._own_identity,
            },
            REVOKED_NOTICE,
        )


class Owners:
    """Limits of the owners of all keys and certificates: configured values and those set by an
    administrator. Invariant: the scheduler's table has one entry for each owner and is rebuilt
    whenever an owner or a limit changes. A limit set by an administrator survives restarts until it
    is reset or its key is revoked. Used from the loop's thread."""

    def __init__(
        self,
        limits: Limits,
        scheduler: Scheduler,
        journal: writer.Journal,
        kept_bytes: Callable[[str], int],
        *,
        has_users: bool = False,
    ) -> None:
        """`kept_bytes`: returns the bytes of the stored results of an owner. `has_users`: users get
        certificates, so that an owner of limits may have no key."""
        self._has_users = has_users
        self._users: dict[str, str] = {}  # roles of those with certificates since the start
        self._kept_bytes = kept_bytes
        self._limits = limits
        self._scheduler = scheduler
        self._state = scheduler.state
        self._journal = journal
        self._set = tables.OWNER_LIMITS.read(journal.records)
        self._keys: dict[str, str] = {}  # roles by name of key
        self._rates = owner_quotas.MessageRates()

    def refresh(self, keys: list[admin.KeyInfo]) -> None:
        """Replace the keys whose owners have limits."""
        before, self._keys = self._keys, {key.name: key.role for key in keys}
        gone = [name for name in self._set if name not in self._roles]
        for name in [name for name in gone if name in before or not self._has_users]:
            del self._set[name]
            self._journal.put([tables.OWNER_LIMITS.remove(name)], forced=False)
        self._arrange()

    def admit(self, user: str, role: str) -> None:
        """Add a user who has a certificate now. The role monitor submits nothing: it leaves the
        user's limits as they are."""
        if user and role != keyfiles.Role.MONITOR and self._users.get(user) != role:
            self._users[user] = role
            self._arrange()

    @property
    def _roles(self) -> dict[str, str]:
        return {**self._users, **self._keys}

    def check_rate(self, owner: str, now_ns: int) -> None:
        """Count one message of an owner. Raises QueueFullError above the owner's rate."""
        limits = self._state.quotas.of(owner)
        wait_s = self._rates.take(owner, limits, now_ns)
        if wait_s:
            raise owner_quotas.too_fast(owner, limits, wait_s)

    def count_refusal(self, owner: str) -> None:
        """Count a refused Submit, which took more time than its message."""
        self._rates.take_more(owner, self._state.quotas.of(owner), REFUSED_MESSAGES - 1)

    def change(self, message: admin.SetLimits) -> str:
        """Set or reset limits, which the next commit stores. Returns a description of the change.
        Raises NotFoundError, OptionError."""
        if message.owner not in self._roles:
            names = ", ".join(sorted(self._roles)[:10]) or "none"
            text = f"no key named {message.owner!r:.80}"
            raise errors.NotFoundError(text, hint=f"there are: {names}")
        if not (message.values or message.reset):
            hint = "KEY=VALUE, such as max_queued_tasks=1000"
            raise errors.OptionError("no limit is named", hint=hint)
        values = {**({} if message.reset else self._set.get(message.owner, {})), **message.values}
        merged(UNLIMITED, values)
        if values:
            self._set[message.owner] = values
            statements = tables.OWNER_LIMITS.statements({message.owner: values})
        else:
            self._set.pop(message.owner, None)
            statements = [tables.OWNER_LIMITS.remove(message.owner)]
        self._journal.put(statements, forced=True)
        self._arrange()
        settings = [f"{key} = {value}" for key, value in message.values.items()]
        return ", ".join((["as configured"] if message.reset else []) + settings)

    def reports(self, identity: keyfiles.Identity) -> list[OwnerReport]:
        """Return limits and usage: of all owners for an admin, else of the requesting owner."""
        if identity.scope:
            return [self._report(identity.owner, self._roles.get(identity.owner, ""))]
        return [
            self._report("", keyfiles.Role.ADMIN),
            *(self._report(name, role) for name, role in sorted(self._roles.items())),
        ]

    def _report(self, owner: str, role: str) -> OwnerReport:
        use = scheduler_state.of_owner(self._state, owner, self._kept_bytes(owner))
        return OwnerReport(owner, role, self._state.quotas.of(owner), use)

    def _arrange(self) -> None:
        table = {name: self._of(name, role) for name, role in self._roles.items()}
        self._scheduler.set_owner_limits(table, self._limits.client)

    def _of(self, name: str, role: str) -> OwnerLimits:
        limits = self._limits.admin if role == keyfiles.Role.ADMIN else self._limits.client
        settings: Mapping[str, int] = {**self._limits.keys.get(name, {}), **self._set.get(name, {})}
        return merged(limits, settings)
