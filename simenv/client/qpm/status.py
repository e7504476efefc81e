"""Status of circuits for hosts of revision 2, and the base of the bindings.

First the envelopes of the states of a circuit, without requests to the service. `StatusQueries`
looks a circuit up, checks the caller's reservation, and asks the service while the circuit is
unfinished. `QpmBinding` holds what the six bindings share.

A query with an invalid reservation returns an INVALID_RESERVATION envelope and never raises. The
reservation must belong to the caller and to the circuit; it may have ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic, time
from typing import TYPE_CHECKING, Any

import msgspec

from simenv.client.connection.session import ServiceSession
from simenv.client.qpm import identity, requests
from simenv.client.qpm.circuit_run import CircuitRun, outcome_of
from simenv.client.qpm.completion_queues import CircuitRegistry, RetiredCircuit
from simenv.client.qpm.submitter import LIVE, CircuitSubmitter, ReservationChecks
from simenv.errors import SimenvError
from simenv.model import FINAL_STATES, TaskInfo
from simenv.qpm import contract, envelopes
from simenv.qpm.envelopes import Lifecycle, Reason, StatusEnvelope
from simenv.wire.messages.base import A, ClientRequest

if TYPE_CHECKING:
    from simenv.client.qpm.notifications import CompletionNotifier, DeviceEventNotifier
    from simenv.qpm.answers import ShutdownRequest

CircuitEntry = CircuitRun | RetiredCircuit | None


def circuit_status(
    circuit: CircuitRun | RetiredCircuit, lifecycle: Lifecycle, **fields: Any
) -> StatusEnvelope:
    """Envelope with the names of a circuit, and `fields` of a `StatusEnvelope`."""
    return envelopes.status(
        lifecycle, cid=circuit.cid, qtask_id=circuit.number, reservation_id=circuit.reservation_id,
        **fields,
    )  # fmt: skip


def unfinished_status(run: CircuitRun, lifecycle: Lifecycle) -> StatusEnvelope:
    """Envelope of an unfinished circuit."""
    return circuit_status(
        run, lifecycle, scheduler_task_id=run.task_id, wait_estimate=envelopes.UNKNOWN_WAIT
    )


def accepted_status(run: CircuitRun) -> StatusEnvelope:
    """Envelope of an accepted circuit: CAPACITY_HELD under a reservation, else QUEUED."""
    return unfinished_status(run, Lifecycle.CAPACITY_HELD if run.reservation else Lifecycle.QUEUED)


_FURTHEST = (  # states of open tasks, the most advanced one first
    Lifecycle.SUBMITTED, Lifecycle.SELECTED, Lifecycle.PENDING_CAPACITY, Lifecycle.QUEUED,
)  # fmt: skip


def current_status(run: CircuitRun, infos: Sequence[TaskInfo]) -> StatusEnvelope:
    """Envelope of an unfinished circuit from the service's information on its tasks. The open task
    in the most advanced state counts; at least one task must be open."""
    opened = [info for info in infos if info.state not in FINAL_STATES]
    shown = min(opened, key=lambda info: _FURTHEST.index(envelopes.under_way(info)))
    lifecycle = envelopes.under_way(shown)
    waits = lifecycle is not Lifecycle.SUBMITTED
    return msgspec.structs.replace(
        unfinished_status(run, lifecycle),
        scheduler_state=str(shown.state),
        provider_handle=shown.worker or None,
        message=shown.reason or None,
        pending_queue_position=shown.parked or None,
        wait_estimate=envelopes.wait(shown.wait_us) if waits else None,
    )


def ended_status(
    run: CircuitRun, *, result: dict[str, Any] | None = None, error: str | None = None
) -> StatusEnvelope:
    """Envelope of a circuit that has ended."""
    state = run.final_state()
    stand = envelopes.STATE_MAP[state]
    reason = stand.reason
    if run.refusal is not None:
        reason, error = Reason.SUBMISSION_FAILED, str(run.refusal)
    return circuit_status(
        run, stand.lifecycle, scheduler_task_id=run.task_id, scheduler_state=str(state),
        reason=reason, result=result, error=error,
    )  # fmt: skip


def late_cancellation(circuit: CircuitRun | RetiredCircuit) -> StatusEnvelope:
    """Answer to a cancellation of a circuit that has ended."""
    state = circuit.state if isinstance(circuit, RetiredCircuit) else circuit.final_state()
    stand = envelopes.STATE_MAP[state]
    return circuit_status(circuit, stand.lifecycle, reason=stand.already)


def retired_status(retired: RetiredCircuit) -> StatusEnvelope:
    """Envelope of an ended circuit whose result is no longer kept: its final state without the
    result."""
    stand = envelopes.STATE_MAP[retired.state]
    return circuit_status(
        retired, stand.lifecycle, scheduler_state=str(retired.state), reason=stand.reason,
        evicted_at_ns=retired.at_ns, retention_reason=retired.reason,
    )  # fmt: skip


def unknown_status(cid: str | None, number: int | None) -> StatusEnvelope:
    """Envelope of a circuit that the QPM does not know."""
    return envelopes.status(Lifecycle.UNKNOWN, cid=cid, qtask_id=number, reason=Reason.NOT_FOUND)


def reservation_refusal(reservation_id: int | None, reason: Reason, message: str) -> StatusEnvelope:
    """Envelope of a query whose reservation is missing or may not be used."""
    return envelopes.status(
        Lifecycle.INVALID_RESERVATION, reservation_id=reservation_id, reason=reason, message=message
    )


MAX_QTASK = 2**63 - 1
SEEN_S = 0.05
HEARING_S = 1.0  # wait for the result of a task that is final for the service
STOPPING_S = 5.0  # a task that is being stopped ends within this time as a rule


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

    def find(self, cid: Any, number: Any) -> CircuitEntry:
        """Find a circuit by cid or by qtask id; None if it is unknown. Raises ExecutionError if
        both are None."""
        if cid is None and number is None:
            raise contract.ExecutionError("neither cid nor qtask_id was given", hint="one of them")
        if cid is not None:
            requests.text("cid", cid)
        if number is not None:
            requests.integer("qtask_id", number, 1, MAX_QTASK)
        self._submitter.look()
        return self._registry.find(cid, number)

    def find_allowed(
        self, cid: Any, number: Any, reservation_id: Any
    ) -> CircuitEntry | StatusEnvelope:
        """Return the circuit of a query, or the envelope that refuses the query."""
        reservation = requests.reservation(reservation_id)
        circuit = self.find(cid, number)
        return self.refusal(circuit, reservation) or circuit

    def refusal(self, circuit: CircuitEntry, reservation_id: int | None) -> StatusEnvelope | None:
        """Envelope that refuses a query about a circuit, or about a whole reservation if `circuit`
        is None; None if the query is allowed."""
        if reservation_id is None:
            if not self._reservation_checks.required:
                return None
            message = "reservation_id is missing"
            return reservation_refusal(None, Reason.RESERVATION_REQUIRED, message)
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
            return reservation_refusal(reservation_id, Reason.RESERVATION_NOT_FOUND, message)
        if circuit is not None:
            message = f"circuit {circuit.cid} does not run under reservation {reservation_id}"
            return reservation_refusal(reservation_id, Reason.RESERVATION_MISMATCH, message)
        if info.state not in LIVE:
            message = f"reservation {reservation_id} is {info.state}"
            return reservation_refusal(reservation_id, Reason.RESERVATION_NOT_ACTIVE, message)
        return None

    def status(self, circuit: CircuitEntry, cid: Any, number: Any) -> StatusEnvelope:
        """Envelope of the present state, with result or error once the circuit has ended. `cid`,
        `number`: names of a circuit that is None."""
        if circuit is None:
            return unknown_status(cid, number)
        if isinstance(circuit, RetiredCircuit):
            return retired_status(circuit)
        return self.run_status(circuit)

    def run_status(self, run: CircuitRun) -> StatusEnvelope:
        """Envelope of the present state of a circuit whose completion is kept."""
        if run.over:
            outcome = outcome_of(run)
            return ended_status(run, result=outcome.result, error=outcome.message)
        infos = self.task_infos(run)
        if any(info.state not in FINAL_STATES for info in infos):
            return current_status(run, infos)
        self._registry.ask_for(run)
        if run.wait(HEARING_S):
            return self.run_status(run)
        if not infos:
            return unknown_status(run.cid, run.number)
        return unfinished_status(run, Lifecycle.SUBMITTED)

    def task_infos(self, *runs: CircuitRun) -> list[TaskInfo]:
        """The service's information on the circuits' tasks. Raises only QPMError."""
        try:
            return self._session.task_infos([t.handle.number for run in runs for t in run.tasks])
        except SimenvError as error:
            raise identity.as_qpm_error(error) from error

    def acceptance(self, run: CircuitRun, *, metered: bool) -> StatusEnvelope:
        """Answer to an accepted circuit. `metered`: it may have to wait for credits of its
        reservation."""
        try:
            infos = self.task_infos(run) if metered else []
        except contract.NotReadyError:  # accepted: an error would make the host run it twice
            infos = []
        if any(info.parked for info in infos):
            return current_status(run, infos)
        return accepted_status(run)

    def not_ready(
        self, operation: str, cid: str | None, reservation_id: int | None
    ) -> StatusEnvelope:
        """Answer to a read where no completion is ready: what is known of the circuit `cid`."""
        entry = None if cid is None else self._registry.find(cid)
        reason = Reason.NOT_READY
        if entry is None:
            envelope = envelopes.status(
                Lifecycle.NO_READY_COMPLETION, cid=cid, reservation_id=reservation_id
            )
        elif isinstance(entry, RetiredCircuit):
            reason = Reason.NO_LONGER_RETAINED
            envelope = circuit_status(
                entry,
                Lifecycle.NO_LONGER_RETAINED,
                evicted_at_ns=entry.at_ns,
                retention_reason=entry.reason,
            )
        else:
            envelope = self._recent_status(entry)
        return msgspec.structs.replace(
            envelope, reason=reason, result=None, completion_ready=False, poll_operation=operation
        )

    def timed_out(self, run: CircuitRun, cancels: bool, patience_s: float) -> StatusEnvelope:
        """Answer to a synchronous call whose timeout has passed; the completion will be queued.
        `cancels`: cancel the circuit."""
        message = f"no result after {patience_s:g} s"
        timeout = envelopes.Timeout(Reason.SYNC_TIMEOUT, message, round(time() * 1e9))
        self._registry.queue_from_now_on(run)
        if not cancels:
            return msgspec.structs.replace(
                self.run_status(run), outcome=envelopes.Outcome.TIMEOUT, reason=Reason.SYNC_TIMEOUT,
                result=None, timeout=timeout,
            )  # fmt: skip
        envelope = self.cancel(run)
        is_pending = envelope.outcome is envelopes.Outcome.CANCEL_PENDING
        if is_pending and self._submitter.wait(run, STOPPING_S):
            envelope = ended_status(run)
        return msgspec.structs.replace(envelope, reason=Reason.SYNC_TIMEOUT, timeout=timeout)

    def cancel(self, run: CircuitRun) -> StatusEnvelope:
        """Cancel the tasks that have not ended."""
        outcomes = self._submitter.cancel(run)
        if "cancelling" in outcomes:
            return msgspec.structs.replace(
                unfinished_status(run, Lifecycle.SUBMITTED),
                outcome=envelopes.Outcome.CANCEL_PENDING,
                provider_cancel_status="cancelling",
            )
        if "cancelled" in outcomes:
            return circuit_status(run, Lifecycle.CANCELLED, scheduler_task_id=run.task_id)
        self._submitter.wait(run, HEARING_S)  # it had ended: its result is on its way
        return late_cancellation(run) if run.over else unknown_status(run.cid, run.number)

    def _recent_status(self, run: CircuitRun) -> StatusEnvelope:
        """Status that is at most SEEN_S old, so that a polling host does not ask the service each
        time."""
        now_s = monotonic()
        if run.seen is None or now_s - run.seen_s > SEEN_S:
            run.seen, run.seen_s = self.run_status(run), now_s
        return run.seen


class QpmBinding:
    """Base of the six bindings, which are one object, and the parts that they share; `QPM` makes
    them. The token of a call is checked before."""

    _session: ServiceSession
    _identity: identity.QPMIdentity
    _targets: identity.Targets
    _token_guard: identity.TokenGuard
    _audit: identity.Audit
    _registry: CircuitRegistry
    _reservation_checks: ReservationChecks
    _submitter: CircuitSubmitter
    _status_queries: StatusQueries
    _notifier: CompletionNotifier
    _device_events: DeviceEventNotifier
    _shutdown_request: ShutdownRequest | None = None
    _state = envelopes.ServiceState.RUNNING

    def _ask(self, message: ClientRequest[A]) -> A:
        """Send a message and return its answer. Raises only QPMError."""
        return identity.asked(self._session, message)

    def _change(self, method: str, message: ClientRequest[A]) -> A:
        """Send a change that needs the role admin; errors name the contract's `method`."""
        return identity.changed(self._session, method, message)
