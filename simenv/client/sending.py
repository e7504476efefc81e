"""An order to the service: in messages of a fair size, accepted or refused as a whole."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate
from time import perf_counter

import msgspec

from simenv.client import refusals
from simenv.client.entry import Entry, Submission
from simenv.client.link import Link
from simenv.client.posting import PostedTask, Window
from simenv.client.requests import Request
from simenv.client.task import Task
from simenv.errors import SimenvError
from simenv.model import TaskSpec, Terms
from simenv.wire.messages import CLIENT_MESSAGE_BYTES, CLIENT_MESSAGE_TASKS, Refusal

UNANSWERED = 8  # messages on their way at once
SPEC_BYTES = 32  # of a TaskSpec beside its program and bindings


class Order(msgspec.Struct, frozen=True):
    """What one call asks for."""

    terms: Terms
    specs: list[TaskSpec]
    single: bool = False  # an error is about the call, not about one of several items


def post(link: Link, order: Order, key: str | None, window: Window) -> PostedTask:
    """The one task of an order, on its way; see `PostedTask`."""
    submission = Submission(order.terms.name, perf_counter())
    task = PostedTask(link, link.offer(key, 0, order.terms, order.specs, submission))
    window.add(task)
    return task


def send(link: Link, order: Order, key: str | None) -> list[Task]:
    """The accepted tasks, in order. On a refusal nothing new stays: it is cancelled again."""
    if len(order.specs) <= 1:
        return _send_one(link, order, key) if order.specs else []
    window: deque[tuple[int, Request]] = deque()
    received = Received([], [], [])
    start = 0
    try:
        for part in chunks(order.specs):
            submission = Submission(order.terms.name, perf_counter())
            request = link.offer(key, start, order.terms, part, submission)
            window.append((start, request))
            start += len(part)
            while len(window) >= UNANSWERED:
                received.add(link, *window.popleft())
            if received.errors:
                break
        while window:
            received.add(link, *window.popleft())
    finally:
        for _, request in window:  # interrupted: nobody will ask for these answers
            link.abandon(request)
    if received.errors:
        raise _refused(link, received, order, key)
    return _tasks(received.entries, order.specs)


def _send_one(link: Link, order: Order, key: str | None) -> list[Task]:
    """The same of one message that needs no window: what is asked one by one should be quick."""
    submission = Submission(order.terms.name, perf_counter())
    request = link.offer(key, 0, order.terms, order.specs, submission)
    answer = link.claim(request)
    if request.entries:
        return _tasks(request.entries, order.specs)
    errors = [refusals.one(found) for found in answer if isinstance(found, Refusal)]
    raise _refused(link, Received([], [], errors), order, key)


class Received(msgspec.Struct, frozen=True):
    """Answers so far; `fresh` are the tasks that this very call brought about."""

    entries: list[Entry]
    fresh: list[Entry]
    errors: list[SimenvError]

    def add(self, link: Link, start: int, request: Request) -> None:
        for found in link.claim(request):
            if isinstance(found, Refusal):
                self.errors.append(refusals.one(found, start))
        self.entries.extend(request.entries)
        if not request.repeated:
            self.fresh.extend(request.entries)


def _tasks(entries: Sequence[Entry], specs: Sequence[TaskSpec]) -> list[Task]:
    """One for each binding."""
    if sum([spec.count for spec in specs]) == len(specs):
        return [Task(entry) for entry in entries]
    tasks: list[Task] = []
    for entry, spec in zip(entries, specs, strict=True):
        if spec.count == 1:
            tasks.append(Task(entry))
        else:
            tasks += [Task(entry, row) for row in range(spec.count)]
    return tasks


def chunks(specs: list[TaskSpec]) -> Iterator[list[TaskSpec]]:
    """At most CLIENT_MESSAGE_TASKS and, but for a single one, CLIENT_MESSAGE_BYTES each."""
    ends = [*accumulate([len(s.program) + len(s.bindings) + SPEC_BYTES for s in specs], initial=0)]
    first = 0
    while first < len(specs):
        room = ends[first] + CLIENT_MESSAGE_BYTES
        last = min(bisect_right(ends, room) - 1, first + CLIENT_MESSAGE_TASKS)
        last = max(last, first + 1)
        yield specs[first:last]
        first = last


def _refused(link: Link, received: Received, order: Order, key: str | None) -> SimenvError:
    if order.single:
        received.errors[0].index = -1
    firsts = [0, *accumulate(spec.count for spec in order.specs)]  # a caller's items are bindings
    refused = sum(order.specs[e.index].count for e in received.errors if e.index >= 0)
    for each in received.errors:
        each.index = firsts[each.index] if each.index >= 0 else -1
    error = refusals.error_of_batch(received.errors, firsts[-1], refused)
    if received.fresh:
        link.cancel([entry.number for entry in received.fresh])
        if key is not None:
            words = f"the key {key!r} now stands for cancelled tasks: take another"
            error.hint = f"{error.hint}; {words}" if error.hint else words
    return error
