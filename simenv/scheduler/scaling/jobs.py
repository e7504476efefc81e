"""Jobs of the site for a pool: when to submit one, when to drain and end its node, how many.

A job is submitted when the queue's forecast pays for it: the tasks that the present workers, and
those of submitted jobs, leave waiting until a new job could have joined are worth at least as much
work for each new worker as that time. The time from a submission to the join is learned. A pool
without workers and with a waiting task always gets one. A job is ended when its workers have been
idle for `idle_s` (see `workers.shrink`), and a submitted one when nothing waits any more.

The node of a job is drained `nodes.DRAIN_NS` before the site ends the job, or a tenth of the job's
length if that is shorter. A task whose expected end is later is not started there, see
`nodes.is_late`. A task that runs nevertheless until the end of MAX_CUTS jobs fails.
"""

from __future__ import annotations

import msgspec

from simenv.model import JobSpec, PoolSpec, TaskState, Timing
from simenv.scheduler import core
from simenv.scheduler.core import Action, EndJob, RecordEvent, SubmitJob, rank_gpus
from simenv.scheduler.state import nodes, pools, scheduler_state
from simenv.text import duration

LEAST_WORK_NS = 1_000_000_000  # of a new worker
SUBMITS_PER_TICK = 8
MAX_CUTS = 3  # ends of jobs while a task runs, after which it fails
LEAST_PROGRESS = 0.02  # part of a task's work: an attempt that came so much further continued
LEARNING_RATE = 0.3  # of the time from a submission to the join


class JobDemand(msgspec.Struct, frozen=True):
    """What decides how many jobs a pool submits."""

    waiting: int  # tasks, without those that no job is long enough for
    late: int  # of these, tasks for which the rest of the present jobs is too short
    backlog_ns: float  # expected work of the waiting tasks on one slot
    workers: int  # that are there, or can be started on the nodes of jobs that are there
    busy: int  # of them
    coming: int  # workers of submitted jobs
    per_job: int  # workers of one job
    least: int
    most: int  # workers
    start_ns: float  # expected time from a submission until the node joins


def jobs_to_submit(demand: JobDemand) -> int:
    """Return the number of jobs to submit now."""
    present = demand.workers + demand.coming
    wanted = demand.least
    if demand.waiting:
        worth_ns = max(demand.start_ns, LEAST_WORK_NS)
        left_ns = demand.backlog_ns - demand.workers * demand.start_ns
        useful = int(left_ns // worth_ns)
        # A task occupies one worker, and new workers share what is left with the present ones.
        wanted = max(wanted, min(useful, demand.waiting + demand.busy), 1)
    if demand.late and not demand.coming:
        wanted = max(wanted, present + 1)
    missing = min(wanted, demand.most) - present
    return max(0, -(-missing // demand.per_job))


def workers_of(spec: PoolSpec, slots: int, gpus: int) -> int:
    """Return the number of workers that a node of a pool holds: one for each GPU, or slot."""
    return max(1, gpus if rank_gpus(spec) else slots)


def workers_to_start(state: scheduler_state.SchedulerState, pool: pools.Pool, missing: int) -> int:
    """Return how many of the missing workers can be started on the nodes that are there. While
    tasks wait, each node gets one: the jobs of the others may be too short for them."""
    waiting = len(pool.queue) - pool.queue.late
    if missing <= 0 and (waiting <= 0 or pool.workers.live() >= pool.spec.max):
        return 0
    hosts = [host for host in state.cluster.nodes.of_jobs(pool.spec.name) if host.is_up]
    empty = min(waiting, sum(not host.ranks for host in hosts), pool.spec.max - pool.workers.live())
    room = sum(
        max(0, workers_of(pool.spec, host.node.slots, host.node.gpus) - host.ranks)
        for host in hosts
    )
    return min(max(missing, empty), room)


# --- tasks that a job is too short for ------------------------------------------------------------


def readmit(pool: pools.Pool, hosts: list[nodes.NodeState]) -> None:
    """Try tasks that were set aside again, if a job that ends later than those for which they were
    has an idle worker, or is to get its first one."""
    if not pool.late_until_ns:
        return
    idle = [*(w.host for w in pool.workers.free()), *(h for h in hosts if h.is_up and not h.ranks)]
    if any(not host.end_ns or host.end_ns > pool.late_until_ns for host in idle):
        pool.late_until_ns = 0
        pool.queue.readmit_late()


# --- jobs -----------------------------------------------------------------------------------------


def resize(state: scheduler_state.SchedulerState, pool: pools.Pool, now_ns: int) -> list[Action]:
    """Drain, end, cancel and submit the jobs of one pool."""
    spec = pool.spec.jobs
    if spec is None:
        return []
    hosts = state.cluster.nodes.of_jobs(pool.spec.name)
    readmit(pool, hosts)
    actions: list[Action] = []
    drained_ns = now_ns + nodes.drain_ns(spec)
    waiting = _waiting(pool)
    is_short = pool.workers.live() < pool.spec.min
    off: list[nodes.NodeState] = []
    for host in hosts:  # all of them in each tick, so that those that are in use cost little
        job = host.job
        assert job is not None
        if job.phase is nodes.NodeJobPhase.OFF:
            if not host.drained:
                off.append(host)
            continue
        if job.end_ns and drained_ns >= job.end_ns and job.phase is nodes.NodeJobPhase.UP:
            left_s = max(0, job.end_ns - now_ns) / 1e9
            actions += drain(state, host, f"its job ends in {left_s:.0f} s", now_ns)
        if host.workers:
            job.had_worker = True
        elif job.phase is not nodes.NodeJobPhase.SUBMITTED or not (waiting or is_short):
            actions += _end_unused(pool, host, job, waiting, now_ns, is_short=is_short)
    if not off or pool.starts.is_quarantined or now_ns < pool.starts.next_ns:
        return actions
    demand = _demand(pool, hosts)
    controls = state.devices.controls
    if controls.is_restricting and controls.starts_nothing(pool.device):
        demand = msgspec.structs.replace(demand, waiting=0, late=0)
    for host in off[: min(jobs_to_submit(demand), SUBMITS_PER_TICK)]:
        host.job = nodes.NodeJob(nodes.NodeJobPhase.SUBMITTED, submitted_ns=now_ns)
        actions.append(SubmitJob(host.node.name, pool.spec.name))
    return actions


def _waiting(pool: pools.Pool) -> int:
    """Return the number of waiting tasks for which jobs are submitted."""
    waiting = len(pool.queue)
    if pool.queue.late:
        waiting -= sum(nodes.never_fits(pool.spec, record) for record in pool.queue.late_tasks())
    return waiting


def _demand(
    pool: pools.Pool,
    hosts: list[nodes.NodeState],
) -> JobDemand:
    spec = pool.spec
    jobs = spec.jobs
    assert jobs is not None
    per_job = workers_of(spec, jobs.slots, jobs.gpus)
    usable = [host for host in hosts if host.is_up]
    workers = sum(
        max(host.ranks, workers_of(spec, host.node.slots, host.node.gpus)) for host in usable
    )
    busy = sum(worker.host.is_up for worker in pool.workers.busy.values())
    submitted = [h for h in hosts if h.job and h.job.phase is nodes.NodeJobPhase.SUBMITTED]
    late = pool.queue.late_tasks()
    never = [record for record in late if nodes.never_fits(spec, record)]
    return JobDemand(
        len(pool.queue) - len(never),
        len(late) - len(never),
        (pool.queue.backlog_us - sum(record.cost_us for record in never)) * 1e3,
        workers,
        busy,
        len(submitted) * per_job,
        per_job,
        spec.min,
        spec.max,
        pool.job_start_ns,
    )


def drain(
    state: scheduler_state.SchedulerState, host: nodes.NodeState, reason: str, now_ns: int
) -> list[Action]:
    """Start nothing more on the node of a job; its running tasks may end."""
    assert host.job is not None
    host.job.phase = nodes.NodeJobPhase.ENDING
    host.drained = reason
    actions: list[Action] = [RecordEvent("node.drained", host.node.name, reason)]
    for worker in list(host.workers.values()):
        actions += state.cluster.retire(worker, f"node {host.node.name}: {reason}", now_ns)
    return actions


def cut_off(
    spec: PoolSpec, worker: nodes.Worker, held: list[core.TaskRecord], log: str, now_ns: int
) -> list[core.TaskEnded]:
    """Count the end of the worker's job for the one of its tasks that runs; return it if it ends.
    The worker was lost after its node was to be drained. An attempt that continued from a
    checkpoint, and so came further than all before, does not count."""
    host, jobs = worker.host, spec.jobs
    if jobs is None or not host.end_ns or now_ns < host.end_ns - nodes.drain_ns(jobs):
        return []
    endings = []
    for record in held:
        if record.phase != core.Phase.RUNNING or record.stop.reason:
            continue
        progress = worker.report.progress_of(record.number)
        done = 0.0 if progress is None else progress.fraction
        ran_us = (now_ns - record.started_ns) / 1e3
        earlier = record.earlier or core.EarlierAttempts()
        old = earlier.cut
        if old.count and done > old.done + LEAST_PROGRESS:
            cut = core.JobCut(old.count, 0.0, done)
            record.earlier = msgspec.structs.replace(earlier, cut=cut)
            continue
        cut = core.JobCut(old.count + 1, max(old.ran_us, ran_us), max(old.done, done))
        record.earlier = msgspec.structs.replace(earlier, cut=cut)
        if cut.count >= MAX_CUTS:
            endings.append(_too_long(record, cut, spec.name, jobs, worker.process.node, log))
    return endings


def _too_long(
    record: core.TaskRecord, cut: core.JobCut, pool: str, jobs: JobSpec, host: str, log: str
) -> core.TaskEnded:
    expected, ran = duration(record.cost_us / 1e6), duration(cut.ran_us / 1e6)
    return core.TaskEnded(
        record,
        TaskState.FAILED,
        1,
        Timing((record.sent_ns - record.batch.accepted_ns) // 1000, 0, 0),
        reason="job_time",
        message=f"{cut.count} jobs of pool {pool} have ended while it ran, for up to {ran}: it was "
        f"expected to take {expected}, and a job has {duration(jobs.time_s)}",
        hint=f"a longer time in the table {jobs.system} of the pool, or a pool without jobs",
        host=host,
        log=log,
    )


def _end_unused(
    pool: pools.Pool,
    host: nodes.NodeState,
    job: nodes.NodeJob,
    waiting: int,
    now_ns: int,
    *,
    is_short: bool,
) -> list[Action]:
    """End the job of a node without workers that gets none any more; cancel a submitted job:
    nothing waits for it. `is_short`: the pool has fewer workers than its minimum."""
    name, spec = host.node.name, pool.spec
    if job.phase is nodes.NodeJobPhase.SUBMITTED:
        host.job = nodes.NodeJob()
        return [EndJob(name, "nothing waits for it any more")]
    if not host.drained:
        others = waiting - pool.queue.late
        is_needed = others > 0 or is_short
        was_idle = job.had_worker or now_ns - job.joined_ns > spec.idle_s * 1e9
        if is_needed or not was_idle:
            return []
        host.drained = "its job is ended: no work"
    if job.told_to_end:
        return []
    job.phase, job.told_to_end = nodes.NodeJobPhase.ENDING, True
    return [EndJob(name, host.drained)]


def text(state: scheduler_state.SchedulerState, pool: pools.Pool) -> str:
    """Return the state of the pool's jobs, for tasks that wait for them."""
    submitted = [
        host.job
        for host in state.cluster.nodes.of_jobs(pool.spec.name)
        if host.job is not None and host.job.phase is nodes.NodeJobPhase.SUBMITTED
    ]
    if not submitted:
        return f"pool {pool.spec.name} waits until a job pays"
    details = dict.fromkeys(job.detail for job in submitted if job.detail)
    suffix = f": {'; '.join(details)}" if details else ""
    count = len(submitted)
    return f"pool {pool.spec.name} waits for {count} job{'s' * (count > 1)} of the site{suffix}"


def learn_start(pool: pools.Pool, job: nodes.NodeJob, now_ns: int) -> None:
    """Learn the time from the submission of a job until its node has joined."""
    took_ns = max(0, now_ns - job.submitted_ns)
    pool.job_start_ns += round(LEARNING_RATE * (took_ns - pool.job_start_ns))
