"""Completions of tasks, and results that a paced device holds.

The index from task to journal record is written when the loop is idle; until then the newest
entries are in memory. A result is sent only after it is journaled. A cursor is the number of a
completion up to which a reader has read; it never passes the newest completion that its owner may
see, and the cursors of an owner are bounded.
"""

from __future__ import annotations

import itertools
import time
import zlib
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import msgspec

from simenv.errors import LimitExceededError, OptionError
from simenv.model import DEPENDENCY, Origin, TaskState, program, task_name
from simenv.result_files import attempt_file
from simenv.scheduler.core import ChargeReserved, TaskEnded
from simenv.scheduler.state.scheduler_state import SchedulerState
from simenv.service.accounting.usage import UsageLedger
from simenv.service.journal import finished, writer
from simenv.wire import codec
from simenv.wire.messages import client as m
from simulators import catalog

_Shares = dict[tuple[bytes, str], list[m.Completion]]  # by (peer, owner)
INDEX_SLICE = 500  # records indexed in one idle moment
INDEX_TASKS = 10_000  # in them; one record more may pass this
_STATE_INDEX = {state: index for index, state in enumerate(m.STATES)}
MAX_UNINDEXED = 20_000
MAX_WATCHERS = 8  # of a task; waiting clients repeat their request every few seconds
MAX_CAUSE_CHARS = 1_000  # of the message of a failed parent
_STOPPED = (TaskState.CANCELLED, TaskState.EXPIRED)  # FAILED keeps the engine's own message


class TaskEnd(msgspec.Struct, frozen=True):
    """The final state of a task, with reason, message and hint if it is not DONE."""

    state: TaskState
    reason: str = ""
    message: str = ""
    hint: str = ""


class Completions:
    """Completions of all tasks. Used from the loop's thread."""

    def __init__(self, journal: writer.Journal, origin: Origin) -> None:
        self._journal = journal
        self._origin = origin  # of ends that no worker caused
        self.next_seq = journal.records.last_seq() + 1
        self._unindexed: dict[int, int] = {}  # task -> first_seq, not yet indexed
        self._to_index: deque[tuple[int, list[int]]] = deque()  # first_seq and tasks of the same
        self._watchers: dict[int, list[bytes]] = {}
        self._replaced = set(journal.records.finished.replaced())
        self.usage: UsageLedger | None = None  # None: of a reader, which stores nothing
        for first_seq, body in journal.records.finished.all(journal.records.finished.indexed()):
            ended = enumerate(codec.completed(body).results, first_seq)
            tasks = [each.task for seq, each in ended if seq not in self._replaced]
            self._await_index(first_seq, tasks)

    @property
    def unindexed(self) -> bool:
        return bool(self._unindexed)

    @property
    def is_backlogged(self) -> bool:
        """True if so many entries wait that the index must be written before the loop is idle."""
        return len(self._unindexed) > MAX_UNINDEXED

    @property
    def newest(self) -> int:
        return self.next_seq - 1

    def from_worker(
        self, origin: Origin, done: m.AttemptResults, endings: list[TaskEnded]
    ) -> list[tuple[bytes, bytes]]:
        """Journal the results of the worker `origin`. Returns (peer, message) to send after the
        commit."""
        by_route: dict[tuple[str, str], _Shares] = {}
        files: dict[int, m.AttemptResult] = {}
        results, last, last_route = done.results, None, None
        at_s = time.time()
        group: list[m.Completion] = []
        for ending in endings:
            result, record = results[ending.index], ending.record
            payload, checksum = result.payload, result.checksum
            if ending.reason and ending.state in _STOPPED:
                payload = _failure(ending, origin.node)
                checksum = zlib.crc32(payload)
            elif result.file:
                files[result.task] = result
            if record.batch is not last or record.route is not last_route:
                last, last_route = record.batch, record.route
                by_client = by_route.setdefault((last_route.engine, last_route.reason), {})
                group = by_client.setdefault((last.client, last.owner), [])
            attempts, slots = record.attempts, ending.slots
            number, state = record.number, _STATE_INDEX[ending.state]
            timing, used, units = ending.timing, ending.used, ending.units
            group.append(
                m.Completion(number, state, attempts, slots, payload, checksum, timing, used, units)
            )
        if self.usage is not None:
            self.usage.add(endings, at_s)
        messages = []
        for (engine, reason), by_client in by_route.items():
            messages += self._store(by_client, origin, engine, reason, at_s, files)
        return messages

    def without_result(self, endings: list[TaskEnded]) -> list[tuple[bytes, bytes]]:
        """Journal ends without a worker's result: cancelled, expired, poison. Returns (peer,
        message) to send after the commit."""
        groups: dict[tuple[str, str], _Shares] = {}
        ends: dict[int, TaskEnd | None] = {}  # of these tasks and of their parents
        by_place: dict[tuple[str, str], list[TaskEnded]] = {}  # by pool and engine
        at_s = time.time()
        for ending in endings:
            record = ending.record
            engine, reason, pool = record.route.engine, record.route.reason, record.route.pool
            by_client = groups.setdefault((engine, reason), {})
            by_place.setdefault((pool, engine), []).append(ending)
            if ending.parent:
                if ending.parent not in ends:
                    ends[ending.parent] = self.end_of(ending.parent)
                ending = _with_cause(ending, ends[ending.parent])
            ends[record.number] = TaskEnd(ending.state, ending.reason, *_end_message(ending))
            payload, state = _failure(ending, ending.host), _STATE_INDEX[ending.state]
            number, attempts, crc = record.number, record.attempts, zlib.crc32(payload)
            timing, used, units = ending.timing, ending.used, ending.units
            completion = m.Completion(
                number, state, attempts, ending.slots, payload, crc, timing, used, units
            )
            by_client.setdefault((record.batch.client, record.batch.owner), []).append(completion)
        if self.usage is not None:
            for endings_of_place in by_place.values():
                self.usage.add(endings_of_place, at_s)
        messages = []
        for (engine, reason), by_client in groups.items():
            messages += self._store(by_client, self._origin, engine, reason, at_s)
        return messages

    def charge_reserved(self, charge: ChargeReserved) -> None:
        """Add the time of a reservation to usage."""
        if self.usage is not None:
            self.usage.add_reserved(charge, time.time())

    def watch(self, task: int, peer: bytes) -> None:
        """Send the end of a task to `peer` too."""
        peers = self._watchers.setdefault(task, [])
        if peer not in peers:
            del peers[: max(0, len(peers) - MAX_WATCHERS + 1)]
            peers.append(peer)

    def first_seq_of(self, task: int) -> int | None:
        """Return the `first_seq` of the Completed with the end of a task; None if there is none."""
        return self._unindexed.get(task) or self._journal.records.finished.seq_of(task)

    def find(self, task: int, scope: str = "") -> tuple[m.Completed, m.Completion] | None:
        """Return the stored end of a task; None if there is none in `scope` (see Identity)."""
        first_seq = self.first_seq_of(task)
        entry = None if first_seq is None else self._journal.records.finished.at(first_seq)
        if entry is None or scope not in ("", entry[1]):
            return None
        return self._completion(entry[0], task)

    def end_of(self, task: int, owner: str | None = None) -> TaskEnd | None:
        """Return the end of a task, also if it is not committed yet. None: the task has not ended,
        is not of `owner` (None: of any owner), or its end is no longer kept or cannot be read."""
        first_seq = self.first_seq_of(task)
        if first_seq is None or owner not in (None, self._journal.records.accepted.owner_of(task)):
            return None
        counts = self._journal.records.finished.counts_in(first_seq)
        if 0 < counts[TaskState.DONE] == sum(counts.values()):
            return TaskEnd(TaskState.DONE)
        try:
            stored = self._journal.finished_at(first_seq)
        except finished.DamagedRecord:
            return None
        counted = None if stored is None else self._completion(stored, task)
        if counted is None:
            return None
        state = m.STATES[counted[1].state]
        if state is TaskState.DONE:
            return TaskEnd(state)
        failure = codec.failure(counted[1].payload)
        return TaskEnd(state, failure.reason, failure.message, failure.hint)

    def _completion(self, body: bytes, task: int) -> tuple[m.Completed, m.Completion] | None:
        """Return the completion of a task in a packed Completed, alone in its message; None if
        there is none that counts."""
        completed = codec.completed(body)
        for seq, completion in enumerate(completed.results, completed.first_seq):
            if completion.task == task and seq not in self._replaced:
                return only(completed, completion, seq), completion
        return None

    def ends(self, first_seq: int, tasks: Collection[int], scope: str = "") -> list[m.Completed]:
        """Return the stored ends of these tasks in the record at `first_seq`, in runs of
        neighbours. Ends that are out of `scope`, withdrawn or no longer kept are left out."""
        stored = self._journal.records.finished.at(first_seq)
        if stored is None or scope not in ("", stored[1]):
            return []
        completed = codec.completed(stored[0])
        runs: list[tuple[int, list[m.Completion]]] = []
        for seq, completion in enumerate(completed.results, completed.first_seq):
            if completion.task not in tasks or seq in self._replaced:
                continue
            if runs and runs[-1][0] + len(runs[-1][1]) == seq:
                runs[-1][1].append(completion)
            else:
                runs.append((seq, [completion]))
        return [
            msgspec.structs.replace(completed, results=entry, first_seq=first)
            for first, entry in runs
        ]

    def is_stored(self, task: int) -> bool:
        """Return whether the end of a task is committed to the journal."""
        first_seq = self._unindexed.get(task)
        return first_seq is None or self._journal.records.finished.count_at(first_seq) > 0

    def withdraw(self, task: int, seq: int) -> None:
        """Withdraw a completion by its number, because its task runs again."""
        first_seq = self._unindexed.pop(task, None)
        for each, tasks in self._to_index if first_seq is not None else ():
            if each == first_seq:
                tasks.remove(task)
        self._replaced.add(seq)

    def without_withdrawn(self, completed: m.Completed) -> list[m.Completed]:
        """Return a message without its withdrawn completions, split at the gaps."""
        seqs = range(completed.first_seq, completed.first_seq + len(completed.results))
        if self._replaced.isdisjoint(seqs):
            return [completed]
        return [
            only(completed, completion, seq)
            for seq, completion in zip(seqs, completed.results, strict=True)
            if seq not in self._replaced
        ]

    def index_all(self) -> None:
        """Write all pending entries of the index. Raises JournalError."""
        while self.index_slice():
            pass

    def index_slice(self) -> bool:
        """Write a slice of the index. Returns True if there is more to do. While an end is not
        committed, nothing is written: after a crash the index would contain an end that does not
        exist, and its task would be lost. Raises JournalError."""
        if not self._unindexed or self._journal.has_pending_ends:
            return False
        rows: list[tuple[int, int, int]] = []
        records = count = up_to = 0
        for up_to, tasks in itertools.islice(self._to_index, INDEX_SLICE):
            rows += [(first, number, up_to) for first, number in finished.runs(tasks)]
            records += 1
            count += len(tasks)
            if count > INDEX_TASKS:
                break
        self._journal.index(rows, up_to=up_to)
        for _ in range(records):  # after the write: if it fails, the same records are tried again
            for task in self._to_index.popleft()[1]:
                del self._unindexed[task]
        return bool(self._unindexed)

    def _await_index(self, first_seq: int, tasks: list[int]) -> None:
        """Keep the tasks of a record in memory until they are indexed."""
        self._unindexed.update(dict.fromkeys(tasks, first_seq))
        self._to_index.append((first_seq, tasks))

    def _store(
        self,
        by_client: _Shares,
        origin: Origin,
        engine: str,
        route: str,
        at_s: float,
        files: Mapping[int, m.AttemptResult] = MappingProxyType({}),
    ) -> list[tuple[bytes, bytes]]:
        messages = []
        for (client, owner), completions in by_client.items():
            first = self.next_seq
            self.next_seq += len(completions)
            completed = m.Completed(origin, engine, route, completions, first)
            body = codec.encode(completed)
            states = [m.STATES[completion.state] for completion in completions]
            repeatable = _is_repeatable(engine)
            self._journal.finish(first, states, body, owner, repeatable=repeatable, at_s=at_s)
            self._await_index(first, [completion.task for completion in completions])
            for seq, completion in enumerate(completions if files or self._watchers else (), first):
                if completion.task in files:
                    file = files[completion.task]
                    size = file.file_bytes
                    name = attempt_file(file.task, file.attempt)
                    self._journal.file(name, completion.task, seq, size, owner)
                for peer in self._watchers.pop(completion.task, ()) if self._watchers else ():
                    if peer != client:
                        messages.append((peer, codec.encode(only(completed, completion, seq))))
            if client:
                messages.append((client, body))
        return messages


def _is_repeatable(engine: str) -> bool:
    """Return whether tasks of an engine return the same bits again on any machine."""
    card = catalog.card(engine)
    return card is not None and card.reproducible


def only(completed: m.Completed, completion: m.Completion, seq: int) -> m.Completed:
    """Return a message with only one of its completions."""
    return msgspec.structs.replace(completed, results=[completion], first_seq=seq)


def end_reason(completion: m.Completion) -> str:
    """Return the reason and the message of an end that is not DONE; "" for one that is."""
    if m.STATES[completion.state] is TaskState.DONE:
        return ""
    failure = codec.failure(completion.payload)
    return f"{failure.reason}: {failure.message}"


def _failure(ending: TaskEnded, host: str) -> bytes:
    message, hint = _end_message(ending)
    return codec.encode(m.Failure(ending.reason, message, hint, ending.host or host, ending.log))


def _with_cause(ending: TaskEnded, parent: TaskEnd | None) -> TaskEnded:
    """Return the end of a task whose parent did not end as DONE, with the parent's end in the
    message and the first failed task of a chain in the hint."""
    name = task_name(ending.parent)
    message = f"task {name}, which it comes after, "
    if parent is None:
        return msgspec.structs.replace(ending, message=f"{message}did not end as DONE")
    message += f"ended as {parent.state}: "
    if parent.reason == DEPENDENCY:
        message, hint = f"{message}it was not run either", parent.hint
    else:
        message += parent.message[:MAX_CAUSE_CHARS]
        hint = f"{name} failed first: simenv result {name}; then submit what comes after it again"
    return msgspec.structs.replace(ending, message=message, hint=hint)


def _end_message(ending: TaskEnded) -> tuple[str, str]:
    """Return the message of an end, with the value of the limit, and the hint."""
    terms = ending.record.batch.terms
    if ending.message:
        return ending.message, ending.hint
    if ending.reason == "cancelled":
        return "cancelled before it had a result", ending.hint
    if ending.reason == "queue_timeout":
        message = f"it waited longer than its queue_timeout_s of {terms.queue_timeout_s:g} s"
        return message, "a longer queue_timeout_s, or submit again later"
    if ending.reason == "run_timeout":
        limit_s = ending.run_limit_s or terms.run_timeout_s
        if terms.run_timeout_s and terms.run_timeout_s <= limit_s:
            message = f"it ran longer than its run_timeout_s of {terms.run_timeout_s:g} s"
            return message, "a longer run_timeout_s, or fewer shots or bindings a task"
        of = "owner"
        if limit_s == ending.record.batch.run_limit_s:
            of = "account or class of service"
        message = f"it ran longer than the limit of its {of}, {limit_s:g} s (max_run_s)"
        return message, "fewer shots or bindings a task, or ask an admin to raise the limit"
    return ending.reason, ending.hint


MAX_CURSOR_CHARS = 64
MAX_CURSORS = 1_000  # of one owner; they are kept for ever


def acknowledge(journal: writer.Journal, newest: int, owner: str, message: m.Ack) -> None:
    """Set a cursor with the next commit. `newest`: the last completion that its owner may see.
    Raises OptionError, LimitExceededError."""
    if not (0 <= message.seq <= newest and 0 < len(message.cursor) <= MAX_CURSOR_CHARS):
        text = f"completion {message.seq} cannot be acknowledged by {message.cursor[:64]!r}"
        hint = f"0 to {newest}; a cursor's name has 1 to {MAX_CURSOR_CHARS} characters"
        raise OptionError(text, hint=hint)
    program.check_printable("a cursor's name", message.cursor)
    records = journal.records
    is_new = not records.cursor_at(owner, message.cursor)
    if is_new and records.cursors_of(owner) >= MAX_CURSORS:
        raise LimitExceededError(f"there are {MAX_CURSORS} cursors already", hint="use one of them")
    journal.cursor(owner, message.cursor, message.seq)


class HeldResults:
    """Held results, by task. Used from the loop's thread. They are in memory only: a task whose
    result is held has not ended, and runs again after a restart."""

    def __init__(self, state: SchedulerState) -> None:
        self._state = state
        self._held: dict[int, tuple[Origin, m.AttemptResults]] = {}

    def hold(
        self, origin: Origin, message: m.AttemptResults, endings: Sequence[TaskEnded]
    ) -> set[int]:
        """Store the results of a message of the worker `origin` that the scheduler holds. Returns
        their indices in the message."""
        held = self._state.devices.paced.held
        if not held or len(endings) == len(message.results):
            return set()
        ended = {ending.index for ending in endings}
        indices = {
            index
            for index, result in enumerate(message.results)
            if index not in ended
            and result.task in held
            and self._state.tasks[result.task].fence == result.attempt
            and result.task not in self._held
        }
        for index in indices:
            result = message.results[index]
            self._held[result.task] = origin, m.AttemptResults([result])
        return indices

    def take(self, ending: TaskEnded) -> tuple[Origin, m.AttemptResults]:
        """Remove and return the result of a task that has ended, and its worker."""
        return self._held.pop(ending.record.number)

    def drop(self, task: int) -> list[str]:
        """Discard the result of a task. Returns the names of its files."""
        _, message = self._held.pop(task)
        return [result.file for result in message.results if result.file]
