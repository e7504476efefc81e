"""The timeline of made-up histories, worked out by hand."""

from __future__ import annotations

import itertools
import random

import pytest
from histories import T0, History

from simenv.cli.profiling.profile import STAGES, common, merged, profile_of


def walls(history: History, **changes: object) -> dict[str, float]:
    """Microseconds of each stage's part of the whole."""
    result = profile_of(history.rows, **changes)  # type: ignore[arg-type]
    return {stage.name: round(1e6 * stage.wall_s, 1) for stage in result.stages}


def test_each_stage_has_its_own_time() -> None:
    history = History()
    history.add(0, queued=10, sent=20, decode=30, plan=40, engine=50, encode=60, returned=70)
    assert walls(history) == pytest.approx(
        {
            "engine": 50, "plan": 40, "decode": 30, "encode": 60, "way": 90, "queue": 10,
            "application": 0,
        },
        abs=1,
    )  # fmt: skip


def test_engine_time_takes_precedence_over_queue_time_of_other_tasks() -> None:
    history = History()
    history.add(0, engine=1000)
    history.add(0, queued=1000, engine=500)  # waits while the first is computed
    assert walls(history)["queue"] == pytest.approx(0, abs=1)
    assert walls(history)["engine"] == pytest.approx(1500, abs=1)
    result = profile_of(history.rows)
    queue = next(stage for stage in result.stages if stage.name == "queue")
    assert queue.task_s == pytest.approx(1e-3)


def test_time_between_tasks_is_application_time() -> None:
    history = History()
    end = history.add(0, engine=100)
    history.add(end + 900, engine=100)
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


def test_steps_messages_and_bindings_are_counted() -> None:
    history = History()
    for step in range(3):
        first = len(history.rows) + 1
        for _ in range(10):
            history.add(1000 * step, engine=50, message=first, bindings=48)
    result = profile_of(history.rows)
    assert (result.tasks, result.circuits, result.messages, result.steps) == (30, 1440, 3, 3)
    assert (result.step_tasks, result.step_circuits) == (10, 480)
    assert (result.alone, result.alike) == (0, 0)


def test_unfinished_task_is_counted_apart_and_adds_no_time() -> None:
    history = History()
    history.add(0, engine=100)
    history.add(0, engine=0, ended=False)
    result = profile_of(history.rows)
    assert (result.tasks, result.unfinished) == (1, 1)
    assert result.wall_s == pytest.approx(1e-4, abs=1e-6)


def test_profile_of_empty_history_is_zero() -> None:
    result = profile_of([])
    assert (result.tasks, result.wall_s, result.steps, result.busy) == (0, 0.0, 0, 0.0)


def test_workers_and_their_busy_share_are_counted() -> None:
    history = History()
    history.add(0, engine=100, worker="a")
    history.add(0, engine=100, worker="b")
    result = profile_of(history.rows)
    assert (result.workers, result.busy) == (2, pytest.approx(2, rel=0.01))


def test_time_of_overlapping_worker_starts_is_counted_once() -> None:
    history = History()
    history.add(0, queued=800_000, engine=100)
    result = profile_of(history.rows, [(T0 - 5, T0 + 0.5), (T0 + 0.4, T0 + 0.6), (T0 + 3, T0 + 4)])
    assert result.starting_s == pytest.approx(0.6, abs=1e-3)


def test_merged_and_common_intervals_agree_with_set_operations() -> None:
    rng = random.Random(3)
    for _ in range(200):
        left, right = (
            [(b, b + rng.randrange(4)) for b in (rng.randrange(30) for _ in range(8))]
            for _ in range(2)
        )
        times = [{t for b, e in side for t in range(b, e)} for side in (left, right)]
        for side, expected in zip((left, right), times, strict=True):
            joined = merged(side)
            assert {t for b, e in joined for t in range(int(b), int(e))} == expected
            assert all(a[1] < b[0] for a, b in itertools.pairwise(joined))
        both = common(merged(left), merged(right))
        assert {t for b, e in both for t in range(int(b), int(e))} == times[0] & times[1]
