"""Binding `execution` of revision 2. What is asked before its time is answered, never raised.

A circuit runs under the reservation that its call names; whether one must be named is this QPM's
setting, and whether it may be used is for the service to decide. A call that would cost something
under one that may not, raises; a question is answered INVALID_RESERVATION.
"""

from __future__ import annotations

from time import time
from typing import Any

import msgspec

from simenv.client.qpm.answers import envelopes
from simenv.client.qpm.answers.status import MAX_QTASK, Found, StatusQueries, already, ended
from simenv.client.qpm.requests import arguments
from simenv.client.qpm.runtime.calls import TokenGuard
from simenv.client.qpm.runtime.circuit_run import CircuitRun
from simenv.client.qpm.runtime.completion_queues import RetiredCircuit
from simenv.client.qpm.runtime.device_events import DEVICE_EVENTS, DeviceEventNotifier
from simenv.client.qpm.runtime.notifications import CompletionNotifier
from simenv.client.qpm.runtime.reservations import NONE, ReservationChecks
from simenv.client.qpm.runtime.submitter import CircuitSubmitter, failure
from simenv.qpm.bindings import EventEndpoint
from simenv.qpm.envelopes import Registered, StatusEnvelope, TaskTiming, plain
from simenv.qpm.states import Lifecycle, Reason

Plain = dict[str, Any]


class ExecutionBinding:
    """Thread-safe."""

    def __init__(
        self,
        token_guard: TokenGuard,
        reservation_checks: ReservationChecks,
        submitter: CircuitSubmitter,
        status_queries: StatusQueries,
        notifier: CompletionNotifier,
        device_events: DeviceEventNotifier,
    ) -> None:
        self._device_events = device_events
        self._token_guard = token_guard
        self._reservation_checks = reservation_checks
        self._submitter = submitter
        self._registry = submitter.registry
        self._status_queries = status_queries
        self._notifier = notifier

    def sync_run(
        self,
        info: Plain,
        reservation_id: int | None = None,
        token: str | None = None,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
    ) -> Plain:
        """Run and wait, also for capacity: COMPLETED, with the completion under `result`.

        `timeout` (seconds) passes: TIMEOUT, the circuit stays and its completion is queued; with
        `cancel_on_timeout` CANCELLED. Raises ExecutionError (it failed, is no request, or not under
        that reservation), OutOfResourcesError, NotReadyError.
        """
        self._token_guard.check(token)
        patience_s = arguments.seconds("timeout", timeout)
        cancels = arguments.truth("cancel_on_timeout", cancel_on_timeout)
        under = self._reservation_checks.claim(reservation_id)
        run = self._submitter.start(info, queued=False, under=under)
        try:
            in_time = self._submitter.wait(run, patience_s)
        except BaseException:
            self._registry.queue_from_now_on(run)  # interrupted: what comes of it is not lost
            raise
        if not in_time:
            return plain(self._status_queries.late(run, cancels, patience_s or 0.0))
        result = envelopes.find(run)
        self._registry.close(run, Reason.RETURNED)
        if result.error is not None:
            raise failure(result.error)
        record = envelopes.revision2(run, result)
        envelope = plain(ended(run))
        envelope["result"] = record
        return envelope

    def async_run(
        self,
        info: Plain,
        reservation_id: int | None = None,
        token: str | None = None,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
    ) -> Plain:
        """Accept and return: ACCEPTED, DELAYED where it waits for credits of its reservation, or
        FAILED where the circuit is refused; all have a completion. Raises as `sync_run`.

        Nothing is waited for: `timeout` and `cancel_on_timeout` are checked and change nothing.
        """
        self._token_guard.check(token)
        arguments.seconds("timeout", timeout)
        arguments.truth("cancel_on_timeout", cancel_on_timeout)
        under = self._reservation_checks.claim(reservation_id)
        run = self._submitter.start(info, queued=True, under=under)
        if run.refusal is not None:
            return plain(ended(run))
        return plain(self._status_queries.taken(run, metered=under.metered))

    def read_cq(
        self,
        cid: str | None = None,
        reservation_id: int | None = None,
        token: str | None = None,
    ) -> Plain:
        """The completion of that name, else the oldest of the reservation, or of what runs under
        none; it is nobody else's from then on."""
        result = self._ready("read_cq", cid, reservation_id, token)
        if not isinstance(result, CircuitRun):
            return plain(result)
        taken = self._registry.take(result.cid)
        if taken is None:  # somebody else was quicker
            return plain(self._status_queries.not_ready("read_cq", cid, reservation_id))
        now_s = time()
        record = envelopes.revision2(taken, poll="read_cq", dequeued_s=now_s)
        self._registry.close(taken, Reason.READ, now_s)
        return record

    def peek_cq(
        self,
        cid: str | None = None,
        reservation_id: int | None = None,
        token: str | None = None,
    ) -> Plain:
        """As `read_cq`; it stays."""
        result = self._ready("peek_cq", cid, reservation_id, token)
        if not isinstance(result, CircuitRun):
            return plain(result)
        return envelopes.revision2(result, poll="peek_cq")

    def task_status(
        self,
        cid: str | None = None,
        reservation_id: int | None = None,
        token: str | None = None,
        qtask_id: int | None = None,
    ) -> Plain:
        """How it stands, with `result` or `error` once it has ended."""
        self._token_guard.check(token)
        result = self._status_queries.asked(cid, qtask_id, reservation_id)
        if isinstance(result, StatusEnvelope):
            return plain(result)
        return plain(self._status_queries.status(result, cid, qtask_id))

    def cancel_task(
        self,
        cid: str | None = None,
        reservation_id: int | None = None,
        token: str | None = None,
        reason: str | None = None,
        qtask_id: int | None = None,
    ) -> Plain:
        """CANCELLED; CANCEL_PENDING while it is asked to stop; how it had ended; UNKNOWN."""
        self._token_guard.check(token)
        arguments.optional_text("reason", reason)
        values = self._reservation_checks.check(reservation_id)
        result = self._status_queries.find(cid, qtask_id)
        foreign = self._foreign(result, values)
        if foreign is not None:
            return plain(foreign)
        if result is None:
            return plain(envelopes.unknown(cid, qtask_id))
        if isinstance(result, CircuitRun) and not result.over:
            return plain(self._status_queries.cancel(result))
        return plain(already(result))

    def get_task_timing(
        self,
        token: str | None = None,
        reservation_id: int | None = None,
        task_id: int | None = None,
    ) -> Plain:
        """The seven times of a task, also after its completion was read."""
        self._token_guard.check(token)
        number = arguments.integer("task_id", task_id, 1, MAX_QTASK)
        result = self._status_queries.asked(None, number, reservation_id)
        if isinstance(result, StatusEnvelope):
            return plain(result)
        if result is None:
            return plain(TaskTiming(number, None, Lifecycle.UNKNOWN, {}))
        times = result.times if isinstance(result, RetiredCircuit) else result.times()
        lifecycle = self._status_queries.status(result, None, number).lifecycle_state
        settings = msgspec.structs.asdict(times)
        return plain(TaskTiming(number, result.reservation_id, lifecycle, settings))

    def get_task_metadata(
        self,
        token: str | None = None,
        reservation_id: int | None = None,
        task_id: int | None = None,
    ) -> Plain:
        """Where and how it ran: all that is needed to get its counts again."""
        self._token_guard.check(token)
        number = arguments.integer("task_id", task_id, 1, MAX_QTASK)
        result = self._status_queries.asked(None, number, reservation_id)
        if isinstance(result, StatusEnvelope):
            return plain(result)
        metadata = _known(result)
        envelope = self._status_queries.status(result, None, number)
        return plain(
            msgspec.structs.replace(
                envelope, result=None, task_id=number, provider_metadata=metadata
            )
        )

    def register_event_notification(
        self,
        ep: EventEndpoint,
        evtype: int | str,
        class_id: str,
        token: str | None = None,
        reservation_id: int | None = None,
        filters: Plain | None = None,
    ) -> Plain:
        """From now on `ep.put(Event)` is called for each completion that fits, which is queued too.

        `evtype`: 1 or "completion"; or one of DEVICE_EVENTS: then for each such event of the
        device. `filters`: values, or lists of values, of cid, qtask_id,
        reservation_id. A `put` that raises ends this registration.
        """
        self._token_guard.check(token)
        values = self._reservation_checks.check(reservation_id)
        registration = envelopes.registered(ep, evtype, class_id, filters, values)
        if evtype in DEVICE_EVENTS:
            count = self._device_events.register(registration)
        else:
            count = self._notifier.register(registration)
        return plain(Registered("accepted", registration.class_id, count))

    def delete_circuit(
        self, cid: str, reservation_id: int | None = None, token: str | None = None
    ) -> Plain | None:
        """Stop it and forget it, also where it is not known."""
        self._token_guard.check(token)
        values = self._reservation_checks.check(reservation_id)
        foreign = self._foreign(self._registry.find(arguments.text("cid", cid)), values)
        if foreign is not None:
            return plain(foreign)
        self._submitter.delete(cid)
        return None

    # ------------------------------------------------------------------------------------------

    def _ready(
        self, operation: str, cid: Any, reservation_id: Any, token: Any
    ) -> CircuitRun | StatusEnvelope:
        self._token_guard.check(token)
        values = arguments.reservation(reservation_id)
        if cid is not None:
            arguments.text("cid", cid)
        self._status_queries.look()
        result = None if cid is None else self._registry.find(cid)
        invalid = self._status_queries.objection(result, values)
        if invalid is not None:
            return msgspec.structs.replace(
                invalid, completion_ready=False, poll_operation=operation
            )
        ready = self._registry.first(cid, values or 0)
        if ready is None:
            answer = self._status_queries.not_ready(operation, cid, values)
            ready = self._registry.first(cid, values or 0)  # it may have been heard of as we asked
        return ready or answer

    def _foreign(self, circuit: Found, reservation_id: int) -> StatusEnvelope | None:
        """A call about a circuit of another reservation, or in the name of none where one must be
        named: else anybody could end anybody's."""
        if reservation_id == NONE:
            return self._status_queries.objection(circuit, None)
        return None if circuit is None else self._status_queries.objection(circuit, reservation_id)


def _known(circuit: Found) -> Plain:
    """Where and how it ran, or why that is not known."""
    facts = None
    if isinstance(circuit, RetiredCircuit):
        facts = circuit.facts
    elif circuit is not None and circuit.over:
        facts = circuit.facts()
    if facts is not None:
        return facts.as_dict()
    reason = Reason.NOT_READY
    if circuit is None:
        reason = Reason.NOT_FOUND
    elif isinstance(circuit, RetiredCircuit) or circuit.over:
        reason = Reason.EXECUTION_FAILED
    return {"available": False, "reason": str(reason)}
