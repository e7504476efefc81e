"""Requests about stored results: reading, verification, removal, and requeueing of damaged ones.

A request that needs a disk is given to threads (`FileWorker`); its answer is sent in a later pass
of the event loop.
"""

from __future__ import annotations

import logging
import math
import time
import zlib
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from simenv.config import Config
from simenv.errors import JournalError, NotFoundError, OptionError, SimenvError, StoreError
from simenv.model import TaskState, task_name, task_number
from simenv.result_files import attempt_file
from simenv.scheduler.core import ATTEMPT_BITS, TaskEnded
from simenv.scheduler.scheduler import Scheduler
from simenv.service.accounting.accounts import AccountRegistry
from simenv.service.journal import finished, writer
from simenv.service.recovery.repair import ResultRepair
from simenv.service.results.completions import Completions
from simenv.service.results.file_worker import FileWorker
from simenv.service.results.retention import DiskReserve, Retention, Sweep, removal_text
from simenv.wire import codec
from simenv.wire.messages import client as m, queries
from simenv.wire.rights import Identity

log = logging.getLogger("simenv.service")

CHECKPOINT_SCAN_NS = 60_000_000_000  # between two scans of the checkpoints of long runs
REMEDY_NS = 5_000_000_000  # for which the text about removable results is true
READING_BYTES = 16 * 2**20  # of files at once, for one owner
_CHECK_BYTES = 4 * 2**20  # bytes that the check of one file counts as

SendAnswer = Callable[[bytes, bytes], object]  # (peer, packed answer)


class ResultRequests:
    """Requests about results, and their retention. Used from the loop's thread."""

    def __init__(
        self,
        config: Config,
        journal: writer.Journal,
        scheduler: Scheduler,
        completions: Completions,
        root: Path,
        accounts: AccountRegistry,
    ) -> None:
        self.root = root
        self.file_worker = FileWorker(root)
        if journal.mark is not None:
            journal.mark.later = self.file_worker.run
        # Of the disk of the journal; with a database elsewhere, of that of the results.
        self.folder = journal.place.parent if isinstance(journal.place, Path) else root
        self.reserve = DiskReserve(self.folder, config.results.keep_free_gib)
        remove, reserve = self.file_worker.remove, self.reserve
        self._retention = Retention(config, journal, scheduler.state, completions, remove, reserve)
        self.reserve.remedy = self._remedy
        self._disks = [self.reserve]
        self._keep_free_gib = config.results.keep_free_gib
        self._remedy_text, self._remedy_until_ns = "", 0
        self._journal = journal
        self._state = scheduler.state
        self._completions = completions
        self._repair = ResultRepair(journal, scheduler, completions, accounts)
        self._record_event: Callable[[str, str, str], None] = _log_event
        self._send: SendAnswer = _discard_answer
        self._has_requeued = False
        self._next_poll_ns = 0
        self._unused: list[tuple[int, int]] = []  # attempts whose files no commit may name
        self._reading: dict[str, int] = {}  # bytes that are being read, by owner

    def listen(self, record_event: Callable[[str, str, str], None], send: SendAnswer) -> None:
        """Set the receivers of events (`record_event`) and of later answers (`send`)."""
        self._record_event, self._send = record_event, send

    def start(self) -> None:
        """Start the threads; their first job removes files that earlier starts have left."""
        entry = set(self._journal.records.files())
        self.file_worker.sweep(entry, self._state.epoch << ATTEMPT_BITS)
        self.file_worker.start()
        self.reserve.start()
        with suppress(OSError):
            if self.root.stat().st_dev != self.folder.stat().st_dev:
                other = DiskReserve(self.root, self._keep_free_gib)
                other.remedy = self._remedy
                self._disks.append(other)

    def stop(self) -> None:
        self.file_worker.stop()
        self.reserve.stop()

    @property
    def is_urgent(self) -> bool:
        """True if the loop should call `process_completed` soon: a client waits, or a task has
        just been queued again. Reading it clears the latter."""
        has_requeued, self._has_requeued = self._has_requeued, False
        return has_requeued or self.file_worker.busy or self._retention.is_urgent

    def process_completed(self, now_ns: int, *, idle: bool) -> None:
        """Handle the completed jobs of the threads, and do a slice of retention. Raises
        JournalError."""
        self.file_worker.run_callbacks()
        if self._unused and not self._journal.pending:
            self._remove_unused()
        if now_ns >= self._next_poll_ns:
            self._next_poll_ns = now_ns + CHECKPOINT_SCAN_NS
            self.file_worker.list_checkpoints(self._remove_orphans)
        if idle or self._retention.is_urgent:
            self._retention.work(self._record_event)

    def _remove_orphans(self, result: object) -> None:
        """Remove the checkpoints of tasks that have ended, and count those of the others."""
        sizes = result if isinstance(result, dict) else {}
        live, retained, orphans = self._state.tasks, dict[str, int](), []
        for name, size in sizes.items():
            record = live.get(task_number(name) or 0)
            if record is None:
                orphans.append(name)
            else:
                owner = record.batch.owner
                retained[owner] = retained.get(owner, 0) + size
        self._retention.checkpoint_bytes = retained
        if orphans:
            self.file_worker.forget(orphans)

    def disk_problems(self, *, has_users: bool) -> list[str]:
        """Return the warnings about the disks; "" for one without. The reserve is of the first."""
        return [each.problem(has_users=has_users and each is self.reserve) for each in self._disks]

    def bytes_of(self, owner: str) -> int:
        """Bytes stored for an owner: submits and results, and checkpoints of unfinished tasks."""
        checkpoint_bytes = self._retention.checkpoint_bytes.get(owner, 0)
        return self._journal.kept_bytes.get(owner, 0) + checkpoint_bytes

    def disk_refusal(self, owner: str) -> SimenvError | None:
        """Return the error if no Submit of an owner is accepted because the disk is full."""
        return self.reserve.refusal(owner, self.bytes_of(owner))

    def watch_disks(self) -> None:
        """Record that a disk has become full or has space again; create the spare file anew."""
        self.reserve.restore()
        for disk in self._disks:
            if kind := disk.change():
                self._remedy_until_ns = 0
                self._record_event(kind, str(disk.folder), disk.describe())

    def _remedy(self) -> str:
        """Return which removal frees how much; a look at the journal lasts for REMEDY_NS."""
        now_ns = time.monotonic_ns()
        if now_ns >= self._remedy_until_ns:
            self._remedy_until_ns = now_ns + REMEDY_NS
            try:
                self._remedy_text = self._retention.remedy()
            except JournalError:  # the disk is full for reads that sort, too
                self._remedy_text = "`simenv prune` removes old results"
        return self._remedy_text

    def can_read(self, owner: str) -> bool:
        """Return whether more bytes may be read for this owner now."""
        return self._reading.get(owner, 0) < READING_BYTES

    def handle(
        self,
        peer: bytes,
        identity: Identity,
        message: queries.FetchResult | queries.VerifyResult | queries.CollectGarbage,
    ) -> None:
        """Handle a request; its answer goes through `send`, now or later."""
        try:
            if isinstance(message, queries.FetchResult):
                self._fetch(peer, identity, message)
            elif isinstance(message, queries.CollectGarbage):
                self._collect(peer, message)
            else:
                self._verify(peer, identity, message)
        except finished.DamagedRecord as error:
            self.requeue_damaged(error)
            self._answer(peer, queries.VerifyReply(message.request, "again"))
        except SimenvError as error:
            self._refuse(peer, message.request, error)

    def _collect(self, peer: bytes, message: queries.CollectGarbage) -> None:
        if not math.isfinite(message.older_s):
            hint = "seconds; below 0: as configured"
            raise OptionError(f"older_s = {message.older_s}", hint=hint)

        def finish(sweep: Sweep | JournalError) -> None:
            if isinstance(sweep, JournalError):
                return self._refuse(peer, message.request, sweep)
            left = self._retention.stored_data()
            if not message.dry:
                self._record_event("history.removed", "gc", removal_text(sweep.freed))
            answer = queries.GarbageCollected(message.request, sweep.freed, left)

            def removed(_: object) -> None:
                self.reserve.invalidate()
                self._remedy_until_ns = 0
                self._answer(peer, answer)

            return self.file_worker.after(removed)

        self._retention.request_sweep(message.older_s, message.dry, finish)

    def _fetch(self, peer: bytes, identity: Identity, message: queries.FetchResult) -> None:
        entry = self._journal.records.file_of(message.file)
        if (
            entry is None
            or entry[0] != message.task
            or not self._may_see(message.task, identity.scope)
        ):
            raise NotFoundError(f"task {task_name(message.task)} has no file {message.file[:80]!r}")
        if not entry[1]:
            raise StoreError(f"{message.file} was removed to stay within results.keep_gib")
        if message.size_bytes > queries.CHUNK_BYTES:
            limit = queries.CHUNK_BYTES
            raise StoreError(f"{message.size_bytes} bytes at once; the limit is {limit}")

        def finish(result: object) -> None:
            self._count(identity.owner, -message.size_bytes)
            if isinstance(result, bytes):
                self._answer(peer, queries.ResultChunk(message.request, result))
            elif isinstance(result, SimenvError):
                self._refuse(peer, message.request, result)

        self._count(identity.owner, message.size_bytes)
        self.file_worker.read(message.file, message.offset, message.size_bytes, finish)

    def _verify(self, peer: bytes, identity: Identity, message: queries.VerifyResult) -> None:
        if not self._may_see(message.task, identity.scope):
            return self._answer(peer, queries.VerifyReply(message.request, "unknown"))
        if message.task in self._state.tasks:
            return self._answer(peer, queries.VerifyReply(message.request, "waits"))
        result = self._completions.find(message.task)
        if result is None:
            return self._answer(peer, queries.VerifyReply(message.request, "unknown"))
        completed, completion = result
        if zlib.crc32(completion.payload) != completion.checksum:
            self._rerun(completed.first_seq, completion, "its payload is damaged")
            return self._answer(peer, queries.VerifyReply(message.request, "again"))
        stored = self._journal.records.file_at(completed.first_seq)
        if stored is None:
            return self._answer(peer, queries.VerifyReply(message.request, "intact"))
        name, size_bytes = stored
        if not size_bytes:
            return self._answer(peer, queries.VerifyReply(message.request, "removed"))
        file = codec.result_data(completion.payload).file
        if file is None:
            raise StoreError(f"the result of {task_name(message.task)} does not describe its file")

        def finish(damage: object) -> None:
            self._count(identity.owner, -_CHECK_BYTES)
            outcome = "intact"
            if damage:
                outcome = "again"
                try:
                    if self._is_current(message.task, completed.first_seq):
                        self._rerun(completed.first_seq, completion, str(damage))
                        self.file_worker.remove([name])
                except SimenvError as error:
                    return self._refuse(peer, message.request, error)
            return self._answer(peer, queries.VerifyReply(message.request, outcome))

        self._count(identity.owner, _CHECK_BYTES)
        self.file_worker.check(name, file, finish)
        return None

    def _count(self, owner: str, size: int) -> None:
        left = self._reading.get(owner, 0) + size
        if left:
            self._reading[owner] = left
        else:
            self._reading.pop(owner, None)

    def _may_see(self, task: int, scope: str) -> bool:
        return not scope or self._journal.records.accepted.owner_of(task) == scope

    def _is_current(self, task: int, seq: int) -> bool:
        """Return whether the result is still that of the task, which has not run again since."""
        if task in self._state.tasks:
            return False
        result = self._completions.find(task)
        return result is not None and result[0].first_seq == seq

    def _rerun(self, seq: int, completion: m.Completion, reason: str) -> None:
        self._repair.task(seq, completion)
        self._has_requeued = True
        name = task_name(completion.task)
        self._record_event("result.damaged", name, f"{reason}; attempt {completion.attempts + 1}")

    def requeue_damaged(self, error: finished.DamagedRecord) -> None:
        """Queue all tasks of a damaged journal record again."""
        tasks = self._repair.record(error.first_seq)
        self._has_requeued = True
        self._record_event(
            "journal.damaged", f"{len(tasks)} tasks", f"{error.message}; they run again"
        )
        for task in tasks:  # one event for each: only its owner may see it
            self._record_event(
                "task.requeued", task_name(task), "the record of its end was damaged"
            )

    def remove_unused_files(
        self, done: m.AttemptResults, endings: list[TaskEnded], held: Collection[int] = ()
    ) -> None:
        """Remove the files of results that were not accepted, because they came too late or were
        no longer requested, after the next commit. `held`: indices of results that are held back,
        whose files stay."""
        files = [(k, result) for k, result in enumerate(done.results) if result.file]
        if files:
            retained = {ending.index for ending in endings if ending.state is TaskState.DONE}
            retained.update(held)
            self._unused += [(each.task, each.attempt) for k, each in files if k not in retained]

    def _remove_unused(self) -> None:
        """Remove files of attempts that neither run nor have ended with them."""
        attempts, self._unused, names = self._unused, [], []
        for task, attempt in attempts:
            record, name = self._state.tasks.get(task), attempt_file(task, attempt)
            is_running = record is not None and record.fence == attempt
            if not is_running and self._journal.records.file_of(name) is None:
                names.append(name)
        if names:
            self.file_worker.remove(names)

    def _answer(self, peer: bytes, message: m.ToClient) -> None:
        self._send(peer, codec.encode(message))

    def _refuse(self, peer: bytes, request: int, error: SimenvError) -> None:
        self._answer(peer, m.Refused(request, [codec.refusal(error)]))


def _log_event(kind: str, subject: str, message: str) -> None:
    log.info("%s %s %s", kind, subject, message)


def _discard_answer(_peer: bytes, _answer: bytes) -> None:
    return None
