"""Which tasks are still to end: ids to tasks, and results that came before their acceptance.

Invariant: an entry leaves the ledger when its end is known; what is finished lives in its Tasks.
No lock here: the link holds its own around every call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simenv.client.entry import Ending, Entry, Submission
from simenv.errors import NotFound
from simenv.model import task_name

if TYPE_CHECKING:
    from simenv.client.link import Link
    from simenv.wire.messages import Accepted, Completed, Completion

EARLY_KEPT = 16_384  # beyond it a result is dropped, and asked for again by Watch


class Ledger:
    """Outstanding tasks of one link."""

    def __init__(self) -> None:
        self.tasks: dict[int, Entry] = {}
        self.unanswered = 0  # submits on their way: only then can a result be early
        self._early: dict[int, tuple[Completion, Ending]] = {}

    def accepted(self, link: Link, message: Accepted, submission: Submission) -> list[Entry]:
        """The entries of one accepted message, in order; known ids give those there are."""
        self.unanswered -= 1
        numbers = range(message.first, message.first + message.count)
        entries = [Entry(link, number, submission) for number in numbers]
        if message.repeated:
            entries = [self.tasks.get(entry.number, entry) for entry in entries]
        self.tasks.update(zip(numbers, entries, strict=True))
        if self._early:
            for entry in entries:
                early = self._early.pop(entry.number, None)
                if early is not None:
                    del self.tasks[entry.number]
                    entry.end(*early)
            if not self.unanswered:
                self._early.clear()
        return entries

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
            entry = pop(completion.task, None)
            if entry is not None:
                entry.end(completion, ending)
            elif self.unanswered and len(self._early) < EARLY_KEPT:
                self._early[completion.task] = (completion, ending)

    def unknown(self, numbers: list[int], gone: list[int]) -> None:
        """The service has never heard of these; those in `gone` it keeps no longer."""
        for number in numbers:
            entry = self.tasks.pop(number, None)
            if entry is None:
                continue
            if number in gone:
                words = f"what task {task_name(number)} found is no longer kept"
                hint = "submit it again; history.keep_days and results.keep_gib say what is kept"
            else:
                words = f"the service does not know task {task_name(number)}"
                hint = "another environment may: simenv --name NAME result ID"
            entry.lose(NotFound(words, hint=hint))

    def expect(self, entry: Entry) -> bool:
        """Make sure `entry` hears of its end; True when the service must be asked for it."""
        known = self.tasks.get(entry.number)
        if known is None:
            self.tasks[entry.number] = entry
            return True
        if known is not entry:  # two entries of one task: the second follows the first
            known.on_end(lambda: entry.follow(known))
        return False
