"""Ids of tasks as people type them: `t-8k2f`, and `t-8k2f.17` for one binding of a task."""

from __future__ import annotations

from simenv.client.task import Task
from simenv.errors import NotFound
from simenv.model import MAX_TASK_NUMBER, task_number

ROW_DIGITS = 4  # MAX_BINDINGS has as many


def number_of(task: Task | str | int) -> int:
    """The task's number; NotFound if this can be no task's id."""
    if isinstance(task, Task):
        return task.entry.number
    number = task if isinstance(task, int) else task_number(task.partition(".")[0])
    if number is None or not 0 <= number <= MAX_TASK_NUMBER:
        raise NotFound(f"{str(task)[:80]!r} is not a task's id", hint="ids look like t-8k2f")
    return number


def row_of(task: str | int) -> int | None:
    """Which of a task's bindings `t-8k2f.17` names; None: the task as a whole."""
    row = str(task).partition(".")[2]
    if not row:
        return None
    if not row.isdecimal() or len(row) > ROW_DIGITS:
        raise NotFound(f"{str(task)[:80]!r} is not a task's id", hint="ids look like t-8k2f.17")
    return int(row)
