"""Binding `execution` of revision 2. A query that comes too early gets an answer, not an error.

A circuit runs under the reservation that its call names. The QPM's settings decide whether a call
must name one; the service decides whether the reservation may be used. A call that consumes
capacity under an invalid reservation raises; a query returns INVALID_RESERVATION.
"""

from __future__ import annotations

from time import time
from typing import Any

import msgspec

from simenv.client.qpm import circuit_run, requests, status
from simenv.client.qpm.completion_queues import RetiredCircuit
from simenv.client.qpm.notifications import DEVICE_EVENTS, EventSubscription
from simenv.client.qpm.submitter import NONE, failure
from simenv.qpm import contract
from simenv.qpm.envelopes import Lifecycle, Reason, Registered, StatusEnvelope, TaskTiming, plain

Plain = dict[str, Any]


class ExecutionBinding(status.QpmBinding):
    """Methods of the binding. Thread-safe."""

    def sync_run(
        self,
        info: Plain,
        reservation_id: int | None = None,
        token: str | None = None,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
    ) -> Plain:
        """Run a circuit and wait for its end, also for capacity: COMPLETED, with the completion in
        `result`.

        After `timeout` seconds: TIMEOUT, and the completion will be queued; with
        `cancel_on_timeout`: CANCELLED. Raises ExecutionError (invalid request or reservation, or
        the circuit failed), OutOfResourcesError, NotReadyError.
        """
        patience_s = requests.seconds("timeout", timeout)
        cancels = requests.truth("cancel_on_timeout", cancel_on_timeout)
        under = self._reservation_checks.claim(requests.reservation_of(info, reservation_id))
        run = self._submitter.start(info, queued=False, under=under)
        try:
            in_time = self._submitter.wait(run, patience_s)
        except BaseException:
            self._registry.queue_from_now_on(run)  # interrupted: what comes of it is not lost
            raise
        if not in_time:
            return plain(self._status_queries.timed_out(run, cancels, patience_s or 0.0))
        outcome = circuit_run.outcome_of(run)
        self._registry.close(run, Reason.RETURNED)
        if outcome.error is not None:
            raise failure(outcome.error)
        # Optional fields that repeat others: each costs the host's YAML some 0.1 ms.
        record = circuit_run.revision2_record(run, outcome)
        for name in ("outcome", "scheduler_task_id"):
            record.pop(name, None)
        envelope = plain(msgspec.structs.replace(status.ended_status(run), scheduler_state=None))
        return {**envelope, "result": record}

    def async_run(
        self,
        info: Plain,
        reservation_id: int | None = None,
        token: str | None = None,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
    ) -> Plain:
        """Submit a circuit and return: ACCEPTED, DELAYED if it waits for credits of its
        reservation, or FAILED if it is refused; each has a completion. Raises as `sync_run`. The
        call does not wait: `timeout` and `cancel_on_timeout` are checked and have no effect."""
        requests.seconds("timeout", timeout)
        requests.truth("cancel_on_timeout", cancel_on_timeout)
        under = self._reservation_checks.claim(requests.reservation_of(info, reservation_id))
        run = self._submitter.start(info, queued=True, under=under)
        if run.refusal is not None:
            return plain(status.ended_status(run))
        return plain(self._status_queries.acceptance(run, metered=under.metered))

    def read_cq(
        self, cid: str | None = None, reservation_id: int | None = None, token: str | None = None
    ) -> Plain:
        """Read and remove a completion: the one of `cid`, else the oldest of the reservation, or of
        the circuits without a reservation."""
        result = self._ready("read_cq", cid, reservation_id)
        if not isinstance(result, circuit_run.CircuitRun):
            return plain(result)
        taken = self._registry.take(result.cid)
        if taken is None:  # another reader took it first
            return plain(self._status_queries.not_ready("read_cq", cid, reservation_id))
        now_s = time()
        record = circuit_run.revision2_record(taken, poll="read_cq", dequeued_s=now_s)
        self._registry.close(taken, Reason.READ, now_s)
        return record

    def peek_cq(
        self, cid: str | None = None, reservation_id: int | None = None, token: str | None = None
    ) -> Plain:
        """Read a completion as `read_cq` does, without removing it."""
        result = self._ready("peek_cq", cid, reservation_id)
        if not isinstance(result, circuit_run.CircuitRun):
            return plain(result)
        return circuit_run.revision2_record(result, poll="peek_cq")

    def task_status(
        self,
        cid: str | None = None,
        reservation_id: int | None = None,
        token: str | None = None,
        qtask_id: int | None = None,
    ) -> Plain:
        """Status of a circuit, with `result` or `error` once it has ended."""
        result = self._status_queries.find_allowed(cid, qtask_id, reservation_id)
        if isinstance(result, StatusEnvelope):
            return plain(result)
        return plain(self._status_queries.status(result, cid, qtask_id))

    def cancel_task(
        self,
        cid: str | None = None,
        reservation_id: int | None = None,
        token: str | None = None,
        reason: str | int | None = None,
        qtask_id: int | None = None,
    ) -> Plain:
        """Cancel a circuit: CANCELLED; CANCEL_PENDING while it is being stopped; its final state if
        it had ended; UNKNOWN."""
        requests.reason_text(reason)
        values = self._reservation_checks.check(reservation_id)
        result = self._status_queries.find(cid, qtask_id)
        foreign = self._foreign(result, values)
        if foreign is not None:
            return plain(foreign)
        if result is None:
            return plain(status.unknown_status(cid, qtask_id))
        if isinstance(result, circuit_run.CircuitRun) and not result.over:
            return plain(self._status_queries.cancel(result))
        return plain(status.late_cancellation(result))

    def get_task_timing(
        self,
        token: str | None = None,
        reservation_id: int | None = None,
        task_id: int | None = None,
    ) -> Plain:
        """The seven times of a task, also after its completion was read."""
        number = requests.integer("task_id", task_id, 1, status.MAX_QTASK)
        result = self._status_queries.find_allowed(None, number, reservation_id)
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
        """Engine, seed, node and other facts of the run that are needed to reproduce its counts."""
        number = requests.integer("task_id", task_id, 1, status.MAX_QTASK)
        result = self._status_queries.find_allowed(None, number, reservation_id)
        if isinstance(result, StatusEnvelope):
            return plain(result)
        metadata = _run_facts(result)
        envelope = self._status_queries.status(result, None, number)
        return plain(
            msgspec.structs.replace(
                envelope, result=None, task_id=number, provider_metadata=metadata
            )
        )

    def register_event_notification(
        self,
        ep: contract.EventEndpoint,
        evtype: int | str,
        class_id: str,
        token: str | None = None,
        reservation_id: int | None = None,
        filters: Plain | None = None,
    ) -> Plain:
        """Register an endpoint: `ep.put(Event)` is called for each later completion that passes the
        filters; completions are queued as well.

        `evtype`: 1 or "completion", or one of DEVICE_EVENTS for such events of the device.
        `filters`: values, or lists of values, of cid, qtask_id, reservation_id. A `put` that raises
        ends the registration.
        """
        values = self._reservation_checks.check(reservation_id)
        registration = EventSubscription.of(ep, evtype, class_id, filters, values)
        if evtype in DEVICE_EVENTS:
            count = self._device_events.register(registration)
        else:
            count = self._notifier.register(registration)
        return plain(Registered("accepted", registration.class_id, count))

    def delete_circuit(
        self, cid: str, reservation_id: int | None = None, token: str | None = None
    ) -> Plain | None:
        """Cancel and forget a circuit; an unknown cid is no error."""
        values = self._reservation_checks.check(reservation_id)
        foreign = self._foreign(self._registry.find(requests.text("cid", cid)), values)
        if foreign is not None:
            return plain(foreign)
        self._submitter.delete(cid)
        return None

    def _ready(
        self, operation: str, cid: Any, reservation_id: Any
    ) -> circuit_run.CircuitRun | StatusEnvelope:
        values = requests.reservation(reservation_id)
        if cid is not None:
            requests.text("cid", cid)
        self._submitter.look()
        result = None if cid is None else self._registry.find(cid)
        invalid = self._status_queries.refusal(result, values)
        if invalid is not None:
            return msgspec.structs.replace(
                invalid, completion_ready=False, poll_operation=operation
            )
        ready = self._registry.first(cid, values or 0)
        if ready is None:
            answer = self._status_queries.not_ready(operation, cid, values)
            ready = self._registry.first(cid, values or 0)  # it may have arrived meanwhile
        return ready or answer

    def _foreign(self, circuit: status.CircuitEntry, reservation_id: int) -> StatusEnvelope | None:
        """Envelope that refuses a call about a circuit of another reservation, or a call without a
        reservation where one is required. Without the check any caller could cancel any circuit."""
        if reservation_id == NONE:
            return self._status_queries.refusal(circuit, None)
        return None if circuit is None else self._status_queries.refusal(circuit, reservation_id)


def _run_facts(circuit: status.CircuitEntry) -> Plain:
    """Facts of a circuit's run, or the reason why there are none."""
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
