"""Which tasks are still to end: ids to tasks, and results that came before their acceptance.

Invariant: a task leaves the ledger when its end is known; what is finished lives in its Task alone.
No lock here: the link holds its own around every call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from simenv.client.task import Ending, Task
from simenv.errors import NotFound
from simenv.model import task_name

if TYPE_CHECKING:
    from simenv.client.link import Link
    from simenv.wire.messages import Accepted, Completed, Completion

EARLY_KEPT = 16_384  # beyond it a result is dropped, and asked for again by Watch


class Submission(msgspec.Struct):
    """What the tasks of one message share here. `sent_s`: perf_counter; 0.0: not sent from here."""

    name: str = ""
    sent_s: float = 0.0
    accepted_s: float = 0.0


class Ledger:
    """Outstanding tasks of one link."""

    def __init__(self) -> None:
        self.tasks: dict[int, Task] = {}
        self.unanswered = 0  # submits on their way: only then can a result be early
        self._early: dict[int, tuple[Completion, Ending]] = {}

    def accepted(self, link: Link, message: Accepted, submission: Submission) -> list[Task]:
        """The tasks of one accepted message, in order; known ids give the tasks there are."""
        self.unanswered -= 1
        numbers = range(message.first, message.first + message.count)
        tasks = [Task(link, number, submission) for number in numbers]
        if message.repeated:
            tasks = [self.tasks.get(task.number, task) for task in tasks]
        self.tasks.update(zip(numbers, tasks, strict=True))
        if self._early:
            for task in tasks:
                early = self._early.pop(task.number, None)
                if early is not None:
                    del self.tasks[task.number]
                    task.end(*early)
            if not self.unanswered:
                self._early.clear()
        return tasks

    def refused(self) -> None:
        """A submit was answered without tasks, or given up."""
        self.unanswered -= 1
        if not self.unanswered:
            self._early.clear()

    def completed(self, message: Completed, read_s: float) -> None:
        """Hand each result to its task; one that nobody waits for is dropped."""
        ending = Ending(message.origin, message.engine, message.route, read_s)
        pop = self.tasks.pop
        for completion in message.results:
            task = pop(completion.task, None)
            if task is not None:
                task.end(completion, ending)
            elif self.unanswered and len(self._early) < EARLY_KEPT:
                self._early[completion.task] = (completion, ending)

    def unknown(self, numbers: list[int]) -> None:
        """The service has never heard of these, or keeps them no longer."""
        for number in numbers:
            task = self.tasks.pop(number, None)
            if task is not None:
                task.lose(
                    NotFound(
                        f"the service does not know task {task_name(number)} (any longer)",
                        hint="finished tasks are kept for a limited time",
                    )
                )

    def expect(self, task: Task) -> bool:
        """Make sure `task` hears of its end; True when the service must be asked for it."""
        known = self.tasks.get(task.number)
        if known is None:
            self.tasks[task.number] = task
            return True
        if known is not task:  # two objects of one task: the second follows the first
            known.on_end(lambda: task.follow(known))
        return False
