"""Subscriptions of a client to the ends of tasks, which any client may have submitted."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from time import monotonic, perf_counter

from simenv.client.connection import task_handle
from simenv.client.connection.channel import ServiceChannel
from simenv.client.connection.task_handle import EndedTasks, Submission, TaskHandle, TaskSource
from simenv.errors import SimenvError, while_waiting
from simenv.wire.messages import client as m


class TaskSubscriptions:
    """Tasks whose ends are awaited. Thread-safe. The channel calls `completed` and `unknown` with
    its lock held."""

    def __init__(self, session: TaskSource, channel: ServiceChannel) -> None:
        self._session, self.channel = session, channel
        self.reset()

    def reset(self) -> None:
        """Initialize the state; also called in a forked child."""
        self.pending = task_handle.PendingTasks()
        self._watches = task_handle.WatchQueue(self.pending, self._send_watch)

    def handle(self, number: int, submission: Submission) -> TaskHandle:
        """Return the present handle of a task, or a new one."""
        self.channel.enter()
        with self.channel.lock:
            return self.pending.tasks.get(number) or TaskHandle(self._session, number, submission)

    def subscribe(self, handles: Iterable[TaskHandle]) -> None:
        """Register handles for the ends of their tasks."""
        self.channel.enter()
        with self.channel.lock:
            unanswered = [e.number for e in handles if not e.over and self.pending.expect(e)]
            if unanswered:
                self._watches.add(unanswered)

    def wait(self, handle: TaskHandle, timeout_s: float | None) -> bool:
        """Wait for the end of one task; False after `timeout_s`. Raises the error of a lost
        connection, with the task's id."""
        try:
            if self.channel.is_forked or self.pending.tasks.get(handle.number) is not handle:
                self.subscribe([handle])
            repeat = partial(self._repeat_request, handle)
            return self.channel.wait(handle.has_ended, timeout_s, repeat)
        except SimenvError as error:
            raise while_waiting(error, [handle.id]) from error

    def poll(self, handle: TaskHandle) -> None:
        """Handle messages that have arrived; never waits."""
        self.subscribe([handle])
        self.channel.poll()

    def gather(
        self, handles: Collection[TaskHandle], ended_tasks: EndedTasks | None = None
    ) -> EndedTasks:
        """Record each of these tasks when it ends. `ended_tasks`: an existing record to extend."""
        self.subscribe(handles)
        if ended_tasks is None:
            ended_tasks = EndedTasks(deque(), monotonic())
        with self.channel.lock:
            for handle in handles:
                handle.on_end(partial(ended_tasks.ended.append, handle))
        return ended_tasks

    def wait_any(
        self, waiting: Iterable[TaskHandle], ended_tasks: EndedTasks, timeout_s: float | None
    ) -> bool:
        """Wait until a task has ended; False after `timeout_s`. `waiting`: the unfinished tasks.
        Raises the error of a lost connection, with their ids."""

        def repeat(now: float) -> None:
            if now - ended_tasks.requested_s >= task_handle.REPEAT_S:
                ended_tasks.requested_s = now
                self.watch([handle.number for handle in waiting])

        try:
            self.channel.enter()
            result = self.channel.wait(lambda: bool(ended_tasks.ended), timeout_s, repeat)
        except SimenvError as error:
            raise while_waiting(error, [handle.id for handle in waiting]) from error
        if result:
            ended_tasks.requested_s = monotonic()
        return result

    def watch(self, task_numbers: Sequence[int], *, missed: bool = True) -> None:
        """Request the results of these tasks, overdue ones unless not `missed`. The caller holds
        the lock."""
        self._watches.add(task_numbers, missed=missed)

    def completed(self, message: m.Completed) -> None:
        """Give each result to its task."""
        self.pending.completed(message, perf_counter())

    def unknown(self, message: m.UnknownTasks) -> None:
        """End tasks that the service does not know: the answer to the last WatchResults."""
        self.pending.unknown(message.tasks, message.gone)
        self._watches.answered()

    def renew(self) -> None:
        """Request all outstanding results after a restart of the service or a reconnect."""
        self._watches.restart()

    def _repeat_request(self, handle: TaskHandle, now: float) -> None:
        if not handle.requested_s:
            handle.requested_s = now
        elif now - handle.requested_s >= task_handle.REPEAT_S:
            handle.requested_s = now
            self.watch([handle.number])

    def _send_watch(self, task_numbers: list[int]) -> None:
        self.channel.send(m.WatchResults(0, task_numbers))
