"""Tasks whose result, or the record of their end, is damaged run again.

Such a task has the same seed and returns the same counts. Invariant: exactly one completion of a
task counts at any time. The damaged completion is withdrawn in the transaction that makes the task
unfinished; a crash at any point leaves the task either final or queued.
"""

from __future__ import annotations

import time
from array import array

from simenv.errors import JournalError
from simenv.model import task_name
from simenv.scheduler.scheduler import Scheduler
from simenv.service import fault_injection
from simenv.service.accounting.accounts import AccountRegistry
from simenv.service.journal import finished, rows, writer
from simenv.service.journal.database import FAILED_DISK, Connection
from simenv.service.journal.schema import ENDED, FINISHED, META, REPLACED, SENT, quarantined
from simenv.service.recovery.replay import MIN_ATTEMPTS, Part, parts, queue
from simenv.service.results import receipts
from simenv.service.results.completions import Completions
from simenv.wire import codec
from simenv.wire.messages.client import STATES, Completion


class ResultRepair:
    """Requeueing of tasks with damaged results. Used from the loop's thread. If a method raises,
    nothing has changed."""

    def __init__(
        self,
        journal: writer.Journal,
        scheduler: Scheduler,
        completions: Completions,
        accounts: AccountRegistry,
    ) -> None:
        self._accounts = accounts
        self._journal = journal
        self._scheduler = scheduler
        self._completions = completions

    def task(self, seq: int, completion: Completion) -> None:
        """Requeue a task with a damaged payload or file; `seq` is the number of its completion.
        Raises JournalError, and ConfigError if the present environment cannot run the task."""
        number, state = completion.task, STATES[completion.state]
        waiting = self._parts(number, completion.attempts)
        taken = self._withdrawal(number)
        fault_injection.hit("reopen.before")
        with self._journal.transaction("FULL") as db:
            db.execute(*REPLACED.put(seq, number, state))
            _remove_from_index(db, self._journal.records.finished.run_with(number), number)
            db.execute("delete from file where seq = ?", (seq,))
            sent = array("q", [number] * completion.attempts)
            db.execute(*SENT.append(sent.tobytes()))
            for statement in taken.statements:
                db.execute(*statement)
        fault_injection.hit("reopen.after")
        self._completions.withdraw(number, seq)
        self._uncount(taken)
        self._scheduler.reopen({state: 1})
        queue(self._scheduler, waiting, self._completions)

    def record(self, first_seq: int) -> list[int]:
        """Requeue all tasks of a record that cannot be read; returns them. Raises as `task`."""
        self._completions.index_all()
        if self._completions.unindexed:
            raise JournalError("ends of tasks wait to be stored", hint=FAILED_DISK)
        tasks = list(self._journal.records.finished.tasks_at(first_seq))
        waiting = [part for number in tasks for part in self._parts(number, MIN_ATTEMPTS)]
        counts = self._journal.records.finished.counts_in(first_seq)
        fault_injection.hit("reopen.before")
        taken = drop(self._journal, first_seq, tasks)
        fault_injection.hit("reopen.after")
        self._uncount(taken)
        self._scheduler.reopen(counts)
        queue(self._scheduler, waiting, self._completions)
        return tasks

    def _withdrawal(self, number: int) -> receipts.Withdrawal:
        """Return what the end of a task takes from usage when it is withdrawn."""
        records, first_seq = self._journal.records, self._completions.first_seq_of(number)
        stored = None if first_seq is None else records.finished.at(first_seq)
        if stored is None:
            raise JournalError(f"the end of {task_name(number)} is no longer stored")
        return receipts.withdrawal(records, codec.completed(stored[0]), number)

    def _uncount(self, taken: receipts.Withdrawal) -> None:
        usage = self._completions.usage
        if usage is not None:
            for account, units in taken.units:
                usage.charge(account, units, taken.at_s)

    def _parts(self, number: int, attempts: int) -> list[Part]:
        row = self._journal.records.accepted.of(number)
        if row is None:
            raise JournalError(f"the submission of {task_name(number)} is no longer stored")
        span = bytearray(b"\1") * row.count
        span[number - row.first] = 0
        counts, now_ns = [attempts] * row.count, time.monotonic_ns()
        return parts(self._scheduler.state, self._accounts, row, span, counts, now_ns)


def _remove_from_index(db: Connection, run: tuple[int, int, int] | None, task: int) -> None:
    """Remove a task from the index: its run is cut in two. `run`: None if it is not indexed."""
    if run is not None:
        first, count, seq = run
        db.execute("delete from ended where first = ?", (first,))
        for begin, end in ((first, task), (task + 1, first + count)):
            if begin < end:
                db.execute(*ENDED.put(begin, end - begin, seq))


MAX_IN_RECORD = 2**20  # completions


def drop(journal: writer.Journal, first_seq: int, tasks: list[int]) -> receipts.Withdrawal:
    """Delete a record that cannot be read, so that its tasks are unfinished again. Returns what it
    took from usage."""
    taken = receipts.withdrawal_of_damaged(journal.records, first_seq)
    records = journal.records
    row = records.row(f"{FINISHED.checked} where seq = ?", first_seq)
    following = records.scalar("select min(seq) from finished where seq > ?", first_seq)
    # The number of its completions may be what is damaged.
    count = records.finished.count_at(first_seq)
    most = MAX_IN_RECORD if following is None else following - first_seq
    count = min(max(count, 1), most)
    last = max(records.meta(rows.LAST_SEQ), first_seq + count - 1)
    if following is not None:
        last = max(last, records.last_seq())
    with journal.transaction("FULL") as db:
        if row is not None:
            db.execute(*quarantined(FINISHED, row, time.time()))
        db.execute(*META.put(rows.LAST_SEQ, last))
        db.execute("delete from finished where seq = ?", (first_seq,))
        db.execute("delete from ended where seq = ?", (first_seq,))
        db.execute("delete from file where seq >= ? and seq < ?", (first_seq, first_seq + count))
        if tasks:
            sent = array("q", tasks * MIN_ATTEMPTS)
            db.execute(*SENT.append(sent.tobytes()))
        for statement in taken.statements:
            db.execute(*statement)
    return taken


def drop_damaged_records(journal: writer.Journal) -> int:
    """Drop all records that cannot be read, so that their tasks run again; called at a start,
    before the journal is replayed. Returns their number."""
    dropped = 0
    while True:
        try:
            for _ in journal.records.finished.all(journal.records.finished.indexed()):
                pass
        except finished.DamagedRecord as error:
            drop(journal, error.first_seq, [])
            dropped += 1
        else:
            return dropped
