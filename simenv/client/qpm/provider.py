"""QPM (quantum platform manager) of a Client: `Client.qpm`, with the contract's methods only.

The object has the methods of the six bindings of revision 2. `revision1` is the same pool as the
single class of revision 1, with its own completions and without reservations; `connection` makes
another such object for each client. A host gets one of the two revisions. All requests go through
the Client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from simenv.client.qpm.answers import envelopes
from simenv.client.qpm.answers.status import StatusQueries
from simenv.client.qpm.bindings.admission import AdmissionBinding
from simenv.client.qpm.bindings.control import ControlBinding
from simenv.client.qpm.bindings.execution import ExecutionBinding
from simenv.client.qpm.bindings.policy import PolicyBinding
from simenv.client.qpm.bindings.revision1 import SingleQPM
from simenv.client.qpm.bindings.scheduler import SchedulerBinding
from simenv.client.qpm.bindings.telemetry import TelemetryBinding
from simenv.client.qpm.requests.run_request import MAX_STATEVECTOR_QUBITS
from simenv.client.qpm.runtime.calls import Audit, TokenGuard, read_token
from simenv.client.qpm.runtime.completion_queues import CircuitRegistry, CompletionRetention
from simenv.client.qpm.runtime.device_events import DeviceEventNotifier
from simenv.client.qpm.runtime.event_delivery import Delivery
from simenv.client.qpm.runtime.identity import QPMIdentity, Targets
from simenv.client.qpm.runtime.notifications import CompletionNotifier
from simenv.client.qpm.runtime.reservations import ReservationChecks
from simenv.client.qpm.runtime.submitter import CircuitSubmitter, TaskClient
from simenv.errors import NotFoundError, OptionError
from simenv.qpm.service import ServiceRecord

__all__ = ["QPM", "read_token"]

if TYPE_CHECKING:
    from simenv.client.connection.session import ServiceSession

SINGLE_RETENTION = CompletionRetention(
    count=65_536, size_bytes=2**30
)  # reading an evicted completion is an error


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
        widest: int = MAX_STATEVECTOR_QUBITS,
        retention: CompletionRetention | None = None,
    ) -> None:
        identity, audit, token_guard = QPMIdentity(session, pool), Audit(), TokenGuard(token)
        registry = CircuitRegistry(session, retention or CompletionRetention())
        reservation_checks = ReservationChecks(session, required=required, over=registry.closed)
        submitter, targets = (
            CircuitSubmitter(client, registry, reservation_checks, pool, widest),
            Targets(session, identity),
        )
        self._delivery = Delivery(session)
        notifier = CompletionNotifier(
            session, registry, envelopes.revision2, self._delivery, alone=False
        )
        status_queries = StatusQueries(session, submitter, reservation_checks)
        ExecutionBinding.__init__(
            self,
            token_guard,
            reservation_checks,
            submitter,
            status_queries,
            notifier,
            DeviceEventNotifier(session, self._delivery, pool),
        )
        AdmissionBinding.__init__(
            self, session, token_guard, reservation_checks, targets, registry, lambda: self._state
        )
        PolicyBinding.__init__(self, session, token_guard, targets)
        SchedulerBinding.__init__(self, session, token_guard, targets, registry, audit)
        TelemetryBinding.__init__(self, session, token_guard, identity, targets, audit)
        ControlBinding.__init__(
            self, session, token_guard, reservation_checks, submitter, identity, audit
        )
        self._client, self._session, self._widest = client, session, widest
        self.revision1 = self.connection()

    def connection(self) -> SingleQPM:
        """Make a further client of revision 1, with its own queue, registration and circuits, which
        end with `shutdown`. Starts no thread and sends no request."""
        session, identity = self._session, self._identity
        registry, reservation_checks = (
            CircuitRegistry(session, SINGLE_RETENTION),
            ReservationChecks(session, required=False),
        )
        submitter = CircuitSubmitter(
            self._client, registry, reservation_checks, identity.device, self._widest
        )
        notifier = CompletionNotifier(
            session, registry, envelopes.revision1, self._delivery, alone=True
        )
        events = DeviceEventNotifier(session, self._delivery, identity.device)
        return SingleQPM(submitter, notifier, events, identity)

    def query(self) -> ServiceRecord:
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
        client,
        session,
        required=reservations == "required",
        token=token,
        pool=pool or "",
        widest=statevector_qubits,
        retention=retention,
    )
