"""The index of ended tasks, compared with a model of each task over random histories."""

import random
from pathlib import Path

import pytest

from simenv.model import Origin
from simenv.model.task import Timing
from simenv.service.journal.schema import REPLACED
from simenv.service.journal.writer import Journal
from simenv.service.recovery import repair, replay
from simenv.service.results import completions
from simenv.service.results.completions import Completions
from simenv.wire.messages.client import Completion

ORIGIN = Origin("main-0", "here", 1, "test")
TASKS = 40


class RandomHistory:
    """A journal in which tasks end, run again, are indexed and are removed."""

    def __init__(self, path: Path, seed: int) -> None:
        self.draw = random.Random(seed)
        self.ends: dict[int, int] = {}  # the `first_seq` of each ended task
        self.path = path
        self.open()

    def open(self) -> None:
        self.journal = Journal(self.path, "process")
        self.completions = Completions(self.journal, ORIGIN)

    def end_some(self) -> None:
        waiting = [task for task in range(1, TASKS) if task not in self.ends]
        begin = self.draw.randrange(TASKS)
        tasks = [task for task in waiting[begin : begin + 8] if self.draw.random() < 0.8]
        if tasks:
            self.ends |= dict.fromkeys(tasks, self.completions.next_seq)
            results = [Completion(task, 0, 1, 1, b"", 0, Timing(1, 1, 1)) for task in tasks]
            self.completions._store({(b"", ""): results}, ORIGIN, "statevector", "", 1.0)

    def rerun_one(self) -> None:
        if self.ends:
            self.journal.commit()
            task = self.draw.choice(sorted(self.ends))
            found = self.completions.find(task)
            seq, run = found[0].first_seq, self.journal.records.finished.run_with(task)
            with self.journal.transaction("FULL") as db:
                db.execute(*REPLACED.put(seq, task, "DONE"))
                repair._remove_from_index(db, run, task)
            self.completions.withdraw(task, seq)
            del self.ends[task]

    def index_some(self) -> None:
        self.journal.commit()
        self.completions.index_slice()

    def start_again(self) -> None:
        self.journal.commit()
        self.journal.database.abandon()
        self.open()
        final = replay.final_tasks(self.journal, TASKS)
        assert [task for task in range(TASKS) if final[task]] == sorted(self.ends)

    def check(self) -> None:
        found = {task: self.completions.first_seq_of(task) for task in range(TASKS + 1)}
        assert {task: seq for task, seq in found.items() if seq is not None} == self.ends
        runs = self.journal.records.finished.indexed_runs()
        indexed = [task for first, count in runs for task in range(first, first + count)]
        assert len(indexed) == len(set(indexed)), "runs overlap"
        assert self.completions.unindexed or sorted(indexed) == sorted(self.ends)


@pytest.mark.parametrize("seed", range(4))
def test_index_names_record_of_task(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completions, "INDEX_SLICE", 2)
    history = RandomHistory(tmp_path / "j.db", seed)
    steps = (history.end_some, history.rerun_one, history.index_some, history.start_again)
    for _ in range(60):
        history.draw.choice(steps)()
        history.check()
