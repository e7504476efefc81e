"""Usage: sums over ended tasks by UTC hour, account, user, class of service, pool, device, engine.

Invariant: what an end adds is in the commit that stores the end, and what a withdrawn end takes
away is in the transaction that withdraws it; so a crash at any moment loses and doubles nothing.
Sums are integers of microseconds (but billing units), so they equal those over the history. They
saturate at `tables.SUM_BOUNDS`, when they are stored and when they are read. They outlive the
history: `tables.merge_usage` merges old hours into days, and these into months.
"""

from __future__ import annotations

import calendar
import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any

from simenv.errors import LimitExceededError, OptionError
from simenv.model import TaskOptions, TaskState, views
from simenv.model.accounts import NO_ACCOUNTS, USAGE_KEYS, AccountTree, UsageRow, Used
from simenv.scheduler.core import ChargeReserved, Route, TaskEnded
from simenv.scheduler.state.scheduler_state import SchedulerState
from simenv.service.journal import tables, writer
from simenv.service.journal.database import Statement
from simenv.service.journal.tables import UsageKey
from simenv.service.telemetry.counters import TaskCounters
from simenv.wire.messages import accounting

HOUR_S = 3_600
MAX_KEYS = 100_000  # further users' pools, devices and engines are counted without their names
MAX_ROWS = 20_000  # of one answer
PAGE_ROWS = 500  # read in one step of an answer
LEAST_UNITS = 1e-9  # a nanosecond of a slot
RESERVED = "reserved"  # in place of an engine: dedicated workers
_EVER_H = 2**40  # hours
_DONE = TaskState.DONE


class Sums:
    """Sums over tasks, with the fields of `tables.SUMS` and `units`."""

    __slots__ = (*tables.SUMS, "units")

    def __init__(self) -> None:
        self.done = self.failed = self.cancelled = self.expired = 0
        self.shots = self.slot_us = self.gpu_us = self.gib_us = self.device_us = self.wait_us = 0
        self.units = 0.0

    def add(self, endings: Sequence[TaskEnded], first: int) -> int:
        """Add ended tasks, from that at index `first` to the last of the same batch; return the
        index behind it."""
        batch, end = endings[first].record.batch, first
        done = shots = slot_us = gpu_us = gib_us = device_us = wait_us = 0
        units = self.units
        for ending in islice(endings, first, None):
            record, used = ending.record, ending.used
            if record.batch is not batch:
                break
            end += 1
            if ending.state is _DONE:
                spec = record.spec
                done += 1
                shots += spec.shots * spec.count
            else:
                self.add_unsuccessful(ending.state)
            slot_us += used.slot_us
            gpu_us += used.gpu_us
            gib_us += used.gib_us
            device_us += used.device_us
            wait_us += ending.timing.queued_us
            units += ending.units
        self.done += done
        self.shots += shots
        self.slot_us += slot_us
        self.gpu_us += gpu_us
        self.gib_us += gib_us
        self.device_us += device_us
        self.wait_us += wait_us
        self.units = units
        return end

    def add_unsuccessful(self, state: TaskState) -> None:
        """Add a task that did not end as DONE."""
        if state is TaskState.FAILED:
            self.failed += 1
        elif state is TaskState.CANCELLED:
            self.cancelled += 1
        else:
            self.expired += 1


values_of = attrgetter(*tables.SUMS, "units")


def device_of(terms: TaskOptions, route: Route) -> str:
    """Return the emulated device of a task; a device that was only preferred may have none."""
    is_emulated = not terms.prefer or route.device_shot_ns or route.device_overhead_ns
    return terms.device if is_emulated else ""


def month_of(at_s: float) -> tuple[int, int]:
    """Return begin and end of the calendar month (UTC) of a time, all in seconds since 1970."""
    year, month = time.gmtime(at_s)[:2]
    begin, end = (
        calendar.timegm((y, m, 1, 0, 0, 0, 0, 0, 0))
        for y, m in ((year, month), (year + month // 12, month % 12 + 1))
    )
    return begin, end


class UsageLedger:
    """Usage of all ended tasks. Used from the loop's thread."""

    def __init__(self, journal: writer.Journal, state: SchedulerState) -> None:
        self._journal = journal
        self._state = state
        self.counters = TaskCounters()
        self._keys = tables.read_usage_keys(journal.records)
        self.names = {number: key for key, number in self._keys.items()}
        self._month_s = (0, 0)  # begin and end of the calendar month of `_own`
        self._own: dict[str, float] = {}  # units of each account in this month
        self._below: dict[str, float] = {}  # the same with those of all accounts below
        self._tree = NO_ACCOUNTS  # of `_below`
        self._begin_month(time.time())

    @property
    def tree(self) -> AccountTree:
        """The present accounts."""
        return self._state.shares.accounts

    def add(self, endings: Sequence[TaskEnded], at_s: float) -> None:
        """Add ended tasks of one pool and engine to the next commit, which stores their ends."""
        totals: dict[UsageKey, Sums] = {}
        index = 0
        while index < len(endings):
            batch, route = endings[index].record.batch, endings[index].record.route
            device = device_of(batch.terms, route)
            key = UsageKey(batch.account, batch.owner, batch.qos, route.pool, device, route.engine)
            index = totals.setdefault(key, Sums()).add(endings, index)
        self._put(totals, at_s)
        if endings and endings[0].slots:  # a worker ran them
            pool = endings[0].record.route.pool
            self.counters.durations(views.base_of(pool) or pool, endings)

    def add_reserved(self, charge: ChargeReserved, at_s: float) -> None:
        """Add the time for which a reservation had its workers to the next commit."""
        sums, used = Sums(), charge.used
        sums.slot_us, sums.gpu_us, sums.device_us = used.slot_us, used.gpu_us, used.device_us
        sums.units = charge.units
        key = UsageKey(charge.account, charge.owner, "", charge.pool, "", RESERVED)
        self._put({key: sums}, at_s)

    def _put(self, totals: dict[UsageKey, Sums], at_s: float) -> None:
        statements: list[Statement] = []
        for key, sums in totals.items():
            number = self._keys.get(key) or self._new_key(key, statements)
            statements.append(tables.add_usage(int(at_s) // HOUR_S, number, values_of(sums)))
            self.charge(key.account, sums.units, at_s)
            self._count(key, sums)
        if self._state.remembers_usage:
            changes = self._state.shares.fair_share.take_changes(
                time.time_ns() - time.monotonic_ns()
            )
            statements += tables.fair_usage_statements(changes)
        self._journal.put(statements, forced=False)

    def _count(self, key: UsageKey, sums: Sums) -> None:
        counters = self.counters.pool(views.base_of(key.pool) or key.pool)
        counters.done += sums.done
        counters.failed += sums.failed
        counters.cancelled += sums.cancelled
        counters.expired += sums.expired
        counters.slot_us += sums.slot_us
        self.counters.account(key.account, sums.slot_us)

    def _new_key(self, key: UsageKey, statements: list[Statement]) -> int:
        """Return the number of a key that is not stored yet."""
        if len(self._keys) >= MAX_KEYS:
            key = UsageKey(key.account, key.user, key.qos, "", "", "")
            if key in self._keys:
                return self._keys[key]
        number = self._keys[key] = len(self._keys) + 1
        self.names[number] = key
        statements.append(tables.USAGE_KEY.put(number, *key))
        return number

    # --- budgets ---------------------------------------------------------------------------------

    def month_units(self, account: str) -> float:
        """Return the billing units of this calendar month (UTC) of an account and of all accounts
        below it; of "", those of tasks without an account."""
        self._begin_month(time.time())
        if self._tree is not self.tree:  # accounts were changed
            self._tree, self._below = self.tree, {}
            for name, units in self._own.items():
                self._charge_path(name, units)
        return self._below.get(account, 0.0) if account else self._own.get("", 0.0)

    def charge(self, account: str, units: float, at_s: float) -> None:
        """Count units of an account; negative ones of an end that was withdrawn."""
        self._begin_month(time.time())
        if units and self._month_s[0] <= at_s < self._month_s[1]:
            self._own[account] = self._own.get(account, 0.0) + units
            self._charge_path(account, units)

    def _charge_path(self, account: str, units: float) -> None:
        for name in self._tree.path(account):
            self._below[name] = self._below.get(name, 0.0) + units

    def _begin_month(self, at_s: float) -> None:
        """Begin the calendar month of this time, unless it has begun. After a step of the clock it
        may be an earlier one."""
        if self._month_s[0] <= at_s < self._month_s[1]:
            return
        begin, end = self._month_s = month_of(at_s)
        self._own = tables.read_units(self._journal.records, begin // HOUR_S, end // HOUR_S)
        self._tree, self._below = NO_ACCOUNTS, dict(self._own)


# --- queries ----------------------------------------------------------------------------------


def usage_report(
    journal: writer.Journal,
    names: dict[int, UsageKey],
    message: accounting.GetUsage,
    sees: Callable[[str, str], bool],
) -> Iterator[accounting.Usage | None]:
    """Yield None after each step, and the answer at last. `names`: keys of usage by number; `sees`:
    whether the sender may see what an account and user used. Raises OptionError,
    LimitExceededError."""
    places, merges = _places(message.by), journal.usage_merges
    views.check_window(message.since_s, message.until_s, time.time())
    until_s = min(message.until_s or math.inf, time.time() + HOUR_S)
    first, last = int(message.since_s) // HOUR_S, -int(-until_s // HOUR_S)
    groups: dict[int, tuple[str, ...] | None] = {}  # of each key; None: it may not be seen
    totals: dict[tuple[str, ...], list[Any]] = {}  # integers, and the units
    seen = [last, first]
    for level in (tables.MONTH, tables.DAY, tables.HOUR):
        span = tables.period_start(level, first), last
        after = (-_EVER_H, 0)
        while rows := tables.usage_page(journal.records, level, span, after, PAGE_ROWS):
            for _, start, number, *sums in rows:
                if number not in groups:
                    key = names.get(number)
                    is_seen = key is not None and sees(key.account, key.user)
                    groups[number] = tuple(key[k] for k in places) if key and is_seen else None
                group = groups[number]
                if group is not None:
                    total = totals.setdefault(group, [0] * len(sums))
                    total[:] = map(sum, zip(total, sums, strict=True))
                    seen = [min(seen[0], start), max(seen[1], tables.period_end(level, start))]
            after = rows[-1][1:3]
            if len(totals) > MAX_ROWS:
                text = f"the sums have more than {MAX_ROWS} rows"
                raise LimitExceededError(text, hint="fewer names in by=, or a shorter time")
            yield None
    if journal.usage_merges != merges:  # some rows have moved between two levels
        yield from usage_report(journal, names, message, sees)
        return
    from_h = min(first, seen[0]) if message.since_s else seen[0]
    to_s = HOUR_S * max(last, seen[1]) if message.until_s else time.time()
    result = [_row(group, total) for group, total in sorted(totals.items()) if _has_use(total)]
    yield accounting.Usage(message.request, result, float(HOUR_S * from_h), float(to_s))


def _places(by: Sequence[str]) -> list[int]:
    for name in by:
        if name not in USAGE_KEYS or by.count(name) > 1:
            hint = f"each once, of: {', '.join(USAGE_KEYS)}"
            raise OptionError(f"usage by {name[:64]!r}", hint=hint)
    return [USAGE_KEYS.index(name) for name in by]


def _has_use(total: list[Any]) -> bool:
    """Return whether sums are of anything: units of withdrawn ends leave a rounding error."""
    return any(total[:-1]) or abs(total[-1]) > LEAST_UNITS


def _row(group: tuple[str, ...], total: list[Any]) -> UsageRow:
    *counts, shots, slot_us, gpu_us, gib_us, device_us, wait_us, units = tables.bounded_sums(total)
    used = Used(slot_us, gpu_us, gib_us, device_us)
    return UsageRow(group, sum(counts), shots, used, wait_us, float(units))
