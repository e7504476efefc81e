"""Ends of tasks in the journal, each verified by its checksum, and the index that finds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from typing import Any

from simenv.errors import JournalError
from simenv.model import TaskState
from simenv.service.journal.rows import GONE, JournalRows
from simenv.service.journal.schema import FINISHED

_BODY, _OWNER = (FINISHED.names.index(name) for name in ("body", "owner"))
UNSUCCESSFUL = (TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED)


class DamagedRecord(JournalError):
    """The record of some ended tasks cannot be read: they have to run again."""

    def __init__(self, message: str, first_seq: int) -> None:
        super().__init__(message, hint="their tasks run again; check the disk")
        self.first_seq = first_seq


def runs(tasks: Sequence[int]) -> list[tuple[int, int]]:
    """Return the runs of consecutive numbers among these: the first of each, and how many."""
    if tasks and list(range(tasks[0], tasks[0] + len(tasks))) == tasks:
        return [(tasks[0], len(tasks))]
    result: list[tuple[int, int]] = []
    for _, group in groupby(enumerate(sorted(tasks)), key=lambda entry: entry[1] - entry[0]):
        numbers = [number for _, number in group]
        result.append((numbers[0], len(numbers)))
    return result


class FinishedRecords:
    """Queries about the ends of tasks."""

    def __init__(self, journal: JournalRows) -> None:
        self._journal = journal

    def all(self, after_seq: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield (first_seq, packed Completed) in order. Raises DamagedRecord at a damaged one."""
        query = f"{FINISHED.checked} where seq > ? order by seq limit ?"
        for row in self._journal.pages(query, after_seq):
            yield row[0], self._verified_body(row)

    def at(self, first_seq: int) -> tuple[bytes, str] | None:
        """Return the packed Completed whose completions are numbered from `first_seq`, and its
        owner; None if there is none."""
        row = self._journal.row(f"{FINISHED.checked} where seq = ?", first_seq)
        return None if row is None else (self._verified_body(row), row[_OWNER])

    def time_of(self, first_seq: int) -> float:
        """Return the time of day at which a record was written; 0.0 if there is none."""
        row = self._journal.row("select at from finished where seq = ?", first_seq)
        return 0.0 if row is None else float(row[0])

    def unverified_body(self, first_seq: int) -> bytes:
        """Return the body of a record that may be damaged; b"" if there is none."""
        row = self._journal.row("select body from finished where seq = ?", first_seq)
        return b"" if row is None else bytes(row[0])

    def after(self, seq: int, owner: str = "") -> bytes | None:
        """Return the packed Completed with the first completion numbered above `seq`; `owner`: of
        that owner only; "": of all."""
        of_owner = "owner = ?2 and owner <> ''" if owner else "?2 = ''"
        inside = f"select max(seq) from finished where {of_owner} and seq <= ?1 + 1"
        query = (
            f"{FINISHED.checked} where {of_owner} and seq + count > ?1 + 1"
            f" and seq >= coalesce(({inside}), 0) order by seq limit 1"
        )
        row = self._journal.row(query, seq, owner)
        return None if row is None else self._verified_body(row)

    def before(self, seq: int, owner: str = "") -> tuple[int, bytes] | None:
        """Return (first_seq, packed Completed) of the newest message that begins below `seq`;
        `owner`: of that owner only; "": of all."""
        of_owner = "owner = ?2 and owner <> ''" if owner else "?2 = ''"
        query = f"{FINISHED.checked} where {of_owner} and seq < ?1"
        row = self._journal.row(f"{query} order by seq desc limit 1", seq, owner)
        return None if row is None else (row[0], self._verified_body(row))

    def newest_of(self, owner: str) -> int:
        """Return the number of an owner's newest completion; 0 if there is none."""
        query = "select seq + count - 1 from finished where owner = ? and owner <> ''"
        return self._journal.scalar(f"{query} order by seq desc limit 1", owner) or 0

    def count_of(self, owner: str) -> int:
        """Return the number of completions of an owner."""
        query = "select sum(count) from finished where owner = ? and owner <> ''"
        return self._journal.scalar(query, owner) or 0

    def counts(self) -> dict[TaskState, int]:
        """Return the number of ended tasks by state, since the environment was created."""
        counts = self._counts("")
        for state, number in self._journal.rows(
            "select state, count(*) from replaced group by state"
        ):
            counts[TaskState(state)] -= number
        for state in counts:
            counts[state] += self._journal.meta(GONE + state)
        return counts

    def counts_in(self, first_seq: int) -> dict[TaskState, int]:
        """Return the number of completions of one record, by state."""
        return self._counts("where seq = ?", first_seq)

    def _counts(self, condition: str, *values: int) -> dict[TaskState, int]:
        query = "select sum(count), sum(failed), sum(cancelled), sum(expired) from finished "
        total, *unsuccessful = (
            number or 0 for number in self._journal.row(query + condition, *values) or (0,) * 4
        )
        counts = dict(zip(UNSUCCESSFUL, unsuccessful, strict=True))
        counts[TaskState.DONE] = total - sum(unsuccessful)
        return counts

    def replaced(self) -> Iterator[int]:
        """Yield the numbers of completions that are no longer the end of their task, because it
        runs again."""
        return (row[0] for row in self._journal.rows("select seq from replaced"))

    def seq_of(self, task: int) -> int | None:
        """Return the `first_seq` of the Completed with a task's end; None if it is not indexed."""
        run = self.run_with(task)
        return None if run is None else run[2]

    def run_with(self, task: int) -> tuple[int, int, int] | None:
        """Return the run of ended tasks that contains a task, as `Journal.index` stored it; None if
        the task is not indexed."""
        query = "select first, count, seq from ended where first <= ? order by first desc limit 1"
        row = self._journal.row(query, task)
        return (row[0], row[1], row[2]) if row is not None and task < row[0] + row[1] else None

    def count_at(self, first_seq: int) -> int:
        """Return the number of completions of a record; 0 if there is no such record."""
        return self._journal.scalar("select count from finished where seq = ?", first_seq) or 0

    def tasks_at(self, first_seq: int) -> Iterator[int]:
        """Yield the indexed tasks whose end is in one record."""
        query = "select first, count from ended where seq = ? order by first"
        runs = self._journal.rows(query, first_seq)
        return chain.from_iterable(range(first, first + count) for first, count in runs)

    def indexed(self) -> int:
        """Return the `first_seq` up to which records are in the index."""
        return self._journal.meta("indexed")

    def indexed_runs(self) -> Iterator[tuple[int, int]]:
        """Yield the runs of ended tasks in the index: first task, and number of tasks."""
        return (
            (first, count) for first, count in self._journal.rows("select first, count from ended")
        )

    def _verified_body(self, row: tuple[Any, ...]) -> bytes:
        *values, crc = row
        if not FINISHED.is_intact(values, crc):
            text = f"{self._journal.damaged().message} (completion {row[0]})"
            raise DamagedRecord(text, row[0])
        return bytes(values[_BODY])
