"""What the client was told: accepted ids, and how each ended. Compared at the end of a drill."""

from simenv.client.client import Client
from simenv.client.tasks.task import Task
from simenv.model import FINAL_STATES, TaskState
from simenv.model.accounts import Used

AMOUNTS = Used.__struct_fields__


class Ledger:
    """Every accepted task ends once, with undisturbed counts, and is counted once in usage."""

    def __init__(self, oracle: dict[int, dict[str, int]]) -> None:
        self._oracle = oracle  # by seed
        self._accepted: dict[str, int] = {}

    def accepted(self, tasks: list[Task], seeds: list[int]) -> None:
        for task, seed in zip(tasks, seeds, strict=True):
            assert task.id not in self._accepted, f"{task.id} was given out twice"
            self._accepted[task.id] = seed

    def check(self, client: Client) -> dict[str, int]:
        """Compare with the completion queue; returns attempts by task id."""
        ended: dict[str, int] = {}
        for done in client.completions(since=0):
            assert done.task.id not in ended, f"{done.task.id} ended twice"
            result = done.task.result(timeout_s=0)
            ended[done.task.id] = result.attempts
            if done.task.id in self._accepted:
                expected = self._oracle[self._accepted[done.task.id]]
                assert result.counts == expected, f"{done.task.id} has other counts"
        assert ended.keys() >= self._accepted.keys(), "accepted tasks are missing"
        assert counted(client) == stored(client), "usage is not that of the history"
        return ended


def counted(client: Client) -> tuple[int, ...]:
    """Tasks, shots, and microseconds of slots, GPUs, GiB, devices and waiting, of usage."""
    (row,) = client.usage(()).rows
    return row.tasks, row.shots, *(getattr(row.used, name) for name in AMOUNTS), row.wait_us


def stored(client: Client) -> tuple[int, ...]:
    """The same by the rows of the history."""
    rows = [row for row in client.history.tasks() if row.state in FINAL_STATES]
    return (
        len(rows),
        sum(row.shots * row.bindings for row in rows if row.state is TaskState.DONE),
        *(sum(getattr(row.used, name) for row in rows) for name in AMOUNTS),
        sum(row.timing.queued_us for row in rows),
    )
