"""Profiles of a run, and their findings."""

import random
from collections.abc import Sequence

import pytest
from histories import T0, History

from simenv.cli.profile import STAGES, PerfFinding, Span, findings, profile_of
from simenv.cli.profiling import worker_starts
from simenv.model import Event, TaskState
from simenv.wire.messages.history import Spent


def walls(history: History, **changes: object) -> dict[str, float]:
    """Microseconds of each stage's part of the whole."""
    result = profile_of(history.rows, **changes)  # type: ignore[arg-type]
    return {stage.name: round(1e6 * stage.wall_s, 1) for stage in result.stages}


def test_time_goes_to_the_stage_that_took_it() -> None:
    history = History()
    history.add(0, queued=10, sent=20, decode=30, plan=40, engine=50, encode=60, returned=70)
    assert walls(history) == pytest.approx(
        {
            "engine": 50, "plan": 40, "decode": 30, "encode": 60, "way": 90, "queue": 10,
            "application": 0,
        },
        abs=1,
    )  # fmt: skip
    history = History()
    history.add(0, engine=1000)
    history.add(0, queued=1000, engine=500)  # waits while the first is computed
    assert walls(history)["queue"] == pytest.approx(0, abs=1)
    assert walls(history)["engine"] == pytest.approx(1500, abs=1)
    queue = next(stage for stage in profile_of(history.rows).stages if stage.name == "queue")
    assert queue.task_s == pytest.approx(1e-3)
    history = History()
    history.add(history.add(0, engine=100) + 900, engine=100)
    assert walls(history)["application"] == pytest.approx(900, abs=1)
    result = profile_of(history.rows)
    assert (result.steps, result.step_tasks, result.messages) == (2, 1, 2)
    assert result.largest.name == "application"


def test_stage_times_sum_to_wall_time() -> None:
    rng = random.Random(7)
    history = History()
    for _ in range(300):
        stages = [rng.randrange(0, 400) for _ in range(7)]
        history.add(rng.randrange(0, 20_000), *stages)
    result = profile_of(history.rows)
    assert [stage.name for stage in result.stages] == list(STAGES)
    assert all(stage.wall_s >= -1e-9 for stage in result.stages)
    assert sum(stage.wall_s for stage in result.stages) == pytest.approx(result.wall_s)
    assert sum(stage.share for stage in result.stages) == pytest.approx(1)


def test_tasks_are_counted_with_their_steps_when_they_have_ended() -> None:
    history = History()
    for step in range(3):
        first = len(history.rows) + 1
        for _ in range(10):
            history.add(1000 * step, engine=50, message=first, bindings=48)
    result = profile_of(history.rows)
    assert (result.tasks, result.circuits, result.messages, result.steps) == (30, 1440, 3, 3)
    assert (result.step_tasks, result.step_circuits, result.alone, result.alike) == (10, 480, 0, 0)
    history = History()
    history.add(0, engine=100)
    history.add(0, engine=0, ended=False)
    result = profile_of(history.rows)
    assert (result.tasks, result.unfinished, result.wall_s) == (1, 1, pytest.approx(1e-4, abs=1e-6))
    result = profile_of([])
    assert (result.tasks, result.wall_s, result.steps, result.busy) == (0, 0.0, 0, 0.0)


def test_busy_workers_and_their_starts_are_counted_once() -> None:
    history = History()
    history.add(0, engine=100, worker="a")
    history.add(0, engine=100, worker="b")
    result = profile_of(history.rows)
    assert (result.workers, result.busy) == (2, pytest.approx(2, rel=0.01))
    history = History()
    history.add(0, queued=800_000, engine=100)
    result = profile_of(history.rows, [(T0 - 5, T0 + 0.5), (T0 + 0.4, T0 + 0.6), (T0 + 3, T0 + 4)])
    assert result.starting_s == pytest.approx(0.6, abs=1e-3)


def said(history: History, starts: Sequence[Span] = ()) -> dict[str, PerfFinding]:
    result = findings(profile_of(history.rows, starts, "run-1"))
    return {finding.code: finding for finding in result}


def gradient_steps(engine: int, way: int, bindings: int = 1, structure: str = "s") -> History:
    """Three steps of 480 circuits, one worker, one task after the other."""
    history = History()
    for step in range(3):
        base, first = 2_000_000 * step, len(history.rows) + 1
        for k in range(480):
            history.add(
                base, queued=(engine + way) * k, sent=way, engine=engine, message=first,
                structure=f"{structure}{k}" if structure == "different" else structure,
                bindings=bindings,
            )  # fmt: skip
    return history


def test_bindings_are_advised_for_gradient_of_separate_circuits() -> None:
    bindings = said(gradient_steps(engine=29, way=71))["bindings"]
    assert bindings.words.startswith("480 circuits a step, ")
    assert "% overhead" in bindings.words
    assert "submit_many((circuit, angles))" in bindings.way


@pytest.mark.parametrize(
    "history",
    [
        gradient_steps(engine=29, way=71, structure="different"),
        gradient_steps(engine=29, way=71, bindings=480),
    ],
    ids=["different structures", "bindings already"],
)
def test_bindings_are_not_advised_for_other_structures_or_for_bindings(history: History) -> None:
    assert "bindings" not in said(history)


def test_engine_is_largest_stage_when_it_is_busy() -> None:
    history = History()
    for k in range(100):
        history.add(0, queued=1000 * k, engine=1000, message=1)
    result = said(history)
    assert "bindings" not in result
    assert result["largest"].words.startswith("the largest stage is engine: 100 % of")


def test_tasks_submitted_one_by_one_are_found() -> None:
    history = History()
    end = 0
    for _ in range(480):
        end = history.add(end + 200, engine=30, returned=300)
    one_by_one = said(history)["one_by_one"]
    assert one_by_one.words.startswith("the same structure was submitted 480 times one by one")
    assert "each waited for" in one_by_one.words
    other = History()
    for k in range(480):
        history.add(100 * k, engine=30, returned=300, structure=str(k))
        other.add(100 * k, engine=30, returned=300, structure=str(k))
    assert "submit_many(circuits)" in said(other)["one_by_one"].way


def test_advice_fits_what_took_the_time() -> None:
    history = History()
    for k in range(3):
        history.add(1000 * k, engine=30, returned=300)
    assert "one_by_one" not in said(history)
    history = History()
    for k in range(100):
        for worker in ("main-0", "main-1"):
            history.add(0, queued=100 * k, engine=100, message=1, worker=worker)
    slots = said(history)["slots"]
    assert "2.0 of 2 workers were busy" in slots.words
    assert "98 % of their time" in slots.words
    history = History()
    for k in range(50):
        history.add(1000 * k, plan=300, engine=100, structure=str(k))
    result = said(history)
    assert "50 different structures" in result["plans"].words
    assert result["application"].share == pytest.approx(0.6, abs=0.02)
    assert "no task was in the environment" in result["application"].words


def test_waiting_is_told_from_a_full_pool() -> None:
    history = History()
    for k in range(10):
        history.add(10_000 * k, queued=6_000, engine=4_000)
    assert "waited for a slot 60 % of their time" in said(history)["slots"].words
    history = History()
    history.add(0, queued=1_400_000, engine=600_000)
    result = said(history, [(T0, T0 + 1.4)])
    assert "1.4 s (70 %) for workers to start" in result["start"].words
    assert "slots" not in result
    history = History()
    history.add(0, engine=1000, worker="main-0")
    history.add(0, engine=100, worker="main-1")
    assert "1.1 of 2 workers" in said(history)["idle"].words


def test_packing_time_and_late_reading_are_found_when_they_matter() -> None:
    history = History()
    for step in range(10):
        spent = Spent(packed_us=6_000, accepted_us=500, late_us=20 * 4_000, results=20)
        for k in range(20):
            at = 10_000 * step
            history.add(at, engine=100, message=20 * step + 1, spent=None if k else spent)
    result = said(history)
    assert result["packing"].words.startswith("encoding circuits took 60 ms (67 %)")
    assert result["late"].words.startswith("results were read late: 4 ms after")
    assert "circuits (in all 60 ms)" in result["application"].words
    quick = History()
    for step in range(10):
        quick.add(100 * step, engine=90, spent=Spent(packed_us=5, late_us=80, results=1))
    assert not {"packing", "late"} & set(said(quick))


def test_failures_are_found_and_an_empty_history_has_none() -> None:
    history = History()
    history.add(0)
    history.add(0, state=TaskState.FAILED, attempts=3)
    assert said(history)["failures"].words == "1 of 2 tasks failed, 1 needed more than one attempt"
    assert said(History()) == {}


def test_worker_start_is_paired_with_ready_event_of_same_worker() -> None:
    events = [
        Event(1, 10.0, "worker.started", "a", ""),
        Event(2, 11.0, "worker.started", "b", ""),
        Event(3, 12.0, "worker.ready", "b", ""),
        Event(4, 13.0, "worker.ready", "a", ""),
        Event(5, 14.0, "worker.ready", "c", ""),  # started before the first event looked at
        Event(6, 15.0, "worker.started", "d", ""),  # died before it was ready
        Event(7, 17.0, "worker.started", "d", ""),
        Event(8, 18.0, "worker.ready", "d", ""),
    ]
    assert worker_starts(events) == [(11.0, 12.0), (10.0, 13.0), (15.0, 17.0), (17.0, 18.0)]
