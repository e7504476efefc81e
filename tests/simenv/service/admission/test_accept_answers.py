"""The answer to a client that waits for its result comes with that result, and its task is stored
before."""

from __future__ import annotations

from pathlib import Path

import pytest
from service import ServiceHarness, spec

from simenv.model import TaskOptions
from simenv.service.admission import accept_answers
from simenv.wire.messages import client as m


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServiceHarness:
    monkeypatch.setattr(accept_answers, "_HOLD_NS", 10**12)
    made = ServiceHarness(tmp_path)
    made.join()
    return made


def waiting(key: str = "~w", **terms: object) -> m.Submit:
    options = TaskOptions(**terms)  # type: ignore[arg-type]
    return m.Submit(5, key, 0, options, [spec()], awaits_result=True)


def test_acceptance_is_held_and_precedes_the_result(bench: ServiceHarness) -> None:
    assert bench.say(waiting()) == []
    assert bench.loop._poll_timeout_s() <= accept_answers.HOLD_S  # it is sent in time
    accepted, completed = bench.finish(bench.assigned())
    assert isinstance(accepted, m.Accepted)
    assert isinstance(completed, m.Completed)
    assert completed.results[0].task == accepted.first
    assert not bench.loop._accept_answers.is_holding


def test_task_with_a_held_acceptance_is_stored(bench: ServiceHarness) -> None:
    assert bench.say(waiting()) == []
    bench.restart()
    assert bench.replayed.queued == 1


def test_held_acceptance_is_sent_when_its_time_is_over(
    bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.say(waiting()) == []
    monkeypatch.setattr(accept_answers, "_HOLD_NS", 0)
    bench.step()
    (accepted,) = bench.heard()
    assert isinstance(accepted, m.Accepted)


def test_acceptance_is_sent_at_once_where_the_result_is_not_near(bench: ServiceHarness) -> None:
    (plain,) = bench.say(m.Submit(5, "~a", 0, TaskOptions(), [spec()]))
    assert isinstance(plain, m.Accepted)
    tasks = bench.assigned()
    behind = m.Submit(6, "~b", 0, TaskOptions(), [spec(k) for k in range(2)], awaits_result=True)
    (several,) = bench.say(behind)
    assert isinstance(several, m.Accepted)
    bench.finish(tasks)
    (repeated,) = bench.say(m.Submit(7, "~a", 0, TaskOptions(), [spec()], awaits_result=True))
    assert isinstance(repeated, m.Accepted)
    assert repeated.repeated


def test_acceptance_of_a_waiting_task_is_sent_at_once(tmp_path: Path) -> None:
    without_workers = ServiceHarness(tmp_path)
    (accepted,) = without_workers.say(waiting())
    assert isinstance(accepted, m.Accepted)


def test_held_acceptances_are_sent_at_the_end_of_the_service(bench: ServiceHarness) -> None:
    assert bench.say(waiting()) == []
    bench.loop._accept_answers.close()
    (accepted,) = bench.heard()
    assert isinstance(accepted, m.Accepted)
