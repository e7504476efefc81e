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
from simenv.service.journal.pruning import JournalPruner, Old
from simenv.service.journal.writer import Journal
from simenv.service.results.completions import Completions
from simenv.service.results.disk_reserve import SMALL_BYTES, DiskReserve
from simenv.service.results.event_retention import OldEvents
from simenv.service.support import fault_injection
from simenv.wire.messages.queries import RetainedData

GIB = 2**30
DAY_S = 86_400.0
LOOK_S = 30.0  # between two checks of the limits
LOW_LOOK_S = 1.0  # between them while the disk is below its reserve
PATIENCE_S = 5.0  # until a requested sweep fails that the journal cannot store
SLICE_NS = 2_000_000
VACUUM_PAGES = 32  # given back to the file system in one slice: 128 KiB
SPARE_PAGES = 1_024  # left in the file for the next rows


class RetentionLimits(msgspec.Struct, frozen=True):
    """Limits of one sweep. `before_s`: tasks that ended before this time of day are removed.
    `most_bytes`: of files and journal together. `owner_bytes`: of single owners. `lacking_bytes`:
    below the reserve of the disk."""

    before_s: float
    most_bytes: int
    owner_bytes: dict[str, int] = {}
    lacking_bytes: int = 0


class Sweep:
    """One removal of old data. `dry`: only count. `beside`: bytes of checkpoints of unfinished
    tasks by owner, which are counted and not removed."""

    def __init__(
        self,
        old: JournalPruner,
        limits: RetentionLimits,
        dry: bool,
        remove: Callable[[list[str]], None],
        beside: dict[str, int] | None = None,
    ) -> None:
        self._old = old
        self._limits = limits
        self._dry = dry
        self._remove = remove
        self._after = 0  # last examined record of those that are too old
        self._after_of: dict[str, int] = {}
        self._after_file: dict[str, int] = {}
        self._checkpoints = {} if beside is None else beside
        self._total = old.bytes_kept() + sum(self._checkpoints.values())
        self._lacking = limits.lacking_bytes
        self._kept = self._by_owner()
        self._empty: set[str] = set()  # owners without data left to remove
        self.freed = RetainedData()
        self.done = False

    def _by_owner(self) -> dict[str, int]:
        kept = self._old.kept_by_owner()
        for owner, size in self._checkpoints.items():
            kept[owner] = kept.get(owner, 0) + size
        return kept

    def step(self, deadline_ns: int) -> None:
        """Continue until the deadline; `done` is set at the end. Raises JournalError."""
        while not self.done and time.monotonic_ns() < deadline_ns:
            self.done = not (self._take_too_old() or self._take_too_much())

    def _take_too_old(self) -> bool:
        records = self._old.too_old(self._after, self._limits.before_s)
        if records:
            self._take(records)
            self._after = records[-1].first_seq
        return bool(records)

    def _take_too_much(self) -> bool:
        result = self._next_excess()
        if result is None:
            return False
        owner, wanted = result
        if not (self._take_files(owner, wanted) or self._take_records(owner, wanted)):
            self._empty.add(owner)
        return True

    def _next_excess(self) -> tuple[str, int] | None:
        """Return the owner whose data must be reduced, and by how many bytes; None: no owner's."""
        kept = {owner: size for owner, size in self._kept.items() if owner not in self._empty}
        for owner, max_bytes in self._limits.owner_bytes.items():
            if kept.get(owner, 0) > max_bytes:
                return owner, kept[owner] - max_bytes
        largest = max(kept, key=kept.__getitem__, default=None)
        if largest is not None and self._total > self._limits.most_bytes:
            return largest, self._total - self._limits.most_bytes
        if self._lacking > 0:
            others = {owner: size for owner, size in kept.items() if owner and size > SMALL_BYTES}
            if others:
                largest = max(others, key=others.__getitem__)
                return largest, min(self._lacking, others[largest] - SMALL_BYTES)
        return None

    def _take_files(self, owner: str, wanted_bytes: int) -> bool:
        """Remove the oldest files of an owner; the history of their tasks stays. Returns whether
        there may be more."""
        after = self._after_file.get(owner, 0)
        if after < 0:
            return False
        files, looked = self._old.oldest_files(owner, wanted_bytes, after)
        if files and not self._dry:
            self._remove([file.name for file in files])
            self._old.forget_files(files)
        self._after_file[owner] = looked or -1
        size = sum(file.size_bytes for file in files)
        self._count(owner, RetainedData(files=len(files), file_bytes=size))
        return bool(looked)

    def _take_records(self, owner: str, wanted_bytes: int) -> bool:
        records = self._old.oldest_of(owner, wanted_bytes, self._after_of.get(owner, 0))
        if records:
            self._take(records)
            self._after_of[owner] = records[-1].first_seq
        return bool(records)

    def _take(self, records: list[Old]) -> None:
        gone = [(record.owner, self._old.measure(record)) for record in records]
        before = self._old.journal_bytes()
        if not self._dry:
            fault_injection.hit("gc.before")
            self._remove([name for record in records for name in record.files])
            self._old.forget(records)
            fault_injection.hit("gc.after")
        for owner, kept in gone:
            self._count(owner, kept)
        if not self._dry:  # their Submits were removed too, and only whole pages become free
            self._total += sum(kept.journal_bytes for _, kept in gone)
            self._total -= before - self._old.journal_bytes()
            self._kept = self._by_owner()

    def _count(self, owner: str, gone: RetainedData) -> None:
        size = gone.journal_bytes + gone.file_bytes
        self._total -= size
        self._lacking -= gone.file_bytes  # rows leave their pages in the journal's file
        self._kept[owner] = self._kept.get(owner, 0) - size
        self.freed = add(self.freed, gone)


Then = Callable[[Sweep | JournalError], None]


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
        self._events = OldEvents(journal)
        self._state = state
        self._reserve = reserve
        self._remove = remove
        self.checkpoint_bytes: dict[str, int] = {}  # of unfinished tasks, by owner
        self._sweep: Sweep | None = None
        self._over: Then = _no_callback
        self._waiting: list[tuple[float, bool, Then]] = []
        self._failed_ns = 0  # begin of the failures to store a sweep; 0: the last one was stored
        self._look_at_ns = 0
        self._vacuuming = self._forgetting = False

    @property
    def is_urgent(self) -> bool:
        """True if a client waits for a sweep."""
        return bool(self._waiting) or self._over is not _no_callback

    def ask(self, older_s: float, dry: bool, then: Then) -> None:
        """Request a sweep; `then` gets it when it is done, or the JournalError. `older_s` < 0: by
        the configured limits."""
        self._waiting.append((older_s, dry, then))

    def work(self, note: Callable[[str, str, str], None]) -> None:
        """Run one slice. `note` records events: (kind, subject, message). Raises JournalError."""
        if self._completions.unindexed:
            return  # a sweep needs the complete index
        if self._sweep is None and not self._begin():
            self._tidy()
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
                self._sweep, then, self._over, self._failed_ns = None, self._over, _no_callback, 0
                then(error)
            raise
        if not sweep.done:
            return
        self._sweep, then, self._over = None, self._over, _no_callback
        if sweep.freed.tasks or sweep.freed.files:
            self._vacuuming = True
            if then is _no_callback:
                note("history.removed", self._config.name, removal_text(sweep.freed))
        then(sweep)

    def kept(self) -> RetainedData:
        """Return the present amounts of stored data."""
        return self._old.kept()

    def _begin(self) -> bool:
        now_ns = time.monotonic_ns()
        if self._waiting:
            older_s, dry, self._over = self._waiting.pop(0)
            limits = self._limits()
            if older_s >= 0:
                limits = msgspec.structs.replace(limits, before_s=time.time() - older_s)
            self._sweep = self._new(limits, dry)
            return True
        if now_ns < self._look_at_ns:
            return False
        limits = self._limits()
        self._look_at_ns = now_ns + round((LOW_LOOK_S if limits.lacking_bytes else LOOK_S) * 1e9)
        self._forgetting = True
        self._events.begin(limits.before_s)
        if not self._is_due(limits):
            return False
        self._sweep = self._new(limits, dry=False)
        return True

    def _new(self, limits: RetentionLimits, dry: bool) -> Sweep:
        return Sweep(self._old, limits, dry, self._remove, self.checkpoint_bytes)

    def _is_due(self, limits: RetentionLimits) -> bool:
        beside = sum(self.checkpoint_bytes.values())
        if self._old.is_due(limits.before_s, limits.most_bytes - beside):
            return True
        kept = self._old.kept_by_owner()
        if any(kept.get(owner, 0) > max_bytes for owner, max_bytes in limits.owner_bytes.items()):
            return True
        others = any(owner and size > SMALL_BYTES for owner, size in kept.items())
        return limits.lacking_bytes > 0 and others

    def _limits(self) -> RetentionLimits:
        config = self._config
        before_s = time.time() - DAY_S * config.history.keep_days
        quotas = self._state.quotas
        kept = self._old.kept_by_owner()
        owners = {
            owner: max_bytes for owner in kept if (max_bytes := quotas.of(owner).max_kept_bytes)
        }
        lacking = self._reserve.lacking_bytes()
        return RetentionLimits(before_s, round(GIB * config.results.keep_gib), owners, lacking)

    def _tidy(self) -> None:
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
        min((kept.oldest_s for kept in (first, second) if kept.oldest_s), default=0.0),
    )


def removal_text(freed: RetainedData) -> str:
    """Return a description of removed data for an event."""
    text = f"{freed.tasks} tasks, {freed.files} files of results ({freed.file_bytes} bytes)"
    if freed.unread:
        text += f"; {freed.unread} completions among them had not been acknowledged by some cursor"
    return text


def _no_callback(_sweep: Sweep | JournalError) -> None:
    return None
