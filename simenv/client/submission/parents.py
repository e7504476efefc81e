"""The option `after`: the parents of a submission."""

from __future__ import annotations

from collections.abc import Iterable

from simenv.client.tasks.task import Task, number_of
from simenv.errors import OptionError
from simenv.model import MAX_PARENTS

Parents = Iterable[Task | str | int] | Task | str | int | None


def checked_parents(after: Parents) -> tuple[int, ...]:
    """Return the numbers of the parents, each once; a binding such as `t-8k2f.17` means its task.

    Waits for the acceptance of a posted task. Raises OptionError, NotFoundError, and the refusal of
    a posted task.
    """
    values = (after,) if isinstance(after, Task | str | int) else after
    if not isinstance(values, Iterable):
        raise OptionError(f"after={after!r:.80}", hint="tasks, or their ids, such as t-8k2f")
    task_numbers: dict[int, None] = {}
    for parent in values:
        if isinstance(parent, bool) or not isinstance(parent, Task | str | int):
            raise OptionError(f"after={parent!r:.80}", hint="tasks, or their ids, such as t-8k2f")
        task_numbers[number_of(parent)] = None
    if len(task_numbers) > MAX_PARENTS:
        raise OptionError(
            f"after names {len(task_numbers)} tasks",
            hint=f"at most {MAX_PARENTS}: let one task come after a part of them",
        )
    return tuple(task_numbers)
