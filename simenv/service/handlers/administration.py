"""Authorised changes of the environment: keys, limits, pools, nodes, and tasks of other owners.

Invariant: each change writes an audit entry in its own commit and is answered after that commit.
While the journal cannot be written, only WITHOUT_JOURNAL is accepted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from simenv import config as configs
from simenv.errors import ConfigError, JournalError, NotAllowedError
from simenv.model import ReservationState, task_name
from simenv.scheduler.core import Action
from simenv.scheduler.views import cluster_info
from simenv.service.service import ServiceComponents
from simenv.service.tokens import TokenCommands
from simenv.wire.messages import accounting, admin, client as m, credentials
from simenv.wire.rights import Identity

WITHOUT_JOURNAL = (
    credentials.RevokeKey,
    credentials.RevokeToken,
    credentials.ExchangeToken,
)  # answered at once
SHOWN_TASKS = 5
DETAIL_CHARS = 2_000  # of an entry of the audit log


def described(value: msgspec.Struct) -> str:
    """Return the fields of a value that differ from their defaults as text: `share 2, users ana
    ben`."""
    parts = []
    for field in msgspec.structs.fields(value):
        found = getattr(value, field.name)
        if found == field.default:
            continue
        if isinstance(found, Mapping):
            found = " ".join(f"{name}={each}" for name, each in found.items())
        elif isinstance(found, tuple):
            found = " ".join(map(str, found))
        parts += [f"{field.name.replace('_', ' ')} {found}"] if found != "" else []
    return ", ".join(parts) or "as by default"


class Administration:
    """Audited changes of administrators. Used from the loop's thread."""

    def __init__(self, service: ServiceComponents, tokens: TokenCommands) -> None:
        self._service = service
        self._tokens = tokens
        service.accounting.owners.refresh(service.commands.keys.keys)
        live = service.state.reservations.live.values()
        names = {reservation.grant.owner for reservation in live} - service.commands.keys.names
        names -= tokens.users
        for name in names if not service.config.identity.has_users else ():
            if name:  # revoked while it was down
                self.end_reservations(name, f"the key {name!r} was revoked")

    def apply(self, identity: Identity, message: m.FromClient) -> m.ToClient:
        """Apply a change. Returns the answer, which must be sent after the commit. Raises
        SimenvError."""
        if self._service.lifecycle.store_error and not isinstance(message, WITHOUT_JOURNAL):
            raise JournalError(
                self._service.lifecycle.store_error,
                hint="nothing was changed; repeat it when the disk is repaired",
            )
        return CHANGES[type(message)](self, identity, message)

    def _add_key(self, identity: Identity, message: credentials.AddKey) -> credentials.Keys:
        service = self._service
        answer = service.commands.keys.answer(message)
        service.accounting.owners.refresh(service.commands.keys.keys)
        detail = f"role {message.role}, key {message.public_key[:10]}..."
        if message.expires_s:
            end = time.strftime("%Y-%m-%d %H:%M", time.localtime(message.expires_s))
            detail += f", until {end}"
        service.commands.audit.write(identity, "keys.add", message.name, detail)
        return self._with_gateway(answer)

    def _with_gateway(self, answer: credentials.Keys) -> credentials.Keys:
        home = self._service.commands.keys.path.parent
        url = configs.known_gateway(self._service.config.gateway, home)
        return msgspec.structs.replace(answer, gateway=url)

    def _set_limits(
        self, identity: Identity, message: accounting.SetLimits
    ) -> accounting.OwnerReports:
        owners = self._service.accounting.owners
        detail = owners.change(message)
        self._service.commands.audit.write(identity, "limits.set", message.owner, detail)
        return accounting.OwnerReports(message.request, owners.reports(identity))

    def _scale(self, identity: Identity, message: admin.Scale) -> admin.Pools:
        detail = f"{message.least} to {message.most} workers"
        return self._change_pools(identity, message, "scale", message.pool, detail)

    def _drain(self, identity: Identity, message: admin.DrainNode) -> admin.Pools:
        return self._change_pools(identity, message, "drain", message.node, message.reason)

    def _resume(self, identity: Identity, message: admin.ResumeNode) -> admin.Pools:
        return self._change_pools(identity, message, "resume", message.name, "used again")

    def _set_account(
        self, identity: Identity, message: accounting.SetAccount
    ) -> accounting.Accounts:
        service, account = self._service, message.account
        service.accounting.accounts.set_account(message.name, account)
        self._audit_entry(identity, "accounts", message.name, account)
        return service.accounting.accounts.view(message.request, identity.scope)

    def _set_qos(self, identity: Identity, message: accounting.SetQos) -> accounting.Accounts:
        service = self._service
        service.accounting.accounts.set_qos(message.name, message.qos)
        self._audit_entry(identity, "qos", message.name, message.qos)
        return service.accounting.accounts.view(message.request, identity.scope)

    def _audit_entry(
        self, identity: Identity, kind: str, name: str, value: msgspec.Struct | None
    ) -> None:
        """Audit that an account or a class was set or, if `value` is None, removed."""
        verb = "remove" if value is None else "set"
        detail = "removed" if value is None else described(value)[:DETAIL_CHARS]
        self._service.commands.audit.write(identity, f"{kind}.{verb}", name, detail)

    def _change_pools(
        self,
        identity: Identity,
        message: admin.Scale | admin.DrainNode | admin.ResumeNode,
        kind: str,
        subject: str,
        detail: str,
    ) -> admin.Pools:
        service = self._service
        service.executor.execute(service.commands.pools.apply(message))
        service.commands.audit.write(identity, kind, subject, detail)
        pools = service.starts.pool_infos(time.monotonic_ns())
        return admin.Pools(message.request, pools, cluster_info.node_infos(service.state))

    def _revoke(self, identity: Identity, message: credentials.RevokeKey) -> credentials.Keys:
        """Revoke the key in memory, end its reservations, then write the file."""
        failed = self._service.commands.keys.revoke(message.name)
        self._service.accounting.owners.refresh(self._service.commands.keys.keys)
        self.end_reservations(message.name, f"the key {message.name!r} was revoked")
        with suppress(ConfigError):  # of the file of tokens; they have no effect in this service
            self._tokens.key_revoked(message.name)
        text = "revoked" if failed is None else f"revoked, but {failed.message}"
        self._service.commands.audit.write(identity, "keys.revoke", message.name, text)
        if failed is not None:
            raise failed
        return credentials.Keys(message.request, self._service.commands.keys.keys)

    def _rotate(self, identity: Identity, message: credentials.RotateKey) -> credentials.Keys:
        """Add a new key of a name: for a client, of its own."""
        name = message.name or identity.owner
        roles = {key.role for key in self._service.commands.keys.keys if key.name == name}
        if identity.scope and (name != identity.owner or roles != {identity.role}):
            hint = "connect with that key; an admin can rotate all keys"
            raise NotAllowedError(f"the key {name!r} is not that of this connection", hint=hint)
        keys = self._service.commands.keys.rotate(name, message.public_key, message.overlap_s)
        self._service.accounting.owners.refresh(self._service.commands.keys.keys)
        detail = f"key {message.public_key[:10]}..., the former for {message.overlap_s:.0f} s"
        self._service.commands.audit.write(identity, "keys.rotate", name, detail)
        return self._with_gateway(credentials.Keys(message.request, keys))

    def end_reservations(self, owner: str, reason: str) -> None:
        """End all reservations of an owner, planned ones too. Tasks that were sent to a worker
        continue; the others are cancelled."""
        self._service.state.calendar.remove_owned(owner)
        state, now_ns = self._service.state, time.monotonic_ns()
        actions: list[Action] = []
        for reservation in [o for o in state.reservations.live.values() if o.grant.owner == owner]:
            final_state = ReservationState.RELEASED
            actions += self._service.scheduler.close_reservation(
                reservation, final_state, reason, time.time_ns(), now_ns
            )
        self._service.executor.execute(actions)

    def cancels(self, identity: Identity, tasks: list[int]) -> None:
        """Audit the tasks of other owners in a Cancel; called before they are cancelled."""
        if identity.scope:
            return
        result = (self._service.state.tasks.get(number) for number in tasks)
        tasks_by_owner: dict[str, list[int]] = {}
        for record in result:
            if record is not None and record.batch.owner != identity.owner:
                tasks_by_owner.setdefault(record.batch.owner, []).append(record.number)
        for owner, task_numbers in tasks_by_owner.items():
            names = ", ".join(map(task_name, task_numbers[:SHOWN_TASKS]))
            count = len(task_numbers) - SHOWN_TASKS
            more = f" and {count} more" if count > 0 else ""
            detail = f"tasks {names}{more}"
            self._service.commands.audit.write(identity, "cancel", owner or "own user", detail)


# The handler of each change, by the kind of its message.
CHANGES: dict[type, Callable[[Administration, Identity, Any], m.ToClient]] = {
    credentials.AddKey: Administration._add_key,
    credentials.RevokeKey: Administration._revoke,
    credentials.RotateKey: Administration._rotate,
    accounting.SetLimits: Administration._set_limits,
    admin.AddCalendarEntry: lambda self, sender, message: self._service.commands.calendar.add(
        sender, message
    ),
    admin.RemoveCalendarEntry: lambda self, sender, message: self._service.commands.calendar.remove(
        sender, message
    ),
    admin.Scale: Administration._scale,
    admin.DrainNode: Administration._drain,
    admin.ResumeNode: Administration._resume,
    accounting.SetAccount: Administration._set_account,
    accounting.SetQos: Administration._set_qos,
    credentials.CreateToken: lambda self, sender, message: self._tokens.create(sender, message),
    credentials.RevokeToken: lambda self, sender, message: self._tokens.revoke(sender, message),
    credentials.ExchangeToken: lambda self, sender, message: self._tokens.exchange(sender, message),
}
