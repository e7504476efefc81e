"""Binding `admission` of revision 2: reservations of the calling owner.

An invalid field of a request yields the decision `rejected` with reason 4, and an unknown device
the same with reason 2. A request that is not a table raises ExecutionError. A reservation of
another owner raises UnknownObjectError, as if it did not exist.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from simenv.client.qpm import requests
from simenv.client.qpm.identity import as_qpm_error
from simenv.client.qpm.status import QpmBinding
from simenv.client.qpm.submitter import MAX_ASKED
from simenv.config import application
from simenv.errors import InsufficientError, NotReservedError, SimenvError
from simenv.model import AdmissionReason, Decision as Verdict, ReservationInfo
from simenv.model.reservations import MAX_LABEL_CHARS
from simenv.qpm import answers
from simenv.qpm.contract import ExecutionError, UnknownObjectError
from simenv.qpm.envelopes import Reason, ServiceState, plain
from simenv.wire.messages import admin

REJECTED = "rejected"

Plain = dict[str, Any]


class AdmissionBinding(QpmBinding):
    """Methods of the binding. Thread-safe. `state`: returns the state of this QPM; reservations are
    refused during a shutdown."""

    def evaluate(self, token: str | None = None, request: Plain | None = None) -> Plain:
        """Return the decision that `reserve` would take, without a reservation."""
        return plain(self._decide(requests.request_of(request), dry=True))

    def reserve(self, token: str | None = None, request: Plain | None = None) -> Plain:
        """Return the decision on a request. An accepted reservation is active. A repeated
        `request_id` returns the same reservation while it lives."""
        return plain(self._decide(requests.request_of(request), dry=False))

    def renew(
        self,
        token: str | None = None,
        reservation_id: int | None = None,
        request: Plain | None = None,
    ) -> Plain:
        """Extend a reservation: it expires `ttl_ns` from now by the service's clock; without
        `ttl_ns`, after its original duration. Raises ExecutionError if the reservation has
        ended."""
        number = _number(reservation_id)
        wishes = requests.optional_table("request", request)
        for name in ("ttl_ns", "now_ns"):
            if wishes.get(name) is not None:
                requests.integer(name, wishes[name], 0, requests.MOST)
        renew = partial(admin.Renew, reservation=number, ttl_ns=wishes.get("ttl_ns") or 0)
        try:
            self._session.request(admin.Reservations, renew)
        except NotReservedError as error:
            self._find(number)
            message = error.message
            raise ExecutionError(message, reason=Reason.RESERVATION_NOT_ACTIVE) from error
        except SimenvError as error:
            raise as_qpm_error(error) from error
        return plain(answers.Changed("accepted", number))

    def release(
        self,
        token: str | None = None,
        reservation_id: int | None = None,
        reason: str | int | None = None,
    ) -> Plain:
        """End a reservation: waiting tasks are cancelled, running tasks may finish; the answer is
        "pending" while they run. `reason`: a text or a scheduler's reason code. Idempotent."""
        return self._end(reservation_id, reason, cancel=False)

    def cancel(
        self,
        token: str | None = None,
        reservation_id: int | None = None,
        reason: str | int | None = None,
    ) -> Plain:
        """End a reservation as `release` does, and cancel its running tasks as well."""
        return self._end(reservation_id, reason, cancel=True)

    def get_reservation(self, token: str | None = None, reservation_id: int | None = None) -> Plain:
        """Record of a reservation, up to an hour after its end."""
        return plain(self._record(self._find(_number(reservation_id))))

    def list_reservations(
        self, token: str | None = None, filters: Plain | None = None
    ) -> list[Plain]:
        """Records of the reservations that the caller may see. `filters`: values of record
        fields."""
        wanted = {
            k: v for k, v in requests.optional_table("filters", filters).items() if v is not None
        }
        if "device_id" in wanted:
            try:
                device = self._targets.device(wanted["device_id"])
            except UnknownObjectError:
                return []
            wanted["device_id"] = self._targets.contract_name(device)
        infos = self._ask(admin.Reservations, admin.GetReservations).reservations
        records = [plain(self._record(info)) for info in infos]
        return [
            record for record in records if all(_same(record.get(k), v) for k, v in wanted.items())
        ]

    # ------------------------------------------------------------------------------------------

    def _decide(self, request: Plain, *, dry: bool) -> answers.AdmissionDecision:
        state = self._state
        if state is not ServiceState.RUNNING:
            return self._quiescing(request, state)
        device = ""
        try:
            device = self._targets.device(requests.device_of(request))
            ask = requests.read_reservation(request, device, application())
        except UnknownObjectError as error:
            return self._rejected(request, device, AdmissionReason.DEVICE_NOT_FOUND, str(error))
        except ExecutionError as error:
            return self._rejected(request, device, AdmissionReason.INVALID_REQUEST, str(error))
        try:
            verdict = self._session.request(
                admin.DecisionReply, partial(admin.Reserve, ask=ask, dry=dry)
            ).decision
        except InsufficientError:  # the service behind is going down
            return self._quiescing(request, ServiceState.DRAINING)
        except SimenvError as error:
            raise as_qpm_error(error) from error
        return self._decision(request, device, verdict, dry=dry)

    def _decision(
        self, request: Plain, device: str, verdict: Verdict, *, dry: bool
    ) -> answers.AdmissionDecision:
        return answers.AdmissionDecision(
            status=verdict.status,
            decision=answers.DECISIONS[verdict.status],
            request_id=_request_name(request.get("request_id")),
            device_id=self._targets.contract_name(device),
            scope_id=_request_name(request.get("scope_id")),
            reservation_id=None if dry else verdict.reservation or None,
            reason=answers.reason_text(verdict.code),
            reason_code=verdict.code,
            credits_required=verdict.credits_required,
            rate_required=verdict.rate_required,
            capacity_available=verdict.capacity_available,
            estimated_total_ns=verdict.estimated_total_ns,
            estimated_start_ns=verdict.estimated_start_ns,
            estimated_finish_ns=verdict.estimated_finish_ns,
            retry_after_ns=verdict.retry_after_ns,
            message=verdict.message,
            bound_ns=verdict.bound_ns,
        )

    def _rejected(
        self, request: Plain, device: str, code: AdmissionReason, message: str
    ) -> answers.AdmissionDecision:
        return self._decision(request, device, Verdict(REJECTED, code, message), dry=True)

    def _quiescing(self, request: Plain, state: ServiceState) -> answers.AdmissionDecision:
        message = "nothing is reserved any more: the QPM is being shut down"
        result = self._rejected(request, "", AdmissionReason.DEVICE_UNAVAILABLE, message)
        return msgspec.structs.replace(result, reason=Reason.QUIESCING, state=state)

    def _end(self, reservation_id: Any, reason: Any, *, cancel: bool) -> Plain:
        number = _number(reservation_id)
        text = requests.reason_text(reason)
        self._reservation_checks.changed(number)
        ask = partial(admin.Release, reservation=number, reason=text, cancel=cancel)
        try:
            running = self._session.request(admin.Released, ask).running
        except SimenvError as error:
            raise _of_one(error) from error
        self._reservation_checks.ended(number)
        if not running:
            return plain(answers.Changed("accepted", number))
        qtask_ids = {run.number for run in self._registry.numbers_of(running).values()}
        return plain(answers.Changed("pending", number, Reason.CANCEL_PENDING, sorted(qtask_ids)))

    def _find(self, number: int) -> ReservationInfo:
        try:
            ask = partial(admin.GetReservations, reservation=number)
            return self._session.request(admin.Reservations, ask).reservations[0]
        except SimenvError as error:
            raise _of_one(error) from error

    def _record(self, info: ReservationInfo) -> answers.ReservationRecord:
        return answers.ReservationRecord(
            reservation_id=info.id,
            request_id=info.request_id or None,
            device_id=self._targets.contract_name(info.device),
            scope_id=info.scope or None,
            user_id=info.user or info.owner or None,
            job_id=info.job or None,
            workload_kind=info.workload_kind,
            state=info.state,
            state_code=answers.STATE_CODES[info.state],
            credits_reserved=info.credits_reserved,
            credits_consumed=info.credits_consumed,
            rate_reserved=info.rate_reserved,
            rate_consumed=info.rate_consumed,
            quantum_budget_ns=info.quantum_budget_ns,
            estimated_total_ns=info.estimated_total_ns,
            actual_total_ns=info.actual_total_ns,
            created_at_ns=info.created_ns,
            expires_at_ns=info.expires_ns,
            request_metadata=dict(info.metadata),
        )


def _of_one(error: SimenvError) -> SimenvError:
    """Convert a refusal that concerns one reservation."""
    if isinstance(error, NotReservedError):
        return UnknownObjectError(error.message, hint="list_reservations() shows yours")
    return as_qpm_error(error)


def _number(reservation_id: Any) -> int:
    number = requests.reservation(reservation_id)
    if number is None:
        raise ExecutionError("reservation_id is missing", reason=Reason.RESERVATION_REQUIRED)
    if number > MAX_ASKED:
        raise UnknownObjectError(
            f"there is no reservation {number}", hint="list_reservations() shows yours"
        )
    return number


def _request_name(value: Any) -> str | None:
    """Name from a request, as the decision repeats it."""
    if isinstance(value, str) and value:
        return value[:MAX_LABEL_CHARS]
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number and abs(value) <= requests.MOST else None


def _same(actual: Any, wanted: Any) -> bool:
    """Compare a record's field with a filter; a name matches its number."""
    number = isinstance(wanted, int) and not isinstance(wanted, bool)
    number = number and abs(wanted) <= requests.MOST
    return bool(actual == (str(wanted) if number and isinstance(actual, str) else wanted))
