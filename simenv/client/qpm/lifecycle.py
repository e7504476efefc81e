"""The service's events under the contract's names; our own name of each stands in `details`."""

from __future__ import annotations

from simenv.model import Event
from simenv.qpm.views import LifecycleEvent

OTHER_EVENT = "service-state-change"
_NAMES = {
    "service.started": "service-restart",
    "service.listens": "service-registration",
    "service.resumed": "service-recovered",
    "service.draining": "service-shutdown-requested",
    "service.stopped": "service-deregistration",
    "allocation.ends": "service-shutdown-requested",
    "device.described": "binding-attached",
    "device.paused": "scheduler-paused",
    "device.resumed": "scheduler-resumed",
    "device.draining": "scheduler-draining",
    "device.ordered": "scheduler-policy-change",
    "device.bounded": "scheduler-dispatch-limits-change",
    "worker.lost": "peer-lost",
    "worker.killed": "service-timeout",
    "worker.ready": "service-recovered",
    "node.lost": "peer-lost",
    "node.back": "service-recovered",
    "pool.resumed": "service-recovered",
    "task.requeued": "reconciliation",
    "journal.damaged": "reconciliation-fault",
    "result.damaged": "reconciliation-fault",
    "history.removed": "retention-purge",
}


def lifecycle(target_id: str, event: Event) -> LifecycleEvent:
    """One of `target_id`'s."""
    return LifecycleEvent(
        event=_NAMES.get(event.kind, OTHER_EVENT),
        target_id=target_id,
        timestamp_ns=round(event.time_s * 1e9),
        reason=event.message or None,
        details={"kind": event.kind, "subject": event.subject, "seq": event.seq},
        source="simenv",
    )
