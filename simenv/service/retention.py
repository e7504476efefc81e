"""What is given up of ended tasks, oldest first: in slices that the loop hardly feels.

A sweep walks the journal's records in the order of their ends. It takes a record's completions,
index entries and files, and what was submitted once nothing of it is kept; counts and numbers that
must never begin again outlive them. Unfinished tasks are never touched: they have no record.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from simenv.config import Config
from simenv.scheduler.state import State
from simenv.service import faults
from simenv.service.completions import Completions
from simenv.service.journal import Journal
from simenv.service.kept import OldRecords
from simenv.wire.keeping import Kept

GIB = 2**30
DAY_S = 86_400.0
LOOK_S = 30.0  # between two looks at the limits
SLICE_NS = 2_000_000
VACUUM_PAGES = 32  # given back to the file system in one slice: 128 KiB
SPARE_PAGES = 1_024  # left in the file for what comes next


class Limits(msgspec.Struct, frozen=True):
    """What to keep. `before_s`: ends before that time of day go; `most_bytes`: of files and
    journal together."""

    before_s: float
    most_bytes: int


class Sweep:
    """One walk over what is old. `dry`: only count."""

    def __init__(
        self, old: OldRecords, limits: Limits, dry: bool, remove: Callable[[list[str]], None]
    ) -> None:
        self._old = old
        self._limits = limits
        self._dry = dry
        self._remove = remove
        self._after = self._after_file = 0
        self._over = max(0, old.bytes_kept() - limits.most_bytes)
        self.freed = Kept()
        self.done = False

    def step(self, deadline_ns: int) -> None:
        """Go on until the deadline; `done` is set at the end. Raises JournalError."""
        while not self.done and time.monotonic_ns() < deadline_ns:
            self.done = not (self._take_files() or self._take_records())

    def _take_files(self) -> bool:
        """While too much is kept, the oldest files go first: the history of their tasks stays."""
        if self._over <= 0:
            return False
        found = self._old.oldest_files(self._over, self._after_file)
        if not found:
            return False
        self._after_file = found[-1].seq
        if not self._dry:
            self._old.forget_files(found)
            self._remove([file.name for file in found])
        size = sum(file.size_bytes for file in found)
        self._over -= size
        self.freed = add(self.freed, Kept(files=len(found), file_bytes=size))
        return True

    def _take_records(self) -> bool:
        """Records that are too old, and while too much is kept any."""
        records = self._old.oldest(self._after, self._limits.before_s, self._over > 0)
        if not records:
            return False
        self._after = records[-1].first_seq
        files: list[str] = []
        for record in records:
            gone = self._old.measure(record)
            self._over -= gone.journal_bytes + gone.file_bytes
            self.freed = add(self.freed, gone)
            files += record.files
        if not self._dry:
            faults.hit("gc.before")
            self._old.forget(records)
            faults.hit("gc.after")
            self._remove(files)
        return True


class Retention:
    """Used from the loop's thread, in its idle moments; one sweep at a time."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        state: State,
        completions: Completions,
        remove: Callable[[list[str]], None],
    ) -> None:
        self._config = config
        self._completions = completions
        self._old = OldRecords(journal, state)
        self._remove = remove
        self._sweep: Sweep | None = None
        self._over: Callable[[Sweep], None] = _nobody
        self._waiting: list[tuple[float, bool, Callable[[Sweep], None]]] = []
        self._look_at_ns = 0
        self._vacuuming = self._forgetting = False

    @property
    def hurries(self) -> bool:
        """Does anybody wait for a sweep?"""
        return bool(self._waiting) or self._over is not _nobody

    def ask(self, older_s: float, dry: bool, then: Callable[[Sweep], None]) -> None:
        """A sweep for somebody. `older_s` < 0: by the limits of the configuration."""
        self._waiting.append((older_s, dry, then))

    def work(self, note: Callable[[str, str, str], None]) -> None:
        """A slice; raises JournalError."""
        if self._completions.unindexed:
            return  # it finds what is old by the index
        if self._sweep is None and not self._begin():
            self._tidy()
            return
        sweep = self._sweep
        assert sweep is not None
        sweep.step(time.monotonic_ns() + SLICE_NS)
        if not sweep.done:
            return
        self._sweep, then, self._over = None, self._over, _nobody
        if sweep.freed.tasks or sweep.freed.files:
            self._vacuuming = True
            if then is _nobody:
                note("history.removed", self._config.name, words(sweep.freed))
        then(sweep)

    def kept(self) -> Kept:
        """What is kept now."""
        return self._old.kept()

    def _begin(self) -> bool:
        now_ns = time.monotonic_ns()
        if self._waiting:
            older_s, dry, self._over = self._waiting.pop(0)
            limits = self._limits()
            if older_s >= 0:
                limits = Limits(time.time() - older_s, limits.most_bytes)
            self._sweep = Sweep(self._old, limits, dry, self._remove)
            return True
        if now_ns < self._look_at_ns:
            return False
        self._look_at_ns = now_ns + round(LOOK_S * 1e9)
        self._forgetting = True
        limits = self._limits()
        if not self._old.is_due(limits.before_s, limits.most_bytes):
            return False
        self._sweep = Sweep(self._old, limits, False, self._remove)
        return True

    def _limits(self) -> Limits:
        config = self._config
        before_s = time.time() - DAY_S * config.history.keep_days
        return Limits(before_s, round(GIB * config.results.keep_gib))

    def _tidy(self) -> None:
        """What is left to do when nothing is old."""
        if self._vacuuming:
            self._vacuuming = self._old.vacuum(VACUUM_PAGES, SPARE_PAGES)
        elif self._forgetting:
            self._forgetting = self._old.forget_attempts()


def add(one: Kept, other: Kept) -> Kept:
    """Both together."""
    return Kept(
        one.tasks + other.tasks,
        one.files + other.files,
        one.file_bytes + other.file_bytes,
        one.journal_bytes + other.journal_bytes,
        one.unread + other.unread,
        min((kept.oldest_s for kept in (one, other) if kept.oldest_s), default=0.0),
    )


def words(freed: Kept) -> str:
    """What went, for an event."""
    text = f"{freed.tasks} tasks, {freed.files} files of results ({freed.file_bytes} bytes)"
    if freed.unread:
        text += f"; {freed.unread} completions among them had not been acknowledged by some cursor"
    return text


def _nobody(_sweep: Sweep) -> None:
    return None
