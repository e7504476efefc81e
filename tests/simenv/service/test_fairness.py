"""The loop under pressure: floods, a full disk, a drain's deadline, several restarts."""

from pathlib import Path

import pytest
from service import ServiceHarness, completions, spec

from simenv.model import TaskOptions
from simenv.service import fault_injection
from simenv.service.admission import submissions
from simenv.wire import codec
from simenv.wire.messages import client as m


@pytest.mark.parametrize(("tasks", "place"), [(1, 1), (200, 0)])
def test_many_submissions_of_one_client_do_not_delay_another(
    bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch, tasks: int, place: int
) -> None:
    monkeypatch.setattr(submissions, "TURN_NS", 0)
    queue = bench.loop.submit_queue
    flood = [m.Submit(n, f"~a{n}", 0, TaskOptions(), [spec()] * tasks) for n in range(20)]
    single = m.Submit(99, "~b", 0, TaskOptions(), [spec()])
    for peer, message in [*((b"flood", each) for each in flood), (b"single", single)]:
        assert queue.enqueue(peer, "", message, codec.encode(message), 0) is None
    through = [inquiry.message.request for inquiry, _ in queue.process(2**62)]
    assert through.index(99) == place
    assert [n for n in through if n != 99] == list(range(20))


def test_no_tasks_are_sent_while_journal_cannot_be_written(ready: ServiceHarness) -> None:
    ready.submit(*[spec(seed=k) for k in range(800)])
    tasks = ready.assigned()
    assert len(tasks) < 800
    fault_injection.install(",".join(f"journal.commit.before:{n}:error" for n in range(1, 20)))
    ready.finish(tasks)
    sent_ahead = ready.assigned()  # in the pass that met the trouble
    assert ready.loop.lifecycle.store_error
    ready.finish(sent_ahead)
    assert ready.loop.lifecycle.store_error
    assert ready.assigned() == []
    fault_injection.install("")
    ready.step()
    assert not ready.loop.lifecycle.store_error
    assert ready.assigned()


@pytest.mark.parametrize(("timeout_s", "stopped"), [(0.0, True), (3600.0, False)])
def test_drain_ends_at_its_deadline(tmp_path: Path, timeout_s: float, stopped: bool) -> None:
    bench = ServiceHarness(tmp_path, drain_timeout_s=timeout_s)
    bench.join()
    bench.submit(spec())
    assert bench.assigned()
    bench.say(m.Shutdown(1))
    bench.step()
    assert bench.state.is_busy
    assert bench.loop.lifecycle.stopped is stopped
    bench.loop.drain(now=True)
    bench.step()
    assert bench.loop.lifecycle.stopped


def test_attempts_are_counted_over_several_restarts(ready: ServiceHarness) -> None:
    ready.submit(spec(), spec(seed=2))
    first, other = ready.assigned()
    ready.finish([other])
    for _ in range(3):
        ready.restart()
        ready.join()
        (first,) = ready.assigned()
    assert ready.state.tasks[first.task].attempts == 4
    ready.say(m.WatchResults(1, [first.task]))
    (done,) = completions(ready.finish([first]))
    assert done.attempts == 4
