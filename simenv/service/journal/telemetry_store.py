"""The telemetry store: one SQLite file with samples of the metrics.

Samples of every 10 s are merged into minutes (kept 30 days) and these into hours (kept two years).
Figures of devices are stored when they change, and kept for ever. Invariant: the file has at most
the given number of bytes; where retention alone would pass it, the oldest merged samples go first,
and only then figures of devices, of which one a day stays. A store is used by one thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from math import isnan
from pathlib import Path

from simenv.config.pools import nearest
from simenv.errors import JournalError, NotFoundError
from simenv.service.journal.database import hint_of
from simenv.wire.messages.metrics import MAX_POINTS, Series

FORMAT = 1
MAX_BYTES = 200 * 2**20
MAX_SERIES = 1_000  # further ones are not stored
SAMPLE_S, MINUTE_S, HOUR_S, DAY_S = 10, 60, 3_600, 86_400
YEAR_S = 365 * DAY_S
MAX_TIME = 10**11
# Tables of merged samples: length of a step, and for how long steps are kept.
LEVELS = (
    ("sample", SAMPLE_S, DAY_S),
    ("minute", MINUTE_S, 30 * DAY_S),
    ("hour", HOUR_S, 2 * YEAR_S),
)
FIGURE_S = 600  # between two stored changes of one figure of a device; older: one an hour, a day
USUAL_POINTS = 1_000  # of a series without a given step
DEVICE = "device/"  # beginning of the names of figures of devices
ANEW = "remove it: a new one is made"
_FILL = 0.9  # part of the largest size above which old steps are removed
_SCHEMA = """
create table if not exists series(id integer primary key, name text unique, unit text);
create table if not exists figure(series int, at int, mean real, primary key(series, at))
  without rowid;
create table if not exists merged(level text primary key, at int) without rowid;
""" + "".join(
    f"create table if not exists {level}(series int, at int, mean real, least real, most real, "
    "primary key(series, at)) without rowid;"
    for level, _, _ in LEVELS
)


class TelemetryStore:
    """The file. Times are whole seconds since 1970."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, *, read_only: bool = False) -> None:
        """Open or create it. Raises JournalError if it has another format or cannot be read."""
        self.path, self._max_bytes = path, max_bytes
        address = f"{path.as_uri()}?mode={'ro' if read_only else 'rwc'}"
        try:
            self._db = sqlite3.connect(
                address, uri=True, isolation_level=None, check_same_thread=not read_only
            )
            self._open(read_only)
        except sqlite3.Error as error:
            text = f"the telemetry store {path} cannot be opened: {error}"
            raise JournalError(text, hint=hint_of(error) or ANEW) from error
        rows = self._db.execute("select id, name, unit from series")
        self._ids = {name: (number, unit) for number, name, unit in rows}
        self._newest: dict[int, tuple[int, float]] = {}  # time and value of each figure

    def _open(self, read_only: bool) -> None:
        run = self._db.execute
        stored = run("pragma user_version").fetchone()[0]
        if stored not in (0, FORMAT):
            raise sqlite3.DatabaseError(f"it has format {stored}, this build reads {FORMAT}")
        if read_only:
            return
        # No WAL: the file may be on a network file system.
        run("pragma journal_mode=truncate")
        run("pragma synchronous=normal")
        page_bytes = run("pragma page_size").fetchone()[0]
        run(f"pragma max_page_count={self._max_bytes // page_bytes}")
        self._db.executescript(_SCHEMA)
        run(f"pragma user_version={FORMAT}")

    @property
    def used_bytes(self) -> int:
        """Bytes of the file that are in use."""
        pages, free, page_bytes = (
            self._db.execute(f"pragma {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * page_bytes)

    def names(self) -> list[str]:
        """Return the names of all series, sorted."""
        return sorted(self._ids)

    def figures(self) -> dict[str, dict[str, float]]:
        """Return the newest figures of devices: by device, then by figure."""
        result: dict[str, dict[str, float]] = {}
        for name, (number, _) in self._ids.items():
            known = self._newest_figure(number) if name.startswith(DEVICE) else None
            if known is not None:
                _, device, figure = name.split("/", 2)
                result.setdefault(device, {})[figure] = known[1]
        return result

    # --- writing ----------------------------------------------------------------------------------

    def add(
        self, at: int, values: Mapping[str, tuple[float, str]], *, forced: bool = False
    ) -> None:
        """Store a sample: value and unit by name; NaN is left out. Merges and removes what is due.
        `forced`: store figures of devices also if they have not changed. Raises JournalError."""
        try:
            self._db.execute("begin immediate")
            for name, (value, unit) in values.items():
                number = None if isnan(value) else self._id(name, unit)
                if number is None:
                    continue
                if name.startswith(DEVICE):
                    self._add_figure(number, at, value, forced)
                else:
                    row = (number, at, value, value, value)
                    self._db.execute("insert or replace into sample values(?,?,?,?,?)", row)
            self._merge(at)
            self._db.execute("commit")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("rollback")
            text = f"the telemetry store {self.path} cannot be written: {error}"
            raise JournalError(text, hint=hint_of(error) or ANEW) from error

    def _id(self, name: str, unit: str) -> int | None:
        known = self._ids.get(name)
        if known is None and len(self._ids) < MAX_SERIES:
            row = self._db.execute("insert into series(name, unit) values(?,?)", (name, unit))
            known = self._ids[name] = row.lastrowid or 0, unit
        return None if known is None else known[0]

    def _newest_figure(self, number: int) -> tuple[int, float] | None:
        if number not in self._newest:
            row = self._db.execute(
                "select at, mean from figure where series=? order by at desc limit 1", (number,)
            ).fetchone()
            if row is None:
                return None
            self._newest[number] = row
        return self._newest[number]

    def _add_figure(self, number: int, at: int, value: float, forced: bool) -> None:
        newest = self._newest_figure(number)
        is_same = newest is not None and (value == newest[1] or at - newest[0] < FIGURE_S)
        if is_same and not forced:
            return
        self._db.execute("insert or replace into figure values(?,?,?)", (number, at, value))
        self._newest[number] = at, value

    def _merged(self, level: str) -> int:
        row = self._db.execute("select at from merged where level=?", (level,)).fetchone()
        return 0 if row is None else row[0]

    def _merge(self, at: int) -> None:
        """Merge the steps that are complete at this time; once an hour, remove old ones."""
        for (finer, _, _), (level, step, _) in pairwise(LEVELS):
            since, until = self._merged(level), at // step * step
            if until <= since:
                return
            self._db.execute(
                f"insert or replace into {level} select series, at / {step} * {step}, avg(mean), "
                f"min(least), max(most) from {finer} where series in (select id from series) "
                f"and at >= ? and at < ? group by series, at / {step}",
                (since, until),
            )
            self._db.execute("insert or replace into merged values(?,?)", (level, until))
        for level, _, keep_s in LEVELS:
            self._remove(level, at - keep_s)
        self._thin(at - 30 * DAY_S, HOUR_S)
        self._shrink(at)

    def _remove(self, level: str, before: int) -> None:
        for number, _ in self._ids.values():  # by the primary key, without a scan of the table
            self._db.execute(f"delete from {level} where series=? and at<?", (number, before))

    def _thin(self, before: int, step: int) -> None:
        """Of figures before a time, keep the last of each step."""
        self._db.execute(
            f"delete from figure where at < ? and exists (select 1 from figure as later where "
            f"later.series = figure.series and later.at > figure.at and later.at < "
            f"(figure.at / {step} + 1) * {step})",
            (before,),
        )

    def _shrink(self, at: int) -> None:
        """Remove the oldest steps while the file is too full."""
        while self.used_bytes > _FILL * self._max_bytes:
            oldest = {
                level: self._db.execute(f"select min(at) from {level}").fetchone()[0]
                for level, _, _ in LEVELS
            }
            oldest = {level: first for level, first in oldest.items() if first is not None}
            if not oldest:
                self._thin(at, DAY_S)
                return
            for level, first in oldest.items():
                self._remove(level, first + max(1, (at - first) // 10))

    # --- reading ----------------------------------------------------------------------------------

    def read(
        self, name: str, since_s: float, until_s: float, step_s: float, now_s: float
    ) -> Series:
        """Return a series; see GetSeries. Raises NotFoundError, JournalError."""
        if not name:
            return Series(0, "", "", [], [], [], [], self.names())
        if name not in self._ids:
            hint = f"{nearest(name, sorted(self._ids))}; all: simenv history --series list"
            raise NotFoundError(f"there is no series {name[:80]!r}", hint=hint)
        number, unit = self._ids[name]
        since, until = int(since_s), int(until_s) or int(now_s) + 1
        try:
            if name.startswith(DEVICE):
                rows = self._figure_rows(number, since, until, max(1, int(step_s)))
            else:
                step = self._step(number, since, until, step_s, int(now_s))
                rows = self._rows(number, since, until, step, int(now_s))
        except sqlite3.Error as error:
            raise JournalError(f"the telemetry store cannot be read: {error}") from error
        columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
        times = [float(time) for time in columns[0]]
        return Series(0, name, unit, times, *columns[1:])

    def _step(self, number: int, since: int, until: int, step_s: float, now: int) -> int:
        """Return the length of the steps of an answer, a multiple of a level's."""
        begin = max(since, min(self._first(level, number) for level, _, _ in LEVELS))
        span = max(1, min(until, now + 1) - begin)
        least = max(step_s or span / USUAL_POINTS, span / MAX_POINTS, 1)
        unit = max((step for _, step, _ in LEVELS if step <= least), default=SAMPLE_S)
        return int(-(-least // unit) * unit)

    def _first(self, level: str, number: int) -> int:
        """Return the oldest step of a series; MAX_TIME: there is none."""
        query = f"select min(at) from {level} where series=?"
        first = self._db.execute(query, (number,)).fetchone()[0]
        return MAX_TIME if first is None else int(first)

    def _rows(
        self, number: int, since: int, until: int, step: int, now: int
    ) -> list[tuple[float, ...]]:
        """Return steps. Each part of the time is read from the coarsest level that is fine enough
        and, where that is not kept any more or not merged yet, from the next one."""
        chosen = max((k for k, (_, length, _) in enumerate(LEVELS) if length <= step), default=0)
        parts = []
        end = until
        for k, (level, length, keep_s) in enumerate(LEVELS):
            if k < chosen:  # only what is not merged yet
                begin = self._merged(LEVELS[k + 1][0])
            else:
                begin = self._first(level, number)
                if begin < now - keep_s:  # old steps may be removed; no coarser step is divided
                    begin = -(-(now - keep_s) // HOUR_S) * HOUR_S
            begin = max(begin, since)
            last = end if k <= chosen else end - length + 1  # of steps that end before `end`
            if begin < end:
                parts.append(
                    f"select at, mean, least, most from {level} where series={number} "
                    f"and at>={begin} and at<{last}"
                )
                end = begin
        if not parts:
            return []
        return self._db.execute(
            f"select at / {step} * {step} as step, avg(mean), min(least), max(most) "
            f"from ({' union all '.join(parts)}) group by step order by step limit {MAX_POINTS}"
        ).fetchall()

    def _figure_rows(
        self, number: int, since: int, until: int, step: int
    ) -> list[tuple[float, ...]]:
        """Return the stored changes of a figure, the one in force at `since` included."""
        before = self._db.execute(
            "select max(at) from figure where series=? and at<=?", (number, since)
        ).fetchone()[0]
        rows = self._db.execute(
            "select max(at), mean, min(mean), max(mean) from figure where series=? and at>=? "
            f"and at<? group by at / {step} order by at desc limit {MAX_POINTS}",
            (number, since if before is None else before, until),
        ).fetchall()
        return [(max(at, since), *values) for at, *values in reversed(rows)]

    def close(self) -> None:
        """Close the file. Idempotent."""
        with suppress(sqlite3.Error):
            self._db.close()
