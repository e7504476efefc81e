"""Execution of the scheduler's actions: messages to workers, processes, results, the event log.

Invariant: called from the loop's thread between two commits; messages in `outbox` may be sent only
after the next commit has succeeded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from simenv.model import Event, Origin, TaskOptions, TaskState, task_number
from simenv.scheduler import core
from simenv.scheduler.events.workers import kernel_bound, memory_bound
from simenv.scheduler.scheduler import Scheduler
from simenv.service.devices.drifting import DriftingDevices
from simenv.service.devices.resolve import Documents, SentDocuments
from simenv.service.hooks import EventHooks
from simenv.service.journal import reader
from simenv.service.journal.writer import Journal
from simenv.service.results.completions import Completions, HeldResults
from simenv.service.workers.processes import WorkerProcesses
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.rights import Identity
from simenv.wire.transport import sockets, zmq_transport

log = logging.getLogger("simenv.service")
# Grants no memory to kept states, so that the worker drops those that it has by a grant.
WITHOUT_TASKS = codec.encode(m.AssignChunk(1, 0, False, "", "", [], []))


def _remove_nothing(_names: list[str]) -> None:
    return None


OWN_USER = "the environment's own user"


class ActionExecutor:
    """Executor of the scheduler's actions, in order."""

    def __init__(
        self,
        scheduler: Scheduler,
        journal: Journal,
        listener: zmq_transport.Listener,
        workers: WorkerProcesses,
        completions: Completions,
        documents: Documents | None = None,
        remove_files: Callable[[list[str]], None] = _remove_nothing,
        drifting: DriftingDevices | None = None,
    ) -> None:
        """`remove_files`: removes files of discarded results."""
        self._held_results = HeldResults(scheduler.state)
        self._remove_files = remove_files
        self._documents = documents
        self.drifting = drifting
        self.hooks: EventHooks | None = None  # None: the configuration names no commands
        self._sent_documents = SentDocuments()
        self._scheduler = scheduler
        self._state = scheduler.state
        self._journal = journal
        self._listener = listener
        self._workers = workers
        self._completions = completions
        self.next_event = journal.records.last_event() + 1
        self.outbox: list[tuple[bytes, bytes]] = []  # (peer, message) for after the commit

    def execute(self, actions: Sequence[core.Action]) -> None:
        """Execute actions in order, except ends of tasks, which follow together at the end."""
        ended: list[core.TaskEnded] = []
        for action in actions:
            if type(action) is core.AssignTasks:
                if action.worker not in self._state.cluster.workers:
                    continue  # an earlier chunk did not reach it; all its tasks are queued again
                self._assign(action)
            elif type(action) is core.TaskEnded:
                ended.append(action)
            elif type(action) is core.RecordEvent:
                self.record_event(action.kind, action.subject, action.message, action.owner)
            elif type(action) is core.ChargeReserved:
                self._completions.charge_reserved(action)
            elif type(action) is core.StartWorker:
                self._start(action)
            elif type(action) is core.DropHeldResult:
                self._remove_files(self._held_results.drop(action.task))
            elif type(action) is core.StopAttempt:
                stop = m.StopTask(action.task, action.fence, action.reason)
                self._send_control(action.worker, stop)  # if it does not arrive, its grace ends
            elif type(action) is core.SetThreads:
                threads = m.SetTaskThreads(action.task, action.fence, action.slots)
                if not self._send_control(action.worker, threads):
                    self._replace(action.worker)  # its slots are granted to others
            elif type(action) is core.DropKeptStates:
                peer = self._workers.work_peer(action.worker)
                if not self._listener.send(sockets.PeerKind.WORKER, peer, WITHOUT_TASKS):
                    self._replace(action.worker)  # its memory is granted to others
            elif type(action) is core.RetireWorker:
                self.record_event("worker.retired", action.worker, action.reason)
                self._send_control(action.worker, m.StopWorker(action.reason))  # as above
            elif type(action) is core.KillWorker:
                self.record_event("worker.killed", action.worker, action.reason)
                self._workers.kill(action.worker)
            elif type(action) is core.SubmitJob and self._workers.job_nodes is not None:
                self._workers.job_nodes.submit(action)
            elif type(action) is core.EndJob and self._workers.job_nodes is not None:
                self._workers.job_nodes.end(action)
        if ended:
            self.outbox += self._completions.without_result(self._released(ended))

    def finish(
        self, origin: Origin, message: m.AttemptResults, ended: list[core.TaskEnded]
    ) -> set[int]:
        """Store the results of tasks that a worker's message ended. `origin`: the worker. Returns
        the indices of the results in it that are held."""
        if ended:
            self.outbox += self._completions.from_worker(origin, message, ended)
        return self._held_results.hold(origin, message, ended)

    def _released(self, ended: list[core.TaskEnded]) -> list[core.TaskEnded]:
        """Store the results of ended tasks whose result was held. Returns the other ends."""
        other_ends = []
        for ending in ended:
            if ending.index != core.HELD_RESULT:
                other_ends.append(ending)
                continue
            origin, message = self._held_results.take(ending)
            if ending.state is TaskState.DONE:
                results = [msgspec.structs.replace(ending, index=0)]
                self.outbox += self._completions.from_worker(origin, message, results)
                continue
            other_ends.append(ending)
            self._remove_files([result.file for result in message.results if result.file])
        return other_ends

    def record_event(self, kind: str, subject: str, message: str, owner: str = "") -> None:
        """Record an event in the journal and in the service's log. `owner`: as in RecordEvent; "":
        the owner of the task `subject`, if it is one."""
        record = self._state.tasks.get(task_number(subject) or 0)
        event = Event(self.next_event, time.time(), kind, subject, message)
        self._journal.event(event, owner or (record.batch.owner if record is not None else ""))
        self.next_event += 1
        if self.hooks is not None:
            self.hooks.notify(event)
        log.info("%s %s %s", kind, subject, message)

    def _assign(self, action: core.AssignTasks) -> None:
        """Send a chunk, and before it what its tasks need."""
        self._journal.sent([record.number for record in action.records])
        needed: list[str] = []
        body = packed(action, needed, self._emulates, self._in_force)
        worker, isolation = self._state.cluster.workers[action.worker], self._workers.isolation
        start, job = worker.start, None
        self._workers.memory_watch.set_bound(worker.name, memory_bound(worker), has_tasks=True)
        if isolation is not None:
            job = isolation.assign(action.worker, action.records, kernel_bound(worker))
        waits = job is not None or self._workers.has_unsent(action.worker)

        def send() -> None:
            present = self._state.cluster.workers.get(action.worker)
            if present is None or present.start != start:
                return  # it was lost meanwhile; all its tasks are queued again
            peer = self._workers.work_peer(action.worker)
            is_sent = self._send_documents(action.worker, peer, needed)
            # A worker without one of its documents could run none of the tasks that name it.
            if not (is_sent and self._listener.send(sockets.PeerKind.WORKER, peer, body)):
                self._replace(action.worker)
            elif waits:
                now_ns = time.monotonic_ns()
                self.execute(self._scheduler.chunk_sent(action.worker, action.records, now_ns))

        fail = partial(self._replace, action.worker)
        self._workers.when_ready(action.worker, job, send, fail)

    def _start(self, action: core.StartWorker) -> None:
        def begun(error: str) -> None:
            if error:
                now_ns = time.monotonic_ns()
                lost = self._scheduler.worker_lost(action.worker, action.start, error, now_ns)
                self.execute(lost)
            else:
                text = f"pool {action.pool}{_node_text(action)}"
                self.record_event("worker.started", action.worker, text)

        self._workers.start(action, self._state.cluster.pools[action.pool].spec, begun)

    def _emulates(self, pool: str, terms: TaskOptions) -> bool:
        """Return whether tasks have the noise of their device in a pool. A device that was only
        preferred is emulated in its own pools only."""
        return not terms.prefer or self._state.cluster.pools[pool].spec.device == terms.device

    def _in_force(self, record: core.TaskRecord) -> TaskOptions:
        """Return the options of a task with noise at its start."""
        return record.batch.terms if self.drifting is None else self.drifting.in_force(record)

    def _send_documents(self, worker: str, peer: bytes, needed: list[str]) -> bool:
        """Send the noise documents of a chunk that this start of the worker has not received.
        Returns False if one of them could not be sent."""
        if self._documents is None or not needed:
            return True
        start = self._state.cluster.workers[worker].start
        missing, alone = self._sent_documents.missing(
            worker, start, needed, lambda digest: len(self._body(digest))
        )
        for digest in missing:
            document = m.NoiseDocument(digest, self._body(digest), alone)
            if not self._listener.send(sockets.PeerKind.WORKER, peer, codec.encode(document)):
                return False
            alone = False
        return True

    def _body(self, digest: str) -> bytes:
        """Return a noise document, that of a device's drift too; b"": it is not here."""
        body = b"" if self._documents is None else self._documents.body(digest)
        return self.drifting.body(digest) if not body and self.drifting is not None else body

    def _send_control(self, worker: str, message: m.ToWorker) -> bool:
        """Send a control message, directly or through the agent of its node; False if that is not
        possible."""
        peer, body = self._workers.control_peer(worker), codec.encode(message)
        if peer or self._workers.job_nodes is None:
            return self._listener.send(sockets.PeerKind.WORKER, peer, body)
        return self._workers.job_nodes.forward(worker, body)

    def _replace(self, worker: str) -> None:
        """Kill a worker that did not get a message: it no longer does what is accounted for it."""
        now_ns = time.monotonic_ns()
        self.execute(self._scheduler.worker_unusable(worker, "it cannot be reached", now_ns))


def _node_text(action: core.StartWorker) -> str:
    """Return the nodes of a worker: " on node1 (2 ranks), node2 (2 ranks)"; "" for one rank on the
    service's own node."""
    message = [f"{share.node} ({share.ranks} ranks)" for share in action.shares if share.node]
    if sum(share.ranks for share in action.shares) == 1:
        message = [share.node for share in action.shares if share.node]
    return f" on {', '.join(message)}" if message else ""


def ideal(terms: TaskOptions) -> TaskOptions:
    """Return the options without the device and its noise."""
    return msgspec.structs.replace(
        terms, device="", noise=(), snapshot="", compiled="", compiled_for="", stale=""
    )


def packed(
    send: core.AssignTasks,
    needed: list[str],
    emulates: Callable[[str, TaskOptions], bool],
    in_force: Callable[[core.TaskRecord], TaskOptions],
) -> bytes:
    """Encode the AssignChunk message; options that several tasks share are encoded once. Appends
    the digests of their noise documents to `needed`. `emulates`: returns whether tasks in a pool
    have their noise. `in_force`: returns the options of a task with noise at its start."""
    table: dict[tuple[int, str, str], int] = {}
    terms: list[TaskOptions] = []
    tasks = []
    last, index = None, 0
    for record in send.records:
        spec, batch = record.spec, record.batch
        if batch is not last or batch.terms.snapshot:
            last, options = batch, batch.terms
            if options.snapshot:
                has_noise = emulates(record.route.pool, options)
                options = in_force(record) if has_noise else ideal(options)
            index = table.setdefault((id(batch), options.snapshot, options.stale), len(terms))
            if index == len(terms):
                terms.append(options)
                if options.snapshot:
                    needed.append(options.snapshot)
        tasks.append(
            m.AssignedTask(  # type: ignore[call-arg]  # the fields of a TaskSpec are in its middle
                *(record.number, record.fence, index),
                *msgspec.structs.astuple(spec),
                not record.batch.owner,
            )
        )
    route = send.records[0].route
    return codec.encode(
        m.AssignChunk(
            send.slots,
            send.memory_bytes,
            send.announce,
            route.engine,
            route.reason,
            terms,
            tasks,
            send.kept_bytes,
        )
    )


class AuditLog:
    """Audit log: the user, time and origin of each change of the environment.

    An entry is an event whose kind begins with `audit.`; only administrators can read it.
    Invariant: the entry is in the same commit as the change, and the change is acknowledged after
    that commit. On a full disk two changes do not wait for it: revocation of a key and an immediate
    stop. Their entries are in the first commit that succeeds. Used from the loop's thread.
    """

    def __init__(self, executor: ActionExecutor, origin: Callable[[], str]) -> None:
        """`origin` returns the origin of the present message."""
        self._executor = executor
        self._origin = origin

    def write(self, identity: Identity, kind: str, subject: str, detail: str) -> None:
        """Add an entry of the kind `audit.KIND`."""
        name = f"{identity.owner} ({identity.role})" if identity.owner else OWN_USER
        name += f" through {identity.via}" if identity.via else ""
        text = "; ".join(filter(None, (detail, f"by {name} from {self._origin()}")))
        self._executor.record_event(f"audit.{kind}", subject, text, reader.AUDIT)
