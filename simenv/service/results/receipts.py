"""Receipts of ended tasks, from what is stored for ever: submission, standing, completion.

Nothing here depends on present prices, accounts or clocks, so a receipt never changes. It exists
as long as the history keeps its task.

Ends that are withdrawn, because their tasks run again, are taken from usage by the same data.
"""

from __future__ import annotations

import msgspec

from simenv.errors import ProtocolError
from simenv.model import TaskOptions, TaskSpec, TaskState, task_name
from simenv.model.accounts import Receipt, Used, explained_waits
from simenv.scheduler.core import Route, model_us, unpack_routes
from simenv.service.accounting.usage import (
    HOUR_S,
    Sums,
    device_of,
    values_of,
)
from simenv.service.journal import accepted, reader, tables
from simenv.service.journal.database import Statement
from simenv.service.journal.tables import Standing, UsageKey
from simenv.service.results.completions import Completions
from simenv.wire import codec
from simenv.wire.messages import client as m


class StoredTask(msgspec.Struct, frozen=True):
    """What was stored at the acceptance of a task."""

    row: accepted.AcceptedRow
    terms: TaskOptions
    spec: TaskSpec
    route: Route
    standing: Standing

    @property
    def usage_key(self) -> UsageKey:
        """The key under which its end is counted."""
        route, device = self.route, device_of(self.terms, self.route)
        names = self.standing.account, self.row.owner, self.standing.qos
        return UsageKey(*names, route.pool, device, route.engine)


class StoredTasks:
    """Reader of stored tasks. The last submission is cached: neighbouring tasks mostly share it."""

    def __init__(self, records: reader.Records) -> None:
        self._records = records
        self._last: tuple[accepted.AcceptedRow, m.Submit, list[Route], Standing] | None = None

    def task(self, number: int) -> StoredTask | None:
        """Return a task; None if no stored submission contains it. Raises JournalError."""
        if self._last is None or not 0 <= number - self._last[0].first < self._last[0].count:
            row = self._records.accepted.of(number)
            if row is None:
                return None
            standing = tables.read_standing(self._records, row.first)
            self._last = row, codec.submit(row.body), unpack_routes(row.routes), standing
        row, submit, routes, standing = self._last
        index = number - row.first
        return StoredTask(row, submit.terms, submit.tasks[index], routes[index], standing)


class ReceiptReader:
    """Receipts of ended tasks. Used from the loop's thread."""

    def __init__(self, records: reader.Records, completions: Completions) -> None:
        self._completions = completions
        self._records = records
        self._stored = StoredTasks(records)
        self._last: tuple[int, m.Completed] | None = None  # the last record read, by its number

    def receipt(self, number: int) -> Receipt | None:
        """Return the receipt of a task; None if it has not ended, or its end is no longer kept.
        Raises JournalError."""
        first_seq = self._completions.first_seq_of(number)
        if first_seq is None:
            return None
        if self._last is None or self._last[0] != first_seq:
            stored = self._records.finished.at(first_seq)
            if stored is None:  # not committed yet
                return None
            self._last = first_seq, codec.completed(stored[0])
        completed = self._last[1]
        task = self._stored.task(number)
        completion = next((each for each in completed.results if each.task == number), None)
        return None if task is None or completion is None else _receipt(task, completed, completion)


def _receipt(task: StoredTask, completed: m.Completed, completion: m.Completion) -> Receipt:
    timing, standing = completion.timing, task.standing
    return Receipt(
        task=task_name(completion.task),
        user=task.row.owner,
        account=standing.account,
        qos=standing.qos,
        state=m.STATES[completion.state],
        submitted_s=task.row.at,
        ended_s=task.row.at + 1e-6 * timing.total_us,
        pool=task.route.pool,
        engine=task.route.engine,
        slots=completion.slots * completed.origin.ranks,
        used=used_by(completed, completion),
        units=completion.units,
        share=standing.share,
        usage=standing.usage,
        rank=standing.rank,
        waited_us=timing.queued_us,
        waits=tuple(explained_waits(timing.waits, timing.queued_us).items()),
        run_us=timing.run_us,
        forecast_us=round(model_us(task.route, task.spec)),
    )


def used_by(completed: m.Completed, completion: m.Completion) -> Used:
    """Return what a task used. Of ends before usage was stored, slots and device are known."""
    if completion.used is not None:
        return completion.used
    slots, timing = completion.slots * completed.origin.ranks, completion.timing
    return Used(slots * timing.run_us, 0, 0, timing.device_ns // 1000)


# --- withdrawn ends ---------------------------------------------------------------------------


class Withdrawal(msgspec.Struct, frozen=True):
    """What withdrawn ends take from usage: statements for the transaction that withdraws them, and
    units of accounts."""

    at_s: float  # time of day of the ends
    statements: list[Statement]
    units: list[tuple[str, float]]


def withdrawal(records: reader.Records, completed: m.Completed, task: int = 0) -> Withdrawal:
    """Return what the ends in a record, or that of one task, take from usage when they are
    withdrawn. Raises JournalError."""
    at_s = records.finished.time_of(completed.first_seq)
    replaced, stored = set(records.finished.replaced()), StoredTasks(records)
    result = Withdrawal(at_s, [], [])
    for seq, completion in enumerate(completed.results, completed.first_seq):
        used = completion.used  # None: it ended before usage was counted
        if seq in replaced or task not in (0, completion.task) or used is None:
            continue
        owner = stored.task(completion.task)
        number = tables.find_usage_key(records, owner.usage_key) if owner is not None else None
        if owner is None or number is None:
            continue
        sums, state = Sums(), m.STATES[completion.state]
        if state is TaskState.DONE:
            sums.done, sums.shots = 1, owner.spec.shots * owner.spec.count
        else:
            sums.add_unsuccessful(state)
        sums.slot_us, sums.gpu_us, sums.gib_us, sums.device_us = msgspec.structs.astuple(used)
        sums.wait_us, sums.units = completion.timing.queued_us, completion.units
        negative = [-value for value in values_of(sums)]
        result.statements.append(tables.add_usage(int(at_s) // HOUR_S, number, negative))
        result.units.append((owner.standing.account, -completion.units))
    return result


def withdrawal_of_damaged(records: reader.Records, first_seq: int) -> Withdrawal:
    """Return what a record with a wrong checksum takes from usage when it is dropped: nothing if it
    cannot be decoded, or its states are others than those in its row."""
    nothing = Withdrawal(0.0, [], [])
    try:
        completed = codec.completed(records.finished.unverified_body(first_seq))
    except ProtocolError:
        return nothing
    states = [each.state for each in completed.results]
    counted = records.finished.counts_in(first_seq)
    is_same = counted == {state: states.count(m.STATES.index(state)) for state in counted}
    is_same = is_same and all(map(_is_plausible, completed.results))
    return withdrawal(records, completed) if is_same else nothing


def _is_plausible(completion: m.Completion) -> bool:
    used = completion.used or Used()
    amounts = msgspec.structs.astuple(used)
    return all(
        0 <= each < tables.MAX_SUM
        for each in (*amounts, completion.units, completion.timing.queued_us)
    )
