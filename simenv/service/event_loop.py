"""The event loop of the service, and its maintenance.

Path of a submission from its frame to the disk: `wire.codec` decodes it; `submissions` queues it,
in the turns of `fair_queue`, and decides; `admission.controller` checks its circuits;
`events.submission` of the scheduler makes the records of its tasks, with the expected times of
`scheduler.core`, and appends them to the `PoolQueue` of their pool; `journal.writer` makes one
group of all rows of the pass, which `journal.database` stores. Other modules are asked only for
what a submission names.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path

import msgspec

from simenv.errors import JournalError, NotAllowedError, ProtocolError, SimenvError
from simenv.process import release_memory, resident_bytes
from simenv.sandbox.supervised import SupervisedProcess
from simenv.scheduler.core import Action
from simenv.scheduler.reservations.ledger import UNCHANGED
from simenv.service import fault_injection
from simenv.service.admission.submissions import AcceptAnswers
from simenv.service.control.accepted_keys import KeyCommands
from simenv.service.control.reservations import CHANGES as RESERVATION_CHANGES
from simenv.service.control.result_intake import ResultIntake
from simenv.service.fair_queue import CHECKS, Decoding
from simenv.service.handlers.administration import CHANGES, WITHOUT_JOURNAL, Administration
from simenv.service.handlers.queries import QueryHandlers
from simenv.service.handlers.tasks import Cancelling, newest_completion
from simenv.service.identities import Identities
from simenv.service.journal import tables
from simenv.service.journal.database import FULL_DISK, LeadershipLost
from simenv.service.journal.writer import SYNC_DELAY_S
from simenv.service.ownership import ConnectionFileLease
from simenv.service.queries.query_queue import RECHECK_NS, QueryQueue
from simenv.service.results.completions import acknowledge
from simenv.service.service import ServiceComponents, WorkerEvents
from simenv.service.tokens import TokenCommands
from simenv.service.workers.endpoints import RateLimitedLog, check_worker, reported_state
from simenv.wire import codec
from simenv.wire.messages import accounting, admin, base, client as m, nodes, queries
from simenv.wire.rights import USER_ROLES, Identity, check_bound, with_rights
from simenv.wire.transport.sockets import PeerKind

UPKEEP_PERIOD_NS = 50_000_000
MEMORY_NS = 500_000_000  # between two looks at the memory of this process
GROWTH_BYTES = 256 * 2**20  # after which garbage is collected
FULL_NS = 5_000_000_000  # between two collections above the limit of the memory
ESTIMATES_NS = 5_000_000_000  # estimates learned since then are lost in a crash of the service


class Upkeep:
    """Maintenance of one event loop. Used from the loop's thread, once a pass. Invariant: it runs
    in bounded slices, whenever the loop is idle and at least once in UPKEEP_PERIOD_NS of a busy
    loop, so that no client can prevent it by continuous messages."""

    def __init__(self, service: ServiceComponents) -> None:
        self._service = service
        self._estimator = service.state.estimator
        self._memory_ns = 0  # time of the next look at the memory
        self._collected_bytes = 0  # least resident memory since the last collection
        self._collected_ns = 0
        self._learned_ns = 0  # time at which estimates and errors of waits are stored next
        self._next_ns = 0  # monotonic time at which a slice is due though the loop is busy
        self._unsynced_ns = 0  # time of the oldest commit without fsync; 0: there is none

    def run(self, *, idle: bool) -> None:
        """Run one slice of the work that is due, and set or clear the service's `store_error`."""
        now_ns = time.monotonic_ns()
        due = idle or now_ns >= self._next_ns
        if due:
            self._next_ns = now_ns + UPKEEP_PERIOD_NS
        try:
            if due or self._service.completions.is_backlogged:
                self._service.completions.index_slice()  # first, because retention needs the index
            self._service.result_requests.process_completed(now_ns, idle=due)
            self._store_estimates(now_ns)
            if due:
                self._service.starts.watch(now_ns)
            if now_ns >= self._memory_ns:
                self._watch_memory(now_ns)
            if self._service.journal.unsynced or self._unsynced_ns:
                self._sync(now_ns)
            if self._service.lifecycle.store_error and due and not self._service.journal.pending:
                self._service.journal.sync()  # without other commits, this tests the journal again
                self._service.lifecycle.store_error = ""
        except JournalError as error:
            self._service.lifecycle.store_error = error.message

    def _watch_memory(self, now_ns: int) -> None:
        """Collect garbage after a growth of the memory; tell the scheduler how much is used."""
        self._memory_ns = now_ns + MEMORY_NS
        used_bytes = resident_bytes()
        self._collected_bytes = min(self._collected_bytes or used_bytes, used_bytes)
        limit = self._service.scheduler.state.limits.service_bytes
        is_due = 0 < limit < used_bytes and now_ns - self._collected_ns > FULL_NS
        if is_due or used_bytes - self._collected_bytes > GROWTH_BYTES:
            self._collected_bytes = used_bytes = release_memory()
            self._collected_ns = now_ns
        self._service.executor.execute(self._service.scheduler.service_memory(used_bytes))

    def _store_estimates(self, now_ns: int) -> None:
        """Put changed estimates, and errors of expected starts, into the next commit, every
        ESTIMATES_NS."""
        estimator, starts = self._estimator, self._service.starts
        if now_ns >= self._learned_ns and (estimator.changed or starts.changed):
            self._learned_ns = now_ns + ESTIMATES_NS
            statements = tables.estimate_statements(estimator.take_changes())
            statements += tables.WAIT_ERRORS.statements(starts.take_changes())
            self._service.journal.put(statements, forced=False)

    def _sync(self, now_ns: int) -> None:
        """Force commits to disk that are older than SYNC_DELAY_S."""
        if not self._service.journal.unsynced:
            self._unsynced_ns = 0
            return
        self._unsynced_ns = self._unsynced_ns or now_ns
        if now_ns - self._unsynced_ns >= SYNC_DELAY_S * 1e9:
            self._service.journal.sync()
            self._unsynced_ns = 0


DRAIN_MESSAGES = 64
SLICE_NS = 5_000_000
READ_NS = 2_000_000  # of a slice, for messages while Submits wait: their clients do, too
SLEPT_NS = 30_000  # a wait that took longer found no message at its begin
UNREAD_NS = 20_000_000  # between two times at which the sockets are read until they are empty
TICK_BUSY_S = 0.05
TICK_IDLE_S = 1.0
NODE_TICK_NS = 50_000_000  # from a message of a node's agent to the next tick, at most
BACKGROUND_POLL_S = 0.001
BACKLOG_NS = 30_000_000_000
DRAIN_MARGIN_NS = 15_000_000_000  # before the allocation ends: running tasks are queued again then

# Messages with figures of a site, which their handlers check one by one: before that, whether they
# are numbers that the journal can store.
CHECKED = (
    *(accounting.SetAccount, accounting.SetQos, admin.SetProfile, admin.SetPolicy),
    *(admin.AddCalendarEntry, admin.Reserve),
)
MOST = 2.0**63
DISTRUSTED = ProtocolError, NotAllowedError  # errors of messages that no worker of ours sends

log = logging.getLogger("simenv.service")


class EventLoop(ServiceComponents):
    """The event loop. Runs on the main thread of the service. One thread. All messages that have
    arrived are handled in one pass and stored by one commit. Assignments are sent before the
    commit: the fencing token rejects results of a task that a crash has lost. Answers to submits
    and results are sent after it."""

    def __post_init__(self, key_commands: KeyCommands, lease: ConnectionFileLease) -> None:
        super().__post_init__(key_commands, lease)
        send = partial(self.listener.send, PeerKind.CLIENT)
        self.tokens = TokenCommands(self)
        self.query_handlers = handlers = QueryHandlers(self, self.tokens)
        self.query_queue = QueryQueue(
            handlers.answer,
            self.result_requests.requeue_damaged,
            send,
            handlers.is_ready,
            handlers.can_answer,
            self.monitoring.internal_errors,
        )
        self._decode = Decoding(CHECKS).of
        self._intake = ResultIntake(
            *(self.state, self.workers.isolation, self.result_requests.file_worker),
            *(self.result_requests.root, self.scheduler.results_arrived, self._end_tasks),
            sync=self.config.durability != "process",
        )
        self._events = WorkerEvents(self, self._intake.is_taking)
        self._read_ns = time.monotonic_ns()  # all messages that came before are read
        self._upkeep = Upkeep(self)
        self._next_tick_ns = 0
        self.administration = Administration(self, self.tokens)
        self.identities: Identities | None = None  # None: there are no users without key files
        self.gateway: SupervisedProcess | None = None  # None: none is started along
        self._rejection_log = RateLimitedLog(log)
        self._accept_answers = AcceptAnswers(self.state, send)
        self._answers: list[tuple[bytes, bytes]] = []
        self._guarded = self.monitoring.internal_errors.guarded
        self._assign_from_ns = 0  # no assignment before, after one that failed

    def drain(self, *, now: bool) -> None:
        super().drain(now=now)
        self._next_tick_ns = 0

    def run_once(self, timeout_s: float | None = None) -> None:
        """Run one pass: wait for messages (at most `timeout_s`), handle, store and answer them."""
        self.monitoring.pass_times.wait_begins()
        wait_ns = time.monotonic_ns()
        arrived = self.listener.wait(self._poll_timeout_s() if timeout_s is None else timeout_s)
        begin_ns = self.monitoring.pass_times.wait_ends()
        if arrived:
            slept = timeout_s is None and begin_ns - wait_ns > SLEPT_NS
            self._drain(begin_ns, is_alone=slept and begin_ns - self._read_ns < UNREAD_NS)
        else:
            self._read_ns = begin_ns
        if departed := self.listener.take_departed():
            self.submit_queue.clients_left(departed)
            self.query_queue.clients_left(departed)
        if self.workers.is_busy:
            with self._guarded("the end of a job of workers"):
                self.workers.run_continuations()
            if self.workers.has_news:
                self._next_tick_ns = 0
        if begin_ns >= self._next_tick_ns:  # before admission: only stored tasks may end
            self._tick(begin_ns)
        if self.submit_queue.busy:
            self._admit(begin_ns + SLICE_NS)
        self._assign(time.monotonic_ns())
        self._commit()
        self._answer()
        idle = not (self.submit_queue.end_pass() or arrived or self.query_queue.busy)
        with self._guarded("the upkeep of the service"):
            self._upkeep.run(idle=idle)
        self.monitoring.pass_times.had_messages = not idle

    def _poll_timeout_s(self) -> float:
        submit_queue, query_queue = self.submit_queue, self.query_queue
        has_queries = bool(query_queue.pending_bytes)
        # Before `busy`: a Submit that is parked until a time between the two is not missed.
        is_checking = submit_queue.parked or (has_queries and query_queue.parked)
        if submit_queue.busy or (has_queries and query_queue.busy):
            return 0.0
        if time.monotonic_ns() < self._assign_from_ns:
            return BACKGROUND_POLL_S
        if self.state.dispatch.assigns_left <= 0 and not self.lifecycle.store_error:
            return 0.0
        if self.commands.reservations.busy and not self.lifecycle.store_error:
            return 0.0
        if self.workers.is_busy:
            return BACKGROUND_POLL_S
        if is_checking or self.result_requests.is_urgent or self.commands.reservations.deferred:
            return BACKGROUND_POLL_S
        if has_queries and query_queue.holds:
            return RECHECK_NS / 1e9
        if hold_s := self._accept_answers.hold_s:
            return hold_s
        if self.completions.unindexed:
            return 0.02
        if self.journal.unsynced:
            return SYNC_DELAY_S
        left_s = (
            min(self._next_tick_ns, self.state.devices.paced.next_ns) - time.monotonic_ns()
        ) / 1e9
        return min(max(0.0, left_s), TICK_IDLE_S)

    def _drain(self, begin_ns: int, *, is_alone: bool) -> None:
        """Handle messages that have arrived. `is_alone`: the loop slept until one came, so that the
        sockets are not asked for more behind it; the next pass finds what there is."""
        for _ in range(1 if is_alone else DRAIN_MESSAGES):
            received = self.listener.receive()
            if received is None:
                self._read_ns = begin_ns
                return
            peer_kind, peer, body, identity = received
            refuse = partial(self._turn_away, peer_kind, peer, body)
            with self._guarded("a message", refuse):
                if peer_kind is PeerKind.CLIENT:
                    if identity.owner:
                        self.accounting.owners.check_rate(identity.owner, begin_ns)
                        message = self._decode(identity.owner, body)
                    else:
                        message = codec.from_client(body)
                    self._from_client(peer, identity, message, body)
                else:
                    self._from_worker(peer, identity, codec.from_worker(body))
            spent_ns = time.monotonic_ns() - begin_ns
            if spent_ns > SLICE_NS or (spent_ns > READ_NS and self.submit_queue.busy):
                return

    def _turn_away(self, peer_kind: PeerKind, peer: bytes, body: bytes, error: SimenvError) -> None:
        """Log a message that cannot be handled, and refuse that of a client. A worker that sends
        what no worker sends is not believed any more: it is ended, and its task is charged."""
        self._rejection_log.warning("a message of %d bytes turned away: %s", len(body), error)
        if peer_kind is PeerKind.CLIENT:
            answer = m.Refused(codec.request_of(body), [codec.refusal(error)])
            self._answers.append((peer, codec.encode(answer)))
        elif name := self.workers.speaker(peer) if isinstance(error, DISTRUSTED) else "":
            reason = f"a message of it was refused: {error.message}"
            now_ns = time.monotonic_ns()
            self.executor.execute(self.scheduler.worker_distrusted(name, reason, now_ns))

    def _admit(self, deadline_ns: int) -> None:
        errors = self.monitoring.internal_errors
        for pending, answer in self.submit_queue.process(deadline_ns, errors):
            if isinstance(answer, m.Accepted):
                self._accept_answers.add(pending, answer)
            else:
                refused = m.Refused(pending.message.request, answer)
                self._answers.append((pending.peer, codec.encode(refused)))
                self.accounting.owners.count_refusal(pending.owner)
                self.accounting.usage.counters.refused += 1
        if self.state.cluster.lacks_workers:
            self._next_tick_ns = 0

    def _commit(self) -> None:
        """Commit all changes; if that fails, the acceptances of this pass become refusals. Raises
        LeadershipLost."""
        self.journal.check_leadership()
        state, commands = self.state, self.commands.reservations
        if (
            state.reservations.changes != UNCHANGED
            or state.devices.controls.changes
            or state.devices.paced.changes
            or commands.deferred
        ):
            with self._guarded("the storage of reservations"):
                commands.store()
        if not self.journal.pending:
            return
        try:
            self.journal.commit()
            if self.maintenance.checkpointer is not None:
                self.maintenance.checkpointer.written_bytes = self.journal.written_bytes
            self.lifecycle.store_error = ""
        except JournalError as error:
            self.result_requests.reserve.release()  # the next commit may succeed
            if error.message != self.lifecycle.store_error:
                log.error("%s", error)
            self.lifecycle.store_error = error.message
            for pending, accepted in self._accept_answers.take_unstored():
                if not accepted.repeated:
                    self.scheduler.rollback_submit(
                        accepted.first, accepted.count, time.monotonic_ns()
                    )
                    submit = pending.message
                    self.submit_queue.forget(pending.owner, submit.key, submit.offset)
                reason = error
                if error.hint == FULL_DISK and not pending.owner:
                    hint = f"{error.hint}; {self.result_requests.reserve.remedy()}"
                    reason = JournalError(error.message, hint=hint)
                refused = m.Refused(accepted.request, [codec.refusal(reason)])
                self._answers.append((pending.peer, codec.encode(refused)))

    def _answer(self) -> None:
        """Send answers after the commit; those of queries last, so that they see all changes."""
        with self._guarded("an answer to submissions"):
            self._accept_answers.send_stored()
        if self.executor.outbox and not self.journal.pending:
            fault_injection.hit("completion.before")
            outbox = self.executor.outbox[:]
            self.executor.outbox.clear()
            with self._guarded("an answer with results"):
                self._accept_answers.send_results(outbox)
            fault_injection.hit("completion.sent")
        answers, self._answers = self._answers, []
        for peer, body in answers:
            with self._guarded("an answer"):
                self.listener.send(PeerKind.CLIENT, peer, body)
        if self.query_queue.pending_bytes:
            self.query_queue.process(time.monotonic_ns() + SLICE_NS)

    def _from_client(
        self, peer: bytes, identity: Identity, message: m.FromClient, body: bytes
    ) -> None:
        self.monitoring.client_requests += type(message) is not m.Ping
        if identity.reservation:
            check_bound(identity, message)
        if type(message) is m.Submit and identity.role in USER_ROLES:  # all of them may submit
            now_ns = time.monotonic_ns()
            full = self.submit_queue.enqueue(peer, identity.owner, message, body, now_ns)
            if full is not None:
                self._answers.append((peer, codec.encode(m.Refused(message.request, [full]))))
            return
        identity = with_rights(peer, identity, message)
        if type(message) in CHECKED:
            base.check_magnitudes(message, MOST)
        if type(message) is m.Cancel:
            cancel = Cancelling(message.request, message.tasks, [])
            # Refused before anything is cancelled.
            self.query_queue.enqueue(peer, identity, cancel, len(body))
            self.administration.cancels(identity, message.tasks)
            self.executor.execute(self.query_handlers.tasks.cancel(cancel, identity.scope))
        elif type(message) in CHANGES:
            answer = self.administration.apply(identity, message)
            self._next_tick_ns = 0
            at_once = isinstance(message, WITHOUT_JOURNAL)
            after = self._answers if at_once else self.executor.outbox
            after.append((peer, codec.encode(answer)))
        elif type(message) in RESERVATION_CHANGES:
            assert isinstance(message, base.ClientRequest)
            self.commands.reservations.apply(peer, identity, message, self.lifecycle.store_error)
        else:
            if isinstance(message, m.Ack):
                newest = newest_completion(self, identity.scope)
                acknowledge(self.journal, newest, identity.owner, message)
            elif isinstance(message, m.Shutdown):
                detail = "at once" * message.now
                self.commands.audit.write(identity, "shutdown", self.config.name, detail)
            self.query_queue.enqueue(peer, identity, message, len(body))

    def _from_worker(self, peer: bytes, identity: Identity, message: m.FromWorker) -> None:
        now_ns = time.monotonic_ns()
        if type(message) is m.AttemptResults:
            fault_injection.hit("finished.received")
            self._intake.receive(self._worker_of(peer, message), message, now_ns)
            return
        check_worker(identity, message)
        if type(message) is m.Heartbeat:
            alive, actions = False, list[Action]()
            is_current = message.epoch == self.state.epoch
            pid = self.listener.sender_pid()
            if is_current and self.workers.beats(message.name, message.start, peer, pid):
                beat = reported_state(message)
                is_taking = self._intake.is_taking(message.name)
                if is_taking or self.workers.has_unsent(message.name):
                    beat = msgspec.structs.replace(beat, waiting=False)
                alive, actions = self.scheduler.heartbeat_received(beat, now_ns)
            answer: m.ToWorker = m.StopWorker("unknown worker")
            if alive:
                state = self.state
                intervals_s = state.cluster.heartbeat_intervals_s
                answer = m.LeaseRenewed(state.epoch, *intervals_s, state.dispatch.grants)
            self.executor.execute(actions)
            self.listener.send(PeerKind.WORKER, peer, codec.encode(answer))
        elif type(message) is m.Started:
            name = self._worker_of(peer, message)
            self.scheduler.task_started(name, message.task, message.attempt, now_ns)
        elif type(message) is m.Join:
            self._join(peer, message, now_ns)
        elif type(message) is queries.DeviceDescribed:
            base.check_magnitudes(message.device, has_unknown=True)
            pid = self.listener.sender_pid()
            if self.workers.works(message.name, message.start, peer, pid):
                self.executor.execute(self.devices.update(self.scheduler, message))
        elif isinstance(message, nodes.FromNode) and self.workers.job_nodes is not None:
            actions = self.workers.job_nodes.receive(peer, identity, message)
            if actions or type(message) is not nodes.NodeHeartbeat:
                self.executor.execute(actions)
                self._next_tick_ns = min(self._next_tick_ns, now_ns + NODE_TICK_NS)

    def _end_tasks(self, name: str, message: m.AttemptResults, arrived_ns: int) -> None:
        """End the tasks of results that are stored as far as they are not in the journal."""
        now_ns = time.monotonic_ns()
        endings = self.scheduler.tasks_finished(name, message.results, now_ns, arrived_ns)
        held = self.executor.finish(self.workers.origin_of(name), message, endings)
        self.result_requests.remove_unused_files(message, endings, held)

    def _worker_of(self, peer: bytes, message: m.FromWorker) -> str:
        """Return the worker with this work socket. Raises NotAllowedError if it is the control
        socket of one."""
        name = self.workers.name_of(peer)
        if not name and self.workers.speaker(peer):
            text = f"{type(message).__name__} came through the control connection of a worker"
            raise NotAllowedError(text, hint="its work connection has joined")
        return name

    def _join(self, peer: bytes, message: m.Join, now_ns: int) -> None:
        name, start = message.name, message.start
        pid = self.listener.sender_pid()
        is_current = message.epoch == self.state.epoch and self.workers.joined(message, peer, pid)
        joined = name, start, message.node, message.pid, now_ns
        if is_current and self.scheduler.worker_joined(*joined):
            ranks = f", {message.ranks} ranks" if message.ranks > 1 else ""
            self.executor.record_event(
                "worker.ready", name, f"pid {message.pid} on {message.node}{ranks}"
            )
            self._next_tick_ns = 0  # others may wait to be started
        else:
            answer = m.StopWorker(f"start {start} of epoch {message.epoch} is over")
            self.listener.send(PeerKind.WORKER, peer, codec.encode(answer))

    def _tick(self, now_ns: int) -> None:
        """Do what is due; a part that fails by a fault of the service is tried at the next tick."""
        guarded, execute, next_s = self._guarded, self.executor.execute, TICK_IDLE_S
        if self.workers.job_nodes is not None:
            with guarded("the tick of nodes of jobs"):
                execute(self.workers.job_nodes.tick(self._judged_ns(now_ns)))
        with guarded("the report of workers' ends"):
            self._events.report(now_ns)
        with guarded("the scheduler's tick"):
            execute(self.scheduler.tick(now_ns, self._judged_ns(now_ns)))
        with guarded("the tick of accounts"):
            execute(self.accounting.accounts.tick(now_ns))
        with guarded("the tick of paced devices"):
            execute(self.scheduler.wall_clock_tick(time.time_ns(), now_ns))
        with guarded("the calendar's tick"):
            execute(self.commands.calendar.tick(time.time()))
        with guarded("the drift of devices"):
            drifted, next_s = self.devices.drifted(time.time_ns(), self.scheduler)
            execute(drifted)
        with guarded("the end of keys and tokens"):
            self.commands.keys.close_expired(time.time())
            self.tokens.tick(now_ns / 1e9)
        if self.gateway is not None:
            with guarded("the watch over the gateway"):
                self.gateway.keep()
        if self.executor.hooks is not None:
            with guarded("the tick of hooks"):
                execute(list(self.executor.hooks.tick(now_ns / 1e9)))
        if self.devices.refreshes is not None:
            with guarded("the tick of calibration commands"):
                execute(list(self.devices.refreshes.tick(now_ns / 1e9)))
        if self.identities is not None:
            with guarded("the tick of identities"):
                self.identities.tick(now_ns / 1e9)
        with guarded("the check of the lead"):
            self._check_lead()
        with guarded("the check of the allocation's end"):
            self._check_allocation_end(now_ns)
        self._check_drain(now_ns)
        with guarded("the end of old jobs"):
            self.jobs.prune()
        with guarded("the reserve of the disk"):
            self.result_requests.watch_disks()
        if self.monitoring.telemetry is not None:
            with guarded("telemetry"):
                if self.monitoring.telemetry.is_due:
                    self.monitoring.telemetry.record(self.query_handlers.metrics.read())
        wait_s = min(next_s, TICK_BUSY_S if self.state.is_active else TICK_IDLE_S)
        self._next_tick_ns = now_ns + round(wait_s * 1e9)

    def _check_lead(self) -> None:
        """Drain if another service leads the environment. Raises LeadershipLost."""
        if not (self.state.draining or self.lifecycle.lease.holds()):
            text = "another service has taken over this environment: stopping"
            if not isinstance(self.journal.place, Path):
                raise LeadershipLost(text)
            log.error(text)
            self.drain(now=True)
        if self.journal.database.is_ended and not self.state.draining:
            self.drain(now=True)
        standbys = self.journal.database.standbys
        addresses = tuple(each.address for each in standbys if each.address)
        self.lifecycle.lease.announce_standbys(addresses)

    def _judged_ns(self, now_ns: int) -> int:
        """Return the time up to which all messages are read: who is silent since then may have sent
        one that waits here. At most BACKLOG_NS ago, so that a flood hides no loss."""
        return max(self._read_ns, now_ns - BACKLOG_NS)

    def _check_allocation_end(self, now_ns: int) -> None:
        """Drain in the last minute of the allocation: no task begins, running ones may end."""
        if self.state.allocation_ends(now_ns) and not self.state.draining:
            end_ns = self.state.limits.end_ns
            left_s = max(0, end_ns - now_ns) // 1_000_000_000
            message = f"the site takes the nodes back in {left_s} s"
            self.executor.record_event("allocation.ends", self.config.name, message)
            self.drain(now=False)
            self.lifecycle.stop_by(end_ns - DRAIN_MARGIN_NS)

    def _assign(self, now_ns: int) -> None:
        if self.lifecycle.store_error or now_ns < self._assign_from_ns:
            return  # results that a full disk cannot take must not fill the memory
        self._assign_from_ns = now_ns + round(TICK_BUSY_S * 1e9)  # if it fails
        with self._guarded("the assignment of tasks"):
            left, accepted = self.accounting.accounts.budgets.left(), self._accept_answers.num_tasks
            actions = self.scheduler.dispatch(now_ns, accepted, left)
            if actions:
                fault_injection.hit("assign.before")
                self.executor.execute(actions)
                fault_injection.hit("assign.sent")
            self._assign_from_ns = 0
        if self.state.deferred_actions or self.state.tasks.dependencies.failed:
            self._next_tick_ns = 0

    def _check_drain(self, now_ns: int) -> None:
        if self.state.draining and (not self.state.is_busy or now_ns >= self.lifecycle.stop_at_ns):
            self.lifecycle.stopped = True

    def close(self, *, lost: bool = False) -> None:
        """Stop the workers, commit the rest, close the sockets. `lost`: another service leads the
        environment, or may; nothing more is stored or answered."""
        if not lost:
            self.executor.execute(self.scheduler.charge_reserved(time.monotonic_ns()))
            queued = f"{len(self.state.tasks)} tasks queued"
            self.executor.record_event("service.stopped", self.config.name, queued)
        self.workers.close()
        try:
            if not lost:
                self._commit()
                self._answer()
        except LeadershipLost:
            lost = True
        self._accept_answers.close()
        self.result_requests.stop()
        self.forecasts.stop()
        for part in (self.maintenance.checkpointer, self.maintenance.backup):
            if part is not None:
                part.stop()
        if self.monitoring.telemetry is not None:
            self.monitoring.telemetry.close()
        try:
            if lost:
                self.journal.abandon()
            else:
                self.journal.close()
        finally:  # on a full disk the journal raises
            self.listener.close()
