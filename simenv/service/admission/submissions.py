"""Submits: queue, acceptance, answers, and parents of tasks.

Queue of submits: turns of owners, idempotency keys, queue limits, and acceptance of tasks.
Invariant: the import of this module loads neither numpy nor kernels, for which a start would have
to wait.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

import msgspec

from simenv import errors
from simenv.model import MAX_PARENTS, TaskOptions, TaskState, digest, task_name
from simenv.model.program import check_printable
from simenv.model.task_rules import MAX_KEY_CHARS
from simenv.scheduler.admission import task_limits
from simenv.scheduler.admission.availability import (
    draining_refusal,
    memory_refusal,
    reservation_units,
)
from simenv.scheduler.core import SENT, Route, SubmitBatch, pack_routes
from simenv.scheduler.reservations.circuit_times import ProgramSize
from simenv.scheduler.scheduler import Scheduler
from simenv.scheduler.state import scheduler_state
from simenv.service import fault_injection
from simenv.service.accounting.accounts import AccountRegistry
from simenv.service.fair_queue import FairQueue
from simenv.service.internal_errors import InternalErrors
from simenv.service.journal import tables, writer
from simenv.service.journal.accepted import AcceptedRow
from simenv.service.results.completions import Completions
from simenv.service.results.retention import DiskReserve
from simenv.text import size
from simenv.wire import codec
from simenv.wire.messages import client as messages


def refusing(refusals: list[messages.Refusal]) -> Callable[[errors.SimenvError], None]:
    """Return a function that adds the refusal of an error to a list."""
    return lambda error: refusals.append(codec.refusal(error))


def check_parents(terms: TaskOptions) -> None:
    """Check the number of parents. Raises OptionError."""
    if len(terms.after) > MAX_PARENTS:
        text = f"after names {len(terms.after)} tasks; at most {MAX_PARENTS} are allowed"
        raise errors.OptionError(text, hint="let one task come after a part of them")


def refusal_of_parents(
    state: scheduler_state.SchedulerState,
    completions: Completions,
    owner: str,
    after: Iterable[int],
) -> errors.SimenvError | None:
    """Return the error if a task of `owner` cannot have these parents; None if it can. Parents are
    tasks of the same owner that have not ended, or have ended as DONE."""
    for number in after:
        record = state.tasks.get(number)
        if record is not None and record.batch.owner == owner:
            continue
        end = None if record is not None else completions.end_of(number, owner)
        name = task_name(number) if number >= 0 else str(number)
        if end is None:
            text = f"after: there is no task {name} of yours here (any longer)"
            hint = "simenv queue lists unfinished tasks, simenv history those that have ended"
            return errors.NotFoundError(text, hint=hint)
        if end.state is not TaskState.DONE:
            text = f"after: task {name} has ended as {end.state}: {end.message}"
            hint = f"submit what {name} was again and name the new task, or leave it out"
            return errors.OptionError(text, hint=hint)
    return None


def failed_parent(completions: Completions, after: Iterable[int]) -> int:
    """Return the first of these accepted tasks that has ended, but not as DONE; 0: none. A task
    whose end is no longer kept counts as DONE: a failure ends the children right after it is
    stored, long before retention may remove it."""
    for number in after:
        end = completions.end_of(number)
        if end is not None and end.state is not TaskState.DONE:
            return number
    return 0


class PendingSubmit(msgspec.Struct):
    """A Submit in the queue of admission, with its state."""

    peer: bytes
    owner: str
    message: messages.Submit
    body: bytes
    received_ns: int
    routes: list[Route] = msgspec.field(default_factory=list)
    sizes: list[ProgramSize] = msgspec.field(default_factory=list)  # only under a reservation
    refusals: list[messages.Refusal] = msgspec.field(default_factory=list)
    next: int = 0
    terms_digest: bytes = b""  # of its options after their check
    asked_snapshot: str | None = None  # of a device, before the service filled it
    resolved_body: bytes = b""  # the message with the options of its device; b"": unchanged
    # Programs that were refused, by digest.
    rejected_programs: dict[bytes, errors.SimenvError] = msgspec.field(default_factory=dict)
    background_check: Future[Any] | None = None  # the check of its next program in the thread


RECENT_KEYS = 50_000  # automatic keys: a client repeats them only while it waits for the answer
OWN_KEY = "~"  # begins keys that clients make, one a message: its content is not compared
RETRY_AFTER_S = 1.0
MAX_WAITING_BYTES = 256 * 2**20  # for admission, of the environment's own user
MAX_OWNER_BYTES = 32 * 2**20  # of the owner of a key
MAX_SUBMIT_BYTES = messages.MAX_MESSAGE_BYTES - 2**20  # leaves space for data added for a worker
PARKED_NS = 1_000_000  # until the check of a program in the other thread is polled again
TURN_NS = 2_000_000  # a client's turn at admission before the next one's


class TaskAdmission(Protocol):
    """The checks of tasks before they are accepted; `AdmissionController` implements it."""

    def admit_some(
        self, pending: PendingSubmit, deadline_ns: int, internal_errors: InternalErrors
    ) -> bool:
        """Check tasks until the deadline. Return whether all tasks of the Submit were checked."""

    def forget_check(self, pending: PendingSubmit) -> None:
        """Forget the check for which a Submit waits: its client has left."""

    def remember_newest(self) -> None:
        """Store the structure of the program examined last."""


class IdempotencyEntry(msgspec.Struct, frozen=True, gc=False):
    """Tasks and content that were accepted with an idempotency key."""

    first: int
    count: int
    digest: bytes


class SubmitQueue:
    """Queue of Submits, with fair turns of owners. Used from the loop's thread."""

    def __init__(
        self,
        scheduler: Scheduler,
        journal: writer.Journal,
        admission: TaskAdmission | None,
        completions: Completions,
        accounts: AccountRegistry,
    ) -> None:
        """`admission`: None until it is loaded; earlier Submits wait for it."""
        self.admission = admission
        self.accounts = accounts
        self._scheduler = scheduler
        self._state = scheduler.state
        self._journal = journal
        self._completions = completions
        # Set by the service: the reserve of the disk, and the refusal of an owner by its lack.
        self.reserve: DiskReserve | None = None
        self.disk_refusal: Callable[[str], errors.SimenvError | None] = lambda _: None
        self._recent: OrderedDict[tuple[str, str, int], IdempotencyEntry] = OrderedDict()
        self._waiting: FairQueue[PendingSubmit] = FairQueue()
        self.pending_bytes: dict[str, int] = {}  # by owner; empty: nothing waits for admission
        self._departed: set[bytes] = set()  # clients with Submits that have left
        self._parked_until_ns = 0  # until then all Submits wait for checks in the other thread

    def remember(self, owner: str, key: str, offset: int, entry: IdempotencyEntry) -> None:
        self._recent[owner, key, offset] = entry
        if len(self._recent) > RECENT_KEYS:
            self._recent.popitem(last=False)

    def forget(self, owner: str, key: str, offset: int) -> None:
        """Forget a key, because its Submit was not stored."""
        self._recent.pop((owner, key, offset), None)

    @property
    def busy(self) -> bool:
        """True if Submits wait for admission and can be processed now."""
        return bool(self.pending_bytes) and self.admission is not None and not self.parked

    def end_pass(self) -> bool:
        """Do the work of a pass that no task waits for. Return `busy`."""
        if self.admission is not None:
            self.admission.remember_newest()
        return self.busy

    @property
    def parked(self) -> bool:
        """True if all Submits wait for checks in the other thread. Continuous polling would take
        the processor from that thread."""
        return bool(self._parked_until_ns) and time.monotonic_ns() < self._parked_until_ns

    def enqueue(
        self, peer: bytes, owner: str, message: messages.Submit, body: bytes, now_ns: int
    ) -> messages.Refusal | None:
        """Queue a Submit for `process`. Returns the refusal if too many bytes of its owner wait, or
        if the service lacks memory."""
        if fault_injection.plan:
            fault_injection.hit("submit.received")
        if self._state.lacks_memory:
            return codec.refusal(memory_refusal(self._state))
        waiting = self.pending_bytes.get(owner, 0)
        limit = MAX_OWNER_BYTES if owner else MAX_WAITING_BYTES
        if waiting and waiting + len(body) > limit:
            text = f"{size(waiting)} wait for admission; the limit is {size(limit)}"
            hint = "wait for the answers to earlier messages"
            return codec.refusal(
                errors.QueueFullError(text, hint=hint, retry_after_s=RETRY_AFTER_S)
            )
        self.pending_bytes[owner] = waiting + len(body)
        self._departed.discard(peer)
        self._parked_until_ns = 0
        self._waiting.put(owner, peer, PendingSubmit(peer, owner, message, body, now_ns))
        return None

    def process(
        self, deadline_ns: int, internal_errors: InternalErrors | None = None
    ) -> list[tuple[PendingSubmit, messages.Accepted | list[messages.Refusal]]]:
        """Admit tasks until the deadline. Returns the completed Submits with their answers. Owners
        take turns, and so do the connections of each, so that a flood of one owner does not delay
        the others; the messages of one connection stay in order. A Submit at which the service
        fails is refused as a whole, and recorded in `internal_errors`."""
        internal_errors = internal_errors or InternalErrors()
        processed: list[tuple[PendingSubmit, messages.Accepted | list[messages.Refusal]]] = []
        admission = self.admission
        examined: set[int] = set()  # Submits found waiting for the thread since the last progress
        while self.pending_bytes and admission is not None:
            owner, _, pending = self._waiting.first()
            is_checked = True
            refusals: list[messages.Refusal] = []
            with internal_errors.guarded("the check of a submission", refusing(refusals)):
                _check_shape(pending.message, len(pending.body))
                turn_ns = min(deadline_ns, time.monotonic_ns() + TURN_NS)
                is_checked = admission.admit_some(pending, turn_ns, internal_errors)
            if not is_checked and pending.background_check and pending.peer in self._departed:
                admission.forget_check(pending)
                self._end(owner, pending)
                continue
            if not is_checked:
                self._waiting.end_turn(done=False)
                now_ns = time.monotonic_ns()
                if pending.background_check is None:
                    examined.clear()
                elif id(pending) in examined:  # a full round without progress
                    self._parked_until_ns = now_ns + PARKED_NS
                    break
                else:
                    examined.add(id(pending))
                if now_ns >= deadline_ns:
                    break
                continue
            examined.clear()
            self._end(owner, pending)
            answer = refusals or self._accept_or_undo(pending, internal_errors)
            processed.append((pending, answer))
            if time.monotonic_ns() >= deadline_ns:
                break
        return processed

    def _end(self, owner: str, pending: PendingSubmit) -> None:
        """Remove the Submit whose turn it is."""
        self._waiting.end_turn(done=True)
        left = self.pending_bytes[owner] - len(pending.body)
        if left:
            self.pending_bytes[owner] = left
        else:
            del self.pending_bytes[owner]

    def clients_left(self, peers: Iterable[bytes]) -> None:
        """Drop the Submits of clients that have left once they wait for a check: none of their
        tasks was accepted yet, and nobody would hear of it."""
        self._departed = {each for each in self._departed.union(peers) if self._waiting.has(each)}

    def _accept_or_undo(
        self, pending: PendingSubmit, internal_errors: InternalErrors
    ) -> messages.Accepted | list[messages.Refusal]:
        """Accept a Submit; where the service fails half-way, take its tasks back and refuse it."""
        first = self._state.tasks.next_number
        refusals: list[messages.Refusal] = []
        with internal_errors.guarded("the acceptance of a submission", refusing(refusals)):
            return self._accept(pending)
        message, count = pending.message, self._state.tasks.next_number - first
        if count:
            self._scheduler.rollback_submit(first, count, time.monotonic_ns())
            self.forget(pending.owner, message.key, message.offset)
        return refusals

    def _accept(self, pending: PendingSubmit) -> messages.Accepted | list[messages.Refusal]:
        """Give the tasks to the scheduler and to the journal's next commit, or return refusals."""
        message, owner = pending.message, pending.owner
        count, terms = len(message.tasks), message.terms
        key, offset = message.key, message.offset
        has_own_key, content = key.startswith(OWN_KEY), b""
        if not has_own_key:
            content = digest(codec.encode((_submitted_options(pending), message.tasks)))
        entry = self._idempotency_entry(owner, key, offset)
        if entry is not None:
            if not has_own_key and entry.digest != content:
                text = f"the key {key!r} was used before with other content"
                return [codec.refusal(errors.KeyConflictError(text, hint="choose another key"))]
            return messages.Accepted(message.request, entry.first, entry.count, repeated=True)
        if pending.refusals:
            return pending.refusals
        error = self._closed_error(pending, count)
        if error is not None:
            return [codec.refusal(error)]
        units: list[int] | None = None  # None: no reservation
        if terms.reservation:
            units, refused = self._reservation_units(pending)
            if refused:
                return refused
        if terms.after:
            error = refusal_of_parents(self._state, self._completions, owner, terms.after)
            if error is not None:
                return [codec.refusal(error)]
        standing: tables.Standing | None = None
        fields: dict[str, Any] = {}
        size_bytes, routes = len(pending.body), pending.routes
        try:
            if self.accounts.is_active or terms.account or terms.qos:
                work = size_bytes, routes, message.tasks
                standing, account = self.accounts.admit(owner, terms, *work)
                fields = msgspec.structs.asdict(account)
            elif owner:
                task_limits.check_tasks(self._state, owner, "", "", terms, routes, size_bytes)
        except errors.SimenvError as refusal:
            return [codec.refusal(refusal)]
        if fault_injection.plan:
            fault_injection.hit("submit.admitted")
        first = self._state.tasks.next_number
        share_bytes = bytes_per_task(pending.body, count)
        values = pending.peer, terms, key, offset, first, pending.received_ns, share_bytes, owner
        batch = SubmitBatch(*values, **fields)
        self._scheduler.submit(batch, message.tasks, routes, units)
        self.remember(owner, key, offset, IdempotencyEntry(first, count, content))
        accepted_s = time.time() - (time.monotonic_ns() - pending.received_ns) / 1e9
        packed, body = pack_routes(routes), pending.resolved_body or pending.body
        row = AcceptedRow(
            first, count, accepted_s, key, offset, content, packed, body, owner, terms.app
        )
        self._journal.accept(row, standing)
        return messages.Accepted(message.request, first, count)

    def _closed_error(self, pending: PendingSubmit, count: int) -> errors.SimenvError | None:
        """Return why the environment takes no `count` more tasks, whoever submits them; None: it
        does."""
        state, owner = self._state, pending.owner
        if state.draining:
            text = "the service is shutting down and accepts nothing new"
            return errors.ShuttingDownError(text, hint="submit again when it is up: simenv up")
        most, size_bytes, full = state.limits, len(pending.body), ""
        if len(state.tasks) + count > most.max_queued_tasks:
            present = f"{len(state.tasks)} tasks are queued"
            full = f"{present}, {count} more would pass the limit of {most.max_queued_tasks}"
        elif state.tasks.queued_bytes + size_bytes > most.max_queued_bytes:
            present, limit = size(state.tasks.queued_bytes), size(most.max_queued_bytes)
            full = f"queued programs hold {present}; the limit is {limit}"
        if full:
            hint = "wait for results, then go on"
            return errors.QueueFullError(full, hint=hint, retry_after_s=RETRY_AFTER_S)
        error: errors.SimenvError | None = None
        if owner or (self.reserve is not None and self.reserve.spent):
            error = self.disk_refusal(owner)
        if error is None and state.devices.controls.is_restricting:
            reason = draining_refusal(state, pending.routes)
            if reason:
                hint = "another pool, or submit again when an admin has resumed it"
                return errors.InsufficientError(reason, hint=hint)
        return error

    def _reservation_units(
        self, pending: PendingSubmit
    ) -> tuple[list[int], list[messages.Refusal]]:
        """Return the units that each task takes of the Submit's reservation, or the refusals. The
        reservation is not changed."""
        terms, specs = pending.message.terms, pending.message.tasks
        ledger = self._state.reservations
        try:
            reservation = ledger.usable(terms.reservation, pending.owner, time.time_ns())
        except errors.NotReservedError as error:
            return [], [codec.refusal(error)]
        units, refused = reservation_units(
            self._state, reservation, specs, pending.routes, pending.sizes, terms
        )
        return units, [codec.refusal(error, error.index) for error in refused]

    def _idempotency_entry(self, owner: str, key: str, offset: int) -> IdempotencyEntry | None:
        entry = self._recent.get((owner, key, offset))
        if entry is not None and not self._is_retained(entry):
            self.forget(owner, key, offset)
            entry = None
        if entry is None and not key.startswith(OWN_KEY):
            stored = self._journal.records.accepted.by_key(owner, key, offset)
            entry = None if stored is None else IdempotencyEntry(*stored)
        return entry

    def _is_retained(self, entry: IdempotencyEntry) -> bool:
        """Return whether the tasks of a key are still known; tasks that retention has removed may
        be submitted again."""
        tasks = self._state.tasks
        if entry.first in tasks or self._journal.records.accepted.owner_of(entry.first) is not None:
            return True
        return any(number in tasks for number in range(entry.first, entry.first + entry.count))


def _submitted_options(pending: PendingSubmit) -> TaskOptions:
    """Return the options as submitted, which a repeat of the Submit has too even if the device's
    calibration has changed."""
    terms = pending.message.terms.content
    if pending.asked_snapshot is None:
        return terms
    return msgspec.structs.replace(terms, snapshot=pending.asked_snapshot)


def bytes_per_task(body: bytes, count: int) -> int:
    """Bytes of a Submit divided by its number of tasks, rounded up; options and bindings count."""
    return -(-len(body) // count)


def _check_shape(message: messages.Submit, size_bytes: int) -> None:
    """Check the size of a Submit and its key. Raises LimitExceededError, OptionError."""
    count = len(message.tasks)
    if size_bytes > MAX_SUBMIT_BYTES:
        text = f"a message of {size(size_bytes)} to submit; {size(MAX_SUBMIT_BYTES)} are the limit"
        raise errors.LimitExceededError(text, hint="fewer tasks in a message, smaller programs")
    if not 0 < count <= messages.MAX_MESSAGE_TASKS:
        text = f"{count} tasks in one message; 1 to {messages.MAX_MESSAGE_TASKS} are allowed"
        raise errors.LimitExceededError(text)
    if not 0 < len(message.key) <= MAX_KEY_CHARS or message.offset < 0:
        text = f"a key has 1 to {MAX_KEY_CHARS} characters, this has {len(message.key)}"
        raise errors.OptionError(text)
    if not message.key.isprintable():
        check_printable("a key", message.key)


HOLD_S = 0.005
ALONE_HOLD_S = 0.001  # the shortest time that a poll can wait
_SHORT_US = 500.0  # expected time of a task whose result comes within ALONE_HOLD_S


class AcceptAnswers:
    """Answers to accepted Submits. Used from the loop's thread. The answer to a client that waits
    for the result anyway is held until that result is sent, at most about HOLD_S, and that of a
    short task that is alone at most about ALONE_HOLD_S: the client is woken once. Its tasks are on
    disk like all others."""

    def __init__(
        self, state: scheduler_state.SchedulerState, send: Callable[[bytes, bytes], object]
    ) -> None:
        """`send`: sends a message to a client."""
        self._state = state
        self._send = send
        self._new: list[tuple[PendingSubmit, messages.Accepted]] = []
        # By peer: (the message may contain a result, answer).
        self._held: dict[bytes, list[tuple[bool, messages.Accepted]]] = {}
        self._until_ns: dict[bytes, int] = {}  # by peer, of its first held answer

    @property
    def hold_s(self) -> float:
        """The time within which `send_stored` must be called, at least ALONE_HOLD_S; 0.0: no
        answers are held."""
        if not self._held:
            return 0.0
        left_ns = min(self._until_ns.values()) - time.monotonic_ns()
        return max(ALONE_HOLD_S, left_ns / 1e9)

    @property
    def num_tasks(self) -> int:
        """Number of tasks whose acceptance is to be stored and sent in this pass."""
        return sum([accepted.count for _, accepted in self._new])

    def add(self, pending: PendingSubmit, accepted: messages.Accepted) -> None:
        """Add an answer, to be sent after the next commit."""
        self._new.append((pending, accepted))

    def take_unstored(self) -> Iterator[tuple[PendingSubmit, messages.Accepted]]:
        """Remove and return the answers whose tasks could not be stored."""
        while self._new:
            yield self._new.pop(0)

    def send_stored(self) -> None:
        """Send or hold the answers whose tasks are stored, and send those that were held long
        enough."""
        for pending, accepted in self._new:
            hold_s = self._hold_s(pending, accepted)
            if hold_s:
                until_ns = time.monotonic_ns() + round(hold_s * 1e9)
                held = self._held.setdefault(pending.peer, [])
                held.append((pending.message.reads_completed, accepted))
                self._until_ns.setdefault(pending.peer, until_ns)
            else:
                self._send(pending.peer, codec.encode(accepted))
            if fault_injection.plan:
                fault_injection.hit("accepted.sent")
        self._new.clear()
        if self._held:
            now_ns = time.monotonic_ns()
            for peer in [peer for peer, until_ns in self._until_ns.items() if until_ns <= now_ns]:
                self._send_held(peer)

    def send_results(self, results: Sequence[tuple[bytes, bytes]]) -> None:
        """Send results, (client, message), each after the held answers of its client, or in the
        last of them: one message takes less time than two."""
        for peer, body in results:
            if peer not in self._held or not self._send_held(peer, body):
                self._send(peer, body)

    def close(self) -> None:
        """Send all held answers."""
        for peer in list(self._held):
            self._send_held(peer)

    def _send_held(self, peer: bytes, result: bytes = b"") -> bool:
        """Send the held answers of a client. Returns whether the last one contains `result`."""
        del self._until_ns[peer]
        held = self._held.pop(peer)
        is_contained = bool(result) and held[-1][0] and codec.is_completed(result)
        if is_contained:
            completed: Any = msgspec.Raw(result)
            held[-1] = True, msgspec.structs.replace(held[-1][1], completed=completed)
        for _, accepted in held:
            self._send(peer, codec.encode(accepted))
        return is_contained

    def _hold_s(self, pending: PendingSubmit, accepted: messages.Accepted) -> float:
        """Return how long to hold the answer: not, unless a worker has the single task of a Submit
        and will end it soon."""
        if accepted.repeated or accepted.count != 1:
            return 0.0
        record = self._state.tasks.get(accepted.first)
        if record is None or record.phase != SENT or record.announced:
            return 0.0
        if pending.message.awaits_result:
            return HOLD_S
        is_alone = len(self._state.tasks) == 1
        return ALONE_HOLD_S if is_alone and record.cost_us <= _SHORT_US else 0.0
