"""Expected rest of the runs of tasks: by the rate of their progress, else by what the estimator
expects."""

from __future__ import annotations

import math

from simenv.model import ProgressInfo
from simenv.scheduler import core
from simenv.scheduler.core import Phase, TaskRecord
from simenv.scheduler.queueing.lanes import SMALL_US
from simenv.scheduler.state import nodes, pools, scheduler_state

UNKNOWN = -1.0
OUTRUN = 10.0  # times its forecast after which a run is forecast anew
REPORTED = 20.0  # times its forecast after which an event reports it
FORECAST_WEIGHT = 0.01  # part of the work from which on the rate of a run outweighs its forecast
_FAR = 5.0  # standard deviations of the logarithm beyond which a time is none of the distribution
_LEAST_SIGMA = 0.01


def run_forecast(
    state: scheduler_state.SchedulerState, record: TaskRecord, now_ns: int
) -> tuple[float, float]:
    """Return the expected rest of a task's run in microseconds, UNKNOWN if it does not run alone on
    a worker; and its time so far relative to the forecast at its start, 0.0 while that holds."""
    worker = state.cluster.workers.get(record.worker)
    if record.phase != Phase.RUNNING or worker is None or list(worker.held) != [record.number]:
        return UNKNOWN, 0.0
    cost_us = state.estimator.cost_us(record.route, record.spec)
    expected_us = forecast_us(state, worker, record, cost_us)
    times = worked_us(worker, now_ns) / max(1.0, expected_us)
    left_us = running_us(state, worker, record, cost_us, now_ns)
    return left_us, times if times >= OUTRUN else 0.0


def starts_tasks(state: scheduler_state.SchedulerState, pool: pools.Pool) -> bool:
    """Return whether the pool starts tasks: not draining, quarantined, scaled to zero, paused or in
    an outage."""
    if state.draining or pool.starts.is_quarantined or not (pool.spec.max or pool.workers):
        return False
    return not (
        state.devices.controls.starts_nothing(pool.device) or pool.device in state.devices.outages
    )


def work_us(
    state: scheduler_state.SchedulerState,
    pool: pools.Pool,
    record: core.TaskRecord,
    cost_us: float,
) -> float:
    """Return the time that a worker needs for a task on one slot; `cost_us`: as expected now."""
    if pool.spec.pace:
        return state.estimator.simulation_us(record.route, record.spec)
    return cost_us / (pool.small if cost_us <= SMALL_US else pool.large).speed


def worked_us(worker: nodes.Worker, now_ns: int) -> float:
    """Return the time in microseconds for which a worker has worked on the tasks that it holds,
    after the kernels that it compiled once for them."""
    if not worker.held.since_ns:
        return 0.0
    return (now_ns - max(worker.held.since_ns, worker.report.compiling_ns)) / 1e3


def forecast_us(
    state: scheduler_state.SchedulerState,
    worker: nodes.Worker,
    record: core.TaskRecord,
    cost_us: float,
) -> float:
    """Return the time that a worker needs for a task on the slots that it has."""
    return work_us(state, state.cluster.pools[worker.pool], record, cost_us) / nodes.speedup_slots(
        worker
    )


def running_us(
    state: scheduler_state.SchedulerState,
    worker: nodes.Worker,
    record: core.TaskRecord,
    cost_us: float,
    now_ns: int,
) -> float:
    """Return the expected time until a worker has completed its first task, which takes `cost_us`
    on one slot: by the rate of its progress if its engine reports that, else by its forecast."""
    elapsed_us = worked_us(worker, now_ns)
    expected_us = forecast_us(state, worker, record, cost_us)
    progress = worker.report.progress_of(record.number)
    if progress is not None and progress.fraction > progress.before:
        age_us = min(elapsed_us, (now_ns - worker.report.progress_ns) / 1e3)
        return max(0.0, rest_us(progress, expected_us, elapsed_us - age_us) - age_us)
    left_us = expected_us * (1.0 - progress.before) if progress is not None else expected_us
    return remaining_us(left_us, elapsed_us, state.estimator.quality(record.route).deviation)


def rest_us(progress: ProgressInfo, expected_us: float, elapsed_us: float) -> float:
    """Return the rest of a run by its rate: the work that it has done, without what earlier
    attempts had done, in the time that it has run. The forecast of the whole run weighs as much as
    FORECAST_WEIGHT of the work: a run begins with what is done once, such as loading kernels."""
    done = progress.fraction - progress.before + FORECAST_WEIGHT
    time_us = elapsed_us + FORECAST_WEIGHT * expected_us
    return (1.0 - progress.fraction) * time_us / done


def remaining_us(expected_us: float, elapsed_us: float, deviation: float) -> float:
    """Return the mean of the rest of a log-normal time whose mean is `expected_us` and that has
    lasted `elapsed_us`. `deviation`: mean of |ln(time / expected time)|. Far beyond the tail, and
    from OUTRUN times the mean on, the forecast says nothing: the rest is then expected to take as
    long as the run has taken, its median under a scale-free prior (Gott, Nature 363, 315, 1993)."""
    if elapsed_us <= 0 or expected_us <= 0:
        return expected_us
    sigma = max(deviation * math.sqrt(math.pi / 2), _LEAST_SIGMA)
    z = math.log(elapsed_us / expected_us) / sigma + sigma / 2
    if z > _FAR or elapsed_us >= OUTRUN * expected_us:
        return elapsed_us
    if sigma == _LEAST_SIGMA:
        return max(0.0, expected_us - elapsed_us)
    tail, weighted = math.erfc(z / math.sqrt(2)), math.erfc((z - sigma) / math.sqrt(2))
    return max(0.0, expected_us * weighted / tail - elapsed_us)
