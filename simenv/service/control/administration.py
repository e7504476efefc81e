"""Authorised changes of the environment: keys, limits, pools, nodes, and tasks of other owners.

Invariant: each change writes an audit entry in its own commit and is answered after that commit.
While the journal cannot be written, only the revocation of a key is accepted.
"""

from __future__ import annotations

import time

from simenv.errors import JournalError
from simenv.model import ReservationState, task_name
from simenv.scheduler.core.actions import Action
from simenv.scheduler.views import infos
from simenv.service.service import Service
from simenv.wire.auth import Identity
from simenv.wire.messages import client as m
from simenv.wire.messages.admin import (
    AddKey,
    DrainNode,
    Keys,
    OwnerReports,
    Pools,
    ResumeNode,
    RevokeKey,
    Scale,
    SetLimits,
)

CHANGES = (AddKey, RevokeKey, SetLimits, Scale, DrainNode, ResumeNode)
Change = AddKey | RevokeKey | SetLimits | Scale | DrainNode | ResumeNode
SHOWN_TASKS = 5


class Administration:
    """Audited changes of administrators. Used from the loop's thread."""

    def __init__(self, service: Service) -> None:
        self._service = service
        service.owners.refresh(service.key_commands.keys)
        live = service.state.reservations.live.values()
        for name in {reservation.grant.owner for reservation in live}:
            if name and name not in service.key_commands.names:  # revoked while it was down
                self._end_reservations(name)

    def apply(self, identity: Identity, message: Change) -> m.ToClient:
        """Apply a change. Returns the answer, which must be sent after the commit. Raises
        SimenvError."""
        if isinstance(message, RevokeKey):
            return self._revoke(identity, message)
        if self._service.store_error:
            raise JournalError(
                self._service.store_error,
                hint="nothing was changed; repeat it when the disk is repaired",
            )
        write = self._service.audit.write
        match message:
            case AddKey():
                answer = self._service.key_commands.answer(message)
                self._service.owners.refresh(self._service.key_commands.keys)
                write(
                    identity,
                    "keys.add",
                    message.name,
                    f"role {message.role}, key {message.public_key[:10]}...",
                )
                return answer
            case SetLimits():
                write(identity, "limits.set", message.owner, self._service.owners.change(message))
                return OwnerReports(message.request, self._service.owners.reports(identity))
            case Scale():
                self._service.executor.execute(self._service.pool_commands.apply(message))
                write(identity, "scale", message.pool, f"{message.least} to {message.most} workers")
            case DrainNode():
                self._service.executor.execute(self._service.pool_commands.apply(message))
                write(identity, "drain", message.node, message.reason)
            case ResumeNode():
                self._service.executor.execute(self._service.pool_commands.apply(message))
                write(identity, "resume", message.name, "used again")
        state = self._service.state
        return Pools(
            message.request, infos.pool_infos(state, time.monotonic_ns()), infos.node_infos(state)
        )

    def _revoke(self, identity: Identity, message: RevokeKey) -> Keys:
        """Revoke the key in memory, end its reservations, then write the file."""
        failed = self._service.key_commands.revoke(message.name)
        self._service.owners.refresh(self._service.key_commands.keys)
        self._end_reservations(message.name)
        text = "revoked" if failed is None else f"revoked, but {failed.message}"
        self._service.audit.write(identity, "keys.revoke", message.name, text)
        if failed is not None:
            raise failed
        return Keys(message.request, self._service.key_commands.keys)

    def _end_reservations(self, owner: str) -> None:
        """End all reservations of an owner. Their tasks that were sent to a worker continue; the
        others are cancelled."""
        state, now_ns = self._service.state, time.monotonic_ns()
        actions: list[Action] = []
        for reservation in [o for o in state.reservations.live.values() if o.grant.owner == owner]:
            reason = f"the key {owner!r} was revoked"
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
            more = (
                f" and {len(task_numbers) - SHOWN_TASKS} more"
                if len(task_numbers) > SHOWN_TASKS
                else ""
            )
            self._service.audit.write(
                identity, "cancel", owner or "own user", f"tasks {names}{more}"
            )
