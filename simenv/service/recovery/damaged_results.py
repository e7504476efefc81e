"""Requeue tasks whose result, or the record of their end, is damaged.

Such a task runs again with the same seed and returns the same counts. Invariant: exactly one
completion of a task counts at any time. The damaged completion is withdrawn in the transaction that
makes the task unfinished; a crash at any point leaves the task either final or queued.
"""

from __future__ import annotations

import time
from array import array

from simenv.errors import JournalError
from simenv.model import task_name
from simenv.scheduler.scheduler import Scheduler
from simenv.service.journal.reader import LAST_SEQ, DamagedRecord
from simenv.service.journal.writer import Journal
from simenv.service.recovery.replay import MIN_ATTEMPTS, Part, parts, queue
from simenv.service.results.completions import Completions
from simenv.service.support import fault_injection
from simenv.wire.messages.client import STATES, Completion


class ResultRepair:
    """Requeueing of tasks with damaged results. Used from the loop's thread. If a method raises,
    nothing has changed."""

    def __init__(self, journal: Journal, scheduler: Scheduler, completions: Completions) -> None:
        self._journal = journal
        self._scheduler = scheduler
        self._completions = completions

    def task(self, seq: int, completion: Completion) -> None:
        """Requeue a task with a damaged payload or file; `seq` is the number of its completion.

        Raises JournalError, and ConfigError if the present environment cannot run the task.
        """
        number, state = completion.task, STATES[completion.state]
        waiting = self._parts(number, completion.attempts)
        fault_injection.hit("reopen.before")
        with self._journal.transaction("FULL") as db:
            db.execute("insert or replace into replaced values(?,?,?)", (seq, number, state))
            db.execute("delete from result where task = ?", (number,))
            db.execute("delete from file where seq = ?", (seq,))
            sent = array("q", [number] * completion.attempts)
            db.execute("insert into sent(tasks) values(?)", (sent.tobytes(),))
        fault_injection.hit("reopen.after")
        self._completions.withdraw(number, seq)
        self._scheduler.reopen({state: 1})
        queue(self._scheduler, waiting, self._completions)

    def record(self, first_seq: int) -> list[int]:
        """Requeue all tasks of a record that cannot be read; returns them. Raises as `task`."""
        self._completions.index_all()
        if self._completions.unindexed:
            raise JournalError("ends of tasks wait to be stored", hint="free space on its disk")
        tasks = list(self._journal.records.tasks_at(first_seq))
        waiting = [part for number in tasks for part in self._parts(number, MIN_ATTEMPTS)]
        counts = self._journal.records.ended_in(first_seq)
        fault_injection.hit("reopen.before")
        drop(self._journal, first_seq, tasks)
        fault_injection.hit("reopen.after")
        self._scheduler.reopen(counts)
        queue(self._scheduler, waiting, self._completions)
        return tasks

    def _parts(self, number: int, attempts: int) -> list[Part]:
        row = self._journal.records.accepted_of(number)
        if row is None:
            raise JournalError(f"the submission of {task_name(number)} is no longer stored")
        span = bytearray(b"\1") * row.count
        span[number - row.first] = 0
        return parts(self._scheduler.state, row, span, [attempts] * row.count, time.monotonic_ns())


def drop(journal: Journal, first_seq: int, tasks: list[int]) -> None:
    """Delete a record that cannot be read, so that its tasks are unfinished again."""
    last, count = journal.records.last_seq(), journal.records.count_at(first_seq)
    with journal.transaction("FULL") as db:
        db.execute("insert or replace into meta values(?,?)", (LAST_SEQ, last))
        db.execute("delete from finished where seq = ?", (first_seq,))
        db.execute("delete from result where seq = ?", (first_seq,))
        db.execute("delete from file where seq >= ? and seq < ?", (first_seq, first_seq + count))
        if tasks:
            sent = array("q", tasks * MIN_ATTEMPTS)
            db.execute("insert into sent(tasks) values(?)", (sent.tobytes(),))


def drop_damaged_records(journal: Journal) -> int:
    """Drop all records that cannot be read, so that their tasks run again; called at a start,
    before the journal is replayed. Returns their number."""
    dropped = 0
    while True:
        try:
            for _ in journal.records.finished(journal.records.indexed()):
                pass
        except DamagedRecord as error:
            drop(journal, error.first_seq, [])
            dropped += 1
        else:
            return dropped
