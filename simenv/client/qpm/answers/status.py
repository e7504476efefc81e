"""Status of circuits for QPM hosts. Looks a circuit up by cid or qtask id, checks the caller's
reservation, and asks the service while the circuit is unfinished.

A query with an invalid reservation returns an INVALID_RESERVATION envelope and never raises. The
reservation must belong to the caller and to the circuit; it may have ended.
"""

from __future__ import annotations

from time import monotonic, time
from typing import Any

import msgspec

from simenv.client.connection.session import ServiceSession
from simenv.client.qpm.answers import envelopes
from simenv.client.qpm.requests import arguments
from simenv.client.qpm.runtime.circuit_run import CircuitRun
from simenv.client.qpm.runtime.completion_queues import RetiredCircuit
from simenv.client.qpm.runtime.reservations import LIVE, ReservationChecks
from simenv.client.qpm.runtime.submitter import CircuitSubmitter
from simenv.errors import NoServiceError
from simenv.model import FINAL_STATES, TaskInfo
from simenv.qpm.envelopes import StatusEnvelope, Timeout, status
from simenv.qpm.errors import ExecutionError, NotReadyError
from simenv.qpm.states import STATE_MAP, Lifecycle, Outcome, Reason

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
            raise NotReadyError(error.message, hint=error.hint) from error

    def find(self, cid: Any, number: Any) -> CircuitEntry:
        """Find a circuit by cid or by qtask id; None if it is unknown. Raises ExecutionError if
        both are None."""
        if cid is None and number is None:
            raise ExecutionError("neither cid nor qtask_id was given", hint="one of them")
        if cid is not None:
            arguments.text("cid", cid)
        if number is not None:
            arguments.integer("qtask_id", number, 1, MAX_QTASK)
        self.look()
        return self._registry.find(cid, number)

    def asked(self, cid: Any, number: Any, reservation_id: Any) -> CircuitEntry | StatusEnvelope:
        """Return the circuit of a query, or the envelope that refuses the query."""
        values = arguments.reservation(reservation_id)
        entry = self.find(cid, number)
        return self.objection(entry, values) or entry

    def objection(self, circuit: CircuitEntry, reservation_id: int | None) -> StatusEnvelope | None:
        """Envelope that refuses a query about a circuit, or about a whole reservation if `circuit`
        is None; None if the query is allowed."""
        if reservation_id is None:
            if not self._reservation_checks.required:
                return None
            message = "reservation_id is missing"
            return envelopes.invalid(None, Reason.RESERVATION_REQUIRED, message)
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
            return envelopes.invalid(reservation_id, Reason.RESERVATION_NOT_FOUND, message)
        if circuit is not None:
            message = f"circuit {circuit.cid} does not run under reservation {reservation_id}"
            return envelopes.invalid(reservation_id, Reason.RESERVATION_MISMATCH, message)
        if info.state not in LIVE:
            message = f"reservation {reservation_id} is {info.state}"
            return envelopes.invalid(reservation_id, Reason.RESERVATION_NOT_ACTIVE, message)
        return None

    # --- telling ------------------------------------------------------------------------------

    def status(self, circuit: CircuitEntry, cid: Any, number: Any) -> StatusEnvelope:
        """Envelope of the present state, with result or error once the circuit has ended."""
        if circuit is None:
            return envelopes.unknown(cid, number)
        if isinstance(circuit, RetiredCircuit):
            return envelopes.remembered(circuit)
        if circuit.over:
            settings = envelopes.find(circuit)
            return ended(circuit, result=settings.result, error=settings.message)
        infos = self.infos(circuit)
        if all(info.state in FINAL_STATES for info in infos):  # or it knows none of them
            self._registry.ask_for(circuit)
            if circuit.wait(HEARING_S):
                return self.status(circuit, cid, number)
        if not infos:
            return envelopes.unknown(circuit.cid, circuit.number)
        if all(info.state in FINAL_STATES for info in infos):
            return envelopes.under_way(circuit, Lifecycle.SUBMITTED)
        return envelopes.current_status(circuit, infos)

    def infos(self, run: CircuitRun) -> list[TaskInfo]:
        """The service's information on the circuit's tasks. Raises NotReadyError."""
        try:
            return self._session.task_infos([task.handle.number for task in run.tasks])
        except NoServiceError as error:
            raise NotReadyError(error.message, hint=error.hint) from error

    def taken(self, run: CircuitRun, *, metered: bool) -> StatusEnvelope:
        """Answer to an accepted circuit. `metered`: it may have to wait for credits of its
        reservation."""
        try:
            infos = self.infos(run) if metered else []
        except NotReadyError:  # the circuit is accepted: an error would make the host run it twice
            infos = []
        if any(info.parked for info in infos):
            return envelopes.current_status(run, infos)
        return envelopes.accepted(run)

    def not_ready(
        self, operation: str, cid: str | None, reservation_id: int | None
    ) -> StatusEnvelope:
        """Answer to a read where no completion is ready."""
        entry = None if cid is None else self._registry.find(cid)
        if entry is None:
            envelope = status(Lifecycle.NO_READY_COMPLETION, cid=cid, reservation_id=reservation_id)
        elif isinstance(entry, RetiredCircuit):
            return msgspec.structs.replace(
                envelopes.gone(entry), completion_ready=False, poll_operation=operation
            )
        else:
            envelope = self._recent_status(entry)
        return msgspec.structs.replace(
            envelope,
            reason=Reason.NOT_READY,
            result=None,
            completion_ready=False,
            poll_operation=operation,
        )

    def late(self, run: CircuitRun, cancels: bool, patience_s: float) -> StatusEnvelope:
        """Answer to a synchronous call whose timeout has passed; the completion will be queued.
        `cancels`: cancel the circuit."""
        message = f"no result after {patience_s:g} s"
        late = Timeout(Reason.SYNC_TIMEOUT, message, round(time() * 1e9))
        self._registry.queue_from_now_on(run)
        if cancels:
            stopped = self.cancel(run)
            if stopped.outcome is Outcome.CANCEL_PENDING and self._submitter.wait(run, STOPPING_S):
                stopped = ended(run)
            return msgspec.structs.replace(stopped, reason=Reason.SYNC_TIMEOUT, timeout=late)
        return msgspec.structs.replace(
            self.status(run, None, None),
            outcome=Outcome.TIMEOUT, reason=Reason.SYNC_TIMEOUT, result=None, timeout=late,
        )  # fmt: skip

    def cancel(self, run: CircuitRun) -> StatusEnvelope:
        """Cancel the tasks that have not ended."""
        outcomes = self._submitter.cancel(run)
        if "cancelling" in outcomes:
            return msgspec.structs.replace(
                envelopes.under_way(run, Lifecycle.SUBMITTED),
                outcome=Outcome.CANCEL_PENDING,
                provider_cancel_status="cancelling",
            )
        if "cancelled" in outcomes:
            return envelopes.about(run, Lifecycle.CANCELLED, scheduler_task_id=run.task_id)
        self._submitter.wait(run, HEARING_S)  # it had ended: its result is on its way
        return already(run) if run.over else envelopes.unknown(run.cid, run.number)

    def _recent_status(self, run: CircuitRun) -> StatusEnvelope:
        """Status that is at most SEEN_S old, so that a polling host does not ask the service each
        time."""
        now_s = monotonic()
        if run.seen is None or now_s - run.seen_s > SEEN_S:
            run.seen, run.seen_s = self.status(run, None, None), now_s
        return run.seen


def already(circuit: CircuitRun | RetiredCircuit) -> StatusEnvelope:
    """Answer to a cancellation of a circuit that has ended."""
    state = circuit.state if isinstance(circuit, RetiredCircuit) else circuit.final_state()
    stand = STATE_MAP[state]
    return envelopes.about(circuit, stand.lifecycle, reason=stand.already)


def ended(
    run: CircuitRun, *, result: Plain | None = None, error: str | None = None
) -> StatusEnvelope:
    """Envelope of a circuit that has ended."""
    state = run.final_state()
    stand = STATE_MAP[state]
    reason = stand.reason
    if run.refusal is not None:
        reason, error = Reason.SUBMISSION_FAILED, str(run.refusal)
    return envelopes.about(
        run,
        stand.lifecycle,
        scheduler_task_id=run.task_id,
        scheduler_state=str(state),
        reason=reason,
        result=result,
        error=error,
    )
