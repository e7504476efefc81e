"""QPM (quantum platform manager) of a Client: `Client.qpm`, with the contract's methods only.

The object has the methods of the six bindings of revision 2. `revision1` is the same pool as the
single class of revision 1, with its own completions and without reservations; `connection` makes
another such object for each client. A host gets one of the two revisions. All requests go through
the Client.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

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
from simenv.client.qpm.runtime.context import QpmBinding, QpmContext
from simenv.client.qpm.runtime.device_events import DeviceEventNotifier
from simenv.client.qpm.runtime.event_delivery import Delivery
from simenv.client.qpm.runtime.identity import QPMIdentity, Targets
from simenv.client.qpm.runtime.notifications import CompletionNotifier
from simenv.client.qpm.runtime.reservations import ReservationChecks
from simenv.client.qpm.runtime.submitter import CircuitSubmitter, TaskClient
from simenv.errors import NotFoundError, OptionError
from simenv.qpm.bindings import revision2_methods
from simenv.qpm.service import ServiceRecord

__all__ = ["QPM", "read_token"]

if TYPE_CHECKING:
    from simenv.client.connection.session import ServiceSession

Q = TypeVar("Q", bound=QpmBinding)
SINGLE_RETENTION = CompletionRetention(
    count=65_536, size_bytes=2**30
)  # reading an evicted completion is an error


def _token_checked(kind: type[Q]) -> type[Q]:
    """Make each call of the contract check its token first."""
    for name, arguments in revision2_methods().items():
        place = [argument for argument, _ in arguments].index("token")
        setattr(kind, name, _with_token_check(getattr(kind, name), place))
    return kind


def _with_token_check(method: Callable[..., Any], place: int) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: QPM, *args: Any, **named: Any) -> Any:
        token = args[place] if len(args) > place else named.get("token")
        self._context.token_guard.check(token)
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
        widest: int = MAX_STATEVECTOR_QUBITS,
        retention: CompletionRetention | None = None,
    ) -> None:
        identity, delivery = QPMIdentity(session, pool), Delivery(session)
        registry = CircuitRegistry(session, retention or CompletionRetention())
        checks = ReservationChecks(session, required=required, over=registry.closed)
        submitter = CircuitSubmitter(client, registry, checks, pool, widest)
        super().__init__(
            QpmContext(
                session=session,
                identity=identity,
                targets=Targets(session, identity),
                token_guard=TokenGuard(token),
                audit=Audit(),
                registry=registry,
                reservation_checks=checks,
                submitter=submitter,
                status_queries=StatusQueries(session, submitter, checks),
                notifier=CompletionNotifier(
                    session, registry, envelopes.revision2, delivery, alone=False
                ),
                device_events=DeviceEventNotifier(session, delivery, pool),
            )
        )
        self._delivery, self._client, self._widest = delivery, client, widest
        self.revision1 = self.connection()

    def connection(self) -> SingleQPM:
        """Make a further client of revision 1, with its own queue, registration and circuits, which
        end with `shutdown`. Starts no thread and sends no request."""
        session, device = self._context.session, self._context.identity.device
        registry = CircuitRegistry(session, SINGLE_RETENTION)
        checks = ReservationChecks(session, required=False)
        return SingleQPM(
            CircuitSubmitter(self._client, registry, checks, device, self._widest),
            CompletionNotifier(session, registry, envelopes.revision1, self._delivery, alone=True),
            DeviceEventNotifier(session, self._delivery, device),
            self._context.identity,
        )

    def query(self) -> ServiceRecord:
        """Service record for hosts that look for a QPM."""
        return self._context.identity.record(type(self), with_properties=True)

    def __repr__(self) -> str:
        return f"<QPM {self._context.identity.target_id} | {self._state}>"


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
