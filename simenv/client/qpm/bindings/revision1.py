"""Revision 1: one class, plain records, and an error where a completion is not ready."""

from __future__ import annotations

from time import time
from typing import Any

from simenv.client.qpm.answers import envelopes
from simenv.client.qpm.requests import arguments
from simenv.client.qpm.runtime.circuit_run import CircuitRun
from simenv.client.qpm.runtime.completion_queues import RetiredCircuit
from simenv.client.qpm.runtime.device_events import DEVICE_EVENTS, DeviceEventNotifier
from simenv.client.qpm.runtime.identity import QPMIdentity
from simenv.client.qpm.runtime.notifications import CompletionNotifier
from simenv.client.qpm.runtime.submitter import CircuitSubmitter, failure
from simenv.errors import NoServiceError
from simenv.qpm.bindings import EventEndpoint
from simenv.qpm.errors import ExecutionError, InProgressError, NotReadyError
from simenv.qpm.service import ServiceRecord
from simenv.qpm.states import Reason

Plain = dict[str, Any]
EVICTED = (Reason.TOO_OLD, Reason.TOO_MANY, Reason.TOO_LARGE)


class SingleQPM:
    """QPM of revision 1 for a pool. Thread-safe."""

    def __init__(
        self,
        submitter: CircuitSubmitter,
        notifier: CompletionNotifier,
        device_events: DeviceEventNotifier,
        identity: QPMIdentity,
    ) -> None:
        self._device_events = device_events
        self._submitter = submitter
        self._registry = submitter.registry
        self._notifier = notifier
        self._identity = identity

    def query(self) -> ServiceRecord:
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
            raise NotReadyError(
                f"no pool of {self._identity.target_id!r} can run a circuit yet",
                hint="simenv status says why",
            )
        return True

    def sync_run(self, info: Plain) -> Plain:
        """Run a circuit and return its record. Raises ExecutionError if it is refused or fails."""
        run = self._submitter.start(info, queued=False)
        try:
            self._submitter.wait(run, None)
        except BaseException:
            self._registry.queue_from_now_on(run)  # interrupted: what comes of it is not lost
            raise
        result = envelopes.find(run)
        self._registry.close(run, Reason.RETURNED)
        if result.error is not None:
            raise failure(result.error)
        return envelopes.revision1(run, result)

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
        record = envelopes.revision1(taken, dequeued_s=now_s)
        self._registry.close(taken, Reason.READ, now_s)
        return record

    def peek_cq(self, cid: str | None = None) -> Plain:
        """Read a record as `read_cq` does, without removing it."""
        return envelopes.revision1(self._finished(cid))

    def delete_circuit(self, cid: str) -> None:
        """Cancel and forget a circuit; an unknown cid is no error."""
        self._submitter.delete(cid)

    def register_event_notification(
        self, ep: EventEndpoint, evtype: int | str, class_id: str
    ) -> None:
        """Register the endpoint to which later records are put in place of the queue; a new
        registration replaces the last one.

        `evtype` of DEVICE_EVENTS: events of the device are put there, and records stay queued. A
        record whose `put` raises is queued.
        """
        registration = envelopes.registered(ep, evtype, class_id)
        if evtype in DEVICE_EVENTS:
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

    def _finished(self, cid: Any) -> CircuitRun:
        if cid is not None:
            arguments.text("cid", cid)
        try:
            self._registry.look()
        except NoServiceError as error:
            raise NotReadyError(error.message, hint=error.hint) from error
        run = self._registry.first(cid)
        if run is None:
            gone = None if cid is None else self._registry.find(cid)
            if isinstance(gone, RetiredCircuit) and gone.reason in EVICTED:
                raise ExecutionError(
                    f"the completion of circuit {cid} is no longer kept: {gone.reason}",
                    hint="read completions sooner, or register for events",
                )
            raise _in_progress(cid)
        return run


def _in_progress(cid: str | None) -> InProgressError:
    if cid is None:
        return InProgressError("no completion waits to be read", hint="ask again")
    return InProgressError(f"circuit {cid} has no completion to read", hint="ask again")
