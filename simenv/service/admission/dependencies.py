"""Parents of tasks: checks at a submit, and failed parents at a start of the service."""

from __future__ import annotations

from collections.abc import Iterable

from simenv.errors import NotFoundError, OptionError, SimenvError
from simenv.model import MAX_PARENTS, TaskOptions, TaskState, task_name
from simenv.scheduler.state.state import SchedulerState
from simenv.service.results.completions import Completions


def check_parents(terms: TaskOptions) -> None:
    """Check the number of parents. Raises OptionError."""
    if len(terms.after) > MAX_PARENTS:
        raise OptionError(
            f"after names {len(terms.after)} tasks; at most {MAX_PARENTS} are allowed",
            hint="let one task come after a part of them",
        )


def refusal_of_parents(
    state: SchedulerState, completions: Completions, owner: str, after: Iterable[int]
) -> SimenvError | None:
    """Return the error if a task of `owner` cannot have these parents; None if it can. Parents are
    tasks of the same owner that have not ended, or have ended as DONE."""
    for number in after:
        record = state.tasks.get(number)
        if record is not None and record.batch.owner == owner:
            continue
        end = None if record is not None else completions.end_of(number, owner)
        name = task_name(number) if number >= 0 else str(number)
        if end is None:
            return NotFoundError(
                f"after: there is no task {name} of yours here (any longer)",
                hint="simenv queue lists unfinished tasks, simenv history those that have ended",
            )
        if end.state is not TaskState.DONE:
            return OptionError(
                f"after: task {name} has ended as {end.state}: {end.message}",
                hint=f"submit what {name} was again and name the new task, or leave it out",
            )
    return None


def failed_parent(completions: Completions, after: Iterable[int]) -> int:
    """Return the first of these accepted tasks that has ended, but not as DONE; 0: none.

    A task whose end is no longer kept counts as DONE: a failure ends the children right after it is
    stored, long before retention may remove it.
    """
    for number in after:
        end = completions.end_of(number)
        if end is not None and end.state is not TaskState.DONE:
            return number
    return 0
