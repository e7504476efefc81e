"""Revision 1: one class, plain records, and errors where something is not there yet."""

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
    """The pool as a host of revision 1 drives it. Thread-safe."""

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
        """What this is, for whoever looks for a QPM."""
        return self._identity.record(type(self), with_properties=False)

    def reserve(self, svc: Any, client_ep: Any, *args: Any, **kwargs: Any) -> None:
        """A client has come; nothing is set aside for it."""

    def release(self, services: Any = None) -> None:
        """A client has gone; what it asked for goes on."""

    def test(self) -> str:
        """Answers; submits nothing."""
        return f"simenv QPM {self._identity.target_id}"

    def is_ready(self) -> bool:
        """True, or NotReadyError."""
        if not self._identity.is_available():
            raise NotReadyError(
                f"no pool of {self._identity.target_id!r} can run a circuit yet",
                hint="simenv status says why",
            )
        return True

    def sync_run(self, info: Plain) -> Plain:
        """The record; ExecutionError where the circuit is refused or fails."""
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
        """Its cid, at once. A circuit that is refused has one too, and a record with `rc` not 0."""
        return self._submitter.start(info, queued=True).cid

    def read_cq(self, cid: str | None = None) -> Plain:
        """The finished record of that name, else the oldest, and off the queue; or InProgressError.
        ExecutionError for one that was evicted."""
        run = self._finished(cid)
        taken = self._registry.take(run.cid)
        if taken is None:
            raise _in_progress(cid)
        now_s = time()
        record = envelopes.revision1(taken, dequeued_s=now_s)
        self._registry.close(taken, Reason.READ, now_s)
        return record

    def peek_cq(self, cid: str | None = None) -> Plain:
        """As `read_cq`; it stays."""
        return envelopes.revision1(self._finished(cid))

    def delete_circuit(self, cid: str) -> None:
        """Stop it and forget it, also where it is not known."""
        self._submitter.delete(cid)

    def register_event_notification(
        self, ep: EventEndpoint, evtype: int | str, class_id: str
    ) -> None:
        """From now on records are put to `ep` and not queued; the last to register is the only one.
        `evtype` of DEVICE_EVENTS: events of the device are put there, beside that.

        A record whose `put` raises is queued after all.
        """
        registration = envelopes.registered(ep, evtype, class_id)
        if evtype in DEVICE_EVENTS:
            self._device_events.register(registration)
        else:
            self._notifier.register(registration)

    def expire(self) -> bool:
        """Let go of completions that were kept for as long as they are kept. True: nothing is left
        that could be read, will end, or was evicted unread."""
        return self._registry.expire() and not self._registry.has_gone(EVICTED)

    def shutdown(self) -> None:
        """This client leaves: its queue, its registration and its circuits' names end. What runs
        goes on; the pool and all others stay."""
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
