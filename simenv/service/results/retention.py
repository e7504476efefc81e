"""Remove results and records of ended tasks, in short slices of the event loop.

A sweep first removes records that are too old. Then, while an owner stores more than its limit, or
all owners together more than `results.keep_gib`, it removes the oldest data of that owner, or of
the owner who stores most: first files, whose tasks stay in the history, then records with their
submits.
While the disk has less free space than its reserve, results of key owners are removed in the same
manner, down to SMALL_BYTES each; those of the environment's own user never are for that reason.
Unfinished tasks have no record and are not affected. Counts, and numbers that must not be used
twice, are preserved.

Invariant: files are unlinked before the journal is changed, so that a full disk can be swept.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from simenv.config import Config
from simenv.errors import JournalError
from simenv.scheduler.state.state import SchedulerState
from simenv.service.journal.pruning import EndedRecords, JournalPruner
from simenv.service.journal.writer import Journal
from simenv.service.results.completions import Completions
from simenv.service.results.disk_reserve import SMALL_BYTES, DiskReserve
from simenv.service.results.event_retention import EventRemoval
from simenv.service.support import fault_injection
from simenv.wire.messages.queries import RetainedData

GIB = 2**30
DAY_S = 86_400.0
POLL_S = 30.0  # between two checks of the limits
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
        old: JournalPruner,
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

    def _remove_records(self, records: list[EndedRecords]) -> None:
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


Callback = Callable[[Sweep | JournalError], None]


class Retention:
    """Retention of ended tasks, one sweep at a time. Used from the loop's thread, in its idle
    moments."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        state: SchedulerState,
        completions: Completions,
        remove: Callable[[list[str]], None],
        reserve: DiskReserve,
    ) -> None:
        self._config = config
        self._completions = completions
        self._old = JournalPruner(journal, state)
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
            sweep.step(now_ns + SLICE_NS)
            self._failed_ns = 0
        except JournalError as error:
            self._failed_ns = self._failed_ns or now_ns
            if now_ns - self._failed_ns > PATIENCE_S * 1e9:  # removed files did not free enough
                self._sweep, callback, self._over, self._failed_ns = (
                    None,
                    self._over,
                    _no_callback,
                    0,
                )
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
        self._next_poll_ns = now_ns + round((LOW_POLL_S if limits.lacking_bytes else POLL_S) * 1e9)
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
        quotas = self._state.quotas
        sizes = self._old.bytes_by_owner()
        owners = {
            owner: max_bytes for owner in sizes if (max_bytes := quotas.of(owner).max_kept_bytes)
        }
        lacking = self._reserve.lacking_bytes()
        return RetentionLimits(before_s, round(GIB * config.results.keep_gib), owners, lacking)

    def _clean_up(self) -> None:
        """Run one slice of the work that follows sweeps: free pages, old events and attempts."""
        if self._vacuuming:
            self._vacuuming = self._old.vacuum(VACUUM_PAGES, SPARE_PAGES)
        elif self._forgetting:
            self._forgetting = self._events.step() or self._old.forget_attempts()


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
