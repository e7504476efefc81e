"""State of a group of tasks as Qiskit's JobStatus, and the wait for its end."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from qiskit.providers import JobStatus

from simenv.client.client import Client
from simenv.client.tasks.task import Task
from simenv.model import FINAL_STATES, TaskState


class TaskGroup:
    """Tasks of one client with a common state: the base of the jobs of backends and primitives."""

    _client: Client | None = None
    _each: Sequence[Task] = ()  # one for each task of the service

    def _set_tasks(self, client: Client | None, tasks: Sequence[Task]) -> list[str]:
        """Set the tasks; return their ids. `client`: None only for no tasks, whose state is
        DONE."""
        first: dict[int, Task] = {}
        for task in tasks:
            first.setdefault(task.handle.number, task)
        self._client, self._each = client, list(first.values())
        return [task.handle.id for task in self._each]

    def status(self) -> JobStatus:
        """State of all tasks together: QUEUED until one has started, RUNNING until all have ended;
        then ERROR if one failed or expired, CANCELLED if one was cancelled, DONE."""
        waiting = [task for task in self._each if not task.done()]
        states = {task.state for task in self._each if task.done()}
        if waiting and self._client is not None:
            entries = {info.id: info.state for info in self._client.tasks(waiting)}
            states |= {entries.get(task.handle.id, TaskState.QUEUED) for task in waiting}
        if states <= {TaskState.QUEUED} and states:
            return JobStatus.QUEUED
        if not states <= FINAL_STATES:
            return JobStatus.RUNNING
        if states & {TaskState.FAILED, TaskState.EXPIRED}:
            return JobStatus.ERROR
        return JobStatus.CANCELLED if TaskState.CANCELLED in states else JobStatus.DONE

    def _wait(self, timeout_s: float | None) -> None:
        """Wait until all tasks have ended, in any state. Raises TimedOutError."""
        deadline = None if timeout_s is None else monotonic() + timeout_s
        for task in self._each:
            task.wait(timeout_s=None if deadline is None else max(0.0, deadline - monotonic()))

    def cancel(self) -> bool:
        """Cancel the unfinished tasks; False if all had ended."""
        if self._client is None:
            return False
        outcomes = self._client.cancel(self._each)
        return any(outcome in ("cancelled", "cancelling") for outcome in outcomes)

    def error_message(self) -> str | None:
        """Error of the first task that failed; None if none has."""
        for task in self._each:
            if task.done() and (error := task.exception(0.0)) is not None:
                return str(error)
        return None

    def usage(self) -> dict[str, float]:
        """Seconds of the tasks that are done, each task of the service once: `queued_s`, `run_s`
        and `device_s` (by the device's calibration) are sums, `total_s` is that of the longest
        task."""
        results = [task.results()[0].timing for task in self._each if _is_done(task)]
        return {
            "queued_s": sum(timing.queued_s for timing in results),
            "run_s": sum(timing.run_s for timing in results),
            "device_s": sum(timing.device_s for timing in results),
            "total_s": max((timing.total_s for timing in results), default=0.0),
        }


def _is_done(task: Task) -> bool:
    return task.done() and task.handle.final_state is TaskState.DONE
