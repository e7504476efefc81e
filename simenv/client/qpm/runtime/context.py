"""Parts of a QPM that its bindings share, and the base class of the bindings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simenv.qpm.states import ServiceState

if TYPE_CHECKING:
    from simenv.client.connection.session import ServiceSession
    from simenv.client.qpm.answers.status import StatusQueries
    from simenv.client.qpm.runtime.calls import Audit, TokenGuard
    from simenv.client.qpm.runtime.completion_queues import CircuitRegistry
    from simenv.client.qpm.runtime.device_events import DeviceEventNotifier
    from simenv.client.qpm.runtime.identity import QPMIdentity, Targets
    from simenv.client.qpm.runtime.notifications import CompletionNotifier
    from simenv.client.qpm.runtime.reservations import ReservationChecks
    from simenv.client.qpm.runtime.submitter import CircuitSubmitter
    from simenv.qpm.telemetry import ShutdownRequest


@dataclass(frozen=True, slots=True)
class QpmContext:
    """Parts of one QPM. `notifier`, `device_events`: of completions, and of a device's events."""

    session: ServiceSession
    identity: QPMIdentity
    targets: Targets
    token_guard: TokenGuard
    audit: Audit
    registry: CircuitRegistry
    reservation_checks: ReservationChecks
    submitter: CircuitSubmitter
    status_queries: StatusQueries
    notifier: CompletionNotifier
    device_events: DeviceEventNotifier


class QpmBinding:
    """Base of the six bindings, which are one object. The token of a call is checked before."""

    def __init__(self, context: QpmContext) -> None:
        self._context = context
        self._shutdown_request: ShutdownRequest | None = None
        self._state = ServiceState.RUNNING
