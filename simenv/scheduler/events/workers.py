"""Events of workers, of the nodes and pools that they belong to, and of memory.

A worker is identified by its name and its start number: messages of an earlier start of the same
name are ignored. A worker above its grant of memory is ended and its task charged. The memory of
the service itself is bounded by `ClusterLimits.service_bytes`, above which new tasks are refused.
"""

from __future__ import annotations

import itertools
from collections import Counter

import msgspec

from simenv.errors import NotFoundError, OptionError
from simenv.model import WorkerState, task_name
from simenv.model.accounts import WaitReason
from simenv.model.calls import is_call
from simenv.scheduler import core
from simenv.scheduler.dispatch import dedicated_workers
from simenv.scheduler.events import devices
from simenv.scheduler.events.results import charge_attempt
from simenv.scheduler.scaling import jobs
from simenv.scheduler.state import (
    crashes,
    deadlines,
    nodes as state_nodes,
    scheduler_state,
)
from simenv.scheduler.views import run_times
from simenv.text import duration, size

# A provider's library may block all threads of its worker; the end of the process is seen anyway.
HARDWARE_SILENT_NS = 600_000_000_000
IDLE_BEATS = 3  # consecutive idle heartbeats of a worker that holds tasks
GRANT_FACTOR = 1.5  # estimates of engines are that exact
GRANT_MARGIN_BYTES = 256 * 2**20  # of each rank: a library, or a kernel that is compiled
# Of each rank's process besides its tasks, at most: interpreter, libraries, kernels, plans.
PROCESS_BYTES = 512 * 2**20
PROGRAM_FACTOR = 16  # memory of a program in the forms in which it is planned, to its packed bytes
GPU_PROCESS_BYTES = 4 * 2**30  # the same with the context and the libraries of a GPU
# Consecutive heartbeats or measurements above the bound: a short peak may pass.
OVER_BEATS = 2
FAR_ABOVE = 1.25  # times the bound: no short peak
MAX_PROCESSES = 4_096  # of a worker with all that its task has started
MAX_CHECKED = 10_000  # waiting tasks checked when a node is lost; takes 10 ms of the event loop
LAUNCHER_LOSS_NS = 5_000_000_000  # from the death of a part of the launcher until it is noticed
_PROBED = "; it is looked for"


# --- workers --------------------------------------------------------------------------------


def worker_joined(
    state: scheduler_state.SchedulerState, name: str, start: int, node: str, pid: int, now_ns: int
) -> bool:
    """Record that a started worker is ready; return False if this start of it is not expected."""
    worker = state.cluster.workers.get(name)
    if worker is None or worker.start != start or worker.state != WorkerState.STARTING:
        return False
    worker.process.node, worker.process.pid = node, pid
    state.cluster.pools[worker.pool].joined(worker, now_ns)
    if worker.leaving:
        state.begin_retirement(worker, worker.leaving, now_ns)
    return True


def task_started(
    state: scheduler_state.SchedulerState, name: str, task: int, fence: int, now_ns: int
) -> list[core.Action]:
    """Record that a worker runs a task; long tasks are announced at once, others by heartbeat."""
    worker = state.cluster.workers.get(name)
    if worker is not None and _note_start(state, name, task, fence, now_ns):
        worker.heard_ns = now_ns
    return []


def _note_start(
    state: scheduler_state.SchedulerState, name: str, task: int, fence: int, now_ns: int
) -> bool:
    """Record that a worker runs a task; return False if that is not its task."""
    record = state.tasks.get(task)
    if record is None or record.fence != fence or record.worker != name:
        return False
    if record.phase == core.Phase.SENT:
        record.phase = core.Phase.RUNNING
        record.started_ns = now_ns
        state.tasks.running += 1
        batch = record.batch
        limit_s = batch.terms.run_timeout_s
        if batch.owner or batch.run_limit_s:
            limit_s = state.shares.limits.run_limit_s(batch)
        if limit_s:
            next_ns = now_ns + round(limit_s * 1e9)
            state.tasks.deadlines.run_until(next_ns, task, fence)
        if record.stop.reason:
            state.tasks.deadlines.stop_by(now_ns, task, fence, state.cluster.grace_ns(record))
    return True


def _outran(
    state: scheduler_state.SchedulerState,
    worker: state_nodes.Worker,
    record: core.TaskRecord | None,
    now_ns: int,
) -> list[core.Action]:
    """Return the event of a run that takes REPORTED times its forecast, once for an attempt."""
    if record is None or worker.report.outran == record.fence:
        return []
    left_us, times = run_times.run_forecast(state, record, now_ns)
    if times < run_times.REPORTED:
        return []
    worker.report.outran = record.fence
    spent_s = run_times.worked_us(worker, now_ns) * 1e-6
    text = f"{record.route.engine} has run for {duration(spent_s)}, {times:.0f} times its forecast;"
    text += f" about {duration(left_us * 1e-6)} more are expected"
    return [core.RecordEvent("task.outran", task_name(record.number), text)]


def chunk_sent(
    state: scheduler_state.SchedulerState,
    name: str,
    records: list[core.TaskRecord],
    now_ns: int,
) -> list[core.Action]:
    """Record that a chunk which had to wait for its files was sent now. Idle heartbeats from before
    say nothing about it, and its wait is charged to nobody."""
    worker = state.cluster.workers.get(name)
    if worker is None or not worker.held:
        return []
    held = worker.held
    state.dispatch.grants += 1
    held.grant = state.dispatch.grants
    worker.report.idle_beats = 0
    running = held.running
    if any(record is running for record in records):  # it had nothing else to run
        held.begin_charge(now_ns)
    return []


def heartbeat_received(
    state: scheduler_state.SchedulerState,
    beat: core.WorkerHeartbeat,
    now_ns: int,
    age_ns: int = 0,
) -> tuple[bool, list[core.Action]]:
    """Record that a worker is alive; return False for an unknown worker or an earlier start. A
    worker that loads kernels runs no task and has not lost its tasks. One that starts is judged by
    its Join: that comes by another connection. `age_ns`: of a heartbeat that an agent has sent
    later than it came. An idle heartbeat counts only if the worker had read an answer from after
    its newest chunk: others may be older than the chunk, and wait in the sockets while the service
    is stalled."""
    name, task, fence = beat.name, beat.task, beat.fence
    worker = state.cluster.workers.get(name)
    if worker is None or worker.start != beat.start:
        return False, []
    if worker.state != WorkerState.STARTING:
        worker.heard_ns = max(worker.heard_ns, now_ns - age_ns)
    worker.report.base_bytes = beat.base_bytes
    if not worker.report.is_measured:
        worker.report.rss_bytes = beat.rss_bytes
    worker.report.progress, worker.report.progress_task = beat.progress, task
    worker.report.progress_ns = now_ns - age_ns
    worker.report.cpu_ms, worker.host.busy_ms, worker.host.used_bytes = beat.load
    actions: list[core.Action] = []
    if beat.compiling and task and worker.report.compiling != task:
        text = f"{name} compiles kernels for it, once on this machine"
        actions.append(core.RecordEvent("task.compiling", task_name(task), text))
    worker.report.compiling = task if beat.compiling else 0
    if beat.compiling:
        worker.report.compiling_ns = worker.report.progress_ns
    if task:
        worker.report.idle_beats = 0
        if task in worker.held.skipped:
            return True, actions + _not_skipped(state, worker, task, fence, now_ns)
        _note_start(state, name, task, fence, now_ns)
        record = worker.held.get(task)
        actions += _outran(state, worker, record, now_ns)
        is_judged = not worker.report.is_measured
        if is_judged and record is not None and record.fence == fence:  # else its grant may be over
            reason = over_memory_reason(state, worker, record)
            if reason:
                end = kill_above_limit(state, worker, record, "memory", reason, now_ns)
                return True, actions + end
    elif worker.held and beat.waiting and beat.grants >= worker.held.grant:
        worker.report.idle_beats += 1
        if (
            worker.report.idle_beats >= IDLE_BEATS
        ):  # the chunk or its results were lost in transport
            reason = "it holds tasks and runs none"
            return True, actions + worker_unusable(state, name, reason, now_ns)
    return True, actions


def _not_skipped(
    state: scheduler_state.SchedulerState,
    worker: state_nodes.Worker,
    task: int,
    fence: int,
    now_ns: int,
) -> list[core.Action]:
    """Stop a task that had ended and that its worker started before the skip arrived; kill the
    worker after the grace period."""
    skipped_fence, until_ns = worker.held.skipped[task]
    if skipped_fence != fence:
        return []
    if not until_ns:
        worker.held.skipped[task] = fence, now_ns + deadlines.STOP_GRACE_NS
        return [core.StopAttempt(worker.name, task, fence, "cancelled")]
    if now_ns < until_ns or worker.killed:
        return []
    return state.cluster.kill(worker, "did not stop a task that has ended")


def worker_unusable(
    state: scheduler_state.SchedulerState, name: str, reason: str, now_ns: int
) -> list[core.Action]:
    """Kill a worker; its tasks are queued again and none of them is charged."""
    worker = state.cluster.workers.get(name)
    if worker is None:
        return []
    return [
        *state.cluster.kill(worker, reason),
        *declare_worker_lost(state, worker, reason, now_ns),
    ]


def worker_lost(
    state: scheduler_state.SchedulerState,
    name: str,
    start: int,
    reason: str,
    now_ns: int,
    log: str = "",
    *,
    blame: bool = True,
) -> list[core.Action]:
    """Handle the end of a worker's processes; `blame`: a task or the pool may be the cause."""
    worker = state.cluster.workers.get(name)
    if worker is None or worker.start != start:
        if state.cluster.unreaped_workers.get(name) == start:
            del state.cluster.unreaped_workers[name]
            for pool in state.cluster.pools.values():
                pool.starts.names_below = 0
            record = state.cluster.uncharged.pop(name, None)
            if record is not None and blame:  # its node is there: the worker was at fault
                record.deaths += 1
        return []
    actions = declare_worker_lost(state, worker, reason, now_ns, log, blame=blame)
    del state.cluster.unreaped_workers[name]
    return actions


def declare_worker_lost(
    state: scheduler_state.SchedulerState,
    worker: state_nodes.Worker,
    reason: str,
    now_ns: int,
    log: str = "",
    *,
    blame: bool = True,
) -> list[core.Action]:
    """Remove a worker; its name is not reused while its processes may live."""
    pool = state.cluster.pools[worker.pool]
    held = list(worker.held.values())
    spent = _Spent.of(worker, now_ns)
    state.cluster.remove_worker(worker)
    state.cluster.unreaped_workers[worker.name] = worker.start
    is_starting = worker.state == WorkerState.STARTING
    if is_starting:
        blame = blame and not state.cluster.lost_launchers
        for host, _ in worker.host_ranks:
            host.avoid_until_ns = now_ns + state_nodes.AVOID_NS
    retired = worker.state == WorkerState.DRAINING and not held
    worker.state = WorkerState.GONE if retired else WorkerState.LOST
    if retired:
        return []
    device = pool.device
    state.cluster.lost_workers[device] = state.cluster.lost_workers.get(device, 0) + 1
    actions: list[core.Action] = [core.RecordEvent("worker.lost", worker.name, reason)]
    if held:
        charged = blame and not worker.killed
        actions += _requeue_or_end(state, worker, held, reason, log, charged, spent, now_ns)
    elif blame:
        actions.append(pool.starts.record_failure(reason, now_ns))
    else:
        actions += pool.starts.back_off(now_ns, reason if is_starting else "")
    return actions


class _Spent(msgspec.Struct, frozen=True):
    """Time of a worker that is not charged yet, and how much of it reservations have paid, by
    task."""

    run_us: int
    slots: float
    paid_us: dict[int, int]

    @classmethod
    def of(cls, worker: state_nodes.Worker, now_ns: int) -> _Spent:
        held, run_ns = worker.held, worker.held.uncharged_ns(now_ns)
        paid_us = {r.number: dedicated_workers.paid_us(worker, r, now_ns) for r in held.values()}
        return cls(run_ns // 1000, held.mean_slots(worker, now_ns), paid_us)


def _requeue_or_end(
    state: scheduler_state.SchedulerState,
    worker: state_nodes.Worker,
    held: list[core.TaskRecord],
    reason: str,
    log: str,
    charged: bool,
    spent: _Spent,
    now_ns: int,
) -> list[core.Action]:
    """Requeue the tasks of a lost worker at the front, except those that end here. Tasks that end
    spend units of their reservation for the time that they ran. Code of users that ended its
    worker, and a task that did not stop when it was asked to, pay for the attempt."""
    pool = state.cluster.pools[worker.pool]
    verdict = crashes.attribute_crash(held, reason, log, worker.process.node, charged)
    if not (charged or worker.killed):
        verdict.endings.extend(
            jobs.cut_off(state.cluster.pools[worker.pool].spec, worker, held, log, now_ns)
        )
    state.tasks.incidents.record(verdict)
    guilty = verdict.charged_task if pool.runs_users_code else None
    if held[0].stop.reason and (worker.killed or pool.runs_users_code):
        guilty = held[0]
    if guilty is not None:
        charge_attempt(
            state, guilty, spent.run_us, spent.slots, spent.paid_us.get(guilty.number, 0)
        )
    actions: list[core.Action] = []
    requeued = []
    ran_ns = {r.number: now_ns - r.started_ns for r in held if r.phase == core.Phase.RUNNING}
    for record in held:
        state.tasks.running -= record.phase == core.Phase.RUNNING
        record.waits += ((int(WaitReason.LOST), (now_ns - record.sent_ns) // 1000),)
        record.preempted = False
        if record.prepaid is not None:  # a run on the device keeps its place
            record.prepaid = 0, record.prepaid[1]
        record.phase = core.Phase.WAITING
        record.worker = ""
        record.interrupted = False
    for ending in verdict.endings:
        number = ending.record.number
        state.tasks.pop(number)
        state.reservations.settle(number, ran_ns.get(number, 0))
        devices.withdraw_run(state, ending.record, now_ns)
        state.release_units(ending.record)
        state.finalize(ending.record, ending.state)
        earlier = ending.record.earlier or core.EarlierAttempts()
        actions.append(msgspec.structs.replace(ending, used=earlier.used, units=earlier.units))
    for record in held:
        if record.phase == core.Phase.WAITING:
            requeued.append(record)
            note = f"attempt {record.attempts + 1} ({worker.name} was lost: {reason})"
            actions.append(core.RecordEvent("task.requeued", task_name(record.number), note))
    state.tasks.lost_attempts += len(held)
    devices.resend_runs(state, pool, requeued)
    pool.queue.requeue_front(requeued)
    return actions


def _expire_silent_workers(
    state: scheduler_state.SchedulerState, unheard: list[state_nodes.Worker], now_ns: int
) -> list[core.Action]:
    """Declare workers without a heartbeat for too long lost. `unheard`: see `_unheard`."""
    actions: list[core.Action] = []
    is_single = len(state.cluster.nodes.hosts) == 1
    draining = [w for pool in state.cluster.pools.values() for w in pool.workers.draining.values()]
    for worker in [*draining, *unheard]:
        if worker.name not in state.cluster.workers:
            continue
        if worker.state == WorkerState.DRAINING and (
            now_ns - worker.since_ns > state.limits.silent_ns
        ):
            actions += worker_unusable(
                state, worker.name, "it was asked to end and did not", now_ns
            )
            continue
        starting = worker.state == WorkerState.STARTING
        limit = state.limits.start_timeout_ns if starting else state.limits.silent_ns
        if worker.held and state.cluster.pools[worker.pool].is_exclusive:
            limit = max(limit, HARDWARE_SILENT_NS)
        if now_ns - worker.heard_ns > limit:
            silence = f"for {(now_ns - worker.heard_ns) / 1e9:.1f} s"
            reason = f"silent {silence}"
            if starting:
                reason = f"not ready {silence} without progress: start_timeout_s"
            actions.append(core.KillWorker(worker.name, reason, worker.start))
            record = None if starting else _uncharged_task(state, worker)
            # A node falls silent worker by worker: an idle one says nothing about its pool.
            blame = record is None and (starting or bool(worker.held) or is_single)
            actions += declare_worker_lost(state, worker, reason, now_ns, blame=blame)
            if record is not None and record.phase != core.FINAL:
                state.cluster.uncharged[worker.name] = record
    return actions


def _uncharged_task(
    state: scheduler_state.SchedulerState, worker: state_nodes.Worker
) -> core.TaskRecord | None:
    """Return the task of a silent worker that is not charged yet, because the worker is the only
    one on a node: the node may be lost. The last charge before `poison` is not postponed, so that
    the attempts of a task that silences its workers are bounded."""
    if len(state.cluster.nodes.hosts) == 1 or len(worker.held) != 1:
        return None
    (record,) = worker.held.values()
    ready = (WorkerState.IDLE, WorkerState.BUSY)
    is_alone = any(
        all(each is worker or each.state not in ready for each in host.workers.values())
        for host, _ in worker.host_ranks
    )
    return record if is_alone and record.deaths < crashes.POISON_DEATHS - 1 else None


# --- nodes and pools ------------------------------------------------------------------------


def scale(
    state: scheduler_state.SchedulerState,
    name: str,
    min_workers: int,
    max_workers: int,
    *,
    overcommit: bool = False,
) -> list[core.Action]:
    """Set the bounds of a pool's size; `overcommit`: also beyond the capacity of its nodes. Raises
    OptionError, NotFoundError."""
    pool = state.cluster.pools.get(name)
    if pool is None or pool.base:
        names = [n for n, p in state.cluster.pools.items() if not p.base]
        hint = f"pools: {', '.join(names)}"
        if pool is None:
            raise NotFoundError(f"there is no pool {name[:64]!r}", hint=hint)
        message = f"pool {name!r} is made on demand and has as many workers as its tasks need"
        raise OptionError(message, hint=hint)
    if not 0 <= min_workers <= max_workers:
        text = f"pool {name!r}: {min_workers} to {max_workers} workers is not a range"
        raise OptionError(text, hint="0 <= min_workers <= max_workers")
    pool.spec = msgspec.structs.replace(pool.spec, min=min_workers, max=max_workers)
    pool.overcommit = overcommit
    return [core.RecordEvent("pool.scaled", name, f"{min_workers} to {max_workers} workers")]


def drain_node(
    state: scheduler_state.SchedulerState, name: str, reason: str, now_ns: int
) -> list[core.Action]:
    """Start nothing more on a node; its workers end when idle and are replaced elsewhere. Raises
    NotFoundError."""
    host = _host(state, name)
    host.drained, host.drained_until_ns = reason or "no reason given", 0
    state.cluster.nodes_changed()
    actions: list[core.Action] = [core.RecordEvent("node.drained", name, host.drained)]
    for worker in list(host.workers.values()):
        actions += state.cluster.retire(worker, f"node {name} is drained", now_ns)
    return actions + record_unplaceable(state)


def resume(
    state: scheduler_state.SchedulerState, name: str, is_probed: bool = False
) -> list[core.Action]:
    """Use a drained or lost node, or a quarantined pool, again. `is_probed`: the launcher cannot
    start anything on the node and still looks for it, so the node stays lost until it is back."""
    pool = state.cluster.pools.get(name)
    if pool is not None and name not in state.cluster.nodes.hosts:
        pool.starts.record_success()
        return [core.RecordEvent("pool.resumed", name, "its workers are started again")]
    host = _host(state, name)
    state.calendar.release_node(name)
    return use_node(state, host, is_probed)


def use_node(
    state: scheduler_state.SchedulerState, host: state_nodes.NodeState, is_probed: bool = False
) -> list[core.Action]:
    """Use a node again. `is_probed`: see `resume`."""
    name = host.node.name
    host.drained, host.drained_until_ns, host.avoid_until_ns = "", 0, 0
    host.lost = (host.lost or "lost").removesuffix(_PROBED) + _PROBED if is_probed else ""
    state.cluster.nodes_changed()
    text = f"once it is back ({host.lost})" if is_probed else "workers may be placed there again"
    return [core.RecordEvent("node.resumed", name, text)]


def node_lost(
    state: scheduler_state.SchedulerState, name: str, reason: str, now_ns: int
) -> list[core.Action]:
    """Declare a node and its workers lost; neither their pools nor their tasks are charged."""
    host = state.cluster.nodes.hosts.get(name)
    if host is None or host.lost:
        return []
    host.lost = reason or "lost"
    state.cluster.nodes_changed()
    actions: list[core.Action] = [core.RecordEvent("node.lost", name, host.lost)]
    for worker in list(host.workers.values()):
        actions.append(core.KillWorker(worker.name, f"node {name} was lost", worker.start))
        actions += declare_worker_lost(
            state, worker, f"node {name} was lost: {host.lost}", now_ns, blame=False
        )
        state.cluster.pools[worker.pool].starts.resume()  # other nodes are sound
    return actions + record_unplaceable(state)


def node_back(state: scheduler_state.SchedulerState, name: str) -> list[core.Action]:
    """Use a lost node again, because the launcher reports it back."""
    host = state.cluster.nodes.hosts.get(name)
    if host is None or not host.lost:
        return []
    host.lost = ""
    state.cluster.nodes_changed()
    host.avoid_until_ns = 0
    return [core.RecordEvent("node.back", name, f"drained: {host.drained}" if host.drained else "")]


def launcher_lost(
    state: scheduler_state.SchedulerState, name: str, reason: str, now_ns: int
) -> list[core.Action]:
    """Record that a part of the launcher, such as a DVM, is lost. Workers that die with it may be
    reported before it is."""
    state.cluster.lost_launchers.add(name)
    actions: list[core.Action] = [core.RecordEvent("dvm.lost", name, reason)]
    for pool in state.cluster.pools.values():
        actions += pool.starts.take_back(now_ns - LAUNCHER_LOSS_NS, f"{name} was lost: {reason}")
    return actions


def launcher_started(
    state: scheduler_state.SchedulerState, name: str, message: str
) -> list[core.Action]:
    """Record that a part of the launcher is up; starts that waited for it wait no more."""
    if name in state.cluster.lost_launchers:
        state.cluster.lost_launchers.remove(name)
        for pool in state.cluster.pools.values():
            if not pool.starts.failures:
                pool.starts.resume()
    return [core.RecordEvent("dvm.started", name, message)]


def detect_silent_nodes(state: scheduler_state.SchedulerState, now_ns: int) -> list[core.Action]:
    """Declare silent workers lost, and a node lost if all its workers are silent."""
    actions: list[core.Action] = []
    unheard = _unheard(state, now_ns)
    hosts = {h.node.name: h for w in unheard for h, _ in w.host_ranks}
    for host in hosts.values() if len(state.cluster.nodes.hosts) > 1 else ():
        on_node = host.workers.values()
        ready = [w for w in on_node if w.state in (WorkerState.IDLE, WorkerState.BUSY)]
        silent = [w for w in ready if now_ns - w.heard_ns > state.limits.silent_ns]
        if len(silent) > 1 and len(silent) == len(ready):
            reason = f"all its {len(silent)} workers are silent"
            actions += node_lost(state, host.node.name, reason, now_ns)
    return actions + _expire_silent_workers(state, unheard, now_ns)


def _unheard(state: scheduler_state.SchedulerState, now_ns: int) -> list[state_nodes.Worker]:
    """Return the workers, but those that drain, that may be silent for too long: the only look of
    a tick at all workers."""
    limits = state.limits
    since_ns = now_ns - min(limits.silent_ns, limits.start_timeout_ns)
    found = [worker for worker in state.cluster.workers.values() if worker.heard_ns < since_ns]
    return [worker for worker in found if worker.state is not WorkerState.DRAINING]


def _host(state: scheduler_state.SchedulerState, name: str) -> state_nodes.NodeState:
    host = state.cluster.nodes.hosts.get(name)
    if host is None:
        nodes, pools = ", ".join(state.cluster.nodes.hosts), ", ".join(state.cluster.pools)
        hint = f"nodes: {nodes}; pools: {pools}"
        raise NotFoundError(f"there is no node or pool {name[:64]!r}", hint=hint)
    return host


def record_unplaceable(state: scheduler_state.SchedulerState) -> list[core.RecordEvent]:
    """Return an event for each pool with waiting tasks that fit no node now. Called when a node was
    lost or drained. Only the first MAX_CHECKED unfinished tasks are checked."""
    if state.cluster.capacity.is_whole:
        return []
    by_route: dict[core.Route, str] = {}
    counts: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    for record in itertools.islice(state.tasks.values(), MAX_CHECKED):
        if record.phase != core.Phase.WAITING:
            continue
        reason = by_route.get(record.route)
        if reason is None:
            reason = by_route[record.route] = state.cluster.unplaceable_reason(record.route)
        if reason:
            counts[record.route.pool] += 1
            reasons.setdefault(record.route.pool, reason)
    suffix = " or more" if len(state.tasks) > MAX_CHECKED else ""
    return [
        core.RecordEvent(
            "task.unplaceable", pool, f"{count}{suffix} waiting tasks fit no node: {reasons[pool]}"
        )
        for pool, count in counts.items()
    ]


# --- memory ---------------------------------------------------------------------------------


def granted_bytes(worker: state_nodes.Worker) -> int:
    """Return the resident memory of all ranks of a worker that its grants account for: that of its
    processes without tasks, and that of its tasks."""
    return process_bytes(worker) + task_bytes(worker)


def _has_call(worker: state_nodes.Worker) -> bool:
    return any(is_call(record.batch.terms) for record in worker.held.values())


def process_bytes(worker: state_nodes.Worker) -> int:
    """Return the memory of the processes of a worker without its tasks: as it reports it, and at
    most PROCESS_BYTES for a rank, so that what earlier tasks leaked does not count. Calls and
    the driver of a GPU load libraries while they run: they are granted the most."""
    if worker.gpus:
        return worker.ranks * GPU_PROCESS_BYTES
    if not worker.report.base_bytes or _has_call(worker):
        return worker.ranks * PROCESS_BYTES
    return worker.ranks * min(PROCESS_BYTES, worker.report.base_bytes)


def task_bytes(worker: state_nodes.Worker) -> int:
    """Return the memory granted to the tasks of a worker, over all its ranks. That of a call (a
    function, the compiler) is not known before: it may take that of its worker's slots."""
    result = worker.reserved + worker.memory_bytes
    if _has_call(worker):
        node = worker.host.node
        slots_bytes = max(1, worker.slots) * (node.memory_bytes // max(1, node.slots))
        result = max(result, slots_bytes)
    program_bytes = max((record.size_bytes for record in worker.held.values()), default=0)
    return worker.ranks * (result + PROGRAM_FACTOR * program_bytes) + worker.kept.bytes


def memory_bound(worker: state_nodes.Worker) -> int:
    """Return the resident memory above which a worker is ended: estimates are not exact."""
    tasks = task_bytes(worker)
    margin = max(round((GRANT_FACTOR - 1) * tasks), worker.ranks * GRANT_MARGIN_BYTES)
    return process_bytes(worker) + tasks + margin


def kernel_bound(worker: state_nodes.Worker) -> int:
    """Return the memory at which the kernel ends a worker, where control groups are delegated. It
    does so at once, and counts child processes and files in memory: there is more room."""
    return memory_bound(worker) + worker.ranks * PROCESS_BYTES


def over_memory_reason(
    state: scheduler_state.SchedulerState, worker: state_nodes.Worker, record: core.TaskRecord
) -> str:
    """Return the reason to end a worker that runs this task, by its last measurements or
    heartbeats; "" if there is none."""
    used = worker.report.rss_bytes
    if used <= memory_bound(worker):
        worker.report.over_beats = 0
        return ""
    if state.cluster.pools[worker.pool].is_exclusive:  # a provider's library is granted no memory
        return ""
    worker.report.over_beats += 1
    if worker.report.over_beats < OVER_BEATS:
        return ""
    name = task_name(record.number)
    return f"{name} used {size(used)} of memory where {size(granted_bytes(worker))} were granted"


def worker_measured(
    state: scheduler_state.SchedulerState,
    name: str,
    start: int,
    used_bytes: int,
    processes: int,
    now_ns: int,
) -> list[core.Action]:
    """Record what the service has measured of a worker's processes; from now on its heartbeats do
    not count. End a worker that took too much; the task that it runs is charged."""
    worker = state.cluster.workers.get(name)
    if worker is None or worker.start != start:
        return []
    worker.report.is_measured, worker.report.rss_bytes = True, used_bytes
    record = next((r for r in worker.held.values() if r.phase == core.Phase.RUNNING), None)
    if record is None:
        record = next(iter(worker.held.values()), None)
    if record is None:
        worker.report.over_beats = 0
        return []
    if processes > MAX_PROCESSES:
        reason = f"{task_name(record.number)} had {processes} processes; {MAX_PROCESSES} may be"
        return kill_above_limit(state, worker, record, "processes", reason, now_ns)
    if used_bytes > FAR_ABOVE * memory_bound(worker):
        worker.report.over_beats = OVER_BEATS  # no second figure is waited for
    reason = over_memory_reason(state, worker, record)
    return kill_above_limit(state, worker, record, "memory", reason, now_ns) if reason else []


def worker_distrusted(
    state: scheduler_state.SchedulerState, name: str, reason: str, now_ns: int
) -> list[core.Action]:
    """End a worker that sent what no worker sends, and charge the task that it runs."""
    worker = state.cluster.workers.get(name)
    if worker is None:
        return []
    running = next((r for r in worker.held.values() if r.phase == core.Phase.RUNNING), None)
    if running is not None:
        running.announced = True  # the task is known: no other one is a suspect
    return [
        core.RecordEvent("worker.distrusted", name, reason),
        core.KillWorker(name, reason, worker.start),
        *declare_worker_lost(state, worker, reason, now_ns, blame=bool(worker.held)),
    ]


def worker_over_disk(
    state: scheduler_state.SchedulerState, name: str, reason: str, now_ns: int
) -> list[core.Action]:
    """End a worker that wrote too much; the task that it runs is charged."""
    worker = state.cluster.workers.get(name)
    if worker is None:
        return []
    record = next((r for r in worker.held.values() if r.phase == core.Phase.RUNNING), None)
    if record is None:
        return worker_unusable(state, name, reason, now_ns)
    return kill_above_limit(state, worker, record, "disk", reason, now_ns)


def kill_above_limit(
    state: scheduler_state.SchedulerState,
    worker: state_nodes.Worker,
    record: core.TaskRecord,
    resource: str,
    reason: str,
    now_ns: int,
) -> list[core.Action]:
    """Kill a worker whose running task took too much of a resource. The task is charged with the
    loss of the worker."""
    record.announced = True  # the task is known: no other one is a suspect
    return [
        core.RecordEvent(f"worker.over_{resource}", worker.name, reason),
        core.KillWorker(worker.name, reason, worker.start),
        *declare_worker_lost(state, worker, reason, now_ns),
    ]


def service_memory(state: scheduler_state.SchedulerState, used_bytes: int) -> list[core.Action]:
    """Record the resident memory of the service; report when it passes the limit, and when it is
    below again."""
    limit, was_above = state.limits.service_bytes, state.lacks_memory
    is_above = 0 < limit < used_bytes
    state.service_bytes, state.lacks_memory = used_bytes, is_above
    if is_above == was_above:
        return []
    text = f"the service uses {size(used_bytes)} of memory; its limit is {size(limit)}"
    return [core.RecordEvent(f"service.memory_{'full' if is_above else 'freed'}", "service", text)]
