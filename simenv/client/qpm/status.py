"""Status and completion envelopes of circuits, and what the bindings share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic, time
from typing import TYPE_CHECKING, Any

import msgspec

from simenv.client.connection.session import A, ServiceSession
from simenv.client.qpm import requests
from simenv.client.qpm.circuit_run import CircuitRun
from simenv.client.qpm.completion_queues import RetiredCircuit
from simenv.client.qpm.identity import asked, changed
from simenv.client.qpm.notifications import EventSubscription
from simenv.client.qpm.submitter import LIVE, CircuitSubmitter, ReservationChecks
from simenv.errors import NoServiceError, SimenvError
from simenv.model import FINAL_STATES, TaskInfo, TaskState
from simenv.qpm import contract, envelopes
from simenv.wire.messages import client as m

if TYPE_CHECKING:
    from simenv.client.qpm.completion_queues import CircuitRegistry
    from simenv.client.qpm.identity import Audit, QPMIdentity, Targets, TokenGuard
    from simenv.client.qpm.notifications import CompletionNotifier, DeviceEventNotifier
    from simenv.qpm.answers import ShutdownRequest

# Status and completion envelopes that several methods share; no requests to the service.
#
# A circuit that has ended is written as a record of revision 1 or of revision 2.


def registered(
    ep: Any, evtype: Any, class_id: Any, filters: Any = None, reservation: int = 0
) -> EventSubscription:
    """Check the arguments of a registration and return the subscription."""
    if not callable(getattr(ep, "put", None)):
        raise requests.wrong("ep", ep, "an endpoint with a method put(event)")
    if not isinstance(evtype, str):
        requests.integer("evtype", evtype, 0, 2**31 - 1)
    return EventSubscription(
        ep, evtype, requests.text("class_id", class_id), requests.filters(filters), reservation
    )


def accepted(run: CircuitRun) -> envelopes.StatusEnvelope:
    """Envelope of an accepted circuit: CAPACITY_HELD under a reservation, else QUEUED."""
    return under_way(
        run, envelopes.Lifecycle.CAPACITY_HELD if run.reservation else envelopes.Lifecycle.QUEUED
    )


def under_way(run: CircuitRun, lifecycle: envelopes.Lifecycle) -> envelopes.StatusEnvelope:
    """Envelope of an unfinished circuit."""
    return about(
        run, lifecycle, scheduler_task_id=run.task_id, wait_estimate=envelopes.UNKNOWN_WAIT
    )


def about(
    circuit: CircuitRun | RetiredCircuit, lifecycle: envelopes.Lifecycle, **more: Any
) -> envelopes.StatusEnvelope:
    """An envelope with the names of a circuit, and `more`."""
    return envelopes.status(
        lifecycle,
        cid=circuit.cid,
        qtask_id=circuit.number,
        reservation_id=circuit.reservation_id,
        **more,
    )


def current_status(run: CircuitRun, infos: Sequence[TaskInfo]) -> envelopes.StatusEnvelope:
    """Envelope of an unfinished circuit from the service's information on its tasks. The open task
    in the most advanced state counts; at least one task must be open."""
    opened = [info for info in infos if info.state not in FINAL_STATES]
    lifecycle, shown = min(((envelopes.under_way(info), info) for info in opened), key=_furthest)
    return msgspec.structs.replace(
        under_way(run, lifecycle),
        scheduler_state=str(shown.state),
        provider_handle=shown.worker or None,
        message=shown.reason or None,
        pending_queue_position=shown.parked or None,
        wait_estimate=None
        if lifecycle is envelopes.Lifecycle.SUBMITTED
        else envelopes.wait(shown.wait_us),
    )


_ORDER = (
    envelopes.Lifecycle.SUBMITTED, envelopes.Lifecycle.SELECTED,
    envelopes.Lifecycle.PENDING_CAPACITY, envelopes.Lifecycle.QUEUED,
)  # fmt: skip


def _furthest(entry: tuple[envelopes.Lifecycle, TaskInfo]) -> int:
    return _ORDER.index(entry[0])


def unknown(cid: str | None, number: int | None) -> envelopes.StatusEnvelope:
    return envelopes.status(
        envelopes.Lifecycle.UNKNOWN, cid=cid, qtask_id=number, reason=envelopes.Reason.NOT_FOUND
    )


def gone(retired: RetiredCircuit) -> envelopes.StatusEnvelope:
    """Envelope of a completion that is no longer retained."""
    return about(
        retired,
        envelopes.Lifecycle.NO_LONGER_RETAINED,
        reason=envelopes.Reason.NO_LONGER_RETAINED,
        evicted_at_ns=retired.at_ns,
        retention_reason=retired.reason,
    )


def remembered(retired: RetiredCircuit) -> envelopes.StatusEnvelope:
    """Envelope of an ended circuit whose result is no longer kept: its final state without the
    result."""
    stand = envelopes.STATE_MAP[retired.state]
    return about(
        retired,
        stand.lifecycle,
        scheduler_state=str(retired.state),
        reason=stand.reason,
        evicted_at_ns=retired.at_ns,
        retention_reason=retired.reason,
    )


def invalid(
    reservation_id: int | None, reason: envelopes.Reason, message: str
) -> envelopes.StatusEnvelope:
    """Envelope of a query whose reservation is missing or may not be used."""
    return envelopes.status(
        envelopes.Lifecycle.INVALID_RESERVATION,
        reservation_id=reservation_id,
        reason=reason,
        message=message,
    )


class CircuitOutcome(msgspec.Struct, frozen=True):
    """Outcome of a circuit, independent of the revision: state, result, error and metadata."""

    state: TaskState
    result: dict[str, Any]
    error: SimenvError | None
    metadata: dict[str, Any] = {}

    @property
    def message(self) -> str | None:
        return None if self.error is None else str(self.error)


def find(run: CircuitRun) -> CircuitOutcome:
    """Return the outcome of an ended circuit. A result that cannot be read makes it FAILED."""
    state, error = run.final_state(), run.error()
    if state is TaskState.DONE:
        try:
            return CircuitOutcome(state, run.result(), None, run.metadata())
        except SimenvError as unreadable:
            state, error = TaskState.FAILED, unreadable
    settings = envelopes.CompletionMetadata(warnings=list(run.warnings))
    return CircuitOutcome(state, {"counts": {}}, error, envelopes.plain(settings))


def revision1(
    run: CircuitRun,
    outcome: CircuitOutcome | None = None,
    *,
    dequeued_s: float = envelopes.NOT_REACHED,
) -> dict[str, Any]:
    """Completion record of revision 1: the counts alone unless amplitudes were requested; the error
    text if the circuit failed."""
    outcome = outcome or find(run)
    result: dict[str, Any] | str = outcome.result
    if outcome.message is not None:
        result = outcome.message
    elif not run.wants_amplitudes:
        result = outcome.result["counts"]
    times = run.times(dequeued_s)
    record = envelopes.Record(
        cid=run.cid,
        result=result,
        rc=_rc(outcome.state),
        metadata=outcome.metadata,
        **_fields(times),
    )
    return envelopes.plain(record)


def revision2(
    run: CircuitRun,
    outcome: CircuitOutcome | None = None,
    *,
    poll: str | None = None,
    dequeued_s: float = envelopes.NOT_REACHED,
) -> dict[str, Any]:
    """Completion record of revision 2. `poll`: the operation that reads it; None in an event."""
    outcome = outcome or find(run)
    stand = envelopes.STATE_MAP[outcome.state]
    times = run.times(dequeued_s)
    reason = stand.reason
    if run.refusal is not None:
        reason = envelopes.Reason.SUBMISSION_FAILED
    record = envelopes.CompletionEnvelope(
        cid=run.cid,
        qtask_id=run.number,
        reservation_id=run.reservation_id,
        scheduler_task_id=run.task_id,
        outcome=stand.outcome,
        result=outcome.result,
        rc=_rc(outcome.state),
        completion_ready=True,
        poll_operation=poll,
        reason=reason,
        message=outcome.message,
        metadata=outcome.metadata,
        qpm_cq_enqueue_time_ns=_ns(times.cq_enqueue_time),
        qpm_cq_dequeue_time_ns=_ns(times.cq_dequeue_time),
        **_fields(times),
    )
    return envelopes.plain(record)


def _rc(state: TaskState) -> int:
    rc = envelopes.STATE_MAP[state].rc
    return 0 if rc is None else rc


def _ns(seconds: float) -> int:
    return -1 if seconds == envelopes.NOT_REACHED else round(seconds * 1e9)


def _fields(times: envelopes.Times) -> dict[str, Any]:
    return msgspec.structs.asdict(times)


# Status of circuits for QPM hosts. Looks a circuit up by cid or qtask id, checks the caller's
# reservation, and asks the service while the circuit is unfinished.
#
# A query with an invalid reservation returns an INVALID_RESERVATION envelope and never raises. The
# reservation must belong to the caller and to the circuit; it may have ended.

MAX_QTASK = 2**63 - 1
SEEN_S = 0.05
HEARING_S = 1.0  # wait for the result of a task that is final for the service
STOPPING_S = 5.0  # a task that is being stopped ends within this time as a rule

CircuitEntry = CircuitRun | RetiredCircuit | None
Plain = dict[str, Any]


class StatusQueries:
    """Status, cancellation and timeouts of the circuits of one submitter. Thread-safe."""

    def __init__(
        self,
        session: ServiceSession,
        submitter: CircuitSubmitter,
        reservation_checks: ReservationChecks,
    ) -> None:
        self._session = session
        self._submitter = submitter
        self._registry = submitter.registry
        self._reservation_checks = reservation_checks

    # --- finding ------------------------------------------------------------------------------

    def look(self) -> None:
        """Process the messages that have arrived. Raises NotReadyError."""
        try:
            self._registry.look()
        except NoServiceError as error:
            raise contract.NotReadyError(error.message, hint=error.hint) from error

    def find(self, cid: Any, number: Any) -> CircuitEntry:
        """Find a circuit by cid or by qtask id; None if it is unknown. Raises ExecutionError if
        both are None."""
        if cid is None and number is None:
            raise contract.ExecutionError("neither cid nor qtask_id was given", hint="one of them")
        if cid is not None:
            requests.text("cid", cid)
        if number is not None:
            requests.integer("qtask_id", number, 1, MAX_QTASK)
        self.look()
        return self._registry.find(cid, number)

    def asked(
        self, cid: Any, number: Any, reservation_id: Any
    ) -> CircuitEntry | envelopes.StatusEnvelope:
        """Return the circuit of a query, or the envelope that refuses the query."""
        values = requests.reservation(reservation_id)
        entry = self.find(cid, number)
        return self.objection(entry, values) or entry

    def objection(
        self, circuit: CircuitEntry, reservation_id: int | None
    ) -> envelopes.StatusEnvelope | None:
        """Envelope that refuses a query about a circuit, or about a whole reservation if `circuit`
        is None; None if the query is allowed."""
        if reservation_id is None:
            if not self._reservation_checks.required:
                return None
            message = "reservation_id is missing"
            return invalid(None, envelopes.Reason.RESERVATION_REQUIRED, message)
        if circuit is not None and circuit.reservation == reservation_id:
            return None
        if circuit is None and (
            self._registry.has_of(reservation_id)
            or self._reservation_checks.seen_active(reservation_id)
        ):
            return None
        info = self._reservation_checks.find(reservation_id)
        if info is None:
            message = f"there is no reservation {reservation_id}"
            return invalid(reservation_id, envelopes.Reason.RESERVATION_NOT_FOUND, message)
        if circuit is not None:
            message = f"circuit {circuit.cid} does not run under reservation {reservation_id}"
            return invalid(reservation_id, envelopes.Reason.RESERVATION_MISMATCH, message)
        if info.state not in LIVE:
            message = f"reservation {reservation_id} is {info.state}"
            return invalid(reservation_id, envelopes.Reason.RESERVATION_NOT_ACTIVE, message)
        return None

    # --- telling ------------------------------------------------------------------------------

    def status(self, circuit: CircuitEntry, cid: Any, number: Any) -> envelopes.StatusEnvelope:
        """Envelope of the present state, with result or error once the circuit has ended."""
        if circuit is None:
            return unknown(cid, number)
        if isinstance(circuit, RetiredCircuit):
            return remembered(circuit)
        if circuit.over:
            settings = find(circuit)
            return ended(circuit, result=settings.result, error=settings.message)
        infos = self.infos(circuit)
        if all(info.state in FINAL_STATES for info in infos):  # or it knows none of them
            self._registry.ask_for(circuit)
            if circuit.wait(HEARING_S):
                return self.status(circuit, cid, number)
        if not infos:
            return unknown(circuit.cid, circuit.number)
        if all(info.state in FINAL_STATES for info in infos):
            return under_way(circuit, envelopes.Lifecycle.SUBMITTED)
        return current_status(circuit, infos)

    def infos(self, run: CircuitRun) -> list[TaskInfo]:
        """The service's information on the circuit's tasks. Raises NotReadyError."""
        try:
            return self._session.task_infos([task.handle.number for task in run.tasks])
        except NoServiceError as error:
            raise contract.NotReadyError(error.message, hint=error.hint) from error

    def taken(self, run: CircuitRun, *, metered: bool) -> envelopes.StatusEnvelope:
        """Answer to an accepted circuit. `metered`: it may have to wait for credits of its
        reservation."""
        try:
            infos = self.infos(run) if metered else []
        except (
            contract.NotReadyError
        ):  # the circuit is accepted: an error would make the host run it twice
            infos = []
        if any(info.parked for info in infos):
            return current_status(run, infos)
        return accepted(run)

    def not_ready(
        self, operation: str, cid: str | None, reservation_id: int | None
    ) -> envelopes.StatusEnvelope:
        """Answer to a read where no completion is ready."""
        entry = None if cid is None else self._registry.find(cid)
        if entry is None:
            envelope = envelopes.status(
                envelopes.Lifecycle.NO_READY_COMPLETION, cid=cid, reservation_id=reservation_id
            )
        elif isinstance(entry, RetiredCircuit):
            return msgspec.structs.replace(
                gone(entry), completion_ready=False, poll_operation=operation
            )
        else:
            envelope = self._recent_status(entry)
        return msgspec.structs.replace(
            envelope,
            reason=envelopes.Reason.NOT_READY,
            result=None,
            completion_ready=False,
            poll_operation=operation,
        )

    def late(self, run: CircuitRun, cancels: bool, patience_s: float) -> envelopes.StatusEnvelope:
        """Answer to a synchronous call whose timeout has passed; the completion will be queued.
        `cancels`: cancel the circuit."""
        message = f"no result after {patience_s:g} s"
        late = envelopes.Timeout(envelopes.Reason.SYNC_TIMEOUT, message, round(time() * 1e9))
        self._registry.queue_from_now_on(run)
        if cancels:
            stopped = self.cancel(run)
            if stopped.outcome is envelopes.Outcome.CANCEL_PENDING and self._submitter.wait(
                run, STOPPING_S
            ):
                stopped = ended(run)
            return msgspec.structs.replace(
                stopped, reason=envelopes.Reason.SYNC_TIMEOUT, timeout=late
            )
        return msgspec.structs.replace(
            self.status(run, None, None),
            outcome=envelopes.Outcome.TIMEOUT, reason=envelopes.Reason.SYNC_TIMEOUT, result=None,
            timeout=late,
        )  # fmt: skip

    def cancel(self, run: CircuitRun) -> envelopes.StatusEnvelope:
        """Cancel the tasks that have not ended."""
        outcomes = self._submitter.cancel(run)
        if "cancelling" in outcomes:
            return msgspec.structs.replace(
                under_way(run, envelopes.Lifecycle.SUBMITTED),
                outcome=envelopes.Outcome.CANCEL_PENDING,
                provider_cancel_status="cancelling",
            )
        if "cancelled" in outcomes:
            return about(run, envelopes.Lifecycle.CANCELLED, scheduler_task_id=run.task_id)
        self._submitter.wait(run, HEARING_S)  # it had ended: its result is on its way
        return already(run) if run.over else unknown(run.cid, run.number)

    def _recent_status(self, run: CircuitRun) -> envelopes.StatusEnvelope:
        """Status that is at most SEEN_S old, so that a polling host does not ask the service each
        time."""
        now_s = monotonic()
        if run.seen is None or now_s - run.seen_s > SEEN_S:
            run.seen, run.seen_s = self.status(run, None, None), now_s
        return run.seen


def already(circuit: CircuitRun | RetiredCircuit) -> envelopes.StatusEnvelope:
    """Answer to a cancellation of a circuit that has ended."""
    state = circuit.state if isinstance(circuit, RetiredCircuit) else circuit.final_state()
    stand = envelopes.STATE_MAP[state]
    return about(circuit, stand.lifecycle, reason=stand.already)


def ended(
    run: CircuitRun, *, result: Plain | None = None, error: str | None = None
) -> envelopes.StatusEnvelope:
    """Envelope of a circuit that has ended."""
    state = run.final_state()
    stand = envelopes.STATE_MAP[state]
    reason = stand.reason
    if run.refusal is not None:
        reason, error = envelopes.Reason.SUBMISSION_FAILED, str(run.refusal)
    return about(
        run,
        stand.lifecycle,
        scheduler_task_id=run.task_id,
        scheduler_state=str(state),
        reason=reason,
        result=result,
        error=error,
    )


class QpmBinding:
    """Base of the six bindings, which are one object, and the parts that they share; `QPM` makes
    them. The token of a call is checked before."""

    _session: ServiceSession
    _identity: QPMIdentity
    _targets: Targets
    _token_guard: TokenGuard
    _audit: Audit
    _registry: CircuitRegistry
    _reservation_checks: ReservationChecks
    _submitter: CircuitSubmitter
    _status_queries: StatusQueries
    _notifier: CompletionNotifier
    _device_events: DeviceEventNotifier
    _shutdown_request: ShutdownRequest | None = None
    _state = envelopes.ServiceState.RUNNING

    def _ask(self, answer: type[A], request: Callable[..., m.FromClient], **fields: Any) -> A:
        """Send a request with these fields. Raises only QPMError."""
        return asked(self._session, answer, partial(request, **fields))

    def _change(
        self, method: str, answer: type[A], request: Callable[..., m.FromClient], **fields: Any
    ) -> A:
        """Send a change that needs the role admin; errors name the contract's `method`."""
        return changed(self._session, method, answer, partial(request, **fields))
