"""What a start makes of a journal whose rows do not fit together."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import msgspec
import pytest
from service import ServiceHarness, spec

from simenv.errors import JournalError
from simenv.wire import codec
from simenv.wire.messages import client as m


@pytest.mark.parametrize("task", [0, -1, 3, 2**40])
@pytest.mark.parametrize("place", ["result", "finished"])
def test_start_refuses_journal_with_completion_of_unknown_task(
    tmp_path: Path, place: str, task: int
) -> None:
    bench = ServiceHarness(tmp_path)
    bench.join()
    bench.submit(spec(), spec(2))
    tasks = bench.assigned()
    bench.finish(tasks)
    db = bench.journal._db
    if place == "result":
        bench.step(5)  # with idle moments, in which the index is written
        db.execute("insert into result values(?, 1)", (task,))
    else:
        seq, body = db.execute("select seq, body from finished").fetchone()
        completed = codec.to_client(body)
        assert isinstance(completed, m.Completed)
        odd = msgspec.structs.replace(completed.results[0], task=task)
        encoded = codec.encode(msgspec.structs.replace(completed, results=[odd]))
        db.execute(
            "update finished set body = ?, crc = ? where seq = ?", (encoded, crc32(encoded), seq)
        )
        db.execute("delete from result")
        db.execute("update meta set value = 0 where key = 'indexed'")
    with pytest.raises(JournalError, match=f"the end of task {task}"):
        bench.restart()


def test_restarted_service_knows_what_runs_took_and_how_wrong_its_forecasts_were(
    tmp_path: Path,
) -> None:
    bench = ServiceHarness(tmp_path)
    bench.join()
    bench.submit(spec(), spec(2))
    route = next(iter(bench.loop.state.tasks.values())).route
    bench.finish(bench.assigned())
    bench.step(5)
    learned = bench.loop.state.estimator.quality(route)
    assert learned.count > 0
    bench.restart()
    assert bench.loop.state.estimator.quality(route) == learned
    bench.journal._db.execute("update estimate set factor = 'much'")
    with pytest.raises(JournalError, match="an estimate in the journal cannot be read"):
        bench.restart()
