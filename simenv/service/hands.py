"""What the machine decided, done outside of it: messages, processes, endings, the event log.

Invariant: called from the loop's thread between two commits; what it leaves in `results` may be
sent only when the next commit has succeeded.
"""

from __future__ import annotations

import logging
import time

from simenv.model import Event, task_number
from simenv.scheduler.state import State
from simenv.scheduler.values import (
    Action,
    Ending,
    KillWorker,
    Note,
    RetireWorker,
    SetThreads,
    StartWorker,
    StopRunning,
)
from simenv.service.completions import Completions
from simenv.service.journal import Journal
from simenv.service.pools import WorkerProcesses
from simenv.wire import codec
from simenv.wire import messages as m
from simenv.wire.connection import Door, Doors

log = logging.getLogger("simenv.service")


class Hands:
    """Carries out actions in their order."""

    def __init__(
        self,
        state: State,
        journal: Journal,
        doors: Doors,
        workers: WorkerProcesses,
        completions: Completions,
    ) -> None:
        self._state = state
        self._journal = journal
        self._doors = doors
        self._workers = workers
        self._completions = completions
        self.next_event = journal.records.last_event() + 1
        self.results: list[tuple[bytes, bytes]] = []  # (peer, message) for after the commit

    def carry_out(self, actions: list[Action]) -> None:
        """What the machine wants done outside itself."""
        endings = [action for action in actions if type(action) is Ending]
        if endings:
            self.results += self._completions.from_here(endings)
        for action in actions:
            if type(action) is Note:
                self.note(action.kind, action.subject, action.message, action.owner)
            elif type(action) is StartWorker:
                self._start(action)
            elif type(action) is StopRunning:
                stop = m.StopTask(action.task, action.fence, action.reason)
                self._tell(action.worker, stop)
            elif type(action) is SetThreads:
                told = m.SetTaskThreads(action.task, action.fence, action.slots)
                self._tell(action.worker, told)
            elif type(action) is RetireWorker:
                self.note("worker.retired", action.worker, action.reason)
                self._tell(action.worker, m.StopWorker(action.reason))
            elif type(action) is KillWorker:
                self.note("worker.killed", action.worker, action.reason)
                self._workers.kill(action.worker)

    def note(self, kind: str, subject: str, message: str, owner: str = "") -> None:
        """A line in the event log, the journal and the service's log. `owner`: see Note."""
        record = self._state.tasks.get(task_number(subject) or 0)
        event = Event(self.next_event, time.time(), kind, subject, message)
        self._journal.event(event, owner or (record.batch.owner if record is not None else ""))
        self.next_event += 1
        log.info("%s %s %s", kind, subject, message)

    def _start(self, action: StartWorker) -> None:
        trouble = self._workers.start(action, self._state.pools[action.pool].spec)
        if trouble:
            now_ns = time.monotonic_ns()
            self.carry_out(self._state.lost(action.worker, action.start, trouble, now_ns))
        else:
            self.note("worker.started", action.worker, f"pool {action.pool}{_where(action)}")

    def _tell(self, worker: str, message: m.ToWorker) -> None:
        self._doors.send(Door.WORKER, self._workers.control_peer(worker), codec.encode(message))


def _where(action: StartWorker) -> str:
    """ " on node1 (2 ranks), node2 (2 ranks)"; "" for one rank on the service's own node."""
    words = [f"{share.node} ({share.ranks} ranks)" for share in action.shares if share.node]
    if sum(share.ranks for share in action.shares) == 1:
        words = [share.node for share in action.shares if share.node]
    return f" on {', '.join(words)}" if words else ""
