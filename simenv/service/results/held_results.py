"""Results that wait until their time on a paced device is over.

They are in memory only: a task whose result is held has not ended, and runs again after a restart.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from simenv.scheduler.core.actions import TaskEnded
from simenv.scheduler.state.state import SchedulerState
from simenv.wire.messages.client import AttemptResults


class HeldResults:
    """Held results, by task. Used from the loop's thread."""

    def __init__(self, state: SchedulerState) -> None:
        self._state = state
        self._held: dict[int, AttemptResults] = {}

    def hold(self, message: AttemptResults, endings: Sequence[TaskEnded]) -> set[int]:
        """Store the results of a message that the scheduler holds. Returns their indices in the
        message."""
        held = self._state.paced.held
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
            self._held[result.task] = msgspec.structs.replace(message, results=[result])
        return indices

    def take(self, ending: TaskEnded) -> AttemptResults:
        """Remove and return the result of a task that has ended."""
        return self._held.pop(ending.record.number)

    def drop(self, task: int) -> list[str]:
        """Discard the result of a task. Returns the names of its files."""
        return [result.file for result in self._held.pop(task).results if result.file]
