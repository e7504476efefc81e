"""QPM (quantum platform manager) of a Client in both revisions, with the contract's methods only.

`SingleQPM` is revision 1: one class, plain records, and an error where a completion is not ready.
`QPM`, which is `Client.qpm`, has the methods of the six bindings of revision 2. Its `revision1` is
the same pool as the single class of revision 1, with its own completions and without reservations;
`connection` makes another such object for each client. A host gets one of the two revisions. All
requests go through the Client.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any, TypeVar

from simenv.client.qpm import circuit_run, notifications, programs, requests
from simenv.client.qpm.admission import AdmissionBinding
from simenv.client.qpm.completion_queues import CircuitRegistry, CompletionRetention, RetiredCircuit
from simenv.client.qpm.event_delivery import Delivery
from simenv.client.qpm.execution import ExecutionBinding
from simenv.client.qpm.identity import Audit, QPMIdentity, Targets, TokenGuard, read_token
from simenv.client.qpm.scheduler import PolicyBinding, SchedulerBinding
from simenv.client.qpm.status import QpmBinding, StatusQueries
from simenv.client.qpm.submitter import CircuitSubmitter, ReservationChecks, TaskClient, failure
from simenv.client.qpm.telemetry import ControlBinding, TelemetryBinding
from simenv.errors import NotFoundError, OptionError
from simenv.qpm import contract, envelopes, methods

if TYPE_CHECKING:
    from simenv.client.connection.session import ServiceSession

__all__ = ["QPM", "read_token"]

Plain = dict[str, Any]
EVICTED = (envelopes.Reason.TOO_OLD, envelopes.Reason.TOO_MANY, envelopes.Reason.TOO_LARGE)


class SingleQPM:
    """QPM of revision 1 for a pool. Thread-safe."""

    def __init__(
        self,
        submitter: CircuitSubmitter,
        notifier: notifications.CompletionNotifier,
        device_events: notifications.DeviceEventNotifier,
        identity: QPMIdentity,
    ) -> None:
        self._device_events = device_events
        self._submitter = submitter
        self._registry = submitter.registry
        self._notifier = notifier
        self._identity = identity

    def query(self) -> contract.ServiceRecord:
        """Service record for hosts that look for a QPM."""
        return self._identity.record(type(self), with_properties=False)

    def reserve(self, svc: Any, client_ep: Any, *args: Any, **kwargs: Any) -> None:
        """Accept a client; no capacity is set aside for it."""

    def release(self, services: Any = None) -> None:
        """End a client's use; its circuits go on."""

    def test(self) -> str:
        """Return a text that names the QPM; no circuit is submitted."""
        return f"simenv QPM {self._identity.target_id}"

    def is_ready(self) -> bool:
        """Return True if a pool can run circuits. Raises NotReadyError."""
        if not self._identity.is_available():
            message = f"no pool of {self._identity.target_id!r} can run a circuit yet"
            raise contract.NotReadyError(message, hint="simenv status says why")
        return True

    def sync_run(self, info: Plain) -> Plain:
        """Run a circuit and return its record. Raises ExecutionError if it is refused or fails."""
        run = self._submitter.start(info, queued=False)
        try:
            self._submitter.wait(run, None)
        except BaseException:
            self._registry.queue_from_now_on(run)  # interrupted: what comes of it is not lost
            raise
        outcome = circuit_run.outcome_of(run)
        self._registry.close(run, envelopes.Reason.RETURNED)
        if outcome.error is not None:
            raise failure(outcome.error)
        return circuit_run.revision1_record(run, outcome)

    def async_run(self, info: Plain) -> str:
        """Submit a circuit and return its cid. A refused circuit has a cid too, and a record with
        `rc` not 0."""
        return self._submitter.start(info, queued=True).cid

    def read_cq(self, cid: str | None = None) -> Plain:
        """Read and remove the record of `cid`, else the oldest one. Raises InProgressError if it is
        not ready, ExecutionError if it was evicted."""
        run = self._finished(cid)
        taken = self._registry.take(run.cid)
        if taken is None:
            raise _in_progress(cid)
        now_s = time()
        record = circuit_run.revision1_record(taken, dequeued_s=now_s)
        self._registry.close(taken, envelopes.Reason.READ, now_s)
        return record

    def peek_cq(self, cid: str | None = None) -> Plain:
        """Read a record as `read_cq` does, without removing it."""
        return circuit_run.revision1_record(self._finished(cid))

    def delete_circuit(self, cid: str) -> None:
        """Cancel and forget a circuit; an unknown cid is no error."""
        self._submitter.delete(cid)

    def register_event_notification(
        self, ep: contract.EventEndpoint, evtype: int | str, class_id: str
    ) -> None:
        """Register the endpoint to which later records are put in place of the queue; a new
        registration replaces the last one.

        `evtype` of DEVICE_EVENTS: events of the device are put there, and records stay queued. A
        record whose `put` raises is queued.
        """
        registration = notifications.EventSubscription.of(ep, evtype, class_id)
        if evtype in notifications.DEVICE_EVENTS:
            self._device_events.register(registration)
        else:
            self._notifier.register(registration)

    def expire(self) -> bool:
        """Evict completions whose retention time has passed. True if no circuit is left and none
        was evicted unread."""
        return self._registry.expire() and not self._registry.has_gone(EVICTED)

    def shutdown(self) -> None:
        """End this client's queue, registration and cids. Running circuits go on; the pool and
        other clients are not affected."""
        self._notifier.close()
        self._device_events.close()
        self._registry.clear()

    def _finished(self, cid: Any) -> circuit_run.CircuitRun:
        if cid is not None:
            requests.text("cid", cid)
        self._submitter.look()
        run = self._registry.first(cid)
        if run is None:
            gone = None if cid is None else self._registry.find(cid)
            if isinstance(gone, RetiredCircuit) and gone.reason in EVICTED:
                message = f"the completion of circuit {cid} is no longer kept: {gone.reason}"
                hint = "read completions sooner, or register for events"
                raise contract.ExecutionError(message, hint=hint)
            raise _in_progress(cid)
        return run


def _in_progress(cid: str | None) -> contract.InProgressError:
    if cid is None:
        return contract.InProgressError("no completion waits to be read", hint="ask again")
    return contract.InProgressError(f"circuit {cid} has no completion to read", hint="ask again")


Q = TypeVar("Q", bound=QpmBinding)
# Reading an evicted completion is an error.
SINGLE_RETENTION = CompletionRetention(count=65_536, size_bytes=2**30)


def _token_checked(kind: type[Q]) -> type[Q]:
    """Make each call of the contract check its token first."""
    for name, arguments in methods.revision2_methods().items():
        place = [argument for argument, _ in arguments].index("token")
        setattr(kind, name, _with_token_check(getattr(kind, name), place))
    return kind


def _with_token_check(method: Callable[..., Any], place: int) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: QPM, *args: Any, **named: Any) -> Any:
        token = args[place] if len(args) > place else named.get("token")
        self._token_guard.check(token)
        return method(self, *args, **named)

    return call


@_token_checked
class QPM(
    ExecutionBinding,
    AdmissionBinding,
    PolicyBinding,
    SchedulerBinding,
    TelemetryBinding,
    ControlBinding,
):
    """One object with all bindings of revision 2. Thread-safe.

    `required`: calls that consume capacity must name a reservation. `token`: every call must carry
    it. `pool`: the pool that the QPM stands for and where its circuits run; "": the environment.
    `widest`: limit of a statevector, in qubits. `retention`: bounds of unread completions.
    """

    def __init__(
        self,
        client: TaskClient,
        session: ServiceSession,
        *,
        required: bool = False,
        token: str | None = None,
        pool: str = "",
        widest: int = programs.MAX_STATEVECTOR_QUBITS,
        retention: CompletionRetention | None = None,
    ) -> None:
        self._session, self._client, self._widest = session, client, widest
        self._delivery = Delivery(session)
        self._identity = QPMIdentity(session, pool)
        self._targets = Targets(session, self._identity)
        self._token_guard, self._audit = TokenGuard(token), Audit()
        self._registry = CircuitRegistry(session, retention or CompletionRetention())
        self._reservation_checks = ReservationChecks(
            session, required=required, over=self._registry.closed
        )
        self._submitter = CircuitSubmitter(
            client, self._registry, self._reservation_checks, pool, widest
        )
        self._status_queries = StatusQueries(session, self._submitter, self._reservation_checks)
        self._notifier = notifications.CompletionNotifier(
            session, self._registry, circuit_run.revision2_record, self._delivery, alone=False
        )
        self._device_events = notifications.DeviceEventNotifier(session, self._delivery, pool)
        self.revision1 = self.connection()

    def connection(self) -> SingleQPM:
        """Make a further client of revision 1, with its own queue, registration and circuits, which
        end with `shutdown`. Starts no thread and sends no request."""
        session, device = self._session, self._identity.device
        registry = CircuitRegistry(session, SINGLE_RETENTION)
        checks = ReservationChecks(session, required=False)
        return SingleQPM(
            CircuitSubmitter(self._client, registry, checks, device, self._widest),
            notifications.CompletionNotifier(
                session, registry, circuit_run.revision1_record, self._delivery, alone=True
            ),
            notifications.DeviceEventNotifier(session, self._delivery, device),
            self._identity,
        )

    def query(self) -> contract.ServiceRecord:
        """Service record for hosts that look for a QPM."""
        return self._identity.record(type(self), with_properties=True)

    def __repr__(self) -> str:
        return f"<QPM {self._identity.target_id} | {self._state}>"


def configured(
    client: TaskClient,
    session: ServiceSession,
    pools: Callable[[], Iterable[str]],
    pool: str | None,
    reservations: str,
    token_file: str | Path | None,
    statevector_qubits: int,
    retention: CompletionRetention | None,
) -> QPM:
    """Make a QPM from the options of `Client.qpm_with`. `pools`: returns the names of all pools.
    Raises OptionError, ConfigError, NotFoundError."""
    if reservations not in ("optional", "required"):
        message = f"reservations={reservations!r:.80}"
        raise OptionError(message, hint="optional or required")
    if not 0 <= statevector_qubits <= 20:
        raise OptionError(f"statevector_qubits={statevector_qubits!r:.80}", hint="0 to 20")
    if pool is not None and pool not in (there := list(pools())):
        raise NotFoundError(f"no pool {pool!r:.80} here", hint=f"there are: {', '.join(there)}")
    token = None if token_file is None else read_token(Path(token_file))
    return QPM(
        client, session, required=reservations == "required", token=token, pool=pool or "",
        widest=statevector_qubits, retention=retention,
    )  # fmt: skip
