"""What the estimator learns of run times, and how far it says that its times were off."""

import math

import pytest
from checked_scheduler import CheckedScheduler, route

from simenv.model import TaskSpec
from simenv.scheduler.core import Estimator, LearnedEstimate

SPEC = TaskSpec(b"", 0, 1)


def taught(*times_us: int, expected_us: float = 1_000.0) -> Estimator:
    estimator = Estimator()
    for time_us in times_us:
        estimator.observe(route(expected_us), SPEC, 1, time_us)
    return estimator


def test_deviation_falls_from_mean_ratio_as_factor_is_learned() -> None:
    assert Estimator().quality(route()) == LearnedEstimate(1.0, 0.0, 0)
    assert taught(2_000).quality(route(num_qubits=5)).count == 0
    assert taught(2_000).quality(route(engine="mps")).count == 0
    result = taught(2_000).quality(route())
    assert result.count == 1
    assert math.exp(result.deviation) == pytest.approx(2.0)
    assert math.exp(taught(500).quality(route()).deviation) == pytest.approx(2.0)
    result = taught(1_000_000).quality(route())
    assert math.exp(result.deviation) == pytest.approx(1_000.0)
    assert result.factor < 2.0  # it counts as five times what was expected
    first = taught(3_000).quality(route())
    later = taught(*[3_000] * 40).quality(route())
    assert later.factor == pytest.approx(3.0, rel=0.01)
    assert later.deviation < 0.05 < first.deviation
    assert later.count == 40


def test_kinds_of_runs_are_restored_and_apart() -> None:
    before = taught(*[2_000] * 10)
    changes = before.take_changes()
    assert not before.changed
    assert list(changes) == [("statevector", 4)]
    after = Estimator()
    after.restore(changes)
    assert after.quality(route()) == before.quality(route())
    assert after.cost_us(route(1_000.0), SPEC) == before.cost_us(route(1_000.0), SPEC) > 1_000
    assert not after.changed
    estimator = taught(2_000)
    estimator.observe(route(ranks=4), SPEC, 1, 50)
    estimator.observe(route(engine="hardware", pool="chip"), SPEC, 1, 50)
    assert set(estimator.take_changes()) == {
        ("statevector", 4),
        ("statevector/4", 4),
        ("hardware/chip", 0),
    }


def test_nothing_is_learned_from_the_first_run_of_a_kind_in_a_process(
    machine: CheckedScheduler,
) -> None:
    for engine in ("statevector", "mps"):
        for count in (0, 1, 2):  # the first one imports the engine and loads its kernels
            machine.submit(1, along=route(engine=engine))
            ((record,),) = (each.records for each in machine.assign())
            machine.finish([record])
            assert machine.state.estimator.quality(record.route).count == count


def test_nothing_is_learned_from_a_run_that_compiled_kernels(machine: CheckedScheduler) -> None:
    machine.submit(2)
    records = [record for each in machine.assign() for record in each.records]
    for record, compile_us, count in zip(records, (9_000_000, 0), (0, 1), strict=True):
        machine.finish([record], compile_us=compile_us)
        assert machine.state.estimator.quality(record.route).count == count
