"""Ends of tasks: none lost and none twice, and each with its real cause."""

from __future__ import annotations

from pathlib import Path

import pytest
from service import Bench, spec

from simenv.errors import JournalError
from simenv.model import Origin, TaskState, Timing
from simenv.service.completions import Completions
from simenv.wire import codec
from simenv.wire import messages as m


def test_an_index_that_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    origin = Origin("main-0", "here", 1, "test")
    for task in (1, 2):
        results = [m.Completion(task, 2, 1, 1, b"r", Timing(1, 1, 1))]
        body = codec.encode(m.Completed(origin, "statevector", "test", results, task))
        bench.journal.finish(task, [TaskState.DONE], body)
    bench.journal.commit()
    found = Completions(bench.journal, origin)
    bench.journal._db.execute("pragma query_only=on")
    with pytest.raises(JournalError):
        found.index_some()
    bench.journal._db.execute("pragma query_only=off")
    assert found.unindexed
    assert found.find(1) is not None
    found.index_some()
    assert not found.unindexed
    assert sorted(bench.journal.records.indexed_tasks()) == [1, 2]


def test_an_engine_s_error_while_cancelling_keeps_its_words(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.join()
    bench.submit(spec())
    tasks = bench.assigned()
    bench.say(m.Cancel(1, [1]))
    payload = codec.encode(m.Failure("engine", "the matrix is not unitary"))
    answers = bench.finish(tasks, TaskState.FAILED, payload)
    (done,) = [c for a in answers if isinstance(a, m.Completed) for c in a.results]
    assert codec.failure(done.payload).message == "the matrix is not unitary"
