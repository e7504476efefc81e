"""Table of the unfinished tasks, with its indexes and what is counted of them.

The journal stores the submission and the end of each task. Invariants: each task of the table is in
one place (in a queue, held by a worker, parked, dependent, or its result held for a paced device),
and is in the index of its owner and in that of its association exactly as long.
"""

from __future__ import annotations

from simenv.model import ResourceUse, TaskState
from simenv.scheduler import core
from simenv.scheduler.state.crashes import CrashIncidents
from simenv.scheduler.state.deadlines import Deadlines
from simenv.scheduler.state.dependencies import Dependencies
from simenv.scheduler.state.task_use import TasksByOwner, UseByAssociation


class TaskTable(dict[int, core.TaskRecord]):
    """All unfinished tasks, by number. `next_number`: of the next task to be accepted."""

    def __init__(self, next_number: int) -> None:
        super().__init__()
        self.next_number = next_number
        self.by_owner = TasksByOwner()
        self.by_association = UseByAssociation()
        self.dependencies = Dependencies()
        self.deadlines = Deadlines()
        self.incidents = CrashIncidents()
        self.queued_bytes = 0
        self.running = 0
        self.ended = dict.fromkeys(TaskState, 0)
        self.lost_attempts = 0

    def count_in(self, records: list[core.TaskRecord]) -> None:
        """Count tasks of one batch, and add them to the indexes by owner and association."""
        self.queued_bytes += sum(record.size_bytes for record in records)
        self.by_owner.count_in(records)
        self.by_association.count_in(records)

    def drop_from_indexes(self, records: list[core.TaskRecord]) -> None:
        """Remove tasks of one batch from the indexes by owner, association and crash incident."""
        batch = records[0].batch
        size_bytes = batch.share_bytes * len(records) or sum(r.size_bytes for r in records)
        self.queued_bytes -= size_bytes
        if batch.owner:
            self.by_owner.drop(batch.owner, records, size_bytes)
        if batch.account or batch.qos:
            self.by_association.drop(batch, len(records), size_bytes)
        if self.incidents.has_suspects:
            for record in records:
                if record.incident:
                    self.incidents.clear_suspect(record)

    def use_of(self, owner: str) -> ResourceUse:
        """Return the number of unfinished tasks of an owner and their bytes."""
        by_owner = self.by_owner
        if owner:
            return ResourceUse(len(by_owner.of(owner)), by_owner.bytes_of(owner))
        own = len(self) - by_owner.count  # tasks of the environment's own user
        return ResourceUse(own, self.queued_bytes - by_owner.all_bytes)
