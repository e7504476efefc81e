"""Submission of a host's request, and the reservations that it names.

`ReservationChecks` checks existence, ownership and state of reservations. Invariant: the service
decides. The cache spares requests and never decides: the pool of a reservation and its metering do
not change; an active state is trusted for SEEN_S, and not at all where a circuit is accepted.

`CircuitSubmitter` submits for both revisions. An invalid request raises at once and leaves no
circuit. A circuit that the service refuses becomes a failed run with a completion.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic, time
from typing import Any, Protocol, Unpack

import msgspec

from simenv import errors
from simenv.client.connection.session import ServiceSession
from simenv.client.qpm import circuit_run, programs, requests
from simenv.client.qpm.completion_queues import CircuitRegistry
from simenv.client.qpm.identity import as_qpm_error, asked
from simenv.client.submission.devices import SubmitDevices
from simenv.client.submission.pulses import send_pulses
from simenv.client.submission.send import PostedTask
from simenv.client.submission.sequence_device import device_of
from simenv.client.tasks.task import Task
from simenv.model import ReservationInfo, ReservationState
from simenv.model.devices import DeviceInfo
from simenv.model.options import SubmitOptions
from simenv.qpm import contract, envelopes
from simenv.wire.messages.accounting import Accounts, GetAccounts
from simenv.wire.messages.admin import GetReservations

NONE = 0  # the number of no reservation
SEEN_S = 0.05
ACCOUNTS_S = 30.0  # age at which the accounts are requested again
KEPT = 1_024
MAX_ASKED = 2**63 - 1  # largest number of the service
LIVE = (ReservationState.PENDING, ReservationState.ACTIVE)


class ReservationRef(msgspec.Struct, frozen=True):
    """Constant part of a reservation. `metered`: its tasks may have to wait for credits;
    `account`, `qos`: named in its request, such as by a gateway of Slurm."""

    number: int
    device: str
    metered: bool
    account: str = ""
    qos: str = ""


UNCLAIMED = ReservationRef(NONE, "", metered=False)


class ReservationChecks:
    """Checks of reservations, with a cache. Thread-safe. `required`: a call that consumes capacity
    must name a reservation. `over`: called with each reservation that has ended."""

    def __init__(
        self, session: ServiceSession, *, required: bool, over: Callable[[int], None] | None = None
    ) -> None:
        self._session = session
        self._over = over
        self.required = required
        self._reservation_checks: dict[int, ReservationRef] = {}
        self._active_s: dict[int, float] = {}  # time of the last check that found it active
        self._accounts: Accounts | None = None  # that the caller may use
        self._accounts_s = 0.0  # time at which they were requested

    def claim(self, reservation_id: Any) -> ReservationRef:
        """Return the reservation of a circuit. Raises ExecutionError if one is required and
        missing, or if it does not exist or is not active."""
        number = requests.reservation(reservation_id)
        if number is None:
            if self.required:
                message, hint = "no reservation_id was given", "reserve(request={...}) gives one"
                reason = envelopes.Reason.RESERVATION_REQUIRED
                raise contract.ExecutionError(message, hint=hint, reason=reason)
            return UNCLAIMED
        existing = self._reservation_checks.get(number)
        if existing is not None:
            return existing
        self.check_active(number)
        return self._reservation_checks[number]

    def with_account(self, request: requests.Request, under: ReservationRef) -> requests.Request:
        """Return the request with the account and the class of service of its circuit: those that
        it names, else those of its reservation that the caller may use. An environment without
        accounts or classes ignores them, with a warning."""
        options, warnings = request.options, list(request.warnings)
        if not (options.get("account") or options.get("qos") or under.account or under.qos):
            return request
        now_s = monotonic()
        if self._accounts is None or now_s - self._accounts_s > ACCOUNTS_S:
            self._accounts = asked(self._session, GetAccounts(0))
            self._accounts_s = now_s
        for name, of_reservation, existing in (
            ("account", under.account, self._accounts.accounts),
            ("qos", under.qos, self._accounts.qos),
        ):
            value = options.get(name) or (of_reservation if of_reservation in existing else None)
            if value and not existing:
                warnings.append(f"info: {name} has no effect: the environment has none")
                value = None
            options = {**options, name: value}  # type: ignore[misc]
        return msgspec.structs.replace(request, options=options, warnings=tuple(warnings))

    def check(self, reservation_id: Any) -> int:
        """Return the number of an active reservation, or NONE. Raises ExecutionError."""
        number = requests.reservation(reservation_id)
        if number is None:
            return NONE
        if not self.seen_active(number):
            self.check_active(number)
        return number

    def seen_active(self, number: int) -> bool:
        """Return whether the reservation was active within the last SEEN_S."""
        seen_s = self._active_s.get(number)
        return seen_s is not None and monotonic() - seen_s < SEEN_S

    def check_active(self, number: int) -> None:
        """Raises ExecutionError with the reason if the reservation is not active."""
        info = self.find(number)
        if info is None:
            message = f"there is no reservation {number}"
            hint, reason = "list_reservations() shows yours", envelopes.Reason.RESERVATION_NOT_FOUND
            raise contract.ExecutionError(message, hint=hint, reason=reason)
        if info.state not in LIVE:
            raise contract.ExecutionError(
                f"reservation {number} is {info.state}",
                hint="reserve(request={...}) gives another",
                reason=envelopes.Reason.RESERVATION_NOT_ACTIVE,
            )

    def refusal(self, number: int, error: errors.NotReservedError) -> contract.ExecutionError:
        """Make the error of a circuit that the service refused under a reservation."""
        self.changed(number)
        try:
            self.check_active(number)
        except contract.ExecutionError as why:
            return why
        return contract.ExecutionError(
            error.message, hint=error.hint, reason=envelopes.Reason.RESERVATION_EXCEEDED
        )

    def find(self, number: int) -> ReservationInfo | None:
        """Present state of a reservation in the service; None if it does not exist or has another
        owner."""
        if number > MAX_ASKED:
            return None
        try:
            (info,) = self._session.request(GetReservations(0, number)).reservations
        except errors.NotReservedError:
            return None
        except errors.SimenvError as error:
            raise as_qpm_error(error) from error
        if len(self._reservation_checks) >= KEPT:
            self._reservation_checks.clear()
            self._active_s.clear()
        metered = info.credits_reserved > 0 or info.rate_reserved > 0
        named = dict(info.metadata)
        self._reservation_checks[number] = ReservationRef(
            *(number, info.device, metered), named.get("account", ""), named.get("qos", "")
        )
        if info.state in LIVE:
            self._active_s[number] = monotonic()
        else:
            self.ended(number)
        return info

    def changed(self, number: int) -> None:
        """Discard the cached state of a reservation."""
        self._active_s.pop(number, None)

    def ended(self, number: int) -> None:
        """Note the end of a reservation."""
        self.changed(number)
        if self._over is not None:
            self._over(number)

    def active(self) -> list[ReservationInfo]:
        """Active reservations that the caller may see."""
        result = asked(self._session, GetReservations(0)).reservations
        return [info for info in result if info.state in LIVE]


class TaskClient(Protocol):
    """Submitting part of a client; `simenv.Client` implements it."""

    def submit(self, circuit: Any, **options: Unpack[SubmitOptions]) -> Task: ...
    def post(self, circuit: Any, **options: Unpack[SubmitOptions]) -> Task: ...
    def cancel(self, tasks: Iterable[Task | str | int]) -> list[str]: ...
    @property
    def submit_devices(self) -> SubmitDevices: ...


class CircuitSubmitter:
    """Submitter of circuits. Thread-safe.

    `leaving`: the reason why no circuit is accepted any more, or None. `pool`: the pool of all
    circuits; "": the reservation or the request names it. `widest`: limit of a statevector, in
    qubits.
    """

    def __init__(
        self,
        client: TaskClient,
        registry: CircuitRegistry,
        reservation_checks: ReservationChecks,
        pool: str = "",
        widest: int = programs.MAX_STATEVECTOR_QUBITS,
    ) -> None:
        self._client = client
        self._pool = pool
        self._widest = widest
        self.registry = registry
        self._reservation_checks = reservation_checks
        self.leaving: str | None = None

    def start(
        self, info: Any, *, queued: bool, under: ReservationRef = UNCLAIMED
    ) -> circuit_run.CircuitRun:
        """Submit a circuit; the run of a refused circuit has ended already. Raises ExecutionError
        (invalid request or reservation), OutOfResourcesError, NotReadyError."""
        if self.leaving is not None:
            raise contract.ExecutionError(
                f"the QPM takes nothing new: {self.leaving}", hint="connect anew",
                reason=envelopes.Reason.DRAINING,
            )  # fmt: skip
        asked = requests.read_run(info)
        if asked.options["prefer"] and (self._pool or under.device):
            owner = "QPM" if self._pool else "reservation"
            text = f"info: prefer has no effect: the pool is the {owner}'s"
            asked = msgspec.structs.replace(asked, warnings=(*asked.warnings, text))
        asked = self._reservation_checks.with_account(asked, under)
        created_s = time()
        cid, number = str(uuid.uuid4()), self.registry.next_number()
        try:
            device = None
            if isinstance(asked.source, requests.PulseSource):
                pool = self._pool or under.device
                device = device_of({"pool": pool or None}, self._client.submit_devices)
            prepared = programs.prepare(asked, self._widest, device)
            tasks = self._submit(asked, prepared, under, device, waits=not queued)
        except (errors.NoServiceError, errors.InsufficientError) as error:
            raise as_qpm_error(error) from error
        except errors.NoDeviceError as error:
            errors.rename_options(error, requests.NAMES)
            raise contract.ExecutionError(
                f"the field {error.message}",
                hint="a QPM of a pool with an emulated device; or leave it out",
                reason=envelopes.Reason.UNSUPPORTED,
            ) from error
        except errors.NotReservedError as error:
            raise self._reservation_checks.refusal(under.number, error) from error
        except errors.SimenvError as error:
            errors.rename_options(error, requests.NAMES)
            if under.number:  # the service has not checked the reservation
                self._reservation_checks.check_active(under.number)
            run = circuit_run.refused(cid, number, asked, created_s, error, under.number)
        else:
            run = circuit_run.CircuitRun(
                cid, number, asked.shots, created_s,
                tasks=tasks,
                wants_amplitudes=asked.statevector,
                fixed=prepared.fixed,
                size_bytes=prepared.size_bytes,
                reservation=under.number,
                warnings=asked.warnings,
            )  # fmt: skip
        self.registry.enter(run, queued=queued)
        return run

    def _submit(
        self,
        asked: requests.Request,
        prepared: programs.PreparedPrograms,
        under: ReservationRef,
        device: DeviceInfo | None,
        *,
        waits: bool,
    ) -> tuple[Task, ...]:
        """Submit the programs of a request. `device`: of a pulse sequence; `waits`: the caller
        waits for the results, so that the acceptance of a single program may come with its result.
        """
        tasks: list[Task] = []
        pool = self._pool or under.device
        is_single = prepared.counts is None or prepared.amplitudes is None
        options: SubmitOptions = {
            **asked.options,
            "pool": pool or None,
            "reservation": under.number or None,
        }
        if pool:
            del options["prefer"]
        if prepared.pulses:
            of_task = {"pool": pool or None, "reservation": under.number or None}
            terms = {**programs.pulse_options(asked), **of_task}
            return tuple(send_pulses(self.registry.session, [prepared.pulses], terms, device))
        post_or_submit = self._client.post if waits and is_single else self._client.submit
        submit = partial(post_or_submit, **options)
        if prepared.counts is not None:
            tasks.append(submit(prepared.counts, shots=asked.shots, seed=asked.seed))
        if prepared.amplitudes is not None:
            try:
                tasks.append(submit(prepared.amplitudes, shots=None, outputs=("statevector",)))
            except BaseException:
                self._client.cancel(tasks)
                raise
        for task in tasks:
            try:
                _ = task.handle  # raises the refusal of a posted task
            except errors.SimenvError as error:
                if error.maybe_accepted and isinstance(task, PostedTask):
                    task.withdraw()
                raise
        return tuple(tasks)

    def look(self) -> None:
        """Process the messages that have arrived. Raises NotReadyError."""
        try:
            self.registry.look()
        except errors.NoServiceError as error:
            raise as_qpm_error(error) from error

    def wait(self, run: circuit_run.CircuitRun, timeout_s: float | None) -> bool:
        """Wait as `CircuitRun.wait`. Raises NotReadyError if the service is lost."""
        try:
            return run.wait(timeout_s)
        except errors.NoServiceError as error:
            raise as_qpm_error(error) from error

    def cancel(self, run: circuit_run.CircuitRun) -> set[str]:
        """Cancel the tasks of a run; return the service's answers: cancelled, cancelling, final,
        unknown."""
        try:
            return set(self._client.cancel(run.tasks))
        except errors.NoServiceError as error:
            raise as_qpm_error(error) from error

    def delete(self, cid: Any) -> None:
        """Cancel a circuit if it runs, and forget it; an unknown cid is no error."""
        result = self.registry.find(requests.text("cid", cid))
        if isinstance(result, circuit_run.CircuitRun):
            self.registry.drop(result)
            if not result.over:
                self.cancel(result)


def failure(error: errors.SimenvError) -> contract.ExecutionError:
    """Make the error that a waiting caller gets."""
    reason = getattr(error, "reason", "") or error.code
    return contract.ExecutionError(error.message, hint=error.hint, reason=reason)
