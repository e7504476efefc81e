"""Commands about reservations, device profiles, admission policies and device controls.

Invariant: a change is answered after it is stored; a refused request changes nothing.
Administrators see all reservations, other owners their own; a change by an administrator does not
change the owner.
"""

from __future__ import annotations

import logging
import os
import pwd
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import msgspec

from simenv import config as configs
from simenv.errors import (
    InsufficientError,
    JournalError,
    NotAllowedError,
    OptionError,
    QueueFullError,
    ShuttingDownError,
    SimenvError,
)  # fmt: skip
from simenv.model import AdmissionReason, Decision, ReservationRequest, ReservationState
from simenv.model.program import check_printable
from simenv.model.reservations import BATCH_ACCOUNT, JOB_SCOPE
from simenv.scheduler.core import RecordEvent
from simenv.scheduler.forecast.expected_starts import ExpectedStarts
from simenv.scheduler.reservations.policies import DELAYED, MOST, REJECTED
from simenv.scheduler.scheduler import Scheduler
from simenv.scheduler.state.device_controls import STEERED
from simenv.scheduler.views import cluster_info
from simenv.service import fault_injection
from simenv.service.accounting.accounts import AccountRegistry
from simenv.service.journal import tables, writer
from simenv.service.queries.query_queue import ReplySteps
from simenv.service.workers.action_executor import OWN_USER, ActionExecutor, AuditLog
from simenv.wire import codec
from simenv.wire.messages import admin, base, client as m
from simenv.wire.rights import Identity

log = logging.getLogger("simenv.service")

LOOKUP_NS = 50_000_000  # until an account that is being looked up should be known
MOST_DEFERRED = 64  # changes of one owner that wait
RESERVATIONS_PER_STEP = 64  # of an answer, between two checks of the clock


class ReservationCommands:
    """Changes and queries of reservations and devices. Used from the loop's thread."""

    def __init__(
        self,
        scheduler: Scheduler,
        starts: ExpectedStarts,
        accounts: AccountRegistry,
        journal: writer.Journal,
        executor: ActionExecutor,
        audit: AuditLog,
        reading: Callable[[str], Future[Any] | None] = lambda _pool: None,
    ) -> None:
        """`reading`: returns the Future of a pool's calibration while it is being read."""
        self._audit = audit
        self._reading = reading
        # Changes that wait for the calibration of their device, which gives the prices, or for
        # expected starts, with the Future of these and the time of the message.
        self.deferred: list[
            tuple[bytes, Identity, admin.Reserve | admin.SetPolicy, Future[Any], int]
        ] = []
        # Why another user may not enter, by name and monotonic time; None: not known yet.
        self.owner_refusal: Callable[[str, float], str | None] = lambda _owner, _now_s: ""
        self._scheduler = scheduler
        self._starts = starts
        self._accounts = accounts
        self._state = scheduler.state
        self._ledger = scheduler.state.reservations
        self._journal = journal
        self._executor = executor
        try:
            self._own_name = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:  # a container
            self._own_name = ""

    def apply(
        self,
        peer: bytes,
        identity: Identity,
        message: base.ClientRequest[Any],
        store_error: str,
        asked_ns: int = 0,
    ) -> None:
        """Apply the change. Its answer is sent after the commit that stores it. `store_error`: the
        reason why nothing can be stored now, or "". `asked_ns`: when the message came; 0: now.
        Raises SimenvError."""
        if store_error:
            raise JournalError(
                store_error, hint="nothing was changed; repeat it when the disk is repaired"
            )
        if isinstance(message, admin.Reserve | admin.SetPolicy):
            asked_ns = asked_ns or time.monotonic_ns()
            awaited = self._reading(_device(message))
            awaited = awaited or self._simulation(identity, message, asked_ns)
            if awaited is not None:
                if sum(each[1].owner == identity.owner for each in self.deferred) >= MOST_DEFERRED:
                    text = f"{MOST_DEFERRED} of your changes wait for expected starts"
                    raise QueueFullError(text, hint="ask again when they are answered")
                self.deferred.append((peer, identity, message, awaited, asked_ns))
                return
        answer = codec.encode(CHANGES[type(message)](self, identity, message))
        fault_injection.hit("reservation.changed")
        self._executor.outbox.append((peer, answer))

    def _simulation(
        self, identity: Identity, message: admin.Reserve | admin.SetPolicy, asked_ns: int
    ) -> Future[Any] | None:
        """Return the Future of the expected starts that a decision waits for; None: it has them."""
        if isinstance(message, admin.SetPolicy) or message.ask.workers:
            return None
        now_ns = time.monotonic_ns()
        simulation = self._starts.refresh(now_ns, identity.owner, asked_ns=asked_ns)
        return None if self._starts.is_usable(now_ns) else simulation

    def _apply_deferred(self) -> None:
        deferred, self.deferred = self.deferred, []
        for peer, identity, message, _, asked_ns in deferred:
            try:
                self.apply(peer, identity, message, "", asked_ns)
            except SimenvError as error:
                refused = m.Refused(message.request, [codec.refusal(error)])
                self._executor.outbox.append((peer, codec.encode(refused)))

    def _reserve(self, identity: Identity, message: admin.Reserve) -> admin.DecisionReply:
        if self._state.draining and not message.dry:
            text = "the service is shutting down and reserves nothing"
            raise ShuttingDownError(text, hint="ask again when it is up: simenv up")
        owner = self._owner_of(identity, message)
        if owner not in ("", identity.owner):
            refusal = self.owner_refusal(owner, time.monotonic())
            if refusal != "":
                return admin.DecisionReply(message.request, _of_owner(owner, refusal))
        try:
            ask, veto = self._accounts.reservation_terms(owner, message.ask)
        except InsufficientError as error:  # clients repeat what is delayed
            code, wait_ns = AdmissionReason.NOT_AUTHORISED, round(error.retry_after_s * 1e9)
            delayed = Decision(DELAYED, code, error.message, retry_after_ns=wait_ns)
            return admin.DecisionReply(message.request, delayed)
        decision, actions = self._scheduler.reserve(
            *(ask, owner, time.time_ns()),
            dry=message.dry,
            veto=veto,
            now_ns=time.monotonic_ns(),
        )
        self._executor.execute(actions)
        kinds = [each.kind for each in actions if isinstance(each, RecordEvent)]
        named = dict(ask.metadata).get(BATCH_ACCOUNT, "")
        if (
            "reservation.made" in kinds
            and named
            and ask.account not in ("", named, message.ask.account)
        ):
            text = "reservation %d of job %s is charged to %r: %r has no account %r here"
            job = decision.reservation, ask.job[:80] or "-", ask.account
            log.info(text, *job, owner or OWN_USER, named[:80])
        decision = self._after_queue(ask, owner, decision)
        return admin.DecisionReply(message.request, decision)

    def _owner_of(self, identity: Identity, message: admin.Reserve) -> str:
        """Return the owner of a requested reservation. Raises NotAllowedError, OptionError."""
        if not message.dry:
            check_scope(identity, message.ask)
        if message.owner in ("", identity.owner):
            return identity.owner
        if identity.scope:
            text = f"a reservation for {message.owner!r} is not for {identity.owner!r} to make"
            raise NotAllowedError(text, hint="leave the owner out")
        configs.check_name(message.owner, "owner")
        return "" if message.owner == self._own_name else message.owner

    def _renew(self, identity: Identity, message: admin.Renew) -> admin.Reservations:
        found = self._ledger.find(message.reservation, identity.scope)
        ttl_ns = message.ttl_ns or self._ledger.default_ttl_ns(found)
        # What administrators renew for a batch system ends with its job: no refusal ends that.
        is_job = not identity.scope and found.grant.ask.scope.startswith(JOB_SCOPE)
        if not (is_job or found.is_over):
            self._accounts.check_renewal(found, ttl_ns)
        reservation = self._scheduler.renew_reservation(
            *(message.reservation, identity.scope, identity.owner),
            *(ttl_ns, time.time_ns()),
        )
        info = cluster_info.reservation_info(self._state, reservation)
        return admin.Reservations(message.request, [info])

    def _set_profile(self, identity: Identity, message: admin.SetProfile) -> admin.ProfileReply:
        changed = self._scheduler.set_profile(message.device, message.profile)
        self._note(identity, changed, message.device, "profile")
        terms = self._ledger.terms(message.device)
        return admin.ProfileReply(message.request, terms.profile_version, changed, terms.profile)

    def _set_policy(self, identity: Identity, message: admin.SetPolicy) -> admin.PolicyReply:
        changed = self._scheduler.set_admission_policy(
            message.device, message.policy, message.expected
        )
        self._note(identity, changed, message.device, f"admission policy {message.policy.name}")
        terms = self._ledger.terms(message.device)
        return admin.PolicyReply(message.request, terms.policy_version, changed, terms.policy)

    def _after_queue(self, request: ReservationRequest, owner: str, decision: Decision) -> Decision:
        """Return the decision with the time at which work would start behind the queue of its
        device; workers of one's own have no queue."""
        wait_ns = 0 if request.workers else self._wait_ns(request.device, owner)
        if wait_ns <= decision.retry_after_ns or decision.status == "rejected":
            return decision
        later_ns = wait_ns - decision.retry_after_ns
        return msgspec.structs.replace(
            decision,
            estimated_start_ns=decision.estimated_start_ns + later_ns,
            estimated_finish_ns=min(decision.estimated_finish_ns + later_ns, 2 * MOST),
        )

    def _wait_ns(self, device: str, owner: str) -> int:
        now_ns = time.monotonic_ns()
        return self._starts.device_ns(device, now_ns, owner)

    def _steer(self, identity: Identity, message: admin.SteerTarget) -> admin.TargetReply:
        if message.verb == "calibrate":
            return self._calibrate(identity, message)
        check_printable("reason", message.reason)
        changed = self._scheduler.set_device_state(
            *(message.device, message.verb, message.reason, message.mode, message.timeout_s),
            time.time_ns(),
        )
        kind = STEERED[message.verb]
        return self._controlled(identity, message, changed, kind, message.reason)

    def _set_dispatch(self, identity: Identity, message: admin.SetDispatch) -> admin.TargetReply:
        changed = self._scheduler.set_max_inflight(message.device, message.max_inflight)
        detail = f"{message.max_inflight or 'any number of'} tasks at once"
        return self._controlled(identity, message, changed, "device.bounded", detail)

    def _set_order(self, identity: Identity, message: admin.SetOrder) -> admin.TargetReply:
        changed = self._scheduler.set_queue_policy(message.device, message.policy, message.options)
        return self._controlled(identity, message, changed, "device.ordered", message.policy)

    def _controlled(
        self,
        identity: Identity,
        message: admin.SteerTarget | admin.SetDispatch | admin.SetOrder,
        changed: bool,
        kind: str,
        detail: str,
    ) -> admin.TargetReply:
        if changed:
            self._executor.record_event(kind, message.device or "all", detail)
            self._audit.write(identity, kind, message.device or "all", detail)
        return self._target(identity, message, changed)

    def _calibrate(self, identity: Identity, message: admin.SteerTarget) -> admin.TargetReply:
        """Publish the present noise as the calibration of a device that drifts."""
        self._state.cluster.check_device(message.device)
        if self._executor.drifting is None:
            raise OptionError(f"pool {message.device[:64]!r} does not drift")
        result, event = self._executor.drifting.calibrate(message.device, time.time_ns())
        self._executor.execute([event])
        self._audit.write(identity, "device.calibrated", message.device, result.digest)
        return self._target(identity, message, True)

    def _target(
        self,
        identity: Identity,
        message: admin.SteerTarget | admin.SetDispatch | admin.SetOrder | admin.GetTarget,
        changed: bool,
    ) -> admin.TargetReply:
        info = cluster_info.target_info(self._state, message.device)
        wait_ns = self._wait_ns(message.device, identity.owner)
        off_by = self._starts.off_by(message.device)
        age_ns = round(1e3 * self._starts.age_us(wait_ns, time.monotonic_ns()))
        info = msgspec.structs.replace(
            info, wait_ns=wait_ns, wait_off_by=off_by, wait_age_ns=age_ns
        )
        return admin.TargetReply(message.request, changed, info)

    def _release(self, identity: Identity, message: admin.Release) -> m.ToClient:
        check_printable("reason", message.reason)
        reservation = self._ledger.find(message.reservation, identity.scope)
        if reservation.grant.owner != identity.owner and not reservation.is_over:
            owner = reservation.grant.owner or OWN_USER
            self._audit.write(
                identity, "reservation.release", str(reservation.grant.id), f"of {owner}"
            )
        final_state = ReservationState.CANCELLED if message.cancel else ReservationState.RELEASED
        now_ns = time.monotonic_ns()
        actions = self._scheduler.close_reservation(
            reservation, final_state, message.reason, time.time_ns(), now_ns
        )
        self._executor.execute(actions)
        running = cluster_info.running_tasks(self._state, reservation)
        info = cluster_info.reservation_info(self._state, reservation)
        return admin.Released(message.request, info, running)

    def _note(self, identity: Identity, changed: bool, device: str, detail: str) -> None:
        if changed:
            self._audit.write(identity, "device.changed", device or "all", detail)
            self._executor.record_event("device.changed", device or "all", detail)

    def answer(
        self, identity: Identity, message: admin.GetProfile | admin.GetPolicy | admin.GetTarget
    ) -> m.ToClient:
        """Return the answer to a query about one device. Raises NotFoundError."""
        if isinstance(message, admin.GetTarget):
            return self._target(identity, message, False)
        self._state.cluster.check_device(message.device)
        terms = self._ledger.terms(message.device)
        if isinstance(message, admin.GetProfile):
            return admin.ProfileReply(message.request, terms.profile_version, False, terms.profile)
        return admin.PolicyReply(message.request, terms.policy_version, False, terms.policy)

    def listed(self, identity: Identity, message: admin.GetReservations) -> ReplySteps:
        """Return the steps of the answer with reservations. Raises NotReservedError."""
        if message.reservation:
            selected = [self._ledger.find(message.reservation, identity.scope)]
        else:
            selected = list(self._ledger.visible_to(identity.scope))
        infos, counted = [], cluster_info.running_counts(self._state)
        for index, reservation in enumerate(selected):
            if not index % RESERVATIONS_PER_STEP:
                yield None
            infos.append(cluster_info.reservation_info(self._state, reservation, counted))
        yield codec.encode(admin.Reservations(message.request, infos))

    @property
    def busy(self) -> bool:
        """True if tasks of ended reservations must be ended, parked tasks may have units now, or a
        change can be applied that has waited."""
        is_ready = self.deferred and self.deferred[0][3].done()
        return bool(self._ledger.emptying or self._ledger.freed or is_ready)

    def store(self) -> None:
        """Put changes of reservations, device controls and paced runs into the next commit. Called
        if there are any, or deferred changes."""
        self._apply_deferred()
        changes = self._ledger.take_changes()
        statements = tables.reservation_statements(self._ledger, changes)
        self._journal.put(statements, forced=changes.urgent)
        if self._state.devices.controls.changes:
            changed = self._state.devices.controls.take_changes()
            self._journal.put(tables.CONTROL.statements(changed), forced=True)
        forced = self._state.devices.paced.is_forced
        runs = tables.paced_statements(self._state.devices.paced.take_changes())
        self._journal.put(runs, forced=forced)


def check_scope(identity: Identity, request: ReservationRequest) -> None:
    """Raises NotAllowedError for the scope of a batch job, if the sender is no administrator."""
    if identity.scope and request.scope.startswith(JOB_SCOPE):
        raise NotAllowedError(
            f"reservations with the scope {request.scope[:80]!r} are those of batch jobs",
            hint="submit a job: sbatch --qpu=POOL:COUNT; or reserve without a scope",
        )


def _device(message: admin.Reserve | admin.SetPolicy) -> str:
    return message.ask.device if isinstance(message, admin.Reserve) else message.device


# The handler of each change, by the kind of its message.
def _of_owner(owner: str, refusal: str | None) -> Decision:
    """Return the decision for a user who may not enter, or, None, of whom that is not known yet."""
    code = AdmissionReason.NOT_AUTHORISED
    if refusal is None:
        text = f"the account of {owner!r} is being looked up"
        return Decision(DELAYED, code, text, retry_after_ns=LOOKUP_NS)
    return Decision(REJECTED, code, refusal)


CHANGES: dict[type, Callable[[ReservationCommands, Identity, Any], m.ToClient]] = {
    admin.Reserve: ReservationCommands._reserve,
    admin.Renew: ReservationCommands._renew,
    admin.Release: ReservationCommands._release,
    admin.SetProfile: ReservationCommands._set_profile,
    admin.SetPolicy: ReservationCommands._set_policy,
    admin.SteerTarget: ReservationCommands._steer,
    admin.SetDispatch: ReservationCommands._set_dispatch,
    admin.SetOrder: ReservationCommands._set_order,
}
