"""Binding `admission` of revision 2: reservations of the calling owner, and the parser of requests.

An invalid field of a request yields the decision `rejected` with reason 4, and an unknown device
the same with reason 2. A request that is not a table raises ExecutionError. A reservation of
another owner raises UnknownObjectError, as if it did not exist.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Any

import msgspec

from simenv.client.qpm import requests
from simenv.client.qpm.circuit_run import CircuitRun
from simenv.client.qpm.identity import as_qpm_error
from simenv.client.qpm.status import STOPPING_S, QpmBinding
from simenv.client.qpm.submitter import MAX_ASKED
from simenv.config import application
from simenv.errors import NotReservedError, ShuttingDownError, SimenvError
from simenv.model import AdmissionReason, Decision, ReservationInfo, ReservationRequest, Workload
from simenv.model.reservations import APP, MAX_LABEL_CHARS
from simenv.model.task_rules import MAX_WORKERS
from simenv.qpm import answers
from simenv.qpm.contract import ExecutionError, UnknownObjectError
from simenv.qpm.envelopes import Reason, ServiceState, plain
from simenv.wire.messages import admin

REJECTED = "rejected"
# Fields of the answers that the service's decisions and reservations have as they are.
_SAME_IN_DECISION = (
    *("status", "message", "credits_required", "rate_required", "capacity_available", "bound_ns"),
    *("estimated_total_ns", "estimated_start_ns", "estimated_finish_ns", "retry_after_ns"),
)
_SAME_IN_RECORD = (
    *("workload_kind", "state", "credits_reserved", "credits_consumed", "rate_reserved"),
    *("rate_consumed", "quantum_budget_ns", "estimated_total_ns", "actual_total_ns"),
)

Plain = dict[str, Any]


class AdmissionBinding(QpmBinding):
    """Methods of the binding. Thread-safe. `state`: returns the state of this QPM; reservations are
    refused during a shutdown."""

    def evaluate(self, token: str | None = None, request: Plain | None = None) -> Plain:
        """Return the decision that `reserve` would take, without a reservation."""
        return plain(self._decide(request_of(request), dry=True))

    def reserve(self, token: str | None = None, request: Plain | None = None) -> Plain:
        """Return the decision on a request. An accepted reservation is active. A repeated
        `request_id` returns the same reservation while it lives."""
        return plain(self._decide(request_of(request), dry=False))

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
        try:
            self._session.request(admin.Renew(0, number, wishes.get("ttl_ns") or 0))
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
        "pending" while they run. `reason`: a text or a scheduler's reason code. With a code the job
        is over: its running tasks are cancelled, and the answer waits for their end, up to
        STOPPING_S. Idempotent."""
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
        given = requests.optional_table("filters", filters)
        wanted = {k: v for k, v in given.items() if v is not None}
        if "device_id" in wanted:
            try:
                device = self._targets.device(wanted["device_id"])
            except UnknownObjectError:
                return []
            wanted["device_id"] = self._identity.contract_name(device)
        infos = self._ask(admin.GetReservations(0)).reservations
        records = [plain(self._record(info)) for info in infos]
        return [
            record
            for record in records
            if all(requests.matches(record.get(k), v) for k, v in wanted.items())
        ]

    def _decide(self, request: Plain, *, dry: bool) -> answers.AdmissionDecision:
        state = self._state
        if state is not ServiceState.RUNNING:
            return self._quiescing(request, state)
        device = ""
        try:
            device = self._targets.device(device_of(request))
            ask = read_reservation(request, device, application())
        except UnknownObjectError as error:
            return self._rejected(request, device, AdmissionReason.DEVICE_NOT_FOUND, str(error))
        except ExecutionError as error:
            return self._rejected(request, device, AdmissionReason.INVALID_REQUEST, str(error))
        try:
            answer = self._session.request(admin.Reserve(0, ask, dry=dry))
        except ShuttingDownError:
            return self._quiescing(request, ServiceState.DRAINING)
        except SimenvError as error:
            raise as_qpm_error(error) from error
        return self._decision(request, device, answer.decision, dry=dry)

    def _decision(
        self, request: Plain, device: str, verdict: Decision, *, dry: bool
    ) -> answers.AdmissionDecision:
        return answers.AdmissionDecision(
            **{name: getattr(verdict, name) for name in _SAME_IN_DECISION},
            decision=answers.DECISIONS[verdict.status],
            request_id=_request_name(request.get("request_id")),
            device_id=self._identity.contract_name(device),
            scope_id=_request_name(request.get("scope_id")),
            reservation_id=None if dry else verdict.reservation or None,
            reason=answers.reason_text(verdict.code),
            reason_code=verdict.code,
        )

    def _rejected(
        self, request: Plain, device: str, code: AdmissionReason, message: str
    ) -> answers.AdmissionDecision:
        return self._decision(request, device, Decision(REJECTED, code, message), dry=True)

    def _quiescing(self, request: Plain, state: ServiceState) -> answers.AdmissionDecision:
        message = "nothing is reserved any more: the QPM is being shut down"
        result = self._rejected(request, "", AdmissionReason.DEVICE_UNAVAILABLE, message)
        return msgspec.structs.replace(result, reason=Reason.QUIESCING, state=state)

    def _end(self, reservation_id: Any, reason: Any, *, cancel: bool) -> Plain:
        number = _number(reservation_id)
        text = requests.reason_text(reason)
        self._reservation_checks.changed(number)
        try:
            running = self._session.request(admin.Release(0, number, text, cancel)).running
        except SimenvError as error:
            raise _of_one(error) from error
        self._reservation_checks.ended(number)
        runs = list(self._registry.numbers_of(running).values())
        if isinstance(reason, int) and len(runs) == len(running):
            runs = self._stopped(runs)
            running = [task.handle.number for run in runs for task in run.tasks]
        if not running:
            return plain(answers.Changed("accepted", number))
        qtask_ids = {run.number for run in runs}
        return plain(answers.Changed("pending", number, Reason.CANCEL_PENDING, sorted(qtask_ids)))

    def _stopped(self, runs: list[CircuitRun]) -> list[CircuitRun]:
        """Cancel circuits; return those that have not ended after STOPPING_S."""
        deadline_s = monotonic() + STOPPING_S
        for run in runs:
            self._submitter.cancel(run)
        left = []
        for run in runs:
            if not self._submitter.wait(run, max(0.0, deadline_s - monotonic())):
                left.append(run)
        return left

    def _find(self, number: int) -> ReservationInfo:
        try:
            return self._session.request(admin.GetReservations(0, number)).reservations[0]
        except SimenvError as error:
            raise _of_one(error) from error

    def _record(self, info: ReservationInfo) -> answers.ReservationRecord:
        return answers.ReservationRecord(
            **{name: getattr(info, name) for name in _SAME_IN_RECORD}, reservation_id=info.id,
            request_id=info.request_id or None, device_id=self._identity.contract_name(info.device),
            scope_id=info.scope or None, user_id=info.user or info.owner or None,
            job_id=info.job or None, state_code=answers.STATE_CODES[info.state],
            created_at_ns=info.created_ns, expires_at_ns=info.expires_ns,
            request_metadata=dict(info.metadata),
        )  # fmt: skip


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
        message = f"there is no reservation {number}"
        raise UnknownObjectError(message, hint="list_reservations() shows yours")
    return number


def _request_name(value: Any) -> str | None:
    """Name from a request, as the decision repeats it."""
    if isinstance(value, str) and value:
        return value[:MAX_LABEL_CHARS]
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number and abs(value) <= requests.MOST else None


MAX_WORDS = 32  # kept of a request, with so many characters each
MAX_WORD_CHARS = 256
MAX_VALUES = 1_000  # of one table that is kept as text
_OWNER = ("user_id", "user", "username", "account")
_SIZES = {"count": "count", **{ours: theirs for theirs, ours in requests.BASELINE.items()}}
_CLASS_ID = "class_id"  # the host's own name of the class
_READ = frozenset(
    {
        "request_id", "owner", "user_id", "job_id", "scope_id", "target_device_id", "device_id",
        "workload_kind", "walltime_ns", "ttl_ns", "expiration_ttl_ns", "classical_runtime_ns",
        "overhead_ns", "task_class", "workload", "num_qubits", "num_shots", "workers", "bound_ns",
        "token", APP, *requests.ALLOCATION,
    }
)  # fmt: skip
_SECRET = ("credential", "token", "passw", "secret", "api_key", "apikey", "authorization")


def device_of(request: Mapping[str, Any]) -> Any:
    """Device id of the request, as the host wrote it."""
    target = request.get("target_device_id")
    return request.get("device_id") if target is None else target


def read_reservation(request: Mapping[str, Any], device: str, app: str) -> ReservationRequest:
    """Parse a request; all keys are optional. `device`: the service's name of the device; `app`:
    the application run that asks. Raises ExecutionError with the field, its value and the expected
    value."""
    for name in ("policy", "run_context"):
        requests.optional_table(name, request.get(name))
    if request.get("priority") is not None:
        requests.integer("priority", request["priority"], -requests.MOST, requests.MOST)
    ttl = "ttl_ns" if request.get("ttl_ns") is not None else "expiration_ttl_ns"
    kind = request.get("workload_kind")
    return ReservationRequest(
        request_id=_name("request_id", request.get("request_id")), device=device,
        scope=_name("scope_id", request.get("scope_id")), user=_user(request),
        job=_name("job_id", request.get("job_id")),
        workload_kind="quantum" if kind is None else _name("workload_kind", kind),
        ttl_ns=_figure(ttl, request.get(ttl)),
        walltime_ns=_figure("walltime_ns", request.get("walltime_ns")),
        classical_ns=_figure("classical_runtime_ns", request.get("classical_runtime_ns")),
        overhead_ns=_figure("overhead_ns", request.get("overhead_ns")), workload=_workload(request),
        workers=_figure("workers", request.get("workers"), MAX_WORKERS),
        bound_ns=_figure("bound_ns", request.get("bound_ns")),
        metadata=_unknown_fields(request, app),
    )  # fmt: skip


def _user(request: Mapping[str, Any]) -> str:
    if request.get("user_id") is not None:
        return _name("user_id", request["user_id"])
    owner = request.get("owner")
    if not isinstance(owner, dict):
        return _name("owner", owner)
    return next((_name(f"owner.{k}", owner[k]) for k in _OWNER if owner.get(k) is not None), "")


def _workload(request: Mapping[str, Any]) -> Workload:
    """Read the workload from `task_class`, else from `workload`, else from num_qubits and
    num_shots."""
    sizes = requests.optional_table("task_class", request.get("task_class"))
    others = requests.optional_table("workload", request.get("workload"))
    size_keys = (_CLASS_ID, *_SIZES.values())
    unknown = [key for key in sizes if key not in size_keys]
    if unknown:
        message = f"task_class has the key {unknown[0][:64]!r}, which is not known"
        raise ExecutionError(message, hint=f"one of: {', '.join(size_keys)}")
    last = {"qubits": "num_qubits", "shots": "num_shots"}
    entries: dict[str, int] = {}
    for ours, theirs in _SIZES.items():
        for where, table, key in (
            ("task_class.", sizes, theirs),
            ("workload.", others, theirs),
            ("", request, last.get(ours, "")),
        ):
            if table.get(key) is not None:
                least = 1 if ours == "count" else 0
                entries[ours] = requests.integer(f"{where}{key}", table[key], least, requests.MOST)
                break
    return Workload(**entries)


def _figure(what: str, value: Any, maximum: int = requests.MOST) -> int:
    return 0 if value is None else requests.integer(what, value, 0, maximum)


def _name(what: str, value: Any) -> str:
    """Read a short text, or a number as text."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= requests.MOST:
        return str(value)
    if isinstance(value, str) and len(value) <= MAX_LABEL_CHARS and requests.is_encodable(value):
        return value
    wanted = f"a text of up to {MAX_LABEL_CHARS} characters, or a number"
    raise requests.wrong(what, value, wanted)


def _unknown_fields(request: Mapping[str, Any], app: str) -> tuple[tuple[str, str], ...]:
    """Keep the identity of the allocation and the unknown fields as short texts for people to read,
    except fields that are named like a credential or a token."""
    settings = [(APP, app)] if app else []
    launcher = request.get("launcher")
    tables = (request, launcher) if isinstance(launcher, dict) else (request,)
    for name in requests.ALLOCATION:
        value = next((table[name] for table in tables if table.get(name) is not None), None)
        if value is not None:
            settings.append((name, _short(_text(value))))
    for key, value in request.items():
        if key in _READ or value is None or _is_secret(key):
            continue
        if len(settings) == MAX_WORDS:
            break
        settings.append((_short(key), _short(_text(value))))
    return tuple(settings)


def _text(value: Any) -> str:
    """Return a text as it is, and other values as JSON without secrets; the type of a value that is
    nested too deeply or has too many entries."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(_redacted(value, iter(range(MAX_VALUES))), default=_kind)
    except (TypeError, ValueError, RecursionError):
        return _kind(value)


def _is_secret(key: object) -> bool:
    name = key.lower() if isinstance(key, str) else ""
    return any(word in name for word in _SECRET)


def _redacted(value: Any, left: Iterator[int]) -> Any:
    """Copy of a value without keys that are named like a secret, at any depth. `left`: one number
    for each value that may still be copied, since lists can hold one another many times. Raises
    ValueError for more."""
    if next(left, None) is None:
        raise ValueError
    if isinstance(value, Mapping):
        return {key: _redacted(item, left) for key, item in value.items() if not _is_secret(key)}
    if isinstance(value, list | tuple):
        return [_redacted(item, left) for item in value]
    return value


def _kind(value: object) -> str:
    return f"<{type(value).__name__}>"


def _short(text: str) -> str:
    return text[:MAX_WORD_CHARS].encode("utf-8", "replace").decode()


def request_of(request: Any) -> dict[str, Any]:
    """Check that the request is a table. The error tells hosts of revision 1, whose `reserve` has
    another first argument, what is missing."""
    if request is None:
        raise ExecutionError("request is missing", hint="request={...}; every key may be left out")
    return requests.table_argument("request", request)
