"""Streams of circuits over one device or several, delivered in order or as the tasks end.

The order of deliveries is pure and comes first.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar, Unpack

from simenv.client.client import Client
from simenv.client.stream_queues import StreamCompletions, StreamEvents, StreamTask
from simenv.client.stream_stages import CircuitPart, Pipeline
from simenv.client.submission.options import checked_options, item_seeds
from simenv.client.tasks.task import Task
from simenv.errors import OptionError, ServiceLostError, SimenvError
from simenv.model.options import SubmitOptions
from simenv.model.task_rules import checked_key, checked_timeout


class Order(StrEnum):
    """Order of the deliveries of a group, or of the groups of a stream."""

    ORDERED = "ordered"  # in the order of submission
    PARALLEL = "parallel"  # in the order of the ends

    @classmethod
    def of(cls, name: str) -> Order:
        """Return the order of that name. Raises OptionError."""
        try:
            return cls(name)
        except ValueError:
            hint = f"one of {', '.join(cls)}"
            raise OptionError(f"order={name!r}", hint=hint) from None


Item = TypeVar("Item", bound=Hashable)


@dataclass(slots=True, eq=False)
class GroupState(Generic[Item]):
    """A group of a stream with its tasks that are not delivered."""

    order: Order
    waiting: deque[Item] = field(default_factory=deque)  # if ordered: by submission
    ended: dict[Item, None] = field(default_factory=dict)  # not delivered; in order of the ends
    undelivered: int = 0
    closed: bool = False  # no task is added any more

    @property
    def finished(self) -> bool:
        return self.closed and not self.undelivered

    def take(self) -> list[Item]:
        """Remove and return the tasks that can be delivered now."""
        results: list[Item] = []
        if self.order is Order.ORDERED:
            while self.waiting and self.waiting[0] in self.ended:
                results.append(self.waiting.popleft())
                del self.ended[results[-1]]
        else:
            results += self.ended
            self.ended.clear()
        self.undelivered -= len(results)
        return results


class DeliverySequence(Generic[Item]):
    """The groups of a stream. An ordered stream delivers a group after all earlier ones, a parallel
    one independently. Memory is bounded by the tasks that are not delivered."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._groups: deque[GroupState[Item]] = deque()  # if ordered: groups that are not finished
        self._group_of: dict[Item, GroupState[Item]] = {}  # tasks that are not delivered

    @property
    def undelivered(self) -> int:
        return len(self._group_of)

    def open_group(self, order: Order) -> GroupState[Item]:
        """Open a group after the existing ones."""
        group = GroupState[Item](order)
        if self._order is Order.ORDERED:
            self._groups.append(group)
        return group

    def add(self, group: GroupState[Item], task: Item) -> None:
        """Add a task at the end of an open group."""
        if group.order is Order.ORDERED:
            group.waiting.append(task)
        group.undelivered += 1
        self._group_of[task] = group

    def ended(self, task: Item) -> list[Item]:
        """Record the end of a task; return the tasks that can be delivered now, in order."""
        group = self._group_of.get(task)
        if group is None or task in group.ended:
            return []
        group.ended[task] = None
        return self._deliver(group)

    def close(self, group: GroupState[Item]) -> list[Item]:
        """Close a group; return the tasks that can be delivered now, in order."""
        group.closed = True
        return self._deliver(group)

    def _deliver(self, changed: GroupState[Item]) -> list[Item]:
        if self._order is Order.PARALLEL:
            results = changed.take()
        else:
            results = []
            while self._groups:
                results += self._groups[0].take()
                if not self._groups[0].finished:
                    break
                self._groups.popleft()
        for task in results:
            del self._group_of[task]
        return results


EVENTS_S = 0.2  # interval of polling for events


class Stream:
    """A stream of circuits for one or several devices or pools. Thread-safe; a context manager.

    `order`: "ordered" delivers completions in the order of submission, and groups one after
    another; "parallel" delivers them as the tasks end. The order of execution does not depend on
    it. `devices` or `pools`: targets of the circuits; a circuit without a target goes to the one
    with the fewest unfinished tasks of this stream. Without targets the environment chooses.
    `pipeline`: stages, see `simenv.client.stream_stages`. `options`: of every submission;
    raises OptionError for a value, TypeError for a name that is not allowed.

    Completions go to the queues that are bound at the time of delivery. Without a queue nothing is
    stored; the tasks have their results nevertheless.
    """

    def __init__(
        self,
        client: Client,
        *,
        order: str = "parallel",
        devices: Sequence[str] | str = (),
        pools: Sequence[str] | str = (),
        pipeline: Sequence[Any] = (),
        **options: Unpack[SubmitOptions],
    ) -> None:
        checked_options(options)
        if devices and pools:
            raise OptionError("devices and pools of a stream", hint="give one of the two")
        self._field = "pool" if pools else "device"
        targets = pools or devices
        self._targets = (targets,) if isinstance(targets, str) else tuple(targets)
        self._client, self._options = client, options
        self._pipeline = Pipeline(pipeline)
        self._order = Order.of(order)
        self._sequence = DeliverySequence[StreamTask](self._order)
        self._group: GroupState[StreamTask] | None = None  # tasks outside of groups
        self._in_flight = dict.fromkeys(self._targets, 0)
        self._count = 0
        self._closed = False
        self._lost: list[tuple[Task, StreamTask, str]] = []  # without news: service was lost
        self._queues: list[StreamCompletions] = []
        self._events: list[tuple[StreamEvents, int]] = []
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._listener: threading.Thread | None = None

    def bind(self, queue: StreamCompletions | StreamEvents) -> None:
        """Deliver into this queue from now on; several streams may share one. A queue that is bound
        already stays so. Raises OptionError for an object of another type."""
        if not isinstance(queue, StreamCompletions | StreamEvents):
            message = f"bind({queue!r}): {type(queue).__name__} is no queue of a stream"
            hint = "a StreamCompletions or StreamEvents of simenv.client.stream_queues"
            raise OptionError(message, hint=hint)
        with self._lock:
            if any(queue is each for each in (*self._queues, *(e for e, _ in self._events))):
                return
            if isinstance(queue, StreamCompletions):
                queue.attach(self)
                self._queues.append(queue)
                return
            newest = self._client.history.newest_event()  # it may raise: before the queue is bound
            queue.attach(self)
            self._events.append((queue, newest))
            if self._listener is None:
                self._listener = threading.Thread(
                    target=self._listen, name="simenv-stream-events", daemon=True
                )
                self._listener.start()

    def submit(self, circuit: Any, **options: Unpack[SubmitOptions]) -> StreamTask:
        """Run the pipeline on a circuit and submit it; `device` or `pool` name its target. Raises
        the errors of `Client.post`, and ProgramError for a stage that fails. A refusal by the
        service is a completion of type "failed"."""
        return self._submit(None, circuit, options)

    @contextmanager
    def group(self, order: str | None = None) -> Iterator[StreamGroup]:
        """Open a group of tasks; `order`: of its deliveries, None: as the stream. An ordered stream
        delivers the group after earlier submissions and before later ones."""
        with self._lock:
            self._close_group()
            state = self._sequence.open_group(self._order if order is None else Order.of(order))
        try:
            yield StreamGroup(self, state)
        finally:
            with self._lock:
                self._deliver(self._sequence.close(state))

    def _submit(
        self, group: GroupState[StreamTask] | None, circuit: Any, options: SubmitOptions
    ) -> StreamTask:
        split = self._pipeline.apply(circuit)
        merged: dict[str, Any] = {**self._options, **options}
        tasks, targets = [], []
        with self._lock:
            if self._closed:
                raise OptionError("the stream is closed", hint="open another one")
            try:
                for part, circuit_options in zip(
                    split.parts, _options_of_parts(merged, split.parts), strict=True
                ):
                    target = self._set_target(part, circuit_options)
                    tasks.append(self._client.post(part.circuit, **circuit_options))
                    targets.append(target)
                    self._count_in_flight(target, 1)
            except BaseException:  # refused or interrupted: nobody would get what was submitted
                self._withdraw(tasks, targets)
                raise
            built = StreamTask(self._count, targets[0], split, tuple(tasks))
            self._count += 1
            if group is None:
                if self._group is None:
                    self._group = self._sequence.open_group(self._order)
                group = self._group
            self._sequence.add(group, built)
        for task, target in zip(tasks, targets, strict=True):
            self._watch(task, built, target)
        return built

    def _withdraw(self, tasks: Sequence[Task], targets: Sequence[str]) -> None:
        for task, target in zip(tasks, targets, strict=True):
            self._count_in_flight(target, -1)
            if task.settled() is not None:
                task.cancel()

    def _set_target(self, part: CircuitPart, options: dict[str, Any]) -> str:
        """Set the target of a circuit in its options and return it; "": the environment chooses."""
        if part.device is not None or part.pool is not None:
            options["device"], options["pool"] = part.device, part.pool
        explicit = options.get("device") or options.get("pool")
        if explicit:
            return str(explicit)
        least = min(self._targets, key=lambda name: self._in_flight[name], default="")
        if least:
            options[self._field] = least
        return least

    def _count_in_flight(self, target: str, change: int) -> None:
        if target in self._in_flight:
            self._in_flight[target] += change

    def _close_group(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            self._deliver(self._sequence.close(group))

    def _watch(self, task: Task, circuit: StreamTask, target: str) -> None:
        try:
            task.add_done_callback(lambda _: self._ended(task, circuit, target))
        except ServiceLostError as error:
            self._lose(task, circuit, target, error)

    def _ended(self, task: Task, circuit: StreamTask, target: str) -> None:
        """Handle the end of a task; called once for each task, by a thread of the client."""
        if not task.done():
            self._lose(task, circuit, target, ServiceLostError("the service was lost"))
            return
        with self._lock:
            self._count_in_flight(target, -1)
            if circuit.part_ended():
                self._deliver(self._sequence.ended(circuit))

    def _lose(self, task: Task, circuit: StreamTask, target: str, error: SimenvError) -> None:
        with self._lock:
            self._lost.append((task, circuit, target))
            for queue in self._queues:
                queue.fail(error)

    def resume(self) -> None:
        """Wait again for tasks without news after the service was lost."""
        with self._lock:
            waiting, self._lost = self._lost, []
        for task, built, target in waiting:
            self._watch(task, built, target)

    def _deliver(self, tasks: Iterable[StreamTask]) -> None:
        """Put tasks into the queues. The lock must be held, so that deliveries keep their order."""
        for built in tasks:
            types = built.types
            for queue in self._queues:
                if not queue.types.isdisjoint(types):
                    queue.put(built)
        self._changed.notify_all()
        if self.finished:
            for queue in self._queues:
                queue.wake()

    @property
    def finished(self) -> bool:
        """True if the stream is closed and everything was delivered."""
        return self._closed and not self._sequence.undelivered

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all submitted circuits have been delivered; False after `timeout_s`."""
        with self._lock:
            left_s = checked_timeout(timeout_s)
            return self._changed.wait_for(lambda: not self._sequence.undelivered, left_s)

    def close(self) -> None:
        """Accept no more circuits; queues end when everything has been delivered."""
        with self._lock:
            self._closed = True
            self._close_group()
            self._deliver(())
            for queue, _ in self._events:
                queue.wake()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self) -> None:
        """Poll for events while the stream is open. A full queue gets them when it was read: until
        then they stay in the journal of the service."""
        while not self.finished:
            with self._changed:
                self._changed.wait(EVENTS_S)
                bound = list(self._events)
            for k, (queue, since) in enumerate(bound):
                try:
                    # Other kinds are read here, too, so that no poll reads them again.
                    for event in () if queue.is_full else self._client.events(since):
                        since = event.seq
                        if event.is_of(queue.patterns):
                            queue.put(event)
                            if queue.is_full:
                                break
                except SimenvError as error:
                    queue.fail(error)
                self._events[k] = (queue, since)
        for queue, _ in self._events:
            queue.wake()


def _options_of_parts(
    options: dict[str, Any], parts: Sequence[CircuitPart]
) -> list[dict[str, Any]]:
    """Return the options of the submission of each part. One seed or idempotency key for several
    parts becomes one for each, as in a batch: equal seeds would correlate the parts, whose results
    are multiplied. Raises OptionError."""
    key, seed = options.get("idempotency_key"), options.get("seed")
    if len(parts) == 1 or (key is None and seed is None):
        return [{**options, **part.options} for part in parts]
    derived: list[dict[str, Any]] = [{} for _ in parts]
    if key is not None:
        checked_key(key)
        derived = [{"idempotency_key": f"{key}/{number}"} for number in range(len(parts))]
    for own, drawn in zip(derived, item_seeds(seed, len(parts), key), strict=True):
        own["seed"] = drawn
    return [{**options, **own, **part.options} for own, part in zip(derived, parts, strict=True)]


class StreamGroup:
    """A group of a stream; made by `Stream.group`."""

    def __init__(self, stream: Stream, state: GroupState[StreamTask]) -> None:
        self._stream, self._state = stream, state

    def submit(self, circuit: Any, **options: Unpack[SubmitOptions]) -> StreamTask:
        """Submit a circuit in this group; see `Stream.submit`."""
        if self._state.closed:
            raise OptionError("the group is closed", hint="submit inside its `with`")
        return self._stream._submit(self._state, circuit, options)
