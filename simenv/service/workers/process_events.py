"""Ends of worker processes, and nodes that the launcher has lost or recovered."""

from __future__ import annotations

from simenv.model import WorkerState
from simenv.service.service import ServiceComponents
from simenv.wire.messages import client as m

# Not EXIT_RANK: the task may have killed the rank.
INFRASTRUCTURE_EXITS = (m.EXIT_LEASE, m.EXIT_ORPHAN)
LOG_LINE_CHARS = 300  # characters of a log's last line that become a reason


class WorkerEvents:
    """Source of events of processes and nodes for the scheduler. Used from the loop's thread."""

    def __init__(self, service: ServiceComponents) -> None:
        self._service = service

    def report(self, now_ns: int) -> None:
        """Report the events since the last tick to the scheduler, and execute its actions."""
        self._report_exits(now_ns)
        for event in self._service.workers.launcher_events():
            if event.kind == "node.lost":
                actions = self._service.scheduler.node_lost(event.subject, event.message, now_ns)
                self._service.executor.execute(actions)
            elif event.kind == "node.back":
                self._service.executor.execute(self._service.scheduler.node_back(event.subject))
            else:
                self._service.executor.record_event(event.kind, event.subject, event.message)

    def _report_exits(self, now_ns: int) -> None:
        for end in self._service.workers.exited():
            self._service.result_requests.file_worker.unfinished(f"{end.name}.{end.start}")
            tail = self._service.workers.log_tail(end.name) if end.code else ""
            blame = end.code not in INFRASTRUCTURE_EXITS and not end.infrastructure_failure
            worker, message = self._service.scheduler.state.workers.get(end.name), end.reason
            if tail and worker is not None and worker.state is WorkerState.STARTING:
                message += (
                    f": {tail.splitlines()[-1][:LOG_LINE_CHARS]}"  # the only trace of the cause
                )
            actions = self._service.scheduler.worker_lost(
                end.name, end.start, message, now_ns, tail, blame=blame
            )
            self._service.executor.execute(actions)
