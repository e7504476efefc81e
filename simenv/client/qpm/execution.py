"""Binding `execution` of revision 2. What is asked before its time is answered, never raised.

No reservations are handed out here: none is needed to run, and a number that is given belongs to
none. A call that would cost resources then raises; a question is answered INVALID_RESERVATION.
"""

from __future__ import annotations

from time import monotonic, time
from typing import Any

import msgspec

from simenv.client.link import Link
from simenv.client.qpm import answers, fields, records
from simenv.client.qpm.book import Gone
from simenv.client.qpm.notices import Notices
from simenv.client.qpm.run import Run
from simenv.client.qpm.runner import Runner, failure
from simenv.errors import NoService
from simenv.model import FINAL_STATES, TaskState
from simenv.qpm.bindings import Endpoint
from simenv.qpm.envelopes import Registered, Status, TaskTiming, Timeout, plain, status
from simenv.qpm.errors import ExecutionError, NotReady
from simenv.qpm.states import STANDS, Lifecycle, Outcome, Reason

MAX_QTASK = 2**63 - 1
SEEN_S = 0.05
HEARING_S = 1.0  # a task the service calls final: its result is on its way

Plain = dict[str, Any]


class ExecutionBinding:
    """Thread-safe."""

    def __init__(self, link: Link, runner: Runner, notices: Notices) -> None:
        self._link = link
        self._runner = runner
        self._book = runner.book
        self._notices = notices

    def sync_run(
        self,
        info: Plain,
        reservation_id: int | None = None,
        token: str | None = None,
        timeout: float | None = None,
        cancel_on_timeout: bool = False,
    ) -> Plain:
        """Run and wait: COMPLETED, with the completion under `result`.

        `timeout` (seconds) passes: TIMEOUT, the circuit stays and its completion is queued; with
        `cancel_on_timeout` CANCELLED. Raises ExecutionError (it failed, or is no request),
        OutOfResources, NotReady.
        """
        patience_s, cancels = answers.patience(reservation_id, token, timeout, cancel_on_timeout)
        run = self._runner.start(info, queued=False)
        try:
            in_time = self._runner.wait(run, patience_s)
        except BaseException:
            self._book.queue_from_now_on(run)  # interrupted: what comes of it is not lost
            raise
        if not in_time:
            return plain(self._late(run, cancels, patience_s or 0.0))
        found = records.find(run)
        self._book.close(run, Reason.RETURNED)
        if found.error is not None:
            raise failure(found.error)
        record = records.revision2(run, found)
        envelope = plain(self._ended(run))
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
        """Accept and return: ACCEPTED, or FAILED where the circuit is refused; both have a
        completion. `timeout` is `sync_run`'s and has no effect here. Raises ExecutionError (it is
        no request), OutOfResources, NotReady."""
        answers.patience(reservation_id, token, timeout, cancel_on_timeout)
        run = self._runner.start(info, queued=True)
        if run.refusal is not None:
            return plain(self._ended(run))
        return plain(answers.under_way(run, Lifecycle.QUEUED))

    def read_cq(
        self,
        cid: str | None = None,
        reservation_id: int | None = None,
        token: str | None = None,
    ) -> Plain:
        """The completion of that name, else the oldest; it is nobody else's from then on."""
        found = self._ready("read_cq", cid, reservation_id, token)
        if not isinstance(found, Run):
            return plain(found)
        taken = self._book.take(found.cid)
        if taken is None:  # somebody else was quicker
            return plain(self._not_ready("read_cq", cid))
        now_s = time()
        record = records.revision2(taken, poll="read_cq", dequeued_s=now_s)
        self._book.close(taken, Reason.READ, now_s)
        return record

    def peek_cq(
        self,
        cid: str | None = None,
        reservation_id: int | None = None,
        token: str | None = None,
    ) -> Plain:
        """As `read_cq`; it stays."""
        found = self._ready("peek_cq", cid, reservation_id, token)
        if not isinstance(found, Run):
            return plain(found)
        return records.revision2(found, poll="peek_cq")

    def task_status(
        self,
        cid: str | None = None,
        reservation_id: int | None = None,
        token: str | None = None,
        qtask_id: int | None = None,
    ) -> Plain:
        """How it stands, with `result` or `error` once it has ended."""
        invalid = answers.question(reservation_id, token)
        if invalid is not None:
            return plain(invalid)
        return plain(self._status(self._find(cid, qtask_id), cid, qtask_id))

    def cancel_task(
        self,
        cid: str | None = None,
        reservation_id: int | None = None,
        token: str | None = None,
        reason: str | None = None,
        qtask_id: int | None = None,
    ) -> Plain:
        """CANCELLED; CANCEL_PENDING while it is asked to stop; how it had ended; UNKNOWN."""
        answers.costs(reservation_id, token)
        fields.optional_text("reason", reason)
        found = self._find(cid, qtask_id)
        if isinstance(found, Run) and not found.over:
            return plain(self._cancel(found))
        if found is None:
            return plain(answers.unknown(cid, qtask_id))
        state = found.state if isinstance(found, Gone) else found.final_state()
        stand = STANDS[state]
        return plain(
            status(stand.lifecycle, cid=found.cid, qtask_id=found.number, reason=stand.already)
        )

    def get_task_timing(
        self,
        token: str | None = None,
        reservation_id: int | None = None,
        task_id: int | None = None,
    ) -> Plain:
        """The seven times of a task, also after its completion was read."""
        invalid = answers.question(reservation_id, token)
        if invalid is not None:
            return plain(invalid)
        number = fields.whole("task_id", task_id, 1, MAX_QTASK)
        found = self._find(None, number)
        if found is None:
            return plain(TaskTiming(number, None, Lifecycle.UNKNOWN, {}))
        times = found.times if isinstance(found, Gone) else found.times()
        lifecycle = self._status(found, None, number).lifecycle_state
        return plain(TaskTiming(number, None, lifecycle, msgspec.structs.asdict(times)))

    def get_task_metadata(
        self,
        token: str | None = None,
        reservation_id: int | None = None,
        task_id: int | None = None,
    ) -> Plain:
        """Where and how it ran: all that is needed to get its counts again."""
        invalid = answers.question(reservation_id, token)
        if invalid is not None:
            return plain(invalid)
        number = fields.whole("task_id", task_id, 1, MAX_QTASK)
        found = self._find(None, number)
        facts = None
        if isinstance(found, Gone):
            facts = found.facts
        elif found is not None and found.over:
            facts = found.facts()
        known: Plain = {"available": False, "reason": str(Reason.NOT_READY)}
        if facts is not None:
            known = facts.told()
        elif found is None:
            known["reason"] = str(Reason.NOT_FOUND)
        elif isinstance(found, Gone) or found.over:
            known["reason"] = str(Reason.EXECUTION_FAILED)
        envelope = self._status(found, None, number)
        return plain(
            msgspec.structs.replace(envelope, result=None, task_id=number, provider_metadata=known)
        )

    def register_event_notification(
        self,
        ep: Endpoint,
        evtype: int | str,
        class_id: str,
        token: str | None = None,
        reservation_id: int | None = None,
        filters: Plain | None = None,
    ) -> Plain:
        """From now on `ep.put(Event)` is called for each completion that fits, which is queued too.

        `evtype`: 1 or "completion". `filters`: values, or lists of values, of cid, qtask_id,
        reservation_id. A `put` that raises ends this registration.
        """
        answers.costs(reservation_id, token)
        registration = answers.registered(ep, evtype, class_id, filters)
        count = self._notices.register(registration)
        return plain(Registered("accepted", registration.class_id, count))

    def delete_circuit(
        self, cid: str, reservation_id: int | None = None, token: str | None = None
    ) -> Plain | None:
        """Stop it and forget it, also where it is not known."""
        answers.costs(reservation_id, token)
        self._runner.delete(cid)
        return None

    # --- how something stands -----------------------------------------------------------------

    def _find(self, cid: Any, number: Any) -> Run | Gone | None:
        if cid is None and number is None:
            raise ExecutionError("neither cid nor qtask_id was given", hint="one of them")
        if cid is not None:
            fields.text("cid", cid)
        if number is not None:
            fields.whole("qtask_id", number, 1, MAX_QTASK)
        self._look()
        return self._book.find(cid, number)

    def _look(self) -> None:
        try:
            self._book.look()
        except NoService as error:
            raise NotReady(error.message, hint=error.hint) from error

    def _status(self, found: Run | Gone | None, cid: Any, number: Any) -> Status:
        if found is None:
            return answers.unknown(cid, number)
        if isinstance(found, Gone):
            return answers.gone(found)
        if found.over:
            told = records.find(found)
            return self._ended(found, result=told.result, error=told.message)
        try:
            infos = self._link.infos([task.entry.number for task in found.tasks])
        except NoService as error:
            raise NotReady(error.message, hint=error.hint) from error
        if all(info.state in FINAL_STATES for info in infos):  # or it knows none of them
            self._book.ask_for(found)
            if found.wait(HEARING_S):
                return self._status(found, cid, number)
        if not infos:
            return answers.unknown(found.cid, found.number)
        running = [info for info in infos if info.state is not TaskState.QUEUED]
        shown = running[0] if running else infos[0]
        lifecycle = STANDS[TaskState.RUNNING if running else TaskState.QUEUED].lifecycle
        return msgspec.structs.replace(
            answers.under_way(found, lifecycle),
            scheduler_state=str(shown.state),
            provider_handle=shown.worker or None,
            message=shown.reason or None,
        )

    def _seen(self, run: Run) -> Status:
        """How it stood a moment ago: a host that polls does not ask the service each time."""
        now_s = monotonic()
        if run.seen is None or now_s - run.seen_s > SEEN_S:
            run.seen, run.seen_s = self._status(run, None, None), now_s
        return run.seen

    def _ready(self, operation: str, cid: Any, reservation_id: Any, token: Any) -> Run | Status:
        invalid = answers.question(reservation_id, token)
        if invalid is not None:
            return msgspec.structs.replace(
                invalid, completion_ready=False, poll_operation=operation
            )
        if cid is not None:
            fields.text("cid", cid)
        self._look()
        return self._book.first(cid) or self._not_ready(operation, cid)

    def _not_ready(self, operation: str, cid: str | None) -> Status:
        found = None if cid is None else self._book.find(cid)
        if found is None:
            envelope = status(Lifecycle.NO_READY_COMPLETION, cid=cid)
        elif isinstance(found, Gone):
            return msgspec.structs.replace(
                answers.gone(found), completion_ready=False, poll_operation=operation
            )
        else:
            envelope = self._seen(found)
        return msgspec.structs.replace(
            envelope,
            reason=Reason.NOT_READY,
            result=None,
            completion_ready=False,
            poll_operation=operation,
        )

    def _ended(self, run: Run, *, result: Plain | None = None, error: str | None = None) -> Status:
        state = run.final_state()
        stand = STANDS[state]
        reason = stand.reason
        if run.refusal is not None:
            reason, error = Reason.SUBMISSION_FAILED, str(run.refusal)
        return status(
            stand.lifecycle,
            cid=run.cid,
            qtask_id=run.number,
            scheduler_task_id=run.task_id,
            scheduler_state=str(state),
            reason=reason,
            result=result,
            error=error,
        )

    def _late(self, run: Run, cancels: bool, patience_s: float) -> Status:
        words = f"no result after {patience_s:g} s"
        late = Timeout(Reason.SYNC_TIMEOUT, words, round(time() * 1e9))
        self._book.queue_from_now_on(run)
        if cancels:
            return msgspec.structs.replace(
                self._cancel(run), reason=Reason.SYNC_TIMEOUT, timeout=late
            )
        return msgspec.structs.replace(
            self._status(run, None, None),
            outcome=Outcome.TIMEOUT, reason=Reason.SYNC_TIMEOUT, result=None, timeout=late,
        )  # fmt: skip

    def _cancel(self, run: Run) -> Status:
        words = self._runner.cancel(run)
        if "cancelling" in words:
            return msgspec.structs.replace(
                answers.under_way(run, Lifecycle.SUBMITTED),
                outcome=Outcome.CANCEL_PENDING,
                provider_cancel_status="cancelling",
            )
        if "cancelled" in words:
            return status(
                Lifecycle.CANCELLED,
                cid=run.cid,
                qtask_id=run.number,
                scheduler_task_id=run.task_id,
            )
        self._runner.wait(run, HEARING_S)  # it had ended: its result is on its way
        if not run.over:
            return answers.unknown(run.cid, run.number)
        stand = STANDS[run.final_state()]
        return status(stand.lifecycle, cid=run.cid, qtask_id=run.number, reason=stand.already)
