"""Faults of the service itself: no exception leaves the event loop, whoever waits is answered."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from examples_of_types import example
from service import ServiceHarness, completions, spec

from simenv.model import TaskState
from simenv.service.control import reservations
from simenv.service.handlers import administration, queries as query_handlers
from simenv.service.handlers.tasks import Cancelling
from simenv.wire.messages import client as m, metrics

FAULTS = (ValueError, OverflowError, RecursionError, MemoryError)
# Messages that are answered by something else than their handler, and why.
NOT_ASKED = {
    Cancelling: "made by the service from Cancel",
    m.Hello: "answered before the connection is known",
}
VALID: dict[type, Any] = {m.Ack: m.Ack(1, "cursor", 0)}  # where the example is refused before
TABLES: dict[str, dict[type, Any]] = {
    "query": query_handlers.QUERIES,
    "change": administration.CHANGES,
    "reservation": reservations.CHANGES,
}


class Failing:
    """A function that raises once, and then does what it did."""

    def __init__(self, error: type[Exception], then: Callable[..., Any]) -> None:
        self.error, self.then, self.raised = error, then, 0

    @classmethod
    def install(
        cls, patch: pytest.MonkeyPatch, error: type[Exception], owner: Any, name: str
    ) -> Failing:
        failing = cls(error, getattr(owner, name))
        patch.setattr(owner, name, failing)
        return failing

    def __call__(self, *args: Any, **options: Any) -> Any:
        if not self.raised:
            self.raised += 1
            raise self.error("injected")
        return self.then(*args, **options)


def refusal_of(ready: ServiceHarness, message: Any) -> m.Refusal:
    answers = [each for each in ready.say(message) if isinstance(each, m.Refused)]
    assert answers, f"no answer to {type(message).__name__}"
    return answers[-1].refusals[0]


def works(ready: ServiceHarness) -> None:
    """A task still runs to its end."""
    ready.submit(spec(seed=9))
    (done,) = completions(ready.finish(ready.assigned()))
    assert m.STATES[done.state] is TaskState.DONE


@pytest.mark.parametrize("error", FAULTS)
def test_handler_that_raises_is_refused_and_counted(
    ready: ServiceHarness, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    before = ready.loop.monitoring.internal_errors.count
    asked = [(name, each) for name, table in TABLES.items() for each in table]
    asked = [(name, kind) for name, kind in asked if kind not in NOT_ASKED]
    for name, kind in asked:
        failing = Failing(error, TABLES[name][kind])
        monkeypatch.setitem(TABLES[name], kind, failing)
        refused = refusal_of(ready, VALID.get(kind) or example(kind))
        assert failing.raised, (kind, refused)
        assert (refused.code, error.__name__ in refused.message) == ("internal", True), kind
    assert ready.loop.monitoring.internal_errors.count - before == len(asked)
    monkeypatch.undo()
    found = ready.get(metrics.Metrics, metrics.GetMetrics(1))
    assert found.service.internal_errors == ready.loop.monitoring.internal_errors.count
    works(ready)


PARTS = (  # of a pass of the loop: object, method
    ("loop.scheduler", "tick"), ("loop.scheduler", "wall_clock_tick"),
    ("loop.scheduler", "dispatch"), ("loop._events", "report"),
    ("loop.accounting.accounts", "tick"), ("loop.commands.calendar", "tick"),
    ("loop.devices", "drifted"), ("loop.commands.keys", "close_expired"), ("loop.tokens", "tick"),
    ("loop.lifecycle.lease", "holds"), ("loop.result_requests.reserve", "restore"),
    ("loop.commands.reservations", "store"), ("loop._upkeep", "_watch_memory"),
    ("loop.completions", "index_slice"), ("loop.starts", "watch"),
    ("loop._accept_answers", "send_stored"),
)  # fmt: skip


@pytest.mark.parametrize("error", FAULTS)
@pytest.mark.parametrize(("owner", "method"), PARTS, ids=lambda part: part.replace("loop.", ""))
def test_part_of_a_pass_that_raises_ends_nothing(
    ready: ServiceHarness,
    monkeypatch: pytest.MonkeyPatch,
    owner: str,
    method: str,
    error: type[Exception],
) -> None:
    target: Any = ready
    for name in owner.split("."):
        target = getattr(target, name)
    failing = Failing.install(monkeypatch, error, target, method)
    ready.loop._next_tick_ns = 0
    reservations = ready.loop.state.reservations
    reservations.changes = msgspec.structs.replace(reservations.changes)
    for _ in range(20):
        ready.loop._next_tick_ns = 0
        ready.loop.run_once(0.0)
        if failing.raised:
            break
    ready.loop._assign_from_ns = 0  # the pause after an assignment that failed is over
    works(ready)


@pytest.mark.parametrize("error", FAULTS)
@pytest.mark.parametrize("method", ["admit_some", "_accept", "accept"])
def test_submission_at_which_the_service_fails_is_refused_and_taken_back(
    ready: ServiceHarness, monkeypatch: pytest.MonkeyPatch, error: type[Exception], method: str
) -> None:
    queue = ready.loop.submit_queue
    owner = {"admit_some": queue.admission, "_accept": queue, "accept": ready.loop.journal}[method]
    Failing.install(monkeypatch, error, owner, method)
    assert ready.refused(spec(seed=1), key="again").code == "internal"
    assert not ready.state.tasks
    accepted = ready.submit(spec(seed=1), key="again")
    assert (accepted.count, accepted.repeated) == (1, False)
    assert len(ready.state.tasks) == 1


@pytest.mark.parametrize("error", FAULTS)
def test_commit_that_fails_refuses_what_it_would_have_accepted(
    ready: ServiceHarness, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    Failing.install(monkeypatch, error, ready.loop.journal._rows, "statements")
    assert ready.refused(spec(seed=1), key="again").code == "journal"
    assert not ready.state.tasks
    works(ready)


@pytest.mark.parametrize("error", FAULTS)
def test_worker_whose_message_fails_does_its_tasks_again(
    ready: ServiceHarness, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    ready.submit(spec(seed=1))
    tasks = ready.assigned()
    Failing.install(monkeypatch, error, ready.loop.scheduler, "tasks_finished")
    ready.finish(tasks)
    assert len(ready.state.tasks) == 1
    assert completions(ready.finish(tasks)), "the worker sends them again, or runs them again"


def test_log_has_one_traceback_for_each_place(
    ready: ServiceHarness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Any:
        raise ValueError("injected")

    monkeypatch.setitem(query_handlers.QUERIES, m.GetStatus, fail)
    with caplog.at_level(logging.ERROR, "simenv.service"):
        references = {refusal_of(ready, m.GetStatus(1)).hint for _ in range(5)}
    assert len(references) == 5
    traced = [record for record in caplog.records if record.exc_info]
    assert len(traced) == 1
    assert "internal_error E1" in traced[0].message
