"""Restoration of the scheduler from the journal, and of damaged results.

Choose the journal that a start continues with: the live one, or a newer backup. Invariant: a start
that finds a journal never begins empty, and the journal that was not chosen is never deleted.

Requeue tasks whose result, or the record of their end, is damaged. Such a task runs again with the
same seed and returns the same counts. Invariant: exactly one completion of a task counts at any
time. The damaged completion is withdrawn in the transaction that makes the task unfinished; a crash
at any point leaves the task either final or queued.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import msgspec

from simenv.config import EnvironmentPaths
from simenv.errors import ConfigError, JournalError, NotFoundError
from simenv.model import TaskSpec, task_name
from simenv.scheduler.core import Route, SubmitBatch
from simenv.scheduler.scheduler import Scheduler
from simenv.scheduler.state.scheduler_state import SchedulerState
from simenv.service import fault_injection
from simenv.service.accounting import receipts
from simenv.service.accounting.accounts import AccountRegistry
from simenv.service.admission import submissions
from simenv.service.journal import maintenance, reader, tables, wal, writer
from simenv.service.journal.database import FAILED_DISK, WAY_OUT, Connection, way_out_of
from simenv.service.results.completions import Completions
from simenv.text import duration
from simenv.wire import codec
from simenv.wire.messages.client import STATES, Completion

Units = Mapping[int, tuple[int, int]]  # reservation and units, by task
_FREE = (0, -1)


class ReplaySummary(msgspec.Struct, frozen=True):
    """Numbers of tasks that a replay restored, and its duration."""

    queued: int
    final: int
    seconds: float


def replay(
    journal: writer.Journal,
    scheduler: Scheduler,
    submit_queue: submissions.SubmitQueue,
    completions: Completions,
) -> ReplaySummary:
    """Restore the scheduler's state from the journal. Raises JournalError or ProtocolError if a row
    is damaged, ConfigError if a task cannot run now."""
    begin = time.monotonic()
    stored, units = tables.read_reservations(journal.records)
    scheduler.restore_controls(stored, tables.CONTROL.read(journal.records))
    scheduler.state.estimator.restore(tables.read_estimates(journal.records))
    now_ns = time.monotonic_ns()
    stored_usage = tables.read_fair_usage(journal.records)
    scheduler.state.shares.fair_share.restore(stored_usage, time.time_ns() - now_ns, now_ns)
    total = journal.records.next_task()
    final = final_tasks(journal, total)
    attempts = _attempts(journal, final)
    queued = 0
    rows = journal.records.count_accepted()
    for number, row in enumerate(journal.records.accepted()):
        if rows - number <= submissions.RECENT_KEYS:
            entry = submissions.IdempotencyEntry(row.first, row.count, row.digest)
            submit_queue.remember(row.owner, row.key, row.offset, entry)
        span = final[row.first : row.first + row.count]
        if 0 not in span:
            continue
        age_ns = max(0, round((time.time() - row.at) * 1e9))
        task_attempts = attempts[row.first : row.first + row.count]
        accepted_ns, accounts = time.monotonic_ns() - age_ns, submit_queue.accounts
        state = scheduler.state
        waiting = parts(state, accounts, row, span, task_attempts, accepted_ns, units)
        queued += queue(scheduler, waiting, completions)
    scheduler.set_clock(time.time_ns(), time.monotonic_ns())
    scheduler.restore_paced(tables.read_paced(journal.records))
    scheduler.finish_restore(total)
    return ReplaySummary(queued, sum(final), time.monotonic() - begin)


class Part(msgspec.Struct, frozen=True):
    """Neighbouring tasks of one Submit that must be queued."""

    batch: SubmitBatch
    specs: list[TaskSpec]
    routes: list[Route]
    attempts: list[int]
    units: list[int] | None = None  # of its reservation, for each task


def parts(
    state: SchedulerState,
    accounts: AccountRegistry,
    row: reader.AcceptedRow,
    span: bytearray,
    attempts: Sequence[int],
    accepted_ns: int,
    units: Units = MappingProxyType({}),
) -> list[Part]:
    """Return the tasks of a Submit whose byte in `span` is 0. `units`: by task; a task that runs
    again for a damaged result has no entry and takes none. Raises ConfigError if they cannot run
    now."""
    submit = codec.submit(row.body)
    terms = submit.terms
    routes = [state.cluster.reroute(route) for route in reader.unpack_routes(row.routes)]
    share_bytes = submissions.bytes_per_task(row.body, row.count)
    account = accounts.of_stored(row.first, row.owner, routes, submit.tasks)
    fields = {} if account is None else msgspec.structs.asdict(account)
    results = []
    position = 0
    while (position := span.find(0, position)) >= 0:
        end = span.find(1, position)
        end = len(span) if end < 0 else end
        first = row.first + position
        values = b"", terms, row.key, row.offset, first, accepted_ns, share_bytes, row.owner
        batch = SubmitBatch(*values, **fields)
        counts = list(attempts[position:end])
        held_units = None
        if units and terms.reservation:
            held_units = [units.get(task, _FREE)[1] for task in range(first, row.first + end)]
        results.append(
            Part(batch, submit.tasks[position:end], routes[position:end], counts, held_units)
        )
        position = end
    return results


def queue(scheduler: Scheduler, waiting: list[Part], completions: Completions) -> int:
    """Restore tasks in the scheduler, which ends those with a failed parent. Returns their
    number."""
    for part in waiting:
        after = part.batch.terms.after
        parent = submissions.failed_parent(completions, after) if after else 0
        scheduler.submit(
            part.batch, part.specs, part.routes, part.units, part.attempts, failed_parent=parent
        )
    return sum(len(part.specs) for part in waiting)


def final_tasks(journal: writer.Journal, total: int) -> bytearray:
    """Return one byte for each task: 1 if it has ended."""
    final = bytearray(total)
    for first, count in journal.records.indexed_runs():
        last = _check_task_number(first + count - 1, total)
        final[_check_task_number(first, total) : last + 1] = b"\1" * count
    replaced = set(journal.records.replaced())
    for first_seq, body in journal.records.finished(journal.records.indexed()):
        completed = codec.completed(body)
        for seq, completion in enumerate(completed.results, first_seq):
            final[_check_task_number(completion.task, total)] |= seq not in replaced
    return final


def _check_task_number(task: int, total: int) -> int:
    """Return the number of a task. Raises JournalError if no such task was ever accepted."""
    if not 0 < task < total:
        message = f"the journal holds the end of task {task}, and was given tasks up to {total - 1}"
        raise JournalError(message, hint=WAY_OUT)
    return task


def _attempts(journal: writer.Journal, final: bytearray) -> array[int]:
    """Count the attempts of each unfinished task; the journal keeps the records of these only."""
    counts = array("H", bytes(2 * len(final)))
    sent = array("q")
    for task in journal.records.sent():
        if task < len(final) and not final[task]:
            counts[task] += 1
            sent.append(task)
    journal.replace_sent(sent)
    return counts


MIN_ATTEMPTS = 1  # attempts of a task whose record cannot be read

log = logging.getLogger("simenv.service")


RESTORE = (
    "simenv up --restore continues with its copy, or with what is intact, whichever has more tasks,"
    " and keeps the damaged files"
)


class JournalHeader(msgspec.Struct, frozen=True):
    """Epoch and age of a journal."""

    epoch: int  # number of starts of the service that used it
    age_s: float  # since the last write
    next_task: int  # first task number that was never used
    is_complete: bool = False  # a copy with all commits of a service that has ended


def choose_journal(paths: EnvironmentPaths, resume: bool) -> str:
    """Make the journal to continue with the live one: the live journal itself, or its copy if that
    is newer, and complete or `resume` is set. Returns a description of the chosen journal, or "" if
    nothing was chosen. A live journal that is damaged, so that SQLite would drop commits of it, is
    refused; with `resume` the copy is used, or what is intact of the live journal if that has more
    tasks, and the damaged files are kept. Raises NotFoundError, ConfigError, JournalError."""
    copy = _read_copy_header(paths.copy)
    if paths.journal.exists() and (damage := wal.damage(paths.journal)):
        if not resume:
            raise JournalError(damage, hint=RESTORE)
        return _replace_damaged(paths, damage, copy)
    if copy is None:
        if paths.journal.exists():
            return f"from the live journal {paths.journal}" if resume else ""
        if resume:
            text = f"no journal to resume: neither {paths.journal} nor {paths.copy}"
            raise NotFoundError(text, hint="simenv up starts a new one")
        return ""
    live = read_header(paths.journal)
    if live is not None and live.epoch >= copy.epoch and live.next_task < copy.next_task:
        text = f"the live journal {paths.journal} knows {live.next_task - 1} tasks, and its copy"
        text += f" {paths.copy} {copy.next_task - 1}: commits of it are lost"
        if not resume:
            raise JournalError(text, hint=RESTORE)
        return _replace_damaged(paths, text, copy)
    if copy.is_complete:  # until this start makes one with its own commits
        _mark_incomplete(paths.copy)
    if live is not None and live.epoch >= copy.epoch:
        return f"from the live journal {paths.journal}" if resume else ""
    old = f"its copy {paths.copy} is {duration(copy.age_s)} old"
    if not resume and not copy.is_complete:
        raise ConfigError(
            f"there is no live journal {paths.journal}, and {old}"
            if live is None
            else f"the live journal {paths.journal} is of start {live.epoch}, and {old}, of "
            f"start {copy.epoch}: the environment has run elsewhere since",
            hint=f"simenv up --restore uses the copy; to start empty, remove {paths.copy}",
        )
    if live is not None:
        _set_aside(paths.journal, live.epoch)
    _restore_copy(paths.copy, paths.journal)
    return f"from the copy {paths.copy}, {duration(copy.age_s)} old"


def _mark_incomplete(copy: Path) -> None:
    try:
        maintenance.mark_complete(copy, complete=False)
    except sqlite3.Error as error:
        text = f"the journal's copy {copy} cannot be written: {error}"
        raise JournalError(text, hint=way_out_of(error, copy)) from error


def _read_copy_header(path: Path) -> JournalHeader | None:
    """Read the header of a copy; None if there is none, or if it cannot be read."""
    try:
        return read_header(path)
    except JournalError as error:
        log.warning("%s", error.message)
        return None


def read_header(path: Path) -> JournalHeader | None:
    """Read the header of a journal; None if there is no such file. Raises JournalError if the file
    is not a journal."""
    if not path.exists():
        return None
    try:
        age_s = max(0.0, time.time() - max(p.stat().st_mtime for p in _with_wal(path)))
        if not path.stat().st_size:
            raise sqlite3.DatabaseError("it has no content: it was cut")
        db = sqlite3.connect(path, isolation_level=None)
        try:
            query = "select key, value from meta where key in ('epoch', 'complete', 'next_task')"
            values = dict(db.execute(query))
            newest = db.execute("select first + count from accepted order by first desc limit 1")
            (accepted,) = newest.fetchone() or (1,)
        finally:
            db.close()
    except (sqlite3.Error, OSError) as error:
        text = f"the journal {path} cannot be read: {error}"
        raise JournalError(text, hint=way_out_of(error, path)) from error
    epoch = values.get("epoch", 0)
    next_task = max(accepted, values.get("next_task", 1))
    return JournalHeader(epoch, age_s, next_task, values.get("complete") == epoch)


def _replace_damaged(paths: EnvironmentPaths, damage: str, copy: JournalHeader | None) -> str:
    """Continue with the copy, or with what is intact of the damaged live journal if that has more
    tasks. Returns the description of what was chosen. Raises JournalError."""
    stamp = f"damaged-{time.time_ns() // 10**9}"
    for part in _with_wal(paths.journal):
        shutil.copyfile(part, part.with_name(f"{part.name}.{stamp}"))
    live: JournalHeader | None = None
    with suppress(JournalError):
        live = read_header(paths.journal)
    kept = f"the damaged one is kept as {paths.journal}.{stamp}"
    if copy is not None and (live is None or copy.next_task >= live.next_task):
        for part in (*_with_wal(paths.journal), Path(f"{paths.journal}-shm")):
            part.unlink(missing_ok=True)
        _restore_copy(paths.copy, paths.journal)
        return f"from the copy {paths.copy}, {duration(copy.age_s)} old: {damage}; {kept}"
    if live is None:
        raise JournalError(damage, hint=f"there is no copy; {kept}: remove {paths.journal}*")
    return f"from what is intact of {paths.journal}, {live.next_task - 1} tasks: {damage}; {kept}"


def _with_wal(path: Path) -> list[Path]:
    return [p for p in (path, path.with_name(path.name + "-wal")) if p.exists()]


def _set_aside(path: Path, epoch: int) -> None:
    """Rename an older journal, which is kept."""
    for part in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        if part.exists():
            part.replace(part.with_name(f"{part.name}.of-start-{epoch}"))


def _restore_copy(copy: Path, live: Path) -> None:
    temporary = live.with_name(f".{live.name}.new")
    shutil.copyfile(copy, temporary)
    temporary.chmod(0o600)
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(live)


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
            db.execute("insert or replace into replaced values(?,?,?)", (seq, number, state))
            _remove_from_index(db, self._journal.records.run_with(number), number)
            db.execute("delete from file where seq = ?", (seq,))
            sent = array("q", [number] * completion.attempts)
            db.execute("insert into sent(tasks) values(?)", (sent.tobytes(),))
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
        tasks = list(self._journal.records.tasks_at(first_seq))
        waiting = [part for number in tasks for part in self._parts(number, MIN_ATTEMPTS)]
        counts = self._journal.records.ended_in(first_seq)
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
        stored = None if first_seq is None else records.finished_at(first_seq)
        if stored is None:
            raise JournalError(f"the end of {task_name(number)} is no longer stored")
        return receipts.withdrawal(records, codec.completed(stored[0]), number)

    def _uncount(self, taken: receipts.Withdrawal) -> None:
        usage = self._completions.usage
        if usage is not None:
            for account, units in taken.units:
                usage.charge(account, units, taken.at_s)

    def _parts(self, number: int, attempts: int) -> list[Part]:
        row = self._journal.records.accepted_of(number)
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
                db.execute("insert into ended values(?,?,?)", (begin, end - begin, seq))


def drop(journal: writer.Journal, first_seq: int, tasks: list[int]) -> receipts.Withdrawal:
    """Delete a record that cannot be read, so that its tasks are unfinished again. Returns what it
    took from usage."""
    taken = receipts.withdrawal_of_damaged(journal.records, first_seq)
    last, count = journal.records.last_seq(), journal.records.count_at(first_seq)
    with journal.transaction("FULL") as db:
        db.execute("insert or replace into meta values(?,?)", (reader.LAST_SEQ, last))
        db.execute("delete from finished where seq = ?", (first_seq,))
        db.execute("delete from ended where seq = ?", (first_seq,))
        db.execute("delete from file where seq >= ? and seq < ?", (first_seq, first_seq + count))
        if tasks:
            sent = array("q", tasks * MIN_ATTEMPTS)
            db.execute("insert into sent(tasks) values(?)", (sent.tobytes(),))
        for statement in taken.statements:
            db.execute(*statement)
    return taken


def drop_damaged_records(journal: writer.Journal) -> int:
    """Drop all records that cannot be read, so that their tasks run again; called at a start,
    before the journal is replayed. Returns their number."""
    dropped = 0
    while True:
        try:
            for _ in journal.records.finished(journal.records.indexed()):
                pass
        except reader.DamagedRecord as error:
            drop(journal, error.first_seq, [])
            dropped += 1
        else:
            return dropped
