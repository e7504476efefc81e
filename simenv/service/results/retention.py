"""Retention of results, records and events; reserve of free space on the disk.

Reserve of free space on the journal's disk, and a spare file that is released on a full disk. Below
the reserve, submits of key owners who store much are refused; below a quarter of it, those of all
key owners. The environment's own user continues until the disk is full. One half of the spare file
is released when the journal meets a full disk, so that accepted tasks can still end and keys be
revoked. The results of these tasks may take all of it: the other half is for the removal of old
results. The file is created again when there is space. Source: `SystemKeepFree=` of
systemd-journald.

Remove results and records of ended tasks, in short slices of the event loop. A sweep first removes
records that are too old. Then, while an owner stores more than its limit, or all owners together
more than `results.keep_gib`, it removes the oldest data of that owner, or of the owner who stores
most: first files, whose tasks stay in the history, then records with their submits. While the disk
has less free space than its reserve, results of key owners are removed in the same manner, down to
SMALL_BYTES each; those of the environment's own user never are for that reason. Unfinished tasks
have no record and are not affected. Counts, and numbers that must not be used twice, are preserved.

Invariant: files are unlinked before the journal is changed, so that a full disk can be swept.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from simenv.config import Config
from simenv.errors import InsufficientError, JournalError
from simenv.model import Event
from simenv.scheduler.state.scheduler_state import SchedulerState
from simenv.service import fault_injection
from simenv.service.journal import pruning, reader, writer
from simenv.service.results.completions import Completions
from simenv.text import size as text_size
from simenv.wire.messages.queries import RetainedData

MAX_EVENTS = 200_000  # of the environment
MAX_OWNER_EVENTS = 10_000  # of one key's owner
MAX_OWNERS_EVENTS = 200_000  # of all keys' owners together, in equal parts
MAX_AUDIT_EVENTS = 10_000  # entries of the audit log, however old
EVENTS_A_STEP = 500

_OWNERS = """
with recursive each(owner) as (
  select min(owner) from event
  union all select (select min(owner) from event where owner > each.owner) from each
  where each.owner is not null)
select owner from each where owner is not null"""


class EventRemoval:
    """Removal of old events. Used from the loop's thread, through the journal's own connection.

    The environment's own events, those about tasks and reservations of each key owner, and the
    audit log are counted separately, so that an owner who causes many events removes only its own.
    Invariant: a step is one transaction of at most EVENTS_A_STEP rows, and event numbers are never
    used twice: the newest event of each owner stays, unless it is too old and not the newest of
    all.
    """

    def __init__(self, journal: writer.Journal) -> None:
        self._journal = journal
        self._remaining_owners: list[str] = []  # owners to examine in this walk
        self._before_s = 0.0
        self._share = MAX_OWNER_EVENTS

    def begin(self, before_s: float) -> None:
        """Begin a walk over all owners, unless one is in progress. `before_s`: remove events before
        this time of day, seconds since 1970."""
        if self._remaining_owners:
            return
        self._before_s = before_s
        self._remaining_owners = [row[0] for row in self._journal.records.rows(_OWNERS)]
        owners = sum(owner not in ("", reader.AUDIT) for owner in self._remaining_owners)
        self._share = min(MAX_OWNER_EVENTS, MAX_OWNERS_EVENTS // max(1, owners))

    def step(self) -> bool:
        """Remove some events. Returns True if there are more to examine. Raises JournalError."""
        if not self._remaining_owners:
            return False
        owner = self._remaining_owners[-1]
        removable = self._removable(owner)
        if removable:
            with self._journal.transaction("NORMAL") as db:
                query = "delete from event where owner = ? and seq <= ?"
                db.execute(query, (owner, removable[-1]))
        if len(removable) < EVENTS_A_STEP:
            self._remaining_owners.pop()
        return bool(self._remaining_owners)

    def _removable(self, owner: str) -> list[int]:
        """Return some of the oldest events of an owner that are too many or too old."""
        rows = self._journal.records.rows
        max_events = {"": MAX_EVENTS, reader.AUDIT: MAX_AUDIT_EVENTS}.get(owner, self._share)
        newest = self._journal.records.last_event()
        query = "select seq from event where owner = ? order by seq desc limit 1 offset ?"
        too_many = max((row[0] for row in rows(query, owner, max_events)), default=0)
        query = "select seq, body from event where owner = ? order by seq limit ?"
        removable: list[int] = []
        for seq, body in rows(query, owner, EVENTS_A_STEP):
            if (
                seq > too_many and (owner == reader.AUDIT or not self._is_old(body))
            ) or seq == newest:
                break
            removable.append(seq)
        return removable

    def _is_old(self, body: bytes) -> bool:
        return msgspec.msgpack.decode(body, type=Event).time_s < self._before_s


GIB = 2**30
SHARE = 0.05  # of the disk
MIN_BYTES = GIB
SMALL_BYTES = 256 * 2**20  # of results that every owner may keep below the reserve
POLL_S = 0.25
SPARE_BYTES = 4 * 2**20  # for commits; as much again is for the removal of old results
SPARE_NAME = "journal.spare"
FULL_BYTES = 16 * 2**20  # with less free space a disk is called full, until it has twice as much


class DiskReserve:
    """Reserve of one disk. `keep_free_gib` < 0: 5 % of the disk, at least 1 GiB. Used from the
    loop's thread."""

    def __init__(
        self,
        folder: Path,
        keep_free_gib: float,
        measure: Callable[[Path], tuple[int, int]] | None = None,
    ) -> None:
        """`measure`: returns the size and the free space of the disk of a folder, in bytes."""
        self.folder = folder
        self._keep_free_gib = keep_free_gib
        self._measure = measure or disk_of
        self._reclaimable = folder / SPARE_NAME
        self._next_poll_s = 0.0
        self._free = self._reserve = 0
        self._has_size = False  # the disk could be measured
        self._spare_bytes = 2 * SPARE_BYTES  # what the spare file has, or may get at the start
        self.spent = False  # the disk was found full, and the spare file is not whole again
        self._was_full = False
        # What frees how much, for hints.
        self.remedy: Callable[[], str] = lambda: "`simenv prune` removes old results"

    def start(self) -> None:
        """Create the spare file if there is space for it."""
        self._create_spare_file()

    def stop(self) -> None:
        """Remove the spare file: only a running service needs it."""
        with contextlib.suppress(OSError):
            self._reclaimable.unlink(missing_ok=True)

    def lacking_bytes(self) -> int:
        """Return the bytes by which the free space is below the reserve; 0: it is not."""
        self._update()
        return max(0, self._reserve - self._free)

    def invalidate(self) -> None:
        """Measure the disk again at the next use, because the free space has changed."""
        self._next_poll_s = 0.0

    def release(self, *, for_removal: bool = False) -> bool:
        """Give back a half of the spare file because the disk is full; all of it for the removal of
        old results. Returns False if that was done before."""
        left = 0 if for_removal else SPARE_BYTES
        if self._spare_bytes <= left:
            return False
        self._spare_bytes, self.spent = left, True
        with contextlib.suppress(OSError):
            if left:
                os.truncate(self._reclaimable, left)
            else:
                self._reclaimable.unlink(missing_ok=True)
        return True

    def change(self) -> str:
        """Return `disk.full` or `disk.freed` if that is new since the last call, else ""."""
        self._update()
        least = 2 * FULL_BYTES if self._was_full else FULL_BYTES
        is_full = self.spent or (self._has_size and self._free < least)
        if is_full == self._was_full:
            return ""
        self._was_full = is_full
        return "disk.full" if is_full else "disk.freed"

    def describe(self) -> str:
        """Return what is free, and what would free more."""
        self._update()
        return f"{text_size(self._free)} are free; {self.remedy()}"

    def problem(self, *, has_users: bool) -> str:
        """Return a warning that tasks are or will be refused; "" if none are. `has_users`: owners
        of keys may submit, not the environment's own user alone. All users may read it."""
        self._update()
        remedy = "free space on it, or remove old results: simenv prune"
        text = f"the disk of {self.folder} has {text_size(self._free)} free"
        if self.spent or (self._has_size and self._free < FULL_BYTES):
            return f"{text}, new tasks are refused when it is full: {remedy}"
        if not (has_users and self._has_size and self.lacking_bytes()):
            return ""
        owners = "all users"
        if self._free > self._reserve // 4:
            owners = f"users who store more than {text_size(SMALL_BYTES)}"
        kept = f"{text_size(self._reserve)} are kept free (results.keep_free_gib)"
        return f"{text}, {kept}, new tasks of {owners} are refused: {remedy}"

    def restore(self) -> None:
        """Create the spare file again when there is free space for more than its size."""
        if self.spent:
            self._update()
            if self._free > 3 * SPARE_BYTES:
                self._create_spare_file()

    def refusal(self, owner: str, kept_bytes: int) -> InsufficientError | None:
        """Return the error if no Submit is accepted of an owner who stores `kept_bytes` of results;
        else None. `owner` "": the environment's own user."""
        if self.spent:
            text = f"the disk of {self.folder} is full: accepted tasks run, new ones are refused"
            return InsufficientError(text, hint=self._hint(owner))
        lacking = self.lacking_bytes() if owner else 0
        if not lacking:
            return None
        if kept_bytes <= SMALL_BYTES and self._free > self._reserve // 4:
            return None
        return InsufficientError(
            f"the disk of the service has {text_size(self._free)} free; "
            f"{text_size(self._reserve)} are kept "
            f"free (results.keep_free_gib), and {owner!r} keeps {text_size(kept_bytes)} of results",
            hint=self._hint(owner),
        )

    def _hint(self, owner: str) -> str:
        """Return the remedy. Key owners do not see how much others store."""
        if owner:
            return "an admin frees space on it, or removes old results: simenv prune"
        return f"free space on it; {self.remedy()}"

    def _update(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_poll_s:
            self._next_poll_s = now_s + POLL_S
            total, self._free = self._measure(self.folder)
            self._has_size = total > 0
            self._reserve = round(self._keep_free_gib * GIB)
            if self._keep_free_gib < 0:
                self._reserve = max(round(SHARE * total), MIN_BYTES)

    def _create_spare_file(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self._reclaimable, flags, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, 2 * SPARE_BYTES)
            finally:
                os.close(descriptor)
            self._spare_bytes, self.spent = 2 * SPARE_BYTES, False
        except OSError:
            if self.spent:
                self._spare_bytes = 0
            with contextlib.suppress(OSError):
                self._reclaimable.unlink(missing_ok=True)


def disk_of(folder: Path) -> tuple[int, int]:
    """Return the size of the disk of a folder, and the free space for this user, in bytes; zeros if
    that fails."""
    try:
        result = os.statvfs(folder)
    except OSError:
        return 0, 0
    return result.f_blocks * result.f_frsize, result.f_bavail * result.f_frsize


DAY_S = 86_400.0
LIMITS_POLL_S = 30.0  # between two checks of the limits
LOW_POLL_S = 1.0  # between them while the disk is below its reserve
PATIENCE_S = 5.0  # until a requested sweep fails that the journal cannot store
SLICE_NS = 2_000_000
VACUUM_PAGES = 32  # given back to the file system in one slice: 128 KiB
SPARE_PAGES = 1_024  # left in the file for the next rows


class RetentionLimits(msgspec.Struct, frozen=True):
    """Limits of one sweep. `before_s`: tasks that ended before this time of day are removed.
    `max_total_bytes`: of files and journal together. `owner_bytes`: of single owners.
    `lacking_bytes`: below the reserve of the disk."""

    before_s: float
    max_total_bytes: int
    owner_bytes: dict[str, int] = {}
    lacking_bytes: int = 0


class Sweep:
    """One removal of old data. `dry_run`: only count. `beside`: bytes of checkpoints of unfinished
    tasks by owner, which are counted and not removed."""

    def __init__(
        self,
        old: pruning.JournalPruner,
        limits: RetentionLimits,
        dry_run: bool,
        remove: Callable[[list[str]], None],
        checkpoints: dict[str, int] | None = None,
    ) -> None:
        self._old = old
        self._limits = limits
        self._dry_run = dry_run
        self._remove = remove
        self._after = 0  # last examined record of those that are too old
        self._after_of: dict[str, int] = {}
        self._after_file: dict[str, int] = {}
        self._ahead = 0  # last completion whose file was removed before its record
        self._checkpoints = {} if checkpoints is None else checkpoints
        self._total = old.total_bytes() + sum(self._checkpoints.values())
        self._lacking = limits.lacking_bytes
        self._owner_bytes = self._by_owner()
        self._empty: set[str] = set()  # owners without data left to remove
        self.freed = RetainedData()
        self.done = False

    def _by_owner(self) -> dict[str, int]:
        sizes = self._old.bytes_by_owner()
        for owner, size in self._checkpoints.items():
            sizes[owner] = sizes.get(owner, 0) + size
        return sizes

    def step(self, deadline_ns: int) -> None:
        """Continue until the deadline; `done` is set at the end. Raises JournalError."""
        while not self.done and time.monotonic_ns() < deadline_ns:
            self.done = not (self._remove_expired() or self._remove_excess())

    def free_space(self) -> None:
        """Remove further files of records that are too old, ahead of the records: the journal
        cannot store their removal because the disk is full."""
        files = self._old.files_before(self._limits.before_s, self._ahead)
        if files:
            self._ahead = files[-1].seq
            self._remove([file.name for file in files])

    def _remove_expired(self) -> bool:
        records = self._old.too_old(self._after, self._limits.before_s)
        if records:
            self._remove_records(records)
            self._after = records[-1].first_seq
        return bool(records)

    def _remove_excess(self) -> bool:
        result = self._next_excess()
        if result is None:
            return False
        owner, excess_bytes = result
        if not (
            self._remove_oldest_files(owner, excess_bytes)
            or self._remove_oldest_records(owner, excess_bytes)
        ):
            self._empty.add(owner)
        return True

    def _next_excess(self) -> tuple[str, int] | None:
        """Return the owner whose data must be reduced, and by how many bytes; None: no owner's."""
        sizes = {
            owner: size for owner, size in self._owner_bytes.items() if owner not in self._empty
        }
        for owner, max_bytes in self._limits.owner_bytes.items():
            if sizes.get(owner, 0) > max_bytes:
                return owner, sizes[owner] - max_bytes
        largest = max(sizes, key=sizes.__getitem__, default=None)
        if largest is not None and self._total > self._limits.max_total_bytes:
            return largest, self._total - self._limits.max_total_bytes
        if self._lacking > 0:
            large = {owner: size for owner, size in sizes.items() if owner and size > SMALL_BYTES}
            if large:
                largest = max(large, key=large.__getitem__)
                return largest, min(self._lacking, large[largest] - SMALL_BYTES)
        return None

    def _remove_oldest_files(self, owner: str, wanted_bytes: int) -> bool:
        """Remove the oldest files of an owner; the history of their tasks stays. Returns whether
        there may be more."""
        after = self._after_file.get(owner, 0)
        if after < 0:
            return False
        files, looked = self._old.oldest_files(owner, wanted_bytes, after)
        if files and not self._dry_run:
            self._remove([file.name for file in files])
            self._old.forget_files(files)
        self._after_file[owner] = looked or -1
        size = sum(file.size_bytes for file in files)
        self._count(owner, RetainedData(files=len(files), file_bytes=size))
        return bool(looked)

    def _remove_oldest_records(self, owner: str, wanted_bytes: int) -> bool:
        records = self._old.oldest_of(owner, wanted_bytes, self._after_of.get(owner, 0))
        if records:
            self._remove_records(records)
            self._after_of[owner] = records[-1].first_seq
        return bool(records)

    def _remove_records(self, records: list[pruning.EndedRecords]) -> None:
        removed = [(record.owner, self._old.measure(record)) for record in records]
        before = self._old.journal_bytes()
        if not self._dry_run:
            fault_injection.hit("gc.before")
            self._remove([name for record in records for name in record.files])
            self._old.forget(records)
            fault_injection.hit("gc.after")
        for owner, data in removed:
            self._count(owner, data)
        if not self._dry_run:  # their Submits were removed too, and only whole pages become free
            self._total += sum(data.journal_bytes for _, data in removed)
            self._total -= before - self._old.journal_bytes()
            self._owner_bytes = self._by_owner()

    def _count(self, owner: str, removed: RetainedData) -> None:
        size = removed.journal_bytes + removed.file_bytes
        self._total -= size
        self._lacking -= removed.file_bytes  # rows leave their pages in the journal's file
        self._owner_bytes[owner] = self._owner_bytes.get(owner, 0) - size
        self.freed = add(self.freed, removed)


_AGES = (("7d", 7 * DAY_S), ("1d", DAY_S), ("1h", 3_600.0), ("0s", 0.0))  # that hints name
Callback = Callable[[Sweep | JournalError], None]


class Retention:
    """Retention of ended tasks, one sweep at a time. Used from the loop's thread, in its idle
    moments."""

    def __init__(
        self,
        config: Config,
        journal: writer.Journal,
        state: SchedulerState,
        completions: Completions,
        remove: Callable[[list[str]], None],
        reserve: DiskReserve,
    ) -> None:
        self._config = config
        self._completions = completions
        self._old = pruning.JournalPruner(journal, state)
        self._events = EventRemoval(journal)
        self._state = state
        self._reserve = reserve
        self._remove = remove
        self.checkpoint_bytes: dict[str, int] = {}  # of unfinished tasks, by owner
        self._sweep: Sweep | None = None
        self._over: Callback = _no_callback
        self._waiting: list[tuple[float, bool, Callback]] = []
        self._failed_ns = 0  # begin of the failures to store a sweep; 0: the last one was stored
        self._next_poll_ns = 0
        self._vacuuming = self._forgetting = False

    @property
    def is_urgent(self) -> bool:
        """True if a client waits for a sweep."""
        return bool(self._waiting) or self._over is not _no_callback

    def request_sweep(self, older_s: float, dry_run: bool, callback: Callback) -> None:
        """Request a sweep; `callback` gets it when it is done, or the JournalError. `older_s` < 0:
        by the configured limits."""
        self._waiting.append((older_s, dry_run, callback))

    def work(self, note: Callable[[str, str, str], None]) -> None:
        """Run one slice. `note` records events: (kind, subject, message). Raises JournalError."""
        if self._completions.unindexed:
            return  # a sweep needs the complete index
        if self._sweep is None and not self._begin():
            self._clean_up()
            return
        sweep = self._sweep
        assert sweep is not None
        now_ns = time.monotonic_ns()
        try:
            try:
                sweep.step(now_ns + SLICE_NS)
            except JournalError:
                sweep.free_space()
                if not self._reserve.release(for_removal=True):
                    raise
                sweep.step(now_ns + SLICE_NS)  # at once, before anything else takes the space
            self._failed_ns = 0
        except JournalError as error:
            self._failed_ns = self._failed_ns or now_ns
            if now_ns - self._failed_ns > PATIENCE_S * 1e9:  # removed files did not free enough
                self._sweep, self._failed_ns = None, 0
                callback, self._over = self._over, _no_callback
                callback(error)
            raise
        if not sweep.done:
            return
        self._sweep, callback, self._over = None, self._over, _no_callback
        if sweep.freed.tasks or sweep.freed.files:
            self._vacuuming = True
            if callback is _no_callback:
                note("history.removed", self._config.name, removal_text(sweep.freed))
        callback(sweep)

    def remedy(self) -> str:
        """Return which removal of results frees how much: of the oldest that free half of what all
        of them take."""
        now_s = time.time()
        total_bytes = self._old.files_size(now_s)[1]
        for age, span_s in _AGES:
            files, size = self._old.files_size(now_s - span_s)
            if size and 2 * size >= total_bytes:
                what = f"{text_size(size)}: {files} files of results"
                return f"`simenv prune --older-than {age}` frees {what}"
        return "no result files of ended tasks are left for `simenv prune` to remove"

    def stored_data(self) -> RetainedData:
        """Return the present amounts of stored data."""
        return self._old.stored_data()

    def _begin(self) -> bool:
        now_ns = time.monotonic_ns()
        if self._waiting:
            older_s, dry_run, self._over = self._waiting.pop(0)
            limits = self._limits()
            if older_s >= 0:
                limits = msgspec.structs.replace(limits, before_s=time.time() - older_s)
            self._sweep = self._new(limits, dry_run)
            return True
        if now_ns < self._next_poll_ns:
            return False
        limits = self._limits()
        self._next_poll_ns = now_ns + round(
            (LOW_POLL_S if limits.lacking_bytes else LIMITS_POLL_S) * 1e9
        )
        self._forgetting = True
        self._events.begin(limits.before_s)
        if not self._is_due(limits):
            return False
        self._sweep = self._new(limits, dry_run=False)
        return True

    def _new(self, limits: RetentionLimits, dry_run: bool) -> Sweep:
        return Sweep(self._old, limits, dry_run, self._remove, self.checkpoint_bytes)

    def _is_due(self, limits: RetentionLimits) -> bool:
        checkpoint_bytes = sum(self.checkpoint_bytes.values())
        if self._old.is_due(limits.before_s, limits.max_total_bytes - checkpoint_bytes):
            return True
        sizes = self._old.bytes_by_owner()
        if any(sizes.get(owner, 0) > max_bytes for owner, max_bytes in limits.owner_bytes.items()):
            return True
        has_large_owner = any(owner and size > SMALL_BYTES for owner, size in sizes.items())
        return limits.lacking_bytes > 0 and has_large_owner

    def _limits(self) -> RetentionLimits:
        config = self._config
        before_s = time.time() - DAY_S * config.history.keep_days
        table = self._state.shares.limits
        sizes = self._old.bytes_by_owner()
        owners = {
            owner: max_bytes for owner in sizes if (max_bytes := table.of(owner).max_kept_bytes)
        }
        lacking = self._reserve.lacking_bytes()
        return RetentionLimits(before_s, round(GIB * config.results.keep_gib), owners, lacking)

    def _clean_up(self) -> None:
        """Run one slice of the work that follows sweeps: free pages, old events and attempts."""
        if self._vacuuming:
            self._vacuuming = self._old.vacuum(VACUUM_PAGES, SPARE_PAGES)
        elif self._forgetting:
            step = self._events.step() or self._old.forget_attempts()
            self._forgetting = step or self._old.merge_usage()


def add(first: RetainedData, second: RetainedData) -> RetainedData:
    """Return the sum of two amounts, with the older of both times."""
    return RetainedData(
        first.tasks + second.tasks,
        first.files + second.files,
        first.file_bytes + second.file_bytes,
        first.journal_bytes + second.journal_bytes,
        first.unread + second.unread,
        min((data.oldest_s for data in (first, second) if data.oldest_s), default=0.0),
    )


def removal_text(freed: RetainedData) -> str:
    """Return a description of removed data for an event."""
    text = f"{freed.tasks} tasks, {freed.files} files of results ({freed.file_bytes} bytes)"
    if freed.unread:
        text += f"; {freed.unread} completions among them had not been acknowledged by some cursor"
    return text


def _no_callback(_sweep: Sweep | JournalError) -> None:
    return None
